//! The tokens of a pass sorted into groups: who is at which layer together. This is where the batch union, the
//! fragmentation and the growing attention of a routed batch come from; nothing later adds them by hand.

use super::alike::Stages;
use super::longest::Longest;
use super::sets::SetSums;
use super::view::View;
use crate::batch::{AtLayer, Context, Hop, LaneSums, Left, Part, Path, Span, Visibility, in_runs};

/// How groups are lined up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// One group for each layer (and occurrence), in pool order.
    Pool,
    /// One group for each next layer at each hop. The tokens of a prompt keep to the pool order where routes are
    /// monotone (their hop is the layer), since a token needs its predecessors' K/V at the layer it visits.
    Hop { monotone: bool },
    /// One group for each layer: tokens of queues, each at a hop of its own.
    Layer,
}

/// Attention scores of one kind within a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scores {
    pub rows: u32,
    pub pairs: u64,
    pub entries: u64,
}

impl Scores {
    /// So many more rows.
    pub fn add(&mut self, rows: u32, pairs: u64, entries: u64) {
        self.rows += rows;
        self.pairs += pairs;
        self.entries += entries;
    }
}

/// Tokens that are at one layer together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Groups of one wave are independent of each other and follow those of the wave before.
    pub wave: u32,
    /// Layer, the first of those that it stands for.
    pub layer: u16,
    /// Consecutive layers that it stands for, at each of which the same happens.
    pub alike: u16,
    pub attention: u32,
    pub feed_forward: u32,
    /// Tokens that take both branches.
    pub block: u32,
    pub adapter: u32,
    /// Entries to project for tokens of the pass that do not take the attention branch.
    pub project: u32,
    /// Entries to project for earlier tokens, from the states that they left with.
    pub pending: u32,
    /// Tokens whose step says that the router ran.
    pub routed: u32,
    pub prefill: Scores,
    pub decode: Scores,
    /// Product of (1 - width) over the tokens: the share of neurons that nobody needs, were the choices independent.
    pub(super) unneeded: f64,
    /// The widest feed-forward part that a token takes.
    pub widest: f32,
    /// Place of the longest contexts of its generated tokens in [`Groups::longest`].
    pub longest: u32,
    pub(super) span: u32,
    pub(super) span_last: u64,
}

impl Group {
    pub(super) fn new(wave: u32, layer: u16, longest: u32) -> Self {
        let (prefill, decode) = (Scores::default(), Scores::default());
        Group {
            wave,
            layer,
            alike: 1,
            attention: 0,
            feed_forward: 0,
            block: 0,
            adapter: 0,
            project: 0,
            pending: 0,
            routed: 0,
            prefill,
            decode,
            unneeded: 1.0,
            widest: 0.0,
            longest,
            span: 0,
            span_last: 0,
        }
    }

    /// The same at one layer.
    pub(super) fn at(&self, layer: u16) -> Group {
        Group { layer, alike: 1, ..self.clone() }
    }

    /// Share of the feed-forward width that the group computes. `nested`: all tokens want the same neurons first, as with
    /// structured pruning; otherwise each token's are drawn apart, as with contextual sparsity.
    pub fn width(&self, nested: bool) -> f64 {
        if nested || self.widest == 1.0 { f64::from(self.widest) } else { 1.0 - self.unneeded }
    }

    /// Tokens that take the layer once and at full width: of a prompt, in the order in which they stand there, or of
    /// generations.
    fn add(&mut self, at: &AtLayer, prompt: Option<u32>) {
        self.attention += at.attention;
        self.feed_forward += at.feed_forward;
        self.block += at.block;
        self.project += at.project;
        // Each sees its own entry too.
        let pairs = at.seen + u64::from(at.attention);
        let (scores, entries) = match prompt {
            None => (&mut self.decode, pairs),
            // The prompt reads nothing here.
            Some(_) if at.attention == 0 => (&mut self.prefill, 0),
            Some(span) => {
                if self.span != span {
                    (self.span, self.span_last) = (span, 0);
                }
                let entries = at.last - self.span_last.min(at.last);
                self.span_last = self.span_last.max(at.last);
                (&mut self.prefill, entries)
            }
        };
        scores.rows += at.attention;
        scores.pairs += pairs;
        scores.entries += entries;
        if at.feed_forward > 0 {
            self.widest = 1.0;
        }
    }

    pub(super) fn visit(&mut self, hop: &Hop, count: u32) {
        let attention = hop.modules.attention();
        let feed_forward = hop.modules.feed_forward();
        self.attention += u32::from(attention) * count;
        self.feed_forward += u32::from(feed_forward) * count;
        self.block += u32::from(attention && feed_forward) * count;
        self.adapter += u32::from(!attention && !feed_forward) * count;
        self.routed += u32::from(hop.routed) * count;
        if feed_forward {
            self.widest = self.widest.max(hop.width);
            if hop.width < 1.0 {
                self.unneeded *= libm::pow(f64::from(1.0 - hop.width), f64::from(count));
            }
        }
    }
}

/// Builds the groups of one pass; keeps its memory from pass to pass.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub groups: Vec<Group>,
    /// The longest contexts of each group, where somebody wants them.
    pub longest: Longest,
    /// Those at each layer of what is in the sums by layer, and those of neighbours on one path, their own entry counted.
    of_lanes: Longest,
    pub(super) of_run: Longest,
    slots: Vec<(u32, u32)>,
    epoch: u32,
    layers: usize,
    /// Entries that earlier tokens of the current span left at each layer, as `all` and differences.
    left_all: u64,
    left: Vec<i64>,
    /// Copied states of the current span that a visit of each layer would project first.
    copied: Vec<u32>,
    span: u32,
    lanes: LaneSums,
    /// Layers at which the same happens on the path of the latest pass that had but one.
    pub(super) stages: Stages,
    pub(super) set_sums: Box<SetSums>,
}

/// Neighbours on one path from which on one addition to each group is less work than a row of lanes for each.
const MANY: u32 = 4;

impl Groups {
    /// Sorts the tokens of the pass into groups, in the order in which they run.
    pub fn build(&mut self, view: &View, align: Align) {
        self.begin(view.layers as usize, view.longest);
        if view.batch.takes_some() {
            assert_eq!(align, Align::Pool, "sets of branches are taken in pool order");
            self.of_sets(view);
            return;
        }
        if align == Align::Pool && view.joins && self.of_one_path(view) {
            return;
        }
        let spans = &view.batch.spans;
        let mut index = 0;
        while index < spans.len() {
            let span = &spans[index];
            if !span.decode {
                self.span += 1;
                if !self.prompt_lanes(view, align, span) {
                    self.prompt(view, align, span);
                }
                index += 1;
                continue;
            }
            // Neighbours that take the same path over flat contexts are one addition.
            let number = view.batch.paths[span.first as usize];
            let path = view.paths.get(number);
            let context = &view.contexts[span.sequence as usize];
            let next = spans.get(index + 1).map(|next| view.batch.paths[next.first as usize]);
            if next != Some(number) && self.lane(view, align, path, span.part, context) {
                index += 1;
                continue;
            }
            let (mut count, mut seen) = (0u32, 0u64);
            self.of_run.begin(1, view.longest);
            while let Some(next) = spans.get(index + count as usize).filter(|next| {
                next.decode
                    && view.windows.is_empty()
                    && next.part == span.part
                    && view.batch.paths[next.first as usize] == number
                    && view.contexts[next.sequence as usize].is_flat()
            }) {
                let sees = view.contexts[next.sequence as usize].seen(0, view.visibility);
                self.of_run.insert(0, sees + 1);
                seen += sees;
                count += 1;
            }
            if count < MANY && self.lane(view, align, path, span.part, context) {
                index += 1;
            } else if count > 0 {
                self.tokens(view, align, path, span.part, (count, 0), &|_| (seen, 0));
                index += count as usize;
            } else {
                let seen = |layer| (context.seen(layer, view.visibility), context.pending(layer));
                self.tokens(view, align, path, span.part, (1, u64::from(context.tokens()) + 1), &seen);
                index += 1;
            }
        }
        self.take_lanes();
        for together in &view.batch.lockstep {
            self.of_run.begin(1, view.longest);
            self.longest_of(together);
            let path = view.paths.get(together.path);
            self.tokens(view, align, path, Part::WHOLE, (together.count, 0), &|_| (together.positions, 0));
        }
        match align {
            Align::Pool => self.groups.sort_unstable_by_key(|group| (group.layer, group.wave)),
            Align::Hop { .. } | Align::Layer => {
                self.groups.sort_unstable_by_key(|group| (group.wave, group.layer))
            }
        }
    }

    fn begin(&mut self, layers: usize, longest: usize) {
        self.groups.clear();
        self.longest.begin(0, longest);
        self.of_lanes.begin(layers, longest);
        self.layers = layers;
        self.left.resize(layers, 0);
        self.epoch = self.epoch.wrapping_add(1);
        self.span = 0;
        if self.epoch == 0 {
            self.slots.fill((0, 0));
            self.epoch = 1;
        }
    }

    /// The group of this wave and layer. In pool order, `wave` is the occurrence.
    #[inline]
    fn group(&mut self, wave: u32, layer: u16) -> &mut Group {
        let slot = wave as usize * self.layers + layer as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, (0, 0));
        }
        let (epoch, mut index) = self.slots[slot];
        if epoch != self.epoch {
            index = self.groups.len() as u32;
            self.slots[slot] = (self.epoch, index);
            self.groups.push(Group::new(wave, layer, self.longest.list()));
        }
        &mut self.groups[index as usize]
    }

    /// `count` tokens of a generation that take the same path, one where layers have windows, then with its position from 1;
    /// `seen` gives, for a layer, the entries they see (summed over
    /// the tokens, their own not counted) and the copied states to project there first.
    fn tokens(
        &mut self,
        view: &View,
        align: Align,
        path: &Path,
        part: Part,
        (count, position): (u32, u64),
        seen: &impl Fn(u16) -> (u64, u32),
    ) {
        let to = path.hops.len().min(part.to as usize);
        for (index, hop) in path.hops.iter().enumerate().take(to).skip(part.from as usize) {
            let wave = match align {
                Align::Pool => hop.occurrence,
                Align::Hop { .. } => index as u32,
                Align::Layer => 0,
            };
            let group = self.group(wave, hop.layer);
            group.visit(hop, count);
            if hop.modules.attention() {
                let (before, pending) = seen(hop.layer);
                let own = match view.visibility {
                    Visibility::SameLayer => 1 + u64::from(hop.own_here),
                    Visibility::OnePerToken => 1,
                    Visibility::AllEntries => 1 + u64::from(hop.own_before),
                };
                let pairs = view.within(hop.layer, before + own * u64::from(count), position);
                group.decode.rows += count;
                group.decode.pairs += pairs;
                group.decode.entries += pairs;
                group.pending += if hop.attends_first { pending } else { 0 };
                let place = group.longest;
                if count == 1 {
                    self.longest.insert(place, pairs);
                } else {
                    self.longest.extend(place, self.of_run.of(0), own - 1);
                }
            }
        }
        for skip in path.skips.iter().filter(|skip| part_has(part, skip.before)) {
            if skip.left == Left::Projected {
                let wave = if let Align::Hop { .. } = align { skip.before } else { 0 };
                self.group(wave, skip.layer).project += count;
            }
        }
    }

    /// Adds one token of a generation to the sums by layer. False where these do not hold all that is to be known of it.
    #[inline]
    fn lane(&mut self, view: &View, align: Align, path: &Path, part: Part, context: &Context) -> bool {
        let plain = align == Align::Pool
            && part == Part::WHOLE
            && view.visibility == Visibility::SameLayer
            && view.windows.is_empty();
        let Some(row) = path.row.as_ref().filter(|_| plain && LaneSums::takes(context, 0, view.layers))
        else {
            return false;
        };
        if self.lanes.is_full(1) {
            self.take_lanes();
        }
        self.lanes.add(row, context);
        if !self.of_lanes.is_off() {
            for hop in path.hops.iter().filter(|hop| hop.modules.attention()) {
                self.of_lanes.insert(hop.layer.into(), context.seen(hop.layer, view.visibility) + 1);
            }
        }
        true
    }

    /// Adds the tokens of a prompt to the sums by layer. False where these do not hold all that is to be known of them, or
    /// where so many neighbours share a path that one addition for them all is less work.
    fn prompt_lanes(&mut self, view: &View, align: Align, span: &Span) -> bool {
        let context = &view.contexts[span.sequence as usize];
        let paths = view.batch.paths_of(span);
        if align != Align::Pool
            || view.visibility != Visibility::SameLayer
            || !view.windows.is_empty()
            || !LaneSums::takes(context, span.tokens, view.layers)
            || in_runs(paths).count() as u32 * MANY < span.tokens
            || paths.iter().any(|&path| view.paths.get(path).row.is_none())
        {
            return false;
        }
        self.take_lanes();
        let number = self.span;
        let mut lanes = std::mem::take(&mut self.lanes);
        lanes.begin_prompt(context, self.layers);
        fn row(path: &Path) -> &[u32] {
            path.row.as_deref().expect("paths without a row were refused")
        }
        let (fours, rest) = paths.as_chunks::<4>();
        for four in fours {
            if lanes.is_full(4) {
                lanes.take(|at| self.group(0, at.layer).add(&at, Some(number)));
            }
            let four = four.map(|path| view.paths.get(path));
            let all = four[0].visible.all;
            if four.iter().all(|path| path.visible.all == all && path.visible.differences.is_empty()) {
                lanes.add_four(four.map(row), all);
            } else {
                four.iter().for_each(|path| lanes.add_prompt(row(path), &path.visible));
            }
        }
        for &path in rest {
            if lanes.is_full(1) {
                lanes.take(|at| self.group(0, at.layer).add(&at, Some(number)));
            }
            let path = view.paths.get(path);
            lanes.add_prompt(row(path), &path.visible);
        }
        lanes.take(|at| self.group(0, at.layer).add(&at, Some(number)));
        self.lanes = lanes;
        true
    }

    /// Adds what the sums by layer hold to the groups.
    fn take_lanes(&mut self) {
        let mut lanes = std::mem::take(&mut self.lanes);
        lanes.take(|at| {
            let group = self.group(0, at.layer);
            group.add(&at, None);
            let (place, layer) = (group.longest, at.layer.into());
            self.longest.extend(place, self.of_lanes.of(layer), 0);
            self.of_lanes.clear(layer);
        });
        self.lanes = lanes;
    }

    /// A span of a prompt (or of a verify or recompute run): causal attention within the span.
    fn prompt(&mut self, view: &View, align: Align, span: &Span) {
        assert_eq!(span.part, Part::WHOLE, "a prompt runs its whole route in a pass");
        let context = &view.contexts[span.sequence as usize];
        self.left_all = 0;
        self.left.fill(0);
        self.copied.clear();
        self.copied.extend((0..view.layers).map(|layer| context.pending(layer as u16)));
        // Tokens so far, those among them that left an entry, and entries.
        let (mut passed, mut seen_tokens, mut entries) = (0u64, 0u64, 0u64);
        for (number, times) in in_runs(view.batch.paths_of(span)) {
            let (path, count) = (view.paths.get(number), u64::from(times));
            for (index, hop) in path.hops.iter().enumerate() {
                let wave = match align {
                    Align::Pool => hop.occurrence,
                    Align::Hop { monotone: true } => u32::from(hop.layer) + hop.occurrence,
                    Align::Hop { monotone: false } => index as u32,
                    Align::Layer => unreachable!("prompts do not wait in queues"),
                };
                let left = self.left_all as i64 + self.left[hop.layer as usize];
                let current = self.span;
                let attends = hop.modules.attention();
                let pending = if attends { std::mem::take(&mut self.copied[hop.layer as usize]) } else { 0 };
                let group = self.group(wave, hop.layer);
                group.visit(hop, times);
                if !attends {
                    continue;
                }
                // The first token of the run sees `seen` entries and its own; each later one sees `step` more.
                let (seen, step) = match view.visibility {
                    Visibility::SameLayer => {
                        let before = context.seen(hop.layer, view.visibility) as i64 + left;
                        (before as u64 + u64::from(hop.own_here), u64::from(hop.leaves))
                    }
                    Visibility::OnePerToken => (
                        context.seen(hop.layer, view.visibility) + seen_tokens,
                        u64::from(path.visible.total > 0),
                    ),
                    Visibility::AllEntries => (
                        context.seen(hop.layer, view.visibility) + entries + u64::from(hop.own_before),
                        u64::from(path.visible.total),
                    ),
                };
                let first = u64::from(context.tokens()) + passed + 1;
                let (pairs, before) = run_scores(view, hop.layer, (seen, step, count), first);
                if group.span != current {
                    (group.span, group.span_last) = (current, before);
                }
                group.pending += pending;
                let last = seen + step * (count - 1) + 1;
                group.prefill.rows += times;
                group.prefill.pairs += pairs;
                group.prefill.entries += last - group.span_last.min(last);
                group.span_last = group.span_last.max(last);
            }
            for skip in &path.skips {
                if skip.left == Left::Copied {
                    self.copied[skip.layer as usize] += times;
                    continue;
                }
                let wave = match align {
                    Align::Pool | Align::Layer => 0,
                    Align::Hop { monotone: true } => u32::from(skip.layer),
                    Align::Hop { monotone: false } => skip.before,
                };
                self.group(wave, skip.layer).project += times;
            }
            self.left_all += count * u64::from(path.visible.all);
            for &(layer, difference) in &path.visible.differences {
                self.left[layer as usize] += count as i64 * i64::from(difference);
            }
            passed += count;
            seen_tokens += count * u64::from(path.visible.total > 0);
            entries += count * u64::from(path.visible.total);
        }
    }
}

/// Pairs of `count` neighbours at a layer, of which the first sees `seen` entries and its own, and each later one `step` more, and the
/// entries that the first no longer sees. `first`: its position, from 1.
fn run_scores(view: &View, layer: u16, (seen, step, count): (u64, u64, u64), first: u64) -> (u64, u64) {
    let last = first + count - 1;
    match view.windows.get(layer as usize) {
        Some(&window) if last > u64::from(window) => {
            let within = |row: u64| view.within(layer, seen + step * row + 1, first + row);
            ((0..count).map(within).sum(), seen + 1 - within(0))
        }
        _ => (count * (seen + 1) + step * (count * (count - 1) / 2), 0),
    }
}

/// Whether work before hop `before` belongs to this part of the route.
fn part_has(part: Part, before: u32) -> bool {
    before >= part.from && (before < part.to || part.to == Part::END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Paths};
    use crate::trace::synth::{Method, generate};
    use crate::workload::{Arrivals, Length, Lengths, requests};
    use proptest::prelude::*;

    const LAYERS: u32 = 6;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// Added up side by side or hop by hop, the groups are the same.
        #[test]
        fn lanes_add_up_to_the_same_groups(
            kv in prop::sample::select(vec!["project_only", "none", "copy_state", "share"]),
            branches in prop::sample::select(vec!["Jointly", "Separately"]),
            // What went before, tokens of the pass, and the first of their routes.
            spans in prop::collection::vec((0..40_u32, prop_oneof![Just(1_u32), 2..700_u32], 0..1000_u32), 1..300),
        ) {
            let text = format!("IndependentSkips(skip: 0.4, branches: {branches}, kv: {kv})");
            let method: Method = crate::ron_text::parse(&text, "a method").expect("a valid method");
            let length = Length::Fixed(700);
            let lengths = Lengths { prompt: length.clone(), output: length };
            let drawn = requests(1, &lengths, &Arrivals::Closed, 1).expect("valid lengths");
            let trace = generate(&method, LAYERS, drawn, 1).expect("a valid method");
            let routes = trace.routes.len() as u32;
            let paths = Paths::new(&trace.header, &trace.routes, false);
            let mut without = paths.clone();
            without.forget_rows();
            let (mut batch, mut contexts) = (Batch::default(), Vec::new());
            let mut tokens = 0;
            for &(before, count, first) in &spans {
                let mut context = Context::default();
                (0..before).for_each(|at| context.advance(paths.get((first * 7 + at) % routes), 1, LAYERS));
                let taken = (0..count).map(|at| (first + at) % routes);
                batch.push(contexts.len() as u32, taken, count == 1, 1, Part::WHOLE);
                contexts.push(context);
                tokens += count;
                if tokens > 5000 {
                    break;
                }
            }
            let build = |paths: &Paths| {
                let mut groups = Groups::default();
                let visibility = Visibility::SameLayer;
                let (windows, kinds, joins, longest) = (&[], &[], false, 3);
                let view =
                    View { batch: &batch, paths, contexts: &contexts, layers: LAYERS, visibility, windows, kinds, joins, longest };
                groups.build(&view, Align::Pool);
                let long = |group: &Group| groups.longest.of(group.longest).to_vec();
                let lists: Vec<_> = groups.groups.iter().map(long).collect();
                // Who comes first gets the first list.
                groups.groups.iter_mut().for_each(|group| group.longest = 0);
                (groups.groups, lists)
            };
            prop_assert_eq!(build(&paths), build(&without));
        }
    }
}
