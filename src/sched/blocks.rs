//! Paged KV: blocks of a fixed number of entries, and which sequence holds how many.
//!
//! A block holds `block_tokens` entries of one layer, and each layer of a sequence fills blocks of its own: a layer that a
//! route skips without leaving an entry takes no room, and the last block of each layer is part-filled. For a dense
//! sequence this is what engines do whose block holds all layers (vLLM, arXiv 2309.06180): all layers need a new block at
//! the same token. Entries of a unified cache share blocks across layers.

use crate::batch::Entries;

/// How the cache is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// log2 of the entries of a block.
    shift: u32,
    layers: u32,
    /// One cache for all layers.
    unified: bool,
}

impl Paging {
    /// Blocks of `block_tokens` entries (a power of two) for a pool of `layers`.
    pub fn new(block_tokens: u32, layers: u32, unified: bool) -> Self {
        assert!(block_tokens.is_power_of_two(), "blocks of {block_tokens} entries");
        Paging { shift: block_tokens.trailing_zeros(), layers, unified }
    }

    /// Blocks of a sequence that leaves at most `entries` at each layer; in a unified cache, over all layers `entries` each.
    pub fn most_blocks(&self, entries: u64) -> u64 {
        let layers = u64::from(self.layers);
        let size = 1 << self.shift;
        if self.unified { (entries * layers).div_ceil(size) } else { entries.div_ceil(size) * layers }
    }

    #[inline]
    fn blocks(&self, entries: u32) -> u32 {
        (entries + ((1 << self.shift) - 1)) >> self.shift
    }
}

/// What one sequence fills: entries by layer, and the blocks that they take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Entries at each layer while all hold the same; entries in all of a unified cache.
    flat: u32,
    /// Entries at each layer once they differ.
    layers: Vec<u32>,
    blocks: u64,
}

impl Table {
    /// Blocks held.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// `times` tokens that leave `entries` each. Returns the blocks that come on top.
    #[inline]
    pub fn add(&mut self, entries: &Entries, times: u32, paging: &Paging) -> u64 {
        let before = self.blocks;
        self.change(entries, i64::from(times), paging);
        self.blocks - before
    }

    /// Takes back what [`Table::add`] added. Returns the blocks that are free again.
    pub fn remove(&mut self, entries: &Entries, times: u32, paging: &Paging) -> u64 {
        let before = self.blocks;
        self.change(entries, -i64::from(times), paging);
        before - self.blocks
    }

    #[inline]
    fn change(&mut self, entries: &Entries, times: i64, paging: &Paging) {
        let moved = |by: i64| (by * times) as i32;
        let step = |count: &mut u32, by: i32| {
            let before = paging.blocks(*count);
            *count = count.wrapping_add_signed(by);
            i64::from(paging.blocks(*count)) - i64::from(before)
        };
        let delta = if paging.unified {
            step(&mut self.flat, moved(entries.total.into()))
        } else if self.layers.is_empty() && entries.differences.is_empty() {
            step(&mut self.flat, moved(entries.all.into())) * i64::from(paging.layers)
        } else {
            if self.layers.is_empty() {
                self.layers.resize(paging.layers as usize, self.flat);
            }
            let all = moved(entries.all.into());
            // Within the loop over all layers nothing but whole-lane arithmetic, so that it runs on vectors.
            let mut delta = 0i32;
            for count in &mut self.layers {
                let after = count.wrapping_add_signed(all);
                delta += paging.blocks(after) as i32 - paging.blocks(*count) as i32;
                *count = after;
            }
            let mut delta = i64::from(delta);
            for &(layer, difference) in &entries.differences {
                delta += step(&mut self.layers[layer as usize], moved(difference.into()));
            }
            delta
        };
        self.blocks = self.blocks.checked_add_signed(delta).expect("blocks taken back were there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(counts: &[u32]) -> Entries {
        let all = counts[0];
        let differing = counts.iter().enumerate().filter(|&(_, &count)| count != all);
        Entries {
            total: counts.iter().sum(),
            all,
            differences: differing.map(|(layer, &count)| (layer as u16, count as i32 - all as i32)).collect(),
        }
    }

    proptest! {
        /// Against counts by layer, divided anew each time.
        #[test]
        fn blocks_are_entries_over_block_size_layer_by_layer(
            tokens in prop::collection::vec((prop::collection::vec(0..3_u32, 5), 1..20_u32), 1..12),
            shift in 0..5_u32, unified in any::<bool>(), taken_back in 0..12_usize,
        ) {
            let paging = Paging::new(1 << shift, 5, unified);
            let mut table = Table::default();
            let mut naive = [0u32; 5];
            let blocks = |naive: &[u32; 5]| -> u64 {
                if unified {
                    naive.iter().sum::<u32>().div_ceil(1 << shift).into()
                } else {
                    naive.iter().map(|count| u64::from(count.div_ceil(1 << shift))).sum()
                }
            };
            for (counts, times) in &tokens {
                let before = blocks(&naive);
                naive.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count * times);
                prop_assert_eq!(table.add(&entries(counts), *times, &paging), blocks(&naive) - before);
                prop_assert_eq!(table.blocks(), blocks(&naive));
            }
            for (counts, times) in tokens.iter().rev().take(taken_back) {
                let before = blocks(&naive);
                naive.iter_mut().zip(counts).for_each(|(sum, count)| *sum -= count * times);
                prop_assert_eq!(table.remove(&entries(counts), *times, &paging), before - blocks(&naive));
            }
            prop_assert_eq!(table.blocks(), blocks(&naive));
        }
    }
}
