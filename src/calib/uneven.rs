//! Calls of uneven contexts in, and how many blocks fill the memory out (`docs/COST_MODEL.md`, "Uneven contexts").

use super::fitted::{Fitted, fitted};
use super::layers::{UnevenCall, prefill};
use crate::cost::{Device, Limits};
use crate::error::{InputError, Result};
use crate::hw::{Evidence, Hardware, Uneven};
use crate::kernel::{Attention, Filling, Kernel};
use std::collections::BTreeSet;

/// Blocks a unit that are tried: from a twentieth up, a tenth more each time, to 3.3.
fn tried() -> impl Iterator<Item = f64> {
    (0..45).map(|step| 0.05 * libm::pow(1.1, f64::from(step)))
}

/// Fits `corrections.uneven` of a profile that has all its other corrections. Each number of sequences is kept aside in turn, then all rows
/// are taken.
///
/// # Errors
/// Tables without calls of generated tokens alone, or without some beside prompts, or with fewer than three numbers of sequences.
pub(super) fn fit(hw: &mut Hardware, calls: &[UnevenCall], sha256: &str) -> Result<Fitted> {
    let device = Device::new(hw, Limits::default())?;
    let numbers: BTreeSet<u32> = calls.iter().map(|call| call.sequences.0).collect();
    let mut best = [0.0; 2];
    // What each row says at each number that is tried.
    let said = |alone: bool| -> Vec<(&UnevenCall, Vec<f64>)> {
        let kind = calls.iter().filter(|call| (call.chunk.0 == 0) == alone);
        let all = |call: &UnevenCall| {
            let (even, heads) = (Even::of(&device, call), call.heads);
            let filling =
                |blocks| device.filling_by((blocks, blocks), heads.heads.into(), heads.kv_heads.into());
            tried().map(|blocks| even.ratio(&device, &filling(blocks))).collect()
        };
        kind.map(|call| (call, all(call))).collect()
    };
    let (mut held, mut seen) = (Vec::new(), Vec::new());
    for (best, alone) in best.iter_mut().zip([true, false]) {
        let rows = said(alone);
        if rows.is_empty() || numbers.len() < 3 {
            let expected = "calls with and without rows of prompts, of at least 3 numbers of sequences";
            return Err(InputError::expected(expected).key("n").found(rows.len()).into());
        }
        for &number in &numbers {
            let (kept, rest): (Vec<_>, Vec<_>) =
                rows.iter().partition(|(call, _)| call.sequences.0 == number);
            let at = least(&rest);
            held.extend(kept.iter().map(|(call, said)| (number as usize, said[at], call.ratio)));
        }
        let at = least(&rows.iter().collect::<Vec<_>>());
        seen.extend(rows.iter().map(|(call, said)| (said[at], call.ratio)));
        *best = tried().nth(at).map_or(1.0, |blocks| (blocks * 1e3).round() / 1e3);
    }
    let without = calls.iter().map(|call| (1.0, call.ratio)).collect();
    let fitted =
        fitted("uneven contexts", calls.len(), ("sequence count", numbers.len()), [without, seen], held)?;
    let split = format!("each of {} sequence counts kept aside in turn, then all rows fitted", numbers.len());
    let mut evidence = Evidence::new(sha256, calls.len(), 0, split);
    fitted.held.state(&mut evidence);
    let [alone, beside] = best;
    if let Some(corrections) = &mut hw.corrections {
        corrections.uneven = Some(Uneven { evidence, alone, beside });
    }
    Ok(fitted)
}

/// Place of the number at which these rows have the least mean error.
fn least(rows: &[&(&UnevenCall, Vec<f64>)]) -> usize {
    let error = |at: usize| rows.iter().map(|(call, said)| (said[at] / call.ratio - 1.0).abs()).sum::<f64>();
    let errors: Vec<f64> = (0..tried().count()).map(error).collect();
    (0..errors.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b])).unwrap_or(0)
}

/// Ratios that a profile says, and those measured; none where it does not know what uneven contexts cost.
pub fn ratios(device: &Device, calls: &[UnevenCall]) -> Option<Vec<(f64, f64)>> {
    let of = |call: &UnevenCall| {
        let filling = device.filling(call.heads.heads.into(), call.heads.kv_heads.into())?;
        Some((Even::of(device, call).ratio(device, &filling), call.ratio))
    };
    calls.iter().map(of).collect()
}

/// The even call of the same mean.
struct Even<'a> {
    call: &'a UnevenCall,
    shape: Attention,
    /// Seconds of the prompt's rows beside it, and of both together.
    prompt: f64,
    whole: f64,
}

impl<'a> Even<'a> {
    fn of(device: &Device, call: &'a UnevenCall) -> Self {
        let UnevenCall { chunk, sequences: (rows, longer), contexts: (short, long), heads, .. } = *call;
        let pairs = u64::from(longer) * u64::from(long) + u64::from(rows - longer) * u64::from(short);
        let shape = Attention { rows, beside: chunk.0, pairs, entries: pairs, ..heads };
        let seconds = |kernel: &Kernel| device.price(kernel).time.s();
        let prompt = if chunk.0 > 0 { seconds(&prefill(chunk, heads)) } else { 0.0 };
        Even { call, shape, prompt, whole: prompt + seconds(&Kernel::Attention(shape)) }
    }

    /// Time of the uneven call over that of this one.
    fn ratio(&self, device: &Device, filling: &Filling) -> f64 {
        let UnevenCall { sequences: (rows, longer), contexts: (short, long), .. } = *self.call;
        let lengths = (0..rows).map(|at| if at < longer { long } else { short });
        let longest: Vec<u32> = lengths.take(filling.longest()).collect();
        let Attention { pairs, beside, .. } = self.shape;
        let waits = filling.waits(&longest, (rows, rows), pairs, beside > 0);
        let uneven = Kernel::Attention(Attention { waits, ..self.shape });
        (self.prompt + device.price(&uneven).time.s()) / self.whole
    }
}
