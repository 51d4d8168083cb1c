//! Routes compiled against a header: for each hop what runs and what it leaves in the KV cache; for each skipped layer
//! the work that its KV action asks for.

use crate::trace::{Header, KvAction, Modules, Role, Route, RouteTable};

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
            None | Some(KvAction::Write | KvAction::ProjectOnly | KvAction::CopyState | KvAction::Unified) => Left::Entry,
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
    pub occurrence: u16,
    /// Entries that the token leaves at this layer, over all its visits.
    pub leaves: u16,
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
    pub before: u16,
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
    /// Depth in whole blocks.
    pub depth: f64,
    /// Entries that take bytes.
    pub stored: u32,
    /// Entries that later tokens can see, over all layers.
    pub visible: u32,
    /// Entries at each layer, as `all` at every layer and differences from it at some.
    pub all: u32,
    /// (layer, entries there - `all`).
    pub differences: Box<[(u16, i32)]>,
}

/// All paths that a run has met so far. A route has two: as a plain token takes it, and as a later pass over the same
/// position takes it (`verify`, `recompute`), whose skipped layers were left by the first pass.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    paths: Vec<Path>,
    longest: usize,
}

impl Paths {
    /// Number of the path of `route` for tokens of this role.
    pub fn index(route: u32, role: Role) -> u32 {
        route * 2 + u32::from(matches!(role, Role::Verify | Role::Recompute))
    }

    /// Compiles the routes that are new in `table`.
    pub fn extend(&mut self, header: &Header, table: &RouteTable) {
        for route in table.iter().skip(self.paths.len() / 2) {
            for again in [false, true] {
                self.paths.push(compile(header, route, again));
            }
            self.longest = self.longest.max(route.0.len());
        }
    }

    /// The path of this number.
    pub fn get(&self, index: u32) -> &Path {
        &self.paths[index as usize]
    }

    /// Hops of the longest path.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

fn compile(header: &Header, route: &Route, again: bool) -> Path {
    let layers = header.layers as usize;
    let mut visits = vec![0u16; layers];
    let mut hops: Box<[Hop]> = route
        .0
        .iter()
        .map(|step| Hop {
            layer: step.layer as u16,
            occurrence: {
                visits[step.layer as usize] += 1;
                visits[step.layer as usize] - 1
            },
            leaves: 0,
            modules: step.modules,
            routed: step.routed,
            left: if step.modules.attention() { Left::of_step(step.kv) } else { Left::Nothing },
            width: step.width,
        })
        .collect();

    let mut entries = vec![0u32; layers];
    let mut attended = vec![false; layers];
    let mut stored = 0;
    for hop in hops.iter().filter(|hop| hop.modules.attention()) {
        attended[hop.layer as usize] = true;
        entries[hop.layer as usize] += u32::from(hop.left.visible());
        stored += u32::from(hop.left.stored());
    }

    let mut skips = Vec::new();
    for layer in (0..layers).filter(|&layer| !again && !attended[layer]) {
        let named = route.0.iter().find(|step| step.layer as usize == layer).and_then(|step| step.kv);
        let left = Left::of_skip(named.unwrap_or(header.kv));
        entries[layer] += u32::from(left.visible());
        stored += u32::from(left.stored());
        if matches!(left, Left::Projected | Left::Copied) {
            // The state at the skip is that before the first later layer (pool order) of the route.
            let before = route.0.iter().position(|step| step.layer as usize >= layer).unwrap_or(hops.len());
            skips.push(Skip { before: before as u16, layer: layer as u16, left });
        }
    }
    for hop in &mut hops {
        hop.leaves = entries[hop.layer as usize] as u16;
    }
    skips.sort_by_key(|skip| (skip.before, skip.layer));

    let visible = entries.iter().sum();
    let all = u32::from(visible as usize * 2 > layers);
    let differences = entries
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count != all)
        .map(|(layer, &count)| (layer as u16, count as i32 - all as i32))
        .collect();
    Path { hops, skips: skips.into(), depth: route.depth(), stored, visible, all, differences }
}
