//! A model in plain words.

use super::{Activation, Input, Kind, Model, NormPlacement, QkNorm, Rope, Rotation, Scaling};

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with the unit that suits them: `436.2 MB`, `96 B`.
pub(super) fn size(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

impl Model {
    /// Shapes, formats, parameters and bytes in plain words, a line each; what `radialsim inspect model` shows.
    pub fn describe(&self) -> String {
        let kind = match self.input {
            Input::Tokens { .. } => "reads and writes tokens",
            Input::Patches { .. } => "reads images",
        };
        let lines = [
            ("model", format!("{}, {kind}", self.name)),
            ("source", self.source.clone()),
            ("parameters", self.parameter_words()),
            ("layers", self.layers_words()),
            ("attention", self.attention_words()),
            ("feed-forward", self.ffn_words()),
            ("norms", self.norm_words()),
            ("input", self.input_words()),
            ("head", self.head_words()),
            (
                "formats",
                format!(
                    "weights {}, embedding and head {}, activations {}, keys and values {}{}",
                    self.weights,
                    self.embedding_weights,
                    self.activations,
                    self.kv,
                    self.products
                        .map_or(String::new(), |products| format!(", inputs of products {products}"))
                ),
            ),
            ("layer weights", self.layer_words()),
            ("all weights", format!("{} with all layers resident", size(self.weight_bytes(self.layers)))),
            ("KV of a token", self.kv_words()),
        ];
        let mut text = lines.map(|(name, words)| format!("{name:<14} {words}\n")).concat();
        if self.context > 0 {
            text.push_str(&format!("{:<14} {} tokens\n", "context", grouped(self.context)));
        }
        for remark in &self.remarks {
            text.push_str(&format!("{:<14} {remark}\n", "not modelled"));
        }
        text
    }

    fn parameter_words(&self) -> String {
        let mut words = format!("{} in all", grouped(self.total_params()));
        if self.beside > 0 {
            words.push_str(&format!(", {} of them to see images", grouped(self.beside)));
        }
        match (self.kinds.as_slice(), self.experts) {
            ([kind], None) => words.push_str(&format!(", {} a layer", grouped(self.layer_params(kind)))),
            (_, None) => {}
            (_, Some(_)) => words.push_str(&format!(", {} for a token", grouped(self.active_params()))),
        }
        words
    }

    /// How many layers there are, and of which kinds.
    fn layers_words(&self) -> String {
        if let [kind] = self.kinds.as_slice() {
            let words = self.kind_words(kind);
            let words = if words.is_empty() { words } else { format!(": {words}") };
            return format!("{} alike, {} wide{words}", self.layers, grouped(self.hidden));
        }
        let count = |index: usize| self.pattern.iter().filter(|&&kind| usize::from(kind) == index).count();
        let kinds = self.kinds.iter().enumerate().map(|(index, kind)| {
            let words = self.kind_words(kind);
            format!("{} {}", count(index), if words.is_empty() { "plain".into() } else { words })
        });
        let kinds = kinds.collect::<Vec<_>>().join("; ");
        format!("{}, {} wide: {kinds}", self.layers, grouped(self.hidden))
    }

    /// What a kind of layers has of its own.
    fn kind_words(&self, kind: &Kind) -> String {
        let mut words = Vec::new();
        if let Some(window) = kind.window {
            words.push(format!("window of {}", grouped(window.into())));
        }
        match kind.rotation {
            Rotation::Main => {}
            Rotation::Local => words.push("rotation of its own".into()),
            Rotation::Off => words.push("no rotation".into()),
        }
        if self.experts.is_some() {
            words.push(if kind.experts { "experts".into() } else { "no experts".into() });
        }
        for (kept, what) in [
            (kind.attention_kept, "attention"),
            (kind.ffn_kept, "feed-forward part"),
            (
                kind.shared_kept && self.experts.is_some_and(|experts| experts.shared_width > 0),
                "shared experts",
            ),
        ] {
            if kept && self.weights != self.activations {
                words.push(format!("{what} in {}", self.activations));
            }
        }
        words.join(", ")
    }

    fn attention_words(&self) -> String {
        let mut words = match self.latent {
            None => {
                let sharing = match self.heads / self.kv_heads {
                    1 => "as many key-value heads".to_owned(),
                    each => format!("{} key-value heads (one for {each} queries)", self.kv_heads),
                };
                format!("{} query heads, {sharing}, each {} wide", self.heads, self.head_dim)
            }
            Some(latent) => {
                let chosen = latent.indexer.map_or_else(String::new, |indexer| {
                    format!(", the best {} entries of each", grouped(indexer.most_entries))
                });
                format!(
                    "{} query heads, each {} wide, over latent entries of {} + {}{chosen}",
                    self.heads, self.head_dim, latent.kv_rank, latent.rope_dim
                )
            }
        };
        if let Some(rope) = &self.rope {
            words.push_str(&rope_words(rope, self.head_dim));
        }
        for (is, what) in [
            (self.qk_norm == QkNorm::Head, ", queries and keys normed by head"),
            (
                self.qk_norm == QkNorm::EachHead,
                ", queries and keys normed by head, each with its own weights",
            ),
            (self.qk_norm == QkNorm::Whole, ", queries and keys normed, all heads together"),
            (self.biases.qkv, ", biases on queries, keys and values"),
            (self.biases.output, ", bias on the output"),
        ] {
            if is {
                words.push_str(what);
            }
        }
        if let Some(scale) = self.scales.attention {
            words.push_str(&format!(", scores times {scale:.6}"));
        }
        if let Some(cap) = self.scales.attention_cap {
            words.push_str(&format!(", scores capped at {cap}"));
        }
        words
    }

    fn ffn_words(&self) -> String {
        let activation = match self.activation {
            Activation::Silu => "SiLU",
            Activation::GeluErf => "GELU",
            Activation::Gelu => "GELU (tanh)",
            Activation::QuickGelu => "GELU (sigmoid)",
            Activation::Relu => "ReLU",
            Activation::Relu2 => "ReLU squared",
            Activation::Other => "another non-linearity",
        };
        let matrices = if self.gated { "gated, three matrices" } else { "two matrices" };
        let bias = if self.biases.ffn { ", biases" } else { "" };
        let plain = format!("{} wide, {matrices}, {activation}{bias}", grouped(self.ffn));
        let Some(experts) = self.experts else { return plain };
        let shared = match experts.shared_width {
            0 => String::new(),
            width => format!(", and {} wide for every token", grouped(width)),
        };
        let words = format!(
            "{} of {} experts a token, each {} wide{shared}, {matrices}, {activation}{bias}",
            experts.per_token,
            experts.count,
            grouped(experts.width)
        );
        if self.kinds.iter().all(|kind| kind.experts) { words } else { format!("{words}; else {plain}") }
    }

    fn norm_words(&self) -> String {
        let kind = if self.norm.layer { "mean and variance" } else { "root mean square" };
        let place = match self.placement {
            NormPlacement::Before => "two a layer",
            NormPlacement::AfterSum => "two a layer, behind each sum",
            NormPlacement::AfterBranch => "two a layer, behind each branch",
            NormPlacement::Around => "four a layer, before and behind each branch",
            NormPlacement::Parallel => "one a layer, for both branches side by side",
            NormPlacement::ParallelEach => "two a layer, for branches side by side",
        };
        format!("{kind}, {place}, {} before the head", if self.final_norm { "one" } else { "none" })
    }

    fn input_words(&self) -> String {
        let what = match self.input {
            Input::Tokens { vocabulary, width } if width == self.hidden => {
                format!("vocabulary of {}", grouped(vocabulary))
            }
            Input::Tokens { vocabulary, width } => {
                format!("vocabulary of {}, rows {width} wide and projected", grouped(vocabulary))
            }
            Input::Patches { values, count } => {
                format!("{count} positions an image, patches of {values} values")
            }
        };
        let positions = match self.positions {
            0 => String::new(),
            rows => format!(", {} learned positions", grouped(rows)),
        };
        format!("{what}{positions}; {}", size(self.embedding_weight_bytes()))
    }

    fn head_words(&self) -> String {
        if self.outputs == 0 {
            return "none".into();
        }
        let tied = if self.tied { ", the embedding itself" } else { "" };
        format!("{} outputs{tied}; reads {}", grouped(self.outputs), size(self.head_weight_bytes()))
    }

    fn layer_words(&self) -> String {
        let of = |kind: &Kind| {
            let [layer, attention, ffn, norm] = [
                self.layer_weight_bytes(kind),
                self.attention_weight_bytes(kind),
                self.ffn_weight_bytes(kind),
                self.norm_weight_bytes(),
            ]
            .map(size);
            format!("{layer}: attention {attention}, feed-forward {ffn}, norms {norm}")
        };
        let mut kinds: Vec<String> = self.kinds.iter().map(of).collect();
        kinds.dedup();
        kinds.join("; ")
    }

    fn kv_words(&self) -> String {
        if matches!(self.input, Input::Patches { .. }) {
            return "none, an image is seen at once".into();
        }
        let entry = self.kv_entry_bytes();
        let all = format!("{} a layer, {} in all layers", size(entry), size(entry * u64::from(self.layers)));
        if self.kinds.iter().all(|kind| kind.window.is_none()) || self.context == 0 {
            return all;
        }
        let whole = size(self.kv_bytes(self.context));
        format!("{all}; windows leave {whole} of {} tokens", grouped(self.context))
    }
}

/// How a rotation turns.
fn rope_words(rope: &Rope, head_dim: u64) -> String {
    let part = if rope.width == head_dim { String::new() } else { format!(" in {} values", rope.width) };
    let scaling = match &rope.scaling {
        Scaling::None => String::new(),
        Scaling::Linear { factor } => format!(", stretched {factor} times (linear)"),
        Scaling::Dynamic { factor, .. } => format!(", stretched {factor} times (dynamic)"),
        Scaling::Llama3 { factor, .. } => format!(", stretched {factor} times (llama3)"),
        Scaling::Yarn { factor, .. } => format!(", stretched {factor} times (yarn)"),
        Scaling::Long { .. } => ", stretched by lists (longrope)".into(),
        Scaling::Divisors(_) => ", stretched by a list".into(),
    };
    format!(", rotated by position{part}{scaling}")
}
