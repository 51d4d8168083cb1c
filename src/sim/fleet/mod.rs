//! Servers that take requests of one stream: replicas behind a router, each a whole engine with a clock of its own.
//!
//! `drive` is the loop of every run: the next thing that happens is the end of a pass or an arrival. A server that is alone is a fleet of one.

mod apart;
mod outside;
mod rounds;
mod router;

pub use apart::Apart;
pub use router::RequestRouter;

pub(super) use outside::Outside;
pub(super) use router::Choice;

use super::arrivals::Arrivals;
use super::beyond::{Beyond, Within};
use super::{Observer, Routes, Server, Setup};
use crate::cost::Device;
use crate::error::Result;
use crate::metrics::Ledger;
use crate::trace::Trace;
use crate::trace::synth::Later;
use crate::units::SimTime;
use rayon::prelude::*;

/// How many servers there are, and how requests come to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Engines, each with all devices of its setup; where prefill and decode are apart, those that pass prompts.
    pub replicas: u32,
    /// Who chooses among them.
    pub router: RequestRouter,
    /// Seed of what the router draws.
    pub seed: u64,
    /// Engines that generate, where those above only pass prompts.
    pub apart: Option<Apart>,
    /// Whether they share experts, so that all begin and end their passes together (`rounds.rs`).
    pub rounds: bool,
}

impl Fleet {
    /// One server.
    pub const ALONE: Fleet =
        Fleet { replicas: 1, router: RequestRouter::RoundRobin, seed: 0, apart: None, rounds: false };

    /// All engines.
    pub fn engines(&self) -> u32 {
        self.replicas + self.apart.as_ref().map_or(0, |apart| apart.decode)
    }
}

/// Runs a trace on a fleet, each engine on such a device, and returns what each added up, those that generate behind those that pass
/// prompts ([`Ledger::of_parts`]). `routes`: the trace, and what draws its routes where it stands for them. One observer for each engine
/// watches. With `side_by_side`, replicas whose router looks at none of them run on all threads of the pool; the results are the same.
///
/// # Errors
/// Those of [`super::run`]; of several replicas, the first one's.
///
/// # Panics
/// If there are not as many observers as engines.
pub fn run<O: Observer + Send>(
    device: &Device,
    setup: &Setup,
    routes: (&Trace, Option<&Later>),
    fleet: &Fleet,
    observers: &mut [O],
    side_by_side: bool,
) -> Result<Vec<Ledger>> {
    assert_eq!(observers.len(), fleet.engines() as usize, "an observer for each engine");
    let engines = Engines { device, setup, routes, fleet };
    // Who waits for an answer waits for all replicas before it.
    let open = setup.clients.is_none() && setup.sessions.is_none();
    let ledgers = match (&fleet.apart, &mut *observers) {
        (Some(apart), _) => apart::run(device, setup, routes, (fleet, apart), observers)?,
        (None, [observer]) => return Ok(vec![engines.one()?.run(setup, observer)?]),
        (None, _) if fleet.rounds => engines.depending(observers, rounds::drive)?,
        (None, _) if fleet.router.looks() || !open => engines.depending(observers, drive)?,
        (None, _) => engines.apart(observers, side_by_side)?,
    };
    let end = ledgers.iter().map(|ledger| ledger.makespan).max().unwrap_or_default();
    observers.iter_mut().for_each(|observer| observer.over(end));
    Ok(ledgers)
}

/// What drives engines to the end of their requests.
type Loop<'a, O> = fn((&mut [Server<'a>], &mut [O]), &mut Arrivals<'a>, &mut Choice) -> Within<()>;

/// Replicas of one setup.
struct Engines<'a> {
    device: &'a Device,
    setup: &'a Setup,
    routes: (&'a Trace, Option<&'a Later>),
    fleet: &'a Fleet,
}

impl<'a> Engines<'a> {
    fn one(&self) -> Result<Server<'a>> {
        let (trace, later) = self.routes;
        let routes = later.map_or(Routes::Known, Routes::Later);
        Server::new(self.device.clone(), self.setup, trace, routes)
    }

    fn arrivals(&self) -> Arrivals<'a> {
        let Setup { clients, sessions, .. } = self.setup;
        Arrivals::new(&self.routes.0.requests, clients.as_ref(), sessions.as_ref())
    }

    fn choice(&self) -> Choice {
        Choice::new(self.fleet.router, self.fleet.seed)
    }

    /// One loop for all, `drive`: where a request goes, or when a pass begins, depends on all of them.
    fn depending<O: Observer>(&self, observers: &mut [O], drive: Loop<'a, O>) -> Result<Vec<Ledger>> {
        let mut engines = (0..self.fleet.replicas).map(|_| self.one()).collect::<Result<Vec<_>>>()?;
        drive((&mut engines, observers), &mut self.arrivals(), &mut self.choice())
            .map_err(|beyond| beyond.error(self.setup))?;
        Ok(engines.into_iter().map(Server::finish).collect())
    }

    /// Each on its own, with the requests that go to it.
    fn apart<O: Observer + Send>(&self, observers: &mut [O], side_by_side: bool) -> Result<Vec<Ledger>> {
        let mut choice = self.choice();
        let count = self.fleet.replicas as usize;
        let sent: Vec<u32> = self.routes.0.requests.iter().map(|_| choice.blind(count) as u32).collect();
        let one = |(own, observer): (u32, &mut O)| {
            let mut replica = self.one()?;
            let mut arrivals = self.arrivals().only(&sent, own);
            let alone = (std::slice::from_mut(&mut replica), std::slice::from_mut(observer));
            drive(alone, &mut arrivals, &mut Choice::alone()).map_err(|beyond| beyond.error(self.setup))?;
            Ok(replica.finish())
        };
        let numbered = (0..self.fleet.replicas).zip(observers);
        let results: Vec<Result<Ledger>> = match side_by_side {
            true => numbered.collect::<Vec<_>>().into_par_iter().map(one).collect(),
            false => numbered.map(one).collect(),
        };
        results.into_iter().collect()
    }
}

/// Runs until nobody comes any more and everybody is done. At one time, passes end first, then requests come, then passes begin.
pub(super) fn drive<O: Observer>(
    (replicas, observers): (&mut [Server], &mut [O]),
    arrivals: &mut Arrivals,
    choice: &mut Choice,
) -> Within<()> {
    loop {
        let ends = replicas.iter().filter_map(Server::end);
        let Some(now) = ends.chain(arrivals.peek().map(|(time, _)| time)).min() else { break };
        if now == SimTime::MAX {
            return Err(Beyond::Arrival);
        }
        for (replica, observer) in replicas.iter_mut().zip(&mut *observers) {
            if replica.end() == Some(now) {
                replica.land(observer, |id| arrivals.answered(now, id));
            }
        }
        while let Some((time, index)) = arrivals.peek()
            && time <= now
        {
            choice.send(replicas, (time, index));
            arrivals.pop();
        }
        choice.hand_out(replicas);
        for (replica, observer) in replicas.iter_mut().zip(&mut *observers) {
            replica.begin(now, observer)?;
        }
    }
    assert!(replicas.iter().all(Server::is_idle), "a sequence that runs has a next pass");
    Ok(())
}
