//! Times of whole expert layers: a formula of bytes, blocks and waves, and what trees learned beside it (`docs/COST_DEVICES.md`, "Expert
//! layers").

use super::{Device, EXTRAPOLATED, Learned, PriceError};
use crate::hw::{ExpertConstants, Hardware, Nodes};
use crate::kernel::{EXPERT_BLOCKS, ExpertLayer, ExpertLoad};
use crate::units::{Dtype, SimTime, SourceKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Columns of an output tile of grouped products: those of vLLM's tuned configurations and of CUTLASS's, mostly.
const TILE_COLUMNS: f64 = 128.0;

/// What is known of expert layers, by format.
#[derive(Clone, Debug, Default)]
pub(super) struct ExpertTimes {
    known: Arc<[Known]>,
}

#[derive(Clone, Debug)]
struct Known {
    format: Dtype,
    constants: ExpertConstants,
    nodes: Arc<Nodes>,
    range: BTreeMap<String, (f64, f64)>,
    error: PriceError,
    lent: bool,
}

impl ExpertTimes {
    pub(super) fn new(hw: &Hardware) -> ExpertTimes {
        let Some(all) = &hw.corrections else { return ExpertTimes::default() };
        let lent = |name: &String| all.transferred_from.is_some() && !all.own.contains(name);
        let known = all.experts.iter().map(|(name, times)| Known {
            format: times.format,
            constants: times.constants,
            nodes: times.forest.nodes(),
            range: times.range.clone(),
            error: PriceError::new(times.evidence.held_error, times.evidence.interval()),
            lent: lent(name),
        });
        ExpertTimes { known: known.collect() }
    }

    /// What is known of products of rows in the format `inputs` with matrices in `weights`.
    fn of(&self, inputs: Dtype, weights: Dtype) -> Option<&Known> {
        let plain = |dtype: Dtype| if dtype == Dtype::F16 { Dtype::Bf16 } else { dtype };
        let format = plain(weights);
        self.known.iter().find(|known| known.format == format && plain(inputs) == format)
    }
}

/// Numbers of a shape by name, which bound what was measured.
pub(crate) fn expert_numbers(shape: &ExpertLayer) -> [(&'static str, f64); 6] {
    [
        ("rows", shape.rows.into()),
        ("width", shape.width.into()),
        ("inner", shape.inner.into()),
        ("count", shape.count.into()),
        ("top", shape.top.into()),
        ("own", shape.own.into()),
    ]
}

/// Logarithm, the same on every machine.
fn ln(value: f64) -> f32 {
    libm::log(value.max(1e-12)) as f32
}

impl Device {
    /// Whether somebody measured expert layers as one call whose rows and matrices have these formats.
    pub fn fuses_experts(&self, inputs: Dtype, weights: Dtype) -> bool {
        self.experts.of(inputs, weights).is_some()
    }

    /// What measured layers say of a call; nothing where nobody measured its formats.
    pub(super) fn expert_layer(&self, shape: &ExpertLayer) -> Option<Learned> {
        let known = self.experts.of(shape.inputs, shape.weights)?;
        if shape.load.copies == 0 || shape.width == 0 || shape.inner == 0 {
            return None;
        }
        let (base, features) = self.expert_features(shape, &known.constants);
        // Trees know nothing of limits: no layer beats the peaks of its products or of reading its matrices.
        let seconds = (base * libm::exp(known.nodes.predict(&features))).max(self.least_s(shape));
        let within = |&(name, value): &(&str, f64)| {
            known.range.get(name).is_some_and(|&(least, most)| least <= value && value <= most)
        };
        let dense = shape.density == crate::kernel::Density::Dense;
        let source = match dense && expert_numbers(shape).iter().all(within) {
            false => SourceKind::Extrapolated,
            true if known.lent => SourceKind::Transferred,
            true => SourceKind::Fitted,
        };
        // The bytes of matrices that are sparse within are in the formula, and were never measured.
        let lent = EXTRAPOLATED * f64::from(known.error.mean) / 100.0;
        Some(Learned::by(SimTime::from_us(1e6 * seconds), source, known.error, lent, self.altered))
    }

    /// Seconds of a layer's flops at the peak, or of its matrices at that of device memory.
    fn least_s(&self, shape: &ExpertLayer) -> f64 {
        let matrix = u64::from(shape.width) * u64::from(shape.inner);
        let matrices = f64::from(shape.gates() + 1);
        let copies = ExpertLoad::whole(shape.load.copies);
        let peak = self.product_flops_per_s(shape.inputs, shape.weights, shape.density, 1.0);
        let bytes = ExpertLoad::whole(shape.load.taken) * shape.density.bytes(shape.weights, matrix) as f64;
        let flops = copies * 2.0 * matrix as f64;
        matrices * (flops / peak).max(bytes / self.dram_bytes_per_s)
    }

    /// Seconds that the formula says, and what trees see beside it. All but the last three features are without a unit or logarithms of
    /// ratios, so that a layer of another size finds its like.
    pub(crate) fn expert_features(
        &self,
        shape: &ExpertLayer,
        constants: &ExpertConstants,
    ) -> (f64, Vec<f32>) {
        let whole = |number: u64| ExpertLoad::whole(number).max(1e-2);
        let (rows, width, inner) = (f64::from(shape.rows), f64::from(shape.width), f64::from(shape.inner));
        let (gates, matrices) = (f64::from(shape.gates()), f64::from(shape.gates() + 1));
        let (copies, taken, largest) =
            (whole(shape.load.copies), whole(shape.load.taken), whole(shape.load.largest));
        let blocks = shape.load.blocks.map(whole);
        let value = shape.activations.bytes(1) as f64;
        let of_expert = shape.density.bytes(shape.weights, u64::from(shape.width) * u64::from(shape.inner))
            as f64
            * matrices;
        let weights = taken * of_expert / self.dram_bytes_per_s;
        // Rows in and results out; of each copy its row, its two inner states, its result.
        let moved =
            value * (2.0 * rows * width + copies * (2.0 * width + inner * matrices)) / self.dram_bytes_per_s;
        // Software that keeps the places of rows of other devices' experts goes over these too: activation, sum, choice.
        let all_copies = rows * f64::from(shape.top);
        let all = all_copies * (value * (inner * matrices + width) + 8.0) / self.dram_bytes_per_s;
        let peak = self.product_flops_per_s(shape.inputs, shape.weights, shape.density, 1.0);
        let units = self.units as f64;
        let (up, down) = ((gates * inner / TILE_COLUMNS).ceil(), (width / TILE_COLUMNS).ceil());
        let products = (0..EXPERT_BLOCKS.len()).map(|at| {
            let tile =
                2.0 * f64::from(EXPERT_BLOCKS[at]) * TILE_COLUMNS * units / (peak * constants.flops[at]);
            let waves = |columns: f64| (blocks[at] * columns / units).ceil();
            tile * (waves(up) * width + waves(down) * inner)
        });
        let products = products.fold(f64::INFINITY, f64::min);
        let reading = weights / constants.weights;
        let base = 1e-6 * constants.start_us
            + 1e-9 * constants.row_ns * copies
            + products.max(reading)
            + constants.exposed * products.min(reading)
            + moved / constants.rows
            + constants.all * all;
        let flops = copies * 2.0 * matrices * width * inner / peak;
        let mut features = vec![ln(flops / weights)];
        features.extend(
            (0..EXPERT_BLOCKS.len()).map(|at| (copies / (blocks[at] * f64::from(EXPERT_BLOCKS[at]))) as f32),
        );
        features.extend([ln(copies / taken), (taken / f64::from(shape.own.max(1))) as f32]);
        features.extend([ln((moved + all) / weights), ln(largest * taken / copies)]);
        for columns in [up, down] {
            let waves = blocks[3] * columns / units;
            features.extend([ln(waves), (waves.ceil() / waves) as f32, ln(blocks[0] * columns / units)]);
        }
        features.extend([f32::from(u8::from(!shape.plain)), gates as f32]);
        let share = f64::from(shape.own) / f64::from(shape.count.max(1));
        features.push(ln(copies / (all_copies * share)));
        features.extend([ln(copies), ln(rows), ln(base * 1e6)]);
        (base, features)
    }
}
