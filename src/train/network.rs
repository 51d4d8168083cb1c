//! A language model whose layers are differentiable: the same arithmetic as the executor's, on tensors that remember where they came from.
//!
//! Shapes: B sequences of T tokens, a stream of D values, H query heads and K key heads of W values each, V words.

use crate::error::{InputError, Result};
use crate::model::{Activation, Input, Model, NormPlacement, QkNorm};
use crate::weights::{Checkpoint, LayerTensor, Name, SkipKv};
use burn::tensor::activation::{gelu, gelu_approximate, relu, silu, softmax};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

mod hops;
mod low_rank;
mod whole;

pub use hops::{Newest, SeenTokens};
pub use low_rank::Additions;
pub use whole::LayerWeights;

/// The weights of a model on a training device.
#[derive(Clone, Debug)]
pub struct Network {
    model: Model,
    device: Device,
    /// V x D.
    embedding: Tensor<2>,
    layers: Vec<Layer>,
    final_norm: Option<Tensor<1>>,
    /// D x V; a view of the embedding where they are tied.
    head: Tensor<2>,
}

/// Weights of a layer; matrices are inputs x outputs.
#[derive(Clone, Debug)]
struct Layer {
    attention_norm: Tensor<1>,
    q: Linear,
    k: Linear,
    v: Linear,
    output: Linear,
    q_norm: Option<Tensor<1>>,
    k_norm: Option<Tensor<1>>,
    ffn_norm: Tensor<1>,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

#[derive(Clone, Debug)]
struct Linear {
    matrix: Tensor<2>,
    bias: Option<Tensor<1>>,
    /// An addition of low rank: inputs x rank, rank x outputs.
    low: Option<(Tensor<2>, Tensor<2>)>,
}

/// What positions and visibility are for sequences of one length.
#[derive(Clone, Debug)]
pub struct Frame {
    /// T x W: cosines, and sines with the sign of the half that they are added to.
    turns: Option<(Tensor<2>, Tensor<2>)>,
    /// 1 x 1 x T x T: what a token does not see; absent where one token sees all before it.
    unseen: Option<Tensor<4, Bool>>,
}

/// Keys and values of a layer, B x G x T x W, of tokens that came before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past(Option<(Tensor<4>, Tensor<4>)>);

/// Which tokens take the branches of a layer, B x T x 1 each: 1 takes it, 0 leaves it out.
#[derive(Clone, Debug)]
pub struct Gates {
    /// Of attention.
    pub attention: Tensor<3>,
    /// Of the feed-forward branch.
    pub feed_forward: Tensor<3>,
}

impl Gates {
    /// All tokens of a stream, B x T x D, leave out the same.
    pub fn equal(out: [bool; 2], stream: &Tensor<3>) -> Gates {
        let [rows, tokens, _] = stream.dims();
        let gate = |out: bool| Tensor::full([rows, tokens, 1], f64::from(u8::from(!out)), &stream.device());
        Gates { attention: gate(out[0]), feed_forward: gate(out[1]) }
    }
}

impl Network {
    /// Reads a model onto a device.
    ///
    /// # Errors
    /// A model whose arithmetic is not among those that can be trained, by the key that says so; a file that cannot be read.
    pub fn read(checkpoint: &Checkpoint, device: &Device) -> Result<Network> {
        let model = checkpoint.model().clone();
        check(&model)?;
        let device = device.clone().without_autodiff();
        Network::of(&model, &device, |name| {
            if !checkpoint.has(name) {
                return Ok(None);
            }
            let tensor = checkpoint.tensor(name)?;
            Ok(Some(Tensor::from_data(
                TensorData::new(tensor.to_f32(), [tensor.rows, tensor.width]),
                &device,
            )))
        })
    }

    /// The network of these weights: `source` gives each as files keep it, outputs x inputs, a vector as one row; `None` where there is none.
    ///
    /// # Errors
    /// Weights that are missing, and whatever `source` refuses.
    pub(super) fn of(
        model: &Model,
        device: &Device,
        source: impl Fn(Name) -> Result<Option<Tensor<2>>>,
    ) -> Result<Network> {
        let matrix = |name: Name| source(name)?.ok_or_else(|| wrong("weights", "all matrices"));
        let vector = |name: Name| -> Result<Option<Tensor<1>>> {
            Ok(source(name)?.map(|row| row.squeeze_dim::<1>(0)))
        };
        let norm = |name: Name| -> Result<Tensor<1>> {
            let values = vector(name)?.ok_or_else(|| wrong("norm", "weights of every norm"))?;
            Ok(if model.norm.plus_one { values + 1.0 } else { values })
        };
        let layer = |layer: u32| -> Result<Layer> {
            let linear = |part, bias| -> Result<Linear> {
                let matrix = matrix(Name::Layer(layer, part))?.transpose();
                Ok(Linear { matrix, bias: vector(Name::Layer(layer, bias))?, low: None })
            };
            let head_norm = |part| -> Result<Option<Tensor<1>>> {
                let has = model.qk_norm != QkNorm::None;
                has.then(|| norm(Name::Layer(layer, part))).transpose()
            };
            Ok(Layer {
                attention_norm: norm(Name::Layer(layer, LayerTensor::AttentionNorm))?,
                q: linear(LayerTensor::Q, LayerTensor::QBias)?,
                k: linear(LayerTensor::K, LayerTensor::KBias)?,
                v: linear(LayerTensor::V, LayerTensor::VBias)?,
                output: linear(LayerTensor::O, LayerTensor::OBias)?,
                q_norm: head_norm(LayerTensor::QNorm)?,
                k_norm: head_norm(LayerTensor::KNorm)?,
                ffn_norm: norm(Name::Layer(layer, LayerTensor::FfnNorm))?,
                gate: model.gated.then(|| linear(LayerTensor::Gate, LayerTensor::GateBias)).transpose()?,
                up: linear(LayerTensor::Up, LayerTensor::UpBias)?,
                down: linear(LayerTensor::Down, LayerTensor::DownBias)?,
            })
        };
        let embedding = matrix(Name::Embedding)?;
        let head = if model.tied { embedding.clone() } else { matrix(Name::Head)? }.transpose();
        let final_norm = model.final_norm.then(|| norm(Name::FinalNorm)).transpose()?;
        let layers = (0..model.layers).map(layer).collect::<Result<_>>()?;
        Ok(Network { model: model.clone(), device: device.clone(), embedding, layers, final_norm, head })
    }

    /// Its shapes.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Where its weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same weights, constants of a computation whose other inputs are differentiated.
    pub fn constant(&self) -> Network {
        let vector = |tensor: &Tensor<1>| tensor.clone().autodiff();
        let matrix = |tensor: &Tensor<2>| tensor.clone().autodiff();
        let linear = |linear: &Linear| Linear {
            matrix: matrix(&linear.matrix),
            bias: linear.bias.as_ref().map(vector),
            low: linear.low.as_ref().map(|(down, up)| (matrix(down), matrix(up))),
        };
        let layer = |layer: &Layer| Layer {
            attention_norm: vector(&layer.attention_norm),
            q: linear(&layer.q),
            k: linear(&layer.k),
            v: linear(&layer.v),
            output: linear(&layer.output),
            q_norm: layer.q_norm.as_ref().map(vector),
            k_norm: layer.k_norm.as_ref().map(vector),
            ffn_norm: vector(&layer.ffn_norm),
            gate: layer.gate.as_ref().map(linear),
            up: linear(&layer.up),
            down: linear(&layer.down),
        };
        Network {
            model: self.model.clone(),
            device: self.device.clone().autodiff(),
            embedding: matrix(&self.embedding),
            layers: self.layers.iter().map(layer).collect(),
            final_norm: self.final_norm.as_ref().map(vector),
            head: matrix(&self.head),
        }
    }

    /// Positions and visibility of sequences of `tokens` tokens.
    pub fn frame(&self, tokens: usize) -> Frame {
        let width = self.model.head_dim as usize;
        let turns = self.model.rope.as_ref().map(|rope| {
            let frequencies = rope.frequencies(tokens as u64);
            let amplitude = rope.amplitude();
            let (mut cosines, mut sines) = (vec![1.0f32; tokens * width], vec![0.0f32; tokens * width]);
            for position in 0..tokens {
                for (pair, frequency) in frequencies.iter().enumerate() {
                    let angle = position as f64 * frequency;
                    let [first, second] = pair_of(pair, frequencies.len(), rope.interleaved);
                    let at = position * width;
                    cosines[at + first] = (amplitude * libm::cos(angle)) as f32;
                    cosines[at + second] = cosines[at + first];
                    sines[at + second] = (amplitude * libm::sin(angle)) as f32;
                    sines[at + first] = -sines[at + second];
                }
            }
            let tensor = |values| Tensor::from_data(TensorData::new(values, [tokens, width]), &self.device);
            (tensor(cosines), tensor(sines))
        });
        let plain = self.device.clone();
        let unseen = Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, &plain).unsqueeze::<4>();
        Frame { turns, unseen: Some(unseen) }
    }

    /// The logits, B x V, behind one more token of each sequence, at a position of `frame`; `past` has a place for each layer.
    pub(super) fn next(
        &self,
        frame: &Frame,
        position: usize,
        tokens: &[u32],
        past: &mut [Past],
    ) -> Tensor<2> {
        let row = |x: &Tensor<2>| x.clone().slice([position..position + 1, 0..x.dims()[1]]);
        let turns = frame.turns.as_ref().map(|(cosines, sines)| (row(cosines), row(sines)));
        let frame = Frame { turns, unseen: None };
        let rows: Vec<&[u32]> = tokens.chunks_exact(1).collect();
        let mut stream = self.embed(&rows);
        for (layer, past) in self.layers.iter().zip(past) {
            stream = self.run(layer, &frame, stream, None, SkipKv::ProjectOnly, Some(past));
        }
        self.logits(stream).squeeze_dim(1)
    }

    /// The stream before the first layer, B x T x D, of tokens B x T.
    pub fn embed(&self, tokens: &[&[u32]]) -> Tensor<3> {
        let (rows, length) = (tokens.len(), tokens[0].len());
        let ids: Vec<i64> = tokens.iter().flat_map(|row| row.iter().map(|&id| i64::from(id))).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [rows * length]), &self.device);
        let rows_of =
            self.embedding.clone().select(0, ids).reshape([rows, length, self.model.hidden as usize]);
        scaled(rows_of, self.model.scales.embedding)
    }

    /// The stream behind a layer. `gates`: absent, every token takes both branches.
    pub fn layer(
        &self,
        layer: u32,
        frame: &Frame,
        stream: Tensor<3>,
        gates: Option<&Gates>,
        kv: SkipKv,
    ) -> Tensor<3> {
        self.run(&self.layers[layer as usize], frame, stream, gates, kv, None)
    }

    /// The same where all tokens leave out some branches, which are not computed: what they would add is nothing.
    pub(super) fn layer_without(
        &self,
        layer: u32,
        frame: &Frame,
        stream: Tensor<3>,
        out: [bool; 2],
        gates: &Gates,
        kv: SkipKv,
    ) -> Tensor<3> {
        let weights = &self.layers[layer as usize];
        let stream = match out[0] {
            true => stream,
            false => self.attended(weights, frame, stream, Some(gates), kv, None),
        };
        if out[1] { stream } else { self.fed(weights, stream, Some(gates)) }
    }

    fn run(
        &self,
        weights: &Layer,
        frame: &Frame,
        stream: Tensor<3>,
        gates: Option<&Gates>,
        kv: SkipKv,
        past: Option<&mut Past>,
    ) -> Tensor<3> {
        let stream = self.attended(weights, frame, stream, gates, kv, past);
        self.fed(weights, stream, gates)
    }

    /// The stream with what attention adds.
    fn attended(
        &self,
        weights: &Layer,
        frame: &Frame,
        stream: Tensor<3>,
        gates: Option<&Gates>,
        kv: SkipKv,
        past: Option<&mut Past>,
    ) -> Tensor<3> {
        let hidden = gates.filter(|_| kv == SkipKv::None).map(|gates| &gates.attention);
        let branch = self.attention(
            weights,
            frame,
            self.normed(stream.clone(), &weights.attention_norm),
            hidden,
            past,
        );
        let branch = scaled(branch, self.model.scales.residual);
        stream + gates.map_or_else(|| branch.clone(), |gates| branch.clone() * gates.attention.clone())
    }

    /// The stream with what the feed-forward branch adds.
    fn fed(&self, weights: &Layer, stream: Tensor<3>, gates: Option<&Gates>) -> Tensor<3> {
        let branch = self.feed_forward(weights, self.normed(stream.clone(), &weights.ffn_norm));
        let branch = scaled(branch, self.model.scales.residual);
        stream + gates.map_or_else(|| branch.clone(), |gates| branch.clone() * gates.feed_forward.clone())
    }

    /// Logits, B x T x V, of the stream behind the last layer.
    pub fn logits(&self, stream: Tensor<3>) -> Tensor<3> {
        let [rows, tokens, _] = stream.dims();
        self.said(self.last_normed(stream)).reshape([rows, tokens, self.model.outputs as usize])
    }

    /// The stream behind the last norm, B T x D.
    pub(super) fn last_normed(&self, stream: Tensor<3>) -> Tensor<2> {
        let normed = match &self.final_norm {
            Some(weights) => self.normed(stream, weights),
            None => stream,
        };
        let [rows, tokens, width] = normed.dims();
        normed.reshape([rows * tokens, width])
    }

    /// Logits, N x V, of rows behind the last norm.
    pub(super) fn said(&self, normed: Tensor<2>) -> Tensor<2> {
        scaled(normed.matmul(self.head.clone()), self.model.scales.logits)
    }

    /// The derivative by those rows, N x D, of what has this derivative by the logits.
    pub(super) fn said_by(&self, logits: Tensor<2>) -> Tensor<2> {
        scaled(logits.matmul(self.head.clone().transpose()), self.model.scales.logits)
    }

    fn normed<const R: usize>(&self, x: Tensor<R>, weights: &Tensor<1>) -> Tensor<R> {
        root_normed(x, self.model.norm.epsilon()) * weights.clone().unsqueeze()
    }

    /// `present`: whose keys are there at all; absent: everybody's.
    fn attention(
        &self,
        weights: &Layer,
        frame: &Frame,
        x: Tensor<3>,
        present: Option<&Tensor<3>>,
        past: Option<&mut Past>,
    ) -> Tensor<3> {
        let [rows, tokens, _] = x.dims();
        let model = &self.model;
        let (heads, groups, width) = (model.heads as usize, model.kv_heads as usize, model.head_dim as usize);
        let split = |x: Tensor<3>, count: usize| x.reshape([rows, tokens, count, width]).swap_dims(1, 2);
        let normed = |x: Tensor<4>, norm: &Option<Tensor<1>>| match norm {
            Some(norm) => self.normed(x, norm),
            None => x,
        };
        let q = normed(split(weights.q.of(x.clone()), heads), &weights.q_norm);
        let k = normed(split(weights.k.of(x.clone()), groups), &weights.k_norm);
        let v = split(weights.v.of(x), groups);
        let (q, mut k) = (self.turned(frame, q), self.turned(frame, k));
        let mut v = v;
        if let Some(Past(past)) = past {
            if let Some((keys, values)) = past.take() {
                (k, v) = (Tensor::cat(vec![keys, k], 2), Tensor::cat(vec![values, v], 2));
            }
            *past = Some((k.clone(), v.clone()));
        }
        let attended = self.attend(frame, q, k, v, present);
        weights.output.of(attended)
    }

    /// What queries, B x heads x T x W, find at keys and values, B x groups x entries x W: B x T x heads W.
    pub(super) fn attend(
        &self,
        frame: &Frame,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        present: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let [rows, heads, tokens, width] = q.dims();
        let [_, groups, seen, _] = k.dims();
        let (model, each) = (&self.model, heads / groups);
        // Query heads that share a key head stand one below the other.
        let q = q.reshape([rows, groups, each * tokens, width]);
        let scores = q.matmul(k.swap_dims(2, 3)) * model.attention_scale();
        let scores = scores.reshape([rows, heads, tokens, seen]);
        let scores = match model.scales.attention_cap {
            Some(cap) => (scores / cap).tanh() * cap,
            None => scores,
        };
        let mut scores = match &frame.unseen {
            Some(unseen) => {
                scores.mask_fill(unseen.clone().expand([rows, heads, tokens, tokens]), f32::NEG_INFINITY)
            }
            None => scores,
        };
        if let Some(present) = present {
            let absent = present.clone().detach().lower_elem(0.5).swap_dims(1, 2).unsqueeze_dim::<4>(1);
            // A token whose result is not taken may see nothing: its own entry keeps its sums finite.
            let own = Tensor::<2, Bool>::diag_mask([tokens, tokens], 0, &self.device).unsqueeze::<4>();
            let absent = absent
                .expand([rows, heads, tokens, tokens])
                .bool_and(own.expand([rows, heads, tokens, tokens]));
            scores = scores.mask_fill(absent, f32::NEG_INFINITY);
        }
        let shares = softmax(scores, 3).reshape([rows, groups, each * tokens, seen]);
        let attended = shares.matmul(v).reshape([rows, heads, tokens, width]);
        attended.swap_dims(1, 2).reshape([rows, tokens, heads * width])
    }

    /// Queries or keys, B x heads x T x W, turned by their positions.
    fn turned(&self, frame: &Frame, x: Tensor<4>) -> Tensor<4> {
        let Some((cosines, sines)) = &frame.turns else { return x };
        let rope = self.model.rope.as_ref().expect("turns come from a rotation");
        let [rows, heads, tokens, width] = x.dims();
        let turning = rope.width as usize;
        let swapped = if rope.interleaved {
            let pairs = x.clone().reshape([rows, heads, tokens * width / 2, 2]);
            pairs.flip([3]).reshape([rows, heads, tokens, width])
        } else {
            let half = turning / 2;
            let part = |from: usize, to: usize| x.clone().slice([0..rows, 0..heads, 0..tokens, from..to]);
            let mut parts = vec![part(half, turning), part(0, half)];
            if turning < width {
                parts.push(part(turning, width));
            }
            Tensor::cat(parts, 3)
        };
        x * like(cosines.clone(), &self.device).unsqueeze::<4>()
            + swapped * like(sines.clone(), &self.device).unsqueeze::<4>()
    }

    fn feed_forward(&self, weights: &Layer, x: Tensor<3>) -> Tensor<3> {
        let active = |x: Tensor<3>| match self.model.activation {
            Activation::Silu => silu(x),
            Activation::GeluErf => gelu(x),
            Activation::Gelu => gelu_approximate(x),
            Activation::Relu => relu(x),
            _ => unreachable!("other non-linearities were refused"),
        };
        let inside = match &weights.gate {
            Some(gate) => active(gate.of(x.clone())) * weights.up.of(x),
            None => active(weights.up.of(x)),
        };
        weights.down.of(inside)
    }
}

impl Linear {
    fn of(&self, x: Tensor<3>) -> Tensor<3> {
        let [rows, tokens, width] = x.dims();
        let [_, outputs] = self.matrix.dims();
        self.rows(x.reshape([rows * tokens, width])).reshape([rows, tokens, outputs])
    }

    fn rows(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.clone().matmul(self.matrix.clone());
        let y = match &self.low {
            Some((down, up)) => y + x.matmul(down.clone()).matmul(up.clone()),
            None => y,
        };
        match &self.bias {
            Some(bias) => y + bias.clone().unsqueeze(),
            None => y,
        }
    }
}

/// Rows over their root mean square.
pub(super) fn root_normed<const R: usize>(x: Tensor<R>, epsilon: f64) -> Tensor<R> {
    let square = x.clone() * x.clone();
    x / (square.mean_dim(R - 1) + epsilon).sqrt()
}

/// A constant where `device` wants it.
fn like(tensor: Tensor<2>, device: &Device) -> Tensor<2> {
    if device.is_autodiff() { tensor.autodiff() } else { tensor }
}

fn scaled<const R: usize>(x: Tensor<R>, factor: f64) -> Tensor<R> {
    if factor == 1.0 { x } else { x * factor }
}

/// Which values of a head turn together.
fn pair_of(pair: usize, pairs: usize, interleaved: bool) -> [usize; 2] {
    if interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + pairs] }
}

fn wrong(key: &str, expected: &str) -> crate::error::Error {
    InputError::expected(format!("{expected}, of a model that is trained")).key(key).into()
}

/// Refuses arithmetic that is not here.
fn check(model: &Model) -> Result<()> {
    let known = [Activation::Silu, Activation::GeluErf, Activation::Gelu, Activation::Relu];
    let rules: [(&str, bool, &str); 12] = [
        ("norm", !model.norm.layer && model.norm.weight && !model.norm.bias, "RMS norms with weights"),
        ("placement", model.placement == NormPlacement::Before, "norms before the branches"),
        ("qk_norm", matches!(model.qk_norm, QkNorm::None | QkNorm::Head), "norms of single heads, or none"),
        ("latent", model.latent.is_none(), "no latent attention"),
        ("experts", model.experts.is_none(), "no experts"),
        ("local_rope", model.local_rope.is_none(), "one rotation"),
        (
            "windows",
            model.kinds.iter().all(|kind| *kind == Default::default()),
            "layers that see all tokens before",
        ),
        ("positions", model.positions == 0, "no learned positions"),
        ("activation", known.contains(&model.activation), "SiLU, GELU or ReLU"),
        ("logit_cap", model.scales.logit_cap.is_none(), "logits without a cap"),
        (
            "input",
            matches!(model.input, Input::Tokens { width, .. } if width == model.hidden),
            "an embedding as wide as the stream",
        ),
        ("remarks", model.remarks.is_empty(), "no key that is not modelled"),
    ];
    match rules.iter().find(|(_, holds, _)| !holds) {
        Some((key, _, expected)) => Err(wrong(key, expected)),
        None => Ok(()),
    }
}
