//! The attention branch of a pass.

use super::cache::Visit;
use super::ledger::State;
use super::ops::{ACTIVATIONS, Rows};
use super::ops_attention::{Scored, Turned};
use super::pass::{Taken, Work, segments};
use super::plan::{Group, beside};
use crate::error::Result;
use crate::kernel::Attention;
use crate::lower::Cause;
use crate::model::NormPlacement;

/// A row of a call, with its layer and its visit.
type Row = (u32, u16, Visit);

/// Keys and values of a row, and the entry that they become.
#[derive(Clone, Copy, Debug)]
struct Written {
    layer: u16,
    sequence: u32,
    position: u32,
    entry: u32,
    leaves: bool,
    /// Whether the entry is named by its row of the cache.
    listed: bool,
}

impl<'a> Work<'a, '_, '_> {
    /// K and V of tokens that skip the attention branch, and of earlier ones whose states wait for it.
    pub(super) fn project(&mut self, groups: &[Group]) -> Result<()> {
        let count = |group: &Group| group.project.len() + group.waiting.len();
        let taking: Vec<&Group> = groups.iter().filter(|group| count(group) > 0).collect();
        if taking.is_empty() {
            return Ok(());
        }
        self.ops.cause = Cause::Kv;
        let (mut written, mut states) = (Vec::new(), Vec::new());
        for group in &taking {
            for visit in &group.project {
                written.push(self.written(group, visit));
                states.push(State::Row(visit.row, 0));
            }
            for waiting in &group.waiting {
                let (entry, position) = (waiting.entry.at, waiting.entry.position);
                let (layer, sequence) = (group.layer, waiting.sequence);
                written.push(Written { layer, sequence, position, entry, leaves: true, listed: true });
                states.push(waiting.state);
            }
        }
        let segments = segments(&taking, count);
        let (exec, model, hidden) = (self.exec, &self.exec.model, self.hidden());
        let (q_dim, kv_dim) = (model.q_dim() as u32, model.kv_dim() as u32);
        // States of earlier tokens are nowhere side by side, and these or one state at many layers may be more than a pass has rows.
        let (x, to, kv) = if beside(groups, exec.options.pass_tokens) {
            let to = Rows { buffer: &exec.states.normed, stride: hidden };
            (self.gather_states(&states)?, to, &exec.states.keys_values)
        } else {
            let rows = taking.iter().flat_map(|group| group.project.iter().map(|visit| visit.row));
            (self.gather(taking.len(), rows.collect())?.x, self.normed_rows(), &exec.buffers.qkv)
        };
        let normed = self.norm_before(self.exec.pool.attention_norms.as_ref(), &segments, x, to)?;
        let kv = Rows { buffer: kv, stride: 2 * kv_dim };
        self.ops.matmul(&self.exec.pool.qkv, q_dim..q_dim + 2 * kv_dim, &segments, normed, kv)?;
        self.place_heads(&written, [0, model.kv_heads as u32], segments.len() as u32, kv)?;
        self.kv_write(&written, kv, 0)
    }

    fn written(&self, group: &Group, visit: &Visit) -> Written {
        Written {
            layer: group.layer,
            sequence: visit.sequence,
            position: self.positions[visit.row as usize],
            entry: visit.entry,
            leaves: visit.leaves,
            listed: group.listed,
        }
    }

    /// Returns the rows that stay gathered for the feed-forward branch.
    pub(super) fn attention(&mut self, groups: &[Group], together: bool) -> Result<Option<Taken<'a>>> {
        let (exec, model) = (self.exec, &self.exec.model);
        let pool = &exec.pool;
        let taking: Vec<&Group> = groups.iter().filter(|group| !group.attention.is_empty()).collect();
        let visits: Vec<(u16, Visit)> = taking
            .iter()
            .flat_map(|group| group.attention.iter().map(|visit| (group.layer, *visit)))
            .collect();
        let segments = segments(&taking, |group| group.attention.len());
        self.ops.cause = Cause::Move;
        let mut taken = self.gather(taking.len(), visits.iter().map(|(_, visit)| visit.row).collect())?;
        let x = taken.x;
        self.ops.cause = Cause::Attention;
        let (hidden, q_dim, kv_dim) = (self.hidden(), model.q_dim() as u32, model.kv_dim() as u32);
        let to = self.normed_rows();
        let normed = self.norm_before(pool.attention_norms.as_ref(), &segments, x, to)?;
        if together {
            taken.normed = match model.placement {
                NormPlacement::Parallel => Some(normed),
                NormPlacement::ParallelEach => {
                    let to = Rows { buffer: &exec.buffers.ahead, stride: hidden };
                    Some(self.norm_before(pool.ffn_norms.as_ref(), &segments, x, to)?)
                }
                _ => None,
            };
        }
        let qkv = Rows { buffer: &exec.buffers.qkv, stride: q_dim + 2 * kv_dim };
        self.ops.matmul(&pool.qkv, 0..q_dim + 2 * kv_dim, &segments, normed, qkv)?;
        let heads = [model.heads as u32, model.kv_heads as u32];
        let written: Vec<Written> = taking
            .iter()
            .flat_map(|group| group.attention.iter().map(|visit| self.written(group, visit)))
            .collect();
        self.place_heads(&written, heads, segments.len() as u32, qkv)?;
        self.kv_write(&written, qkv, q_dim)?;
        let attended = Rows { buffer: &exec.buffers.attended, stride: q_dim };
        for decode in [false, true] {
            if taking[0].listed {
                self.listed_scores(&taking, decode, qkv, attended)?;
            } else {
                self.scores(&visits, decode, qkv, attended)?;
            }
        }
        let branch = Rows { buffer: &exec.buffers.branch, stride: hidden };
        self.ops.matmul(&pool.output, 0..hidden, &segments, attended, branch)?;
        let mask = groups[0].masks.as_ref().map(|masks| masks.of(0));
        let weights = taking.iter().flat_map(|group| group.weights.iter().copied()).collect();
        let norms = [pool.attention_after.as_ref(), pool.attention_norms.as_ref()];
        self.add(&segments, branch, x, (mask, weights), norms, 0)?;
        match taken.moved {
            Some(indices) if !together => {
                self.ops.cause = Cause::Move;
                self.ops.scatter(&indices, hidden, x, exec.stream())?;
                Ok(None)
            }
            moved if together => Ok(Some(Taken { moved, ..taken })),
            _ => Ok(None),
        }
    }

    /// Norms and rotations of `[queries, keys]` heads, which stand at the begin of each row.
    fn place_heads(&mut self, written: &[Written], heads: [u32; 2], groups: u32, values: Rows) -> Result<()> {
        let (exec, rows) = (self.exec, written.len() as u32);
        if let Some(norms) = &exec.pool.head_norms {
            let layers = self.ops.list(written.iter().map(|row| u32::from(row.layer)));
            self.ops.head_norm(norms, (layers, rows, groups), heads, values)?;
        }
        let model = &exec.model;
        let kind = |layer: u16| model.kind(layer.into());
        if written.iter().all(|row| model.rope_of(kind(row.layer)).is_none()) {
            return Ok(());
        }
        let turn = |row: &Written| exec.angles.row(kind(row.layer), row.sequence, row.position);
        let turns: Vec<u32> = written.iter().map(turn).collect();
        let at = self.ops.list(turns);
        let shape = [rows, heads[0] + heads[1], model.head_dim as u32];
        self.ops.rope(self.turned(), at, shape, values)
    }

    pub(super) fn turned(&self) -> Turned<'a> {
        let angles = &self.exec.angles;
        Turned { angles: &angles.buffer, half: angles.half, interleaved: angles.interleaved }
    }

    pub(super) fn scored(&self) -> Scored {
        let model = &self.exec.model;
        Scored { scale: model.attention_scale(), cap: model.scales.attention_cap, listed: false }
    }

    /// An attention call of the model.
    pub(super) fn shape(&self, rows: u32, decode: bool, pairs: u64, entries: u64) -> Attention {
        let model = &self.exec.model;
        Attention {
            rows,
            heads: model.heads as u16,
            kv_heads: model.kv_heads as u16,
            head_dim: model.head_dim as u16,
            decode,
            beside: 0,
            waits: 0,
            pairs,
            entries,
            activations: ACTIVATIONS,
            kv: ACTIVATIONS,
        }
    }

    fn kv_write(&mut self, written: &[Written], from: Rows, column: u32) -> Result<()> {
        let cache = &self.exec.cache;
        for row in written.iter().filter(|row| row.leaves && !row.listed) {
            cache.note(row.layer, row.sequence, row.entry, row.position);
        }
        let place = |row: &Written| match row.listed {
            true => (0, row.entry),
            false => cache.at(row.layer, row.sequence, row.entry),
        };
        let places: Vec<(usize, u32)> = written.iter().map(place).collect();
        let mut shards: Vec<usize> = places.iter().map(|(shard, _)| *shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let mut parts = Vec::new();
        for shard in shards {
            // Rows of other buffers, and those that leave nothing, are passed over.
            let entry = |(row, (at, entry)): (&Written, &(usize, u32))| {
                if *at == shard && row.leaves { *entry } else { u32::MAX }
            };
            let entries: Vec<u32> = written.iter().zip(&places).map(entry).collect();
            parts.push((cache.buffer(shard), self.ops.list(entries)));
        }
        let width = 2 * self.exec.model.kv_dim() as u32;
        self.ops.kv_write(written.len() as u32, width, from, column, &parts)
    }

    /// The first entry that a visit sees: with a window, the first of a position within it.
    fn first_seen(&self, layer: u16, visit: &Visit) -> u32 {
        let position = self.positions[visit.row as usize];
        match self.exec.model.kind(layer.into()).window {
            None => 0,
            Some(window) => self.exec.cache.first_within(layer, visit, position, window),
        }
    }

    fn scores(&mut self, visits: &[(u16, Visit)], decode: bool, queries: Rows, to: Rows) -> Result<()> {
        let rows: Vec<Row> = (0..)
            .zip(visits)
            .filter(|(_, (_, visit))| visit.decode == decode)
            .map(|(row, (layer, visit))| (row, *layer, *visit))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let cache = &self.exec.cache;
        let mut parts = Vec::new();
        let (mut entries, mut pairs, mut longest) = (0, 0, 0);
        for of_shard in rows.chunk_by(|a, b| cache.shard(a.1) == cache.shard(b.1)) {
            let (mut numbers, mut count) = (Vec::new(), 0);
            // Rows of one sequence at one layer share its entries.
            for shared in of_shard.chunk_by(|a, b| (a.1, a.2.sequence) == (b.1, b.2.sequence)) {
                let (_, layer, visit) = shared[0];
                let base = cache.at(layer, visit.sequence, 0).1;
                // From which entry on, up to which one.
                let sees = |(_, layer, visit): &Row| (self.first_seen(*layer, visit), visit.entry + 1);
                let seen: Vec<(u32, u32)> = shared.iter().map(sees).collect();
                pairs += seen.iter().map(|(from, end)| u64::from(end - from)).sum::<u64>();
                let first = seen.iter().map(|(from, _)| *from).min().unwrap_or(0);
                let end = seen.iter().map(|(_, end)| *end).max().unwrap_or(0);
                if decode {
                    entries += seen.iter().map(|(from, end)| u64::from(end - from)).sum::<u64>();
                    longest = seen.iter().map(|(from, end)| end - from).fold(longest, u32::max);
                    let row = |(row, (from, end)): (&Row, &(u32, u32))| [row.0, base + from, end - from, 0];
                    numbers.extend(shared.iter().zip(&seen).flat_map(row));
                    count += shared.len() as u32;
                } else {
                    entries += u64::from(end - first);
                    longest = longest.max(end - first);
                    for (eight, seen) in shared.chunks(8).zip(seen.chunks(8)) {
                        // The last row fills the tile.
                        let at = |index: usize| index.min(eight.len() - 1);
                        numbers.extend((0..8).map(|index| eight[at(index)].0));
                        numbers.push(base);
                        numbers.extend((0..8).map(|index| seen[at(index)].1));
                        numbers.extend((0..8).map(|index| seen[at(index)].0));
                        count += 1;
                    }
                }
            }
            let shard = cache.shard(of_shard[0].1);
            parts.push((cache.buffer(shard), self.ops.list(numbers), count));
        }
        let beside = if decode { (visits.len() - rows.len()) as u32 } else { 0 };
        let shape = Attention { beside, ..self.shape(rows.len() as u32, decode, pairs, entries) };
        self.ops.attention(shape, self.scored(), longest, &parts, queries, to)
    }
}
