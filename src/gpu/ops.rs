//! Kernels of the simulator's vocabulary as dispatches: shapes in, one labelled call out. Here: what they share, embeddings, norms and
//! non-linearities.

use super::device::{Buffer, Gpu};
use super::pipeline::{Pipeline, Shader};
use super::recording::{Binding, KernelDispatch, Recording};
use super::shaders as s;
use super::stack::Stack;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::lower::Cause;
use crate::units::Dtype;
use std::rc::Rc;

/// Activations and KV entries.
pub(super) const ACTIVATIONS: Dtype = Dtype::F32;

/// A kernel of a pass: what it is and which of the dispatches are its (more than one where its weights lie in several buffers).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExecutedKernel {
    /// The kernel, as the simulator names it.
    pub kernel: Kernel,
    /// What it was for.
    pub cause: Cause,
    /// Layer; [`crate::lower::Call::NO_LAYER`] outside of layers, and for kernels that serve several.
    pub layer: u16,
    /// First of its dispatches in the recording.
    pub first: u32,
    /// Dispatches.
    pub count: u32,
}

/// A matrix of activations: a buffer, values from row to row, and where in a row it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub buffer: &'a Buffer,
    pub stride: u32,
}

/// In the list of layers: a norm leaves the row as it is.
pub(super) const LEFT_ALONE: u32 = u32::MAX;

/// Norms of all layers: weights one layer after the other, a layer norm's biases behind each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Normed<'a> {
    pub weights: &'a Buffer,
    /// Layer norm rather than RMS.
    pub layer: bool,
    pub epsilon: f64,
    pub width: u32,
}

/// A place where rows are looked at, and where in the lists a 1 stands if one of them is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub cause: Cause,
    pub layer: u16,
    pub note: u32,
}

/// Norms of queries and keys of all layers.
#[derive(Debug)]
pub(super) struct HeadNorms {
    /// `layers x values`: those of queries, then those of keys.
    pub weights: Buffer,
    /// Weights of a layer.
    pub values: u32,
    pub over: Over,
    pub layer: bool,
    pub epsilon: f64,
    /// Values of a head.
    pub width: u32,
    /// Heads of queries, and of keys.
    pub queries: u32,
    pub keys: u32,
}

/// What a norm of queries and keys is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// A head; queries share their weights, and keys theirs.
    Shared,
    /// A head, each with weights of its own.
    Each,
    /// All heads together.
    Whole,
}

/// One dispatch of norms of heads.
struct HeadCall {
    heads: u32,
    /// Column of the first.
    first: u32,
    /// Where in a layer its weights begin.
    weight: u32,
    /// Heads that take the first weights.
    queries: u32,
    width: u32,
}

/// Consecutive rows that belong to one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub layer: u32,
    pub rows: u32,
}

/// A pass under construction.
pub(super) struct Ops<'a> {
    pub gpu: &'a Gpu,
    pub recording: Recording,
    pub done: Vec<ExecutedKernel>,
    /// What kernels look up by number.
    pub lists: Vec<u32>,
    /// Where `lists` will be on the device.
    pub lists_at: Buffer,
    /// What the next kernels are for.
    pub cause: Cause,
    pub layer: u16,
    /// Lanes of a subgroup.
    pub subgroup: u32,
    /// Where rows were looked at for numbers that are not finite; `None`: nobody looks.
    pub looks: Option<Vec<Look>>,
}

impl Ops<'_> {
    /// Puts numbers where kernels can look them up; returns where.
    pub fn list(&mut self, numbers: impl IntoIterator<Item = u32>) -> u32 {
        let at = self.lists.len() as u32;
        self.lists.extend(numbers);
        at
    }

    pub(super) fn label(&mut self, kernel: Kernel, first: usize) {
        let count = (self.recording.dispatches.len() - first) as u32;
        self.done.push(ExecutedKernel {
            kernel,
            cause: self.cause,
            layer: self.layer,
            first: first as u32,
            count,
        });
    }

    pub(super) fn push<P: bytemuck::Pod>(
        &mut self,
        pipeline: Rc<Pipeline>,
        bindings: &[&Buffer],
        parameters: P,
        workgroups: [u32; 3],
    ) {
        let bindings = bindings.iter().map(|&buffer| Binding::from(buffer)).collect();
        let parameters = bytemuck::bytes_of(&parameters).to_vec();
        self.recording.push(KernelDispatch { pipeline, bindings, parameters, workgroups });
    }

    /// A kernel with an invocation for four values, `width4` of them in each of `rows`.
    pub(super) fn elementwise<P: bytemuck::Pod>(
        &mut self,
        (shader, constants): (Shader, &[(&str, f64)]),
        bindings: &[&Buffer],
        parameters: P,
        [width, rows]: [u32; 2],
    ) -> Result<()> {
        let pipeline = self.gpu.pipeline(shader, constants)?;
        self.push(pipeline, bindings, parameters, [width.div_ceil(64), rows, 1]);
        Ok(())
    }

    /// Whether the device can run loops of so many turns in one kernel.
    ///
    /// # Errors
    /// A driver that would end them before and say nothing.
    pub(super) fn check_turns(&self, what: &str, turns: u64) -> Result<()> {
        let most = self.gpu.turns()?;
        if turns <= u64::from(most) {
            return Ok(());
        }
        let name = &self.gpu.info().name;
        Err(Error::Gpu(format!(
            "{what} takes loops of {turns} turns here, and {name} ends loops after {most}"
        )))
    }

    pub(super) fn one_subgroup(&self) -> [(&'static str, f64); 1] {
        [("WORKGROUP", f64::from(self.subgroup))]
    }

    /// Rows of a table by number, times `scale`: `tokens` stand in the lists.
    pub fn embed(&mut self, table: &Stack, tokens: u32, rows: u32, scale: f64, to: Rows) -> Result<()> {
        let first = self.recording.dispatches.len();
        let lists = self.lists_at.clone();
        for shard in &table.shards {
            let parameters = s::EmbedRows {
                rows,
                width4: table.width / 4,
                stride4: to.stride / 4,
                row_words: table.row_words,
                tokens,
                first: shard.first,
                count: shard.count,
                scale: scale as f32,
            };
            let constants = [("FORMAT", table.form as u32 as f64)];
            let bindings = [&shard.buffer, &lists, to.buffer];
            self.elementwise((s::EMBED_ROWS, &constants), &bindings, parameters, [table.width / 4, rows])?;
        }
        let kernel =
            Kernel::Embed { rows, width: table.width, table: table.dtype(), activations: ACTIVATIONS };
        self.label(kernel, first);
        Ok(())
    }

    /// Norms of rows as wide as the weights, of so many groups, whose layers stand in the lists ([`LEFT_ALONE`]: the row stays as it is).
    /// Without `to`, in place.
    pub fn norm(
        &mut self,
        norm: Normed,
        (layers, rows, groups): (u32, u32, u32),
        from: Rows,
        to: Option<Rows>,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let (width, out) = (norm.width, to.unwrap_or(from));
        self.check_turns("a norm", 3 * u64::from((width / 4).div_ceil(self.subgroup)))?;
        let parameters = s::Norm {
            rows,
            width4: width / 4,
            input_stride4: from.stride / 4,
            output_stride4: out.stride / 4,
            layers,
            epsilon: norm.epsilon as f32,
        };
        let shader = if norm.layer { s::LAYER_NORM } else { s::RMS_NORM };
        let constants = [self.one_subgroup()[0], ("IN_PLACE", f64::from(u8::from(to.is_none())))];
        let pipeline = self.gpu.pipeline(shader, &constants)?;
        let lists = self.lists_at.clone();
        // A buffer that a kernel writes cannot be bound for reading as well.
        let input = if to.is_some() { from.buffer } else { norm.weights };
        self.push(pipeline, &[input, norm.weights, &lists, out.buffer], parameters, [rows, 1, 1]);
        let layer_norm = norm.layer;
        self.label(Kernel::Norm { rows, width, groups, layer_norm, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// Norms of queries and keys in place: `heads` of each, from `column` of each row on. Layers stand in the lists.
    pub fn head_norm(
        &mut self,
        norm: &HeadNorms,
        (layers, rows, groups): (u32, u32, u32),
        heads: [u32; 2],
        values: Rows,
    ) -> Result<()> {
        let [queries, keys] = heads;
        let per_head = norm.width;
        let call = |heads, first, weight, queries, width| HeadCall { heads, first, weight, queries, width };
        match norm.over {
            Over::Shared => self.heads(
                norm,
                (layers, rows, groups),
                call(queries + keys, 0, 0, queries, per_head),
                values,
            ),
            Over::Each => {
                // Where there are no queries, the weights of the keys come behind those of all queries.
                let weight = if queries == 0 { norm.queries * per_head } else { 0 };
                self.heads(norm, (layers, rows, groups), call(queries + keys, 0, weight, 0, per_head), values)
            }
            Over::Whole => {
                let (wide, narrow) = (norm.queries * per_head, norm.keys * per_head);
                if queries > 0 {
                    self.heads(norm, (layers, rows, groups), call(1, 0, 0, 1, wide), values)?;
                }
                let column = queries * per_head;
                self.heads(norm, (layers, rows, groups), call(1, column, wide, 1, narrow), values)
            }
        }
    }

    fn heads(
        &mut self,
        norm: &HeadNorms,
        (layers, rows, groups): (u32, u32, u32),
        call: HeadCall,
        values: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let HeadCall { heads, first: column, weight, queries, width } = call;
        self.check_turns("a norm", 3 * u64::from((width / 4).div_ceil(self.subgroup)))?;
        let parameters = s::HeadNorm {
            rows,
            heads,
            queries,
            each: u32::from(norm.over == Over::Each),
            width4: width / 4,
            stride4: values.stride / 4,
            first4: column / 4,
            layers,
            layer4: norm.values / 4,
            weight4: weight / 4,
            epsilon: norm.epsilon as f32,
        };
        let constants = [self.one_subgroup()[0], ("LAYER", f64::from(u8::from(norm.layer)))];
        let pipeline = self.gpu.pipeline(s::HEAD_NORM, &constants)?;
        let lists = self.lists_at.clone();
        self.push(pipeline, &[&norm.weights, &lists, values.buffer], parameters, [heads, rows, 1]);
        let (rows, layer_norm) = (rows * heads, norm.layer);
        self.label(Kernel::Norm { rows, width, groups, layer_norm, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// The layer of each row, in the lists.
    pub fn layers(&mut self, segments: &[Segment]) -> u32 {
        let of = |segment: &Segment| std::iter::repeat_n(segment.layer, segment.rows as usize);
        let numbers: Vec<u32> = segments.iter().flat_map(of).collect();
        self.list(numbers)
    }

    /// The non-linearity. Gated: gate and value side by side in a row.
    pub fn activation(
        &mut self,
        kind: u32,
        gated: bool,
        rows: u32,
        width: u32,
        from: Rows,
        to: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let parameters = s::Activation {
            rows,
            width4: width / 4,
            input_stride4: from.stride / 4,
            output_stride4: to.stride / 4,
        };
        let shader = if gated { s::GATED_ACTIVATION } else { s::ACTIVATION };
        let constants = [("KIND", f64::from(kind))];
        self.elementwise((shader, &constants), &[from.buffer, to.buffer], parameters, [width / 4, rows])?;
        self.label(Kernel::Activation { rows, width, gated, activations: ACTIVATIONS }, first);
        Ok(())
    }
}
