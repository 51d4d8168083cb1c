//! A network as a folder: its shapes as `config.json`, weights, words.

use super::radial::RadialRouter;
use super::scratch::{ScratchRecipe, ScratchWay, Trained};
use super::walk::Rules;
use crate::error::{Error, InputError, Result};
use crate::model::{
    Model, RadialDescription, RadialKv, SkipDescription, SkipKv, TableDescription, Visibility,
};
use crate::report::Staged;
use crate::weights::{WordTable, write_llama};
use burn::tensor::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder};

/// Shapes of a network: a Llama whose head is its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkShape {
    /// Layers of the pool.
    pub layers: u32,
    /// Width of the stream.
    pub width: u32,
    /// Heads.
    pub heads: u32,
    /// Width of the feed-forward part.
    pub feed_forward: u32,
    /// Words.
    pub words: u32,
    /// Most tokens of a sequence.
    pub context: u32,
}

impl NetworkShape {
    /// Its `config.json`.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": true,
            "vocab_size": self.words,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "torch_dtype": "float32"
        })
    }
}

/// A folder that gets its name when it is whole.
#[derive(Debug)]
pub struct Folder {
    inside: TempDir,
    name: PathBuf,
}

impl Folder {
    /// A new folder, beside the place where it will stand.
    ///
    /// # Errors
    /// A name that is taken, and whatever the system refuses.
    pub fn create(name: &Path) -> Result<Folder> {
        if name.exists() {
            let what = "the name of a folder that is not there yet";
            return Err(InputError::expected(what).key("--out").found(name.display()).into());
        }
        let parent = match name.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let inside = tempfile::Builder::new()
            .prefix(".radialsim-")
            .tempdir_in(parent)
            .map_err(Error::io(parent, "make a folder in"))?;
        Ok(Folder { inside, name: name.to_owned() })
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        self.inside.path()
    }

    /// The shapes that a `config.json` says, which stays in the folder.
    ///
    /// # Errors
    /// Shapes that fit no model.
    pub fn model(&self, config: &Value) -> Result<Model> {
        let path = self.path().join("config.json");
        std::fs::write(&path, config.to_string()).map_err(Error::io(&path, "write"))?;
        let mut model = Model::from_config(&path)?;
        model.name =
            self.name.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(model)
    }

    /// Writes weights, words from another folder, and who sends tokens: where they do not just take all layers in order, as the section
    /// `radial` of `config.json` and as `router.safetensors`.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn write(
        &self,
        model: &Model,
        config: &Value,
        trained: &Trained,
        recipe: &ScratchRecipe,
        words: &Path,
    ) -> Result<()> {
        let mut config = config.clone();
        let rules = recipe.rules;
        let router = match (recipe.way, &trained.router) {
            (_, Some(router)) => Some(router.clone()),
            (ScratchWay::InOrder, None) if rules.hops != model.layers => {
                Some(RadialRouter::in_order(model.layers, model.hidden, &Device::flex()))
            }
            _ => None,
        };
        if let Some(router) = router {
            let described = described(&model.name, &rules);
            config["radial"] = json!(described);
            self.router(&router.weights(described).bytes())?;
        } else if let Some(depths) = &trained.depths {
            let candidates = (0..model.layers).map(|layer| [layer % 2 == 1; 2]).collect();
            let described = SkipDescription {
                kind: "skip".into(),
                model: model.name.clone(),
                kv: SkipKv::None,
                candidates,
            };
            config["radial"] = json!(described);
            self.router(&depths.whole().weights(described).bytes())?;
        } else if !trained.table.is_empty() {
            let described = TableDescription {
                kind: "table".into(),
                model: model.name.clone(),
                hops: rules.hops,
                kv: RadialKv::Unified,
                visible: Visibility::OnePerToken,
            };
            config["radial"] = json!(described);
            let words = trained.table.len() as u32 / rules.hops;
            self.router(&WordTable { described, words, layers: trained.table.clone() }.bytes())?;
        }
        write_llama(self.path(), &config, &trained.parameters.values(model))?;
        let from = words.join("tokenizer.json");
        std::fs::copy(&from, self.path().join("tokenizer.json")).map_err(Error::io(&from, "copy"))?;
        Ok(())
    }

    fn router(&self, bytes: &[u8]) -> Result<()> {
        let path = self.path().join("router.safetensors");
        std::fs::write(&path, bytes).map_err(Error::io(&path, "write"))
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn finish(self) -> Result<()> {
        let path = self.inside.keep();
        std::fs::rename(&path, &self.name).map_err(Error::io(&self.name, "write"))
    }
}

/// What a radial router's file says beside its weights.
fn described(model: &str, rules: &Rules) -> RadialDescription {
    RadialDescription {
        kind: "radial".into(),
        model: model.into(),
        hops: rules.hops,
        least_hops: rules.least_hops,
        weighted: rules.weighted,
        kv: RadialKv::Unified,
        visible: Visibility::OnePerToken,
    }
}

/// Writes a radial router for a model of this name as a file of its own.
///
/// # Errors
/// Whatever the system refuses.
pub fn write_router(router: &RadialRouter, model: &str, rules: &Rules, path: &Path) -> Result<()> {
    let bytes = router.weights(described(model, rules)).bytes();
    Staged::create(path)?.finish(|out| out.write_all(&bytes))
}

/// Words made of bytes, trained on texts by merging the pairs that are most frequent (BPE: Sennrich et al., arXiv 1508.07909): a
/// `tokenizer.json`. Word 0 ends a text.
///
/// # Errors
/// Texts of which no words can be made.
pub fn train_words(texts: &[String], words: u32) -> Result<String> {
    let wrong = |error: tokenizers::Error| -> Error {
        InputError::expected(format!("texts to make words of ({error})")).key("--text").into()
    };
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_post_processor(None::<PostProcessorWrapper>)
        .with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())))
        .build()
        .map_err(wrong)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(words as usize)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from("<|end|>", true)])
        .show_progress(false)
        .build();
    let lines = texts.iter().flat_map(|text| text.split_inclusive('\n'));
    tokenizer.train(&mut trainer, lines).map_err(wrong)?;
    tokenizer.to_string(true).map_err(wrong)
}
