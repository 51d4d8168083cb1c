//! Which way an engine sends an all-reduce, by its size: facts of the engines' sources.

use super::{Level, Library, Wiring};
use serde::{Deserialize, Serialize};

/// By which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The engine's own kernel: each device reads the memory of all others.
    Custom,
    /// PyTorch's symmetric memory: the switch adds up (multimem), or each device a part.
    Symmetric,
    /// NCCL.
    Nccl,
}

impl Way {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Way::Custom => "custom",
            Way::Symmetric => "symmetric memory",
            Way::Nccl => "NCCL",
        }
    }
}

const MIB: u64 = 1 << 20;

/// vLLM, `CustomAllreduce.__init__`: `max_size=8192 * 1024`, which the table below lowers and never raises (`min`), and `should_custom_ar`
/// asks `inp_size < max_size` (vllm/distributed/device_communicators/custom_all_reduce.py, commit 00d618a). Times of vLLM 0.24 on H100
/// jump at 8 MiB with 2 and 4 devices, and eager ones with 8 at 256 KiB, as this says.
const VLLM_BUFFER: u64 = 8 * MIB;

/// vLLM, `CustomAllreduce._SUPPORTED_WORLD_SIZES` (the same file).
const VLLM_DEVICES: [u32; 4] = [2, 4, 6, 8];

/// vLLM, `CUSTOM_ALL_REDUCE_MAX_SIZES` and `SYMM_MEM_ALL_REDUCE_MAX_SIZES`: bytes at 2, 4, 6, 8 devices by compute capability, the custom
/// kernel's first (vllm/distributed/device_communicators/all_reduce_utils.py, commit 00d618a). `VLLM_ALLREDUCE_USE_SYMM_MEM` is 1 unless set;
/// symmetric memory asks `inp_size <= max_size` and bfloat16 (symm_mem.py). Before 0.19 the tables show no symmetric memory.
const VLLM_LIMITS: [Limits; 3] = [
    Limits {
        capability: (9, 0),
        custom: [64 * MIB, 32 * MIB, MIB / 2, MIB / 4],
        symmetric: [64 * MIB, 32 * MIB, 64 * MIB, 64 * MIB],
    },
    Limits {
        capability: (10, 0),
        custom: [2 * MIB, 2 * MIB, MIB, MIB],
        symmetric: [8 * MIB, 32 * MIB, 128 * MIB, 128 * MIB],
    },
    Limits {
        capability: (10, 3),
        custom: [4 * MIB, 4 * MIB, 8 * MIB, 4 * MIB],
        symmetric: [4 * MIB, 32 * MIB, 32 * MIB, 64 * MIB],
    },
];

struct Limits {
    capability: (u8, u8),
    custom: [u64; 4],
    symmetric: [u64; 4],
}

/// TensorRT-LLM, `getMaxRequiredWorkspaceSize`: bytes at 2 devices and at more; `ifFallbackToNCCL` takes NCCL beyond, and where devices have no
/// NVLink or cannot reach each other's memory (cpp/tensorrt_llm/common/customAllReduceUtils.h, cpp/tensorrt_llm/thop/allreduceOp.cpp, 1.x).
/// Within, a table over tokens and width chooses one-shot or two-shot, which the size alone does not tell.
const TRTLLM_WORKSPACE: [u64; 2] = [16_000_000, 8_000_000];

impl Library {
    /// The ways of an all-reduce by size, each with the first byte count that takes it, rising; the first begins at 0. All other operations go
    /// to NCCL.
    pub fn ways(self, level: &Level, devices: u32) -> Vec<(u64, Way)> {
        match self {
            Library::Vllm => vllm(level, devices),
            Library::Trtllm if level.wiring == Wiring::NvLink => {
                let workspace = TRTLLM_WORKSPACE[usize::from(devices > 2)];
                vec![(0, Way::Custom), (workspace + 1, Way::Nccl)]
            }
            // The size of its buffer depends on its version; its times show where it ends.
            Library::Sglang if level.wiring.reaches_memory() => vec![(0, Way::Custom)],
            _ => vec![(0, Way::Nccl)],
        }
    }
}

fn vllm(level: &Level, devices: u32) -> Vec<(u64, Way)> {
    let place = VLLM_DEVICES.iter().position(|known| *known == devices);
    let limits = VLLM_LIMITS.iter().find(|limits| Some(limits.capability) == level.capability);
    let limits = place.and_then(|place| limits.map(|limits| (limits.custom[place], limits.symmetric[place])));
    // More than two devices need a link between all pairs.
    let own = level.wiring.reaches_memory()
        && place.is_some()
        && (devices == 2 || level.wiring.is_fully_connected());
    let custom = if own { limits.map_or(VLLM_BUFFER, |(custom, _)| custom.min(VLLM_BUFFER)) } else { 0 };
    // The kernel of symmetric memory needs the switch's multicast.
    let symmetric =
        limits.filter(|_| level.wiring == Wiring::NvLink).map_or(0, |(_, symmetric)| symmetric + 1);
    let mut ways = Vec::new();
    if custom > 0 {
        ways.push((0, Way::Custom));
    }
    if symmetric > custom {
        ways.push((custom, Way::Symmetric));
    }
    ways.push((custom.max(symmetric), Way::Nccl));
    ways
}
