//! What each device and each engine of a run did.

use crate::units::SimTime;
use serde::Serialize;

/// What a device (or the devices that compute its layers together) did in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// Layers of the pool that it has.
    pub layers: u32,
    /// Bytes of weights, its part of them where several devices compute its layers together.
    pub weights: u64,
    /// KV blocks that fit beside them.
    pub kv_room: u64,
    /// Most KV blocks held at once.
    pub kv_peak: u64,
    /// Picoseconds in which it had some of a pass, its host's launches included.
    pub held_ps: u128,
    /// Picoseconds of kernels.
    pub busy_ps: u128,
    /// Visits of its layers by tokens.
    pub visits: u64,
    /// Picoseconds in which it sent.
    pub sending_ps: u128,
}

/// What became of the layers of a run on several devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedUse {
    /// By device.
    pub devices: Vec<DeviceUse>,
    /// Bytes from each device to each other: row by row, the sender's.
    pub sent: Vec<u64>,
    /// Messages.
    pub messages: u64,
    /// States of tokens in them: also those from the embedding, to the head, and to layers that keep something of a token that skips them.
    pub states: u64,
    /// Moves of tokens between two layers on different devices.
    pub crossings: u64,
    /// Most passes in flight at once.
    pub most_in_flight: u32,
}

impl PlacedUse {
    /// A message of `bytes` with so many states that took `time_ps`.
    pub fn send(&mut self, (from, to): (u32, u32), bytes: u64, states: u32, time_ps: u64) {
        let count = self.devices.len();
        self.sent[from as usize * count + to as usize] += bytes;
        self.devices[from as usize].sending_ps += u128::from(time_ps);
        self.messages += 1;
        self.states += u64::from(states);
    }
}

/// What of a request an engine does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineRole {
    /// All of it.
    #[default]
    Replica,
    /// The prompt, up to the first token.
    Prefill,
    /// All tokens behind the first.
    Decode,
}

impl EngineRole {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            EngineRole::Replica => "replica",
            EngineRole::Prefill => "prefill",
            EngineRole::Decode => "decode",
        }
    }
}

/// What an engine waits for others that its experts' rows come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundUse {
    /// Rounds in which it had nothing to run while others had.
    pub dummy_passes: u64,
    /// Time from the end of its own passes to that of the slowest, picoseconds.
    pub waited_ps: u128,
}

/// What one of several engines did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaUse {
    /// What of a request it does.
    pub part: EngineRole,
    /// Requests that ended there.
    pub requests: u64,
    /// Prompt tokens that passed.
    pub prompt_tokens: u64,
    /// Output tokens that came out.
    pub output_tokens: u64,
    /// Time with a pass in flight, picoseconds.
    pub pass_ps: u128,
    /// Device time of all kernels, picoseconds.
    pub busy_ps: u128,
    /// End of the last pass.
    pub last: SimTime,
    /// Most KV blocks held at once.
    pub peak_blocks: u64,
    /// KV entries that went to other engines or came from them.
    pub handover: Handover,
    /// What it waited for others that share its experts.
    pub rounds: Option<RoundUse>,
}

/// KV entries between an engine that passes prompts and one that generates; of one device of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Requests whose entries came.
    pub requests: u64,
    /// Bytes that went.
    pub sent_bytes: u128,
    /// Bytes that came.
    pub received_bytes: u128,
    /// Time that they took on the link, picoseconds.
    pub link_ps: u128,
    /// Time that they waited for the link once there were places for them, picoseconds.
    pub waited_ps: u128,
}
