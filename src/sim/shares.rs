//! Who gets how much of a pass: each phase of its time and energy, each request of its energy.

use super::Server;
use crate::batch::{Batch, Part};
use crate::metrics::{Own, RequestTimes};
use crate::sched::Sequence;
use crate::trace::Request;
use crate::units::SimTime;

/// Time and energy of one token.
#[derive(Clone, Copy, Debug, Default)]
struct OfToken {
    time_ps: u128,
    energy_pj: u128,
}

impl Server<'_> {
    /// Gives each phase and each request of a pass that is over its part of the time and the energy: of attention, by the
    /// tokens that have the same kind, since prompts and generation draw differently; of all else, by tokens. Every token of a kind gets the same whole
    /// picojoules; what is left, less than one for each token, goes to the next pass.
    pub(super) fn share_out(
        &mut self,
        batch: &Batch,
        (length_ps, energy_pj): (u128, u128),
        attention: [Own; 2],
    ) {
        let device = self.machine.device();
        let energy_pj = energy_pj + self.left_pj;
        let tokens = u128::from(batch.tokens());
        let generated: u32 = batch.spans.iter().filter(|span| span.decode).map(|span| span.tokens).sum();
        let generated = u128::from(generated + batch.in_lockstep());
        let (mut left_ps, mut left_pj) = (length_ps, energy_pj);
        let mut of_kind = [tokens - generated, generated].map(|count| (count, OfToken::default()));
        for ((count, of_token), own) in of_kind.iter_mut().zip(attention).filter(|((count, _), _)| *count > 0)
        {
            let Own { time_ps, dynamic_pj } = own;
            let pj = device.energy_pj(time_ps, 0, dynamic_pj) as u128;
            // At most what is left.
            *of_token =
                OfToken { time_ps: time_ps.min(left_ps) / *count, energy_pj: pj.min(left_pj) / *count };
            left_ps -= of_token.time_ps * *count;
            left_pj -= of_token.energy_pj * *count;
        }
        let of_kind = of_kind.map(|(_, own)| OfToken {
            time_ps: own.time_ps + left_ps / tokens,
            energy_pj: own.energy_pj + left_pj / tokens,
        });
        self.left_pj = left_pj % tokens;
        let mut prefill = (0, 0);
        for span in &batch.spans {
            let sequence = self.scheduler.sequence_mut(span.sequence);
            let OfToken { time_ps, energy_pj } = of_kind[usize::from(span.decode)];
            let count = u128::from(span.tokens);
            sequence.energy_pj += energy_pj * count;
            let in_prompt = sequence.in_prompt();
            let whole = if span.part.to == Part::END { span.tokens } else { 0 };
            let phase = if in_prompt { &mut self.ledger.prefill } else { &mut self.ledger.decode };
            phase.tokens += u64::from(whole);
            if in_prompt {
                prefill = (prefill.0 + time_ps * count, prefill.1 + energy_pj * count);
            }
        }
        self.ledger.decode.tokens += u64::from(batch.in_lockstep());
        self.scheduler.credit_groups(batch, of_kind[1].energy_pj);
        self.ledger.pass((length_ps, energy_pj - self.left_pj), prefill);
    }
}

/// What a request that is over has to show.
pub(super) fn times(sequence: &Sequence, last: SimTime) -> RequestTimes {
    let Request { id, prompt_tokens, output_tokens, .. } = **sequence.request();
    assert_eq!(sequence.put_out(), output_tokens, "a request that is over has put out all its tokens");
    RequestTimes {
        id,
        arrival: sequence.arrival,
        scheduled: sequence.scheduled,
        first: sequence.first.expect("a finished request put a token out"),
        last,
        output_tokens,
        prompt_tokens,
        cached_tokens: sequence.cached_tokens(),
        preemptions: sequence.preemptions,
        energy_pj: sequence.energy_pj,
    }
}
