//! What joins devices, and who says so: fabric files with a source for every number (`hw-profiles/fabrics/*.ron`), and what was
//! measured of collectives on them.
//!
//! A message has one size, by operation: of an all-reduce, the buffer that every device holds; of an all-gather, the whole that each
//! device holds afterwards; of a reduce-scatter, the whole that each holds before; of an all-to-all, what each device holds for all,
//! itself included; of a send, what is sent. So are the sizes of nccl-tests.

mod curves;
mod load;
mod switch;

pub use curves::{Collectives, Curve, Exchange, ExchangeMode, ExchangePart};
pub use switch::Way;

use super::{Held, Source, Sourced};
use serde::{Deserialize, Serialize};

/// What devices do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Everybody gets the sum.
    AllReduce,
    /// Everybody gets what each has.
    AllGather,
    /// Everybody gets a part of the sum.
    ReduceScatter,
    /// Everybody sends a part to each.
    AllToAll,
    /// One sends to another.
    SendReceive,
}

impl Operation {
    /// All, with their names.
    pub const ALL: [(Operation, &'static str); 5] = [
        (Operation::AllReduce, "all_reduce"),
        (Operation::AllGather, "all_gather"),
        (Operation::ReduceScatter, "reduce_scatter"),
        (Operation::AllToAll, "all_to_all"),
        (Operation::SendReceive, "send_receive"),
    ];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        Operation::ALL[self as usize].1
    }

    /// The least that a device sends, as a share of the message: 2 (n - 1) / n of an all-reduce (Patarasuk and Yuan, J. Parallel Distrib.
    /// Comput. 69, 2009), (n - 1) / n of those that do half of it or send each part once.
    pub fn sent_share(self, devices: u32) -> f64 {
        let others = f64::from(devices.max(1) - 1) / f64::from(devices.max(1));
        match self {
            Operation::AllReduce => 2.0 * others,
            Operation::AllGather | Operation::ReduceScatter | Operation::AllToAll => others,
            Operation::SendReceive => 1.0,
        }
    }
}

/// Whose kernels move the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Library {
    /// vLLM's tensor-parallel group: its custom all-reduce, symmetric memory, NCCL, by size.
    Vllm,
    /// TensorRT-LLM's all-reduce, and NCCL beyond its workspace.
    Trtllm,
    /// SGLang's custom all-reduce, and NCCL beyond its buffer.
    Sglang,
    /// NCCL (or RCCL) alone.
    Nccl,
}

impl Library {
    /// All, with their names.
    pub const ALL: [(Library, &'static str); 4] = [
        (Library::Vllm, "vllm"),
        (Library::Trtllm, "trtllm"),
        (Library::Sglang, "sglang"),
        (Library::Nccl, "nccl"),
    ];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        Library::ALL[self as usize].1
    }
}

/// How calls reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallMode {
    /// In a captured graph, or by a host that keeps ahead: device time alone.
    Graph,
    /// One by one from Python, one behind the other: the host's time for a call is in it, where that is the longer, and a copy of the
    /// message that the collector of the shipped tables makes before each call (`input_tensor.clone()`).
    Eager,
}

impl CallMode {
    /// All, with their names.
    pub const ALL: [(CallMode, &'static str); 2] = [(CallMode::Graph, "graph"), (CallMode::Eager, "eager")];

    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        CallMode::ALL[self as usize].1
    }
}

/// What a level is made of: what engines ask before they use kernels of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wiring {
    /// NVLink between all pairs.
    NvLink,
    /// AMD's links between all pairs.
    Xgmi,
    /// PCI Express, devices reaching each other's memory.
    Pcie,
    /// PCI Express, through host memory.
    PcieHost,
    /// A network between machines.
    Network,
}

impl Wiring {
    /// Whether every device has a link of its own to every other, as vLLM's `is_fully_connected` asks.
    pub fn is_fully_connected(self) -> bool {
        matches!(self, Wiring::NvLink | Wiring::Xgmi)
    }

    /// Whether a kernel reads the memory of another device.
    pub fn reaches_memory(self) -> bool {
        !matches!(self, Wiring::PcieHost | Wiring::Network)
    }
}

/// What joins devices, from the inside: devices in a machine, machines in a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fabric {
    /// The file's stem: `nvidia-hgx-h100`. Of several that were joined: their names with `+` between them, from the inside.
    pub name: String,
    /// In full.
    pub title: String,
    /// From the inside.
    pub levels: Vec<Level>,
}

/// One level of a fabric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// What people call it: `NVLink 4 through NVSwitch`.
    pub name: String,
    /// What it is made of.
    pub wiring: Wiring,
    /// How many it joins: devices at the innermost level, else of the level below.
    pub units: Sourced,
    /// Bandwidth of a device, one direction, all its links together.
    pub gb_per_s: Sourced,
    /// Bandwidth between two devices, one direction, where a link to another does not help; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_gb_per_s: Option<Sourced>,
    /// One step of a small message from device to device, within a kernel.
    pub latency_us: Sourced,
    /// CUDA compute capability of the devices it was built for, which engines look up: `(9, 0)`. Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<(u8, u8)>,
    /// The shipped fabric whose measurements stand for those that nobody made here: all of them, or those of other libraries than in `collectives`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<Loan>,
    /// What was measured of collectives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collectives: Option<Collectives>,
    /// What `lent` names, and what its level is; set when the file is read.
    #[serde(skip)]
    pub lender: Option<Box<Level>>,
}

/// Measurements on one fabric that stand for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loan {
    /// The shipped fabric that lends, of which the innermost level counts.
    pub from: String,
    /// How wrong one expects times by the loan to be.
    pub error: Held,
    /// Why.
    pub source: Source,
}
