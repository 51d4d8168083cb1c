//! Parameters out of range, found before anything is generated.

use super::count::{demand, layer_ids, probability, weights};
use super::{Count, Keep, Method, MethodRouter, Routed, Start, Transitions};
use crate::error::Result;
use crate::trace::{KvAction, MOST_LAYERS};

/// Most times around a loop.
const MOST_TIMES: u32 = 1000;
/// Most drafts of a round.
const MOST_DRAFTS: u32 = 1024;

impl Method {
    /// Holds every parameter against its range, for a pool of `layers`. Keys in errors start at the method's own fields.
    ///
    /// # Errors
    /// The first parameter out of range.
    pub fn check(&self, layers: u32) -> Result<()> {
        let pool = format!("a pool of 1 to {MOST_LAYERS} layers");
        demand((1..=MOST_LAYERS).contains(&layers), "layers", layers, &pool)?;
        match self {
            Method::Dense => Ok(()),
            Method::StaticDepth { keep } => check_keep(keep, layers),
            Method::StaticWidth { keep } => {
                demand(*keep > 0.0 && *keep <= 1.0, "keep", keep, "a fraction in (0, 1]")
            }
            Method::EarlyExit { exits, kv, dense_prefill, router } => {
                exits.check("exits", 1..=layers)?;
                router.check()?;
                demand(*kv != KvAction::Unified, "kv", kv, "an action other than unified")?;
                let fills = *kv != KvAction::Deferred || *dense_prefill;
                let what = "dense_prefill: true where kv is deferred (tokens of one prompt run together, so none can fill \
                            the holes of another)";
                demand(fills, "dense_prefill", dense_prefill, what)
            }
            Method::MixtureOfDepths { capacity, routed, window } => {
                probability("capacity", *capacity)?;
                demand(*window > 0, "window", window, "at least 1 position")?;
                match routed {
                    Routed::Layers(ids) => layer_ids("routed", ids, layers),
                    Routed::EveryOther | Routed::All => Ok(()),
                }
            }
            Method::IndependentSkips { skip, keep, kv, router, .. } => {
                check_skips(*skip, keep, *kv, router, layers)
            }
            Method::CorrelatedSkips { skip, correlation, keep, kv, router, .. } => {
                probability("correlation", *correlation)?;
                check_skips(*skip, keep, *kv, router, layers)
            }
            Method::Recursion { prefix, suffix, times, router, .. } => {
                let once = u64::from(*prefix) + u64::from(*suffix);
                let what = format!("fewer layers outside the repeated block than the pool's {layers}");
                demand(once < u64::from(layers), "prefix + suffix", once, &what)?;
                times.check("times", 1..=MOST_TIMES)?;
                router.check()
            }
            Method::Radial { transitions, start, hops, kv, router, .. } => {
                check_transitions(transitions, layers)?;
                check_start(start, layers)?;
                hops.check("hops", 0..=MOST_LAYERS)?;
                demand(*kv != KvAction::Deferred, "kv", kv, "an action other than deferred")?;
                router.check()
            }
            Method::DraftVerify { exit_layer, drafts, acceptance } => {
                let what = format!("a layer from 1 to {} (below the pool size)", layers - 1);
                demand((1..layers).contains(exit_layer), "exit_layer", exit_layer, &what)?;
                let what = format!("1 to {MOST_DRAFTS} drafts");
                demand((1..=MOST_DRAFTS).contains(drafts), "drafts", drafts, &what)?;
                probability("acceptance", *acceptance)
            }
        }
    }

    /// Expected depth of a token's route in blocks, where it follows from the parameters: not for walks that may end
    /// early, and not for [`Method::DraftVerify`], whose tokens run in parts.
    ///
    /// Prompt tokens of `dense_prefill` are not counted.
    ///
    /// # Errors
    /// As [`Method::check`].
    pub fn mean_depth(&self, layers: u32) -> Result<Option<f64>> {
        self.check(layers)?;
        let all = f64::from(layers);
        Ok(match self {
            Method::Dense | Method::StaticWidth { .. } => Some(all),
            Method::StaticDepth { keep } => Some(super::fixed::kept(keep, layers).depth()),
            Method::EarlyExit { exits, .. } => Some(exits.mean()),
            Method::MixtureOfDepths { capacity, routed, .. } => {
                let routed = routed.ids(layers).len() as f64;
                Some(all - routed * (1.0 - capacity))
            }
            Method::IndependentSkips { skip, keep, .. } | Method::CorrelatedSkips { skip, keep, .. } => {
                let kept = keep.len() as f64;
                Some(kept + (all - kept) * (1.0 - skip))
            }
            Method::Recursion { prefix, suffix, times, .. } => {
                let once = f64::from(prefix + suffix);
                Some(once + (all - once) * times.mean())
            }
            Method::Radial { transitions: Transitions::Matrix(_), .. } | Method::DraftVerify { .. } => None,
            Method::Radial { reuse: false, .. } => None,
            Method::Radial { hops, max_hops, .. } => Some(match (max_hops, hops) {
                (None, hops) => hops.mean(),
                (Some(most), Count::Fixed(n)) => f64::from(*most.min(n)),
                (Some(most), Count::Each(pairs)) => {
                    Count::Each(pairs.iter().map(|&(n, p)| (n.min(*most), p)).collect()).mean()
                }
            }),
        })
    }
}

impl MethodRouter {
    fn check(&self) -> Result<()> {
        demand(self.hidden != Some(0), "router.hidden", 0, "a width of at least 1, or no such key")
    }
}

fn check_keep(keep: &Keep, layers: u32) -> Result<()> {
    match keep {
        Keep::AllBut(ids) => layer_ids("keep", ids, layers),
        Keep::DropLast { depth } | Keep::DropMiddle { depth } => {
            let what = format!("a depth from 0 to {layers} blocks");
            demand((0.0..=f64::from(layers)).contains(depth), "keep.depth", depth, &what)
        }
    }
}

fn check_skips(skip: f64, keep: &[u32], kv: KvAction, router: &MethodRouter, layers: u32) -> Result<()> {
    probability("skip", skip)?;
    layer_ids("keep", keep, layers)?;
    let known = !matches!(kv, KvAction::Deferred | KvAction::Unified);
    demand(known, "kv", kv, "an action other than deferred and unified")?;
    router.check()
}

fn check_transitions(transitions: &Transitions, layers: u32) -> Result<()> {
    let Transitions::Matrix(rows) = transitions else { return Ok(()) };
    let square = |n: usize, key: &str, of: &str| {
        demand(n == layers as usize, key, n, &format!("{layers} {of}, one for each layer"))
    };
    square(rows.len(), "transitions", "rows")?;
    for (index, row) in rows.iter().enumerate() {
        let key = format!("transitions[{index}]");
        square(row.len(), &key, "weights")?;
        weights(&key, row)?;
    }
    Ok(())
}

fn check_start(start: &Start, layers: u32) -> Result<()> {
    match start {
        Start::Uniform => Ok(()),
        Start::Layer(id) => layer_ids("start", &[*id], layers),
        Start::Weights(row) => {
            let what = format!("{layers} weights, one for each layer");
            demand(row.len() == layers as usize, "start", row.len(), &what)?;
            weights("start", row)?;
            demand(row.iter().any(|&w| w > 0.0), "start", "zeros", "a weight above 0")
        }
    }
}
