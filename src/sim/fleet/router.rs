//! Which replica a request goes to.

use crate::rng::Stream;
use crate::sim::Server;
use crate::units::SimTime;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Who decides which replica a request goes to, by what. A replica's state is that of the passes that have begun: what its pass in flight
/// leaves, frees or finishes is not known before it is over. Of equal replicas the first behind the one that was chosen last is taken, so
/// that they take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestRouter {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Any, each as likely.
    Random,
    /// The one with the fewest requests, waiting or running.
    LeastOutstanding,
    /// As vLLM between its data-parallel engines: a request that waits counts four times as much as one that runs
    /// (`DPLBAsyncMPClient.get_core_engine_for_request`, `waiting * 4 + running`). There, counts are up to 100 ms old; here, of this instant.
    Vllm,
    /// The one whose KV cache holds the least: entries in use, and the prompts that wait.
    LeastKv,
    /// The one with the least to do for the request: prompt tokens that must pass there, this one's and those that wait, and entries in use. Tokens of the
    /// prompt whose entries the replica keeps need not pass. This is the cost of NVIDIA Dynamo's KV router with its weight of 1 and its temperature
    /// of 0, in tokens (docs.nvidia.com/dynamo, "Routing Concepts"); it knows what is kept, as from KV events.
    Prefix,
    /// None: all wait in one line, and a replica takes the next when it has room for it.
    Queue,
}

impl RequestRouter {
    /// Its name in scenarios and reports.
    pub fn name(self) -> &'static str {
        match self {
            RequestRouter::RoundRobin => "round_robin",
            RequestRouter::Random => "random",
            RequestRouter::LeastOutstanding => "least_outstanding",
            RequestRouter::Vllm => "vllm",
            RequestRouter::LeastKv => "least_kv",
            RequestRouter::Prefix => "prefix",
            RequestRouter::Queue => "queue",
        }
    }

    /// Whether it looks at the replicas.
    pub fn looks(self) -> bool {
        !matches!(self, RequestRouter::RoundRobin | RequestRouter::Random)
    }
}

/// A router at work.
pub(in crate::sim) struct Choice {
    router: RequestRouter,
    stream: Stream,
    /// The replica that is first in line.
    next: usize,
    /// Who waits in the one line: rank, order, arrival and number.
    line: BinaryHeap<Reverse<(u32, u64, SimTime, u32)>>,
    lined_up: u64,
}

impl Choice {
    /// Its draws come from the stream `router` of this seed.
    pub fn new(router: RequestRouter, seed: u64) -> Choice {
        Choice { router, stream: Stream::new(seed, "router"), next: 0, line: BinaryHeap::new(), lined_up: 0 }
    }

    /// The same in front of those that go on with what others began: draws are others.
    pub fn behind(router: RequestRouter, seed: u64) -> Choice {
        Choice { stream: Stream::new(seed, "router of decode"), ..Choice::new(router, seed) }
    }

    /// In front of a server that is alone.
    pub fn alone() -> Choice {
        Choice::new(RequestRouter::RoundRobin, 0)
    }

    /// The replica, among so many, of a router that looks at none.
    pub fn blind(&mut self, count: usize) -> usize {
        let chosen = match self.router {
            RequestRouter::Random => self.stream.below(count as u64) as usize,
            _ => self.next,
        };
        self.next = (chosen + 1) % count;
        chosen
    }

    /// Request number `index` comes at `time`.
    pub fn send(&mut self, replicas: &mut [Server], (time, index): (SimTime, u32)) {
        if let RequestRouter::Queue = self.router {
            let rank = replicas[0].rank(index);
            self.line.push(Reverse((rank, self.lined_up, time, index)));
            self.lined_up += 1;
            return;
        }
        let chosen = match self.router.looks() && replicas.len() > 1 {
            true => self.least(replicas, |replica| cost(self.router, replica, index)),
            false => return replicas[self.blind(replicas.len())].come((time, index)),
        };
        self.next = (chosen + 1) % replicas.len();
        replicas[chosen].come((time, index));
    }

    /// The replicas that form a pass now take from the line, one request after another: the one with the fewest first.
    pub fn hand_out(&mut self, replicas: &mut [Server]) {
        while let Some(&Reverse((_, _, time, index))) = self.line.peek() {
            let room = |replica: &Server| match replica.has_room(index) {
                true => u64::from(replica.load().outstanding()),
                false => u64::MAX,
            };
            let chosen = self.least(replicas, room);
            if room(&replicas[chosen]) == u64::MAX {
                return;
            }
            self.line.pop();
            self.next = (chosen + 1) % replicas.len();
            replicas[chosen].come((time, index));
        }
    }

    /// The first of the least, from the one that is first in line on.
    fn least(&self, replicas: &[Server], cost: impl Fn(&Server) -> u64) -> usize {
        let count = replicas.len();
        let from_next = (0..count).map(|ahead| (self.next + ahead) % count);
        from_next.min_by_key(|&place| cost(&replicas[place])).expect("there are replicas")
    }
}

fn cost(router: RequestRouter, replica: &Server, index: u32) -> u64 {
    let load = replica.load();
    let held = load.waiting_tokens + load.held_tokens;
    match router {
        RequestRouter::LeastOutstanding => load.outstanding().into(),
        RequestRouter::Vllm => 4 * u64::from(load.waiting) + u64::from(load.running),
        RequestRouter::LeastKv => held,
        // What is the same for all replicas, the length of the prompt, is left out: so nothing is below zero.
        RequestRouter::Prefix => held + u64::from(u32::MAX - replica.kept_tokens(index)),
        RequestRouter::RoundRobin | RequestRouter::Random | RequestRouter::Queue => 0,
    }
}
