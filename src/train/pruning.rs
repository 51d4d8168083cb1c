//! Static depth: layers or branches left out by every token, the least harmful first (for layers: SLEB, Song et al., arXiv 2402.09025, with the divergence from the whole
//! model in place of perplexity).

use super::measure::divergences_of;
use super::network::{Frame, Gates, Network};
use crate::error::{InputError, Result};
use crate::quality::Texts;
use crate::weights::SkipKv;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

/// What is left out, for each layer attention and feed-forward branch, and the divergence on the texts by which they were chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// Which.
    pub out: Vec<[bool; 2]>,
    /// Mean KL divergence from the whole model, nats.
    pub kl: f64,
}

/// What is left out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Whole layers.
    Layers,
    /// Branches, each on its own.
    Branches,
}

impl Unit {
    /// What can be left out of a layer of which some is.
    fn of(self, out: [bool; 2]) -> Vec<[bool; 2]> {
        match self {
            Unit::Layers if out == [false; 2] => vec![[true; 2]],
            Unit::Layers => Vec::new(),
            Unit::Branches => {
                let more = [[true, out[1]], [out[0], true]];
                more.into_iter().filter(|&more| more != out).collect()
            }
        }
    }
}

impl Pruned {
    /// Layers left out, a branch counting one half.
    pub fn count(&self) -> f64 {
        self.out.iter().flatten().filter(|&&out| out).count() as f64 / 2.0
    }
}

/// As steps of a route are written that are not taken: `3` a layer, `3a` its attention, `3f` its feed-forward branch.
impl std::fmt::Display for Pruned {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let names = self.out.iter().enumerate().filter_map(|(layer, out)| match out {
            [true, true] => Some(layer.to_string()),
            [true, false] => Some(format!("{layer}a")),
            [false, true] => Some(format!("{layer}f")),
            [false, false] => None,
        });
        f.write_str(&names.collect::<Vec<_>>().join(" "))
    }
}

/// What is left out, of a list in that form, with commas or spaces between.
///
/// # Errors
/// What is no layer of the model.
pub fn left_out(text: &str, layers: u32) -> Result<Vec<[bool; 2]>> {
    let mut out = vec![[false; 2]; layers as usize];
    for step in text.split([',', ' ']).filter(|step| !step.is_empty()) {
        let (layer, branches) = match step.strip_suffix('a') {
            Some(layer) => (layer, [true, false]),
            None => step.strip_suffix('f').map_or((step, [true; 2]), |layer| (layer, [false, true])),
        };
        let known = layer.parse().ok().and_then(|layer: usize| out.get_mut(layer)).ok_or_else(|| {
            let what = format!("layers below {layers}, with `a` or `f` for a branch: 5,16a");
            InputError::expected(what).key("--left-out").found(step)
        })?;
        known.iter_mut().zip(branches).for_each(|(out, branch)| *out |= branch);
    }
    Ok(out)
}

/// Some sequences on their way through the layers that are left.
struct ScratchWay {
    share: f64,
    /// Logarithms of the whole model's probabilities.
    teacher: Tensor<3>,
    /// The stream that enters each layer.
    entering: Vec<Tensor<3>>,
}

/// Leaves out one unit after the other, each time the one whose absence changes the predictions on these texts least: for each number of units
/// left out from 1 to `most`. `done` hears of each.
pub fn prune(
    network: &Network,
    texts: &Texts,
    unit: Unit,
    most: u32,
    mut done: impl FnMut(&Pruned),
) -> Vec<Pruned> {
    let frame = network.frame(texts.length);
    let layers = network.model().layers as usize;
    let (mut out, mut all) = (vec![[false; 2]; layers], Vec::new());
    let begin = |batch: Vec<&[u32]>| {
        let mut entering = vec![network.embed(&batch)];
        let last = through(network, &frame, &out, 0, entering[0].clone(), |stream| entering.push(stream));
        entering.pop();
        let share = batch.len() as f64 / texts.sequences.len() as f64;
        ScratchWay { share, teacher: log_softmax(network.logits(last), 2), entering }
    };
    let mut ways: Vec<ScratchWay> = texts.batches().map(begin).collect();
    for _ in 0..most {
        let mut best = (f64::INFINITY, 0, [false; 2]);
        let tried =
            (0..layers).flat_map(|layer| unit.of(out[layer]).into_iter().map(move |out| (layer, out)));
        for (layer, without) in tried {
            let kl = |way: &ScratchWay| {
                let first = one(network, &frame, without, layer as u32, way.entering[layer].clone());
                let last = through(network, &frame, &out, layer + 1, first, drop);
                let mean: f32 =
                    divergences_of(way.teacher.clone(), network.logits(last)).mean().into_scalar();
                f64::from(mean) * way.share
            };
            let kl = ways.iter().map(kl).sum();
            if kl < best.0 {
                best = (kl, layer, without);
            }
        }
        let (kl, layer, without) = best;
        out[layer] = without;
        for way in &mut ways {
            let stream = way.entering[layer].clone();
            way.entering.truncate(layer + 1);
            through(network, &frame, &out, layer, stream, |stream| way.entering.push(stream));
            way.entering.truncate(layers);
        }
        let pruned = Pruned { out: out.clone(), kl };
        done(&pruned);
        all.push(pruned);
    }
    all
}

/// The stream behind the last layer, of the stream that enters a layer; `each` gets the stream behind every layer, whether it was left out or not.
fn through(
    network: &Network,
    frame: &Frame,
    out: &[[bool; 2]],
    from: usize,
    mut stream: Tensor<3>,
    mut each: impl FnMut(Tensor<3>),
) -> Tensor<3> {
    for (layer, out) in (0..).zip(out).skip(from) {
        stream = one(network, frame, *out, layer, stream);
        each(stream.clone());
    }
    stream
}

/// The stream behind a layer of which this is left out.
fn one(network: &Network, frame: &Frame, out: [bool; 2], layer: u32, stream: Tensor<3>) -> Tensor<3> {
    match out {
        [true, true] => stream,
        [false, false] => network.layer(layer, frame, stream, None, SkipKv::ProjectOnly),
        some => {
            let gates = Gates::equal(some, &stream);
            network.layer(layer, frame, stream, Some(&gates), SkipKv::ProjectOnly)
        }
    }
}
