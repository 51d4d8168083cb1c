//! Routes as sets: which branches a token takes of a pool that it goes through in order.

use super::{KvAction, Modules, Order, Role, Route, Step, Trace};

/// Layers of which one [`Taken`] says what is taken.
pub const TAKEN_LAYERS: u32 = 64;

/// The branches that a token takes of up to 64 layers; bit l stands for layer l.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Layers whose attention branch it takes.
    pub attention: u64,
    /// Layers whose feed-forward branch it takes.
    pub feed_forward: u64,
}

impl Taken {
    /// Every branch of so many layers.
    pub fn all(layers: u32) -> Taken {
        let all = u64::MAX.checked_shr(TAKEN_LAYERS - layers).unwrap_or(0);
        Taken { attention: all, feed_forward: all }
    }

    /// What a route takes of at most 64 layers; `None` where it says more: widths, adapters, marks of a router, KV actions of its own.
    fn of(route: &Route) -> Option<Taken> {
        route.0.iter().try_fold(Taken::default(), |taken, step| {
            let plain = Step { modules: step.modules, ..Step::block(step.layer) } == *step;
            let bit = 1u64.checked_shl(step.layer).filter(|_| plain && step.modules != Modules::Adapter)?;
            Some(Taken {
                attention: taken.attention | if step.modules.attention() { bit } else { 0 },
                feed_forward: taken.feed_forward | if step.modules.feed_forward() { bit } else { 0 },
            })
        })
    }

    /// What the routes of a trace take, by number, where sets of branches say all of it: in pool order, each layer at most once, every token once, and an
    /// entry of every token at every layer.
    pub fn of_trace(trace: &Trace) -> Option<Vec<Taken>> {
        let header = &trace.header;
        let plain = header.kv == KvAction::ProjectOnly
            && header.order == Order::Monotone
            && !header.reuse
            && header.layers <= TAKEN_LAYERS
            && trace.requests.iter().flat_map(|request| &request.runs).all(|run| run.role == Role::Plain);
        if plain { trace.routes.iter().map(Taken::of).collect() } else { None }
    }

    /// The route that takes these branches, of a pool cut into pieces of 64 layers.
    pub fn route(pieces: &[Taken]) -> Route {
        let mut steps = Vec::new();
        for (first, piece) in (0..).step_by(TAKEN_LAYERS as usize).zip(pieces) {
            let mut left = piece.attention | piece.feed_forward;
            while left != 0 {
                let layer = left.trailing_zeros();
                let modules = match (piece.attention >> layer & 1, piece.feed_forward >> layer & 1) {
                    (1, 1) => Modules::Block,
                    (1, _) => Modules::Attention,
                    _ => Modules::FeedForward,
                };
                steps.push(Step { modules, ..Step::block(first + layer) });
                left &= left - 1;
            }
        }
        Route(steps)
    }
}
