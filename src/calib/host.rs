//! What the host took for a call, in tables that were measured without captured graphs.
//!
//! Calls are queued, so that a short one is hidden behind the host and its time says nothing about the device; a long one hides the host.

use super::boost::{TreeSettings, grow};
use super::rows::MeasuredCall;
use crate::cost::Device;
use crate::hw::{Forest, Nodes, Shared};
use std::sync::Arc;

/// A row that takes so many times as long as the device needs at its peaks waits for the host. Reached shares of the peaks lie above a
/// fifth but for the smallest calls, which the host hides anyhow.
const HIDDEN: f64 = 6.0;
/// Small trees: the host knows little of a shape.
const SETTINGS: TreeSettings =
    TreeSettings { trees: 120, leaves: 8, rate: 0.2, least_rows: 20, edges: 64, clip: 10.0, middle: true };

/// The host of a table.
pub(super) struct Host {
    /// Logarithm of microseconds.
    pub forest: Shared<Forest>,
    nodes: Arc<Nodes>,
}

/// Learned from the rows that wait for it.
pub(super) fn learn(device: &Device, rows: &[&MeasuredCall]) -> Host {
    let waits = |row: &&&MeasuredCall| row.seconds > HIDDEN * device.at_peaks(&row.kernel).s();
    let (features, targets): (Vec<Vec<f32>>, Vec<f64>) = rows
        .iter()
        .filter(waits)
        .map(|row| (Device::host_features(&row.kernel), libm::log(row.seconds * 1e6)))
        .unzip();
    let forest = Shared::from(grow(&features, &targets, SETTINGS));
    Host { nodes: forest.nodes(), forest }
}

impl Host {
    fn seconds(&self, row: &MeasuredCall) -> f64 {
        libm::exp(self.nodes.predict(&Device::host_features(&row.kernel))) * 1e-6
    }

    /// Whether a row takes longer than the host, so that it shows what the device takes.
    pub fn shows(&self, row: &MeasuredCall) -> bool {
        row.seconds > Device::SHOWN * self.seconds(row)
    }

    /// A row that shows the device as it is; another with what the device says of one scale a tensor, at most what the host takes.
    pub fn supposed(&self, device: &Device, row: &MeasuredCall) -> MeasuredCall {
        if self.shows(row) {
            return row.clone();
        }
        let one_scale = device.price(&row.kernel).time.s();
        MeasuredCall { seconds: one_scale.min(self.seconds(row)), ..row.clone() }
    }
}
