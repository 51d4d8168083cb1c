//! Attention over entries that are named one by one, and states that are kept from pass to pass.

use super::cache::Visit;
use super::ledger::State;
use super::ops::Rows;
use super::ops_attention::Scored;
use super::pass::Work;
use super::plan::Group;
use crate::error::Result;
use crate::kernel::Attention;

/// A row of a call: its number, layer and sequence, and the rows of the cache that it sees.
struct Row<'a> {
    row: u32,
    place: (u16, u32),
    seen: &'a [u32],
}

impl<'a> Work<'a, '_, '_> {
    /// Scores of the visits of generated tokens, or of those of prompts.
    pub(super) fn listed_scores(
        &mut self,
        groups: &[&Group],
        decode: bool,
        queries: Rows,
        to: Rows,
    ) -> Result<()> {
        let visits: Vec<(u16, &Visit, &Vec<u32>)> = groups
            .iter()
            .flat_map(|group| {
                group.attention.iter().zip(&group.seen).map(|(visit, seen)| (group.layer, visit, seen))
            })
            .collect();
        let all = visits.len() as u32;
        let rows: Vec<Row> = (0..)
            .zip(visits)
            .filter(|(_, (_, visit, _))| visit.decode == decode)
            .map(|(row, (layer, visit, seen))| Row { row, place: (layer, visit.sequence), seen })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let pairs: u64 = rows.iter().map(|row| row.seen.len() as u64).sum();
        let (numbers, count, entries, longest) =
            if decode { self.rows_of_generations(&rows) } else { self.tiles_of_prompts(&rows) };
        let beside = if decode { all - rows.len() as u32 } else { 0 };
        let shape = Attention { beside, ..self.shape(rows.len() as u32, decode, pairs, entries) };
        let parts = [(self.exec.cache.buffer(0), self.ops.list(numbers), count)];
        let scored = Scored { listed: true, ..self.scored() };
        self.ops.attention(shape, scored, longest, &parts, queries, to)
    }

    /// What the kernel reads of each row, how many there are, entries read, and the most that one sees.
    fn rows_of_generations(&mut self, rows: &[Row]) -> (Vec<u32>, u32, u64, u32) {
        let mut numbers = Vec::new();
        for row in rows {
            let list = self.ops.list(row.seen.iter().copied());
            numbers.extend([row.row, 0, row.seen.len() as u32, list]);
        }
        let longest = rows.iter().map(|row| row.seen.len()).max().unwrap_or(0);
        let entries = rows.iter().map(|row| row.seen.len() as u64).sum();
        (numbers, rows.len() as u32, entries, longest as u32)
    }

    /// The same of each tile of eight rows of a sequence at a layer: they share the entries that any of them sees.
    fn tiles_of_prompts(&mut self, rows: &[Row]) -> (Vec<u32>, u32, u64, u32) {
        let (mut numbers, mut count, mut entries, mut longest) = (Vec::new(), 0, 0, 0);
        for shared in rows.chunk_by(|a, b| a.place == b.place) {
            entries += shared.iter().map(|row| row.seen.len() as u64).max().unwrap_or(0);
            for eight in shared.chunks(8) {
                // The last row fills the tile.
                let at = |index: usize| &eight[index.min(eight.len() - 1)];
                // Most of what a row sees, the last one sees too, in the same order; the rest stands behind.
                let last = at(7).seen;
                let mut named: Vec<[u32; 2]> = last.iter().map(|&entry| [entry, 0]).collect();
                for index in 0..8 {
                    let mut own = at(index).seen.iter().peekable();
                    for [entry, rows] in &mut named[..last.len()] {
                        *rows |= u32::from(own.next_if_eq(&&*entry).is_some()) << index;
                    }
                    named.extend(own.map(|&entry| [entry, 1 << index]));
                }
                let length = named.len() as u32;
                let list = self.ops.list(named.into_iter().flatten());
                numbers.extend((0..8).map(|index| at(index).row));
                numbers.push(list);
                numbers.extend([length; 8]);
                numbers.extend([0; 8]);
                longest = longest.max(length);
                count += 1;
            }
        }
        (numbers, count, entries, longest)
    }

    /// States side by side: of rows of this pass, and of those that were kept.
    pub(super) fn gather_states(&mut self, states: &[State]) -> Result<Rows<'a>> {
        let index = |kept: bool| {
            let of = move |state: &State| match (*state, kept) {
                (State::Row(row, _), false) => row,
                (State::Kept(place), true) => place,
                _ => u32::MAX,
            };
            states.iter().map(of).collect::<Vec<u32>>()
        };
        let hidden = self.hidden();
        let block = Rows { buffer: &self.exec.states.block, stride: hidden };
        let parts = [(index(false), self.exec.stream()), (index(true), self.kept())];
        self.ops.gather_parts(&parts, hidden, block)?;
        Ok(block)
    }

    /// Copies states of rows to their places among those that are kept. No kernel of the simulator's: it prices the projection alone.
    pub(super) fn keep(&mut self, states: &[[u32; 2]]) -> Result<()> {
        self.ops.copy_rows(states, self.hidden(), [self.exec.stream(), self.kept()], self.block())
    }

    /// Rows go on from states that were kept.
    pub(super) fn go_on(&mut self, states: &[[u32; 2]]) -> Result<()> {
        let turned: Vec<[u32; 2]> = states.iter().map(|&[row, place]| [place, row]).collect();
        self.ops.copy_rows(&turned, self.hidden(), [self.kept(), self.exec.stream()], self.block())
    }

    fn kept(&self) -> Rows<'a> {
        Rows { buffer: &self.exec.states.kept, stride: self.hidden() }
    }

    fn block(&self) -> Rows<'a> {
        Rows { buffer: &self.exec.buffers.block, stride: self.hidden() }
    }
}
