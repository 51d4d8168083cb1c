//! Small models in the folders that Hugging Face would keep them in, and what they say, worked out naively in double precision
//! from the arrays that were written.

use radialsim::gpu::to_f16;
use radialsim::reference::{self, Activation, Angles, Heads, Scores};
use radialsim::rng::Stream;
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::Path;

pub const VOCABULARY: usize = 97;
pub const HIDDEN: usize = 24;
const FFN: usize = 36;
pub const LAYERS: usize = 3;
const HEADS: Heads = Heads { heads: 3, kv_heads: 1, head_dim: 8 };
const POSITIONS: usize = 40;

/// Keys and values of one entry.
pub type KeysValues = (Vec<f64>, Vec<f64>);

/// A model: its arrays by name, each `rows x width`.
pub struct Small {
    pub opt: bool,
    layers: usize,
    /// Positions that a token attends to, its own among them.
    pub window: Option<usize>,
    arrays: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Small {
    /// A Llama-shaped one (grouped queries, own head) or an OPT-shaped one (biases, positions, tied head).
    pub fn new(opt: bool) -> Small {
        Small::deep(opt, LAYERS)
    }

    /// The same of so many layers.
    pub fn deep(opt: bool, layers: usize) -> Small {
        let mut small = Small { opt, layers, window: None, arrays: BTreeMap::new() };
        let mut random = Stream::new(3, if opt { "opt" } else { "llama" });
        let mut add = |name: String, shape: &[usize], around: f64| {
            let count = shape.iter().product();
            // Values that every format holds exactly.
            let value = |random: &mut Stream| around + f64::from(random.below(129) as i32 - 64) / 128.0;
            let values = (0..count).map(|_| value(&mut random)).collect();
            small.arrays.insert(name, (shape.to_vec(), values));
        };
        let kv = if opt { HIDDEN } else { HEADS.kv_heads * HEADS.head_dim };
        let (q, prefix) = (HEADS.heads * HEADS.head_dim, if opt { "model.decoder" } else { "model" });
        add(format!("{prefix}.embed_tokens.weight"), &[VOCABULARY, HIDDEN], 0.0);
        for layer in 0..layers {
            let of = |part: &str| format!("{prefix}.layers.{layer}.{part}");
            let out = if opt { "out_proj" } else { "o_proj" };
            let matrices =
                [("q_proj", q, HIDDEN), ("k_proj", kv, HIDDEN), ("v_proj", kv, HIDDEN), (out, HIDDEN, q)];
            for (part, rows, width) in matrices {
                add(of(&format!("self_attn.{part}.weight")), &[rows, width], 0.0);
                if opt {
                    add(of(&format!("self_attn.{part}.bias")), &[rows], 0.0);
                }
            }
            if opt {
                for part in ["self_attn_layer_norm", "final_layer_norm"] {
                    add(of(&format!("{part}.weight")), &[HIDDEN], 1.0);
                    add(of(&format!("{part}.bias")), &[HIDDEN], 0.0);
                }
                for (part, rows, width) in [("fc1", FFN, HIDDEN), ("fc2", HIDDEN, FFN)] {
                    add(of(&format!("{part}.weight")), &[rows, width], 0.0);
                    add(of(&format!("{part}.bias")), &[rows], 0.0);
                }
            } else {
                for part in ["input_layernorm", "post_attention_layernorm"] {
                    add(of(&format!("{part}.weight")), &[HIDDEN], 1.0);
                }
                for (part, rows, width) in
                    [("gate_proj", FFN, HIDDEN), ("up_proj", FFN, HIDDEN), ("down_proj", HIDDEN, FFN)]
                {
                    add(of(&format!("mlp.{part}.weight")), &[rows, width], 0.0);
                }
            }
        }
        if opt {
            add(format!("{prefix}.embed_positions.weight"), &[POSITIONS + 2, HIDDEN], 0.0);
            add(format!("{prefix}.final_layer_norm.weight"), &[HIDDEN], 1.0);
            add(format!("{prefix}.final_layer_norm.bias"), &[HIDDEN], 0.0);
        } else {
            add("model.norm.weight".into(), &[HIDDEN], 1.0);
            add("lm_head.weight".into(), &[VOCABULARY, HIDDEN], 0.0);
        }
        small
    }

    /// Puts a number that is none into an array.
    pub fn spoil(&mut self, name: &str) {
        let (_, values) = self.arrays.get_mut(name).unwrap_or_else(|| panic!("no {name}"));
        values[1] = f64::NAN;
    }

    pub fn config(&self) -> serde_json::Value {
        if self.opt {
            return serde_json::json!({
                "architectures": ["OPTForCausalLM"], "hidden_size": HIDDEN, "ffn_dim": FFN, "num_hidden_layers": self.layers,
                "num_attention_heads": HEADS.heads, "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS,
                "word_embed_proj_dim": HIDDEN, "activation_function": "relu", "do_layer_norm_before": true,
                "torch_dtype": "float32",
            });
        }
        let architecture = if self.window.is_some() { "MistralForCausalLM" } else { "LlamaForCausalLM" };
        let mut config = serde_json::json!({
            "architectures": [architecture], "hidden_size": HIDDEN, "intermediate_size": FFN,
            "num_hidden_layers": self.layers, "num_attention_heads": HEADS.heads, "num_key_value_heads": HEADS.kv_heads,
            "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-5, "rope_theta": 500.0,
            "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "float16",
        });
        if let Some(window) = self.window {
            config["sliding_window"] = window.into();
        }
        config
    }

    /// Writes the folder; tensors in `shards` files with an index where there is more than one.
    pub fn write(&self, folder: &Path, dtype: Dtype, shards: usize) {
        std::fs::write(folder.join("config.json"), self.config().to_string()).expect("a writable folder");
        let bytes = |values: &[f64]| -> Vec<u8> {
            let each = |&x: &f64| match dtype {
                Dtype::F16 => to_f16(x as f32).to_le_bytes().to_vec(),
                Dtype::BF16 => (x as f32).to_le_bytes()[2..].to_vec(),
                _ => (x as f32).to_le_bytes().to_vec(),
            };
            values.iter().flat_map(each).collect()
        };
        let all: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .arrays
            .iter()
            .map(|(name, (shape, values))| (name.clone(), shape.clone(), bytes(values)))
            .collect();
        let mut map = serde_json::Map::new();
        for shard in 0..shards {
            let file =
                if shards == 1 { "model.safetensors".into() } else { format!("model-{shard}.safetensors") };
            let mine = all.iter().skip(shard).step_by(shards);
            let views: Vec<(String, TensorView)> = mine
                .map(|(name, shape, bytes)| {
                    map.insert(name.clone(), file.clone().into());
                    (name.clone(), TensorView::new(dtype, shape.clone(), bytes).expect("a tensor"))
                })
                .collect();
            safetensors::serialize_to_file(views, None, &folder.join(&file)).expect("a writable folder");
        }
        if shards > 1 {
            let index = serde_json::json!({ "weight_map": map });
            std::fs::write(folder.join("model.safetensors.index.json"), index.to_string())
                .expect("a writable folder");
        }
    }

    fn array(&self, name: &str) -> &[f64] {
        &self.arrays.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn product(&self, x: &[f64], name: &str) -> Vec<f64> {
        let weights = self.array(&format!("{name}.weight"));
        let shape = &self.arrays[&format!("{name}.weight")].0;
        let rows = x.len() / shape[1];
        let mut y = reference::matmul(rows, shape[1], shape[0], x, weights);
        if let Some((_, bias)) = self.arrays.get(&format!("{name}.bias")) {
            y.chunks_exact_mut(shape[0]).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        y
    }

    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let (rows, weight) = (x.len() / HIDDEN, self.array(&format!("{name}.weight")));
        if self.opt {
            return reference::layer_norm(rows, HIDDEN, x, weight, self.array(&format!("{name}.bias")), 1e-5);
        }
        reference::rms_norm(rows, HIDDEN, x, weight, 1e-5)
    }

    /// Logits of every token, each layer taken that `takes` says: `tokens x VOCABULARY`.
    pub fn logits(&self, tokens: &[u32], takes: impl Fn(usize) -> bool) -> Vec<f64> {
        let route: Vec<usize> = (0..self.layers).filter(|&layer| takes(layer)).collect();
        self.walk(tokens, |_, hop, _| route.get(hop).copied()).0
    }

    /// Token after token, hop after hop: `next` is told position, hop and state, and names the next layer or the end.
    /// Returns logits of every token, and the layers that each took.
    pub fn walk(
        &self,
        tokens: &[u32],
        mut next: impl FnMut(usize, usize, &[f64]) -> Option<usize>,
    ) -> (Vec<f64>, Vec<Vec<usize>>) {
        let mut entries: Vec<Vec<KeysValues>> = vec![Vec::new(); self.layers];
        let (mut logits, mut routes) = (Vec::new(), Vec::new());
        for (position, &token) in tokens.iter().enumerate() {
            let mut x = self.embed(position as u32, token);
            let mut route = Vec::new();
            while let Some(layer) = next(position, route.len(), &x) {
                let own = self.keys_values(layer, position as u32, &x);
                entries[layer].push(own);
                let seen: Vec<&KeysValues> = entries[layer].iter().collect();
                self.attend(layer, position as u32, &mut x, &seen);
                self.feed(layer, &mut x);
                route.push(layer);
            }
            logits.extend(self.said(&x));
            routes.push(route);
        }
        (logits, routes)
    }

    /// The state of a token before its first layer.
    pub fn embed(&self, position: u32, token: u32) -> Vec<f64> {
        let prefix = if self.opt { "model.decoder" } else { "model" };
        let table = self.array(&format!("{prefix}.embed_tokens.weight"));
        let mut x = reference::embed_rows(HIDDEN, table, &[token]);
        if self.opt {
            let table = self.array("model.decoder.embed_positions.weight");
            let row = reference::embed_rows(HIDDEN, table, &[position + 2]);
            reference::residual_add(HIDDEN, &mut x, &row, None);
        }
        x
    }

    /// Logits of a state.
    pub fn said(&self, x: &[f64]) -> Vec<f64> {
        let last = if self.opt { "model.decoder.final_layer_norm" } else { "model.norm" };
        let head = if self.opt { "model.decoder.embed_tokens" } else { "lm_head" };
        self.product(&self.norm(x, last), head)
    }

    fn of(&self, layer: usize, part: &str) -> String {
        let prefix = if self.opt { "model.decoder" } else { "model" };
        format!("{prefix}.layers.{layer}.{part}")
    }

    fn heads(&self) -> Heads {
        if self.opt { Heads { kv_heads: HEADS.heads, ..HEADS } } else { HEADS }
    }

    /// What attention reads of a state.
    fn before_attention(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        self.norm(x, &self.of(layer, if self.opt { "self_attn_layer_norm" } else { "input_layernorm" }))
    }

    /// A projection of a normed state, turned by its position where the model turns it.
    fn turned(&self, layer: usize, position: u32, heads: usize, normed: &[f64], part: &str) -> Vec<f64> {
        let x = self.product(normed, &self.of(layer, &format!("self_attn.{part}_proj")));
        if self.opt {
            return x;
        }
        let angles = Angles::new(&[position], HEADS.head_dim, 500.0);
        reference::rope(1, heads, HEADS.head_dim, &x, &angles, false)
    }

    /// Keys and values that a state leaves at a layer.
    pub fn keys_values(&self, layer: usize, position: u32, x: &[f64]) -> KeysValues {
        let normed = self.before_attention(layer, x);
        let k = self.turned(layer, position, self.heads().kv_heads, &normed, "k");
        (k, self.product(&normed, &self.of(layer, "self_attn.v_proj")))
    }

    /// The attention branch over these keys and values, added to the state.
    pub fn attend(&self, layer: usize, position: u32, x: &mut [f64], seen: &[&KeysValues]) {
        let (heads, normed) = (self.heads(), self.before_attention(layer, x));
        let q = self.turned(layer, position, heads.heads, &normed, "q");
        let keys: Vec<f64> = seen.iter().flat_map(|(k, _)| k.clone()).collect();
        let values: Vec<f64> = seen.iter().flat_map(|(_, v)| v.clone()).collect();
        let all = (0..seen.len() as u32).collect();
        let attended = reference::attention(heads, Scores::plain(HEADS.head_dim), &q, &keys, &values, &[all]);
        let out = if self.opt { "self_attn.out_proj" } else { "self_attn.o_proj" };
        reference::residual_add(HIDDEN, x, &self.product(&attended, &self.of(layer, out)), None);
    }

    /// The feed-forward branch, added to the state.
    pub fn feed(&self, layer: usize, x: &mut [f64]) {
        let of = |part: &str| self.of(layer, part);
        let norm = if self.opt { "final_layer_norm" } else { "post_attention_layernorm" };
        let normed = self.norm(x, &of(norm));
        let branch = if self.opt {
            let inner = reference::activation(Activation::Relu, &self.product(&normed, &of("fc1")));
            self.product(&inner, &of("fc2"))
        } else {
            let (gate, up) =
                (self.product(&normed, &of("mlp.gate_proj")), self.product(&normed, &of("mlp.up_proj")));
            self.product(&reference::gated_activation(Activation::Silu, &gate, &up), &of("mlp.down_proj"))
        };
        reference::residual_add(HIDDEN, x, &branch, None);
    }
}
