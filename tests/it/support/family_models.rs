//! Small models of many families with weights of their own, written as the transformers library writes them, and what they say,
//! worked out naively in double precision from what each family is: nothing here reads the program's description of a family.

use radialsim::reference::{self, Activation, Angles, Heads, Scores};
use radialsim::rng::Stream;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

use crate::family_list::llama_names;

pub const VOCABULARY: usize = 61;
pub const LAYERS: usize = 3;
pub const HIDDEN: usize = 40;
pub const FFN: usize = 52;
pub const EPSILON: f64 = 1e-5;
/// Width of an embedding that is not as wide as the stream.
pub const NARROW: usize = 16;

/// Where norms stand.
#[derive(Clone, Copy, PartialEq)]
pub enum Norms {
    Before,
    AfterSum,
    AfterBranch,
    Around,
    Parallel,
    ParallelEach,
}

/// What a family is, in the words of its paper or its code.
#[derive(Clone)]
pub struct Family {
    pub name: &'static str,
    pub heads: Heads,
    pub norms: Norms,
    pub layer_norm: bool,
    pub plus_one: bool,
    /// Norms of queries and keys: over all heads, or over each.
    pub qk: Option<bool>,
    /// Values of a head that turn, and the base of their angles.
    pub rope: Option<(usize, f64)>,
    /// Base of layers with a window, where it is another.
    pub local: Option<f64>,
    /// Layers that do not turn.
    pub still: Option<usize>,
    /// Window of every layer but those that are 1 modulo 2.
    pub window: Option<u32>,
    pub bias: bool,
    pub gated: Option<Activation>,
    pub plain: Activation,
    pub positions: usize,
    pub tied: bool,
    pub projected: bool,
    pub embedding: f64,
    pub residual: f64,
    pub score: f64,
    pub cap: Option<f64>,
    pub logits: f64,
    pub logit_cap: Option<f64>,
    /// Experts, how many a token takes, and whether their shares sum to one.
    pub experts: Option<(usize, usize, bool)>,
    pub config: Value,
    /// Name of a part of a layer, given its plain name.
    pub called: fn(&str) -> String,
    /// Names outside of layers: embedding, last norm, head, positions.
    pub outside: [&'static str; 4],
    pub prefix: &'static str,
}

/// Rows, width and values.
type Matrix = (usize, usize, Vec<f64>);

/// A family's weights: matrices `rows x width` and vectors, by layer and plain name.
pub struct Weights {
    pub family: Family,
    parts: BTreeMap<(usize, String), Matrix>,
}

/// Where tensors outside of layers are kept.
const OUTSIDE: usize = usize::MAX;

impl Weights {
    pub fn new(family: Family) -> Weights {
        let mut weights = Weights { parts: BTreeMap::new(), family: family.clone() };
        let mut random = Stream::new(9, family.name);
        let mut add = |layer: usize, part: &str, rows: usize, width: usize, around: f64| {
            let value = |random: &mut Stream| around + f64::from(random.below(129) as i32 - 64) / 200.0;
            // Values that singles hold exactly enough: what is written is what is calculated with.
            let values = (0..rows * width).map(|_| f64::from(value(&mut random) as f32)).collect();
            weights.parts.insert((layer, part.into()), (rows, width, values));
        };
        let Heads { heads, kv_heads, head_dim } = family.heads;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let table = if family.projected { NARROW } else { HIDDEN };
        add(OUTSIDE, "embedding", VOCABULARY, table, 0.0);
        if family.projected {
            add(OUTSIDE, "project_in", HIDDEN, NARROW, 0.0);
            add(OUTSIDE, "project_out", NARROW, HIDDEN, 0.0);
        }
        if !family.tied {
            add(OUTSIDE, "head", VOCABULARY, table, 0.0);
        }
        if family.positions > 0 {
            add(OUTSIDE, "positions", family.positions, HIDDEN, 0.0);
        }
        let around = if family.plus_one { 0.0 } else { 1.0 };
        let mut norms = Vec::new();
        if family.norms != Norms::AfterSum {
            norms.push((OUTSIDE, "norm", HIDDEN));
        }
        for layer in 0..LAYERS {
            let own: &[&str] = match family.norms {
                Norms::AfterBranch => &["after1", "after2"],
                Norms::Around => &["norm1", "after1", "norm2", "after2"],
                Norms::Parallel => &["norm1"],
                _ => &["norm1", "norm2"],
            };
            norms.extend(own.iter().map(|part| (layer, *part, HIDDEN)));
            if let Some(whole) = family.qk {
                norms.push((layer, "q_norm", if whole { q } else { head_dim }));
                norms.push((layer, "k_norm", if whole { kv } else { head_dim }));
            }
        }
        for (layer, part, width) in norms {
            add(layer, part, 1, width, around);
            if family.layer_norm {
                add(layer, &format!("{part}.bias"), 1, width, 0.0);
            }
        }
        for layer in 0..LAYERS {
            let mut all = vec![
                ("q".to_owned(), q, HIDDEN),
                ("k".into(), kv, HIDDEN),
                ("v".into(), kv, HIDDEN),
                ("o".into(), HIDDEN, q),
            ];
            let gates = if family.gated.is_some() { vec!["gate", "up"] } else { vec!["up"] };
            let mut feed = |before: &str| {
                all.extend(gates.iter().map(|part| (format!("{before}{part}"), FFN, HIDDEN)));
                all.push((format!("{before}down"), HIDDEN, FFN));
            };
            match family.experts {
                Some((count, ..)) if family.has_experts(layer) => {
                    (0..count).for_each(|expert| feed(&format!("{expert}/")));
                    all.push(("router".into(), count, HIDDEN));
                }
                _ => feed(""),
            }
            for (part, rows, width) in all {
                add(layer, &part, rows, width, 0.0);
                // Qwen 2 has biases on queries, keys and values alone.
                let everywhere = family.gated.is_none();
                if family.bias && (everywhere || ["q", "k", "v"].contains(&part.as_str())) {
                    add(layer, &format!("{part}.bias"), 1, rows, 0.0);
                }
            }
        }
        weights
    }

    fn part(&self, layer: usize, part: &str) -> &Matrix {
        self.parts.get(&(layer, part.into())).unwrap_or_else(|| panic!("no {part} in layer {layer}"))
    }

    /// Tensors as the library names and joins them: name, shape, values.
    fn files(&self) -> Vec<(String, Vec<usize>, Vec<f64>)> {
        let family = &self.family;
        let mut all = Vec::new();
        let mut joined: BTreeMap<(usize, String), Vec<Matrix>> = BTreeMap::new();
        for ((layer, part), (rows, width, values)) in &self.parts {
            let (plain, kind) =
                part.strip_suffix(".bias").map_or((part.as_str(), "weight"), |plain| (plain, "bias"));
            let vector = kind == "bias" || ["norm", "after"].iter().any(|norm| plain.contains(norm));
            let shape = if vector { vec![*width] } else { vec![*rows, *width] };
            if *layer == OUTSIDE {
                let [embedding, norm, head, positions] = family.outside;
                let name = match plain {
                    "embedding" => embedding.to_owned(),
                    "norm" => norm.into(),
                    "head" => head.into(),
                    "positions" => positions.into(),
                    other => format!("model.decoder.{other}"),
                };
                all.push((format!("{name}.{kind}"), shape, values.clone()));
                continue;
            }
            let fused = (family.called)("qkv") != llama_names("qkv") || family.name == "phi3";
            let into = match plain {
                "q" | "k" | "v" if fused => "qkv",
                "gate" | "up" if family.name == "phi3" => "gate_up",
                _ => {
                    let (shape, values) = self.stored(plain, kind, shape, values.clone());
                    all.push((
                        format!("{}.{layer}.{}.{kind}", family.prefix, (family.called)(plain)),
                        shape,
                        values,
                    ));
                    continue;
                }
            };
            let (rows, width) = if vector { (*width, 1) } else { (*rows, *width) };
            joined.entry((*layer, format!("{into}.{kind}"))).or_default().push((rows, width, values.clone()));
        }
        for ((layer, name), parts) in joined {
            let (into, kind) = name.split_once('.').expect("a kind");
            // Keys come before queries in the alphabet.
            let parts = if into == "qkv" {
                [&parts[1], &parts[0], &parts[2]].to_vec()
            } else {
                parts.iter().collect()
            };
            let values = self.fused(into, &parts);
            let (rows, width) = (parts.iter().map(|part| part.0).sum::<usize>(), parts[0].1);
            let shape = if kind == "bias" { vec![rows] } else { vec![rows, width] };
            let (shape, values) = self.stored(into, kind, shape, values);
            let called = if into == "gate_up" { "mlp.gate_up_proj".into() } else { (family.called)(into) };
            all.push((format!("{}.{layer}.{called}.{kind}", family.prefix), shape, values));
        }
        all
    }

    /// Queries, keys and values in one tensor.
    fn fused(&self, into: &str, parts: &[&Matrix]) -> Vec<f64> {
        let (head, kv) = (self.family.heads.head_dim, self.family.heads.kv_heads);
        if into != "qkv" || !["gpt-neox", "falcon"].contains(&self.family.name) {
            return parts.iter().flat_map(|part| part.2.clone()).collect();
        }
        // A key's queries, the key, its value.
        let width = parts[0].1;
        let rows = |part: usize, first: usize, count: usize| {
            parts[part].2[first * width..(first + count) * width].to_vec()
        };
        let group = self.family.heads.heads / kv * head;
        (0..kv)
            .flat_map(|key| {
                [rows(0, key * group, group), rows(1, key * head, head), rows(2, key * head, head)].concat()
            })
            .collect()
    }

    /// GPT-2 keeps matrices the other way round.
    fn stored(&self, _part: &str, kind: &str, shape: Vec<usize>, values: Vec<f64>) -> (Vec<usize>, Vec<f64>) {
        let [rows, width] = shape[..] else { return (shape, values) };
        if self.family.name != "gpt2" || kind == "bias" {
            return (shape, values);
        }
        let turned = (0..width)
            .flat_map(|column| (0..rows).map(move |row| row * width + column))
            .map(|at| values[at])
            .collect();
        (vec![width, rows], turned)
    }

    pub fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.family.config.to_string())
            .expect("a writable folder");
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = (self.files().into_iter())
            .map(|(name, shape, values)| {
                (name, shape, values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect())
            })
            .collect();
        let views: Vec<(String, TensorView)> = (bytes.iter())
            .map(|(name, shape, bytes)| {
                (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
            })
            .collect();
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))
            .expect("a writable folder");
    }
}

/// What a layer holds of the tokens before: their positions, keys and values.
type Entries = (Vec<u32>, Vec<f64>, Vec<f64>);

impl Family {
    fn has_experts(&self, layer: usize) -> bool {
        self.experts.is_some() && !(self.name == "qwen3-moe" && layer == 1)
    }
}

impl Weights {
    fn product(&self, layer: usize, part: &str, x: &[f64]) -> Vec<f64> {
        let (rows, width, values) = self.part(layer, part);
        let mut y = reference::matmul(1, *width, *rows, x, values);
        if let Some((.., bias)) = self.parts.get(&(layer, format!("{part}.bias"))) {
            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
        y
    }

    fn norm(&self, layer: usize, part: &str, x: &[f64]) -> Vec<f64> {
        let (_, width, weight) = self.part(layer, part);
        let more = f64::from(u8::from(self.family.plus_one));
        let weight: Vec<f64> = weight.iter().map(|x| x + more).collect();
        if !self.family.layer_norm {
            return reference::rms_norm(x.len() / width, *width, x, &weight, EPSILON);
        }
        let bias = &self.part(layer, &format!("{part}.bias")).2;
        reference::layer_norm(x.len() / width, *width, x, &weight, bias, EPSILON)
    }

    /// Logits of every token, which takes the layers that `takes` says of its position: `tokens x VOCABULARY`. A layer that is passed by
    /// holds nothing of the token.
    pub fn logits(&self, tokens: &[u32], takes: impl Fn(usize, usize) -> bool) -> Vec<f64> {
        let family = &self.family;
        let mut entries: Vec<Entries> = vec![Default::default(); LAYERS];
        let mut logits = Vec::new();
        for (position, &token) in tokens.iter().enumerate() {
            let table = self.part(OUTSIDE, "embedding");
            let mut x = reference::embed_rows(table.1, &table.2, &[token]);
            x.iter_mut().for_each(|x| *x *= family.embedding);
            if family.projected {
                x = self.product(OUTSIDE, "project_in", &x);
            }
            if family.positions > 0 {
                let offset = if family.projected { 2 } else { 0 };
                let row = reference::embed_rows(
                    HIDDEN,
                    &self.part(OUTSIDE, "positions").2,
                    &[position as u32 + offset],
                );
                reference::residual_add(HIDDEN, &mut x, &row, None);
            }
            for layer in (0..LAYERS).filter(|&layer| takes(position, layer)) {
                x = self.layer(layer, position as u32, &x, &mut entries[layer]);
            }
            if family.norms != Norms::AfterSum {
                x = self.norm(OUTSIDE, "norm", &x);
            }
            if family.projected {
                x = self.product(OUTSIDE, "project_out", &x);
            }
            let said = self.product(OUTSIDE, if family.tied { "embedding" } else { "head" }, &x);
            let shaped = |x: f64| {
                let x = x * family.logits;
                family.logit_cap.map_or(x, |cap| cap * libm::tanh(x / cap))
            };
            logits.extend(said.into_iter().map(shaped));
        }
        logits
    }

    fn layer(&self, layer: usize, position: u32, x: &[f64], entries: &mut Entries) -> Vec<f64> {
        let norms = self.family.norms;
        let sum = |x: &[f64], branch: &[f64]| -> Vec<f64> {
            x.iter().zip(branch).map(|(x, branch)| x + self.family.residual * branch).collect()
        };
        let mut attend = |x: &[f64]| self.attention(layer, position, x, entries);
        match norms {
            Norms::Before => {
                let x = sum(x, &attend(&self.norm(layer, "norm1", x)));
                sum(&x, &self.feed_forward(layer, &self.norm(layer, "norm2", &x)))
            }
            Norms::AfterSum => {
                let x = self.norm(layer, "norm1", &sum(x, &attend(x)));
                self.norm(layer, "norm2", &sum(&x, &self.feed_forward(layer, &x)))
            }
            Norms::AfterBranch => {
                let x = sum(x, &self.norm(layer, "after1", &attend(x)));
                sum(&x, &self.norm(layer, "after2", &self.feed_forward(layer, &x)))
            }
            Norms::Around => {
                let x = sum(x, &self.norm(layer, "after1", &attend(&self.norm(layer, "norm1", x))));
                let branch = self.feed_forward(layer, &self.norm(layer, "norm2", &x));
                sum(&x, &self.norm(layer, "after2", &branch))
            }
            Norms::Parallel | Norms::ParallelEach => {
                let second = if norms == Norms::Parallel { "norm1" } else { "norm2" };
                let branch = self.feed_forward(layer, &self.norm(layer, second, x));
                sum(&sum(x, &attend(&self.norm(layer, "norm1", x))), &branch)
            }
        }
    }

    fn attention(&self, layer: usize, position: u32, x: &[f64], entries: &mut Entries) -> Vec<f64> {
        let family = &self.family;
        let Heads { heads, kv_heads, head_dim } = family.heads;
        let [mut q, mut k, v] = ["q", "k", "v"].map(|part| self.product(layer, part, x));
        if family.qk.is_some() {
            (q, k) = (self.norm(layer, "q_norm", &q), self.norm(layer, "k_norm", &k));
        }
        let window = family.window.filter(|_| layer.is_multiple_of(2));
        if let Some((turning, theta)) = family.rope.filter(|_| family.still != Some(layer)) {
            let theta = family.local.filter(|_| window.is_some()).unwrap_or(theta);
            let angles = Angles::new(&[position], turning, theta);
            q = reference::rope(1, heads, head_dim, &q, &angles, false);
            k = reference::rope(1, kv_heads, head_dim, &k, &angles, false);
        }
        let (positions, keys, values) = entries;
        positions.push(position);
        keys.extend(k);
        values.extend(v);
        let visible = reference::causal(&[position], positions, window);
        let scores = Scores { scale: family.score, cap: family.cap };
        let attended = reference::attention(family.heads, scores, &q, keys, values, &visible);
        self.product(layer, "o", &attended)
    }

    fn feed_forward(&self, layer: usize, x: &[f64]) -> Vec<f64> {
        let one = |before: &str| {
            let up = self.product(layer, &format!("{before}up"), x);
            let inner = match self.family.gated {
                Some(activation) => reference::gated_activation(
                    activation,
                    &self.product(layer, &format!("{before}gate"), x),
                    &up,
                ),
                None => reference::activation(self.family.plain, &up),
            };
            self.product(layer, &format!("{before}down"), &inner)
        };
        let Some((count, top, normalised)) = self.family.experts.filter(|_| self.family.has_experts(layer))
        else {
            return one("");
        };
        let scores = self.product(layer, "router", x);
        let chosen = reference::choose_experts(count, top, &scores, (false, normalised, 1.0)).remove(0);
        let said: Vec<f64> = chosen.iter().flat_map(|(expert, _)| one(&format!("{expert}/"))).collect();
        let shares: Vec<f64> = chosen.iter().map(|(_, share)| *share).collect();
        reference::sum_experts(HIDDEN, &said, &shares, top)
    }
}
