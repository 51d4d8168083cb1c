//! Tokens that take sets of branches, added up layer by layer with the layers side by side, so that the loops run on vectors.
//!
//! Every token leaves an entry at every layer, so that all layers hold the same contexts, and the tokens that do not take an attention
//! branch are projected there.

use super::groups::{Group, Groups, Scores};
use super::view::View;
use crate::batch::{Context, Visibility};
use crate::trace::{TAKEN_LAYERS, Taken};

const LANES: usize = TAKEN_LAYERS as usize;

/// Layers that are added up at once: the bits of half a word.
const HALF: usize = 32;

/// The bit of each lane.
const BITS: [u32; HALF] = {
    let mut bits = [0; HALF];
    let mut lane = 0;
    while lane < HALF {
        bits[lane] = 1 << lane;
        lane += 1;
    }
    bits
};

/// Sums over tokens of one kind, generated or of prompts.
#[derive(Clone, Debug)]
struct Kind {
    attention: [u32; LANES],
    feed_forward: [u32; LANES],
    block: [u32; LANES],
    /// Entries that those see who take the attention branch, their own counted: what fits 32 bits, and the rest.
    seen: [u32; LANES],
    more: [u64; LANES],
    /// What `seen` still has room for.
    room: u32,
    /// Entries of prompts that are read.
    entries: [u64; LANES],
}

/// Sums over the tokens of a pass at each layer.
#[derive(Clone, Debug, Default)]
pub(super) struct SetSums {
    prompts: Kind,
    generated: Kind,
}

impl Default for Kind {
    fn default() -> Self {
        Kind {
            attention: [0; LANES],
            feed_forward: [0; LANES],
            block: [0; LANES],
            seen: [0; LANES],
            more: [0; LANES],
            room: u32::MAX,
            entries: [0; LANES],
        }
    }
}

impl Kind {
    /// Adds a token that sees so many entries, its own counted. `APART`: some tokens take one branch of a layer without the other; otherwise the
    /// attention branches count for all.
    #[inline]
    fn add<const APART: bool>(&mut self, taken: Taken, seen: u32, wide: bool) {
        if seen > self.room {
            self.make_room();
        }
        self.room -= seen;
        self.half::<APART, 0>(taken, seen);
        if wide {
            self.half::<APART, HALF>(taken, seen);
        }
    }

    /// The same at 32 layers from `FIRST` on.
    #[inline]
    fn half<const APART: bool, const FIRST: usize>(&mut self, taken: Taken, seen: u32) {
        let attention = (taken.attention >> FIRST) as u32;
        let counts = &mut self.attention[FIRST..FIRST + HALF];
        let sums = &mut self.seen[FIRST..FIRST + HALF];
        for ((count, sum), bit) in counts.iter_mut().zip(sums).zip(BITS) {
            let takes = mask(attention & bit);
            *count = count.wrapping_sub(takes);
            *sum += takes & seen;
        }
        if APART {
            let feed_forward = (taken.feed_forward >> FIRST) as u32;
            let counts = &mut self.feed_forward[FIRST..FIRST + HALF];
            let both = &mut self.block[FIRST..FIRST + HALF];
            for ((count, both), bit) in counts.iter_mut().zip(both).zip(BITS) {
                *count = count.wrapping_sub(mask(feed_forward & bit));
                *both = both.wrapping_sub(mask(attention & feed_forward & bit));
            }
        }
    }

    fn make_room(&mut self) {
        let seen = self.more.iter_mut().zip(&mut self.seen);
        seen.for_each(|(more, seen)| *more += u64::from(std::mem::take(seen)));
        self.room = u32::MAX;
    }

    /// What a prompt reads that begins behind `before` entries, with what its tokens take: at each layer all up to the last token that takes
    /// the attention branch.
    fn read(&mut self, before: u64, taken: &[Taken], mut left: u64) {
        for (index, token) in taken.iter().enumerate().rev() {
            let position = before + index as u64 + 1;
            let mut last = token.attention & left;
            left &= !last;
            while last != 0 {
                self.entries[last.trailing_zeros() as usize] += position;
                last &= last - 1;
            }
            if left == 0 {
                break;
            }
        }
    }

    /// Rows, pairs and entries at a layer.
    fn scores(&self, layer: usize, entries: u64) -> Scores {
        Scores { rows: self.attention[layer], pairs: self.pairs(layer), entries }
    }

    fn pairs(&self, layer: usize) -> u64 {
        self.more[layer] + u64::from(self.seen[layer])
    }
}

impl SetSums {
    #[inline]
    fn add<const APART: bool>(&mut self, view: &View) {
        let wide = view.layers > HALF as u32;
        let batch = view.batch;
        for span in &batch.spans {
            let before = before(&view.contexts[span.sequence as usize]);
            let taken = &batch.taken[span.first as usize..(span.first + span.tokens) as usize];
            let kind = if span.decode { &mut self.generated } else { &mut self.prompts };
            for (seen, &taken) in (before + 1..).zip(taken) {
                kind.add::<APART>(taken, seen, wide);
            }
            if !span.decode {
                kind.read(before.into(), taken, Taken::all(view.layers).attention);
            }
        }
        for &(before, taken) in batch.lockstep.iter().flat_map(|group| &group.each) {
            self.generated.add::<APART>(taken, before + 1, wide);
        }
    }
}

/// Entries that the next token of a sequence sees at every layer, its own not counted.
fn before(context: &Context) -> u32 {
    context.seen(0, Visibility::SameLayer) as u32
}

impl Groups {
    /// The groups of a pass whose tokens take some branches of their paths.
    pub fn of_sets(&mut self, view: &View) {
        let batch = view.batch;
        let tokens = batch
            .taken
            .iter()
            .chain(batch.lockstep.iter().flat_map(|group| group.each.iter().map(|(_, taken)| taken)));
        let apart = tokens.into_iter().any(|taken| taken.attention != taken.feed_forward);
        let mut sums = std::mem::take(&mut self.set_sums);
        *sums = SetSums::default();
        if apart {
            sums.add::<true>(view)
        } else {
            sums.add::<false>(view)
        }
        let SetSums { prompts, generated } = &*sums;
        for layer in 0..view.layers as usize {
            let mut group = Group::new(0, layer as u16, self.longest.list());
            let both = |of: fn(&Kind) -> &[u32; LANES]| of(prompts)[layer] + of(generated)[layer];
            group.attention = both(|kind| &kind.attention);
            group.feed_forward = if apart { both(|kind| &kind.feed_forward) } else { group.attention };
            group.block = if apart { both(|kind| &kind.block) } else { group.attention };
            group.project = batch.tokens() - group.attention;
            group.widest = if group.feed_forward > 0 { 1.0 } else { 0.0 };
            group.prefill = prompts.scores(layer, prompts.entries[layer]);
            group.decode = generated.scores(layer, generated.pairs(layer));
            self.groups.push(group);
        }
        self.set_sums = sums;
        if !self.longest.is_off() {
            self.longest_of_sets(view);
        }
    }

    /// The longest contexts of generated tokens at each layer.
    fn longest_of_sets(&mut self, view: &View) {
        let batch = view.batch;
        let single =
            batch.spans.iter().filter(|span| span.decode).map(|span| {
                (before(&view.contexts[span.sequence as usize]), batch.taken[span.first as usize])
            });
        for (before, taken) in
            single.chain(batch.lockstep.iter().flat_map(|group| group.each.iter().copied()))
        {
            for group in &self.groups {
                if taken.attention >> group.layer & 1 == 1 {
                    self.longest.insert(group.longest, u64::from(before) + 1);
                }
            }
        }
    }
}

/// All ones where a bit is set, else zero.
#[inline]
fn mask(bit: u32) -> u32 {
    if bit == 0 { 0 } else { u32::MAX }
}
