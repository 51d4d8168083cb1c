//! Which form of a product runs: row by row, in tiles of 8 rows, or of 32.

use super::adapter::AdapterInfo;
use super::ops::Segment;
use super::packed::Form;
use super::pipeline::Shader;
use super::shaders as s;

/// A form of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tiling {
    Single,
    Eight,
    ThirtyTwo,
}

impl Tiling {
    /// The form that takes the least time for these rows.
    ///
    /// Times of a tile of 8 and of 32 rows in those of a single row, measured for 576 x 1536 on Mesa 22.3's software Vulkan
    /// (`cargo bench --bench gpu`, its last table). They are a choice between right results, no price.
    pub fn best(segments: &[Segment], form: Form) -> Tiling {
        let count =
            |tile: u32| segments.iter().map(|segment| f64::from(segment.rows.div_ceil(tile))).sum::<f64>();
        let (eight, thirty_two) = match form {
            Form::F32 => (1.4, 3.1),
            Form::F16 | Form::Q8 => (2.5, 5.7),
            Form::Q4 => (3.8, 9.1),
        };
        let costs = [
            (Tiling::Single, count(1)),
            (Tiling::Eight, eight * count(8)),
            (Tiling::ThirtyTwo, thirty_two * count(32)),
        ];
        costs.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("there are three").0
    }

    /// Columns that an invocation takes one after the other in a product of a single row.
    ///
    /// On a processor that plays a GPU, each lane reads weight rows of its own, and long reads are what its prefetchers like:
    /// 4-bit weights of 576 values a row come at 1.4 GB/s one row at a time, and at 2.9 GB/s with 32 rows side by side
    /// (`cargo bench --bench gpu`). At least four workgroups are left. A GPU would rather have more workgroups.
    pub fn run(columns: u32, workgroup_columns: u32, adapter: &AdapterInfo) -> u32 {
        const MOST: u32 = 32;
        const WORKGROUPS: u32 = 4;
        let groups = columns.div_ceil(workgroup_columns);
        let fits = |run: &u32| groups.is_multiple_of(*run) && groups / run >= WORKGROUPS;
        if adapter.kind == "CPU" { (1..=MOST).rev().find(fits).unwrap_or(1) } else { 1 }
    }

    /// Rows of a tile, where there are tiles.
    pub fn tile(self) -> Option<u32> {
        match self {
            Tiling::Single => None,
            Tiling::Eight => Some(8),
            Tiling::ThirtyTwo => Some(32),
        }
    }

    pub fn tiled(self) -> Option<Shader> {
        match self {
            Tiling::Single => None,
            Tiling::Eight => Some(s::MATMUL_ROWS8),
            Tiling::ThirtyTwo => Some(s::MATMUL_ROWS32),
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
