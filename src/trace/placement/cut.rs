//! A partition of the layers that few tokens cross, by simulated annealing.

use super::{Hops, Placement};
use crate::rng::Stream;
use petgraph::visit::EdgeRef;

/// Most layers of a pool that is cut: what a step looks at is a matrix of them.
pub(super) const MOST_LAYERS: u32 = 4096;

/// Proposals a layer and start.
const PROPOSALS: u64 = 4000;

/// Starts beside the two known placements.
const STARTS: u32 = 4;

/// First and last temperature, in mean crossings of a layer: at first most changes for the worse are taken, at last none that matters.
const TEMPERATURES: (f64, f64) = (1.0, 1e-4);

struct Search {
    layers: usize,
    most: usize,
    /// Crossings between each two layers, symmetric.
    between: Vec<f64>,
    /// Layers on each device.
    count: Vec<usize>,
    of: Vec<u32>,
    /// Crossings from each layer to all layers of each device.
    to: Vec<f64>,
}

pub(super) fn search(hops: &Hops, devices: u32, most: u32, seed: u64) -> Placement {
    let layers = hops.graph.node_count();
    let mut between = vec![0.0; layers * layers];
    for edge in hops.graph.edge_references() {
        let (a, b) = (edge.source().index(), edge.target().index());
        between[a * layers + b] = *edge.weight() as f64;
        between[b * layers + a] = *edge.weight() as f64;
    }
    let known = [Placement::contiguous, Placement::round_robin].map(|of| of(layers as u32, devices));
    let mut stream = Stream::new(seed, "placement of layers");
    let mut starts: Vec<Vec<u32>> = known.into_iter().flatten().map(|placement| placement.of).collect();
    for _ in 0..STARTS {
        let mut of = starts[1].clone();
        stream.shuffle(&mut of);
        starts.push(of);
    }
    let best = starts.into_iter().map(|of| {
        let mut search = Search::new(&between, (devices, most), of);
        search.anneal(&mut stream);
        (search.crossings(), search.of)
    });
    let (_, of) = best.min_by(|a, b| a.0.total_cmp(&b.0)).expect("there are starts");
    Placement { devices, of }
}

impl Search {
    fn new(between: &[f64], (devices, most): (u32, u32), of: Vec<u32>) -> Search {
        let (layers, devices) = (of.len(), devices as usize);
        let (mut count, mut to) = (vec![0; devices], vec![0.0; layers * devices]);
        for (layer, &device) in of.iter().enumerate() {
            count[device as usize] += 1;
            (0..layers)
                .for_each(|other| to[other * devices + device as usize] += between[other * layers + layer]);
        }
        Search { layers, most: most as usize, between: between.to_vec(), count, of, to }
    }

    /// Crossings of all tokens.
    fn crossings(&self) -> f64 {
        let devices = self.count.len();
        let of = |(layer, &device): (usize, &u32)| {
            (0..devices)
                .filter(|&other| other != device as usize)
                .map(|other| self.to[layer * devices + other])
                .sum::<f64>()
        };
        self.of.iter().enumerate().map(of).sum::<f64>() / 2.0
    }

    /// What is crossed more when a layer goes to a device.
    fn more(&self, layer: usize, device: usize) -> f64 {
        let devices = self.count.len();
        self.to[layer * devices + self.of[layer] as usize] - self.to[layer * devices + device]
    }

    fn go(&mut self, layer: usize, device: usize) {
        let (devices, from) = (self.count.len(), self.of[layer] as usize);
        for other in 0..self.layers {
            let crossings = self.between[other * self.layers + layer];
            self.to[other * devices + from] -= crossings;
            self.to[other * devices + device] += crossings;
        }
        self.count[from] -= 1;
        self.count[device] += 1;
        self.of[layer] = device as u32;
    }

    fn anneal(&mut self, stream: &mut Stream) {
        let proposals = PROPOSALS * self.layers as u64;
        let (first, last) = TEMPERATURES;
        let unit = self.between.iter().sum::<f64>() / self.layers as f64;
        let cooling = libm::pow(last / first, 1.0 / proposals as f64);
        let mut temperature = first * unit;
        let mut best = (self.crossings(), self.of.clone());
        let mut now = best.0;
        for _ in 0..proposals {
            let layer = stream.below(self.layers as u64) as usize;
            let other = stream.below(self.layers as u64) as usize;
            let (from, to) = (self.of[layer] as usize, self.of[other] as usize);
            temperature *= cooling;
            if from == to {
                continue;
            }
            // A move where there is room and the draw says so, else a swap.
            let moves = self.count[to] < self.most && stream.chance(0.5);
            let more = match moves {
                true => self.more(layer, to),
                false => {
                    let joined = self.between[layer * self.layers + other];
                    self.more(layer, to) + self.more(other, from) + 2.0 * joined
                }
            };
            if more > 0.0 && stream.uniform() >= libm::exp(-more / temperature.max(f64::MIN_POSITIVE)) {
                continue;
            }
            self.go(layer, to);
            if !moves {
                self.go(other, from);
            }
            now += more;
            if now < best.0 - 0.5 {
                best = (now, self.of.clone());
            }
        }
        let of = best.1;
        let devices = self.count.len() as u32;
        *self = Search::new(&self.between, (devices, self.most as u32), of);
    }
}
