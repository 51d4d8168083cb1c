//! What a profile of PyTorch had in it.

use crate::calib::kineto::{Learned, TorchProfile};
use crate::kernel::Kernel;
use std::fmt::Write;

/// Lines that say which calls were read, which were not and why, and what could not be fitted.
pub fn profiled(profile: &TorchProfile, learned: &Learned) -> String {
    let device =
        profile.device.as_deref().unwrap_or("the processor: there is no kernel of a device in the profile");
    let mut text = format!("Times on {device}.\n");
    for table in &profile.tables {
        let format = match table.rows.first().map(|row| row.kernel) {
            Some(Kernel::MatMul { inputs: dtype, .. }) => dtype.to_string(),
            Some(Kernel::Attention(shape)) => shape.kv.to_string(),
            _ => continue,
        };
        let _ = writeln!(text, "{}: {} shapes, {format}", table.operator.name(), table.rows.len());
    }
    let _ = writeln!(text, "{} calls read", profile.calls);
    for (why, count) in &profile.left {
        let _ = writeln!(text, "{count} calls left out: {why}");
    }
    for remark in &learned.remarks {
        let _ = writeln!(text, "{remark}");
    }
    text
}
