//! What the next token of a sequence can attend to, by layer, and what the sequence holds in the KV cache.

use super::{Left, Path};
use crate::model::Visibility;

/// Entries of one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    tokens: u32,
    /// Tokens among them that left no entry.
    empty: u32,
    all: u32,
    /// Entries at each layer beyond `all`; empty while every layer holds the same.
    differences: Vec<i32>,
    /// Entries to be projected at the next visit of each layer; empty while there are none.
    pending: Vec<u32>,
    total: u64,
    stored: u64,
}

impl Context {
    /// After `tokens` tokens that took every layer of a pool of `layers`.
    pub fn dense(tokens: u32, layers: u32) -> Self {
        let total = u64::from(tokens) * u64::from(layers);
        Context { tokens, all: tokens, total, stored: total, ..Context::default() }
    }

    /// Tokens that have passed.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Entries that take bytes.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether every layer holds the same entries, so that one number serves all.
    #[inline]
    pub fn is_flat(&self) -> bool {
        self.differences.is_empty() && self.pending.is_empty()
    }

    /// Entries at each layer: so many, and differences from it, one for each layer or none where every layer holds the same.
    #[inline]
    pub(super) fn by_layer(&self) -> (u32, &[i32]) {
        (self.all, &self.differences)
    }

    /// Entries over all layers.
    #[inline]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether states wait to be projected.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Entries that a token at `layer` sees, its own not counted.
    #[inline]
    pub fn seen(&self, layer: u16, visibility: Visibility) -> u64 {
        match visibility {
            Visibility::SameLayer => {
                let difference = self.differences.get(layer as usize).copied().unwrap_or(0);
                u64::try_from(i64::from(self.all) + i64::from(difference))
                    .expect("a layer holds no negative entries")
            }
            Visibility::OnePerToken => u64::from(self.tokens - self.empty),
            Visibility::AllEntries => self.total,
        }
    }

    /// Whether a token on `path` sees an entry of each earlier token at every layer that it attends to.
    pub fn sees_all(&self, path: &Path) -> bool {
        if self.has_pending() {
            return false;
        }
        let all = |layer: u16| self.seen(layer, Visibility::SameLayer) == u64::from(self.tokens);
        if self.is_flat() {
            return all(0);
        }
        path.hops.iter().filter(|hop| hop.modules.attention()).all(|hop| all(hop.layer))
    }

    /// Entries of copied states that a visit of `layer` projects first.
    pub fn pending(&self, layer: u16) -> u32 {
        self.pending.get(layer as usize).copied().unwrap_or(0)
    }

    /// `times` tokens at new positions took `path`.
    pub fn advance(&mut self, path: &Path, times: u32, layers: u32) {
        self.tokens += times;
        self.empty += if path.visible.total == 0 { times } else { 0 };
        self.revisit(path, times, layers);
    }

    /// Later passes over positions that have passed already took `path`.
    pub fn revisit(&mut self, path: &Path, times: u32, layers: u32) {
        // What waits to be projected is projected by the first visit of each layer, so tokens that leave such states go one by one.
        let one_by_one = path.copies && times > 1;
        let (rounds, by) = if one_by_one { (times, 1) } else { (1, times) };
        (0..rounds).for_each(|_| self.add(path, by as i32, layers));
    }

    /// A token that took `path` at the newest position is taken back: a draft that was not accepted.
    pub fn retract(&mut self, path: &Path, layers: u32) {
        self.empty = self.empty.saturating_sub(u32::from(path.visible.total == 0));
        self.add(path, -1, layers);
    }

    /// The sequence now has this many positions: a round of drafts is settled.
    pub fn set_tokens(&mut self, tokens: u32) {
        self.tokens = tokens;
        self.empty = self.empty.min(tokens);
    }

    /// `times` below zero: taken back.
    #[inline]
    fn add(&mut self, path: &Path, times: i32, layers: u32) {
        let by = |count: u32| i64::from(times) * i64::from(count);
        self.all =
            u32::try_from(i64::from(self.all) + by(path.visible.all)).expect("entries taken back were there");
        self.total =
            self.total.checked_add_signed(by(path.visible.total)).expect("entries taken back were there");
        self.stored =
            self.stored.checked_add_signed(by(path.stored.total)).expect("entries taken back were there");
        if !path.visible.differences.is_empty() {
            self.differences.resize(layers as usize, 0);
            for &(layer, difference) in &path.visible.differences {
                self.differences[layer as usize] += times * difference;
            }
        }
        if times > 0 && !self.pending.is_empty() {
            for hop in path.hops.iter().filter(|hop| hop.modules.attention()) {
                self.pending[hop.layer as usize] = 0;
            }
        }
        if !path.copies {
            return;
        }
        for skip in path.skips.iter().filter(|skip| skip.left == Left::Copied) {
            self.pending.resize(layers as usize, 0);
            let pending = &mut self.pending[skip.layer as usize];
            *pending = if times > 0 { *pending + 1 } else { pending.saturating_sub(1) };
        }
    }
}
