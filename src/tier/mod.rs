//! Layers that do not all fit device memory: which of them are there, and over which link the others come.
//!
//! Knows no clock: [`Residency`] is told which layers run next and says what must be fetched; `lower` makes calls of it and
//! `cost` prices them. Definitions and what is modelled: `docs/TIERS.md`.

mod expected_visits;
mod residency;

pub use residency::{Fetches, Residency};

use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::units::SimTime;
use serde::{Deserialize, Serialize};

/// How a pool that is larger than device memory is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    /// How layers come.
    pub link: HostLink,
    /// Layers that are in device memory at a time, pinned ones included.
    pub resident: u32,
    /// Which of them gives way.
    pub policy: Eviction,
    /// Layers that never give way.
    #[serde(default)]
    pub pinned: Vec<u16>,
    /// Layers that are fetched before a token asks for them.
    #[serde(default)]
    pub prefetch: Prefetch,
}

/// How layers come to the device: rates are of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostLink {
    /// As the profile's `links.host_gb_per_s` and `links.host_latency_us` say.
    Profile,
    /// PCIe 4.0, 16 lanes of 16 GT/s: 28.8 GB/s (the formula is in `pcie`).
    Pcie4,
    /// PCIe 5.0, 16 lanes of 32 GT/s: 57.6 GB/s.
    Pcie5,
    /// NVLink-C2C of Grace Hopper: 900 GB/s both directions together (NVIDIA Grace Hopper Superchip Architecture whitepaper,
    /// 2022), so 450 one way. A peak: nothing is taken off for protocol.
    NvlinkC2c,
    /// Any other: an NVMe drive, a network.
    Rate {
        /// Gigabytes (10^9) a second.
        gb_per_s: f64,
        /// From the request to the first byte, microseconds.
        latency_us: f64,
    },
}

/// Which layer gives way to one that is fetched. Of equals, the one that was used longest ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Eviction {
    /// The one that was used longest ago.
    Lru,
    /// The one that was used least often since the start of the run.
    Lfu,
    /// The one least likely to be visited soon after the layers that run now, by the transitions of the trace.
    Transitions,
}

/// Which layers are fetched while another runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefetch {
    /// None: a layer is fetched when it is asked for.
    #[default]
    Off,
    /// The next so many layers in the order of the pool, the first behind the last.
    Next(u16),
    /// The so many layers most likely to be visited soon, by the transitions of the trace.
    Predicted(u16),
}

/// Gigabytes a second of 16 lanes that carry `gigatransfers` a second each, 128 of 130 bits of them data (PCI Express Base
/// Specification 4.0 and 5.0), in packets of 256 bytes of payload with 24 bytes of header, framing and checksum (4 + 16 + 4, 64-bit addresses).
fn pcie(gigatransfers: f64) -> f64 {
    16.0 * gigatransfers / 8.0 * (128.0 / 130.0) * (256.0 / 280.0)
}

impl HostLink {
    /// Bytes a second and latency on this device.
    pub fn rate(&self, hardware: &Hardware) -> (f64, SimTime) {
        let host = hardware.links.host_latency_us.value;
        let (gb_per_s, latency_us) = match *self {
            HostLink::Profile => (hardware.links.host_gb_per_s.value, host),
            HostLink::Pcie4 => (pcie(16.0), host),
            HostLink::Pcie5 => (pcie(32.0), host),
            HostLink::NvlinkC2c => (450.0, host),
            HostLink::Rate { gb_per_s, latency_us } => (gb_per_s, latency_us),
        };
        (gb_per_s * 1e9, SimTime::from_us(latency_us))
    }
}

impl Prefetch {
    fn count(self) -> u16 {
        match self {
            Prefetch::Off => 0,
            Prefetch::Next(count) | Prefetch::Predicted(count) => count,
        }
    }
}

/// Layers of a pool up to which transitions are followed: each layer that occurs keeps a number for every other.
const MOST_FOLLOWED: u32 = 4096;

impl Tiers {
    /// For a pool of `layers`.
    ///
    /// # Errors
    /// A number out of its range, with its key.
    pub fn check(&self, layers: u32) -> Result<()> {
        let bad = |key: &str, found: String, expected: String| {
            Err(InputError::expected(expected).key(format!("tiers.{key}")).found(found).into())
        };
        if !(1..=layers).contains(&self.resident) {
            return bad(
                "resident",
                self.resident.to_string(),
                format!("1 to {layers} layers, those of the pool"),
            );
        }
        let mut pinned = self.pinned.clone();
        pinned.sort_unstable();
        pinned.dedup();
        if pinned.len() < self.pinned.len() || pinned.iter().any(|&layer| u32::from(layer) >= layers) {
            let found = format!("{:?}", self.pinned);
            return bad("pinned", found, format!("different layers below {layers}"));
        }
        if pinned.len() as u32 >= self.resident && self.resident < layers {
            let expected = format!("fewer than resident = {}, so that others can come", self.resident);
            return bad("pinned", format!("{} layers", pinned.len()), expected);
        }
        if u32::from(self.prefetch.count()) >= layers.max(2) {
            let found = self.prefetch.count().to_string();
            return bad("prefetch", found, format!("fewer layers than the pool of {layers} has"));
        }
        if self.follows() && layers > MOST_FOLLOWED {
            return bad(
                "policy",
                "transitions".into(),
                format!("a pool of at most {MOST_FOLLOWED} layers for it"),
            );
        }
        if let HostLink::Rate { gb_per_s, latency_us } = self.link {
            if !(1e-3..=1e6).contains(&gb_per_s) {
                return bad("link.gb_per_s", gb_per_s.to_string(), "0.001 to 1e6 gigabytes a second".into());
            }
            if !(0.0..=1e6).contains(&latency_us) {
                return bad("link.latency_us", latency_us.to_string(), "0 to 1e6 microseconds".into());
            }
        }
        Ok(())
    }

    /// Whether the transitions of the trace matter.
    fn follows(&self) -> bool {
        self.policy == Eviction::Transitions || matches!(self.prefetch, Prefetch::Predicted(_))
    }
}
