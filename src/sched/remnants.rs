//! What preempted sequences leave on the device: their entries stay in blocks that may be taken, and are theirs again if they come
//! back in time. So does vLLM with prefix caching: a freed block keeps its entries until somebody needs it, those freed first go first,
//! and of one sequence the last block goes first (vLLM, "Automatic Prefix Caching", design notes of its V1 engine).

use super::blocks::{BlockTable, Paging};
use crate::batch::{Paths, in_runs};
use std::collections::VecDeque;

/// Entries of one sequence.
#[derive(Clone, Debug)]
pub(super) struct Remnant {
    slot: u32,
    /// Paths of its tokens, from the first on.
    pub tokens: Vec<u32>,
    pub table: BlockTable,
}

impl Remnant {
    /// Of the first of these tokens: as many whole blocks as they fill.
    pub fn new(slot: u32, tokens: &[u32], block_tokens: u32, paths: &Paths, paging: &Paging) -> Self {
        let whole = tokens.len() - tokens.len() % block_tokens as usize;
        let tokens = tokens[..whole].to_vec();
        let mut table = BlockTable::default();
        for (path, times) in in_runs(&tokens) {
            table.add(&paths.get(path).stored, times, paging);
        }
        Remnant { slot, tokens, table }
    }
}

/// All of them, those left first in front.
#[derive(Debug, Default)]
pub(super) struct Remnants {
    kept: VecDeque<Remnant>,
    blocks: u64,
}

impl Remnants {
    /// Blocks that could be had.
    pub fn spare(&self) -> u64 {
        self.blocks
    }

    /// A sequence leaves its entries.
    pub fn leave(&mut self, remnant: Remnant) {
        self.blocks += remnant.table.blocks();
        self.kept.push_back(remnant);
    }

    /// What is left of a sequence's entries.
    pub fn take(&mut self, slot: u32) -> Option<Remnant> {
        let place = self.kept.iter().position(|remnant| remnant.slot == slot)?;
        let remnant = self.kept.remove(place)?;
        self.blocks -= remnant.table.blocks();
        Some(remnant)
    }

    /// The last `block_tokens` tokens of the sequence that left first give way. Returns the blocks that are free then; `None` where
    /// nothing is left.
    pub fn evict(&mut self, block_tokens: u32, paths: &Paths, paging: &Paging) -> Option<u64> {
        let remnant = self.kept.front_mut()?;
        let rest = remnant.tokens.len().saturating_sub(block_tokens as usize);
        let before = remnant.table.blocks();
        for (path, times) in in_runs(&remnant.tokens[rest..]) {
            remnant.table.remove(&paths.get(path).stored, times, paging);
        }
        remnant.tokens.truncate(rest);
        let freed = before - remnant.table.blocks();
        self.blocks -= freed;
        if rest == 0 {
            self.kept.pop_front();
        }
        Some(freed)
    }
}
