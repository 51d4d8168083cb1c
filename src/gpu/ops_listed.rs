//! Kernels whose rows find their layers in the lists, where a router or `place_rows` put them.

use super::choice::Tiling;
use super::device::Buffer;
use super::ops::{ACTIVATIONS, Ops, Rows};
use super::pool::Stack;
use super::shaders as s;
use crate::error::Result;
use crate::kernel::Kernel;

impl Ops<'_> {
    /// Every row times the whole matrix of its layer. The stack lies in one buffer.
    pub fn matmul_listed(
        &mut self,
        stack: &Stack,
        layers: u32,
        rows: u32,
        input: Rows,
        output: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let (columns, inner, weights) = (stack.rows, stack.width, stack.dtype());
        let run = Tiling::run(columns, 4 * self.subgroup, self.gpu.info());
        let parameters = s::MatMul {
            inner4: inner / 4,
            columns,
            input_stride4: input.stride / 4,
            output_stride: output.stride,
            row_words: stack.row_words,
            layer_words: columns * stack.row_words,
            rows_at: layers,
            columns_at: 0,
            first_row: 0,
            layer_rows: columns,
            from_row: 0,
            run,
        };
        let constants = [self.one_subgroup()[0], ("BIAS", f64::from(u8::from(stack.has_bias)))];
        let pipeline = self.gpu.pipeline(Tiling::Single.matvec(stack.form), &constants)?;
        let lists = self.lists_at.clone();
        let bindings = [input.buffer, &stack.shards[0].buffer, &stack.bias, &lists, output.buffer];
        self.push(pipeline, &bindings, parameters, [columns.div_ceil(4 * self.subgroup * run), rows, 1]);
        // A row may be anywhere: as many groups as rows.
        let (groups, slices, density, activations) = (rows, rows, Stack::DENSITY, ACTIVATIONS);
        self.label(
            Kernel::GroupedMatMul { rows, groups, slices, inner, columns, weights, activations, density },
            first,
        );
        Ok(())
    }

    /// Adds a branch in the rows whose mask in the lists is 1.
    pub fn residual_listed(
        &mut self,
        mask: u32,
        rows: u32,
        width: u32,
        branch: Rows,
        stream: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let parameters = s::ResidualAdd {
            rows,
            width4: width / 4,
            stream_stride4: stream.stride / 4,
            branch_stride4: branch.stride / 4,
            mask,
        };
        let lists = self.lists_at.clone();
        let bindings = [branch.buffer, &lists, stream.buffer];
        self.elementwise((s::RESIDUAL_ADD, &[("MASKED", 1.0)]), &bindings, parameters, [width / 4, rows])?;
        self.label(Kernel::ResidualAdd { rows, width, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// A router's decisions. Buffers: stream, both products, decisions.
    pub fn router(&mut self, parameters: s::Router, buffers: [&Buffer; 4]) -> Result<()> {
        let first = self.recording.dispatches.len();
        let linear = f64::from(u8::from(parameters.hidden == 0));
        let constants = [self.one_subgroup()[0], ("LINEAR", linear)];
        let pipeline = self.gpu.pipeline(s::ROUTER, &constants)?;
        self.push(pipeline, &buffers, parameters, [parameters.rows, 1, 1]);
        let s::Router { rows, width4, hidden, options, .. } = parameters;
        let (width, weights, activations) = (width4 * 4, ACTIVATIONS, ACTIVATIONS);
        self.label(Kernel::Router { rows, width, hidden, options, weights, activations }, first);
        Ok(())
    }

    /// Turns a hop's decisions into lists; part of the router's work, under the router's name.
    pub fn place(&mut self, parameters: s::PlaceRows, decisions: &Buffer) -> Result<()> {
        let lists = self.lists_at.clone();
        self.elementwise((s::PLACE_ROWS, &[]), &[decisions, &lists], parameters, [parameters.rows, 1])?;
        if let Some(router) = self.done.last_mut() {
            router.count += 1;
        }
        Ok(())
    }
}
