//! Shared prefixes: KV entries of prompt blocks that outlive their request, so that another with the same prefix need not
//! compute them (vLLM's automatic prefix caching, SGLang's radix tree of arXiv 2312.07104, Mooncake's store of arXiv 2407.00079).
//!
//! A request names the blocks of its prompt by hashes that stand for the block and all before it. Whoever computes a block
//! first leaves it here, with the routes that its tokens took: what they skipped is missing for those who come after, too.
//! A block that nobody uses and behind which none is kept gives way, the one used longest ago first.

use crate::batch::Context;
use crate::trace::{Phase, Request, Role};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Entries of a prompt block.
#[derive(Debug)]
struct Segment {
    /// What a sequence sees that has passed the prefix up to the end of this block.
    context: Context,
    /// KV entries of this block alone, and the KV blocks that they fill.
    entries: u64,
    blocks: u64,
    parent: Option<u64>,
    /// Sequences that use it; blocks kept behind it.
    users: u32,
    children: u32,
    last_use: u64,
}

impl Segment {
    fn is_idle(&self) -> bool {
        self.users == 0 && self.children == 0
    }
}

/// The blocks that are kept.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    segments: HashMap<u64, Segment>,
    /// Those that may give way: last use, hash.
    idle: BTreeSet<(u64, u64)>,
    clock: u64,
    /// KV blocks of those that nobody uses: all of them could give way.
    spare: u64,
}

/// What gave way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    pub blocks: u64,
    pub entries: u64,
}

impl Prefixes {
    /// KV blocks that could be had.
    pub fn spare(&self) -> u64 {
        self.spare
    }

    /// How many of these blocks, from the first on, are kept.
    pub fn matching(&self, hashes: &[u64]) -> usize {
        hashes.iter().take_while(|hash| self.segments.contains_key(hash)).count()
    }

    /// A sequence uses these blocks, which are kept. Returns what it sees behind them, and their entries.
    pub fn enter(&mut self, hashes: &[u64]) -> (Context, u64) {
        self.clock += 1;
        let mut entries = 0;
        for hash in hashes {
            let segment = self.segments.get_mut(hash).expect("a block that is kept");
            self.idle.remove(&(segment.last_use, *hash));
            if segment.users == 0 {
                self.spare -= segment.blocks;
            }
            segment.users += 1;
            segment.last_use = self.clock;
            entries += segment.entries;
        }
        let last = hashes.last().and_then(|hash| self.segments.get(hash));
        (last.map(|segment| segment.context.clone()).unwrap_or_default(), entries)
    }

    /// A sequence uses them no longer.
    pub fn leave(&mut self, hashes: &[u64]) {
        self.clock += 1;
        for &hash in hashes {
            let segment = self.segments.get_mut(&hash).expect("a block in use is kept");
            segment.users -= 1;
            if segment.users == 0 {
                self.spare += segment.blocks;
            }
            segment.last_use = self.clock;
            if segment.is_idle() {
                self.idle.insert((self.clock, hash));
            }
        }
    }

    /// Takes a block that a sequence has just computed behind `parent`; the sequence uses it from now on. False: it is there
    /// already, or the one before it has gone.
    pub fn keep(
        &mut self,
        hash: u64,
        parent: Option<u64>,
        context: &Context,
        entries: u64,
        blocks: u64,
    ) -> bool {
        if self.segments.contains_key(&hash) {
            return false;
        }
        if let Some(parent) = parent {
            let Some(before) = self.segments.get_mut(&parent) else { return false };
            before.children += 1;
            self.idle.remove(&(before.last_use, parent));
        }
        self.clock += 1;
        let (context, last_use) = (context.clone(), self.clock);
        let segment = Segment { context, entries, blocks, parent, users: 1, children: 0, last_use };
        self.segments.insert(hash, segment);
        true
    }

    /// One block gives way; `None` where all are in use.
    pub fn evict(&mut self) -> Option<Evicted> {
        let (_, hash) = self.idle.pop_first()?;
        let Segment { entries, blocks, parent, .. } =
            self.segments.remove(&hash).expect("an idle block is kept");
        self.spare -= blocks;
        if let Some(parent) = parent {
            let before = self.segments.get_mut(&parent).expect("a block is kept while one behind it is");
            before.children -= 1;
            if before.is_idle() {
                self.idle.insert((before.last_use, parent));
            }
        }
        Some(Evicted { blocks, entries })
    }
}

/// What one sequence has to do with shared prefixes.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    /// Tokens of a prompt block; 0: nothing is shared.
    pub block_tokens: u32,
    /// Blocks that are kept and that it uses, in order, and their entries.
    pub chain: Vec<u64>,
    pub entries: u64,
    /// KV blocks of prompt blocks that are in a pass, and of those that others keep already.
    pub closed: VecDeque<u64>,
    pub private: u64,
    /// Entries that the sequence sees at the end of its last whole prompt block.
    pub seen: u64,
    /// Prompt tokens that did not pass.
    pub cached_tokens: u32,
}

impl Share {
    /// For a request whose prompt is one run; blocks of so many tokens.
    pub fn new(request: &Request, block_tokens: Option<u32>) -> Self {
        let whole = request.runs.first().is_some_and(|run| {
            run.phase == Phase::Prefill
                && run.role == Role::Plain
                && run.routes.len() == request.prompt_tokens
        });
        let block_tokens = block_tokens.filter(|_| whole && !request.prefix.is_empty()).unwrap_or(0);
        Share { block_tokens, ..Share::default() }
    }

    /// Whether there is anything to share.
    pub fn is_some(&self) -> bool {
        self.block_tokens > 0
    }

    /// The blocks that others may have left: all but that of the last token, whose logits are needed.
    pub fn wanted<'a>(&self, request: &'a Request) -> &'a [u64] {
        let whole = (request.prompt_tokens - 1).checked_div(self.block_tokens).unwrap_or(0) as usize;
        &request.prefix[..whole.min(request.prefix.len())]
    }

    /// Tokens of `blocks` blocks.
    pub fn tokens(&self, blocks: usize) -> u32 {
        blocks as u32 * self.block_tokens
    }

    /// How many of the `count` tokens from position `at` of the prompt come before the next border, and whether they reach it.
    pub fn piece(&self, request: &Request, at: u32, count: u32) -> (u32, bool) {
        if at / self.block_tokens >= request.prefix.len() as u32 {
            return (count, false);
        }
        let left = self.block_tokens - at % self.block_tokens;
        (left.min(count), left <= count)
    }

    /// The block that ends at position `at`.
    pub fn hash_before(&self, request: &Request, at: u32) -> u64 {
        request.prefix[(at / self.block_tokens) as usize - 1]
    }

    /// KV blocks that are its own, besides those of its table.
    pub fn blocks(&self) -> u64 {
        self.private + self.closed.iter().sum::<u64>()
    }

    /// From now on it keeps what it computes to itself: these blocks too.
    pub fn close(&mut self, blocks: u64) {
        self.private += blocks + self.closed.drain(..).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Sequences with prefixes out of a small tree come and go; what is kept is what was put in and did not give way.
        #[test]
        fn what_is_kept_is_a_tree_and_adds_up(
            steps in prop::collection::vec((0..3_u64, 0..3_u64, 0..3_u64, any::<bool>()), 1..60), most in 2..8_usize,
        ) {
            let mut prefixes = Prefixes::default();
            let (mut using, mut held, mut entries): (Vec<Vec<u64>>, u64, u64) = (Vec::new(), 0, 0);
            for (a, b, c, leaves) in steps {
                if leaves && !using.is_empty() {
                    prefixes.leave(&using.remove((a % using.len() as u64) as usize));
                } else {
                    // Hashes name the block and all before it.
                    let hashes = [1 + a, 10 + 3 * a + b, 100 + 9 * a + 3 * b + c];
                    let known = prefixes.matching(&hashes);
                    let (context, seen) = prefixes.enter(&hashes[..known]);
                    prop_assert_eq!(context.tokens() as usize, known * 4);
                    prop_assert_eq!(seen, 8 * known as u64);
                    for index in known..hashes.len() {
                        let parent = index.checked_sub(1).map(|before| hashes[before]);
                        let there = Context::dense(4 * (index as u32 + 1), 2);
                        prop_assert!(prefixes.keep(hashes[index], parent, &there, 8, 2));
                        prop_assert!(!prefixes.keep(hashes[index], parent, &there, 8, 2));
                        (held, entries) = (held + 2, entries + 8);
                    }
                    using.push(hashes.to_vec());
                }
                while prefixes.segments.len() > most && let Some(gone) = prefixes.evict() {
                    (held, entries) = (held - gone.blocks, entries - gone.entries);
                }
                prop_assert!(using.iter().all(|hashes| prefixes.matching(hashes) == 3), "what is used stays");
                prop_assert_eq!(held, 2 * prefixes.segments.len() as u64);
                let unused = prefixes.segments.values().filter(|segment| segment.users == 0).count() as u64;
                prop_assert_eq!(prefixes.spare(), 2 * unused);
                let whole = prefixes.segments.values().all(|segment| {
                    segment.parent.is_none_or(|parent| prefixes.segments.contains_key(&parent))
                });
                prop_assert!(whole, "no block without the one before it");
            }
            using.iter().for_each(|hashes| prefixes.leave(hashes));
            while let Some(gone) = prefixes.evict() {
                (held, entries) = (held - gone.blocks, entries - gone.entries);
            }
            prop_assert_eq!((held, entries, prefixes.segments.len()), (0, 0, 0));
        }
    }
}
