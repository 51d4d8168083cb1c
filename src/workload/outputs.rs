//! Outputs that later prompts take up again: what a server saves that keeps the blocks of outputs too.

use crate::trace::Request;
use std::collections::{HashMap, HashSet};

/// Blocks of prompts that may hold outputs of earlier requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputsAgain {
    /// Requests whose prompts have such blocks.
    pub requests: u64,
    /// Tokens of those blocks.
    pub tokens: u64,
}

impl OutputsAgain {
    /// Counts the blocks of `block` tokens behind the whole blocks of an earlier prompt with which a prompt begins, as far as that
    /// request's output reaches, in prompts that have room for that prompt and its output. Blocks that an earlier prompt had too are not
    /// counted: they are found there. Hashes say what is equal and not who said it, so it is an upper bound. `requests` are sorted by arrival.
    pub fn count(requests: &[Request], block: u32) -> Self {
        let mut all = OutputsAgain::default();
        // By the hash of its last whole block, the end of the output of the request that last had this prompt.
        let mut ends: HashMap<u64, u32> = HashMap::new();
        let mut seen = HashSet::new();
        for request in requests {
            let whole = (request.prompt_tokens / block).min(request.prefix.len() as u32);
            let blocks = &request.prefix[..whole as usize];
            let before = blocks.iter().enumerate().rev().find_map(|(at, hash)| {
                let end = ends.get(hash).filter(|&&end| end <= request.prompt_tokens)?;
                Some((at + 1, (end / block).min(whole) as usize))
            });
            if let Some((from, to)) = before.filter(|(from, to)| from < to) {
                let new = blocks[from..to].iter().filter(|hash| !seen.contains(*hash)).count() as u64;
                all.requests += u64::from(new > 0);
                all.tokens += new * u64::from(block);
            }
            seen.extend(blocks.iter().copied());
            if let Some(&last) = blocks.last() {
                ends.insert(last, request.prompt_tokens.saturating_add(request.output_tokens));
            }
        }
        all
    }
}
