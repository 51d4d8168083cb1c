//! The radial router: at each hop it looks at a token's state and at the layer it comes from, and names the layer of the pool that the token visits next,
//! or the exit.

use super::network::root_normed;
use super::parameters::refilled;
use crate::model::RadialDescription;
use crate::rng::Stream;
use crate::weights::{RadialRouter as Weights, transposed};
use burn::module::{Module, Param, ParamId};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::ops::Range;

/// A radial router whose scores can be differentiated:
///
/// ```text
/// n      = x / sqrt(mean(x^2) + 1e-6)
/// scores = second silu(first n + vectors[before]) + biases[before]
/// ```
///
/// with `before` the layer that the token comes from, or P where it comes from the embedding. Options are the P layers and, last, the exit. A router
/// that sees words has one more vector for each word, added before the SiLU.
#[derive(Module, Debug)]
pub struct RadialRouter {
    /// D x hidden.
    first: Param<Tensor<2>>,
    /// (P + 1) x hidden.
    vectors: Param<Tensor<2>>,
    /// hidden x (P + 1).
    second: Param<Tensor<2>>,
    /// (P + 1) x (P + 1).
    biases: Param<Tensor<2>>,
    /// V x hidden.
    words: Option<Param<Tensor<2>>>,
}

/// Numbers of the parameters, so that an optimiser's state finds them again in another process; those of a network's weights begin at 100.
const IDS: [u64; 5] = [11, 12, 13, 14, 15];

/// What a router prefers before it has learned anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Begin {
    /// The layer behind the one that a token comes from, and the exit behind the last: the sequential network.
    Identity,
    /// Any layer, by a random projection of the token's state: near states go near ways.
    Random,
    /// At hop h one of the layers from h P / H on up to those of the next hop, by a random projection; of a pool with a layer for each hop at least.
    Staged {
        /// H.
        hops: u32,
    },
    /// Any layer, by the token's word and the layer it comes from: a hash of both, from which learning sets out.
    Words {
        /// V.
        words: u32,
    },
}

/// By how much a preferred option stands above the others, in scores: enough that noise of unit spread does not turn it over.
const PREFERRED: f32 = 8.0;

impl RadialRouter {
    /// A router for a pool of `layers` over a stream of `width` values.
    pub fn new(
        layers: u32,
        width: u64,
        hidden: u32,
        begin: Begin,
        seed: u64,
        device: &Device,
    ) -> RadialRouter {
        let random = &mut Stream::new(seed, "radial router");
        let (options, width, hidden) = (layers as usize + 1, width as usize, hidden as usize);
        let mut drawn = |count: usize, spread: f64| -> Vec<f32> {
            (0..count).map(|_| (spread * random.normal()) as f32).collect()
        };
        let (state, place) = match begin {
            Begin::Words { .. } => (0.1, 1.0),
            _ => (1.0, 0.5),
        };
        let first = drawn(width * hidden, state / libm::sqrt(width as f64));
        let vectors = drawn(options * hidden, place);
        let words = match begin {
            Begin::Words { words } => Some((drawn(words as usize * hidden, 1.0), [words as usize, hidden])),
            _ => None,
        };
        // A hidden value has a root mean square of about a half: scores have a spread of one.
        let spread = if begin == Begin::Identity { 0.0 } else { 2.0 / libm::sqrt(hidden as f64) };
        let second = drawn(hidden * options, spread);
        let mut biases = vec![0.0; options * options];
        let exit = options - 1;
        for before in 0..options {
            let row = &mut biases[before * options..(before + 1) * options];
            match begin {
                Begin::Identity => row[if before == exit { 0 } else { before + 1 }] = PREFERRED,
                Begin::Random | Begin::Words { .. } => row[exit] = -PREFERRED,
                Begin::Staged { hops } => {
                    row[exit] = -PREFERRED;
                    let of = |hop: u32| stage(hop, hops, layers);
                    let next = match before == exit {
                        true => 0,
                        false => (0..hops).find(|&hop| of(hop).contains(&(before as u32))).unwrap_or(0) + 1,
                    };
                    if next < hops {
                        of(next).for_each(|layer| row[layer as usize] = PREFERRED);
                    }
                }
            }
        }
        let parts = [
            (first, [width, hidden]),
            (vectors, [options, hidden]),
            (second, [hidden, options]),
            (biases, [options, options]),
        ];
        RadialRouter::of(parts, words, device)
    }

    fn of(
        parts: [(Vec<f32>, [usize; 2]); 4],
        words: Option<(Vec<f32>, [usize; 2])>,
        device: &Device,
    ) -> RadialRouter {
        let device = device.clone().autodiff();
        let mut ids = IDS.into_iter();
        let mut param = |(values, shape): (Vec<f32>, [usize; 2])| {
            let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), &device).require_grad();
            Param::initialized(ParamId::from(ids.next().expect("five of each")), tensor)
        };
        let [first, vectors, second, biases] = parts.map(&mut param);
        RadialRouter { first, vectors, second, biases, words: words.map(param) }
    }

    /// Layers of the pool.
    pub fn layers(&self) -> u32 {
        self.biases.dims()[0] as u32 - 1
    }

    /// Scores of rows of a stream, N x D, of these words, that come from these layers: N x (P + 1).
    pub fn scores(&self, stream: Tensor<2>, before: &[u32], words: &[u32]) -> Tensor<2> {
        let n = root_normed(stream, Weights::EPSILON);
        let device = self.biases.val().device().without_autodiff();
        let list = |ids: &[u32]| {
            let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let count = ids.len();
            Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &device)
        };
        let ids = list(before);
        let inside = n.matmul(self.first.val()) + self.vectors.val().select(0, ids.clone());
        let inside = silu(match &self.words {
            Some(vectors) => inside + vectors.val().select(0, list(words)),
            None => inside,
        });
        inside.matmul(self.second.val()) + self.biases.val().select(0, ids)
    }

    /// The same router with the scores of the exit higher by `by`: tokens leave earlier.
    #[must_use]
    pub fn leaving(&self, by: f64) -> RadialRouter {
        let mut biases = values_of(&self.biases);
        let options = self.layers() as usize + 1;
        biases.iter_mut().skip(options - 1).step_by(options).for_each(|score| *score += by as f32);
        RadialRouter { biases: refilled(&self.biases, &biases), ..self.clone() }
    }

    /// The router that sends all tokens through the layers in order, from the first again behind the last.
    pub fn in_order(layers: u32, width: u64, device: &Device) -> RadialRouter {
        let router = RadialRouter::new(layers, width, 4, Begin::Identity, 0, device);
        let [first, vectors, second, mut biases] = router.parts().map(values_of);
        let (options, last) = (layers as usize + 1, layers as usize - 1);
        biases[last * options + last + 1] = 0.0;
        biases[last * options] = PREFERRED;
        router.filled(&[first, vectors, second, biases].concat())
    }

    /// Its weights as files keep them, in their rows.
    pub(super) fn weights(&self, described: RadialDescription) -> Weights {
        let [first, vectors, second, biases] = self.parts().map(values_of);
        let [width, hidden] = self.first.dims();
        let options = self.layers() as usize + 1;
        Weights {
            described,
            layers: self.layers(),
            width: width as u32,
            hidden: hidden as u32,
            first: transposed(&first, width, hidden),
            vectors,
            second: transposed(&second, hidden, options),
            biases,
            words: self.words.as_ref().map(values_of).unwrap_or_default(),
        }
    }

    /// The router with these weights.
    pub fn with(weights: &Weights, device: &Device) -> RadialRouter {
        let [options, width, hidden] =
            [weights.layers + 1, weights.width, weights.hidden].map(|size| size as usize);
        let parts = [
            (transposed(&weights.first, hidden, width), [width, hidden]),
            (weights.vectors.clone(), [options, hidden]),
            (transposed(&weights.second, options, hidden), [hidden, options]),
            (weights.biases.clone(), [options, options]),
        ];
        let words = weights.seen_words().map(|count| (weights.words.clone(), [count as usize, hidden]));
        RadialRouter::of(parts, words, device)
    }

    fn parts(&self) -> [&Param<Tensor<2>>; 4] {
        [&self.first, &self.vectors, &self.second, &self.biases]
    }

    fn all(&self) -> impl Iterator<Item = &Param<Tensor<2>>> {
        self.parts().into_iter().chain(&self.words)
    }

    /// Values in all.
    pub fn count(&self) -> usize {
        self.all().map(|part| part.dims().iter().product::<usize>()).sum()
    }

    /// The values of all parts, as they stand here.
    pub(super) fn values(&self) -> Vec<f32> {
        self.all().flat_map(values_of).collect()
    }

    /// The same router with these values, one part behind the other.
    #[must_use]
    pub(super) fn filled(&self, values: &[f32]) -> RadialRouter {
        let mut rest = values;
        let mut fill = |part: &Param<Tensor<2>>| {
            let (own, behind) = rest.split_at(part.dims().iter().product());
            rest = behind;
            refilled(part, own)
        };
        let [first, vectors, second, biases] = self.parts().map(&mut fill);
        RadialRouter { first, vectors, second, biases, words: self.words.as_ref().map(fill) }
    }

    /// The same router for decisions alone, without a memory of how they came about.
    #[must_use]
    pub fn fixed(&self) -> RadialRouter {
        let fixed = |param: &Param<Tensor<2>>| Param::initialized(param.id, param.val().inner());
        RadialRouter {
            first: fixed(&self.first),
            vectors: fixed(&self.vectors),
            second: fixed(&self.second),
            biases: fixed(&self.biases),
            words: self.words.as_ref().map(fixed),
        }
    }
}

fn values_of(part: &Param<Tensor<2>>) -> Vec<f32> {
    part.val().inner().into_data().iter::<f32>().collect()
}

/// The part of a pool that a hop has for itself where the pool has one for each.
pub(super) fn stage(hop: u32, hops: u32, layers: u32) -> Range<u32> {
    let border = |hop: u32| (u64::from(hop) * u64::from(layers) / u64::from(hops)) as u32;
    border(hop)..border(hop + 1).max(border(hop) + 1)
}
