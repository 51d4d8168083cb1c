//! Which device has which layer of a pool, and how often tokens cross from one to another on their way.
//!
//! KV entries stay with their layer and the state of a token moves, so that what a placement costs is what tokens cross. Where a token enters and
//! where it leaves is no layer, and counts as no crossing.

mod cut;

use super::{Phase, Trace};
use crate::error::{InputError, Result};
use petgraph::graph::{NodeIndex, UnGraph};
use std::collections::BTreeMap;

/// The device of each layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    devices: u32,
    of: Vec<u32>,
}

/// What tokens do between layers, and at them.
#[derive(Clone, Debug)]
pub struct Hops {
    /// A node for each layer of the pool, with the steps of tokens there; an edge between two for the tokens that take one right after the other.
    graph: UnGraph<u64, u64>,
    /// Tokens.
    tokens: u64,
}

/// How tokens fare under a placement.
#[derive(Clone, Debug, PartialEq)]
pub struct Fares {
    /// Tokens that were counted.
    pub tokens: u64,
    /// Times that the state of a token moves to another device, a token on average.
    pub crossings: f64,
    /// Share of all steps that each device runs.
    pub load: Vec<f64>,
}

impl Hops {
    /// Of the tokens of these requests of a trace, by their place in it. Drafted, verified and recomputed tokens count each time that they run.
    pub fn of(trace: &Trace, requests: std::ops::Range<usize>) -> Hops {
        let mut uses = BTreeMap::<u32, u64>::new();
        for run in trace.requests[requests].iter().flat_map(|request| &request.runs) {
            debug_assert!(matches!(run.phase, Phase::Prefill | Phase::Decode));
            for (route, times) in run.routes.counted() {
                *uses.entry(route).or_default() += u64::from(times);
            }
        }
        let mut steps = vec![0; trace.header.layers as usize];
        let mut pairs = BTreeMap::<(u32, u32), u64>::new();
        for (&route, &times) in &uses {
            let route = &trace.routes.get(route).0;
            route.iter().for_each(|step| steps[step.layer as usize] += times);
            for pair in route.windows(2).map(|pair| (pair[0].layer, pair[1].layer)).filter(|(a, b)| a != b) {
                *pairs.entry((pair.0.min(pair.1), pair.0.max(pair.1))).or_default() += times;
            }
        }
        let mut graph = UnGraph::with_capacity(steps.len(), pairs.len());
        for steps in steps {
            graph.add_node(steps);
        }
        for ((a, b), times) in pairs {
            graph.add_edge(NodeIndex::new(a as usize), NodeIndex::new(b as usize), times);
        }
        Hops { graph, tokens: uses.values().sum() }
    }

    /// How these tokens fare.
    pub fn fares(&self, placement: &Placement) -> Fares {
        let device = |node: NodeIndex| placement.of[node.index()];
        let crosses = |edge| self.graph.edge_endpoints(edge).is_some_and(|(a, b)| device(a) != device(b));
        let crossed: u64 =
            self.graph.edge_indices().filter(|&edge| crosses(edge)).map(|edge| self.graph[edge]).sum();
        let mut load = vec![0u64; placement.devices as usize];
        self.graph.node_indices().for_each(|node| load[device(node) as usize] += self.graph[node]);
        let steps = load.iter().sum::<u64>().max(1) as f64;
        Fares {
            tokens: self.tokens,
            crossings: crossed as f64 / self.tokens.max(1) as f64,
            load: load.into_iter().map(|load| load as f64 / steps).collect(),
        }
    }
}

impl Placement {
    /// The first layers on the first device, the next on the next; each device has as many, give or take one.
    ///
    /// # Errors
    /// No device, or more devices than layers.
    pub fn contiguous(layers: u32, devices: u32) -> Result<Placement> {
        check(layers, devices)?;
        let of = |layer: u32| (u64::from(layer) * u64::from(devices) / u64::from(layers)) as u32;
        Ok(Placement { devices, of: (0..layers).map(of).collect() })
    }

    /// Layer l on device l modulo their number.
    ///
    /// # Errors
    /// Those of [`Placement::contiguous`].
    pub fn round_robin(layers: u32, devices: u32) -> Result<Placement> {
        check(layers, devices)?;
        Ok(Placement { devices, of: (0..layers).map(|layer| layer % devices).collect() })
    }

    /// Stages of neighbouring layers, as vLLM cuts them (`get_pp_indices`): as many on each, and of what is left one more on the last but one and
    /// those before it, since the last has the head and, where few are left, the first the embedding.
    ///
    /// # Errors
    /// Those of [`Placement::contiguous`].
    pub fn stages(layers: u32, stages: u32) -> Result<Placement> {
        check(layers, stages)?;
        let (each, left) = (layers / stages, layers % stages);
        let more = |stage: u32| u32::from(stage + 1 < stages && stage + 1 + left >= stages);
        let of = (0..stages).flat_map(|stage| (0..each + more(stage)).map(move |_| stage));
        Ok(Placement { devices: stages, of: of.collect() })
    }

    /// Each layer on the device that the list says.
    ///
    /// # Errors
    /// Those of [`Placement::contiguous`]; a device that is not there, or has no layer.
    pub fn listed(of: Vec<u32>, devices: u32) -> Result<Placement> {
        check(of.len() as u32, devices)?;
        if let Some(&found) = of.iter().find(|&&device| device >= devices) {
            return Err(InputError::expected(format!("devices below {devices}"))
                .key("placement")
                .found(found)
                .into());
        }
        if let Some(without) = (0..devices).find(|device| !of.contains(device)) {
            let what = format!("layers on each of the {devices} devices");
            return Err(InputError::expected(what)
                .key("placement")
                .found(format!("none on {without}"))
                .into());
        }
        Ok(Placement { devices, of })
    }

    /// Layers that a device may have at most, where it may have this multiple of its even share.
    pub fn most(layers: u32, devices: u32, balance: f64) -> u32 {
        let share = f64::from(layers) / f64::from(devices.max(1));
        ((share * balance).floor().max(share.ceil()) as u32).min(layers)
    }

    /// How many devices there are.
    pub fn count(&self) -> u32 {
        self.devices
    }

    /// Few crossings for these tokens, with no more than `most` layers on a device: the best that swaps and moves of single layers come to from
    /// several starts, by simulated annealing (Kirkpatrick, Gelatt, Vecchi, Science 220, 1983). The same for the same seed.
    ///
    /// # Errors
    /// Those of [`Placement::contiguous`]; fewer places than layers; more layers than are tried.
    pub fn cut(hops: &Hops, devices: u32, most: u32, seed: u64) -> Result<Placement> {
        let layers = hops.graph.node_count() as u32;
        check(layers, devices)?;
        if u64::from(most) * u64::from(devices) < u64::from(layers) {
            let what = format!("at least {} layers a device, so that {layers} fit", layers.div_ceil(devices));
            return Err(InputError::expected(what).key("balance").found(most).into());
        }
        if layers > cut::MOST_LAYERS {
            let what = format!("at most {} layers", cut::MOST_LAYERS);
            return Err(InputError::expected(what).key("layers").found(layers).into());
        }
        Ok(cut::search(hops, devices, most, seed))
    }

    /// The device of each layer, by layer.
    pub fn devices(&self) -> &[u32] {
        &self.of
    }

    /// The layers of each device, ascending.
    pub fn layers(&self) -> Vec<Vec<u32>> {
        let mut all = vec![Vec::new(); self.devices as usize];
        (0..).zip(&self.of).for_each(|(layer, &device)| all[device as usize].push(layer));
        all
    }
}

fn check(layers: u32, devices: u32) -> Result<()> {
    if (1..=layers).contains(&devices) {
        return Ok(());
    }
    let what = format!("1 to {layers} devices, as many as the pool has layers");
    Err(InputError::expected(what).key("devices").found(devices).into())
}
