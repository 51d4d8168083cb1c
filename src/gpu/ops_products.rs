//! Products of rows with the matrices of their layers.

use super::choice::Tiling;
use super::ops::{ACTIVATIONS, Ops, Rows, Segment};
use super::shaders as s;
use super::stack::{Shard, Stack};
use crate::error::Result;
use crate::kernel::Kernel;

impl Ops<'_> {
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
            let layers = shard.first..shard.first + shard.count;
            let product = Product { stack, shard, columns: columns.clone(), columns_at: 0, layers };
            self.product(product, part, before, from, to)?;
            before += part.iter().map(|segment| segment.rows).sum::<u32>();
        }
        let (inner, columns, weights) = (stack.width, columns.len() as u32, stack.dtype());
        let (rows, density, activations) = (before, Stack::DENSITY, ACTIVATIONS);
        let kernel = match segments {
            [_] => Kernel::product(rows, [inner, columns], weights, activations, density),
            _ => {
                let slices =
                    segments.iter().map(|segment| segment.rows.div_ceil(crate::kernel::GROUP_SLICE)).sum();
                let groups = segments.len() as u32;
                Kernel::grouped_product(
                    [rows, groups, slices],
                    [inner, columns],
                    weights,
                    activations,
                    density,
                )
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
                layers: 0..1,
            };
            self.product(product, &[Segment { layer: 0, rows }], 0, from, to)?;
        }
        let (inner, columns, weights) = (matrix.width, matrix.rows, matrix.dtype());
        let (density, activations) = (Stack::DENSITY, ACTIVATIONS);
        self.label(Kernel::product(rows, [inner, columns], weights, activations, density), first);
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
        let Product { stack, shard, columns, columns_at, layers } = product;
        let bias = f64::from(u8::from(stack.has_bias));
        let form = Tiling::best(segments, stack.form);
        let width = columns.len() as u32;
        let (rows_at, calls) = match form.tile() {
            // Row by row, each with its layer.
            None => (self.layers(segments), segments.iter().map(|segment| segment.rows).sum::<u32>()),
            Some(tile) => self.tiles(segments, before, tile),
        };
        let run = if form == Tiling::Single { self.run(width, stack.width)? } else { 1 };
        if form != Tiling::Single {
            // And what it takes to store 32 rows of four columns.
            self.check_turns("a product", u64::from(stack.width / 4) + 160)?;
        }
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
            first_layer: layers.start,
            layers: layers.len() as u32,
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
    fn tiles(&mut self, segments: &[Segment], before: u32, tile: u32) -> (u32, u32) {
        let (mut row, mut count) = (before, 0);
        let at = self.lists.len() as u32;
        for segment in segments {
            let end = row + segment.rows;
            while row < end {
                let rows = tile.min(end - row);
                self.list([row, rows, segment.layer]);
                row += rows;
                count += 1;
            }
        }
        (at, count)
    }

    /// Every row times the whole matrix of its layer; the layers of all rows stand in the lists. `groups` of rows with the same
    /// layer are expected, in `slices` pieces.
    pub fn matmul_listed(
        &mut self,
        stack: &Stack,
        layers: u32,
        (rows, groups, slices): (u32, u32, u32),
        input: Rows,
        output: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let (columns, inner, weights) = (stack.rows, stack.width, stack.dtype());
        let run = self.run(columns, inner)?;
        let constants = [self.one_subgroup()[0], ("BIAS", f64::from(u8::from(stack.has_bias)))];
        let pipeline = self.gpu.pipeline(Tiling::Single.matvec(stack.form), &constants)?;
        let lists = self.lists_at.clone();
        for shard in &stack.shards {
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
                first_layer: shard.first,
                layers: shard.count,
                run,
            };
            let bindings = [input.buffer, &shard.buffer, &stack.bias, &lists, output.buffer];
            let workgroups = [columns.div_ceil(4 * self.subgroup * run), rows, 1];
            self.push(pipeline.clone(), &bindings, parameters, workgroups);
        }
        let (density, activations) = (Stack::DENSITY, ACTIVATIONS);
        self.label(
            Kernel::grouped_product([rows, groups, slices], [inner, columns], weights, activations, density),
            first,
        );
        Ok(())
    }

    /// Columns that an invocation takes one after the other, as far as the device's loops go.
    fn run(&self, columns: u32, inner: u32) -> Result<u32> {
        // A turn for eight times four values, and one for each column.
        let turns = u64::from(inner.div_ceil(32)) + 1;
        self.check_turns("a product", turns)?;
        let most = u64::from(self.gpu.turns()?) / turns;
        Ok(Tiling::run(columns, 4 * self.subgroup, most, self.gpu.info()))
    }
}

/// A product with (part of) a stack in one buffer.
struct Product<'a> {
    stack: &'a Stack,
    shard: &'a Shard,
    columns: std::ops::Range<u32>,
    columns_at: u32,
    layers: std::ops::Range<u32>,
}
