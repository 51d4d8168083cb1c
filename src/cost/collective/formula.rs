//! What a collective takes where nobody measured one: steps and bytes.

use crate::hw::{Level, Library, Operation, Way};

/// Reached share of the bandwidth. Assumed; of 512 MiB by NCCL, 2 to 8 devices: H100 .71 to .78 (.99 where the switch adds up), A100 .64 to
/// .74, two L40S .63.
const REACHED: f64 = 0.7;

/// A kernel of NCCL beyond its steps, microseconds: NCCL, src/graph/tuning.cc, baseLat (ring, LL).
const NCCL_START_US: f64 = 6.6;
/// An engine's own kernel beyond its steps. Assumed: two H100 take 2.6 us for 256 bytes in TensorRT-LLM 1.3 and 4.3 in vLLM 0.24.
const OWN_START_US: f64 = 3.0;

/// Steps and bytes of one operation on some devices.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Formula {
    operation: Operation,
    devices: u32,
    /// Ways of an all-reduce by size.
    ways: Vec<(u64, Way)>,
    bytes_per_us: f64,
    latency_us: f64,
}

impl Formula {
    pub(super) fn new(level: &Level, operation: Operation, library: Library, devices: u32) -> Formula {
        let all = level.gb_per_s.value;
        let pair = level.pair_gb_per_s.as_ref().map_or(all, |pair| pair.value);
        let peers = if operation == Operation::SendReceive { 1 } else { devices.max(2) - 1 };
        let ways = match operation {
            Operation::AllReduce => library.ways(level, devices),
            _ => vec![(0, Way::Nccl)],
        };
        let gb_per_s = all.min(pair * f64::from(peers));
        Formula {
            operation,
            devices,
            ways,
            bytes_per_us: 1e3 * gb_per_s * REACHED,
            latency_us: level.latency_us.value,
        }
    }

    /// Microseconds. Where an engine goes another way, a larger message is no faster than the largest before.
    pub(super) fn us(&self, bytes: f64) -> f64 {
        let taken = self.ways.partition_point(|&(from, _)| from as f64 <= bytes).max(1);
        let ends =
            self.ways[1..taken].iter().zip(&self.ways).map(|(&(end, _), &(_, way))| self.by(way, end as f64));
        ends.fold(self.by(self.ways[taken - 1].1, bytes), f64::max)
    }

    fn by(&self, way: Way, bytes: f64) -> f64 {
        let others = f64::from(self.devices - 1);
        let sent = self.operation.sent_share(self.devices) * bytes;
        let time =
            |start: f64, steps: f64, bytes: f64| start + steps * self.latency_us + bytes / self.bytes_per_us;
        match (self.operation, way) {
            (Operation::AllReduce, Way::Nccl) => {
                let deep = f64::from(self.devices.next_power_of_two().ilog2());
                let ring = time(NCCL_START_US, 2.0 * others, sent);
                // Up a tree and down again, everything each time.
                ring.min(time(NCCL_START_US, 2.0 * deep, 2.0 * bytes))
            }
            (Operation::AllReduce, _) => {
                let one_shot = time(OWN_START_US, 1.0, others * bytes);
                one_shot.min(time(OWN_START_US, 2.0, sent))
            }
            (Operation::AllGather | Operation::ReduceScatter, _) => time(NCCL_START_US, others, sent),
            (Operation::AllToAll | Operation::SendReceive, _) => time(NCCL_START_US, 1.0, sent),
        }
    }
}
