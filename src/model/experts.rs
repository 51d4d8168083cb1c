//! Mixtures of experts: feed-forward parts of which a small router picks some for each token.

use super::check::EXPERTS;
use super::flag::Flag;
use super::json::Object;
use super::{FFN, Model, ROWS};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// The experts of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Experts of a layer.
    pub count: u64,
    /// Experts that a token takes.
    pub per_token: u64,
    /// Width of each.
    pub width: u64,
    /// Width of the experts that every token takes, together; 0: there are none.
    pub shared_width: u64,
    /// Whether a gate of one value scales what the shared experts add (Qwen2-MoE).
    pub shared_gate: bool,
    /// How scores become weights.
    pub gating: Gating,
    /// Whether the weights of the chosen experts are made to sum to one.
    pub normalised: bool,
    /// What the weights are multiplied with.
    pub scale: f64,
    /// Whether each expert has a bias that only counts for the choice (DeepSeek-V3).
    pub choice_bias: bool,
    /// Whether the router's product has a bias (gpt-oss).
    pub router_bias: bool,
    /// Groups of experts, and how many of them a token may choose from; (1, 1): no groups.
    pub groups: (u64, u64),
}

/// How an expert's score becomes its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// A sigmoid each.
    Sigmoid,
}

impl Experts {
    /// Parameters of the router. The biases of the choice are no parameters where counts are published: nothing trains them
    /// by gradient.
    pub fn router_params(&self, hidden: u64) -> u64 {
        self.count * (hidden + u64::from(self.router_bias)) + if self.shared_gate { hidden } else { 0 }
    }

    /// Experts that `rows` tokens take among them, where each takes its own independently and all are equally likely: rounded
    /// up, at least as many as one token takes. `count (1 - (1 - per_token / count)^rows)`.
    pub fn taken(&self, rows: u32) -> u64 {
        if rows == 0 {
            return 0;
        }
        let missed = libm::pow(1.0 - self.per_token as f64 / self.count as f64, rows.into());
        let expected = self.count as f64 * (1.0 - missed);
        // 1e-9: rounding must not add an expert to a whole number of them.
        ((expected - 1e-9).ceil() as u64).clamp(self.per_token, self.count)
    }
}

/// Under which keys a family keeps its experts.
#[derive(Clone, Copy)]
pub(super) struct ExpertKeys {
    pub count: &'static [&'static str],
    pub per_token: &'static [&'static str],
    pub width: &'static [&'static str],
    pub shared: Shared,
    pub gating: Gating,
    /// Key that names another gating.
    pub normalised: Flag,
    pub choice_bias: Flag,
    pub router_bias: bool,
    pub scale: &'static str,
    pub dense: Dense,
}

/// How wide the shared experts are.
#[derive(Clone, Copy)]
pub(super) enum Shared {
    /// There are none.
    No,
    /// So many, under this key, of the experts' width.
    Count(&'static str),
    /// Their width stands under this key; the flag: a gate stands before them.
    Width(&'static str, bool),
    /// As wide as an expert (Llama 4).
    One,
}

/// Which layers have no experts.
#[derive(Clone, Copy)]
pub(super) enum Dense {
    /// None.
    No,
    /// The first `first_k_dense_replace`, and those that `moe_layer_freq` leaves out (DeepSeek).
    First,
    /// All but every `decoder_sparse_step`-th, and those in `mlp_only_layers` (Qwen).
    Step,
    /// All but those of a list under this key, or every n-th under the other (Llama 4).
    Interleaved,
}

impl ExpertKeys {
    /// Mixtral (`configuration_mixtral.py`).
    pub const MIXTRAL: ExpertKeys = ExpertKeys {
        count: &["num_local_experts"],
        per_token: &["num_experts_per_tok"],
        width: &["intermediate_size"],
        shared: Shared::No,
        gating: Gating::Softmax,
        normalised: Flag::Yes,
        choice_bias: Flag::No,
        router_bias: false,
        scale: "",
        dense: Dense::No,
    };
    /// Qwen2-MoE and Qwen3-MoE.
    pub const QWEN: ExpertKeys = ExpertKeys {
        count: &["num_experts", "num_local_experts"],
        width: &["moe_intermediate_size"],
        normalised: Flag::Key("norm_topk_prob", false),
        dense: Dense::Step,
        ..ExpertKeys::MIXTRAL
    };
    /// DeepSeek-V3 and those that follow it.
    pub const DEEPSEEK: ExpertKeys = ExpertKeys {
        count: &["n_routed_experts", "num_local_experts", "num_experts"],
        width: &["moe_intermediate_size"],
        shared: Shared::Count("n_shared_experts"),
        gating: Gating::Sigmoid,
        normalised: Flag::Key("norm_topk_prob", true),
        choice_bias: Flag::Yes,
        scale: "routed_scaling_factor",
        dense: Dense::First,
        ..ExpertKeys::MIXTRAL
    };
}

/// Reads the experts, and says of each layer whether it has any.
pub(super) fn read(model: &mut Model, config: &Object, keys: &ExpertKeys) -> Result<Vec<bool>> {
    let of = |names: &'static [&'static str]| config.first_of(names);
    let count = config.number(of(keys.count), EXPERTS)?;
    let per_token = config.number(of(keys.per_token), count)?;
    let width = config.number(of(keys.width), FFN)?;
    let (shared_width, shared_gate) = match keys.shared {
        Shared::No => (0, false),
        Shared::One => (width, false),
        Shared::Count(key) => (width * config.count_or(key, 0, 1 << 10)?, false),
        Shared::Width(key, gate) => {
            let width = config.count_or(key, 0, FFN)?;
            (width, gate && width > 0)
        }
    };
    let gating = match config.get("scoring_func").or_else(|| config.get("score_function")) {
        None => keys.gating,
        Some(_) => {
            let key = config.first_of(&["scoring_func", "score_function"]);
            config.choice(key, &[("softmax", Gating::Softmax), ("sigmoid", Gating::Sigmoid)])?
        }
    };
    let scale = if keys.scale.is_empty() { 1.0 } else { config.positive_or(keys.scale, 1.0)? };
    let groups = (config.number_or("n_group", 1, count)?, config.number_or("topk_group", 1, count)?);
    model.experts = Some(Experts {
        count,
        per_token,
        width,
        shared_width,
        shared_gate,
        gating,
        normalised: keys.normalised.read(config)?,
        scale,
        choice_bias: keys.choice_bias.read(config)?,
        router_bias: keys.router_bias,
        groups,
    });
    which(model.layers, config, keys.dense)
}

/// Whether each layer has experts.
fn which(layers: u32, config: &Object, dense: Dense) -> Result<Vec<bool>> {
    let all = 0..layers;
    if config.get("mlp_layer_types").is_some() {
        let kinds = config.texts("mlp_layer_types", layers as usize)?;
        return kinds
            .iter()
            .map(|kind| match kind.as_str() {
                "sparse" => Ok(true),
                "dense" => Ok(false),
                _ => Err(config.wrong("mlp_layer_types", "\"sparse\" or \"dense\" for each layer")),
            })
            .collect();
    }
    Ok(match dense {
        Dense::No => all.map(|_| true).collect(),
        Dense::First => {
            let first = config.count_or("first_k_dense_replace", 0, ROWS)? as u32;
            let every = match config.get("moe_layer_freq") {
                Some(serde_json::Value::Array(_)) => {
                    return config.flags_of("moe_layer_freq", layers as usize);
                }
                _ => config.number_or("moe_layer_freq", 1, ROWS)? as u32,
            };
            all.map(|layer| layer >= first && layer.is_multiple_of(every)).collect()
        }
        Dense::Step => {
            let step = config.number_or("decoder_sparse_step", 1, ROWS)? as u32;
            let only = config.numbers("mlp_only_layers")?;
            all.map(|layer| !only.contains(&layer.into()) && (layer + 1).is_multiple_of(step)).collect()
        }
        Dense::Interleaved => {
            let listed = config.numbers("moe_layers")?;
            let step = config.number_or("interleave_moe_layer_step", 1, ROWS)? as u32;
            let lists = config.get("moe_layers").is_some();
            all.map(
                |layer| if lists { listed.contains(&layer.into()) } else { (layer + 1).is_multiple_of(step) },
            )
            .collect()
        }
    })
}
