//! Many generated tokens added up layer by layer, with the layers side by side so that the loops run on vectors.
//!
//! A token of a routed batch takes a route of its own, so that nothing is shared but the layers: what a pass wants to
//! know is, for each layer, how many tokens run which branch there and how many entries they see. Each path keeps a row
//! of one number for each layer; four counters of eight bits share a number.

use super::{Context, Entries, Hop, Left, Skip};
use crate::trace::Modules;

const ATTENTION: u32 = 1;
const FEED_FORWARD: u32 = 1 << 8;
const BLOCK: u32 = 1 << 16;
const PROJECT: u32 = 1 << 24;

/// Tokens that fit the counters of eight bits.
const MOST_TOKENS: u32 = 255;

/// Entries of a sequence over all layers, hence at one layer too, with which the sum over [`MOST_TOKENS`] fits 32 bits.
const MOST_ENTRIES: u64 = 1 << 24;

/// What a path does at each layer of the pool, if a number for each layer says it all: each layer at most once and at
/// full width, no adapter, no mark of a router, nothing left behind as a state. `None` too where the route is so short in
/// a large pool that a row would be mostly zeros.
pub(super) fn row(hops: &[Hop], skips: &[Skip], layers: usize) -> Option<Box<[u32]>> {
    let plain =
        |hop: &Hop| hop.occurrence == 0 && hop.width == 1.0 && !hop.routed && hop.modules != Modules::Adapter;
    if !hops.iter().all(plain)
        || skips.iter().any(|skip| skip.left != Left::Projected)
        || layers > 4 * (hops.len() + skips.len())
    {
        return None;
    }
    let mut row = vec![0; layers];
    for hop in hops {
        row[hop.layer as usize] = match hop.modules {
            Modules::Block => ATTENTION + FEED_FORWARD + BLOCK,
            Modules::Attention => ATTENTION,
            Modules::FeedForward | Modules::Adapter => FEED_FORWARD,
        };
    }
    skips.iter().for_each(|skip| row[skip.layer as usize] += PROJECT);
    Some(row.into())
}

/// Tokens at one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtLayer {
    /// The layer.
    pub layer: u16,
    /// Tokens that take the attention branch.
    pub attention: u32,
    /// Tokens that take the feed-forward branch.
    pub feed_forward: u32,
    /// Tokens that take both.
    pub block: u32,
    /// Tokens whose K and V are projected although they skip the attention branch.
    pub project: u32,
    /// Entries that those who take the attention branch see there, their own not counted.
    pub seen: u64,
    /// Entries that the last token of a prompt to take the attention branch sees there, its own counted.
    pub last: u64,
}

/// Sums over at most 255 tokens, to be taken out when full.
#[derive(Clone, Debug, Default)]
pub struct LaneSums {
    counters: Vec<u32>,
    seen: Vec<u32>,
    tokens: u32,
    /// Entries at each layer, `held` and `held_all` together, as the tokens of a prompt pass.
    held: Vec<u32>,
    held_all: u32,
    last: Vec<u32>,
}

impl LaneSums {
    /// Whether tokens with this context, and up to `more` behind it, can be added.
    #[inline]
    pub fn takes(context: &Context, more: u32, layers: u32) -> bool {
        !context.has_pending() && context.total() + u64::from(more) * u64::from(layers) <= MOST_ENTRIES
    }

    /// Whether the sums must be taken out before `more` tokens.
    #[inline]
    pub fn is_full(&self, more: u32) -> bool {
        self.tokens + more > MOST_TOKENS
    }

    #[inline]
    fn begin(&mut self, layers: usize) {
        assert!(!self.is_full(1), "full sums are taken out");
        self.tokens += 1;
        self.counters.resize(layers, 0);
        self.seen.resize(layers, 0);
        self.last.resize(layers, 0);
    }

    /// Adds a generated token that takes `row` and sees at each layer what `context` holds there.
    #[inline]
    pub fn add(&mut self, row: &[u32], context: &Context) {
        self.begin(row.len());
        let lanes = self.counters.iter_mut().zip(&mut self.seen).zip(row);
        match context.by_layer() {
            (all, []) => {
                for ((counters, seen), &does) in lanes {
                    *counters += does;
                    *seen += all & attends(does);
                }
            }
            (all, differences) => {
                assert_eq!(differences.len(), row.len(), "one difference for each layer");
                for (((counters, seen), &does), &difference) in lanes.zip(differences) {
                    *counters += does;
                    *seen += all.wrapping_add_signed(difference) & attends(does);
                }
            }
        }
    }

    /// Tokens of a prompt come next, the first behind `context`.
    pub fn begin_prompt(&mut self, context: &Context, layers: usize) {
        let (all, differences) = context.by_layer();
        self.held_all = all;
        self.held.clear();
        self.held.extend(differences.iter().map(|&difference| difference as u32));
        self.held.resize(layers, 0);
        self.last.resize(layers, 0);
    }

    /// Adds the next token of the prompt: it takes `row`, sees what those before it left, and leaves `visible`.
    #[inline]
    pub fn add_prompt(&mut self, row: &[u32], visible: &Entries) {
        self.begin(row.len());
        let all = self.held_all;
        let lanes = self.counters.iter_mut().zip(&mut self.seen).zip(&mut self.last).zip(&self.held).zip(row);
        for ((((counters, seen), last), &held), &does) in lanes {
            let (here, attends) = (all.wrapping_add(held), attends(does));
            *counters += does;
            *seen += here & attends;
            *last = ((here + 1) & attends) | (*last & !attends);
        }
        self.held_all += visible.all;
        for &(layer, difference) in &visible.differences {
            let held = &mut self.held[layer as usize];
            *held = held.wrapping_add_signed(difference);
        }
    }

    /// Adds the next tokens of the prompt, which take these rows, where no token leaves more at one layer than at another:
    /// each leaves `all` at every layer. The same as one by one, with one load and one store of each sum for all of them.
    #[inline]
    pub fn add_four(&mut self, rows: [&[u32]; 4], all: u32) {
        self.begin(rows[0].len());
        self.tokens += 3;
        let [first, second, third, fourth] = rows;
        let rows = first.iter().zip(second).zip(third).zip(fourth);
        let before = self.held_all;
        let sums = self.counters.iter_mut().zip(&mut self.seen).zip(&mut self.last).zip(&self.held);
        for ((((counters, seen), last), &held), (((&first, &second), &third), &fourth)) in sums.zip(rows) {
            let here = held.wrapping_add(before);
            let [a, b, c, d] = [first, second, third, fourth].map(attends);
            *counters += first + second + third + fourth;
            let [second, third, fourth] = [here + all, here + 2 * all, here + 3 * all];
            *seen += (here & a) + (second & b) + (third & c) + (fourth & d);
            let newest = ((here + 1) & a) | (*last & !a);
            let newest = ((second + 1) & b) | (newest & !b);
            let newest = ((third + 1) & c) | (newest & !c);
            *last = ((fourth + 1) & d) | (newest & !d);
        }
        self.held_all += 4 * all;
    }

    /// Gives `to` the sums of every layer at which anything happens, layers ascending, and begins anew.
    pub fn take(&mut self, mut to: impl FnMut(AtLayer)) {
        if std::mem::take(&mut self.tokens) == 0 {
            return;
        }
        for (layer, counters) in self.counters.iter().enumerate().filter(|(_, counters)| **counters != 0) {
            let [attention, feed_forward, block, project] = counters.to_le_bytes().map(u32::from);
            let (seen, last) = (self.seen[layer].into(), self.last[layer].into());
            to(AtLayer { layer: layer as u16, attention, feed_forward, block, project, seen, last });
        }
        self.counters.fill(0);
        self.seen.fill(0);
        self.last.fill(0);
    }
}

/// All ones where the attention branch runs, else zero.
#[inline]
fn attends(does: u32) -> u32 {
    (does & ATTENTION).wrapping_neg()
}
