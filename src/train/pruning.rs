//! Static depth: whole layers left out by every token, the least harmful first (SLEB, Song et al., arXiv 2402.09025, with the divergence from the whole
//! model in place of perplexity).

use super::data::Texts;
use super::measure::divergences;
use super::network::{Frame, Network};
use crate::weights::SkipKv;
use burn::tensor::Tensor;

/// Layers left out, for each layer attention and feed-forward branch, and the divergence on the texts by which they were chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    /// Which.
    pub out: Vec<[bool; 2]>,
    /// Mean KL divergence from the whole model, nats.
    pub kl: f64,
}

impl Pruned {
    /// The layers that are left out.
    pub fn layers(&self) -> impl Iterator<Item = usize> {
        (0..self.out.len()).filter(|&layer| self.out[layer] == [true; 2])
    }
}

/// Some sequences on their way through the layers that are left.
struct Way {
    share: f64,
    teacher: Tensor<3>,
    /// The stream that enters each layer.
    entering: Vec<Tensor<3>>,
}

/// Leaves out one layer after the other, each time the one whose absence changes the predictions on these texts least: for each number of layers
/// left out from 1 to `most`. `done` hears of each.
pub fn prune(network: &Network, texts: &Texts, most: u32, mut done: impl FnMut(&Pruned)) -> Vec<Pruned> {
    let frame = network.frame(texts.length);
    let layers = network.model().layers as usize;
    let (mut out, mut all) = (vec![[false; 2]; layers], Vec::new());
    let begin = |batch: Vec<&[u32]>| {
        let mut entering = vec![network.embed(&batch)];
        let last = through(network, &frame, &out, 0, entering[0].clone(), |stream| entering.push(stream));
        entering.pop();
        let share = batch.len() as f64 / texts.sequences.len() as f64;
        Way { share, teacher: network.logits(last), entering }
    };
    let mut ways: Vec<Way> = texts.batches(4).map(begin).collect();
    for _ in 0..most {
        let mut best = (f64::INFINITY, 0);
        for layer in (0..layers).filter(|&layer| !out[layer][0]) {
            let kl = |way: &Way| {
                let last = through(network, &frame, &out, layer + 1, way.entering[layer].clone(), drop);
                let mean: f32 = divergences(way.teacher.clone(), network.logits(last)).mean().into_scalar();
                f64::from(mean) * way.share
            };
            let kl = ways.iter().map(kl).sum();
            if kl < best.0 {
                best = (kl, layer);
            }
        }
        let (kl, layer) = best;
        out[layer] = [true; 2];
        for way in &mut ways {
            let stream = way.entering[layer].clone();
            way.entering.truncate(layer + 1);
            way.entering.push(stream.clone());
            through(network, &frame, &out, layer + 1, stream, |stream| way.entering.push(stream));
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
    for (layer, branches) in (0..).zip(out).skip(from) {
        if *branches != [true; 2] {
            stream = network.layer(layer, frame, stream, None, SkipKv::ProjectOnly);
        }
        each(stream.clone());
    }
    stream
}
