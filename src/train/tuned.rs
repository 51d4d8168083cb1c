//! What tuning leaves, as a folder: additions as the peft library keeps them, or a whole model as Hugging Face keeps it.

use super::network::{Additions, LayerWeights, Network};
use crate::error::{Error, InputError, Result};
use crate::model::{Model, Rope};
use crate::weights::{Checkpoint, LayerTensor, Name, PeftFolder, write_llama};
use serde_json::{Value, json};
use std::path::Path;

/// Files that say how a folder's model reads and writes text, copied where the source has them.
const WORDS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "processor_config.json",
];

/// What was tuned.
#[derive(Clone, Debug)]
pub enum Tuned {
    /// Additions to the products.
    Added(Additions),
    /// The weights of the layers.
    Whole(LayerWeights),
}

impl Tuned {
    /// The network with them, for results alone.
    #[must_use]
    pub fn of(&self, network: &Network) -> Network {
        match self {
            Tuned::Added(additions) => network.added(&additions.fixed()),
            Tuned::Whole(weights) => network.with_layers(&weights.fixed()),
        }
    }

    /// Writes it into a folder: the additions, or the whole model that `source` becomes by it.
    ///
    /// # Errors
    /// A model that is no plain Llama ([`plain_llama`]), and whatever the system refuses.
    pub fn write(&self, source: &Checkpoint, network: &Network, folder: &Path) -> Result<()> {
        match self {
            Tuned::Added(additions) => additions.write(network, folder),
            Tuned::Whole(_) => {
                let config = plain_llama(source)?;
                let mut weights = self.of(network).weights();
                if let Some(rope) = network.model().rope.as_ref().filter(|rope| rope.interleaved) {
                    for (name, [_, width], values) in &mut weights {
                        if let Name::Layer(_, LayerTensor::Q | LayerTensor::K) = name {
                            *values = halved(values, *width, network.model().head_dim as usize, rope);
                        }
                    }
                }
                write_llama(folder, &config, &weights)?;
                let file = &source.files()[0];
                let from = file.parent().filter(|_| file.extension().is_some_and(|end| end == "safetensors"));
                let Some(from) = from else { return Ok(()) };
                for name in WORDS {
                    let path = from.join(name);
                    if path.exists() {
                        std::fs::copy(&path, folder.join(name)).map_err(Error::io(&path, "copy"))?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The network with what such a folder holds, for results alone.
    ///
    /// # Errors
    /// What is no such folder, and what was tuned for a model of other shapes.
    pub fn read(network: &Network, folder: &Path) -> Result<Network> {
        if folder.join("adapter_config.json").exists() {
            return Ok(network.added(&Additions::read(network, folder)?.fixed()));
        }
        let checkpoint = Checkpoint::open(folder)?;
        let (found, wanted) = (shapes(checkpoint.model()), shapes(network.model()));
        if found != wanted {
            let what = format!("a model of the shapes {wanted}");
            return Err(InputError::expected(what).key("config.json").found(found).file(folder).into());
        }
        Network::read(&checkpoint, network.device())
    }
}

fn shapes(model: &Model) -> String {
    let Model { layers, hidden, heads, kv_heads, head_dim, ffn, outputs, .. } = model;
    format!(
        "{layers} layers, {hidden} wide, {heads} heads and {kv_heads} for keys of {head_dim}, {ffn} inside, {outputs} words"
    )
}

/// The `config.json` of a model whose weights can be written in the names of Llama.
///
/// # Errors
/// A model of which that file would not say everything: biases, norms of heads, scaled angles, and the like.
pub fn plain_llama(source: &Checkpoint) -> Result<Value> {
    let model = source.model();
    let refused = || {
        let what = "a plain Llama, whose layers are tuned as a whole";
        InputError::expected(what).key("weights").found(&model.name).file(&source.files()[0])
    };
    let theta = model.rope.as_ref().map_or(0.0, |rope| rope.theta);
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": model.hidden,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm.epsilon(),
        "rope_theta": theta,
        "tie_word_embeddings": model.tied,
        "vocab_size": model.outputs,
        "torch_dtype": "float32"
    });
    if let [first, more @ ..] = source.end_ids() {
        config["eos_token_id"] = if more.is_empty() { json!(first) } else { json!(source.end_ids()) };
    }
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "make a folder in"))?;
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).map_err(Error::io(&path, "write"))?;
    let said = Model::from_config(&path).map_err(|_| refused())?;
    // Formats and names are others; the rows of queries and keys are put in the order of Hugging Face.
    let rope = model.rope.as_ref().map(|rope| Rope { interleaved: false, ..rope.clone() });
    let same = Model {
        name: model.name.clone(),
        source: model.source.clone(),
        rope: said.rope.clone(),
        weights: model.weights,
        embedding_weights: model.embedding_weights,
        activations: model.activations,
        kv: model.kv,
        ..said.clone()
    };
    let own = Model { rope: said.rope.clone(), ..model.clone() };
    if same != own || said.rope != rope {
        return Err(refused().into());
    }
    Ok(config)
}

/// Rows of queries or keys whose neighbours turn together, in the order in which halves do: of each head first the even ones of those that turn, then the odd ones.
fn halved(values: &[f32], width: usize, head_dim: usize, rope: &Rope) -> Vec<f32> {
    let turning = rope.width as usize;
    let half = turning / 2;
    let from = |at: usize| match at {
        at if at < half => 2 * at,
        at if at < turning => 2 * (at - half) + 1,
        at => at,
    };
    let row = |row: usize| {
        let (head, at) = (row / head_dim, row % head_dim);
        let from = (head * head_dim + from(at)) * width;
        &values[from..from + width]
    };
    (0..values.len() / width).flat_map(row).copied().collect()
}

impl Additions {
    /// Writes them into a folder as the peft library keeps them.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn write(&self, network: &Network, folder: &Path) -> Result<()> {
        let factors = self.factors();
        let rank = factors.first().map_or(0, |([_, rank], _)| *rank) as u32;
        let pair = |((layer, part, _), pair): (_, &[([usize; 2], Vec<f32>)])| {
            let [(_, down), (_, up)] = pair else { unreachable!("factors come in pairs") };
            (layer, part, down.clone(), up.clone())
        };
        let pairs = network.products().into_iter().zip(factors.chunks_exact(2)).map(pair).collect::<Vec<_>>();
        PeftFolder::write(folder, &network.model().name, rank, &network.products(), &pairs)
    }

    /// Reads them from such a folder.
    ///
    /// # Errors
    /// What is no such folder, and additions for other shapes.
    pub fn read(network: &Network, folder: &Path) -> Result<Additions> {
        let (opened, products) = (PeftFolder::open(folder)?, network.products());
        let factors = opened.factors()?;
        if factors.count() != 2 * products.len() {
            let what = format!("{} factors, two for each product of the model", 2 * products.len());
            return Err(Error::from(InputError::expected(what).found(factors.count()).file(folder)));
        }
        let mut parts = Vec::new();
        for (layer, part, [inputs, outputs]) in products {
            let (rank, down, up) = factors.pair(layer, part, [inputs, outputs])?;
            parts.push((down, [inputs, rank]));
            parts.push((up, [rank, outputs]));
        }
        Ok(Additions::of(parts, network.device()))
    }
}
