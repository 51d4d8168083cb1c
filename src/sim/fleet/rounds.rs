//! Attention data-parallel: engines with sequences and caches of their own whose experts are spread over all of them, so that none can run a pass
//! without the others.
//!
//! A round is a pass of each engine; all begin together, when the slowest of the round before has ended. An engine that has nothing to run meanwhile runs
//! a dummy pass of one token (vLLM: `DPEngineCoreProc.run_busy_loop`, `execute_dummy_batch`). The rows that a device's experts get are those of all
//! engines; where all run captured graphs, each brings as many as the one with most (vLLM: `coordinate_batch_across_dp`). Engines meet at the end of a
//! pass here and not at each exchange: of tokens that all take every layer, the same engine is the slowest at each.

use super::{Arrivals, Choice};
use crate::lower::Round;
use crate::sim::beyond::{Beyond, Within};
use crate::sim::{Observer, Server};
use crate::units::SimTime;

/// Runs until nobody comes any more and everybody is done. At one time, a round ends first, then requests come, then the next one begins.
pub(super) fn drive<O: Observer>(
    (ranks, observers): (&mut [Server], &mut [O]),
    arrivals: &mut Arrivals,
    choice: &mut Choice,
) -> Within<()> {
    let mut end = None;
    while let Some(now) = end.into_iter().chain(arrivals.peek().map(|(time, _)| time)).min() {
        if now == SimTime::MAX {
            return Err(Beyond::Arrival);
        }
        if end == Some(now) {
            end = None;
            for (rank, observer) in ranks.iter_mut().zip(&mut *observers) {
                if rank.end().is_some() {
                    rank.land(observer, |id| arrivals.answered(now, id));
                }
            }
        }
        while let Some((time, index)) = arrivals.peek()
            && time <= now
        {
            choice.send(ranks, (time, index));
            arrivals.pop();
        }
        if end.is_none() {
            choice.hand_out(ranks);
            end = round(ranks, observers, now)?;
        }
    }
    assert!(ranks.iter().all(Server::is_idle), "a sequence that runs has a next pass");
    Ok(())
}

/// A pass of each at `now`. When all are over; none where nobody has something to run.
fn round<O: Observer>(ranks: &mut [Server], observers: &mut [O], now: SimTime) -> Within<Option<SimTime>> {
    let formed: Vec<Option<Round>> = ranks.iter_mut().map(|rank| rank.form(now)).collect();
    let running = formed.iter().flatten();
    if running.clone().next().is_none() {
        return Ok(None);
    }
    // A dummy pass is one generated token.
    let tokens = || formed.iter().map(|own| own.map_or(1, |own| own.tokens));
    let round = Round {
        tokens: tokens().sum(),
        most: tokens().max().unwrap_or(0),
        generates: running.clone().all(|own| own.generates),
        captured: running.clone().all(|own| own.captured),
    };
    for ((rank, observer), own) in ranks.iter_mut().zip(&mut *observers).zip(&formed) {
        match own {
            Some(_) => rank.go(round, observer)?,
            None => rank.stand_in(),
        }
    }
    let end = ranks.iter().filter_map(Server::end).max().unwrap_or(now);
    ranks.iter_mut().for_each(|rank| rank.wait_for_round(end));
    Ok(Some(end))
}
