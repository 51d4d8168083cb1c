//! What each sequence holds in the cache, entry by entry, where entries are no run one behind the other: entries of other layers that
//! serve, entries that wait for their values, states that somebody will go on from, one cache for all layers.

use super::cache::Cache;
use crate::batch::{Left, Path, Visibility};
use crate::error::{InputError, Result};
use crate::model::Model;
use std::collections::BTreeMap;

/// An entry that tokens see: the row of the cache where it stands, and the position of the token that left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub at: u32,
    pub position: u32,
}

/// Where a state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In the stream of this pass: its row, as it is before this hop of its route.
    Row(u32, u32),
    /// Among the states that are kept from pass to pass.
    Kept(u32),
}

/// An entry that later tokens see already, and whose values are projected from a state that its token left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub sequence: u32,
    pub entry: Entry,
    pub state: State,
}

/// Who takes a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub row: u32,
    pub sequence: u32,
    pub position: u32,
}

/// What a visit of a layer meets there.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    /// Rows of the cache that it sees, that of its own keys and values last.
    pub seen: Vec<u32>,
    /// Entries that are projected before.
    pub waiting: Vec<Waiting>,
}

/// What a token does to the cache.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// For each hop; `None` where the attention branch does not run.
    pub hops: Vec<Option<Met>>,
    /// Entries that are projected at skipped layers, by number of the skip.
    pub projected: BTreeMap<usize, u32>,
}

/// How entries are to be listed.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub visibility: Visibility,
    /// For each sequence: the positions that a later run goes on from.
    pub again: Vec<Vec<bool>>,
    /// Whether rows of a pass need a place for keys and values that nobody else sees.
    pub scratch: bool,
}

/// Entries and states of all sequences.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    visibility: Visibility,
    held: Vec<Held>,
    /// How many entries wait for each kept state; 0: its place is free.
    uses: Vec<u32>,
    /// Places that become free when the pass is over.
    freed: Vec<u32>,
}

/// Those of a sequence.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Of each layer, in the order in which they were left.
    layers: Vec<Vec<Entry>>,
    /// Of each token, in the order of its route.
    tokens: Vec<Vec<Entry>>,
    /// Entries with values: of each layer, or of all where the cache is one for all.
    stored: Vec<u32>,
    waiting: Vec<Vec<Waiting>>,
    again: Vec<bool>,
    /// Kept state of each position that a later run goes on from.
    left: BTreeMap<u32, u32>,
}

impl Ledger {
    /// Nothing is held yet.
    pub fn new(listing: Listing, layers: u32) -> Ledger {
        let held = |again| Held {
            layers: vec![Vec::new(); layers as usize],
            stored: vec![0; layers as usize],
            waiting: vec![Vec::new(); layers as usize],
            again,
            ..Held::default()
        };
        let held = listing.again.into_iter().map(held).collect();
        Ledger { visibility: listing.visibility, held, uses: Vec::new(), freed: Vec::new() }
    }

    /// Places of kept states that were ever needed.
    pub fn places(&self) -> u32 {
        self.uses.len() as u32
    }

    /// Rows of the cache that a token sees at a layer where it has left so many entries before, its own not among them.
    pub fn seen(&self, model: &Model, token: Token, layer: u16, own_before: u32) -> Vec<u32> {
        let held = &self.held[token.sequence as usize];
        let window = model.kind(layer.into()).window.map(u64::from);
        let position = u64::from(token.position);
        let sees = |entry: &&Entry| {
            let at = u64::from(entry.position);
            at <= position && window.is_none_or(|window| at + window > position)
        };
        let before = held.tokens.iter().take(token.position as usize);
        match self.visibility {
            Visibility::SameLayer => {
                held.layers[usize::from(layer)].iter().filter(sees).map(|entry| entry.at).collect()
            }
            Visibility::OnePerToken => before
                .filter_map(|entries| entries.get(own_before as usize).or(entries.last()))
                .filter(sees)
                .map(|entry| entry.at)
                .collect(),
            Visibility::AllEntries => {
                let own = held.tokens.get(token.position as usize);
                before.chain(own).flatten().filter(sees).map(|entry| entry.at).collect()
            }
        }
    }

    /// A token takes a path, `again` where it goes on from the state that it left.
    ///
    /// # Errors
    /// An entry that another one of the token shall serve for, where it left none.
    pub fn walk(&mut self, cache: &Cache, model: &Model, token: Token, path: &Path) -> Result<Walked> {
        let (sequence, position) = (token.sequence as usize, token.position);
        let of = &mut self.held[sequence].tokens;
        of.resize(of.len().max(position as usize + 1), Vec::new());
        let mut walked = Walked::default();
        // Entries with values that the token left, with their layers.
        let mut own: Vec<(u16, Entry)> = Vec::new();
        for hop in &path.hops {
            if !hop.modules.attention() {
                walked.hops.push(None);
                continue;
            }
            let waiting = std::mem::take(&mut self.held[sequence].waiting[usize::from(hop.layer)]);
            waiting.iter().for_each(|waiting| self.project(waiting));
            let mut seen = self.seen(model, token, hop.layer, hop.own_before);
            let entry = match hop.left {
                Left::Entry => self.store(cache, token, hop.layer),
                _ => Entry { at: cache.scratch(token.row), position },
            };
            seen.push(entry.at);
            walked.hops.push(Some(Met { seen, waiting }));
            match hop.left {
                Left::Entry => {
                    own.push((hop.layer, entry));
                    self.show(token, hop.layer, entry);
                }
                Left::Shared => {
                    let here = own.iter().rev().find(|(layer, _)| *layer == hop.layer).or(own.last());
                    let first = self.held[sequence].tokens[position as usize].last();
                    let serves = here.map(|(_, entry)| *entry).or(first.copied());
                    self.show(token, hop.layer, serves.ok_or_else(|| nothing_serves(hop.layer))?);
                }
                Left::Projected | Left::Copied | Left::Nothing => {}
            }
        }
        for layer in 0..model.layers as u16 {
            let by_hops = path.hops.iter().filter(|hop| hop.layer == layer && hop.left.visible()).count();
            let skip = path.skips.iter().position(|skip| skip.layer == layer);
            match skip.map(|at| (at, path.skips[at])) {
                Some((at, skip)) => {
                    let entry = self.store(cache, token, layer);
                    self.show(token, layer, entry);
                    if skip.left == Left::Copied {
                        let state = State::Row(token.row, skip.before);
                        let waiting = Waiting { sequence: token.sequence, entry, state };
                        self.held[sequence].waiting[usize::from(layer)].push(waiting);
                    } else {
                        own.push((layer, entry));
                        walked.projected.insert(at, entry.at);
                    }
                }
                None if path.visible.at(layer) as usize > by_hops => {
                    let below = own.iter().filter(|(other, _)| *other < layer);
                    let (_, entry) =
                        below.max_by_key(|(other, _)| *other).ok_or_else(|| nothing_serves(layer))?;
                    self.show(token, layer, *entry);
                }
                None => {}
            }
        }
        Ok(walked)
    }

    /// A token visits a layer, behind its visits so far: the rows of the cache that it sees, that of its own keys and values last.
    pub fn visit(&mut self, cache: &Cache, model: &Model, token: Token, layer: u16) -> Vec<u32> {
        let own = self.held[token.sequence as usize].tokens.get(token.position as usize);
        let mut seen = self.seen(model, token, layer, own.map_or(0, Vec::len) as u32);
        seen.push(self.note(cache, token, layer));
        seen
    }

    /// A token leaves an entry at a layer, behind those that it left so far. Returns its row of the cache.
    pub fn note(&mut self, cache: &Cache, token: Token, layer: u16) -> u32 {
        let of = &mut self.held[token.sequence as usize].tokens;
        of.resize(of.len().max(token.position as usize + 1), Vec::new());
        let entry = self.store(cache, token, layer);
        self.show(token, layer, entry);
        entry.at
    }

    /// The row of the cache where the next entry of a sequence will stand, where one area holds those of all layers.
    pub fn next(&self, cache: &Cache, sequence: u32) -> u32 {
        cache.at(0, sequence, self.held[sequence as usize].stored[0]).1
    }

    /// The place of the state that a token left, from which it goes on.
    ///
    /// # Errors
    /// A token that has not passed.
    pub fn back(&self, token: Token) -> Result<u32> {
        let held = &self.held[token.sequence as usize];
        held.left.get(&token.position).copied().ok_or_else(|| {
            InputError::expected("a position that has passed").key("recompute").found(token.position).into()
        })
    }

    /// The place where the state with which a token leaves is kept, if a later run goes on from it.
    pub fn leave(&mut self, token: Token) -> Option<u32> {
        let held = &self.held[token.sequence as usize];
        if !held.again.get(token.position as usize).is_some_and(|&again| again) {
            return None;
        }
        let place = self.place();
        let before = self.held[token.sequence as usize].left.insert(token.position, place);
        self.freed.extend(before);
        Some(place)
    }

    /// Entries that still wait for values when the pass is over: their states are kept from now on. Returns row, hop before which its
    /// state is the one, and place.
    pub fn keep(&mut self) -> Vec<(u32, u32, u32)> {
        let mut places: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for sequence in 0..self.held.len() {
            for layer in 0..self.held[sequence].waiting.len() {
                for index in 0..self.held[sequence].waiting[layer].len() {
                    let State::Row(row, before) = self.held[sequence].waiting[layer][index].state else {
                        continue;
                    };
                    let place = match places.get(&(row, before)) {
                        Some(&place) => {
                            self.uses[place as usize] += 1;
                            place
                        }
                        None => self.place(),
                    };
                    places.insert((row, before), place);
                    self.held[sequence].waiting[layer][index].state = State::Kept(place);
                }
            }
        }
        // What was read in this pass may be written in the next.
        for place in std::mem::take(&mut self.freed) {
            self.uses[place as usize] -= 1;
        }
        places.into_iter().map(|((row, before), place)| (row, before, place)).collect()
    }

    /// A place that nobody reads, for one who does.
    fn place(&mut self) -> u32 {
        let free = self.uses.iter().position(|&uses| uses == 0);
        let place = free.unwrap_or(self.uses.len());
        self.uses.resize(self.uses.len().max(place + 1), 0);
        self.uses[place] = 1;
        place as u32
    }

    fn project(&mut self, waiting: &Waiting) {
        if let State::Kept(place) = waiting.state {
            self.freed.push(place);
        }
    }

    /// Room for an entry with values.
    fn store(&mut self, cache: &Cache, token: Token, layer: u16) -> Entry {
        let held = &mut self.held[token.sequence as usize];
        let count = &mut held.stored[if cache.unified() { 0 } else { usize::from(layer) }];
        let (_, at) = cache.at(layer, token.sequence, *count);
        *count += 1;
        Entry { at, position: token.position }
    }

    /// Later tokens see an entry at a layer.
    fn show(&mut self, token: Token, layer: u16, entry: Entry) {
        let held = &mut self.held[token.sequence as usize];
        held.layers[usize::from(layer)].push(entry);
        held.tokens[token.position as usize].push(entry);
    }
}

fn nothing_serves(layer: u16) -> crate::error::Error {
    let what = "an earlier layer where the token left keys and values, which serve";
    InputError::expected(what).key("route").found(format!("`share` at layer {layer}")).into()
}
