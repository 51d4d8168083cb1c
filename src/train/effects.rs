//! What leaving out one branch alone does to the predictions of each token.

use super::decisions::{TrainedRouting, forward};
use super::measure::divergences_of;
use super::network::{Gates, Network};
use crate::quality::Texts;
use crate::weights::SkipKv;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

/// KL divergence from the teacher, nats, at each token where one branch is left out by all tokens, and the stream that entered its layer.
#[derive(Clone, Debug)]
pub struct Effects {
    /// `[layer][branch]`: one value a token.
    pub kl: Vec<[Vec<f32>; 2]>,
    /// `[layer]`: tokens x D.
    pub(super) states: Vec<Tensor<2>>,
}

impl Effects {
    /// Measures every branch of every layer over these texts. Takes about as long as `layers` passes.
    pub fn measure(network: &Network, texts: &Texts, kv: SkipKv, mut done: impl FnMut(u32)) -> Effects {
        let frame = network.frame(texts.length);
        let layers = network.model().layers;
        let mut effects = vec![[Vec::new(), Vec::new()]; layers as usize];
        let mut states: Vec<Vec<Tensor<2>>> = vec![Vec::new(); layers as usize];
        for batch in texts.batches() {
            let teacher = log_softmax(forward(network, &frame, &batch, &TrainedRouting::Dense, kv).0, 2);
            let (rows, tokens) = (batch.len(), texts.length);
            let mut stream = network.embed(&batch);
            for (layer, effects) in (0..).zip(&mut effects) {
                let width = stream.dims()[2];
                states[layer as usize].push(stream.clone().reshape([rows * tokens, width]));
                for (effect, out) in effects.iter_mut().zip([[true, false], [false, true]]) {
                    let gates = Gates::equal(out, &stream);
                    let without = network.layer(layer, &frame, stream.clone(), Some(&gates), kv);
                    let later = |stream, later| network.layer(later, &frame, stream, None, kv);
                    let without = (layer + 1..layers).fold(without, later);
                    let kl = divergences_of(teacher.clone(), network.logits(without));
                    effect.extend(kl.into_data().iter::<f32>());
                }
                stream = network.layer(layer, &frame, stream, None, kv);
                done(layer);
            }
        }
        let states = states.into_iter().map(|parts| Tensor::cat(parts, 0)).collect();
        Effects { kl: effects, states }
    }

    /// The branches whose mean effect is least, so many of them: for each layer attention and feed-forward.
    pub fn cheapest(&self, count: usize) -> Vec<[bool; 2]> {
        let mean = |values: &[f32]| values.iter().map(|&kl| f64::from(kl)).sum::<f64>() / values.len() as f64;
        let mut all: Vec<(f64, usize, usize)> = Vec::new();
        for (layer, branches) in self.kl.iter().enumerate() {
            all.extend(branches.iter().enumerate().map(|(branch, values)| (mean(values), layer, branch)));
        }
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut cheapest = vec![[false; 2]; self.kl.len()];
        all.iter().take(count).for_each(|&(_, layer, branch)| cheapest[layer][branch] = true);
        cheapest
    }
}
