//! A model in plain words.

use super::{Activation, Input, Model, Norm};

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
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
fn size(bytes: u64) -> String {
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
            (
                "parameters",
                format!("{} in all, {} a layer", grouped(self.total_params()), grouped(self.layer_params())),
            ),
            ("layers", format!("{} alike, {} wide", self.layers, grouped(self.hidden))),
            ("attention", self.attention_words()),
            ("feed-forward", self.ffn_words()),
            ("norms", self.norm_words()),
            ("input", self.input_words()),
            ("head", self.head_words()),
            (
                "formats",
                format!(
                    "weights {}, embedding and head {}, activations {}, keys and values {}",
                    self.weights, self.embedding_weights, self.activations, self.kv
                ),
            ),
            ("layer weights", self.layer_words()),
            ("all weights", format!("{} with all layers resident", size(self.weight_bytes(self.layers)))),
            ("KV of a token", self.kv_words()),
        ];
        lines.map(|(name, words)| format!("{name:<14} {words}\n")).concat()
    }

    fn attention_words(&self) -> String {
        let sharing = match self.heads / self.kv_heads {
            1 => "as many key-value heads".to_owned(),
            each => format!("{} key-value heads (one for {each} queries)", self.kv_heads),
        };
        let mut words = format!("{} query heads, {sharing}, each {} wide", self.heads, self.head_dim);
        for (is, what) in [
            (self.rope, ", rotated by position"),
            (self.qk_norm, ", queries and keys normed"),
            (self.qkv_bias, ", biases on queries, keys and values"),
            (self.bias, ", bias on the output"),
        ] {
            if is {
                words.push_str(what);
            }
        }
        words
    }

    fn ffn_words(&self) -> String {
        let activation = match self.activation {
            Activation::Silu => "SiLU",
            Activation::Gelu => "GELU",
            Activation::Relu => "ReLU",
        };
        let matrices = if self.gated { "gated, three matrices" } else { "two matrices" };
        let bias = if self.bias { ", biases" } else { "" };
        format!("{} wide, {matrices}, {activation}{bias}", grouped(self.ffn))
    }

    fn norm_words(&self) -> String {
        let kind = match self.norm {
            Norm::Rms => "root mean square",
            Norm::Layer => "mean and variance",
        };
        format!("{kind}, two a layer, {} before the head", if self.final_norm { "one" } else { "none" })
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
        let [layer, attention, ffn, norm] = [
            self.layer_weight_bytes(),
            self.attention_weight_bytes(),
            self.ffn_weight_bytes(),
            self.norm_weight_bytes(),
        ]
        .map(size);
        format!("{layer}: attention {attention}, feed-forward {ffn}, norms {norm}")
    }

    fn kv_words(&self) -> String {
        if matches!(self.input, Input::Patches { .. }) {
            return "none, an image is seen at once".into();
        }
        let entry = self.kv_entry_bytes();
        format!("{} a layer, {} in all layers", size(entry), size(entry * u64::from(self.layers)))
    }
}
