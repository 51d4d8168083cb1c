//! Quantities that cannot be confused: simulated time, number formats, and where a number comes from.
//!
//! Time is an integer count of picoseconds, so that sums are exact, order is total, and a run is the same on
//! every machine. Bytes and flops of one kernel are `u64`; running totals are `u128` (see [`Work`]), because
//! 405 billion parameters times ten million tokens overflow 64 bits of flops.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Picoseconds in a second.
pub const PS_PER_S: u64 = 1_000_000_000_000;

/// A point in simulated time, or a length of it: picoseconds since the start of the run (at most 213 days).
///
/// A sum that goes beyond becomes [`SimTime::MAX`] and stays there; who runs a clock ends the run when it reads that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimTime(u64);

impl SimTime {
    /// The start of the run; also the empty duration.
    pub const ZERO: SimTime = SimTime(0);
    /// Later than every event: what a time that 64 bits cannot count becomes.
    pub const MAX: SimTime = SimTime(u64::MAX);

    /// `ps` picoseconds.
    pub const fn from_ps(ps: u64) -> Self {
        SimTime(ps)
    }

    /// Seconds, rounded to the nearest picosecond. Negative, NaN and out-of-range values saturate.
    pub fn from_s(s: f64) -> Self {
        // `as` saturates and maps NaN to 0; inputs are checked where they are read.
        SimTime((s * PS_PER_S as f64 + 0.5) as u64)
    }

    /// Microseconds, rounded to the nearest picosecond.
    pub fn from_us(us: f64) -> Self {
        SimTime::from_s(us * 1e-6)
    }

    /// The time in which `amount` units pass at `per_second`, rounded up: never faster than the rate.
    ///
    /// Exact (no float) when `per_second` is a whole number below 2^53.
    pub fn at_rate(amount: u64, per_second: f64) -> Self {
        if amount == 0 {
            return SimTime::ZERO;
        }
        let whole = per_second as u64;
        if (1.0..9.0e15).contains(&per_second) && per_second == whole as f64 {
            let ps = (u128::from(amount) * u128::from(PS_PER_S)).div_ceil(whole.into());
            return SimTime(u64::try_from(ps).unwrap_or(u64::MAX));
        }
        SimTime((amount as f64 / per_second * PS_PER_S as f64).ceil() as u64)
    }

    /// Picoseconds.
    pub const fn ps(self) -> u64 {
        self.0
    }

    /// Seconds.
    pub fn s(self) -> f64 {
        self.0 as f64 / PS_PER_S as f64
    }

    /// Microseconds.
    pub fn us(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// `self`, so many times.
    pub const fn times(self, count: u64) -> SimTime {
        SimTime(self.0.saturating_mul(count))
    }

    /// `self - other`, or zero where `other` is later.
    pub fn saturating_sub(self, other: SimTime) -> SimTime {
        SimTime(self.0.saturating_sub(other.0))
    }
}

impl Add for SimTime {
    type Output = SimTime;
    fn add(self, other: SimTime) -> SimTime {
        SimTime(self.0.saturating_add(other.0))
    }
}

impl AddAssign for SimTime {
    fn add_assign(&mut self, other: SimTime) {
        *self = *self + other;
    }
}

impl Sub for SimTime {
    type Output = SimTime;
    fn sub(self, other: SimTime) -> SimTime {
        SimTime(self.0.checked_sub(other.0).expect("a duration is not negative"))
    }
}

impl std::iter::Sum for SimTime {
    fn sum<I: Iterator<Item = SimTime>>(times: I) -> SimTime {
        times.fold(SimTime::ZERO, Add::add)
    }
}

/// Prints with the unit that keeps three to six significant digits: `1.25 ms`.
impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ps = self.0 as f64;
        let (value, unit) = match self.0 {
            0..1_000_000 => (ps / 1e3, "ns"),
            1_000_000..1_000_000_000 => (ps / 1e6, "us"),
            1_000_000_000..1_000_000_000_000 => (ps / 1e9, "ms"),
            _ => (ps / 1e12, "s"),
        };
        write!(f, "{value:.3} {unit}")
    }
}

/// Totals over many kernels: exact integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: u128,
    /// Bytes read from and written to device memory (DRAM).
    pub bytes: u128,
    /// Kernels started.
    pub kernels: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.kernels += other.kernels;
    }
}

/// A number format of weights, activations or KV entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8-bit float (E4M3 or E5M2).
    Fp8,
    /// 8-bit integer; one float16 scale for each block of 32 (as Q8_0).
    Int8,
    /// 4-bit float (E2M1); one 8-bit scale for each block of 16 (as NVFP4).
    Fp4,
    /// 4-bit integer; float16 scale and minimum for each block of 32 (as Q4_1).
    Int4,
    /// 8-bit float; one 32-bit scale for each block of 128 x 128 (DeepSeek-V3, arXiv 2412.19437, section 3.3).
    #[serde(rename = "fp8_block")]
    Fp8Block,
    /// 8-bit integer with one scale a channel, whose bytes are not counted.
    #[serde(rename = "int8_channel")]
    Int8Channel,
    /// 4-bit float (E2M1); one 8-bit exponent for each block of 32 (OCP Microscaling Formats 1.0).
    Mxfp4,
    /// 4 bits of a table; one 32-bit scale for each block of 64 (Dettmers et al., QLoRA, arXiv 2305.14314).
    Nf4,
    /// 4-bit integer; float16 scale and 4-bit zero point for each 32 (GPTQ, AWQ).
    #[serde(rename = "int4_g32")]
    Int4G32,
    /// The same for each 64.
    #[serde(rename = "int4_g64")]
    Int4G64,
    /// The same for each 128.
    #[serde(rename = "int4_g128")]
    Int4G128,
    /// 4-bit integer with one scale a channel, whose bytes are not counted.
    #[serde(rename = "int4_channel")]
    Int4Channel,
}

impl Dtype {
    /// All formats, widest first.
    pub const ALL: [Dtype; 15] = [
        Dtype::F32,
        Dtype::F16,
        Dtype::Bf16,
        Dtype::Int8,
        Dtype::Fp8Block,
        Dtype::Fp8,
        Dtype::Int8Channel,
        Dtype::Int4,
        Dtype::Int4G32,
        Dtype::Fp4,
        Dtype::Nf4,
        Dtype::Int4G64,
        Dtype::Mxfp4,
        Dtype::Int4G128,
        Dtype::Int4Channel,
    ];

    /// Bits that `block` values take with their scales: (bits, values in a block).
    const fn block(self) -> (u64, u64) {
        match self {
            Dtype::F32 => (32, 1),
            Dtype::F16 | Dtype::Bf16 => (16, 1),
            Dtype::Fp8 => (8, 1),
            Dtype::Int8 => (32 * 8 + 16, 32),
            Dtype::Fp4 => (16 * 4 + 8, 16),
            Dtype::Int4 => (32 * 4 + 32, 32),
            Dtype::Fp8Block => (128 * 128 * 8 + 32, 128 * 128),
            Dtype::Int8Channel => (8, 1),
            Dtype::Mxfp4 => (32 * 4 + 8, 32),
            Dtype::Nf4 => (64 * 4 + 32, 64),
            Dtype::Int4G32 => (32 * 4 + 20, 32),
            Dtype::Int4G64 => (64 * 4 + 20, 64),
            Dtype::Int4G128 => (128 * 4 + 20, 128),
            Dtype::Int4Channel => (2 * 4, 2),
        }
    }

    /// The plain format that a device computes with when it is given this one: what profiles have constants for.
    pub const fn plain(self) -> Dtype {
        match self {
            Dtype::Fp8Block => Dtype::Fp8,
            Dtype::Int8Channel => Dtype::Int8,
            Dtype::Mxfp4 | Dtype::Nf4 => Dtype::Fp4,
            Dtype::Int4G32 | Dtype::Int4G64 | Dtype::Int4G128 | Dtype::Int4Channel => Dtype::Int4,
            other => other,
        }
    }

    /// Bytes that `count` values take, scales included, rounded up to whole bytes; at most what 64 bits count.
    pub const fn bytes(self, count: u64) -> u64 {
        let (bits, values) = self.block();
        if values == 1 {
            return count.saturating_mul(bits / 8);
        }
        // Whole blocks apart, so that no product overflows where the bytes fit.
        let rest = ((count % values) * bits).div_ceil(values);
        match (count / values).checked_mul(bits) {
            Some(whole) => whole.saturating_add(rest).div_ceil(8),
            None => u64::MAX,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::Fp8 => "fp8",
            Dtype::Int8 => "int8",
            Dtype::Fp4 => "fp4",
            Dtype::Int4 => "int4",
            Dtype::Fp8Block => "fp8_block",
            Dtype::Int8Channel => "int8_channel",
            Dtype::Mxfp4 => "mxfp4",
            Dtype::Nf4 => "nf4",
            Dtype::Int4G32 => "int4_g32",
            Dtype::Int4G64 => "int4_g64",
            Dtype::Int4G128 => "int4_g128",
            Dtype::Int4Channel => "int4_channel",
        })
    }
}

/// Where a number comes from, most trustworthy first. There is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SourceKind {
    /// Measured on the device it is used for.
    Measured,
    /// Fitted to measurements; carries a residual.
    Fitted,
    /// Published by the vendor.
    Datasheet,
    /// Learned on a related device, scaled by the datasheets of both.
    Transferred,
    /// Fitted, but for other shapes or formats than this one.
    Extrapolated,
    /// Nobody measured it: an estimate that every report lists at its foot.
    Assumed,
}

impl SourceKind {
    /// From the most to the least trustworthy.
    pub const ALL: [SourceKind; 6] = [
        SourceKind::Measured,
        SourceKind::Fitted,
        SourceKind::Datasheet,
        SourceKind::Transferred,
        SourceKind::Extrapolated,
        SourceKind::Assumed,
    ];

    /// What a result made of two numbers can claim: the weaker of both.
    pub fn join(self, other: SourceKind) -> SourceKind {
        self.max(other)
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            SourceKind::Measured => "measured",
            SourceKind::Fitted => "fitted",
            SourceKind::Datasheet => "datasheet",
            SourceKind::Transferred => "transferred",
            SourceKind::Extrapolated => "extrapolated",
            SourceKind::Assumed => "assumed",
        })
    }
}
