//! Runs that cannot be counted: time, work or energy beyond 64 bits, and the setting that is most likely at fault.

use super::Setup;
use crate::error::{Error, InputError};
use crate::hw::usual;
use crate::lower::Overfull;
use crate::tier::HostLink;

/// What a run went beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// The next request comes after the end of simulated time.
    Arrival,
    /// All passes together take longer than simulated time.
    Run,
    /// One pass alone, as it runs or as it would run dense, takes longer, more work or more energy.
    Pass,
    /// A device with some of the layers, whose KV blocks are fewer than its layers need.
    Kv { device: u32, needed: u64, room: u64 },
    /// A layer that more tokens take than `dispatch.decisions: capacity` has room for.
    Capacity(Overfull),
}

/// What comes back where a run can go beyond.
pub(super) type Within<T> = std::result::Result<T, Beyond>;

/// From this factor on a number is at fault rather than the workload.
const ODD: f64 = 3.0;

/// A setting that makes a run longer or hotter than usual, and by what factor.
struct Suspect {
    key: String,
    found: f64,
    factor: f64,
    usual: String,
}

impl Beyond {
    /// The error that a run ends with.
    pub fn error(self, setup: &Setup) -> Error {
        let bound = match self {
            Beyond::Capacity(Overfull { layer, rows, room, tokens }) => {
                let expected = format!(
                    "routes that keep the capacity: in a pass of {tokens} tokens a layer takes {room} of them; a larger share, or another \
                     choice"
                );
                let found = format!("{rows} tokens at layer {layer}");
                return InputError::expected(expected).key("dispatch.decisions.capacity").found(found).into();
            }
            Beyond::Kv { device, needed, room } => {
                let expected = format!(
                    "at most {room} KV blocks at the layers of device {device}, which routes take more often than those of others: another placement, \
                     fewer sequences at once, or fewer serving.kv_blocks"
                );
                return InputError::expected(expected).key("parallel.placement").found(needed).into();
            }
            Beyond::Arrival => "arrivals within the 213 days of simulated time",
            Beyond::Run => "a run within the 213 days of simulated time",
            Beyond::Pass => {
                "passes within the 213 days of simulated time, 9 megajoules, and 1.8e19 flops and bytes a kernel"
            }
        };
        let suspect = suspects(setup).into_iter().max_by(|a, b| a.factor.total_cmp(&b.factor));
        match suspect.filter(|suspect| suspect.factor >= ODD && self != Beyond::Arrival) {
            Some(Suspect { key, found, usual, .. }) => {
                InputError::expected(format!("{bound}; {usual}")).key(key).found(found).into()
            }
            None => {
                let expected = format!("{bound}: fewer, shorter or earlier requests, or a smaller model");
                InputError::expected(expected).key("workload").into()
            }
        }
    }
}

fn suspects(setup: &Setup) -> Vec<Suspect> {
    let (hardware, limits) = (&setup.hardware, &setup.limits);
    let devices = |(least, most): (f64, f64)| format!("known devices have {least} to {most} here");
    let mut suspects = Vec::new();
    if let Some((key, found, range, factor)) = hardware.strangest() {
        suspects.push(Suspect { key: format!("hardware.{key}"), found, factor, usual: devices(range) });
    }
    let power = &hardware.power;
    if let Some(cap) = limits.power_w {
        let (static_w, limit_w) = (power.static_w.value, power.limit_w.value);
        let usual = format!("kernels have what is above the static power of {static_w} W");
        let factor = (limit_w - static_w) / (cap - static_w);
        suspects.push(Suspect { key: "limits.power_w".into(), found: cap, factor, usual });
    }
    if let Some(clock) = limits.clock_mhz {
        let boost = hardware.compute.boost_clock_mhz.value;
        let usual = format!("the device runs at up to {boost} MHz");
        suspects.push(Suspect { key: "limits.clock_mhz".into(), found: clock, factor: boost / clock, usual });
    }
    let link = setup.tiers.as_ref().map(|tiers| tiers.link);
    if let (Some(HostLink::Rate { gb_per_s, .. }), Some(range)) = (link, usual("links.host_gb_per_s")) {
        let (key, usual) = ("tiers.link.gb_per_s".into(), devices(range));
        suspects.push(Suspect { key, found: gb_per_s, factor: range.0 / gb_per_s, usual });
    }
    suspects
}
