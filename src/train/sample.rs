//! Text that a model writes: sampled at temperature 1, so that it is what the model itself holds likely.

use super::network::{Network, Past};
use crate::rng::Stream;
use burn::tensor::activation::softmax;

/// So many sequences of `tokens` tokens, each begun with `begin` and drawn token by token; all are computed together. `done` hears of each token.
pub fn sample(
    network: &Network,
    begin: u32,
    sequences: usize,
    tokens: usize,
    seed: u64,
    mut done: impl FnMut(usize),
) -> Vec<Vec<u32>> {
    let mut streams: Vec<Stream> =
        (0..sequences).map(|index| Stream::new(seed, &format!("sample {index}"))).collect();
    let frame = network.frame(tokens);
    let mut past = vec![Past::default(); network.model().layers as usize];
    let (mut all, mut last) = (vec![vec![begin]; sequences], vec![begin; sequences]);
    for position in 0..tokens - 1 {
        let logits = network.next(&frame, position, &last, &mut past);
        let shares: Vec<f32> = softmax(logits, 1).into_data().iter::<f32>().collect();
        let words = shares.len() / sequences;
        for (index, shares) in shares.chunks_exact(words).enumerate() {
            let mut left = streams[index].uniform();
            let chosen = shares.iter().position(|&share| {
                left -= f64::from(share);
                left < 0.0
            });
            last[index] = chosen.unwrap_or(words - 1) as u32;
            all[index].push(last[index]);
        }
        done(position + 1);
    }
    all
}
