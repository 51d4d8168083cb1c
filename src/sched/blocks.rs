//! Paged KV: blocks of a fixed number of entries, and which sequence holds how many.
//!
//! A block holds `block_tokens` entries of one layer, and each layer of a sequence fills blocks of its own: a layer that a
//! route skips without leaving an entry takes no room, and the last block of each layer is part-filled. For a dense
//! sequence this is what engines do whose block holds all layers (vLLM, arXiv 2309.06180): all layers need a new block at
//! the same token. Entries of a unified cache share blocks across layers.

use crate::batch::Entries;

/// How the cache is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    /// log2 of the entries of a block.
    shift: u32,
    layers: u32,
    /// One cache for all layers.
    unified: bool,
    /// Most blocks of a sequence at each layer, where some layers attend to a window; empty where none does.
    most: Vec<i32>,
    /// The different ones, with how many layers have them: one without a bound where no layer attends to a window.
    classes: Vec<(i32, i64)>,
}

impl Paging {
    /// Blocks of `block_tokens` entries (a power of two) for a pool of `layers`.
    pub fn new(block_tokens: u32, layers: u32, unified: bool) -> Self {
        assert!(block_tokens.is_power_of_two(), "blocks of {block_tokens} entries");
        let classes = vec![(i32::MAX, i64::from(layers))];
        Paging { shift: block_tokens.trailing_zeros(), layers, unified, most: Vec::new(), classes }
    }

    /// With layers that hold at most as many entries as they attend to: the blocks that fall out of a window serve again, as in
    /// vLLM's hybrid KV cache manager. What of one pass falls out within the pass is taken as never held.
    ///
    /// # Panics
    /// Where the cache is unified.
    pub fn windowed(mut self, windows: impl IntoIterator<Item = Option<u32>>) -> Self {
        assert!(!self.unified, "a unified cache has no layers of its own");
        let size = 1 << self.shift;
        let most = |window: Option<u32>| {
            window.map_or(i32::MAX, |window| i32::try_from(window.div_ceil(size)).unwrap_or(i32::MAX))
        };
        self.most = windows.into_iter().map(most).collect();
        self.classes.clear();
        for &most in &self.most {
            match self.classes.iter_mut().find(|(known, _)| *known == most) {
                Some((_, layers)) => *layers += 1,
                None => self.classes.push((most, 1)),
            }
        }
        if self.classes.iter().all(|&(most, _)| most == i32::MAX) {
            self.most.clear();
        }
        self
    }

    /// Blocks of a sequence that leaves at most `entries` at each layer; in a unified cache, over all layers `entries` each.
    pub fn most_blocks(&self, entries: u64) -> u64 {
        let size = 1 << self.shift;
        if self.unified {
            return (entries * u64::from(self.layers)).div_ceil(size);
        }
        let of = |&(most, layers): &(i32, i64)| {
            let most = if most == i32::MAX { u64::MAX } else { most as u64 };
            entries.div_ceil(size).min(most) * layers as u64
        };
        self.classes.iter().map(of).sum()
    }

    /// Blocks of so many entries. Below zero, as between two halves of a change, it goes on in equal steps.
    #[inline]
    fn blocks(&self, entries: i32) -> i32 {
        (entries + ((1 << self.shift) - 1)) >> self.shift
    }
}

/// What one sequence fills: entries by layer, and the blocks that they take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockTable {
    /// Entries at each layer while all hold the same; entries in all of a unified cache.
    flat: i32,
    /// Entries at each layer once they differ.
    layers: Vec<i32>,
    blocks: u64,
}

impl BlockTable {
    /// Blocks held.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Adds the blocks at the layers of each device to `sums`, where `of` says which device has which layer. Not of a unified cache, which
    /// has no layers.
    pub(super) fn blocks_by(&self, of: &[u32], sums: &mut [u64], paging: &Paging) {
        for (layer, &device) in of.iter().enumerate() {
            let entries = self.layers.get(layer).copied().unwrap_or(self.flat);
            let most = paging.most.get(layer).copied().unwrap_or(i32::MAX);
            sums[device as usize] += paging.blocks(entries).min(most) as u64;
        }
    }

    /// Entries at each layer at which a token leaves one of `entries`, where they are the same at all of these. None in a unified cache, too,
    /// or where nothing is left anywhere.
    pub(super) fn entries_where(&self, entries: &Entries, paging: &Paging) -> Option<u64> {
        if paging.unified || entries.total == 0 {
            return None;
        }
        if self.layers.is_empty() {
            return u64::try_from(self.flat).ok();
        }
        let mut at =
            (0..).zip(&self.layers).filter(|&(layer, _)| entries.at(layer) > 0).map(|(_, &count)| count);
        let first = at.next()?;
        if at.all(|count| count == first) { u64::try_from(first).ok() } else { None }
    }

    /// `times` tokens that leave `entries` each. Returns the blocks that come on top.
    #[inline]
    pub fn add(&mut self, entries: &Entries, times: u32, paging: &Paging) -> u64 {
        let before = self.blocks;
        self.change(entries, i64::from(times), paging);
        self.blocks - before
    }

    /// Takes back what [`BlockTable::add`] added. Returns the blocks that are free again.
    pub fn remove(&mut self, entries: &Entries, times: u32, paging: &Paging) -> u64 {
        let before = self.blocks;
        self.change(entries, -i64::from(times), paging);
        before - self.blocks
    }

    #[inline]
    fn change(&mut self, entries: &Entries, times: i64, paging: &Paging) {
        let moved =
            |by: i64| i32::try_from(by * times).expect("a sequence has fewer than 2^31 entries at a layer");
        let step = |count: &mut i32, by: i32| {
            let before = paging.blocks(*count);
            *count += by;
            i64::from(paging.blocks(*count) - before)
        };
        let delta = if paging.unified {
            step(&mut self.flat, moved(entries.total.into()))
        } else if self.layers.is_empty() && entries.differences.is_empty() {
            let before = paging.blocks(self.flat);
            self.flat += moved(entries.all.into());
            let after = paging.blocks(self.flat);
            let of = |&(most, layers): &(i32, i64)| i64::from(after.min(most) - before.min(most)) * layers;
            paging.classes.iter().map(of).sum()
        } else if !paging.most.is_empty() {
            self.change_windowed(entries, times, paging)
        } else {
            if self.layers.is_empty() {
                self.layers.resize(paging.layers as usize, self.flat);
            }
            let all = moved(entries.all.into());
            // Within the loop over all layers nothing but whole-lane arithmetic, so that it runs on vectors.
            let mut delta = 0i32;
            for count in &mut self.layers {
                let after = *count + all;
                delta += paging.blocks(after) - paging.blocks(*count);
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

    /// The change of blocks where layers differ both in what they hold and in what they attend to.
    fn change_windowed(&mut self, entries: &Entries, times: i64, paging: &Paging) -> i64 {
        if self.layers.is_empty() {
            self.layers.resize(paging.layers as usize, self.flat);
        }
        let held = |layers: &[i32]| -> i64 {
            let of = |(&count, &most): (&i32, &i32)| i64::from(paging.blocks(count).min(most));
            layers.iter().zip(&paging.most).map(of).sum()
        };
        let before = held(&self.layers);
        let moved =
            |by: i64| i32::try_from(by * times).expect("a sequence has fewer than 2^31 entries at a layer");
        self.layers.iter_mut().for_each(|count| *count += moved(entries.all.into()));
        for &(layer, difference) in &entries.differences {
            self.layers[layer as usize] += moved(difference.into());
        }
        held(&self.layers) - before
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
            windows in prop::option::of(prop::collection::vec(prop::option::of(1..60_u32), 5)),
        ) {
            let mut paging = Paging::new(1 << shift, 5, unified);
            let windows = windows.filter(|_| !unified).unwrap_or_else(|| vec![None; 5]);
            if !unified {
                paging = paging.windowed(windows.iter().copied());
            }
            let mut table = BlockTable::default();
            let mut naive = [0u32; 5];
            let blocks = |naive: &[u32; 5]| -> u64 {
                if unified {
                    naive.iter().sum::<u32>().div_ceil(1 << shift).into()
                } else {
                    let most = |window: &Option<u32>| window.map_or(u32::MAX, |window| window.div_ceil(1 << shift));
                    let of = |(count, window): (&u32, _)| u64::from(count.div_ceil(1 << shift).min(most(window)));
                    naive.iter().zip(&windows).map(of).sum()
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
