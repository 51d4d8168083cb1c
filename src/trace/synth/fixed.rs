//! Methods that decide once and for all: one route for every token.

use super::Keep;
use crate::trace::{Modules, Route, Step};

/// The route of static depth pruning.
pub(super) fn kept(keep: &Keep, layers: u32) -> Route {
    let (depth, middle) = match keep {
        Keep::AllBut(ids) => return Route::of_layers((0..layers).filter(|layer| !ids.contains(layer))),
        Keep::DropLast { depth } => (depth, false),
        Keep::DropMiddle { depth } => (depth, true),
    };
    let halves = (depth * 2.0).round() as u32;
    let (whole, half) = (halves / 2, halves % 2);
    let first = if middle { whole.div_ceil(2) } else { whole };
    let last = whole - first;
    let mut steps: Vec<Step> = (0..first).map(Step::block).collect();
    if half == 1 {
        steps.push(Step { modules: Modules::FeedForward, ..Step::block(first) });
    }
    steps.extend((layers - last..layers).map(Step::block));
    Route(steps)
}

/// The dense route at a fraction of the feed-forward width.
pub(super) fn narrow(width: f32, layers: u32) -> Route {
    Route((0..layers).map(|layer| Step { width, ..Step::block(layer) }).collect())
}
