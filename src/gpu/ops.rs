//! Kernels of the simulator's vocabulary as dispatches: shapes in, one labelled call out.

use super::choice::Tiling;
use super::device::{Buffer, Gpu};
use super::pipeline::{Pipeline, Shader};
use super::pool::Stack;
use super::recording::{Binding, Dispatch, Recording};
use super::shaders as s;
use crate::error::Result;
use crate::kernel::{Attention, Kernel};
use crate::lower::Cause;
use crate::units::Dtype;
use std::rc::Rc;

/// Activations and KV entries.
pub(super) const ACTIVATIONS: Dtype = Dtype::F32;

/// A kernel of a pass: what it is and which of the dispatches are its (more than one where its weights lie in several buffers).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
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
    pub done: Vec<Done>,
    /// What kernels look up by number.
    pub lists: Vec<u32>,
    /// Where `lists` will be on the device.
    pub lists_at: Buffer,
    /// What the next kernels are for.
    pub cause: Cause,
    pub layer: u16,
    /// Lanes of a subgroup.
    pub subgroup: u32,
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
        self.done.push(Done { kernel, cause: self.cause, layer: self.layer, first: first as u32, count });
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
        self.recording.push(Dispatch { pipeline, bindings, parameters, workgroups });
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

    pub(super) fn one_subgroup(&self) -> [(&'static str, f64); 1] {
        [("WORKGROUP", f64::from(self.subgroup))]
    }

    /// Rows of a table by number: `tokens` stand in the lists.
    pub fn embed(&mut self, table: &Stack, tokens: u32, rows: u32, to: Rows) -> Result<()> {
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

    /// A norm of each row with the weights of its segment's layer.
    #[expect(clippy::too_many_arguments, reason = "a kernel has as many")]
    pub fn norm(
        &mut self,
        layer_norm: bool,
        weights: &Buffer,
        epsilon: f64,
        segments: &[Segment],
        width: u32,
        from: Rows,
        to: Rows,
    ) -> Result<()> {
        let rows = segments.iter().map(|segment| segment.rows).sum();
        let layers = self.layers(segments, 0);
        debug_assert_eq!(width, to.stride);
        self.norm_listed(layer_norm, weights, epsilon, (layers, rows, segments.len() as u32), from, to)
    }

    /// A norm of rows whose layers stand in the lists: where, how many rows, of how many groups.
    pub fn norm_listed(
        &mut self,
        layer_norm: bool,
        weights: &Buffer,
        epsilon: f64,
        (layers, rows, groups): (u32, u32, u32),
        from: Rows,
        to: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let width = to.stride;
        let parameters = s::Norm {
            rows,
            width4: width / 4,
            input_stride4: from.stride / 4,
            output_stride4: to.stride / 4,
            layers,
            epsilon: epsilon as f32,
        };
        let shader = if layer_norm { s::LAYER_NORM } else { s::RMS_NORM };
        let pipeline = self.gpu.pipeline(shader, &self.one_subgroup())?;
        let lists = self.lists_at.clone();
        self.push(pipeline, &[from.buffer, weights, &lists, to.buffer], parameters, [rows, 1, 1]);
        self.label(Kernel::Norm { rows, width, groups, layer_norm, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// The layer of each row, counted from a first one.
    fn layers(&mut self, segments: &[Segment], from: u32) -> u32 {
        let numbers: Vec<u32> = segments
            .iter()
            .flat_map(|segment| std::iter::repeat_n(segment.layer - from, segment.rows as usize))
            .collect();
        self.list(numbers)
    }

    /// Products of rows with the matrices of their layers: columns `columns` of the result of width `to.stride` or less.
    pub fn matmul(
        &mut self,
        stack: &Stack,
        columns: std::ops::Range<u32>,
        segments: &[Segment],
        from: Rows,
        to: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let mut before = 0;
        for part in segments.chunk_by(|a, b| stack.shard(a.layer) == stack.shard(b.layer)) {
            let shard = &stack.shards[stack.shard(part[0].layer)];
            let product =
                Product { stack, shard, columns: columns.clone(), columns_at: 0, first_layer: shard.first };
            self.product(product, part, before, from, to)?;
            before += part.iter().map(|segment| segment.rows).sum::<u32>();
        }
        let (inner, columns, weights) = (stack.width, columns.len() as u32, stack.dtype());
        let (rows, density, activations) = (before, Stack::DENSITY, ACTIVATIONS);
        let kernel = match segments {
            [_] => Kernel::MatMul { rows, inner, columns, weights, activations, density },
            _ => {
                let slices =
                    segments.iter().map(|segment| segment.rows.div_ceil(crate::kernel::GROUP_SLICE)).sum();
                let groups = segments.len() as u32;
                Kernel::GroupedMatMul { rows, groups, slices, inner, columns, weights, activations, density }
            }
        };
        self.label(kernel, first);
        Ok(())
    }

    /// The product with a single matrix that may be split by its rows.
    pub fn matmul_single(&mut self, matrix: &Stack, rows: u32, from: Rows, to: Rows) -> Result<()> {
        let first = self.recording.dispatches.len();
        for shard in &matrix.shards {
            let product = Product {
                stack: matrix,
                shard,
                columns: 0..shard.count,
                columns_at: shard.first,
                first_layer: 0,
            };
            self.product(product, &[Segment { layer: 0, rows }], 0, from, to)?;
        }
        let (inner, columns, weights) = (matrix.width, matrix.rows, matrix.dtype());
        let (density, activations) = (Stack::DENSITY, ACTIVATIONS);
        self.label(Kernel::MatMul { rows, inner, columns, weights, activations, density }, first);
        Ok(())
    }

    fn product(
        &mut self,
        product: Product,
        segments: &[Segment],
        before: u32,
        from: Rows,
        to: Rows,
    ) -> Result<()> {
        let Product { stack, shard, columns, columns_at, first_layer } = product;
        let bias = f64::from(u8::from(stack.has_bias));
        let form = Tiling::best(segments, stack.form);
        let width = columns.len() as u32;
        let (rows_at, calls) = match form.tile() {
            // Row by row, each with its layer.
            None => {
                (self.layers(segments, first_layer), segments.iter().map(|segment| segment.rows).sum::<u32>())
            }
            Some(tile) => self.tiles(segments, before, tile, first_layer),
        };
        let run =
            if form == Tiling::Single { Tiling::run(width, 4 * self.subgroup, self.gpu.info()) } else { 1 };
        let parameters = s::MatMul {
            inner4: stack.width / 4,
            columns: width,
            input_stride4: from.stride / 4,
            output_stride: to.stride,
            row_words: stack.row_words,
            layer_words: stack.rows * stack.row_words,
            rows_at,
            columns_at,
            first_row: columns.start,
            layer_rows: stack.rows,
            from_row: before,
            run,
        };
        let lists = self.lists_at.clone();
        let constants = self.one_subgroup();
        let workgroup = self.subgroup;
        let columns_each = 4 * workgroup;
        if let Some(rows) = form.tile() {
            let constants = [
                constants[0],
                ("ROWS", f64::from(rows)),
                ("FORMAT", stack.form as u32 as f64),
                ("BIAS", bias),
            ];
            let pipeline = self.gpu.pipeline(s::MATMUL_TILES, &constants)?;
            let bindings = [from.buffer, &shard.buffer, &shard.buffer, &stack.bias, &lists, to.buffer];
            self.push(pipeline, &bindings, parameters, [width.div_ceil(columns_each), calls, 1]);
            return Ok(());
        }
        let constants = [constants[0], ("BIAS", bias)];
        let pipeline = self.gpu.pipeline(form.matvec(stack.form), &constants)?;
        let bindings = [from.buffer, &shard.buffer, &stack.bias, &lists, to.buffer];
        self.push(pipeline, &bindings, parameters, [width.div_ceil(columns_each * run), calls, 1]);
        Ok(())
    }

    /// Tiles of at most `tile` rows: first row, rows, layer. Returns where, and how many.
    fn tiles(&mut self, segments: &[Segment], before: u32, tile: u32, first_layer: u32) -> (u32, u32) {
        let (mut row, mut count) = (before, 0);
        let at = self.lists.len() as u32;
        for segment in segments {
            let end = row + segment.rows;
            while row < end {
                let rows = tile.min(end - row);
                self.list([row, rows, segment.layer - first_layer]);
                row += rows;
                count += 1;
            }
        }
        (at, count)
    }

    /// Rotates `heads` heads from the start of each row. `positions` stand in the lists.
    pub fn rope(
        &mut self,
        angles: &Buffer,
        interleaved: bool,
        positions: u32,
        [rows, heads, head_dim]: [u32; 3],
        values: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let parameters = s::Rope { rows, heads, half: head_dim / 2, stride: values.stride, positions };
        let constants = [("INTERLEAVED", f64::from(u8::from(interleaved)))];
        let lists = self.lists_at.clone();
        let invocations = heads * head_dim / 2;
        self.elementwise(
            (s::ROPE, &constants),
            &[angles, &lists, values.buffer],
            parameters,
            [invocations, rows],
        )?;
        self.label(Kernel::Rope { rows, heads, head_dim, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// Keys and values into their entries. `parts`: buffer of the cache, where in the lists the entry of each row stands.
    pub fn kv_write(
        &mut self,
        rows: u32,
        width: u32,
        from: Rows,
        from_column: u32,
        parts: &[(Buffer, u32)],
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let lists = self.lists_at.clone();
        for (cache, entries) in parts {
            let parameters = s::KvWrite {
                rows,
                width4: width / 4,
                stride4: from.stride / 4,
                from4: from_column / 4,
                entries: *entries,
            };
            self.elementwise(
                (s::KV_WRITE, &[]),
                &[from.buffer, &lists, cache],
                parameters,
                [width / 4, rows],
            )?;
        }
        self.label(Kernel::KvWrite { rows, width, activations: ACTIVATIONS, kv: ACTIVATIONS }, first);
        Ok(())
    }

    /// Attention. `parts`: buffer of the cache, where in the lists its rows (of generations) or tiles (of prompts) stand, how many.
    pub fn attention(
        &mut self,
        shape: Attention,
        parts: &[(Buffer, u32, u32)],
        queries: Rows,
        to: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let lists = self.lists_at.clone();
        let (head4, heads) = (u32::from(shape.head_dim) / 4, u32::from(shape.heads));
        let (shader, each) = if shape.decode { (s::ATTENTION_DECODE, 2) } else { (s::ATTENTION_PREFILL, 1) };
        let pipeline = self.gpu.pipeline(shader, &self.one_subgroup())?;
        for (cache, rows_at, count) in parts {
            let parameters = s::Attention {
                heads,
                group: heads / u32::from(shape.kv_heads),
                head4,
                kv4: u32::from(shape.kv_heads) * head4,
                query_stride4: queries.stride / 4,
                output_stride4: to.stride / 4,
                rows_at: *rows_at,
                scale: scale(shape),
                count: *count,
            };
            let groups = [heads, *count, head4.div_ceil(each * self.subgroup)];
            self.push(pipeline.clone(), &[queries.buffer, cache, &lists, to.buffer], parameters, groups);
        }
        self.label(Kernel::Attention(shape), first);
        Ok(())
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

    /// Adds a branch to the stream; with a mask, only in the rows where it is 1.
    pub fn residual_add(
        &mut self,
        rows: u32,
        width: u32,
        branch: Rows,
        stream: Rows,
        mask: Option<&[u32]>,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let at = mask.map_or(0, |mask| self.list(mask.iter().copied()));
        let parameters = s::ResidualAdd {
            rows,
            width4: width / 4,
            stream_stride4: stream.stride / 4,
            branch_stride4: branch.stride / 4,
            mask: at,
        };
        let constants = [("MASKED", f64::from(u8::from(mask.is_some())))];
        let lists = self.lists_at.clone();
        self.elementwise(
            (s::RESIDUAL_ADD, &constants),
            &[branch.buffer, &lists, stream.buffer],
            parameters,
            [width / 4, rows],
        )?;
        self.label(Kernel::ResidualAdd { rows, width, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// Adds a branch to the stream where its ratio reaches the threshold, and records what it found.
    pub fn residual_oracle(
        &mut self,
        parameters: s::ResidualOracle,
        branch: &Buffer,
        stream: &Buffer,
        starts: &Buffer,
        records: &Buffer,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let pipeline = self.gpu.pipeline(s::RESIDUAL_ORACLE, &self.one_subgroup())?;
        self.push(pipeline, &[branch, stream, starts, records], parameters, [parameters.rows, 1, 1]);
        let width = parameters.width4 * 4;
        self.label(Kernel::ResidualAdd { rows: parameters.rows, width, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// Rows of the stream by index into a block.
    pub fn gather(&mut self, indices: &[u32], width: u32, stream: Rows, block: Rows) -> Result<()> {
        let rows = self.move_rows(s::GATHER_ROWS, indices, width, stream, block)?;
        let first = self.recording.dispatches.len() - 1;
        self.label(Kernel::Gather { rows, width, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// Rows of a block back into the stream.
    pub fn scatter(&mut self, indices: &[u32], width: u32, block: Rows, stream: Rows) -> Result<()> {
        let rows = self.move_rows(s::SCATTER_ROWS, indices, width, block, stream)?;
        let first = self.recording.dispatches.len() - 1;
        self.label(Kernel::Scatter { rows, width, activations: ACTIVATIONS }, first);
        Ok(())
    }

    fn move_rows(
        &mut self,
        shader: Shader,
        indices: &[u32],
        width: u32,
        from: Rows,
        to: Rows,
    ) -> Result<u32> {
        let (rows, at) = (indices.len() as u32, self.list(indices.iter().copied()));
        let parameters = s::MoveRows {
            rows,
            width4: width / 4,
            from_stride4: from.stride / 4,
            to_stride4: to.stride / 4,
            indices: at,
        };
        let lists = self.lists_at.clone();
        self.elementwise((shader, &[]), &[from.buffer, &lists, to.buffer], parameters, [width / 4, rows])?;
        Ok(rows)
    }

    /// The likeliest tokens of each row of logits.
    pub fn sample(&mut self, parameters: s::Sample, logits: &Buffer, chosen: &Buffer) -> Result<()> {
        let first = self.recording.dispatches.len();
        let pipeline = self.gpu.pipeline(s::SAMPLE, &self.one_subgroup())?;
        let lists = self.lists_at.clone();
        self.push(pipeline, &[logits, &lists, chosen], parameters, [parameters.rows, 1, 1]);
        let (rows, vocabulary) = (parameters.rows, parameters.vocabulary);
        self.label(Kernel::Sample { rows, vocabulary, activations: ACTIVATIONS }, first);
        Ok(())
    }
}

/// A product with (part of) a stack in one buffer.
struct Product<'a> {
    stack: &'a Stack,
    shard: &'a super::pool::Shard,
    columns: std::ops::Range<u32>,
    columns_at: u32,
    first_layer: u32,
}

/// One over the root of a head's width (Vaswani et al., arXiv 1706.03762, section 3.2.1).
fn scale(shape: Attention) -> f32 {
    (1.0 / f64::from(shape.head_dim).sqrt()) as f32
}
