//! What was measured of collectives: times by size, and the constants of expert exchange.

use super::{CallMode, Library, Operation};
use crate::hw::{Held, Source};
use serde::{Deserialize, Serialize};

/// What was measured on one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collectives {
    /// Bandwidth of the level that they were measured on: on another, times are lent.
    pub gb_per_s: f64,
    /// The tables.
    pub source: Source,
    /// Times by size.
    pub curves: Vec<Curve>,
    /// Dispatch and combine of experts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<Exchange>,
}

/// Times of one operation by one library, in one mode, on a number of devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// What is done.
    pub operation: Operation,
    /// By whom.
    pub library: Library,
    /// Its version.
    pub version: String,
    /// How it is called.
    pub mode: CallMode,
    /// On how many devices.
    pub devices: u32,
    /// Bytes of the first message that goes another way than smaller ones, by the source of the library; none where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<u64>,
    /// Bytes and microseconds, larger messages never faster.
    pub knots: Vec<(u64, f64)>,
    /// How wrong it is on sizes that were kept aside; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Held>,
    /// How wrong it is when predicted by the curves of other numbers of devices; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<Held>,
}

/// Which of DeepEP's two kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeMode {
    /// A copy of a token for each expert, into buffers of fixed size.
    LowLatency,
    /// A copy of a token for each device, by some units of it.
    Normal,
}

impl ExchangeMode {
    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            ExchangeMode::LowLatency => "low_latency",
            ExchangeMode::Normal => "normal",
        }
    }
}

/// The way there, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangePart {
    /// Tokens to the devices of their experts, in 8-bit floats with a scale for each 128.
    Dispatch,
    /// Results back, in 16 bits.
    Combine,
}

impl ExchangePart {
    /// Its name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            ExchangePart::Dispatch => "dispatch",
            ExchangePart::Combine => "combine",
        }
    }
}

/// Constants of one way of an expert exchange (`docs/COST_DEVICES.md`, "Experts on several devices").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Whose kernels, and their version.
    pub version: String,
    /// Which of them.
    pub mode: ExchangeMode,
    /// Which way.
    pub part: ExchangePart,
    /// Devices it was measured on.
    pub devices: u32,
    /// Of every call.
    pub start_us: f64,
    /// For each expert.
    pub us_per_expert: f64,
    /// For each value of a token.
    pub us_per_value: f64,
    /// For each token of a device, by one unit of it.
    pub us_per_token: f64,
    /// Reached bandwidth at most.
    pub gb_per_s: f64,
    /// Reached bandwidth of each expert (low latency) or unit (normal), so that few of them reach less.
    pub gb_per_s_each: f64,
    /// Least and most tokens of a device among the measured.
    pub tokens: (u32, u32),
    /// How wrong it is on shapes kept aside: hidden width, experts and chosen ones together.
    pub error: Held,
}
