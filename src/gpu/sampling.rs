//! Drawing a token from those that the head finds likeliest.

use crate::rng::Stream;

/// How a token is drawn from those that the head finds likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSampling {
    /// Among how many, at most [`ExecutorOptions::top`](super::ExecutorOptions::top).
    pub top: u32,
    /// What logits are divided by before their exponentials become shares; above 0.
    pub temperature: f64,
    /// Seed; a prompt's draws depend on it and on the prompt's number alone.
    pub seed: u64,
}

impl TokenSampling {
    /// Draws one of the likeliest tokens (Fan et al., arXiv 1805.04833, section 5.4).
    pub(super) fn draw(&self, top: &[(u32, f32)], random: &mut Stream) -> u32 {
        let top = &top[..top.len().min(self.top as usize)];
        let highest = f64::from(top[0].1);
        let share = |&(_, logit): &(u32, f32)| libm::exp((f64::from(logit) - highest) / self.temperature);
        let mut left = random.uniform() * top.iter().map(share).sum::<f64>();
        for entry in top {
            left -= share(entry);
            if left < 0.0 {
                return entry.0;
            }
        }
        top[0].0
    }
}
