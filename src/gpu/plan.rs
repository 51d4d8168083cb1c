//! The tokens of a pass, one by one, sorted into groups: who is at which layer together, and which entry of the cache each
//! leaves and sees. `lower` counts the same without naming anybody; the tests hold one against the other.

use super::cache::Cache;
use super::cache::Visit;
use super::ledger::{Ledger, Token, Waiting};
use crate::batch::{Batch, Context, Left, Part, Path, Paths, Policy, Span, Visibility};
use crate::error::{InputError, Result};
use crate::model::Model;
use std::collections::BTreeMap;

/// Tokens that are at one layer together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub wave: u32,
    pub layer: u16,
    pub attention: Vec<Visit>,
    pub feed_forward: Vec<u32>,
    /// Tokens that leave an entry although they skip the attention branch.
    pub project: Vec<Visit>,
    /// Where the whole pass runs a branch: which rows it counts for.
    pub masks: Option<Masks>,
    /// What the branches of each row are multiplied with when they are added; empty: 1.
    pub weights: Vec<f32>,
    /// Whether entries are no runs: `seen` names them.
    pub listed: bool,
    /// Where entries are listed: for each of `attention`, the rows of the cache that it sees, its own last.
    pub seen: Vec<Vec<u32>>,
    /// Entries of earlier tokens that are projected first, from the states that these left.
    pub waiting: Vec<Waiting>,
    /// Before all that: rows whose states are kept for later passes, and their places.
    pub keep: Vec<[u32; 2]>,
}

/// For each row whether it takes attention, and whether it takes the feed-forward branch: 1 or 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Masks {
    /// As is known before.
    Known([Vec<u32>; 2]),
    /// As the device decides: where in the lists it will stand.
    Decided([u32; 2]),
}

/// One of two masks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mask<'a> {
    Known(&'a [u32]),
    Decided(u32),
}

impl Masks {
    /// That of attention, or of the feed-forward branch.
    pub fn of(&self, branch: usize) -> Mask<'_> {
        match self {
            Masks::Known(masks) => Mask::Known(&masks[branch]),
            Masks::Decided(masks) => Mask::Decided(masks[branch]),
        }
    }
}

impl Group {
    /// Whether the same tokens take both branches.
    pub fn together(&self) -> bool {
        self.attention.len() == self.feed_forward.len()
            && self.attention.iter().zip(&self.feed_forward).all(|(visit, &row)| visit.row == row)
    }
}

/// Groups in the order in which they run; those between two marks go together.
#[derive(Debug)]
pub(super) struct Plan {
    pub bundles: Vec<Vec<Group>>,
    /// Rows that go on from a state that was kept, and its place.
    pub back: Vec<[u32; 2]>,
    /// Rows whose states are kept behind their last layer, and their places.
    pub keep: Vec<[u32; 2]>,
}

/// What a plan is made of.
pub(super) struct View<'a> {
    pub batch: &'a Batch,
    pub paths: &'a Paths,
    pub contexts: &'a [Context],
    /// Position of the first token of each span.
    pub starts: &'a [u32],
    pub policy: Policy,
    pub monotone: bool,
    pub model: &'a Model,
    pub cache: &'a Cache,
}

impl View<'_> {
    /// Whether groups run in the order of the pool.
    fn pool(&self) -> bool {
        self.policy == Policy::Aligned || (self.policy == Policy::DenseMasked && self.monotone)
    }

    /// When a token is at a hop, or is projected at a skipped layer before this hop: with others at the same layer.
    fn wave(&self, decode: bool, layer: u16, occurrence: u32, hop: u32) -> u32 {
        match (self.pool(), decode, self.monotone) {
            (true, ..) => occurrence,
            (false, false, true) => u32::from(layer) + occurrence,
            (false, ..) => hop,
        }
    }
}

type Groups = BTreeMap<(u32, u16), Group>;

impl Plan {
    /// Sorts the tokens of a pass. The ledger, where entries are listed, is then as it is behind the pass.
    ///
    /// # Errors
    /// Routes and policies that are not executed.
    pub fn new(view: &View, ledger: Option<&mut Ledger>) -> Result<Plan> {
        if matches!(view.policy, Policy::Queued { .. }) {
            let what = "dense_masked, aligned, hop or grouped; queues are simulated only";
            return Err(InputError::expected(what).key("policy").found("queued").into());
        }
        let mut groups = Groups::new();
        let (mut back, mut keep, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        match ledger {
            None => sort_runs(view, &mut groups)?,
            Some(ledger) => {
                let mut listing = Listing { view, ledger, keys: Vec::new(), absent: Vec::new() };
                (back, keep) = listing.sort(&mut groups)?;
                absent = listing.absent;
            }
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        if view.pool() {
            groups.sort_by_key(|group| (group.layer, group.wave));
        } else {
            groups.sort_by_key(|group| (group.wave, group.layer));
        }
        if view.policy == Policy::DenseMasked {
            groups.iter_mut().for_each(|group| mask(view, &absent, group));
        }
        let bundles = match view.policy {
            Policy::Grouped => groups.chunk_by(|a, b| a.wave == b.wave).map(<[Group]>::to_vec).collect(),
            _ => groups.into_iter().map(|group| vec![group]).collect(),
        };
        Ok(Plan { bundles, back, keep })
    }
}

impl Plan {
    /// The most rows that a call projects beside those of a pass, which has room for `most`; see [`beside`].
    pub fn beside(&self, most: u32) -> u32 {
        let beside = self.bundles.iter().filter(|bundle| beside(bundle, most));
        beside.map(|bundle| projected(bundle)).max().unwrap_or(0)
    }
}

/// Whether what these groups project is not simply some rows of a pass: states of earlier tokens, or one state at many layers.
pub(super) fn beside(groups: &[Group], most: u32) -> bool {
    groups.iter().any(|group| !group.waiting.is_empty()) || projected(groups) > most
}

/// Rows that these groups project.
fn projected(groups: &[Group]) -> u32 {
    groups.iter().map(|group| (group.waiting.len() + group.project.len()) as u32).sum()
}

/// Steps that no model has the layers for.
fn check_steps(path: &Path) -> Result<()> {
    let no = |found: &str, what: &str| Err(InputError::expected(what).key("route").found(found).into());
    for hop in &path.hops {
        if !hop.modules.attention() && !hop.modules.feed_forward() {
            return no("a step with an adapter", "steps of layers of the model, which has no adapters");
        }
        if hop.width < 1.0 {
            return no("a step with a width below 1", "whole feed-forward parts");
        }
    }
    Ok(())
}

/// Tokens whose entries stand one behind the other.
fn sort_runs(view: &View, groups: &mut Groups) -> Result<()> {
    let mut row = 0;
    for span in &view.batch.spans {
        assert_eq!(span.part, Part::WHOLE, "a token runs its whole route in a pass");
        let mut left = vec![0u32; view.model.layers as usize];
        for &index in view.batch.paths_of(span) {
            let path = view.paths.get(index);
            sort_token(view, span, row, path, &left, groups)?;
            for (layer, left) in left.iter_mut().enumerate() {
                *left += path.visible.at(layer as u16);
            }
            row += 1;
        }
    }
    Ok(())
}

fn sort_token(
    view: &View,
    span: &Span,
    row: u32,
    path: &Path,
    left: &[u32],
    groups: &mut Groups,
) -> Result<()> {
    check_steps(path)?;
    let context = &view.contexts[span.sequence as usize];
    let seen = |layer: u16| context.seen(layer, Visibility::SameLayer) as u32 + left[layer as usize];
    let visit = |entry| Visit { row, sequence: span.sequence, decode: span.decode, entry, leaves: true };
    for (hop, index) in path.hops.iter().zip(0..) {
        let group = group(groups, view.wave(span.decode, hop.layer, hop.occurrence, index), hop.layer);
        if hop.modules.attention() {
            assert_eq!(hop.left, Left::Entry, "other entries are listed");
            group.attention.push(visit(seen(hop.layer) + hop.own_here));
        }
        if hop.modules.feed_forward() {
            group.feed_forward.push(row);
        }
    }
    for skip in &path.skips {
        assert_eq!(skip.left, Left::Projected, "other entries are listed");
        let wave = view.wave(span.decode, skip.layer, 0, skip.before);
        group(groups, wave, skip.layer).project.push(visit(seen(skip.layer)));
    }
    Ok(())
}

/// Tokens whose entries are listed.
struct Listing<'a, 'b> {
    view: &'a View<'a>,
    ledger: &'b mut Ledger,
    /// Of each row, the group of each hop.
    keys: Vec<Vec<(u32, u16)>>,
    /// Of each row of a masked pass, what it would see at each layer.
    absent: Vec<Vec<Vec<u32>>>,
}

/// Rows with the places of their states.
type Places = Vec<[u32; 2]>;

impl Listing<'_, '_> {
    /// Returns rows that go on from a state, and rows whose state is kept behind the last layer.
    fn sort(&mut self, groups: &mut Groups) -> Result<(Places, Places)> {
        let view = self.view;
        let (mut back, mut keep) = (Vec::new(), Vec::new());
        let mut row = 0;
        for (span, &start) in view.batch.spans.iter().zip(view.starts) {
            assert_eq!(span.part, Part::WHOLE, "a token runs its whole route in a pass");
            for (position, &index) in (start..).zip(view.batch.paths_of(span)) {
                let token = Token { row, sequence: span.sequence, position };
                if Paths::is_again(index) {
                    back.push([row, self.ledger.back(token)?]);
                }
                self.sort_token(span.decode, token, view.paths.get(index), groups)?;
                keep.extend(self.ledger.leave(token).map(|place| [row, place]));
                row += 1;
            }
        }
        for (row, before, place) in self.ledger.keep() {
            match self.keys[row as usize].get(before as usize) {
                Some(&(wave, layer)) => group(groups, wave, layer).keep.push([row, place]),
                None => keep.push([row, place]),
            }
        }
        groups.values_mut().for_each(|group| group.listed = true);
        Ok((back, keep))
    }

    fn sort_token(&mut self, decode: bool, token: Token, path: &Path, groups: &mut Groups) -> Result<()> {
        check_steps(path)?;
        let view = self.view;
        if view.policy == Policy::DenseMasked {
            let seen = |layer| self.ledger.seen(view.model, token, layer, 0);
            self.absent.push((0..view.model.layers as u16).map(seen).collect());
        }
        let walked = self.ledger.walk(view.cache, view.model, token, path)?;
        let visit = |entry| Visit { row: token.row, sequence: token.sequence, decode, entry, leaves: true };
        let mut keys = Vec::new();
        for ((hop, met), index) in path.hops.iter().zip(walked.hops).zip(0..) {
            keys.push((view.wave(decode, hop.layer, hop.occurrence, index), hop.layer));
            let group = group(groups, keys[keys.len() - 1].0, hop.layer);
            if let Some(met) = met {
                let own = met.seen.last().expect("a token sees its own keys");
                group.attention.push(visit(*own));
                group.seen.push(met.seen);
                group.waiting.extend(met.waiting);
            }
            if hop.modules.feed_forward() {
                group.feed_forward.push(token.row);
            }
        }
        self.keys.push(keys);
        for (index, at) in walked.projected {
            let skip = path.skips[index];
            let wave = view.wave(decode, skip.layer, 0, skip.before);
            group(groups, wave, skip.layer).project.push(visit(at));
        }
        Ok(())
    }
}

fn group(groups: &mut BTreeMap<(u32, u16), Group>, wave: u32, layer: u16) -> &mut Group {
    groups.entry((wave, layer)).or_insert_with(|| Group { wave, layer, ..Group::default() })
}

/// A branch that any token of the group takes is run for the whole pass; its result counts for those who take it. `absent`: what each
/// row would see at each layer, where entries are listed.
fn mask(view: &View, absent: &[Vec<Vec<u32>>], group: &mut Group) {
    let tokens = view.batch.tokens();
    let flags = |taking: &mut dyn Iterator<Item = u32>| {
        let mut flags = vec![0; tokens as usize];
        taking.for_each(|row| flags[row as usize] = 1);
        flags
    };
    let masks = [
        flags(&mut group.attention.iter().map(|visit| visit.row)),
        flags(&mut group.feed_forward.iter().copied()),
    ];
    if !group.attention.is_empty() {
        let layer = group.layer;
        let lists: BTreeMap<u32, Vec<u32>> =
            group.attention.iter().map(|visit| visit.row).zip(std::mem::take(&mut group.seen)).collect();
        let known: BTreeMap<u32, Visit> =
            group.attention.iter().chain(&group.project).map(|visit| (visit.row, *visit)).collect();
        // A token that is not here sees what earlier ones left, and itself; what comes of it is masked out.
        let mut row = 0;
        group.attention.clear();
        for span in &view.batch.spans {
            let mut entry = view.contexts[span.sequence as usize].seen(layer, Visibility::SameLayer) as u32;
            for &path in view.batch.paths_of(span) {
                let entry_of_absent = if group.listed { view.cache.scratch(row) } else { entry };
                let absent_visit = Visit {
                    row,
                    sequence: span.sequence,
                    decode: span.decode,
                    entry: entry_of_absent,
                    leaves: false,
                };
                let visit = known.get(&row).copied().unwrap_or(absent_visit);
                if group.listed {
                    let others = || absent[row as usize][usize::from(layer)].iter().copied();
                    let alone = || others().chain([visit.entry]).collect();
                    group.seen.push(lists.get(&row).cloned().unwrap_or_else(alone));
                }
                group.attention.push(visit);
                entry += view.paths.get(path).visible.at(layer);
                row += 1;
            }
        }
        group.project.clear();
    }
    if !group.feed_forward.is_empty() {
        group.feed_forward = (0..tokens).collect();
    }
    group.masks = Some(Masks::Known(masks));
}
