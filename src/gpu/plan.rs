//! The tokens of a pass, one by one, sorted into groups: who is at which layer together, and which entry of the cache each
//! leaves and sees. `lower` counts the same without naming anybody; the tests hold one against the other.

use crate::batch::{Batch, Context, Left, Part, Path, Paths, Policy, Span, Visibility};
use crate::error::{InputError, Result};
use std::collections::BTreeMap;

/// A token at a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    /// Row of the pass.
    pub row: u32,
    /// Slot of its sequence.
    pub sequence: u32,
    /// Whether it is one token of a generation.
    pub decode: bool,
    /// The entry it leaves; it sees those before it and its own.
    pub entry: u32,
    /// Whether it leaves it: a token that only keeps a masked pass company does not.
    pub leaves: bool,
}

/// Tokens that are at one layer together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub wave: u32,
    pub layer: u16,
    pub attention: Vec<Visit>,
    pub feed_forward: Vec<u32>,
    /// Tokens that leave an entry although they skip the attention branch.
    pub project: Vec<Visit>,
    /// Where the whole pass runs a branch: which rows it counts for.
    pub masks: Option<Masks>,
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
}

/// What a plan is made of.
pub(super) struct View<'a> {
    pub batch: &'a Batch,
    pub paths: &'a Paths,
    pub contexts: &'a [Context],
    pub policy: Policy,
    pub monotone: bool,
    pub layers: u32,
}

impl Plan {
    /// Sorts the tokens of a pass.
    pub fn new(view: &View) -> Result<Plan> {
        let pool = view.policy == Policy::Aligned || (view.policy == Policy::DenseMasked && view.monotone);
        if matches!(view.policy, Policy::Queued { .. }) {
            let what = "dense_masked, aligned, hop or grouped; queues are simulated only";
            return Err(InputError::expected(what).key("policy").found("queued").into());
        }
        let mut groups = BTreeMap::new();
        let mut row = 0;
        for span in &view.batch.spans {
            assert_eq!(span.part, Part::WHOLE, "a token runs its whole route in a pass");
            let mut left = vec![0u32; view.layers as usize];
            for &index in view.batch.paths_of(span) {
                let path = view.paths.get(index);
                sort_token(view, pool, span, row, path, &left, &mut groups)?;
                for (layer, left) in left.iter_mut().enumerate() {
                    *left += path.visible.at(layer as u16);
                }
                row += 1;
            }
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        if pool {
            groups.sort_by_key(|group| (group.layer, group.wave));
        } else {
            groups.sort_by_key(|group| (group.wave, group.layer));
        }
        if view.policy == Policy::DenseMasked {
            groups.iter_mut().for_each(|group| mask(view, group));
        }
        let bundles = match view.policy {
            Policy::Grouped => groups.chunk_by(|a, b| a.wave == b.wave).map(<[Group]>::to_vec).collect(),
            _ => groups.into_iter().map(|group| vec![group]).collect(),
        };
        Ok(Plan { bundles })
    }
}

fn sort_token(
    view: &View,
    pool: bool,
    span: &Span,
    row: u32,
    path: &Path,
    left: &[u32],
    groups: &mut BTreeMap<(u32, u16), Group>,
) -> Result<()> {
    let no = |found: &str, what: &str| Err(InputError::expected(what).key("route").found(found).into());
    if path.stored.total != path.visible.total {
        return no("a skip with `share`", "KV actions `write`, `project_only` or `none`");
    }
    let context = &view.contexts[span.sequence as usize];
    let seen = |layer: u16| context.seen(layer, Visibility::SameLayer) as u32 + left[layer as usize];
    let visit = |entry| Visit { row, sequence: span.sequence, decode: span.decode, entry, leaves: true };
    for (index, hop) in path.hops.iter().enumerate() {
        let (attention, feed_forward) = (hop.modules.attention(), hop.modules.feed_forward());
        if !attention && !feed_forward {
            return no("a step with an adapter", "steps of layers of the model, which has no adapters");
        }
        if hop.width < 1.0 {
            return no("a step with a width below 1", "whole feed-forward parts");
        }
        if attention && hop.left != Left::Entry {
            return no("a step that runs and leaves no entry of its own", "steps that leave their own entry");
        }
        let wave = match (pool, span.decode, view.monotone) {
            (true, ..) => hop.occurrence.into(),
            (false, false, true) => u32::from(hop.layer) + u32::from(hop.occurrence),
            (false, ..) => index as u32,
        };
        let group = group(groups, wave, hop.layer);
        if attention {
            group.attention.push(visit(seen(hop.layer) + u32::from(hop.own_here)));
        }
        if feed_forward {
            group.feed_forward.push(row);
        }
    }
    for skip in &path.skips {
        if skip.left != Left::Projected {
            return no("a skip with `copy_state`", "KV actions `write`, `project_only` or `none`");
        }
        let wave = match (pool, span.decode, view.monotone) {
            (true, ..) => 0,
            (false, false, true) => skip.layer.into(),
            (false, ..) => skip.before.into(),
        };
        group(groups, wave, skip.layer).project.push(visit(seen(skip.layer)));
    }
    Ok(())
}

fn group(groups: &mut BTreeMap<(u32, u16), Group>, wave: u32, layer: u16) -> &mut Group {
    groups.entry((wave, layer)).or_insert_with(|| Group { wave, layer, ..Group::default() })
}

/// A branch that any token of the group takes is run for the whole pass; its result counts for those who take it.
fn mask(view: &View, group: &mut Group) {
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
        let known: BTreeMap<u32, Visit> =
            group.attention.iter().chain(&group.project).map(|visit| (visit.row, *visit)).collect();
        // A token that is not here sees what earlier ones left, and itself; what comes of it is masked out.
        let mut row = 0;
        group.attention.clear();
        for span in &view.batch.spans {
            let mut entry =
                view.contexts[span.sequence as usize].seen(group.layer, Visibility::SameLayer) as u32;
            for &path in view.batch.paths_of(span) {
                let absent =
                    Visit { row, sequence: span.sequence, decode: span.decode, entry, leaves: false };
                group.attention.push(known.get(&row).copied().unwrap_or(absent));
                entry += view.paths.get(path).visible.at(group.layer);
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
