//! Consecutive layers at which the same happens, as one group: priced once, and repeated.

use super::groups::{Group, Groups, Scores};
use super::view::View;
use crate::batch::{Hop, Lockstep, Part, Span, Visibility, all_alike};

/// The hops of a path that begin layers at which the same happens, with how many they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Stages {
    /// Its number, and how many numbers had become free then: one of these may be another path now.
    path: Option<(u32, u64)>,
    /// None where sequences on the path may differ by layer.
    hops: Option<Vec<(u32, u16)>>,
}

impl Stages {
    fn of(view: &View, number: u32) -> Stages {
        let path = view.paths.get(number);
        let plain = |hop: &Hop| hop.occurrence == 0 && hop.width == 1.0;
        let fits = path.steady && path.skips.is_empty() && path.hops.iter().all(plain);
        let kind = |layer: u16| view.kinds.get(usize::from(layer));
        let follows = |hop: &Hop, next: &Hop| {
            let at = (hop.layer, next.layer);
            at.1 == at.0 + 1
                && kind(at.0) == kind(at.1)
                && Hop { layer: next.layer, own_before: next.own_before, ..*hop } == *next
        };
        let runs = path.hops.chunk_by(follows).scan(0, |first, run| {
            let begin = *first;
            *first += run.len() as u32;
            Some((begin, run.len() as u16))
        });
        Stages { path: Some((number, view.paths.freed())), hops: fits.then(|| runs.collect()) }
    }
}

impl Groups {
    /// The groups of a pass whose tokens are all on one path over contexts that are the same at each layer: alike layers are one group from the
    /// start. False where the pass is another.
    pub fn of_one_path(&mut self, view: &View) -> bool {
        let batch = view.batch;
        if view.visibility != Visibility::SameLayer || !view.windows.is_empty() {
            return false;
        }
        let lockstep = batch.lockstep.iter().map(|group| group.path);
        let Some(number) = lockstep.clone().chain(batch.paths.iter().copied()).next() else { return false };
        let context = |span: &Span| &view.contexts[span.sequence as usize];
        let path = view.paths.get(number);
        let alone = lockstep.clone().all(|path| path == number)
            && batch.paths.first().is_none_or(|&path| path == number && all_alike(&batch.paths))
            && batch.spans.iter().all(|span| span.part == Part::WHOLE && context(span).sees_all(path));
        if !alone {
            return false;
        }
        if self.stages.path != Some((number, view.paths.freed())) {
            self.stages = Stages::of(view, number);
        }
        let Some(stages) = self.stages.hops.take() else { return false };
        let (mut prefill, mut decode) = (Scores::default(), Scores::default());
        self.of_run.begin(1, view.longest);
        for together in &batch.lockstep {
            let pairs = together.positions + u64::from(together.count);
            decode.add(together.count, pairs, pairs);
            self.longest_of(together);
        }
        for span in &batch.spans {
            // The first sees what is there and itself, each later one more.
            let (before, tokens) = (u64::from(context(span).tokens()), u64::from(span.tokens));
            let pairs = tokens * (before + 1) + tokens * (tokens - 1) / 2;
            if span.decode {
                decode.add(span.tokens, pairs, pairs);
                self.of_run.insert(0, pairs);
            } else {
                prefill.add(span.tokens, pairs, before + tokens);
            }
        }
        for &(first, alike) in &stages {
            let hop = &path.hops[first as usize];
            let mut group = Group { alike, ..Group::new(0, hop.layer, self.longest.list()) };
            group.visit(hop, batch.tokens());
            if hop.modules.attention() {
                (group.prefill, group.decode) = (prefill, decode);
                self.longest.extend(group.longest, self.of_run.of(0), 0);
            }
            self.groups.push(group);
        }
        self.stages.hops = Some(stages);
        true
    }

    /// The longest contexts of a group in lockstep join those of neighbours on one path.
    pub fn longest_of(&mut self, together: &Lockstep) {
        together.longest.iter().for_each(|&entries| self.of_run.insert(0, entries.into()));
    }

    /// Neighbours in pool order at which the same happens become one group.
    pub fn join_alike(&mut self, kinds: &[u8]) {
        let kind = |layer: u16| kinds.get(usize::from(layer));
        let Groups { groups, longest, .. } = self;
        groups.dedup_by(|next, group| {
            let behind = group.layer + group.alike;
            let alike = next.attention == group.attention
                && next.layer == behind
                && kind(group.layer) == kind(behind)
                && (longest.is_off() || longest.of(next.longest) == longest.of(group.longest))
                && Group { layer: group.layer, alike: group.alike, longest: group.longest, ..next.clone() }
                    == *group;
            group.alike += if alike { next.alike } else { 0 };
            alike
        });
    }
}
