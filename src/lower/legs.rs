//! A pass over several devices, each with some of the layers: what each runs in one go, and whose states come from where.
//!
//! A [`Leg`] is what a device does without waiting for another: a run of neighbouring layers in pool order, or its groups of one hop. It waits
//! for the legs in which its tokens were before. Legs that follow each other on a device without a message between are one.

use super::groups::{Align, Group};
use super::router::When;
use super::view::View;
use super::{Lowered, Lowering, enter, leave, pool_order, waves};
use super::{emit::Emit, sink::Sink};
use crate::batch::{Batch, Context, Path, Paths, Span, in_runs};
use crate::trace::RouterWhen;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Which device has which layer. Tokens enter on the first device and leave on the last: there are embedding and head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    devices: u32,
    of: Vec<u32>,
    /// Neighbouring layers on one device, and the run of each layer.
    runs: Vec<Range<u32>>,
    run_of: Vec<u32>,
}

impl Layout {
    /// For layers on these devices, by layer.
    pub fn new(of: &[u32], devices: u32) -> Layout {
        assert!(of.iter().all(|&device| device < devices), "devices are numbered from 0");
        let (mut runs, mut run_of) = (Vec::new(), Vec::with_capacity(of.len()));
        let mut begin = 0;
        for run in of.chunk_by(|a, b| a == b) {
            let end = begin + run.len() as u32;
            run_of.resize(end as usize, runs.len() as u32);
            runs.push(begin..end);
            begin = end;
        }
        Layout { devices, of: of.to_vec(), runs, run_of }
    }

    /// How many devices there are.
    pub fn devices(&self) -> u32 {
        self.devices
    }

    /// The device of each layer.
    pub fn of(&self) -> &[u32] {
        &self.of
    }
}

/// A place and time of a pass: what happens on one device between two messages at most. Order 0 is the embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    order: u32,
    device: u32,
}

impl At {
    const ENTRY: At = At { order: 0, device: 0 };

    /// The head, behind everything.
    fn exit(layout: &Layout) -> At {
        At { order: u32::MAX, device: layout.devices - 1 }
    }
}

/// What runs there.
#[derive(Clone, Debug)]
enum Work {
    Enter,
    /// Neighbouring layers, with routers and conditional nodes of those that nobody takes.
    Layers(Range<u32>, Vec<Group>),
    /// Groups of one hop.
    Hop(Vec<Group>),
    Leave,
}

impl Work {
    fn groups(&self) -> &[Group] {
        match self {
            Work::Layers(_, groups) | Work::Hop(groups) => groups,
            Work::Enter | Work::Leave => &[],
        }
    }
}

/// What a device runs without waiting for another.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The device.
    pub device: u32,
    /// Tokens whose states are there.
    pub rows: u32,
    /// Legs before it that it waits for, by number, and how many tokens come from each.
    pub after: Vec<(u32, u32)>,
    work: Vec<Work>,
}

impl Leg {
    /// Visits of layers by tokens.
    pub fn visits(&self) -> u64 {
        let of = |group: &Group| u64::from(group.visiting()) * u64::from(group.alike);
        self.work.iter().flat_map(Work::groups).map(of).sum()
    }
}

/// A pass in legs, each behind those that it waits for.
#[derive(Clone, Debug)]
pub struct Legs {
    /// What the pass amounts to.
    pub lowered: Lowered,
    /// In an order in which each follows those that it waits for.
    pub legs: Vec<Leg>,
    /// Moves of tokens between two layers on different devices.
    pub crossings: u64,
}

/// From where to where tokens go: how many, by (to, from).
type Flows = BTreeMap<(At, At), u32>;

/// Follows tokens through the pass.
struct Follow<'a> {
    layout: &'a Layout,
    align: Align,
    /// Runs of layers that every token comes to, whatever it takes there.
    all: Vec<bool>,
    needed: Vec<bool>,
    flows: Flows,
    crossings: u64,
}

impl Follow<'_> {
    /// So many tokens on a path, `leaving`: to the head.
    fn tokens(&mut self, path: &Path, decode: bool, count: u32, leaving: bool) {
        let last = match self.align {
            Align::Pool => self.in_pool_order(path, count),
            Align::Hop { monotone } => self.by_hops(path, monotone && !decode, count),
            Align::Layer => unreachable!("tokens of queues stay on one device"),
        };
        if leaving {
            self.flow(last, At::exit(self.layout), count);
        }
    }

    fn flow(&mut self, from: At, to: At, count: u32) {
        *self.flows.entry((to, from)).or_default() += count;
    }

    /// On its way from a place to the next.
    fn go(&mut self, from: At, to: At, count: u32) -> At {
        self.flow(from, to, count);
        if from.order > 0 && from.device != to.device {
            self.crossings += u64::from(count);
        }
        to
    }

    fn in_pool_order(&mut self, path: &Path, count: u32) -> At {
        self.needed.copy_from_slice(&self.all);
        let layers = path.hops.iter().map(|hop| hop.layer).chain(path.skips.iter().map(|skip| skip.layer));
        layers.for_each(|layer| self.needed[self.layout.run_of[usize::from(layer)] as usize] = true);
        let mut at = At::ENTRY;
        for run in 0..self.needed.len() {
            if self.needed[run] {
                let device = self.layout.of[self.layout.runs[run].start as usize];
                at = self.go(at, At { order: 1 + run as u32, device }, count);
            }
        }
        at
    }

    /// `by_layer`: the hops of a prompt are the layers. Skipped layers that keep something of a token get its state beside its way.
    fn by_hops(&mut self, path: &Path, by_layer: bool, count: u32) -> At {
        let layout = self.layout;
        let place = |order: u32, layer: u16| At { order: 1 + order, device: layout.of[usize::from(layer)] };
        let mut at = At::ENTRY;
        let mut beside = BTreeSet::new();
        let mut skips = path.skips.iter().peekable();
        for index in 0..=path.hops.len() as u32 {
            let hop = path.hops.get(index as usize);
            let wave = |layer: u16, occurrence| if by_layer { u32::from(layer) + occurrence } else { index };
            let next = hop.map(|hop| place(wave(hop.layer, hop.occurrence), hop.layer));
            beside.clear();
            while let Some(skip) = skips.next_if(|skip| skip.before <= index) {
                beside.insert(place(wave(skip.layer, 0), skip.layer));
            }
            for &side in beside.iter().filter(|&&side| Some(side) != next) {
                self.flow(at, side, count);
            }
            if let Some(next) = next {
                at = self.go(at, next, count);
            }
        }
        at
    }
}

impl Lowering<'_> {
    /// The legs of `batch` over the devices of `layout`. `contexts` are those before the pass.
    ///
    /// # Panics
    /// With tokens that are counted rather than listed, and those of queues.
    pub fn legs(&mut self, batch: &Batch, contexts: &[Context], paths: &Paths, layout: &Layout) -> Legs {
        assert!(batch.lockstep.is_empty() && !batch.takes_some(), "tokens are listed");
        let (lowered, (legs, crossings)) = self
            .sorted(batch, contexts, paths, |lowering, view, align, _| lowering.split(view, align, layout));
        Legs { lowered, legs, crossings }
    }

    fn split(&self, view: &View, align: Align, layout: &Layout) -> (Vec<Leg>, u64) {
        let batch = view.batch;
        let mut work = self.work(align, layout);
        work.insert(At::ENTRY, Work::Enter);
        let heads = self.model.outputs > 0;
        if heads && batch.logits() > 0 {
            work.insert(At::exit(layout), Work::Leave);
        }
        let all =
            layout.runs.iter().map(|run| self.fills() || run.clone().any(|layer| self.routes_all(layer)));
        let all: Vec<bool> = all.collect();
        let needed = vec![false; all.len()];
        let mut follow = Follow { layout, align, all, needed, flows: Flows::new(), crossings: 0 };
        for span in &batch.spans {
            for (number, count, leaving) in parts(batch, span) {
                follow.tokens(view.paths.get(number), span.decode, count, leaving && heads);
            }
        }
        for &at in follow.flows.keys().map(|(to, _)| to) {
            work.entry(at).or_insert_with(|| match align {
                Align::Pool => Work::Layers(layout.runs[at.order as usize - 1].clone(), Vec::new()),
                Align::Hop { .. } | Align::Layer => Work::Hop(Vec::new()),
            });
        }
        (join(work, &follow.flows, batch.tokens()), follow.crossings)
    }

    /// Whether a router decides about all tokens before this layer.
    fn routes_all(&self, layer: u32) -> bool {
        let plan = &self.dispatch.router;
        plan.when == Some(When::Header(RouterWhen::PerLayer))
            && plan.only.as_ref().is_none_or(|only| only.contains(&layer))
    }

    /// The groups of the pass by place.
    fn work(&self, align: Align, layout: &Layout) -> BTreeMap<At, Work> {
        let mut work = BTreeMap::new();
        for group in &self.groups.groups {
            let (mut layer, end) = (u32::from(group.layer), u32::from(group.layer) + u32::from(group.alike));
            while layer < end {
                let run = layout.run_of[layer as usize];
                let device = layout.of[layer as usize];
                let range = &layout.runs[run as usize];
                let alike = end.min(range.end) - layer;
                let part = Group { layer: layer as u16, alike: alike as u16, ..group.clone() };
                let (order, empty) = match align {
                    Align::Pool => (run, Work::Layers(range.clone(), Vec::new())),
                    Align::Hop { .. } | Align::Layer => (group.wave, Work::Hop(Vec::new())),
                };
                match work.entry(At { order: 1 + order, device }).or_insert(empty) {
                    Work::Layers(_, groups) | Work::Hop(groups) => groups.push(part),
                    Work::Enter | Work::Leave => unreachable!("groups are behind the embedding"),
                }
                layer += alike;
            }
        }
        work
    }

    /// Gives `sink` the calls of a leg of `batch`, as [`Lowering::legs`] found it last. `contexts` are those before the pass.
    pub fn lower_leg<S: Sink>(&mut self, leg: &Leg, batch: &Batch, contexts: &[Context], sink: &mut S) {
        let whole = leg.work.iter().flat_map(Work::groups).all(|group| group.takes_all(leg.rows));
        let one_graph = self.dispatch.decisions.one_graph() || (self.places.fixed && whole);
        let (captured, rows) = (self.captured(batch), (leg.rows, leg.rows));
        let mut emit = Emit::new(self.model, (&self.dispatch, &self.places), sink, rows, captured, one_graph);
        emit.filling = self.filling.as_ref().map(|filling| (filling, &self.groups.longest));
        for work in &leg.work {
            match work {
                Work::Enter => enter(&mut emit, batch, contexts),
                Work::Layers(range, groups) => pool_order(&mut emit, groups, range.clone()),
                Work::Hop(groups) => waves(&mut emit, groups),
                Work::Leave => leave(&mut emit, batch.logits()),
            }
        }
    }
}

/// The tokens of a span by path, the last ones of which need their logits.
fn parts<'b>(batch: &'b Batch, span: &Span) -> impl Iterator<Item = (u32, u32, bool)> + use<'b> {
    let (before, leaving) = batch.paths_of(span).split_at((span.tokens - span.logits) as usize);
    let all = in_runs(before).map(|(path, count)| (path, count, false));
    all.chain(in_runs(leaving).map(|(path, count)| (path, count, true)))
}

/// Work in the order of its places as legs: what follows on the same device joins, where no state comes from another device and none has left for one.
fn join(work: BTreeMap<At, Work>, flows: &Flows, tokens: u32) -> Vec<Leg> {
    let sends: BTreeSet<At> =
        flows.keys().filter(|(to, from)| to.device != from.device).map(|&(_, from)| from).collect();
    let mut legs: Vec<Leg> = Vec::new();
    let mut leg_of: BTreeMap<At, u32> = BTreeMap::new();
    // By device: its latest leg, and the last place in it.
    let mut latest: BTreeMap<u32, (u32, At)> = BTreeMap::new();
    for (at, work) in work {
        let from = || flows.range((at, At::ENTRY)..).take_while(|((to, _), _)| *to == at);
        let rows = if at == At::ENTRY { tokens } else { from().map(|(_, count)| *count).sum() };
        let receives = from().any(|((_, from), _)| from.device != at.device);
        let joins = latest.get(&at.device).filter(|(_, last)| !receives && !sends.contains(last));
        let number = joins.map_or(legs.len() as u32, |&(leg, _)| leg);
        if number as usize == legs.len() {
            legs.push(Leg { device: at.device, rows: 0, after: Vec::new(), work: Vec::new() });
        }
        let mut after = std::mem::take(&mut legs[number as usize].after);
        for (&(_, from), &count) in from() {
            let before = leg_of[&from];
            match after.iter_mut().find(|(leg, _)| *leg == before) {
                _ if before == number => {}
                Some((_, rows)) => *rows += count,
                None => after.push((before, count)),
            }
        }
        let leg = &mut legs[number as usize];
        leg.after = after;
        leg.rows = leg.rows.max(rows);
        leg.work.push(work);
        leg_of.insert(at, number);
        latest.insert(at.device, (number, at));
    }
    legs
}
