//! Prefill and decode apart: some engines pass prompts and put the first token out, others generate the rest. The KV entries of a prompt go from the one
//! to the other over a link.
//!
//! An engine that generates gives a request places for its entries when it forms a pass, as soon as it has them; then the entries go, in one message of
//! whole blocks, and the engine that passed the prompt keeps its own until they are there. Each engine has one port of the fabric out and one in, and
//! what goes through a port goes one after the other.

use super::outside::Sending;
use super::{Arrivals, Choice, Fleet};
use crate::cost::{Device, Ranks};
use crate::error::Result;
use crate::hw::Operation;
use crate::metrics::Ledger;
use crate::sim::beyond::{Beyond, Within};
use crate::sim::{Observer, Routes, Server, Setup};
use crate::trace::Trace;
use crate::trace::synth::Later;
use crate::units::SimTime;
use std::collections::HashMap;
use std::sync::Arc;

/// Engines that generate what others have prefilled.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// How many generate.
    pub decode: u32,
    /// What joins a device of one engine and its counterpart of another.
    pub link: Arc<Ranks>,
}

/// The ports of the engines, and when each is free.
struct Ports<'a> {
    link: &'a Ranks,
    out: Vec<SimTime>,
    into: Vec<SimTime>,
}

impl Ports<'_> {
    /// Entries of `bytes` for each device go from one engine to another, no earlier than `now`.
    fn send(&mut self, (from, to): (usize, usize), now: SimTime, bytes: u64) -> Sending {
        let start = now.max(self.out[from]).max(self.into[to]);
        let end = start + self.link.exchange(Operation::SendReceive, bytes).time;
        (self.out[from], self.into[to]) = (end, end);
        Sending { start, end }
    }
}

/// Where requests are on their way.
struct Ways<'a> {
    trace: &'a Trace,
    /// The place of each in the trace, by its id; and the engine that passed its prompt.
    places: HashMap<u64, u32>,
    passed: Vec<u32>,
}

/// Runs `trace` on the engines of `fleet` that pass prompts and on those of `apart`: what each adds up, in this order.
///
/// # Errors
/// Those of [`crate::sim::run`].
pub(super) fn run<O: Observer>(
    device: &Device,
    setup: &Setup,
    (trace, later): (&Trace, Option<&Later>),
    (fleet, apart): (&Fleet, &Apart),
    observers: &mut [O],
) -> Result<Vec<Ledger>> {
    let routes = || later.map_or(Routes::Known, Routes::Later);
    let engine = || Server::new(device.clone(), setup, trace, routes());
    let prefill = (0..fleet.replicas).map(|_| Ok(engine()?.with_prompts_alone()));
    let decode = (0..apart.decode).map(|_| Ok(engine()?.with_prompts_elsewhere()));
    let (mut prefill, mut decode) =
        (prefill.collect::<Result<Vec<_>>>()?, decode.collect::<Result<Vec<_>>>()?);
    let arrivals = Arrivals::new(&trace.requests, setup.clients.as_ref(), setup.sessions.as_ref());
    let free = |engines: &[Server]| vec![SimTime::ZERO; engines.len()];
    let ports = Ports { link: &apart.link, out: free(&prefill), into: free(&decode) };
    let places = (0..).zip(&trace.requests).map(|(index, request)| (request.id, index)).collect();
    let ways = Ways { trace, places, passed: vec![0; trace.requests.len()] };
    let choices = [Choice::new(fleet.router, fleet.seed), Choice::behind(fleet.router, fleet.seed)];
    drive((&mut prefill, &mut decode), observers, arrivals, choices, (ways, ports))
        .map_err(|beyond| beyond.error(setup))?;
    Ok(prefill.into_iter().chain(decode).map(Server::finish).collect())
}

/// Runs until nobody comes any more and everybody is done. At one time, passes end first, then requests come, then entries go, then passes begin.
fn drive<O: Observer>(
    (prefill, decode): (&mut [Server], &mut [Server]),
    observers: &mut [O],
    mut arrivals: Arrivals,
    [mut before, mut behind]: [Choice; 2],
    (mut ways, mut ports): (Ways, Ports),
) -> Within<()> {
    let (watch_prefill, watch_decode) = observers.split_at_mut(prefill.len());
    loop {
        let next = prefill.iter().chain(&*decode).filter_map(Server::next);
        let Some(now) = next.chain(arrivals.peek().map(|(time, _)| time)).min() else { break };
        if now == SimTime::MAX {
            return Err(Beyond::Arrival);
        }
        for (engine, observer) in decode.iter_mut().zip(&mut *watch_decode) {
            if engine.end() == Some(now) {
                engine.land(observer, |id| arrivals.answered(now, id));
            }
        }
        for (own, (engine, observer)) in (0..).zip(prefill.iter_mut().zip(&mut *watch_prefill)) {
            if engine.end() != Some(now) {
                continue;
            }
            let mut passed = Vec::new();
            engine.land(observer, |id| passed.push(id));
            for id in passed {
                let index = ways.places[&id];
                if ways.trace.requests[index as usize].output_tokens == 1 {
                    engine.sent(id, now, 0);
                    arrivals.answered(now, id);
                } else {
                    ways.passed[index as usize] = own;
                    behind.send(decode, (now, index));
                }
            }
        }
        while let Some((time, index)) = arrivals.peek()
            && time <= now
        {
            before.send(prefill, (time, index));
            arrivals.pop();
        }
        for (to, (engine, observer)) in decode.iter_mut().zip(&mut *watch_decode).enumerate() {
            if engine.end().is_none() {
                engine.load_entries(now, |id, bytes| {
                    let from = ways.passed[ways.places[&id] as usize] as usize;
                    let sending = ports.send((from, to), now, bytes);
                    prefill[from].sent(id, sending.end, bytes);
                    sending
                });
            }
            engine.begin(now, observer)?;
        }
        for (engine, observer) in prefill.iter_mut().zip(&mut *watch_prefill) {
            engine.begin(now, observer)?;
        }
    }
    let idle = prefill.iter().chain(&*decode).all(Server::is_idle);
    assert!(idle, "a sequence that runs has a next pass, and one that waits has places to wait for");
    Ok(())
}
