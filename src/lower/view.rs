//! A pass as the building of its groups looks at it.

use crate::batch::{Batch, Context, Paths, Visibility};

/// What all steps of the building need to look at.
pub(super) struct View<'a> {
    pub batch: &'a Batch,
    pub paths: &'a Paths,
    pub contexts: &'a [Context],
    pub layers: u32,
    pub visibility: Visibility,
    /// Tokens that each layer attends to at most; empty where every layer attends to all.
    pub windows: &'a [u32],
    /// Kind of each layer; empty where all are of one kind.
    pub kinds: &'a [u8],
    /// Whether a group may stand for several layers from the start: no rows are added to single ones afterwards.
    pub joins: bool,
    /// How many of the longest contexts of a group are wanted.
    pub longest: usize,
}

impl View<'_> {
    /// Entries that a token sees at a layer, its own counted: all of `entries`, which `tokens` left with it, or those within the
    /// window. Where tokens skipped the layer, the entries are taken as spread evenly over the tokens.
    pub fn within(&self, layer: u16, entries: u64, tokens: u64) -> u64 {
        match self.windows.get(layer as usize) {
            Some(&window) if tokens > u64::from(window) => {
                let share = u128::from(entries) * u128::from(window) / u128::from(tokens);
                (share as u64).max(1).min(entries)
            }
            _ => entries,
        }
    }
}
