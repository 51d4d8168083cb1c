//! Devices that power was measured on, as profiles: their own, or that of their generation with the numbers of their own datasheet.

use crate::error::Result;
use crate::hw::{Hardware, Source};

/// A device of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Board {
    /// What the table's name of the device begins with.
    pub name: &'static str,
    /// Devices of one family are left out together.
    pub family: &'static str,
    /// The shipped profile that its own begins with.
    pub profile: &'static str,
    /// What its datasheet says, where it has no profile of its own.
    facts: Option<Facts>,
}

/// Numbers of a datasheet, peaks without sparsity and with 32-bit accumulation.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Facts {
    units: f64,
    boost_mhz: f64,
    f16_tflops: f64,
    f32_tflops: f64,
    dram_gb_per_s: f64,
    l2_mb: f64,
    limit_w: f64,
}

const fn own(name: &'static str, family: &'static str, profile: &'static str) -> Board {
    Board { name, family, profile, facts: None }
}

const fn like(name: &'static str, profile: &'static str, facts: [f64; 7]) -> Board {
    let [units, boost_mhz, f16_tflops, f32_tflops, dram_gb_per_s, l2_mb, limit_w] = facts;
    let facts = Facts { units, boost_mhz, f16_tflops, f32_tflops, dram_gb_per_s, l2_mb, limit_w };
    Board { name, family: name, profile, facts: Some(facts) }
}

/// Sources of the numbers, in the order of the rows below that have any: NVIDIA Ampere GA102 whitepaper V2.1 (RTX 3090); A40 datasheet (2021);
/// Turing architecture whitepaper (Quadro RTX 8000); Ada GPU architecture whitepaper V2.1 for cache sizes, with the RTX 4000 Ada datasheet
/// (2023) and the page of GeForce laptops (RTX 4050: 20 units, 35 to 115 W; assumed: 2,370 MHz, 80 W); RTX Blackwell architecture whitepaper
/// V1.1 (RTX 5090, 5060 Ti). One that begins with the name of another comes first.
const BOARDS: [Board; 20] = [
    like("RTX 3090", "nvidia-a100-sxm-80gb", [82.0, 1695.0, 71.0, 35.6, 936.0, 6.3, 350.0]),
    like("A40", "nvidia-a100-sxm-80gb", [84.0, 1740.0, 149.7, 37.4, 696.0, 6.3, 300.0]),
    like("Quadro RTX 8000", "nvidia-t4", [72.0, 1770.0, 130.5, 16.3, 672.0, 6.3, 260.0]),
    like("RTX 4000 Ada", "nvidia-l4", [48.0, 2175.0, 82.0, 26.7, 360.0, 50.3, 130.0]),
    like("RTX 40-series laptop", "nvidia-l4", [20.0, 2370.0, 24.2, 12.1, 192.0, 12.6, 80.0]),
    like("RTX 5090", "nvidia-rtx-pro-6000", [170.0, 2407.0, 209.5, 104.8, 1792.0, 100.7, 575.0]),
    like("RTX 5060 Ti", "nvidia-rtx-pro-6000", [36.0, 2572.0, 47.4, 23.7, 448.0, 33.6, 180.0]),
    own("RTX PRO 6000", "RTX PRO 6000", "nvidia-rtx-pro-6000"),
    own("RTX 4090", "RTX 4090", "nvidia-rtx-4090"),
    own("V100", "V100", "nvidia-v100-sxm"),
    own("H100 PCIe", "H100", "nvidia-h100-pcie"),
    own("H100", "H100", "nvidia-h100-sxm"),
    own("H200", "H200", "nvidia-h200-sxm"),
    own("B200", "B200", "nvidia-b200-sxm"),
    own("A100", "A100", "nvidia-a100-sxm-80gb"),
    own("L40S", "L40S", "nvidia-l40s"),
    own("L4", "L4", "nvidia-l4"),
    own("T4", "T4", "nvidia-t4"),
    own("MI300X", "MI300X", "amd-mi300x"),
    own("MI210", "MI210", "amd-mi210"),
];

/// The board that a table calls by this name.
pub fn board(device: &str) -> Option<&'static Board> {
    let word = device.strip_prefix("NVIDIA ").unwrap_or(device).trim();
    let begins = |board: &&Board| {
        let rest = word.strip_prefix(board.name);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    BOARDS.iter().find(begins)
}

impl Board {
    /// Whether the profile is that of the device.
    pub fn is_own(&self) -> bool {
        self.facts.is_none()
    }

    /// The board as a device.
    ///
    /// # Errors
    /// None but those of a shipped profile that does not load.
    pub fn hardware(&self) -> Result<Hardware> {
        let mut hw = Hardware::datasheet(self.profile)?;
        let Some(facts) = self.facts else { return Ok(hw) };
        hw.title = format!("{}, made of {}", self.name, hw.title);
        let source = Source::Datasheet(format!("datasheet of {}", self.name));
        let cache =
            facts.units * facts.boost_mhz / (hw.compute.units.value * hw.compute.boost_clock_mhz.value);
        let watts = facts.limit_w / hw.power.limit_w.value;
        let (bytes, flops) = (
            facts.dram_gb_per_s / hw.memory.dram_gb_per_s.value,
            facts.f16_tflops / hw.compute.matrix_f16_tflops.value,
        );
        let at_least = facts.dram_gb_per_s;
        let l2 = (hw.memory.l2_gb_per_s.value * cache).max(at_least);
        for (number, value) in [
            (&mut hw.compute.units, facts.units),
            (&mut hw.compute.boost_clock_mhz, facts.boost_mhz),
            (&mut hw.compute.matrix_f16_tflops, facts.f16_tflops),
            (&mut hw.compute.matrix_f32_tflops, facts.f32_tflops),
            (&mut hw.compute.vector_f32_tflops, facts.f32_tflops),
            (&mut hw.memory.dram_gb_per_s, facts.dram_gb_per_s),
            (&mut hw.memory.l2_mb, facts.l2_mb),
            (&mut hw.memory.l2_gb_per_s, l2),
            (&mut hw.power.limit_w, facts.limit_w),
        ] {
            number.value = value;
            number.source = source.clone();
        }
        for (number, factor) in [
            (&mut hw.power.idle_w, watts),
            (&mut hw.power.static_w, watts),
            (&mut hw.power.pj_per_byte, watts / bytes),
            (&mut hw.power.pj_per_flop, watts / flops),
        ] {
            number.value *= factor;
        }
        // What is said of the other board's clocks, caches and narrow formats does not hold here.
        hw.compute.top_clock_mhz = None;
        hw.compute.matrix_fp8_tflops = None;
        hw.compute.matrix_int8_tops = None;
        hw.compute.matrix_fp4_tflops = None;
        hw.memory.l2_peak_gb_per_s = None;
        hw.power.clocks = None;
        hw.power.metered = None;
        Ok(hw)
    }
}

#[cfg(test)]
mod tests {
    use super::{BOARDS, board};

    #[test]
    fn names_find_their_board() {
        for (device, name) in [
            ("RTX 3090 (370 W OC card)", "RTX 3090"),
            ("V100-SXM2-32GB", "V100"),
            ("NVIDIA H100 PCIe", "H100 PCIe"),
            ("H100 SXM", "H100"),
            ("L40S", "L40S"),
        ] {
            assert_eq!(board(device).map(|board| board.name), Some(name), "{device}");
        }
        assert!(board("6x RTX 3090").is_none() && board("L40").is_none() && board("RTX 30900").is_none());
        for board in &BOARDS {
            assert!(board.hardware().is_ok(), "{}", board.name);
        }
    }
}
