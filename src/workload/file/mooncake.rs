//! Mooncake's traces: lengths, arrivals in milliseconds, and the hash of each block of the prompt.

use super::collect::{Collector, Row};
use super::rows::{each, need};
use crate::error::{Error, InputError, Result};
use crate::trace::lines::Input;

/// Prompt tokens that one of Mooncake's hashes stands for (Qin et al., Mooncake, FAST 2025: blocks of 512 tokens). A hash
/// covers everything before its block too, so that equal hashes are equal prefixes.
pub const BLOCK: u32 = 512;

/// Reads it. Keys that it does not know are passed over.
pub(super) fn read(input: Input, out: &mut Collector) -> Result<()> {
    out.prefix_block = Some(BLOCK);
    each(input, |object| {
        let prompt = need(object, "input_length")?;
        let hashes = object.need("hash_ids")?;
        let mut prefix = Vec::new();
        hashes.wholes(&mut prefix)?;
        let blocks = prompt.tokens()?.div_ceil(BLOCK) as usize;
        if prefix.len() != blocks {
            let what = format!("{blocks} hashes, one for each {BLOCK} prompt tokens");
            let bad = InputError::expected(what).key("hash_ids").found(format!("{} hashes", prefix.len()));
            return Err(Error::from(bad));
        }
        prefix.shrink_to_fit();
        let arrival = Some(need(object, "timestamp")?.time(9)?);
        out.row(Row { arrival, prompt, output: need(object, "output_length")?, priority: 0, prefix })
    })
}
