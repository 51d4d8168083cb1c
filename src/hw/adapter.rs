//! Kernels that were measured one by one on a device, as a profile keeps them.

use super::Evidence;
use crate::error::InputError;
use crate::kernel::{Class, KINDS};
use crate::units::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `radialsim calibrate` found of the executor's kernels; it counts in place of their classes' constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterKernels {
    /// Adapter, driver, processor, settings.
    pub environment: String,
    /// Quartile spread of repeated times, in percent: what no model can explain.
    pub noise_percent: f64,
    /// One for each kernel, of products one for each format of weights and each tile.
    pub kernels: Vec<AdapterKernel>,
}

/// A kernel's time as a sum of terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterKernel {
    /// Its name, as in timelines.
    pub name: String,
    /// Format of the weights of products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Dtype>,
    /// Rows and columns of the tiles of products; rows of the tiles of attention, and lanes of a subgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<(u32, u32)>,
    /// Nanoseconds of each term; [`crate::kernel::terms`] says what the terms count.
    pub ns: BTreeMap<String, f64>,
    /// Least and largest value of each term among the fitted rows.
    pub range: BTreeMap<String, (f64, f64)>,
    /// What was fitted and what kept aside.
    pub evidence: Evidence,
}

/// Kernels at most.
const MOST_KERNELS: usize = 256;

impl AdapterKernels {
    pub(super) fn check(&self) -> Result<(), InputError> {
        let wrong =
            |key: &str, expected: &str| Err(InputError::expected(expected).key(format!("measured.{key}")));
        if self.kernels.len() > MOST_KERNELS {
            return wrong("kernels", "at most 256 kernels");
        }
        if !(self.noise_percent.is_finite() && self.noise_percent >= 0.0) {
            return wrong("noise_percent", "a share in percent");
        }
        for kernel in &self.kernels {
            let Some((_, class, names)) = KINDS.iter().find(|(name, ..)| *name == kernel.name) else {
                return wrong("kernels.name", &format!("one of {}", KINDS.map(|(name, ..)| name).join(", ")));
            };
            let tiled = *class != Class::Elementwise && *class != Class::Gather && kernel.name != "router";
            if (kernel.name == "matmul") != kernel.weights.is_some() || tiled != kernel.tile.is_some() {
                return wrong(
                    "kernels.tile",
                    "`weights` for products; `tile` for products and attention, and for these alone",
                );
            }
            if !kernel.ns.iter().all(|(name, ns)| names.contains(&name.as_str()) && (0.0..1e12).contains(ns))
            {
                return wrong("kernels.ns", &format!("nanoseconds of at least 0 for {}", names.join(", ")));
            }
            if !kernel
                .range
                .values()
                .all(|(least, most)| least.is_finite() && least <= most && most.is_finite())
            {
                return wrong("kernels.range", "finite bounds, the lower first");
            }
            if kernel.tile.is_some_and(|(rows, columns)| rows == 0 || columns == 0) {
                return wrong("kernels.tile", "rows and columns above 0");
            }
            if !kernel.evidence.is_sound() {
                return wrong("kernels.evidence", "finite errors");
            }
        }
        Ok(())
    }
}
