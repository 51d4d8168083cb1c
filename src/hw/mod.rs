//! What a device can do, and who says so: profile files with a source for every number (`hw-profiles/*.ron`).
//!
//! There is no default for a number and no default source; a profile that leaves one out is refused.

mod adapter;
mod correction;
mod engine;
mod evidence;
mod experts;
mod fabric;
mod forest;
mod load;
mod power_evidence;
mod shared;
mod uneven;
mod usual;

pub use adapter::{AdapterKernel, AdapterKernels};
pub use correction::{Correction, Corrections, Quantising, Waves, Within};
pub use engine::ServingEngine;
pub use evidence::Evidence;
pub use experts::{ExpertConstants, ExpertTimes};
pub use fabric::{
    CallMode, Collectives, Curve, Exchange, ExchangeMode, ExchangePart, Fabric, Level, Library, Loan,
    Operation, Way, Wiring,
};
pub use forest::{Forest, LARGEST_LEAF, MOST_EDGES, Nodes, Tree};
pub use load::Assumption;
pub use power_evidence::{ClockEvidence, PowerEvidence};
pub use shared::Shared;
pub use uneven::Uneven;
pub use usual::{doubt, known_keys, usual};

use crate::units::SourceKind;
use serde::{Deserialize, Serialize};

/// Largest error in percent that evidence may state: of a price that is off by four orders of magnitude nothing follows.
const MOST_PERCENT: f64 = 1e6;

/// A number with its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sourced {
    /// The number, in the unit that its key names.
    pub value: f64,
    /// Who says so.
    pub source: Source,
}

/// Who says so, in words: a document, a table with its version, or the reasoning behind an assumption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Measured on this device.
    Measured(String),
    /// Fitted to measurements.
    Fitted(String),
    /// Published by the vendor.
    Datasheet(String),
    /// An estimate.
    Assumed(String),
}

impl Source {
    /// The kind without the words.
    pub fn kind(&self) -> SourceKind {
        match self {
            Source::Measured(_) => SourceKind::Measured,
            Source::Fitted(_) => SourceKind::Fitted,
            Source::Datasheet(_) => SourceKind::Datasheet,
            Source::Assumed(_) => SourceKind::Assumed,
        }
    }

    /// The words.
    pub fn text(&self) -> &str {
        match self {
            Source::Measured(text)
            | Source::Fitted(text)
            | Source::Datasheet(text)
            | Source::Assumed(text) => text,
        }
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The file's stem: `nvidia-h100-sxm`.
    pub name: String,
    /// In full: `NVIDIA H100 SXM5 80GB`.
    pub title: String,
    /// Arithmetic.
    pub compute: Compute,
    /// Memory.
    pub memory: Memory,
    /// What it costs to start things.
    pub launch: Launch,
    /// Power.
    pub power: Power,
    /// How near kernels of each class come to the peaks.
    pub kernels: Kernels,
    /// Links to other memories.
    pub links: HostLinks,
    /// The sampler of a serving engine; absent: one pass over the logits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// What measured tables add to the constants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrections: Option<Shared<Corrections>>,
    /// Kernels that were measured one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<AdapterKernels>,
    /// How far its peaks, bandwidths and constants of kernels lie from those that `corrections` and `measured` were learned with
    /// ([`Hardware::distance`]); 0 where they are the same. Prices by them are else lent, and count as extrapolated.
    #[serde(skip)]
    pub altered: f64,
}

/// Arithmetic of a device. Peaks are dense (without structured sparsity), at boost clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compute {
    /// Streaming multiprocessors, compute units, cores: what a tile of a kernel occupies.
    pub units: Sourced,
    /// Clock at which the peaks hold.
    pub boost_clock_mhz: Sourced,
    /// The highest clock, where the vendor quotes matrix peaks at a lower one; absent where both are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_clock_mhz: Option<Sourced>,
    /// Units whose tiles share one read of an operand (thread block clusters with multicast); absent where none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast: Option<Sourced>,
    /// Float32 on vector units.
    pub vector_f32_tflops: Sourced,
    /// Float16 and bfloat16 products. On devices without matrix units: what the vector units reach.
    pub matrix_f16_tflops: Sourced,
    /// Float32 products as a float32 model runs them by default (TF32 only where the device's libraries default to it).
    pub matrix_f32_tflops: Sourced,
    /// 8-bit float products; absent where the device has none (weights are then widened to 16 bits).
    pub matrix_fp8_tflops: Option<Sourced>,
    /// 8-bit integer products.
    pub matrix_int8_tops: Option<Sourced>,
    /// 4-bit float products.
    pub matrix_fp4_tflops: Option<Sourced>,
    /// Rows x columns of the output tiles that its matrix kernels come in.
    pub tiles: Vec<(u32, u32)>,
    /// Source of `tiles`.
    pub tiles_source: Source,
    /// Speed-up of a 2:4 sparse product over the dense one, where the device has it (1 where it has none).
    pub two_four_speedup: Sourced,
}

/// Memory of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Capacity that the driver reports to a process, decimal gigabytes: a little less than the chips hold.
    pub capacity_gb: Sourced,
    /// What a serving engine's process holds of it beside weights, activations and KV entries, decimal gigabytes: loaded kernels,
    /// workspaces of libraries, what captured graphs leave. Absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_gb: Option<Sourced>,
    /// Share of the capacity that a serving process can really use (as vLLM's `gpu_memory_utilization`).
    pub usable_fraction: Sourced,
    /// Peak bandwidth of device memory.
    pub dram_gb_per_s: Sourced,
    /// Last cache shared by all units.
    pub l2_mb: Sourced,
    /// Its bandwidth.
    pub l2_gb_per_s: Sourced,
    /// The peak of that bandwidth by width and clock, where `l2_gb_per_s` is an estimate of what is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_peak_gb_per_s: Option<Sourced>,
    /// Parts of it that each keep what their units read, so that shared data take up as many times their room; absent where it is
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l2_parts: Option<Sourced>,
}

/// What it costs to start things.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Host time for one kernel launch; the device runs behind the host.
    pub kernel_us: Sourced,
    /// Host time for launching a captured graph, whatever its size.
    pub graph_us: Sourced,
    /// Device time between two kernels of a captured graph.
    pub graph_gap_us: Sourced,
    /// Device time between two kernels that were launched one by one, beyond that between two of a captured graph; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eager_gap_us: Option<Sourced>,
    /// Device time of a conditional node of a captured graph, whether its body runs or not; absent where there is no such node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditional_us: Option<Sourced>,
    /// From a result on the device to the host having read it.
    pub readback_us: Sourced,
    /// Host time for one routing decision taken on the host.
    pub host_decision_us: Sourced,
    /// Host time a scheduler step (batch assembly, sampling parameters, detokenisation) that does not overlap the device.
    pub step_us: Sourced,
    /// When the device begins.
    #[serde(default, skip_serializing_if = "Submit::is_eager")]
    pub submit: Submit,
}

/// When the device begins with a pass whose kernels the host launches one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submit {
    /// With the first launch: the host runs ahead (CUDA streams).
    #[default]
    Eager,
    /// When all are recorded: they go to the device as one command buffer (WebGPU, Vulkan).
    Recorded,
}

impl Submit {
    fn is_eager(&self) -> bool {
        *self == Submit::Eager
    }
}

/// Power of a device. The constants are effective ones of one software stack, not physics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Board power limit as shipped.
    pub limit_w: Sourced,
    /// Drawn while nothing runs.
    pub idle_w: Sourced,
    /// Drawn while a kernel runs, whatever it does (idle power included).
    pub static_w: Sourced,
    /// For each byte to or from device memory.
    pub pj_per_byte: Sourced,
    /// For each flop of a 16-bit matrix product.
    pub pj_per_flop: Sourced,
    /// For each weight of a product that is kept in fewer bits than its activations have and is widened on the way; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pj_per_widened: Option<Sourced>,
    /// What it draws at other clocks; absent: a general law.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
    /// The measured serving runs that these constants and `launch.step_us` were fitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered: Option<PowerEvidence>,
}

/// Voltage over clock: flat up to a clock, then rising in proportion to its highest at the boost clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// The lowest clock.
    pub lowest_mhz: Sourced,
    /// The highest clock that runs at the lowest voltage.
    pub flat_mhz: Sourced,
    /// The lowest voltage, as a share of that at the boost clock.
    pub flat_voltage: Sourced,
    /// The clock, as a share of the boost clock, at which the core asks for as many bytes as device memory gives; absent: the general one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_knee: Option<Sourced>,
    /// Share of the energy of a byte of device memory that goes with the voltage of the core; absent: the general one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_core_share: Option<Sourced>,
    /// The measured caps and locks that these were fitted to; absent: nobody measured this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<ClockEvidence>,
}

/// Constants of each kernel class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    /// Matrix products.
    pub matmul: Efficiency,
    /// Attention with several query rows of a sequence.
    pub prefill_attention: Efficiency,
    /// Attention with one query row a sequence.
    pub decode_attention: Efficiency,
    /// Norms, rope, activations, residual adds, masks, embedding, sampling.
    pub elementwise: Efficiency,
    /// Rows collected or put back by index.
    pub gather: Efficiency,
}

/// How near the kernels of one class come to the peaks, as four constants: see `docs/COST_MODEL.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Reached share of the peak flops, in (0, 1.5].
    pub flops: Sourced,
    /// Reached share of the peak bandwidth, in (0, 1.5].
    pub bytes: Sourced,
    /// Device time that every kernel takes beyond its work: ramp-up, drain.
    pub fixed_us: Sourced,
    /// Share of the shorter of compute and memory time that hides behind the longer, in [0, 1].
    pub overlap: Sourced,
}

/// Links to other memories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLinks {
    /// To host memory, one direction.
    pub host_gb_per_s: Sourced,
    /// Latency of a copy to or from the host.
    pub host_latency_us: Sourced,
    /// To a peer device, one direction, all links together; absent where there is none.
    pub peer_gb_per_s: Option<Sourced>,
}

/// What the sampler of a serving engine takes beyond one pass over the logits: engines sort them for top-k and top-p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampler {
    /// Device time for each logit, picoseconds.
    pub ps_per_logit: Sourced,
    /// Energy for each logit on top of the static power, picojoules.
    pub pj_per_logit: Sourced,
    /// How wrong the time of a logit may be; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Held>,
}

/// How wrong a fitted constant may be on what its fit has not seen, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Mean without sign.
    pub mean: f64,
    /// Half width of the nominal 90 % interval.
    pub interval: f64,
}

impl Held {
    /// Whether a fit can have them.
    fn is_sound(self) -> bool {
        [self.mean, self.interval].iter().all(|percent| (0.0..=MOST_PERCENT).contains(percent))
    }
}
