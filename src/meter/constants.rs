//! What is fitted: constants in which the latency and the energy of a simulated run are linear.

use super::run_table::MeasuredRun;
use crate::calib::least_squares;
use crate::hw::Hardware;

/// The steady part of a simulated run, without the host's time for a scheduler step and without the sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunSums {
    /// Median over generated tokens of the length of their pass, seconds.
    pub itl_s: f64,
    /// Logits that the sampler sees in such a pass, in 10^12.
    pub itl_teralogits: f64,
    /// Passes.
    pub passes: f64,
    /// Their time, seconds.
    pub time_s: f64,
    /// Kernel time among it, seconds.
    pub busy_s: f64,
    /// Bytes to and from device memory, in 10^12.
    pub terabytes: f64,
    /// Flops, in 10^12, each by the width of its operands: 1 for 16 bits.
    pub teraflops: f64,
    /// Logits that the sampler sees, in 10^12.
    pub teralogits: f64,
    /// Tokens that were generated.
    pub tokens: f64,
    /// Devices that draw power; times and logits are those of one, bytes and flops those of all.
    pub devices: f64,
    /// Share of the energy that is left where no kernel draws more than the board's limit, with the constants of the profile.
    pub held: f64,
}

/// What is fitted: effective constants of a software stack on a device, not physics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackConstants {
    /// Host time of a scheduler step, seconds.
    pub step_s: f64,
    /// Picoseconds of the sampler for a logit.
    pub ps_per_logit: f64,
    /// Watts while nothing runs; not fitted, since a loaded server hardly idles.
    pub idle_w: f64,
    /// Watts while anything runs.
    pub static_w: f64,
    /// Picojoules for a byte.
    pub pj_per_byte: f64,
    /// Picojoules for a flop of 16 bits.
    pub pj_per_flop: f64,
    /// Picojoules of the sampler for a logit.
    pub pj_per_logit: f64,
}

/// A row of a table, as it was measured and as it was simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedRun {
    /// Measured.
    pub row: MeasuredRun,
    /// Simulated.
    pub parts: RunSums,
}

/// What is predicted of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictedRun {
    /// Median time between tokens, seconds.
    pub itl_s: f64,
    /// Joules for each token.
    pub joules: f64,
    /// Mean watts.
    pub watts: f64,
}

impl StackConstants {
    /// Those of a profile.
    pub fn of(hw: &Hardware) -> StackConstants {
        let sampler = hw.sampler.as_ref();
        StackConstants {
            step_s: hw.launch.step_us.value * 1e-6,
            ps_per_logit: sampler.map_or(0.0, |sampler| sampler.ps_per_logit.value),
            idle_w: hw.power.idle_w.value,
            static_w: hw.power.static_w.value,
            pj_per_byte: hw.power.pj_per_byte.value,
            pj_per_flop: hw.power.pj_per_flop.value,
            pj_per_logit: sampler.map_or(0.0, |sampler| sampler.pj_per_logit.value),
        }
    }

    /// What they say of a run.
    pub fn predict(&self, parts: &RunSums) -> PredictedRun {
        // Picoseconds times 10^12 are seconds, as picojoules are joules.
        let sampling = self.ps_per_logit * parts.teralogits;
        let busy = parts.busy_s + sampling;
        let time = parts.time_s + sampling + self.step_s * parts.passes;
        let dynamic = self.pj_per_byte * parts.terabytes
            + self.pj_per_flop * parts.teraflops
            + self.pj_per_logit * parts.teralogits;
        let resting = self.static_w * busy + self.idle_w * (time - busy);
        let joules = parts.held * (parts.devices * resting + dynamic);
        PredictedRun {
            itl_s: parts.itl_s + self.step_s + self.ps_per_logit * parts.itl_teralogits,
            joules: joules / parts.tokens,
            watts: joules / time,
        }
    }

    /// Static power at most, as a share of the board's limit: boards accept caps down to about there (nvidia-smi on H100 SXM: 200 of
    /// 700 W), and whatever runs under a cap draws less than it.
    const MOST_STATIC: f64 = 0.3;

    /// Fitted to these rows by least squares of relative errors: first the times to the times between tokens, then the powers to
    /// joules a token. None is below 0, static power not below that of `hw` when idle and not above a share of its limit; and
    /// neither the sampler, nor the bytes of a product that is all bytes, nor the flops of one that is all flops draw more than
    /// the board's limit.
    pub fn fitted(points: &[&ComparedRun], hw: &Hardware) -> StackConstants {
        let (idle_w, limit_w) = (hw.power.idle_w.value, hw.power.limit_w.value);
        let product = &hw.kernels.matmul;
        // W over 10^12 a second are pJ.
        let most_per_flop = (limit_w - idle_w) / (hw.compute.matrix_f16_tflops.value * product.flops.value);
        let most_per_byte = 1e3 * (limit_w - idle_w) / (hw.memory.dram_gb_per_s.value * product.bytes.value);
        let times = points.iter().map(|ComparedRun { row, parts }| {
            ([1.0 / row.itl_s, parts.itl_teralogits / row.itl_s], 1.0 - parts.itl_s / row.itl_s)
        });
        let [step_s, ps_per_logit] = least_squares(times, [(0.0, f64::INFINITY); 2]);
        let energies = points.iter().map(|ComparedRun { row, parts }| {
            let measured = row.joules * parts.tokens / parts.held;
            let idle = parts.time_s - parts.busy_s + step_s * parts.passes;
            let sampling = ps_per_logit * parts.teralogits;
            let columns = [parts.busy_s, sampling, parts.terabytes, parts.teraflops];
            (columns.map(|column| column / measured), 1.0 - idle_w * idle / measured)
        });
        let watts = (idle_w, limit_w);
        let most_static = (Self::MOST_STATIC * limit_w).max(idle_w);
        let bounds = [(idle_w, most_static), watts, (0.0, most_per_byte), (0.0, most_per_flop)];
        let [static_w, sampler_w, pj_per_byte, pj_per_flop] = least_squares(energies, bounds);
        let pj_per_logit = (sampler_w - static_w).max(0.0) * ps_per_logit;
        let all = [step_s * 1e6, ps_per_logit, static_w, pj_per_byte, pj_per_flop, pj_per_logit].map(short);
        let [step_us, ps_per_logit, static_w, pj_per_byte, pj_per_flop, pj_per_logit] = all;
        let step_s = step_us * 1e-6;
        StackConstants { step_s, ps_per_logit, idle_w, static_w, pj_per_byte, pj_per_flop, pj_per_logit }
    }
}

/// Four significant digits, as the profile shall say.
pub(super) fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
