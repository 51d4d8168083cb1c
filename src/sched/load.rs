//! What a router in front of several servers may know of one: how many requests are there, and how much of the cache they hold.

use super::{Queueing, Scheduler};
use crate::trace::Request;

/// The load of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait to begin, or to begin again.
    pub waiting: u32,
    /// Requests that run.
    pub running: u32,
    /// Prompt tokens of those that wait to begin.
    pub waiting_tokens: u64,
    /// KV blocks that somebody uses, in tokens that leave an entry at every layer.
    pub held_tokens: u64,
}

impl Load {
    /// Requests that are there.
    pub fn outstanding(&self) -> u32 {
        self.waiting + self.running
    }

    /// The same with so many requests more that wait, of so many prompt tokens.
    pub fn with(self, requests: u32, tokens: u64) -> Load {
        Load { waiting: self.waiting + requests, waiting_tokens: self.waiting_tokens + tokens, ..self }
    }
}

impl Queueing {
    /// The rank of a request: the least is served first.
    pub(super) fn rank(self, request: &Request) -> u32 {
        match self {
            Queueing::Fcfs => 0,
            Queueing::Priority => request.priority,
            Queueing::ShortestPrompt => request.prompt_tokens,
        }
    }
}

impl Scheduler<'_> {
    /// The load now. Blocks that are kept and that nobody uses are no load.
    pub fn load(&self) -> Load {
        let (waiting, running) = self.waiting_and_running();
        let kept = self.prefixes.spare() + self.remnants.spare();
        let of_a_block = self.paging.most_blocks(self.serving.kv_block_tokens.into()).max(1);
        let held_tokens = (self.blocks.held() - kept) * u64::from(self.serving.kv_block_tokens) / of_a_block;
        Load { waiting, running, waiting_tokens: self.waiting_tokens, held_tokens }
    }

    /// The rank of a request among those that wait.
    pub fn rank(&self, request: &Request) -> u32 {
        self.serving.queue.rank(request)
    }

    /// Prompt tokens of a request that need not pass, as others have left their entries here.
    pub fn kept_tokens(&self, request: &Request) -> u32 {
        let Some(block) = self.serving.prefix_block() else { return 0 };
        let share = super::prefix::Share::new(request, Some(block));
        share.tokens(self.prefixes.matching(share.wanted(request)))
    }

    /// Whether a request would begin in the next pass beside `load`: fewer than `max_sequences` are there, their waiting prompts leave some of
    /// the budget, and blocks for its prompt at every layer are free above the watermark. A server that has nobody has room.
    pub fn has_room(&self, load: &Load, request: &Request) -> bool {
        let waiting = load.waiting_tokens + u64::from(request.prompt_tokens);
        load.outstanding() == 0
            || (load.outstanding() < self.serving.max_sequences
                && load.waiting_tokens < u64::from(self.serving.max_batched_tokens)
                && self.paging.most_blocks(waiting) + self.watermark <= self.available())
    }
}
