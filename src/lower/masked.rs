//! Groups that run for more rows than take their layer: all of the pass, or a share that is fixed; and layers that nobody takes.

use super::Overfull;
use super::groups::{Align, Group, Groups, Scores};
use super::places::Places;
use super::view::View;
use crate::batch::{Span, Visibility};

impl Groups {
    /// Every group that anybody needs is run for all tokens of the pass. Tokens that are not at the layer see what earlier
    /// ones left there, and themselves.
    pub fn mask(&mut self, view: &View, align: Align) {
        let tokens = view.batch.tokens();
        for group in &mut self.groups {
            if group.attention > 0 {
                self.longest.clear(group.longest);
                (group.prefill, group.decode) = (Scores::default(), Scores::default());
                group.attention = tokens;
                // The attention branch computes keys and values of every row.
                group.project = 0;
                for span in &view.batch.spans {
                    let (pairs, entries) = masked_scores(view, align, span, group.wave, group.layer);
                    let scores = if span.decode { &mut group.decode } else { &mut group.prefill };
                    scores.rows += span.tokens;
                    scores.pairs += pairs;
                    scores.entries += entries;
                    if span.decode {
                        self.longest.insert(group.longest, pairs);
                    }
                }
            }
            if group.feed_forward > 0 {
                group.feed_forward = tokens;
            }
            if group.adapter > 0 {
                group.adapter = tokens;
            }
            group.block = group.attention.min(group.feed_forward);
        }
    }

    /// Adds what a graph holds that was captured before the routes were known: each branch that some route takes, whether or not a token of
    /// the pass does. Without `room` a branch that nobody takes gets a row, for [`Groups::mask`] to make all of them; with it, (rows, tokens of
    /// the pass), each layer that some routes skip gets so many rows. Returns a layer that more tokens take.
    pub fn complete(&mut self, places: &Places, room: Option<(u32, u32)>) -> Option<Overfull> {
        let mut there = vec![false; places.layers.len()];
        for group in &self.groups {
            there.iter_mut().skip(group.layer.into()).take(1).for_each(|there| *there = true);
        }
        let missing = (0..).zip(&places.layers).zip(&there).filter(|((_, place), there)| {
            !**there && (place.attention || place.feed_forward || place.adapter)
        });
        self.groups.extend(missing.map(|((layer, _), _)| Group::new(0, layer, self.longest.list())));
        self.groups.sort_unstable_by_key(|group| (group.layer, group.wave));
        let decode = self.groups.iter().all(|group| group.prefill.rows == 0);
        let mut overfull = None;
        for group in &mut self.groups {
            let place = places.layers.get(group.layer as usize).copied().unwrap_or_default();
            if place.feed_forward && group.feed_forward == 0 {
                group.widest = 1.0;
            }
            let Some((room, tokens)) = room else {
                group.attention = group.attention.max(place.attention.into());
                group.feed_forward = group.feed_forward.max(place.feed_forward.into());
                group.adapter = group.adapter.max(place.adapter.into());
                continue;
            };
            if !place.decided {
                continue;
            }
            let rows = group.attention.max(group.feed_forward);
            if rows > room {
                overfull = overfull.or(Some(Overfull { layer: group.layer, rows, room, tokens }));
                continue;
            }
            if place.attention {
                // A row without a token sees its own entry.
                let empty = room - group.attention;
                let scores = if decode { &mut group.decode } else { &mut group.prefill };
                scores.rows += empty;
                scores.pairs += u64::from(empty);
                scores.entries += u64::from(empty);
                group.attention = room;
            }
            if place.feed_forward {
                group.feed_forward = room;
            }
            group.block = group.attention.min(group.feed_forward);
            group.project = group.project.min(tokens.saturating_sub(room));
        }
        overfull
    }
}

/// Pairs and entries of a span's tokens at a layer, where all of them run it and some are masked out.
fn masked_scores(view: &View, align: Align, span: &Span, wave: u32, layer: u16) -> (u64, u64) {
    let context = &view.contexts[span.sequence as usize];
    let mut before = context.seen(layer, view.visibility);
    let (mut pairs, mut entries) = (0, 0);
    // Entries that the first token no longer sees, and positions from 1.
    let (mut hidden, mut position) = (None, u64::from(context.tokens()));
    for &index in view.batch.paths_of(span) {
        let path = view.paths.get(index);
        let hop = match align {
            // The first time at a layer, a token has left nothing there.
            Align::Pool if wave == 0 && view.visibility == Visibility::SameLayer => None,
            Align::Pool => path.hops.iter().find(|hop| hop.layer == layer && hop.occurrence == wave),
            Align::Hop { .. } | Align::Layer => path.hops.get(wave as usize).filter(|hop| hop.layer == layer),
        }
        .filter(|hop| hop.modules.attention());
        let (own, leaves) = match view.visibility {
            Visibility::SameLayer => (hop.map_or(0, |hop| hop.own_here), path.visible.at(layer)),
            Visibility::OnePerToken => (0, u32::from(path.visible.total > 0)),
            Visibility::AllEntries => (hop.map_or(0, |hop| hop.own_before), path.visible.total),
        };
        let seen = before + u64::from(own) + 1;
        position += 1;
        let within = view.within(layer, seen, position);
        pairs += within;
        let hidden = *hidden.get_or_insert(seen - within);
        entries = (seen - hidden).max(entries);
        before += u64::from(leaves);
    }
    (pairs, entries)
}
