//! Layers on several devices: what each device did, and what went from one to another.

use super::Ledger;
use super::ratio;
use super::usage::DeviceUse;
use serde::Serialize;

impl Ledger {
    /// Devices, each with its part of the layers, over which the run was placed; 1 where all layers are together. Devices that compute layers
    /// together are one.
    pub fn places(&self) -> u128 {
        self.placed.as_ref().map_or(1, |placed| placed.devices.len() as u128)
    }
}

/// The same, in the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each key")]
pub struct PlacedSummary {
    pub devices: Vec<DeviceSummary>,
    pub crossings_per_token: f64,
    pub states_sent_per_token: f64,
    pub messages: u64,
    pub sent_bytes: f64,
    pub most_in_flight: u32,
}

/// A device of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/METRICS.md defines each key")]
pub struct DeviceSummary {
    pub layers: u32,
    pub weight_bytes: u64,
    pub kv_bytes: u64,
    pub kv_peak_bytes: u64,
    pub load: f64,
    pub held: f64,
    pub busy: f64,
    pub sending: f64,
}

impl PlacedSummary {
    pub(super) fn of(ledger: &Ledger) -> Option<PlacedSummary> {
        let placed = ledger.placed.as_ref()?;
        let tokens = ledger.routed_tokens as f64;
        let (makespan, visits) = (ledger.makespan.ps() as f64, ledger.layer_visits as f64);
        let of = |device: &DeviceUse| DeviceSummary {
            layers: device.layers,
            weight_bytes: device.weights,
            kv_bytes: device.kv_room * ledger.kv.block_bytes,
            kv_peak_bytes: device.kv_peak * ledger.kv.block_bytes,
            load: ratio(device.visits as f64, visits),
            held: ratio(device.held_ps as f64, makespan),
            busy: ratio(device.busy_ps as f64, makespan),
            sending: ratio(device.sending_ps as f64, makespan),
        };
        Some(PlacedSummary {
            devices: placed.devices.iter().map(of).collect(),
            crossings_per_token: ratio(placed.crossings as f64, tokens),
            states_sent_per_token: ratio(placed.states as f64, tokens),
            messages: placed.messages,
            sent_bytes: placed.sent.iter().map(|&bytes| bytes as f64).sum(),
            most_in_flight: placed.most_in_flight,
        })
    }
}
