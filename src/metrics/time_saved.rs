//! The pass time that a run saves against another of the same scenario, taken apart.

use super::{Ledger, Losses};

/// Names of the parts of [`TimeSaved`], which are their keys in `simulate --json`.
pub const PARTS: [&str; 11] = [
    "ideal",
    "union",
    "fragmentation",
    "kv",
    "router",
    "gather_scatter",
    "launch",
    "waiting",
    "other",
    "settings",
    "batching",
];

const SETTINGS: usize = 9;
const BATCHING: usize = 10;

/// What a run saves against the first variant, in picoseconds, as a sum of signed parts: what saves is positive.
///
/// With F the first variant's run and R this one, D(X) the time of the passes of X if they ran dense, and D_F(R) that of R's under
/// F's settings (engine, capture sizes, sparsity, caps):
///
/// - nine parts are [`Losses`] of R less those of F, which are 0 where F runs dense: `ideal` is `saving`, the others are losses with
///   a minus sign;
/// - `settings` is D_F(R) - D(R);
/// - `batching` is D(F) - D_F(R): the passes of R hold other tokens than those of F.
///
/// They add up to the pass time of F less that of R, exactly, since the losses of each run add up to D(X) less its pass time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSaved {
    /// Pass time of the first variant.
    pub first: i128,
    /// The parts, in the order of [`PARTS`].
    pub parts: [i128; PARTS.len()],
    /// Time without a pass in flight that the run saves: waits for arrivals. Not part of the pass time.
    pub arrivals: i128,
}

impl TimeSaved {
    /// What `run` saves against `first`; none where one of them was not explained, or they have not as many engines: times are sums over those.
    pub fn of(first: &Ledger, run: &Ledger) -> Option<TimeSaved> {
        if first.engines() != run.engines() {
            return None;
        }
        let (before, own) = (first.losses.as_ref()?, run.losses.as_ref()?);
        let mut parts = [0; PARTS.len()];
        for (part, (own, first)) in parts.iter_mut().zip(own.signed().into_iter().zip(before.signed())) {
            *part = own - first;
        }
        parts[SETTINGS] = own.dense_beside - own.dense;
        parts[BATCHING] = before.dense - own.dense_beside;
        let idle = |ledger: &Ledger| ledger.engine_ps() as i128 - ledger.pass_ps as i128;
        Some(TimeSaved { first: first.pass_ps as i128, parts, arrivals: idle(first) - idle(run) })
    }

    /// Pass time saved: the sum of the parts.
    pub fn saved(&self) -> i128 {
        self.parts.iter().sum()
    }
}

impl Losses {
    /// What each cause adds to the time saved beside the same passes, dense, in the order of the first of [`PARTS`]: the saving, and the losses
    /// with a minus sign.
    pub fn signed(&self) -> [i128; 9] {
        let Losses {
            dense: _,
            dense_beside: _,
            saving,
            union,
            fragmentation,
            kv,
            router,
            moves,
            launch,
            waiting,
            other,
        } = *self;
        [saving, -union, -fragmentation, -kv, -router, -moves, -launch, -waiting, -other]
    }

    /// How much less time the run's passes take than if they ran dense, picoseconds: `saving` less all losses.
    pub fn left(&self) -> i128 {
        self.signed().iter().sum()
    }
}
