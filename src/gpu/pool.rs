//! Weights on the device: every layer's matrices of one kind side by side, so that a kernel can take the matrices of several
//! layers; split over buffers where one cannot hold them all.

use super::device::{Buffer, Gpu};
use super::packed::{Form, pack};
use crate::error::{InputError, Result};
use crate::kernel::Density;
use crate::model::{Activation, Input, Model, Placement, QkNorm, Scaling};
use crate::units::Dtype;
use crate::weights::{Checkpoint, Name, Part, Tensor};

/// Matrices of one kind of all layers, or a single matrix whose rows are split over buffers.
#[derive(Debug)]
pub(super) struct Stack {
    pub form: Form,
    /// Rows of a layer's matrix: columns of a product's result.
    pub rows: u32,
    /// Values of a row.
    pub width: u32,
    pub row_words: u32,
    pub shards: Vec<Shard>,
    /// `layers x rows`; one value where there is none.
    pub bias: Buffer,
    pub has_bias: bool,
}

/// A buffer of a stack.
#[derive(Debug)]
pub(super) struct Shard {
    pub buffer: Buffer,
    /// First layer, or first row of a single matrix.
    pub first: u32,
    /// Layers, or rows.
    pub count: u32,
}

impl Stack {
    /// The shard of a layer.
    pub fn shard(&self, layer: u32) -> usize {
        self.shards.iter().rposition(|shard| shard.first <= layer).expect("the first shard begins at 0")
    }

    pub fn dtype(&self) -> Dtype {
        self.form.dtype()
    }

    pub const DENSITY: Density = Density::Dense;
}

/// All weights of a model on the device.
#[derive(Debug)]
pub(super) struct Pool {
    pub embedding: Stack,
    /// Absent where the model is tied.
    head: Option<Stack>,
    /// f32, a row a position.
    pub positions: Option<Stack>,
    /// A layer's norm weights, its biases behind them where it is a layer norm. The last layer's are followed by the final norm's.
    pub attention_norms: Buffer,
    pub ffn_norms: Buffer,
    pub final_norm: Buffer,
    pub qkv: Stack,
    pub output: Stack,
    /// Gate (where gated) above up.
    pub up: Stack,
    pub down: Stack,
}

/// In which form weights are kept on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the file has them; bfloat16 as f32, Q4_0 with a minimum, formats of blocks without a form of their own as f32.
    #[default]
    Kept,
    /// All as f32.
    F32,
    /// Matrices as f16, rounded to nearest.
    F16,
}

impl Pool {
    /// Uploads all weights.
    pub fn new(gpu: &Gpu, checkpoint: &Checkpoint, precision: Precision) -> Result<Pool> {
        let model = checkpoint.model();
        let load = Load { gpu, checkpoint, precision };
        let with_gate = if model.gated {
            vec![(Part::Gate, None), (Part::Up, None)]
        } else {
            vec![(Part::Up, bias(model.biases.ffn, Part::UpBias))]
        };
        let qkv = [(Part::Q, Part::QBias), (Part::K, Part::KBias), (Part::V, Part::VBias)];
        Ok(Pool {
            embedding: load.single("the embedding", Name::Embedding)?,
            head: if model.tied { None } else { Some(load.single("the head", Name::Head)?) },
            positions: if model.positions > 0 {
                Some(load.single("the positions", Name::Positions)?)
            } else {
                None
            },
            attention_norms: load.norms(Part::AttentionNorm, Part::AttentionNormBias)?,
            ffn_norms: load.norms(Part::FfnNorm, Part::FfnNormBias)?,
            final_norm: load.final_norm()?,
            qkv: load.stack(
                "queries, keys and values",
                &qkv.map(|(part, of)| (part, bias(model.biases.qkv, of))),
            )?,
            output: load.stack("attention outputs", &[(Part::O, bias(model.biases.output, Part::OBias))])?,
            up: load.stack("feed-forward inputs", &with_gate)?,
            down: load
                .stack("feed-forward outputs", &[(Part::Down, bias(model.biases.ffn, Part::DownBias))])?,
        })
    }

    pub fn head(&self) -> &Stack {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

fn bias(has: bool, part: Part) -> Option<Part> {
    has.then_some(part)
}

/// Shapes that the kernels cannot run, before anything is uploaded.
pub(super) fn check_shapes(model: &Model) -> Result<()> {
    let no = |key: &str, found: &dyn std::fmt::Display, what: &str| {
        Err(InputError::expected(what).key(key).found(found).into())
    };
    if !matches!(model.input, Input::Tokens { width, .. } if width == model.hidden) || model.outputs == 0 {
        return no("model", &model.name, "a language model with embeddings of its own width");
    }
    for (key, value) in [("hidden", model.hidden), ("head_dim", model.head_dim), ("ffn", model.ffn)] {
        if value % 4 != 0 {
            return no(key, &value, "a multiple of 4, as the kernels take four values at a time");
        }
    }
    let plain = Model::plain("", "", model.weights);
    let rope_is_plain =
        model.rope.as_ref().is_none_or(|rope| rope.scaling == Scaling::None && rope.width == model.head_dim);
    let known = [Activation::Silu, Activation::Gelu, Activation::Relu].contains(&model.activation);
    for (key, fits) in [
        ("qk_norm", model.qk_norm == QkNorm::None),
        ("placement", model.placement == Placement::Before),
        ("kinds", model.kinds == plain.kinds),
        ("latent", model.latent.is_none()),
        ("experts", model.experts.is_none()),
        ("scales", model.scales == plain.scales),
        ("rope", rope_is_plain),
        ("norm", model.norm.weight && !model.norm.plus_one && model.norm.bias == model.norm.layer),
        ("biases", !model.biases.head && !(model.gated && model.biases.ffn)),
        ("activation", known),
    ] {
        if !fits {
            return no(key, &model.name, "a model that has what Llama or OPT has: this part is not executed");
        }
    }
    if let Some(remark) = model.remarks.first() {
        return no("config", remark, "keys that are known, as this one may change the arithmetic");
    }
    Ok(())
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

    /// Matrices of all layers, those of `parts` one above the other; split between layers.
    fn stack(&self, what: &str, parts: &[(Part, Option<Part>)]) -> Result<Stack> {
        let layers = self.checkpoint.model().layers;
        let mut formats = Vec::new();
        for layer in 0..layers {
            for (part, _) in parts {
                formats.push(self.checkpoint.shape(Name::Layer(layer, *part))?);
            }
        }
        let form = Form::of(formats.iter().map(|(format, ..)| *format), self.precision);
        let width = formats[0].2 as u32;
        let rows: u32 = formats[..parts.len()].iter().map(|(_, rows, _)| *rows as u32).sum();
        let row_words = form.row_words(width);
        let layer_bytes = u64::from(rows) * u64::from(row_words) * 4;
        if layer_bytes > self.most() {
            let what = format!("a layer's {what} of at most the {} bytes of a buffer", self.most());
            return Err(InputError::expected(what).key("weights").found(layer_bytes).into());
        }
        let each = (self.most() / layer_bytes).clamp(1, layers.into()) as u32;
        let (mut shards, mut biases) = (Vec::new(), Vec::new());
        for first in (0..layers).step_by(each as usize) {
            let count = each.min(layers - first);
            let buffer = self.gpu.buffer(what, layer_bytes * u64::from(count))?;
            let mut offset = 0;
            for layer in first..first + count {
                for (part, bias) in parts {
                    let words = pack(&self.checkpoint.tensor(Name::Layer(layer, *part))?, form);
                    self.gpu.write(&buffer, offset, &words);
                    offset += words.len() as u64 * 4;
                    if let Some(bias) = bias {
                        biases.extend(self.checkpoint.tensor(Name::Layer(layer, *bias))?.to_f32());
                    }
                }
                // Staged copies are freed with a submission; a large model would be held twice.
                self.gpu.flush()?;
            }
            shards.push(Shard { buffer, first, count });
        }
        let has_bias = !biases.is_empty();
        let bias = self.gpu.upload("biases", if has_bias { &biases } else { &[0f32] })?;
        Ok(Stack { form, rows, width, row_words, shards, bias, has_bias })
    }

    fn norms(&self, weight: Part, bias: Part) -> Result<Buffer> {
        let mut all = Vec::new();
        for layer in 0..self.checkpoint.model().layers {
            all.extend(self.checkpoint.tensor(Name::Layer(layer, weight))?.to_f32());
            if self.checkpoint.has(Name::Layer(layer, bias)) {
                all.extend(self.checkpoint.tensor(Name::Layer(layer, bias))?.to_f32());
            }
        }
        self.gpu.upload("norms", &all)
    }

    fn final_norm(&self) -> Result<Buffer> {
        let mut all = self.checkpoint.tensor(Name::FinalNorm)?.to_f32();
        if self.checkpoint.has(Name::FinalNormBias) {
            all.extend(self.checkpoint.tensor(Name::FinalNormBias)?.to_f32());
        }
        self.gpu.upload("the final norm", &all)
    }
}
