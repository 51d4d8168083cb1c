//! The executor looks after itself: a driver that computes wrongly says so, and logits that are not finite say where that began.

use super::executor::Executor;
use super::ops::Look;
use super::ops::Rows;
use super::ops_choice::{Logits, Sampled};
use super::pass_io::{Chosen, Pass};
use crate::error::{Error, InputError, Result};
use crate::lower::{Call, Cause};

/// Difference of a logarithm of a sum that passes: that of some hundred thousand f32 exponentials.
const TOLERANCE: f32 = 1e-3;

impl Executor {
    /// Samples a row as long as the vocabulary whose result is known: what most drivers that end loops early get wrong first.
    pub(super) fn check_sampler(&self) -> Result<()> {
        let vocabulary = self.model.outputs as u32;
        // Shorter rows have no room for three marks.
        if vocabulary < 8 {
            return Ok(());
        }
        let marks = [(vocabulary - 1, 3f32), (vocabulary / 2, 2.0), (0, 1.0)];
        let mut logits = vec![0f32; vocabulary as usize];
        marks.iter().for_each(|&(token, logit)| logits[token as usize] = logit);
        self.gpu.write(&self.buffers.logits, 0, &logits);
        let mut ops = self.ops()?;
        let (top, targets, shape) = (self.options.top, ops.list([0]), Logits::PLAIN);
        let logits = Rows { buffer: &self.buffers.logits, stride: vocabulary };
        let (found, chosen) = (&self.buffers.found, &self.buffers.chosen);
        ops.sample(Sampled { rows: 1, vocabulary, top, targets, shape, logits, found, chosen })?;
        self.gpu.write(&self.lists, 0, &ops.lists);
        self.gpu.submit(&ops.recording)?;
        let said = &self.chosen(1)?[0];
        let rest = f64::from(vocabulary - marks.len() as u32);
        let sum = marks.iter().map(|&(_, logit)| f64::from(logit).exp()).sum::<f64>() + rest;
        let best = marks.iter().zip(&said.top).all(|(mark, found)| mark == found);
        if best && (said.log_sum - sum.ln() as f32).abs() <= TOLERANCE && said.infinite == 0 {
            return Ok(());
        }
        Err(Error::Gpu(format!(
            "{} samples a row of {vocabulary} logits wrongly: log of the sum {} rather than {:.4}, likeliest tokens {:?} rather than {:?}",
            self.gpu.info().name,
            said.log_sum,
            sum.ln(),
            &said.top[..marks.len().min(said.top.len())],
            marks,
        )))
    }

    /// The error of a pass with logits that are not finite. `again` runs the pass once more, whose rows are looked at this time: what it
    /// writes into the cache is what stands there.
    pub(super) fn not_finite(
        &mut self,
        pass: &Pass,
        chosen: &[Chosen],
        again: impl FnOnce(&mut Executor) -> Result<()>,
    ) -> Error {
        self.odd.set(None);
        self.looking = true;
        let ran = again(self);
        self.looking = false;
        if let Err(error) = ran {
            return error;
        }
        let place = match self.odd.get() {
            None => "in the head".to_owned(),
            Some(Look { cause: Cause::Embed, .. }) => "in the embedding".to_owned(),
            Some(Look { cause, layer, .. }) => {
                let branch = if cause == Cause::Attention { "attention" } else { "feed-forward" };
                match layer {
                    Call::NO_LAYER => format!("behind the {branch} branches of some layers"),
                    layer => format!("behind the {branch} branch of layer {layer}"),
                }
            }
        };
        let row = chosen.iter().position(Chosen::odd).unwrap_or(0) as u32;
        let mut end = 0;
        let of_row = |span: &&crate::batch::Span| {
            end += span.logits;
            row < end
        };
        let sequence = pass.batch.spans.iter().find(of_row).map_or(0, |span| span.sequence);
        InputError::expected(format!("finite ones; such numbers begin {place}"))
            .key(format!("prompt {sequence}"))
            .found("infinite or undefined logits")
            .into()
    }
}

impl Chosen {
    /// Whether it comes from logits that are not finite.
    pub(super) fn odd(&self) -> bool {
        self.infinite > 0 || !self.log_sum.is_finite()
    }
}
