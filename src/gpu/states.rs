//! Room for states that are kept from pass to pass, and for projecting more of them at once than a pass has rows.

use super::device::{Buffer, Gpu};
use crate::error::Result;
use crate::model::Model;

/// Bytes of a buffer that was asked for without any.
const NONE: u64 = 16;

/// Buffers that grow as they are needed.
#[derive(Debug)]
pub(super) struct States {
    /// States that are kept, by place.
    pub kept: Buffer,
    /// States that are projected together, what a norm makes of them, and their keys and values.
    pub block: Buffer,
    pub normed: Buffer,
    pub keys_values: Buffer,
}

impl States {
    /// No room.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn new(gpu: &Gpu) -> Result<States> {
        let none = |what| gpu.buffer(what, 0);
        Ok(States {
            kept: none("kept states")?,
            block: none("states to be projected")?,
            normed: none("states to be projected")?,
            keys_values: none("projected states")?,
        })
    }

    /// Room for so many kept states, of which those that are there stay, and for so many that are projected at once.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn make_room(&mut self, gpu: &Gpu, model: &Model, places: u32, rows: u32) -> Result<()> {
        let bytes = u64::from(places) * model.hidden * 4;
        if bytes > self.kept.bytes() {
            let old: Vec<f32> = gpu.read(&self.kept, self.kept.bytes() as usize / 4)?;
            self.kept = gpu.buffer("kept states", bytes.next_power_of_two())?;
            gpu.write(&self.kept, 0, &old);
        }
        let bytes = |width: u64| u64::from(rows) * width * 4;
        for (buffer, width) in [
            (&mut self.block, model.hidden),
            (&mut self.normed, model.hidden),
            (&mut self.keys_values, 2 * model.kv_dim()),
        ] {
            if bytes(width) > buffer.bytes() {
                *buffer = gpu.buffer("states to be projected", bytes(width).next_power_of_two())?;
            }
        }
        Ok(())
    }

    /// Bytes of all of them that were ever needed.
    pub fn bytes(&self) -> u64 {
        let all = [&self.kept, &self.block, &self.normed, &self.keys_values];
        all.iter().map(|buffer| buffer.bytes()).filter(|&bytes| bytes > NONE).sum()
    }
}
