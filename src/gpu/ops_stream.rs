//! What happens to the residual stream: branches are added, rows moved, and numbers that are not finite looked for.

use super::device::Buffer;
use super::ops::Look;
use super::ops::{ACTIVATIONS, Ops, Rows};
use super::pipeline::Shader;
use super::shaders as s;
use crate::error::Result;
use crate::kernel::Kernel;

/// How a branch is added to the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    /// What it is multiplied with.
    pub scale: f64,
    /// Where in the lists there is a 1 for each row that it is added to; absent: all.
    pub mask: Option<u32>,
    /// Where in the lists there is what each row is multiplied with besides, as the bits of a float; absent: 1.
    pub weights: Option<u32>,
}

impl Added {
    /// To all rows alike.
    pub const fn all(scale: f64) -> Added {
        Added { scale, mask: None, weights: None }
    }
}

impl Ops<'_> {
    /// Adds a branch to the stream.
    pub fn residual_add(
        &mut self,
        [rows, width]: [u32; 2],
        added: Added,
        branch: Rows,
        stream: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let parameters = s::ResidualAdd {
            rows,
            width4: width / 4,
            stream_stride4: stream.stride / 4,
            branch_stride4: branch.stride / 4,
            mask: added.mask.unwrap_or(0),
            weights: added.weights.unwrap_or(0),
            scale: added.scale as f32,
        };
        let flag = |list: Option<u32>| f64::from(u8::from(list.is_some()));
        let constants = [("MASKED", flag(added.mask)), ("WEIGHTED", flag(added.weights))];
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
        self.check_turns("an oracle", 2 * u64::from(parameters.width4.div_ceil(self.subgroup)))?;
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

    /// Rows of several blocks by index into one: each index stands in one of the lists, in the others [`u32::MAX`].
    pub fn gather_parts(&mut self, parts: &[(Vec<u32>, Rows)], width: u32, block: Rows) -> Result<()> {
        let first = self.recording.dispatches.len();
        let mut rows = 0;
        for (indices, from) in parts {
            rows = indices.len() as u32;
            if indices.iter().any(|&index| index != u32::MAX) {
                self.move_rows(s::GATHER_ROWS, indices, width, *from, block)?;
            }
        }
        self.label(Kernel::Gather { rows, width, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// Copies rows from one block to another: pairs of source and target, by way of a third. Not a kernel of the simulator's.
    pub fn copy_rows(&mut self, pairs: &[[u32; 2]], width: u32, blocks: [Rows; 2], by: Rows) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let [from, to] = [0, 1].map(|side| pairs.iter().map(|pair| pair[side]).collect::<Vec<u32>>());
        self.move_rows(s::GATHER_ROWS, &from, width, blocks[0], by)?;
        self.move_rows(s::SCATTER_ROWS, &to, width, by, blocks[1])?;
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

    /// Looks for numbers that are not finite, where that is wanted.
    pub fn look(&mut self, rows: u32, width: u32, values: Rows) -> Result<()> {
        if self.looks.is_none() || rows == 0 {
            return Ok(());
        }
        let note = self.list([0]);
        let parameters = s::FiniteRows { rows, width4: width / 4, stride4: values.stride / 4, note };
        let pipeline = self.gpu.pipeline(s::FINITE_ROWS, &self.one_subgroup())?;
        let lists = self.lists_at.clone();
        self.push(pipeline, &[values.buffer, &lists], parameters, [rows, 1, 1]);
        let look = Look { cause: self.cause, layer: self.layer, note };
        self.looks.get_or_insert_default().push(look);
        Ok(())
    }
}
