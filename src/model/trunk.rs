//! A family's keys become the shapes of a model.

use super::families::{Family, Ffn, HeadDim, Scale};
use super::flag::Flag;
use super::json::Object;
use super::{
    Activation, Biases, FFN, HEADS, Input, LAYERS, Model, Norm, NormPlacement, QkNorm, ROWS, Scales, WIDTH,
    experts, latent, rope_config, window,
};
use crate::error::Result;

/// Non-linearities by their names in transformers (`activations.py`, `ACT2FN`).
pub(super) const ACTIVATIONS: [(&str, Activation); 16] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::GeluErf),
    ("gelu_python", Activation::GeluErf),
    ("gelu_new", Activation::Gelu),
    ("gelu_fast", Activation::Gelu),
    ("gelu_accurate", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::Gelu),
    ("gelu_python_tanh", Activation::Gelu),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("swigluoai", Activation::Other),
    ("situ", Activation::Other),
    ("mish", Activation::Other),
    ("laplace", Activation::Other),
];

/// Reads everything that a family's keys say.
pub(super) fn read(model: &mut Model, config: &Object, family: &Family) -> Result<()> {
    let keys = &family.keys;
    read_widths(model, config, family)?;
    model.gated = family.gated;
    read_activation(model, config, family)?;
    read_norms(model, config, family)?;
    model.biases = Biases {
        qkv: family.qkv_bias.read(config)?,
        output: family.output_bias.read(config)?,
        ffn: family.ffn_bias.read(config)?,
        head: family.head_bias,
    };
    let width = config.number_or("word_embed_proj_dim", model.hidden, WIDTH)?;
    model.set_vocabulary(config.number("vocab_size", ROWS)?, width);
    model.tied = config.flag("tie_word_embeddings", family.tied)?;
    let stated = config.number_or(keys.context, 0, u64::MAX / 2)?;
    model.context = stated;
    if let Some(before) = family.positions {
        model.positions = config.number(keys.context, ROWS - before)? + before;
        model.position_offset = before;
    }
    model.scales = scales(model, config, family)?;
    if family.latent {
        latent::read(model, config)?;
    }
    let experts = match &family.experts {
        Some(keys) => experts::read(model, config, keys)?,
        None => Vec::new(),
    };
    if let Some(own) = family.own {
        own(model, config)?;
    }
    rope_config::read(model, config, family)?;
    window::set_kinds(model, config, (family.rotates, family.window), &experts)?;
    model.context = rope_config::context(model, stated);
    for &(key, only) in family.only {
        config.must_be(key, only)?;
    }
    if !family.remark.is_empty() {
        model.remarks.push(family.remark.into());
    }
    Ok(())
}

/// Layers, width, heads and feed-forward width.
fn read_widths(model: &mut Model, config: &Object, family: &Family) -> Result<()> {
    let keys = &family.keys;
    model.layers = config.number(keys.layers, LAYERS)? as u32;
    model.hidden = config.number(config.first_of(&[keys.hidden, "n_embed"]), WIDTH)?;
    model.heads = config.number(keys.heads, HEADS)?;
    let own = config.get("head_dim").is_some() && !family.latent && family.theta.is_some();
    model.head_dim = match (own, family.head_dim) {
        (true, _) => config.number("head_dim", HEADS)?,
        (false, HeadDim::Of(width)) => width,
        (false, HeadDim::Even) => {
            if !model.hidden.is_multiple_of(model.heads) && !family.latent {
                return Err(config.wrong(keys.heads, format!("a divisor of the width {}", model.hidden)));
            }
            model.hidden / model.heads
        }
    };
    if model.q_dim() > WIDTH {
        let expected = format!("{} heads to be at most {WIDTH} wide together", model.heads);
        return Err(config.wrong("head_dim", expected));
    }
    if family.theta.is_some() && !family.latent && !model.head_dim.is_multiple_of(2) {
        let key = if own { "head_dim" } else { keys.heads };
        let expected = format!("heads of an even width, not {}, as rotation takes pairs", model.head_dim);
        return Err(config.wrong(key, expected));
    }
    model.kv_heads = model.heads;
    if !keys.kv_heads.is_empty() {
        let absent = if family.kv_heads == 0 { model.heads } else { family.kv_heads };
        model.kv_heads = config.number_or(keys.kv_heads, absent, model.heads)?;
        if !model.heads.is_multiple_of(model.kv_heads) {
            let expected = format!("a divisor of {} ({})", model.heads, keys.heads);
            return Err(config.wrong(keys.kv_heads, expected));
        }
    }
    let key = config.first_of(keys.ffn);
    model.ffn = match family.ffn {
        Ffn::Needed => config.number(key, FFN)?,
        Ffn::Times(times) => config.number_or(key, times * model.hidden, FFN)?,
    };
    Ok(())
}

fn read_activation(model: &mut Model, config: &Object, family: &Family) -> Result<()> {
    let key = config.first_of(family.keys.activation);
    let named = config.get(key).is_some();
    model.activation = match named {
        true => config.choice(key, &ACTIVATIONS)?,
        false => ACTIVATIONS.iter().find(|(name, _)| *name == family.activation).expect("a known one").1,
    };
    // Gemma's `hidden_act` of "gelu" is wrong in its files and means the tanh form (transformers, GemmaConfig).
    if family.embedding_root && model.activation == Activation::GeluErf && key == "hidden_act" {
        model.activation = Activation::Gelu;
    }
    if model.activation == Activation::Other {
        model.remarks.push(config.named(key, config.get(key).unwrap_or(&serde_json::Value::Null)));
    }
    Ok(())
}

fn read_norms(model: &mut Model, config: &Object, family: &Family) -> Result<()> {
    model.norm = family.norm;
    if !family.keys.epsilon.is_empty() {
        let epsilon = config.positive_or(family.keys.epsilon, model.norm.epsilon())?;
        model.norm = Norm { epsilon_1e12: whole(epsilon * 1e12), ..model.norm };
    }
    let (parallel, placement) = family.parallel;
    model.placement = if parallel.read(config)? { placement } else { family.placement };
    model.qk_norm = match family.qk_norm {
        (flag, kind) if flag.read(config)? => kind,
        _ => QkNorm::None,
    };
    Ok(())
}

/// The nearest whole number.
fn whole(value: f64) -> u64 {
    (value + 0.5) as u64
}

fn scales(model: &Model, config: &Object, family: &Family) -> Result<Scales> {
    let mut scales = Scales::NONE;
    if family.embedding_root {
        scales.embedding = libm::sqrt(model.hidden as f64);
    }
    for &(key, absent, what) in family.scales {
        // A cap or scalar of null is none, where the class has another for an absent key.
        let none = config.is_null(key) || (absent == 0.0 && config.get(key).is_none());
        if none {
            config.pass_over(key);
            continue;
        }
        let value = config.positive_or(key, absent)?;
        match what {
            Scale::Embedding => scales.embedding = value,
            Scale::Residual => scales.residual = value,
            Scale::Attention => scales.attention = Some(value),
            Scale::AttentionRoot => scales.attention = Some(1.0 / libm::sqrt(value)),
            Scale::Logits => scales.logits = value,
            Scale::LogitsInverse => scales.logits = 1.0 / value,
            Scale::AttentionCap => scales.attention_cap = Some(value),
            Scale::LogitCap => scales.logit_cap = Some(value),
        }
    }
    Ok(scales)
}

/// OPT: norms stand behind the sums in its 350M model, which then has none before the head (`OPTDecoder`).
pub(super) fn opt(model: &mut Model, config: &Object) -> Result<()> {
    let before = config.flag("do_layer_norm_before", true)?;
    model.placement = if before { NormPlacement::Before } else { NormPlacement::AfterSum };
    model.final_norm = before && !config.flag("_remove_final_layer_norm", false)?;
    Ok(())
}

/// Falcon: one key-value head for all queries unless it is the newer architecture, and norms that follow from three keys
/// (`FalconDecoderLayer`).
pub(super) fn falcon(model: &mut Model, config: &Object) -> Result<()> {
    let newer = config.flag("new_decoder_architecture", false)?;
    let one = config.flag("multi_query", true)?;
    let heads_key = config.first_of(&["num_kv_heads", "n_head_kv"]);
    let kv_heads = config.number_or(heads_key, model.heads, model.heads)?;
    model.kv_heads = match (newer, one) {
        (false, true) => 1,
        _ => kv_heads,
    };
    if !model.heads.is_multiple_of(model.kv_heads) {
        return Err(config.wrong(heads_key, format!("a divisor of {}", model.heads)));
    }
    let parallel = config.flag("parallel_attn", true)?;
    let norms = config.number_or("num_ln_in_parallel_attn", if newer { 2 } else { 1 }, 2)?;
    model.placement = match (newer, parallel) {
        (true, _) if norms == 2 => NormPlacement::ParallelEach,
        (_, true) => NormPlacement::Parallel,
        (true, false) => return Err(config.wrong("parallel_attn", "true with new_decoder_architecture")),
        (false, false) => NormPlacement::Before,
    };
    Ok(())
}

/// ViT. Its classes are the entries of `id2label`; a classifier without them has two, Hugging Face's default.
pub(super) fn read_vit(model: &mut Model, config: &Object, bare: bool) -> Result<()> {
    model.layers = config.number("num_hidden_layers", LAYERS)? as u32;
    model.hidden = config.number("hidden_size", WIDTH)?;
    model.heads = config.number("num_attention_heads", HEADS)?;
    if !model.hidden.is_multiple_of(model.heads) {
        return Err(config.wrong("num_attention_heads", format!("a divisor of the width {}", model.hidden)));
    }
    model.kv_heads = model.heads;
    model.head_dim = model.hidden / model.heads;
    model.set_vit(config.choice("hidden_act", &ACTIVATIONS)?);
    model.norm.epsilon_1e12 = whole(config.positive_or("layer_norm_eps", 1e-12)? * 1e12);
    model.ffn = config.number("intermediate_size", FFN)?;
    model.biases.qkv = Flag::Key("qkv_bias", true).read(config)?;
    // With sides of at most 2^12 there are at most 2^24 patches, and no product below overflows.
    let image = config.number("image_size", (1 << 12) - 1)?;
    let side = config.number("patch_size", image)?;
    let channels = config.number("num_channels", super::PATCH_VALUES / (side * side))?;
    let count = (image / side) * (image / side) + 1;
    model.input = Input::Patches { values: channels * side * side, count };
    model.positions = count;
    if bare {
        return Ok(());
    }
    model.outputs = match config.get("id2label") {
        Some(serde_json::Value::Object(labels)) if !labels.is_empty() && labels.len() as u64 <= ROWS => {
            labels.len() as u64
        }
        Some(_) => return Err(config.wrong("id2label", format!("an object of 1 to {ROWS} labels"))),
        None => config.number_or("num_labels", 2, ROWS)?,
    };
    Ok(())
}

impl Model {
    /// The layer of ViT: two matrices after attention, layer norms, biases, no rotation.
    pub(super) fn set_vit(&mut self, activation: Activation) {
        self.gated = false;
        self.activation = activation;
        self.norm = Norm::LAYER;
        self.rope = None;
        self.biases = Biases { qkv: true, output: true, ffn: true, head: false };
    }
}
