//! What a graph must hold that is captured before the routes are known: each branch that some route takes, and the bodies within it that
//! a decision may skip.

use crate::batch::{Left, Paths};
use crate::trace::{Phase, Trace};
use std::collections::BTreeSet;

/// A layer of the pool, as the routes of a run use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether any route takes the attention branch.
    pub attention: bool,
    /// Whether any route takes the feed-forward branch.
    pub feed_forward: bool,
    /// Whether any route takes the adapter.
    pub adapter: bool,
    /// Whether some routes take a branch that others do not.
    pub decided: bool,
    /// IF nodes that begin here: bodies that some routes take and others do not, apart from the body before them. What is done in place of a
    /// body, an adapter or the keys and values of who skips, is a body of its own.
    pub bodies: u32,
    /// The same where a node has a body for each case.
    pub choices: u32,
}

/// The layers as the routes of a run use them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Whether tokens of each kind of run take one route: what a pass launches is known without a decision.
    pub fixed: bool,
    /// By layer; empty where no graph needs them.
    pub layers: Vec<Place>,
}

/// Which routes do something, as a number that differs for other sets: a sum of hashes, with how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Who {
    sum: u64,
    count: usize,
}

impl Who {
    fn add(&mut self, route: u32) {
        // SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
        let mut hash = u64::from(route).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.sum = self.sum.wrapping_add(hash ^ (hash >> 31));
        self.count += 1;
    }
}

impl Places {
    /// Those of one route that is known: nothing is decided.
    pub fn known() -> Self {
        Places { fixed: true, ..Places::default() }
    }

    /// Those of a run whose passes are no graphs that hold every branch.
    pub fn of_no_graph(fixed: bool) -> Self {
        Places { fixed, ..Places::default() }
    }

    /// Whether the generated tokens of a trace take one route in each role.
    pub fn are_fixed(trace: &Trace) -> bool {
        let mut by_role = Vec::new();
        let runs = trace.requests.iter().flat_map(|request| &request.runs);
        runs.filter(|run| run.phase == Phase::Decode).all(|run| {
            run.routes.counted().all(|(route, _)| match by_role.iter().find(|(role, _)| *role == run.role) {
                Some(&(_, known)) => known == route,
                None => {
                    by_role.push((run.role, route));
                    true
                }
            })
        })
    }

    /// Those of a trace. `all`: with the routes of its prompts, which no graph holds.
    pub fn of(trace: &Trace, paths: &mut Paths, all: bool) -> Self {
        let mut used = BTreeSet::new();
        for run in trace.requests.iter().flat_map(|request| &request.runs) {
            if run.phase == Phase::Decode || all {
                used.extend(run.routes.counted().map(|(route, _)| Paths::index(route, run.role)));
            }
        }
        let fixed = Places::are_fixed(trace);
        let layers = trace.header.layers as usize;
        let (mut branches, mut skipped) = (vec![[Who::default(); 3]; layers], vec![Who::default(); layers]);
        for (number, &index) in (0..).zip(&used) {
            let path = paths.look(index, &trace.routes);
            for hop in &path.hops {
                let modules = hop.modules;
                let taken = [
                    modules.attention(),
                    modules.feed_forward(),
                    !modules.attention() && !modules.feed_forward(),
                ];
                for (who, _) in branches[hop.layer as usize].iter_mut().zip(taken).filter(|(_, taken)| *taken)
                {
                    who.add(number);
                }
            }
            for skip in path.skips.iter().filter(|skip| skip.left == Left::Projected) {
                skipped[skip.layer as usize].add(number);
            }
        }
        let everybody = used.len();
        let mut before = Who::default();
        let mut place = |(branches, skipped): (&[Who; 3], &Who)| {
            let mut place = Place::default();
            let [attention, feed_forward, adapter] = branches.map(|who| who.count > 0);
            (place.attention, place.feed_forward, place.adapter) = (attention, feed_forward, adapter);
            for (branch, &who) in branches.iter().enumerate().filter(|(_, who)| who.count > 0) {
                let decided = who.count < everybody;
                place.decided |= decided;
                let begins = decided && who != before;
                place.bodies += u32::from(begins);
                // An adapter is the other body of the node that its block is in.
                place.choices += u32::from(begins && branch < 2);
                before = if decided { who } else { Who::default() };
            }
            place.bodies += u32::from(place.decided && skipped.count > 0);
            place
        };
        let layers = branches.iter().zip(&skipped).map(&mut place).collect();
        Places { fixed, layers }
    }
}
