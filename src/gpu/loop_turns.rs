//! How long loops may be: measured, as some drivers end them early and say nothing.

use super::device::Gpu;
use super::recording::{Binding, KernelDispatch, Recording};
use super::shaders as s;
use crate::error::{Error, Result};

impl Gpu {
    /// Most turns that the loops of one invocation may take together, measured once. Mesa's llvmpipe ends them after 65,535
    /// (LP_MAX_TGSI_LOOP_ITERATIONS in its `lp_bld_limits.h`) and says nothing.
    ///
    /// # Errors
    /// A device that computes a loop wrongly, and what goes wrong on it.
    pub fn turns(&self) -> Result<u32> {
        if let Some(&known) = self.turns.get() {
            return Ok(known);
        }
        // More than any kernel here takes, and a few milliseconds.
        const WANTED: u32 = 1 << 20;
        let output = self.buffer("turns", 8)?;
        let pipeline = self.pipeline(s::PROBE_TURNS, &[])?;
        let parameters = bytemuck::bytes_of(&s::ProbeTurns { turns: WANTED }).to_vec();
        let mut recording = Recording::default();
        let bindings = vec![Binding::from(&output)];
        recording.push(KernelDispatch { pipeline, bindings, parameters, workgroups: [1, 1, 1] });
        self.submit(&recording)?;
        let found: Vec<u32> = self.read(&output, 2)?;
        let number = |x: u32, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if found[0] > WANTED || found[1] != (0..found[0]).fold(1, number) {
            let (name, turns) = (&self.info.name, found[0]);
            return Err(Error::Gpu(format!(
                "{name} computes a loop of {turns} turns wrongly; another driver may not"
            )));
        }
        let most = if found[0] == WANTED { u32::MAX } else { found[0] };
        Ok(*self.turns.get_or_init(|| most))
    }
}
