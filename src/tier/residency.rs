//! Which layers are in device memory.

use super::expected_visits::ExpectedVisits;
use super::{Eviction, Prefetch, Tiers};
use crate::trace::RouteTable;
use serde::Serialize;

/// Hops that count for "soon" are as many as there are layers on the device, but at most these.
const MOST_HOPS: u32 = 64;

/// What the layer cache did. A visit is one group's, or one layer's of a grouped call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fetches {
    /// Layers that groups asked for.
    pub visits: u64,
    /// Of them, how many were on the device or on the way.
    pub hits: u64,
    /// Layers fetched when they were asked for.
    pub demanded: u64,
    /// Layers fetched before.
    pub prefetched: u64,
    /// Of them, how many were asked for before they gave way.
    pub prefetch_used: u64,
    /// Of them, how many gave way unused.
    pub prefetch_wasted: u64,
}

impl Fetches {
    /// Layers that came over the link.
    pub fn layers(&self) -> u64 {
        self.demanded + self.prefetched
    }
}

/// Which layers are in device memory, what must be fetched, and what gives way. At the start it holds the pinned layers and
/// the first others of the pool, loaded like all weights before the run.
#[derive(Clone, Debug)]
pub struct Residency {
    policy: Eviction,
    prefetch: Prefetch,
    soon: Option<ExpectedVisits>,
    resident: Vec<bool>,
    pinned: Vec<bool>,
    /// Fetched before anybody asked, and not asked for since.
    early: Vec<bool>,
    uses: Vec<u64>,
    /// When each layer was used last: number of the visit, 0 for never.
    last: Vec<u64>,
    /// How likely each layer is soon after those that run now, where transitions matter.
    likely: Vec<f64>,
    clock: u64,
    free_slots: u32,
    layer_bytes: u64,
    done: Fetches,
}

impl Residency {
    /// For these settings, which were checked, and layers of so many bytes; `uses` says how many tokens take each route.
    pub fn new(tiers: &Tiers, layers: u32, layer_bytes: u64, routes: &RouteTable, uses: &[u64]) -> Self {
        let count = layers as usize;
        let mut pinned = vec![false; count];
        tiers.pinned.iter().for_each(|&layer| pinned[usize::from(layer)] = true);
        let mut resident = pinned.clone();
        let others = tiers.resident as usize - tiers.pinned.len().min(tiers.resident as usize);
        resident.iter_mut().filter(|here| !**here).take(others).for_each(|here| *here = true);
        Residency {
            policy: tiers.policy,
            prefetch: tiers.prefetch,
            soon: tiers
                .follows()
                .then(|| ExpectedVisits::new(routes, uses, layers, tiers.resident.min(MOST_HOPS))),
            resident,
            pinned,
            early: vec![false; count],
            uses: vec![0; count],
            last: vec![0; count],
            likely: vec![0.0; count],
            clock: 0,
            free_slots: others as u32,
            layer_bytes,
            done: Fetches::default(),
        }
    }

    /// How many layers that are not pinned can be there at once: as many may run in one call.
    pub fn at_once(&self) -> usize {
        self.free_slots.max(1) as usize
    }

    /// Bytes of a layer.
    pub fn layer_bytes(&self) -> u64 {
        self.layer_bytes
    }

    /// What it did so far.
    pub fn done(&self) -> Fetches {
        self.done
    }

    /// Whether a layer is on the device, or on the way.
    pub fn holds(&self, layer: u16) -> bool {
        self.resident[usize::from(layer)]
    }

    /// These layers run now: `fetch` gets those that are not there, which take the places of others.
    ///
    /// # Panics
    /// With more layers than [`Residency::at_once`].
    pub fn visit(&mut self, layers: &[u16], fetch: &mut Vec<u16>) {
        self.look_ahead(layers);
        for &layer in layers {
            let index = usize::from(layer);
            self.clock += 1;
            self.uses[index] += 1;
            self.last[index] = self.clock;
            self.done.visits += 1;
            if self.resident[index] {
                self.done.hits += 1;
                self.done.prefetch_used += u64::from(std::mem::take(&mut self.early[index]));
                continue;
            }
            let victim = self.victim(|other| layers.contains(&other), None);
            self.replace(victim.expect("as many layers at once as there are places"), index);
            self.done.demanded += 1;
            fetch.push(layer);
        }
    }

    /// While `layers` run: `fetch` gets those to bring before they are asked for. None of `layers` gives way, nor one that
    /// comes with the same call; with `transitions`, nor one that is as likely soon as the newcomer.
    pub fn ahead(&mut self, layers: &[u16], fetch: &mut Vec<u16>) {
        let wanted = self.wanted(layers);
        for &layer in &wanted {
            let index = usize::from(layer);
            if self.resident[index] {
                continue;
            }
            let than = (self.policy == Eviction::Transitions).then(|| self.likely[index]);
            let kept = |other| layers.contains(&other) || wanted.contains(&other);
            let Some(victim) = self.victim(kept, than) else { return };
            self.replace(victim, index);
            self.early[index] = true;
            self.done.prefetched += 1;
            fetch.push(layer);
        }
    }

    /// The layers that should be there next, best first.
    fn wanted(&self, layers: &[u16]) -> Vec<u16> {
        let pool = self.resident.len();
        match self.prefetch {
            Prefetch::Off => Vec::new(),
            Prefetch::Next(count) => {
                let Some(&newest) = layers.last() else { return Vec::new() };
                (1..=usize::from(count)).map(|ahead| ((usize::from(newest) + ahead) % pool) as u16).collect()
            }
            Prefetch::Predicted(count) => {
                let mut all: Vec<u16> = (0..pool as u32)
                    .map(|layer| layer as u16)
                    .filter(|&layer| self.likely[usize::from(layer)] > 0.0 && !layers.contains(&layer))
                    .collect();
                all.sort_by(|&a, &b| {
                    self.likely[usize::from(b)].total_cmp(&self.likely[usize::from(a)]).then(a.cmp(&b))
                });
                all.truncate(count.into());
                all
            }
        }
    }

    /// What is likely after `layers` run.
    fn look_ahead(&mut self, layers: &[u16]) {
        let Some(soon) = &mut self.soon else { return };
        self.likely.fill(0.0);
        for &layer in layers {
            self.likely.iter_mut().zip(soon.after(layer)).for_each(|(sum, visits)| *sum += visits);
        }
    }

    /// The layer that gives way; none that is `kept`, nor, with `than`, one that is at least as likely soon.
    fn victim(&self, kept: impl Fn(u16) -> bool, than: Option<f64>) -> Option<usize> {
        let may = |&index: &usize| {
            self.resident[index]
                && !self.pinned[index]
                && !kept(index as u16)
                && than.is_none_or(|than| self.likely[index] < than)
        };
        let worse = |&a: &usize, &b: &usize| {
            let first = match self.policy {
                Eviction::Lru => std::cmp::Ordering::Equal,
                Eviction::Lfu => self.uses[a].cmp(&self.uses[b]),
                Eviction::Transitions => self.likely[a].total_cmp(&self.likely[b]),
            };
            first.then(self.last[a].cmp(&self.last[b])).then(a.cmp(&b))
        };
        (0..self.resident.len()).filter(may).min_by(worse)
    }

    fn replace(&mut self, victim: usize, by: usize) {
        self.resident[victim] = false;
        self.resident[by] = true;
        self.done.prefetch_wasted += u64::from(std::mem::take(&mut self.early[victim]));
    }
}
