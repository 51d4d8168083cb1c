//! Routes compiled against a header: for each hop what runs and what it leaves in the KV cache; for each skipped layer
//! the work that its KV action asks for.

use crate::trace::{Header, KvAction, Modules, Order, Route, Step};

/// What a token leaves in the KV cache of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its own entry, written by the attention branch.
    Entry,
    /// An entry, projected at once although the block is skipped.
    Projected,
    /// An entry, projected when the sequence next visits the layer.
    Copied,
    /// Another layer's entry serves: visible, no bytes.
    Shared,
    /// Nothing: a hole, or nothing yet.
    Nothing,
}

impl Left {
    /// Whether later tokens see an entry.
    pub fn visible(self) -> bool {
        self != Left::Nothing
    }

    /// Whether it takes bytes.
    pub fn stored(self) -> bool {
        matches!(self, Left::Entry | Left::Projected | Left::Copied)
    }

    fn of_step(action: Option<KvAction>) -> Left {
        match action {
            None
            | Some(KvAction::Write | KvAction::ProjectOnly | KvAction::CopyState | KvAction::Unified) => {
                Left::Entry
            }
            Some(KvAction::Share) => Left::Shared,
            Some(KvAction::None | KvAction::Deferred) => Left::Nothing,
        }
    }

    fn of_skip(action: KvAction) -> Left {
        match action {
            KvAction::ProjectOnly => Left::Projected,
            KvAction::CopyState => Left::Copied,
            KvAction::Share => Left::Shared,
            KvAction::Write | KvAction::None | KvAction::Deferred | KvAction::Unified => Left::Nothing,
        }
    }
}

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hop {
    /// Layer of the pool.
    pub layer: u16,
    /// How often the token has been at this layer before.
    pub occurrence: u32,
    /// Entries that the token leaves at this layer, over all its visits.
    pub leaves: u32,
    /// Whether its attention branch is the token's first at this layer.
    pub attends_first: bool,
    /// Entries that its earlier visits of this layer left.
    pub own_here: u32,
    /// Entries that its earlier hops left anywhere.
    pub own_before: u32,
    /// Which branches run.
    pub modules: Modules,
    /// Whether the trace says that the router ran before it.
    pub routed: bool,
    /// What it leaves, where its attention branch runs.
    pub left: Left,
    /// Fraction of the feed-forward width.
    pub width: f32,
}

/// Work that a skipped layer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The hop before which it is done; the number of hops where it follows the last one.
    pub before: u32,
    /// The skipped layer.
    pub layer: u16,
    /// What is left there: `Projected` or `Copied`.
    pub left: Left,
}

/// A compiled route.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Steps in order.
    pub hops: Box<[Hop]>,
    /// Skipped layers with work to do, in the order of the hops.
    pub skips: Box<[Skip]>,
    /// Whether a skip leaves a state to be projected later.
    pub copies: bool,
    /// Depth in halves of a block: its branches.
    pub half_depth: u32,
    /// Visits of feed-forward branches, each counted as the fraction of the width that it computes.
    pub fed: f64,
    /// Whether each layer that it attends to keeps one entry of it, and no layer more than one: sequences that go on on it keep step.
    pub steady: bool,
    /// Entries that take bytes.
    pub stored: Entries,
    /// Entries that later tokens can see.
    pub visible: Entries,
    /// What it does at each layer, for [`super::LaneSums`]; `None` where that takes more than a number for each layer.
    pub row: Option<Box<[u32]>>,
}

impl Path {
    /// Whether it is that of a route without KV actions of its own, under the same header.
    pub(super) fn is_of(&self, route: &Route) -> bool {
        let alike = |(hop, step): (&Hop, &Step)| {
            u32::from(hop.layer) == step.layer
                && hop.modules == step.modules
                && hop.width == step.width
                && hop.routed == step.routed
                && step.kv.is_none()
        };
        self.hops.len() == route.0.len() && self.hops.iter().zip(&route.0).all(alike)
    }
}

/// Entries by layer: `all` at every layer, and differences from it at some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    /// Over all layers.
    pub total: u32,
    /// At each layer that `differences` does not name.
    pub all: u32,
    /// (layer, entries there - `all`), layers ascending.
    pub differences: Box<[(u16, i32)]>,
}

impl Entries {
    fn of(counts: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let total = counts.clone().sum();
        let all = u32::from(total as usize * 2 > counts.len());
        let differing = counts.enumerate().filter(|&(_, count)| count != all);
        let differences = differing.map(|(layer, count)| (layer as u16, count as i32 - all as i32)).collect();
        Entries { total, all, differences }
    }

    /// At one layer.
    pub fn at(&self, layer: u16) -> u32 {
        let differing = self.differences.binary_search_by_key(&layer, |&(layer, _)| layer);
        let by = differing.map_or(0, |index| self.differences[index].1);
        self.all.checked_add_signed(by).expect("entries are not negative")
    }
}

/// Compiles routes of one header; keeps its memory from route to route.
#[derive(Clone, Debug)]
pub(super) struct Compiler {
    /// What a token leaves in layers that no step of its route names.
    kv: KvAction,
    order: Order,
    at: Vec<AtLayer>,
}

/// What a route does at one layer.
#[derive(Clone, Copy, Debug, Default)]
struct AtLayer {
    visits: u32,
    attended: bool,
    entries: u32,
    stored: u32,
    /// KV action of the first step that names the layer.
    named: Option<KvAction>,
}

impl Compiler {
    pub(super) fn new(header: &Header) -> Self {
        Compiler { kv: header.kv, order: header.order, at: vec![AtLayer::default(); header.layers as usize] }
    }

    /// The path of a route; `again`: as a later pass over the same position takes it.
    pub(super) fn compile(&mut self, route: &Route, again: bool) -> Path {
        self.at.fill(AtLayer::default());
        let mut own = 0;
        let mut hops: Box<[Hop]> = route.0.iter().map(|step| self.hop(step, &mut own)).collect();
        let mut skips = Vec::new();
        // The state at a skip is that before the first later layer (pool order) of the route.
        let mut before = 0;
        for (layer, at) in self.at.iter_mut().enumerate().filter(|(_, at)| !again && !at.attended) {
            let left = Left::of_skip(at.named.unwrap_or(self.kv));
            at.entries += u32::from(left.visible());
            at.stored += u32::from(left.stored());
            if matches!(left, Left::Projected | Left::Copied) {
                if self.order == Order::Any {
                    before = 0;
                }
                before += hops[before..].iter().take_while(|hop| (hop.layer as usize) < layer).count();
                skips.push(Skip { before: before as u32, layer: layer as u16, left });
            }
        }
        for hop in &mut hops {
            hop.leaves = self.at[hop.layer as usize].entries;
        }
        skips.sort_by_key(|skip| (skip.before, skip.layer));

        let stored = Entries::of(self.at.iter().map(|at| at.stored));
        let visible = Entries::of(self.at.iter().map(|at| at.entries));
        let row = super::lanes::row(&hops, &skips, self.at.len());
        let copies = skips.iter().any(|skip| skip.left == Left::Copied);
        let half_depth = (route.depth() * 2.0) as u32;
        let mut attending = hops.iter().filter(|hop| hop.modules.attention());
        let feeding = hops.iter().filter(|hop| hop.modules.feed_forward());
        let fed = feeding.map(|hop| f64::from(hop.width)).sum();
        let steady = !copies
            && attending.all(|hop| hop.leaves == 1 && hop.own_here == 0)
            && self.at.iter().all(|at| at.stored <= 1 && at.entries <= 1);
        Path { skips: skips.into(), copies, half_depth, fed, steady, stored, visible, row, hops }
    }

    fn hop(&mut self, step: &Step, own: &mut u32) -> Hop {
        let left = if step.modules.attention() { Left::of_step(step.kv) } else { Left::Nothing };
        let at = &mut self.at[step.layer as usize];
        if at.visits == 0 {
            at.named = step.kv;
        }
        at.visits += 1;
        let attends_first = step.modules.attention() && !at.attended;
        at.attended |= step.modules.attention();
        let (own_here, own_before) = (at.entries, *own);
        at.entries += u32::from(left.visible());
        *own += u32::from(left.visible());
        at.stored += u32::from(left.stored());
        Hop {
            layer: step.layer as u16,
            occurrence: at.visits - 1,
            leaves: 0,
            attends_first,
            own_here,
            own_before,
            modules: step.modules,
            routed: step.routed,
            left,
            width: step.width,
        }
    }
}
