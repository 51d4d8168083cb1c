//! What happens to queries, keys and values between the products: rotation, the cache, attention.

use super::device::Buffer;
use super::ops::{ACTIVATIONS, Ops, Rows};
use super::shaders as s;
use crate::error::Result;
use crate::kernel::{Attention, Kernel};

/// Angles on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turned<'a> {
    /// Cosine and sine: rows x `half`.
    pub angles: &'a Buffer,
    /// Pairs of a head that turn.
    pub half: u32,
    pub interleaved: bool,
}

/// What becomes of scores.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scored {
    /// What they are multiplied with.
    pub scale: f64,
    /// Then a score s becomes `cap tanh(s / cap)`.
    pub cap: Option<f64>,
    /// Whether entries are named one by one.
    pub listed: bool,
}

impl Ops<'_> {
    /// Rotates the first values of `heads` heads from the start of each row. Where in the lists rows of angles stand: `positions`.
    pub fn rope(
        &mut self,
        turned: Turned,
        positions: u32,
        [rows, heads, head_dim]: [u32; 3],
        values: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let Turned { angles, half, interleaved } = turned;
        let parameters = s::Rope { rows, heads, half, head: head_dim, stride: values.stride, positions };
        let constants = [("INTERLEAVED", f64::from(u8::from(interleaved)))];
        let lists = self.lists_at.clone();
        let bindings = [angles, &lists, values.buffer];
        self.elementwise((s::ROPE, &constants), &bindings, parameters, [heads * half, rows])?;
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
    /// Each row of a call with most entries sees at most `longest`.
    pub fn attention(
        &mut self,
        shape: Attention,
        scores: Scored,
        longest: u32,
        parts: &[(Buffer, u32, u32)],
        queries: Rows,
        to: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let lists = self.lists_at.clone();
        let (head4, heads) = (u32::from(shape.head_dim) / 4, u32::from(shape.heads));
        let (shader, each) = if shape.decode { (s::ATTENTION_DECODE, 2) } else { (s::ATTENTION_PREFILL, 1) };
        // Eight values of a head, or an entry's values, a turn.
        let turns =
            u64::from(longest.div_ceil(self.subgroup)) * u64::from(head4.div_ceil(8) + self.subgroup + 5);
        self.check_turns("attention", turns)?;
        let flag = |is: bool| f64::from(u8::from(is));
        let (capped, listed) = (("CAPPED", flag(scores.cap.is_some())), ("LISTED", flag(scores.listed)));
        let constants = [self.one_subgroup()[0], capped, listed];
        let pipeline = self.gpu.pipeline(shader, &constants)?;
        for (cache, rows_at, count) in parts {
            let parameters = s::Attention {
                heads,
                group: heads / u32::from(shape.kv_heads),
                head4,
                kv4: u32::from(shape.kv_heads) * head4,
                query_stride4: queries.stride / 4,
                output_stride4: to.stride / 4,
                rows_at: *rows_at,
                scale: scores.scale as f32,
                count: *count,
                cap: scores.cap.unwrap_or(1.0) as f32,
            };
            let groups = [heads, *count, head4.div_ceil(each * self.subgroup)];
            self.push(pipeline.clone(), &[queries.buffer, cache, &lists, to.buffer], parameters, groups);
        }
        self.label(Kernel::Attention(shape), first);
        Ok(())
    }
}
