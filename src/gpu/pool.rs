//! Weights on the device: every layer's matrices of one kind side by side, so that a kernel can take the matrices of several
//! layers; split over buffers where one cannot hold them all.

use super::device::{Buffer, Gpu};
use super::ops::{HeadNorms, Over};
use super::packed::Precision;
use super::packed::{Form, pack};
use super::stack::{Shard, Stack};
use crate::error::{InputError, Result};
use crate::model::{Input, Model, NormPlacement, QkNorm};
use crate::weights::{Checkpoint, LayerTensor, Name, Tensor};

/// Norms of all layers, or the one before the head: weights, and a layer norm's biases behind those of each layer.
pub(super) type Norms = Buffer;

/// All weights of a model on the device.
#[derive(Debug)]
pub(super) struct Pool {
    pub embedding: Stack,
    /// Between embedding and stream, where their widths differ, and between the last norm and the head.
    pub project_in: Option<Stack>,
    pub project_out: Option<Stack>,
    /// Absent where the model is tied.
    head: Option<Stack>,
    /// f32, a row a position.
    pub positions: Option<Stack>,
    /// Where norms stand is the model's to say: before both branches or behind their sums.
    pub attention_norms: Option<Norms>,
    pub ffn_norms: Option<Norms>,
    /// Behind branches.
    pub attention_after: Option<Norms>,
    pub ffn_after: Option<Norms>,
    pub final_norm: Option<Norms>,
    pub head_norms: Option<HeadNorms>,
    pub qkv: Stack,
    pub output: Stack,
    /// Of layers without experts; their order is that of `places`.
    pub dense: Option<FeedForward>,
    /// Of layers with experts: those of a layer one behind the other.
    pub experts: Option<ExpertStacks>,
    /// Of each layer: which of those with experts it is, or of those without.
    pub places: Vec<u32>,
}

/// Matrices of feed-forward parts.
#[derive(Debug)]
pub(super) struct FeedForward {
    /// Gate (where gated) above up.
    pub up: Stack,
    pub down: Stack,
}

/// Experts and what chooses among them.
#[derive(Debug)]
pub(super) struct ExpertStacks {
    pub router: Stack,
    pub parts: FeedForward,
}

/// A tensor and its bias.
type Biased = (Name, Option<Name>);

impl Pool {
    /// Uploads all weights.
    pub fn new(gpu: &Gpu, checkpoint: &Checkpoint, precision: Precision) -> Result<Pool> {
        let model = checkpoint.model();
        let load = Load { gpu, checkpoint, precision };
        let layers = 0..model.layers;
        let of_layers = |parts: &[(LayerTensor, Option<LayerTensor>)]| -> Vec<Vec<Biased>> {
            let named = |layer: u32| {
                let name = move |part: LayerTensor| Name::Layer(layer, part);
                parts.iter().map(|&(part, bias)| (name(part), bias.map(name))).collect()
            };
            layers.clone().map(named).collect()
        };
        let biased = |has: bool, part: LayerTensor| has.then_some(part);
        let qkv = [
            (LayerTensor::Q, LayerTensor::QBias),
            (LayerTensor::K, LayerTensor::KBias),
            (LayerTensor::V, LayerTensor::VBias),
        ]
        .map(|(part, bias)| (part, biased(model.biases.qkv, bias)));
        let output = [(LayerTensor::O, biased(model.biases.output, LayerTensor::OBias))];
        let (before, own) =
            (model.placement != NormPlacement::AfterBranch, model.placement != NormPlacement::Parallel);
        let behind = matches!(model.placement, NormPlacement::AfterBranch | NormPlacement::Around);
        let norms = |wanted: bool, weight, bias| wanted.then(|| load.norms(weight, bias)).transpose();
        let projected = matches!(model.input, Input::Tokens { width, .. } if width != model.hidden);
        let single = |wanted: bool, what, name| wanted.then(|| load.single(what, name)).transpose();
        Ok(Pool {
            embedding: load.single("the embedding", Name::Embedding)?,
            project_in: single(projected, "the embedding's projection", Name::ProjectIn)?,
            project_out: single(projected, "the head's projection", Name::ProjectOut)?,
            head: single(!model.tied, "the head", Name::Head)?,
            positions: single(model.positions > 0, "the positions", Name::Positions)?,
            attention_norms: norms(before, LayerTensor::AttentionNorm, Some(LayerTensor::AttentionNormBias))?,
            ffn_norms: norms(before && own, LayerTensor::FfnNorm, Some(LayerTensor::FfnNormBias))?,
            attention_after: norms(behind, LayerTensor::AttentionAfter, None)?,
            ffn_after: norms(behind, LayerTensor::FfnAfter, None)?,
            final_norm: if model.final_norm { Some(load.final_norm()?) } else { None },
            head_norms: load.head_norms()?,
            qkv: load.stack("queries, keys and values", &of_layers(&qkv))?,
            output: load.stack("attention outputs", &of_layers(&output))?,
            dense: load.dense()?,
            experts: load.experts()?,
            places: places(model),
        })
    }

    pub fn head(&self) -> &Stack {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Of each layer: which of those with experts it is, or of those without.
fn places(model: &Model) -> Vec<u32> {
    let mut counts = [0, 0];
    let next = |kind: &crate::model::Kind| {
        let count = &mut counts[usize::from(kind.experts)];
        *count += 1;
        *count - 1
    };
    model.layer_kinds().map(next).collect()
}

struct Load<'a> {
    gpu: &'a Gpu,
    checkpoint: &'a Checkpoint,
    precision: Precision,
}

impl Load<'_> {
    /// Most bytes of a buffer.
    fn most(&self) -> u64 {
        self.gpu.info().max_binding_bytes.min(self.gpu.info().max_buffer_bytes)
    }

    fn form(&self, tensors: &[Tensor]) -> Form {
        Form::of(tensors.iter().map(|tensor| tensor.format), self.precision)
    }

    /// A matrix alone, split by rows.
    fn single(&self, what: &str, name: Name) -> Result<Stack> {
        let tensor = self.checkpoint.tensor(name)?;
        let (rows, width) = (tensor.rows as u32, tensor.width as u32);
        let form = self.form(std::slice::from_ref(&tensor));
        let words = pack(&tensor, form);
        let row_words = form.row_words(width);
        let each = (self.most() / (u64::from(row_words) * 4)).min(rows.into()) as u32;
        let mut shards = Vec::new();
        for (index, part) in words.chunks((each * row_words) as usize).enumerate() {
            let count = part.len() as u32 / row_words;
            shards.push(Shard { buffer: self.gpu.upload(what, part)?, first: index as u32 * each, count });
        }
        let bias = self.gpu.upload("no biases", &[0f32])?;
        Ok(Stack { form, rows, width, row_words, shards, bias, has_bias: false })
    }

    /// Feed-forward parts of layers without experts.
    fn dense(&self) -> Result<Option<FeedForward>> {
        let model = self.checkpoint.model();
        let layers = (0..model.layers).filter(|&layer| !model.kind(layer).experts);
        let biased = |layer, part, bias| {
            let name = |part| Name::Layer(layer, part);
            (name(part), model.biases.ffn.then_some(name(bias)))
        };
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for layer in layers {
            let gate = model.gated.then(|| biased(layer, LayerTensor::Gate, LayerTensor::GateBias));
            up.push(gate.into_iter().chain([biased(layer, LayerTensor::Up, LayerTensor::UpBias)]).collect());
            down.push(vec![biased(layer, LayerTensor::Down, LayerTensor::DownBias)]);
        }
        self.feed_forward(&up, &down)
    }

    /// Experts of all layers that have some, one layer behind the other, and what chooses among them.
    fn experts(&self) -> Result<Option<ExpertStacks>> {
        let model = self.checkpoint.model();
        let Some(experts) = model.experts else { return Ok(None) };
        let layers: Vec<u32> = (0..model.layers).filter(|&layer| model.kind(layer).experts).collect();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for &layer in &layers {
            for expert in 0..experts.count as u32 {
                let name = |part| (Name::Each(layer, expert, part), None);
                let gate = model.gated.then(|| name(LayerTensor::Gate));
                up.push(gate.into_iter().chain([name(LayerTensor::Up)]).collect());
                down.push(vec![name(LayerTensor::Down)]);
            }
        }
        let Some(parts) = self.feed_forward(&up, &down)? else { return Ok(None) };
        let routers: Vec<Vec<Biased>> =
            layers.iter().map(|&layer| vec![(Name::Layer(layer, LayerTensor::Router), None)]).collect();
        Ok(Some(ExpertStacks { router: self.stack("routers of experts", &routers)?, parts }))
    }

    fn feed_forward(&self, up: &[Vec<Biased>], down: &[Vec<Biased>]) -> Result<Option<FeedForward>> {
        if up.is_empty() {
            return Ok(None);
        }
        let (up, down) = (self.stack("feed-forward inputs", up)?, self.stack("feed-forward outputs", down)?);
        Ok(Some(FeedForward { up, down }))
    }

    /// Matrices of the same shape, each of some tensors one above the other; split between matrices.
    fn stack(&self, what: &str, matrices: &[Vec<Biased>]) -> Result<Stack> {
        let mut formats = Vec::new();
        for (name, _) in matrices.iter().flatten() {
            formats.push(self.checkpoint.shape(*name)?);
        }
        let form = Form::of(formats.iter().map(|(format, ..)| *format), self.precision);
        let width = formats[0].2 as u32;
        let rows: u32 = formats[..matrices[0].len()].iter().map(|(_, rows, _)| *rows as u32).sum();
        let row_words = form.row_words(width);
        let layer_bytes = u64::from(rows) * u64::from(row_words) * 4;
        if layer_bytes > self.most() {
            let what = format!("a layer's {what} of at most the {} bytes of a buffer", self.most());
            return Err(InputError::expected(what).key("weights").found(layer_bytes).into());
        }
        let each = (self.most() / layer_bytes).clamp(1, matrices.len() as u64) as usize;
        let (mut shards, mut biases, mut first) = (Vec::new(), Vec::new(), 0);
        for some in matrices.chunks(each) {
            let count = some.len() as u32;
            let buffer = self.gpu.buffer(what, layer_bytes * u64::from(count))?;
            let mut offset = 0;
            for (name, bias) in some.iter().flatten() {
                let words = pack(&self.checkpoint.tensor(*name)?, form);
                self.gpu.write(&buffer, offset, &words);
                offset += words.len() as u64 * 4;
                if let Some(bias) = bias {
                    biases.extend(self.checkpoint.tensor(*bias)?.to_f32());
                }
                // Staged copies are freed with a submission; a large model would be held twice.
                if offset % MOST_STAGED < words.len() as u64 * 4 {
                    self.gpu.flush()?;
                }
            }
            self.gpu.flush()?;
            shards.push(Shard { buffer, first, count });
            first += count;
        }
        let has_bias = !biases.is_empty();
        let bias = self.gpu.upload("biases", if has_bias { &biases } else { &[0f32] })?;
        Ok(Stack { form, rows, width, row_words, shards, bias, has_bias })
    }

    /// Weights of a norm of this width, and what stands behind them: a layer norm has biases, 0 where the file has none.
    fn norm(&self, all: &mut Vec<f32>, width: u64, weight: Name, bias: Option<Name>) -> Result<()> {
        let norm = self.checkpoint.model().norm;
        if norm.weight {
            let more = f32::from(u8::from(norm.plus_one));
            all.extend(self.checkpoint.tensor(weight)?.to_f32().into_iter().map(|x| x + more));
        } else {
            all.extend(std::iter::repeat_n(1.0, width as usize));
        }
        if norm.layer {
            match bias.filter(|_| norm.bias) {
                Some(bias) => all.extend(self.checkpoint.tensor(bias)?.to_f32()),
                None => all.extend(std::iter::repeat_n(0.0, width as usize)),
            }
        }
        Ok(())
    }

    fn norms(&self, weight: LayerTensor, bias: Option<LayerTensor>) -> Result<Norms> {
        let (model, mut all) = (self.checkpoint.model(), Vec::new());
        for layer in 0..model.layers {
            let name = |part| Name::Layer(layer, part);
            self.norm(&mut all, model.hidden, name(weight), bias.map(name))?;
        }
        self.gpu.upload("norms", &all)
    }

    fn final_norm(&self) -> Result<Norms> {
        let mut all = Vec::new();
        let bias = Some(Name::FinalNormBias);
        self.norm(&mut all, self.checkpoint.model().hidden, Name::FinalNorm, bias)?;
        self.gpu.upload("the final norm", &all)
    }

    /// Weights of the norms of queries and keys.
    fn head_norms(&self) -> Result<Option<HeadNorms>> {
        let model = self.checkpoint.model();
        let over = match model.qk_norm {
            QkNorm::None => return Ok(None),
            QkNorm::Head => Over::Shared,
            QkNorm::EachHead => Over::Each,
            QkNorm::Whole => Over::Whole,
        };
        let more = f32::from(u8::from(model.norm.plus_one));
        let mut all = Vec::new();
        for layer in 0..model.layers {
            for (part, heads) in [(LayerTensor::QNorm, model.heads), (LayerTensor::KNorm, model.kv_heads)] {
                let of_heads = |head: u64| Name::Each(layer, head as u32, part);
                let names: Vec<Name> = match over {
                    Over::Each => (0..heads).map(of_heads).collect(),
                    _ => vec![Name::Layer(layer, part)],
                };
                for name in names {
                    all.extend(self.checkpoint.tensor(name)?.to_f32().into_iter().map(|x| x + more));
                }
            }
        }
        Ok(Some(HeadNorms {
            values: all.len() as u32 / model.layers,
            weights: self.gpu.upload("norms of queries and keys", &all)?,
            over,
            layer: model.norm.layer,
            epsilon: model.norm.epsilon(),
            width: model.head_dim as u32,
            queries: model.heads as u32,
            keys: model.kv_heads as u32,
        }))
    }
}

/// Bytes that are staged on the host before they are submitted.
const MOST_STAGED: u64 = 64 << 20;
