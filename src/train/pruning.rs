//! Static depth: whole layers left out by every token, the least harmful first (SLEB, Song et al., arXiv 2402.09025, with the divergence from the whole model in
//! place of perplexity).

use super::data::Texts;
use super::decisions::{Routing, forward};
use super::measure::divergences;
use super::network::Network;
use crate::weights::SkipKv;

/// Leaves out one layer after the other, each time the one whose absence changes the predictions on these texts least: for each number of layers left out
/// from 1 to `most`, which they are.
pub fn prune(
    network: &Network,
    texts: &Texts,
    most: u32,
    mut done: impl FnMut(u32, f64),
) -> Vec<Vec<[bool; 2]>> {
    let frame = network.frame(texts.length);
    let layers = network.model().layers as usize;
    let (mut out, mut all) = (vec![[false; 2]; layers], Vec::new());
    let batches: Vec<Vec<&[u32]>> = texts.batches(4).collect();
    let teachers: Vec<_> = batches
        .iter()
        .map(|batch| forward(network, &frame, batch, &Routing::Dense, SkipKv::ProjectOnly).0)
        .collect();
    for step in 0..most {
        let mut best = (f64::INFINITY, 0);
        for layer in (0..layers).filter(|&layer| !out[layer][0]) {
            let mut tried = out.clone();
            tried[layer] = [true; 2];
            let mut kl = 0.0;
            for (batch, teacher) in batches.iter().zip(&teachers) {
                let (logits, _) =
                    forward(network, &frame, batch, &Routing::Static(&tried), SkipKv::ProjectOnly);
                let mean: f32 = divergences(teacher.clone(), logits).mean().into_scalar();
                kl += f64::from(mean) * batch.len() as f64 / texts.sequences.len() as f64;
            }
            if kl < best.0 {
                best = (kl, layer);
            }
        }
        out[best.1] = [true; 2];
        done(step + 1, best.0);
        all.push(out.clone());
    }
    all
}
