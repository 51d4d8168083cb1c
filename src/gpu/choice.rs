//! Which form of a product runs: row by row, or in tiles of 8, 16 or 32 rows.

use super::adapter::AdapterInfo;
use super::ops::Segment;
use super::packed::Form;
use super::pipeline::Shader;
use super::shaders as s;

/// A form of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tiling {
    Single,
    /// Rows of a tile.
    Tiles(u32),
}

impl Tiling {
    /// The form that takes the least time for these rows.
    ///
    /// Times of tiles of 8, 16 and 32 rows in those of a single row, measured for 576 x 1536 on Mesa 22.3's software Vulkan
    /// (`cargo bench --bench gpu`, its table of tiles). They are a choice between right results, no price.
    pub fn best(segments: &[Segment], form: Form) -> Tiling {
        let count =
            |tile: u32| segments.iter().map(|segment| f64::from(segment.rows.div_ceil(tile))).sum::<f64>();
        let times = match form {
            Form::F32 => [1.4, 2.0, 3.1],
            Form::F16 | Form::Q8 => [2.5, 3.6, 5.7],
            Form::Q4 => [3.8, 5.6, 9.1],
        };
        let tiled =
            [8, 16, 32].into_iter().zip(times).map(|(rows, time)| (Tiling::Tiles(rows), time * count(rows)));
        let costs = std::iter::once((Tiling::Single, count(1))).chain(tiled);
        costs.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there are four").0
    }

    /// Columns that an invocation takes one after the other in a product of a single row.
    ///
    /// On a processor that plays a GPU, each lane reads weight rows of its own, and long reads are what its prefetchers like:
    /// 4-bit weights of 576 values a row come at 1.4 GB/s one row at a time, and at 2.9 GB/s with 32 rows side by side
    /// (`cargo bench --bench gpu`). At least four workgroups are left. A GPU would rather have more workgroups. `most`: as many as the device's loops allow.
    pub fn run(columns: u32, workgroup_columns: u32, most: u64, adapter: &AdapterInfo) -> u32 {
        const MOST: u32 = 32;
        const WORKGROUPS: u32 = 4;
        let groups = columns.div_ceil(workgroup_columns);
        let fits = |run: &u32| groups.is_multiple_of(*run) && groups / run >= WORKGROUPS;
        if adapter.kind == "CPU" {
            (1..=most.clamp(1, MOST.into()) as u32).rev().find(fits).unwrap_or(1)
        } else {
            1
        }
    }

    /// Rows of a tile, where there are tiles.
    pub fn tile(self) -> Option<u32> {
        match self {
            Tiling::Single => None,
            Tiling::Tiles(rows) => Some(rows),
        }
    }

    pub fn matvec(self, form: Form) -> Shader {
        match form {
            Form::F32 => s::MATVEC_F32,
            Form::F16 => s::MATVEC_F16,
            Form::Q8 => s::MATVEC_Q8,
            Form::Q4 => s::MATVEC_Q4,
        }
    }
}
