//! The KV cache: for each layer and sequence the entries that its tokens left there, one behind the other. A token that
//! leaves none at a layer leaves no gap either, so that what a query sees is always a run of entries from the first.

use super::device::{Buffer, Gpu};
use crate::error::{InputError, Result};
use crate::model::Model;
use std::cell::RefCell;

/// A token at a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    /// Row of the pass.
    pub row: u32,
    /// Slot of its sequence.
    pub sequence: u32,
    /// Whether it is one token of a generation.
    pub decode: bool,
    /// The entry it leaves; it sees those before it and its own. Where entries are listed, the row of the cache for its keys and values.
    pub entry: u32,
    /// Whether it leaves it: a token that only keeps a masked pass company does not.
    pub leaves: bool,
}

/// Entries of all layers; layers split over buffers where one cannot hold them all.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<(Buffer, u32)>,
    /// Entries of a layer.
    slots: u32,
    /// First entry of each sequence, in every layer.
    bases: Vec<u32>,
    capacities: Vec<u32>,
    /// Of each layer with a window and each sequence: position of the token that left each entry. A window is so many positions, and
    /// tokens that pass a layer by leave none there.
    positions: RefCell<Vec<Vec<u32>>>,
    windows: Vec<bool>,
    /// Whether one area holds the entries of all layers.
    unified: bool,
}

/// What a cache has room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room<'a> {
    /// Entries of each sequence: of a layer, or of all layers where one area holds them.
    pub capacities: &'a [u32],
    pub unified: bool,
    /// Rows behind all entries for keys and values that no later token sees.
    pub scratch: u32,
}

impl Cache {
    /// Room for so many entries a layer of each sequence.
    pub fn new(gpu: &Gpu, model: &Model, capacities: &[u32]) -> Result<Cache> {
        Cache::with_room(gpu, model, Room { capacities, unified: false, scratch: 0 })
    }

    /// Room for so many entries.
    ///
    /// # Errors
    /// Entries that do not fit.
    pub fn with_room(gpu: &Gpu, model: &Model, room: Room) -> Result<Cache> {
        let Room { capacities, unified, scratch } = room;
        let mut slots = 0u32;
        let mut bases = Vec::new();
        for &capacity in capacities {
            bases.push(slots);
            slots = slots.saturating_add(capacity);
        }
        let row_bytes = model.kv_dim() * 2 * 4;
        let layer_bytes = u64::from(slots.max(1)) * row_bytes;
        let most = gpu.info().max_binding_bytes.min(gpu.info().max_buffer_bytes);
        if layer_bytes > most {
            let what =
                format!("sequences whose KV entries of a layer take at most the {most} bytes of a buffer");
            return Err(InputError::expected(what).key("KV cache").found(layer_bytes).into());
        }
        let layers = if unified { 1 } else { model.layers };
        let more = u64::from(scratch) * row_bytes;
        let each = (most.saturating_sub(more) / layer_bytes).clamp(1, layers.into()) as u32;
        let mut shards = Vec::new();
        for first in (0..layers).step_by(each as usize) {
            let count = each.min(layers - first);
            shards.push((gpu.buffer("the KV cache", layer_bytes * u64::from(count) + more)?, first));
        }
        let windows: Vec<bool> = model.layer_kinds().map(|kind| kind.window.is_some()).collect();
        let positions = RefCell::new(vec![Vec::new(); windows.len() * capacities.len()]);
        Ok(Cache { shards, slots, bases, capacities: capacities.to_vec(), positions, windows, unified })
    }

    /// Whether one area holds the entries of all layers.
    pub fn unified(&self) -> bool {
        self.unified
    }

    /// The row for keys and values of a row of the pass that no later token sees, where there is one buffer.
    pub fn scratch(&self, row: u32) -> u32 {
        let layers = if self.unified { 1 } else { self.windows.len() as u32 };
        layers * self.slots.max(1) + row
    }

    /// Whether one buffer holds all entries.
    pub fn is_one(&self) -> bool {
        self.shards.len() <= 1
    }

    /// Where an entry stands: shard, and row of its buffer.
    pub fn at(&self, layer: u16, sequence: u32, entry: u32) -> (usize, u32) {
        assert!(
            entry < self.capacities[sequence as usize],
            "entry {entry} of sequence {sequence} is beyond its room"
        );
        let layer = if self.unified { 0 } else { layer };
        let shard = self.shard(layer);
        let within = u32::from(layer) - self.shards[shard].1;
        (shard, within * self.slots + self.bases[sequence as usize] + entry)
    }

    /// An entry is that of a token at this position. Noted again, it is the same.
    pub fn note(&self, layer: u16, sequence: u32, entry: u32, position: u32) {
        if !self.windows[usize::from(layer)] {
            return;
        }
        let mut all = self.positions.borrow_mut();
        let known = &mut all[usize::from(layer) * self.capacities.len() + sequence as usize];
        let entry = entry as usize;
        known.resize(known.len().max(entry + 1), position);
        known[entry] = position;
    }

    /// The first entry that a visit from this position sees: none is further back than a window, its own position included.
    pub fn first_within(&self, layer: u16, visit: &Visit, position: u32, window: u32) -> u32 {
        let all = self.positions.borrow();
        let known = &all[usize::from(layer) * self.capacities.len() + visit.sequence as usize];
        let before = &known[..known.len().min(visit.entry as usize)];
        before.partition_point(|&at| u64::from(at) + u64::from(window) <= u64::from(position)) as u32
    }

    /// Entries of a layer.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub fn shard(&self, layer: u16) -> usize {
        self.shards
            .iter()
            .rposition(|(_, first)| *first <= u32::from(layer))
            .expect("the first shard begins at 0")
    }

    pub fn buffer(&self, shard: usize) -> Buffer {
        self.shards[shard].0.clone()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|(buffer, _)| buffer.bytes()).sum()
    }
}
