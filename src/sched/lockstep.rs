//! Sequences that generate in lockstep, counted rather than listed.
//!
//! Whoever generates on one route to its end takes the same path in every pass, sees one entry more each time, and needs new
//! KV blocks each time that its last ones are full. Such sequences form a group. A pass with a group costs what changes in it:
//! sums move on by one a sequence, the blocks are looked up by where everybody stands in a block, and those who end are the
//! first of a queue. What a member's own books say is brought up to date when it leaves: at its end, or when the group
//! is dissolved because blocks or the budget do not suffice for all.

use super::{PassEnd, Scheduler};
use crate::batch::{self, Batch, Paths};
use crate::trace::Taken;
use crate::units::SimTime;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

/// Whether sequences may form groups, and what forming them needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Together {
    /// KV blocks that a token of any path may need, at most.
    pub blocks_of_a_token: u64,
    /// How many of the longest contexts are wanted.
    pub longest: usize,
}

/// When a sequence joined its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    path: u32,
    clock: u64,
    energy_pj: u128,
}

/// A member that takes branches of its own.
#[derive(Debug)]
struct Taker {
    slot: u32,
    start: i64,
    taken: Arc<[Taken]>,
}

/// The sequences on one path whose latest tokens came out at the same time.
#[derive(Debug)]
pub(super) struct Company {
    path: u32,
    count: u32,
    /// Passes since the group began.
    clock: u64,
    /// End of the latest.
    latest: SimTime,
    /// Positions that have passed, over all members.
    positions: u64,
    /// Members by their KV entries at a layer less the clock, modulo the block: where in a block they stand.
    standing: Vec<u32>,
    /// Layers at which a token leaves an entry.
    stores: u64,
    /// Members by the clock at which they leave, then by their order.
    ends: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Members by their positions less the clock, where the longest contexts are wanted.
    starts: BTreeSet<(i64, u32)>,
    /// Members with their positions less the clock, where each takes branches of its own.
    takers: Vec<Taker>,
    /// What a member that was there from the beginning has got.
    energy_pj: u128,
}

impl Company {
    fn new(path: u32, latest: SimTime, block: u32, stores: u64) -> Self {
        Company {
            path,
            count: 0,
            clock: 0,
            latest,
            positions: 0,
            standing: vec![0; block as usize],
            stores,
            ends: BinaryHeap::new(),
            starts: BTreeSet::new(),
            takers: Vec::new(),
            energy_pj: 0,
        }
    }

    /// Where in `standing` somebody belongs that has so many entries at a layer now.
    fn place(&self, entries: u64) -> usize {
        let block = self.standing.len() as u64;
        ((entries + block - self.clock % block) % block) as usize
    }

    /// Members whose next token begins a block.
    fn begin_blocks(&self) -> u32 {
        self.standing[self.place(0)]
    }

    /// What of the group is in a pass.
    fn in_pass(&self, longest: usize) -> batch::Lockstep {
        let takes = |taker: &Taker| {
            let position = (taker.start + self.clock as i64) as u32;
            (position, taker.taken[position as usize])
        };
        let each = self.takers.iter().map(takes).collect();
        let of = |&(start, _): &(i64, u32)| u32::try_from(start + self.clock as i64 + 1).unwrap_or(u32::MAX);
        let longest = self.starts.iter().rev().take(longest).map(of).collect();
        batch::Lockstep { path: self.path, count: self.count, positions: self.positions, longest, each }
    }
}

impl Scheduler<'_> {
    /// Sequences that generate on one path may be counted rather than listed.
    pub fn with_lockstep(self, together: Option<Together>) -> Self {
        Scheduler { together, ..self }
    }

    /// Members of all groups.
    pub(super) fn in_groups(&self) -> usize {
        self.groups.iter().map(|group| group.count as usize).sum()
    }

    /// Every group takes its tokens and the blocks for them, if budget and blocks suffice for it and for whoever else generates; otherwise the
    /// groups are dissolved, and their members take theirs one by one.
    pub(super) fn advance_groups(&mut self, budget: &mut u32, paths: &Paths, batch: &mut Batch) {
        let Some(together) = self.together.filter(|_| !self.groups.is_empty()) else { return };
        let (inside, outside) = (self.in_groups() as u64, self.running.len() as u64);
        let blocks = |group: &Company| u64::from(group.begin_blocks()) * group.stores;
        let needed = self.groups.iter().map(blocks).sum::<u64>() + outside * together.blocks_of_a_token;
        if u64::from(*budget) < inside + outside || needed > self.available() {
            self.dissolve(paths);
            return;
        }
        for index in 0..self.groups.len() {
            let (members, blocks) = (self.groups[index].begin_blocks(), self.groups[index].stores);
            for _ in 0..members {
                assert!(self.make_room(blocks, paths), "blocks were counted");
                self.blocks.take(blocks).expect("there is room");
            }
            batch.lockstep.push(self.groups[index].in_pass(together.longest));
        }
        *budget -= inside as u32;
    }

    /// The pass is over: every group that was in it moves on, and those who are at their end leave.
    pub(super) fn complete_groups(
        &mut self,
        now: SimTime,
        batch: &Batch,
        paths: &Paths,
        outcome: &mut PassEnd,
    ) {
        if batch.lockstep.is_empty() {
            return;
        }
        for index in 0..self.groups.len() {
            let group = &mut self.groups[index];
            let stored = u64::from(paths.get(group.path).stored.total);
            group.clock += 1;
            group.positions += u64::from(group.count);
            outcome.output_tokens += group.count;
            outcome.gap(now - group.latest, group.count);
            group.latest = now;
            self.held_entries += u64::from(group.count) * stored;
            while let Some(&Reverse((clock, _, slot))) = self.groups[index].ends.peek()
                && clock == self.groups[index].clock
            {
                self.groups[index].ends.pop();
                self.leave_group(slot, paths);
                if self.sequence(slot).is_over() {
                    outcome.finished.push(slot);
                } else {
                    self.line_up(slot);
                }
            }
        }
        self.groups.retain(|group| group.count > 0);
    }

    /// A sequence that has just put a token out joins the group of its path, if it generates on that path to its end and nothing tells it from
    /// the others but its length.
    pub(super) fn join_group(&mut self, slot: u32, now: SimTime, paths: &Paths) -> bool {
        let Some(together) = self.together else { return false };
        let sequence = self.sequence(slot);
        let Some((index, tokens)) = sequence.on_one_path().filter(|_| sequence.latest == now) else {
            return false;
        };
        let (path, context) = (paths.get(index), &self.contexts[slot as usize]);
        let Some(entries) = sequence.table.entries_where(&path.stored, &self.paging) else { return false };
        if tokens == 0 || !path.steady || !context.sees_all(path) {
            return false;
        }
        let place = match self.groups.iter().position(|group| group.path == index) {
            Some(place) if self.groups[place].latest != now => return false,
            Some(place) => place,
            None => {
                let block = self.serving.kv_block_tokens;
                self.groups.push(Company::new(index, now, block, path.stored.total.into()));
                self.groups.len() - 1
            }
        };
        let (group, positions) = (&mut self.groups[place], context.tokens());
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        let standing = group.place(entries);
        group.count += 1;
        group.positions += u64::from(positions);
        group.standing[standing] += 1;
        let (clock, energy_pj) = (group.clock, group.energy_pj);
        let start = i64::from(positions) - clock as i64;
        if together.longest > 0 {
            group.starts.insert((start, slot));
        }
        if let Some(taken) = sequence.taken.clone() {
            group.takers.push(Taker { slot, start, taken });
        }
        group.ends.push(Reverse((clock + u64::from(tokens), sequence.order, slot)));
        sequence.joined = Some(Joined { path: index, clock, energy_pj });
        true
    }

    /// A member leaves its group, its books up to date.
    fn leave_group(&mut self, slot: u32, paths: &Paths) {
        let (_, sequence) = self.slots[slot as usize].as_mut().expect("an occupied slot");
        let joined = sequence.joined.take().expect("a member of a group");
        let group = self.groups.iter_mut().find(|group| group.path == joined.path).expect("its group");
        let tokens = (group.clock - joined.clock) as u32;
        let (path, context) = (paths.get(joined.path), &mut self.contexts[slot as usize]);
        sequence.energy_pj += group.energy_pj - joined.energy_pj;
        if tokens > 0 {
            sequence.latest = group.latest;
            sequence.take_tokens(tokens);
            sequence.table.add(&path.stored, tokens, &self.paging);
            context.advance(path, tokens, self.layers);
        }
        let entries =
            sequence.table.entries_where(&path.stored, &self.paging).expect("layers that keep step");
        let standing = group.place(entries);
        group.count -= 1;
        group.positions -= u64::from(context.tokens());
        group.standing[standing] -= 1;
        if let Some(place) = group.takers.iter().position(|taker| taker.slot == slot) {
            group.takers.swap_remove(place);
        }
        group.starts.remove(&(i64::from(context.tokens()) - group.clock as i64, slot));
    }

    /// All groups end; their members run on one by one.
    pub(super) fn dissolve(&mut self, paths: &Paths) {
        if self.groups.is_empty() {
            return;
        }
        let ends = self.groups.iter().flat_map(|group| &group.ends);
        let members: Vec<u32> = ends.map(|&Reverse((_, _, slot))| slot).collect();
        for &slot in &members {
            self.leave_group(slot, paths);
        }
        self.groups.clear();
        let mut running = std::mem::take(&mut self.running);
        running.extend(members);
        running.sort_by_key(|&slot| self.sequence(slot).order);
        self.running = running;
    }

    /// Takes its place among those that run one by one.
    fn line_up(&mut self, slot: u32) {
        let order = self.sequence(slot).order;
        let place = self.running.partition_point(|&other| self.sequence(other).order < order);
        self.running.insert(place, slot);
    }

    /// Each member of the groups that were in the pass gets so much of its energy.
    pub(crate) fn credit_groups(&mut self, batch: &Batch, energy_pj: u128) {
        if !batch.lockstep.is_empty() {
            self.groups.iter_mut().for_each(|group| group.energy_pj += energy_pj);
        }
    }
}
