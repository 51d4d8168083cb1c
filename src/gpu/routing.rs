//! Where the routes of a run come from, and the trace that it leaves.

use super::hops::{Radial, RouterMlp};
use super::pass_io::{BranchRecord, Oracle, Ratio};
use super::skips::Skips;
use crate::error::{InputError, Result};
use crate::model::{TableDescription, Visibility};
use crate::trace::{
    Granularity, Header, KvAction, Modules, Order, Phase, Role, Route, RouteTable, Router, RouterDevice,
    RouterKind, RouterWhen, Run, Step, Trace,
};
use crate::weights::{AnyRouter, SkipKv, WordTable};
use serde_json::json;

/// Who decides which layers a token takes.
#[derive(Clone, Debug)]
pub enum Routing {
    /// One route for all tokens: dense, or pruned for good.
    Fixed(Route, KvAction),
    /// What a recorded trace says: its requests in order, token by token.
    Replay(Box<Trace>),
    /// A router names each token's next layer, hop by hop.
    Router(Box<RouterMlp>),
    /// The router of a radial network names it.
    Radial(Box<Radial>),
    /// A table names a token's layers by its word.
    Words(Box<WordTable>),
    /// A router decides before each layer which of its branches a token takes.
    Skips(Box<Skips>),
    /// Every branch is computed; those that add little are left out.
    Oracle(Oracle),
}

impl Routing {
    /// By a router's file. A table decides nothing, so that `device` does not matter.
    pub fn by(router: AnyRouter, device: RouterDevice) -> Routing {
        match router {
            AnyRouter::Skip(router) => Routing::Skips(Box::new(Skips { router, device })),
            AnyRouter::Radial(router) => Routing::Radial(Box::new(Radial { router, device })),
            AnyRouter::Table(table) => Routing::Words(Box::new(table)),
        }
    }

    /// Every layer, in order.
    pub fn dense(layers: u32) -> Routing {
        Routing::Fixed(Route::dense(layers), KvAction::Write)
    }

    /// What attention must see of a unified cache, where the network was trained with it.
    pub fn visible(&self) -> Option<Visibility> {
        match self {
            Routing::Radial(radial) => Some(radial.router.described.visible),
            Routing::Words(table) => Some(table.described.visible),
            _ => None,
        }
    }

    /// The header of the trace that such a run leaves, checked against the model's pool.
    ///
    /// # Errors
    /// A trace for another pool, and routes that the pool cannot run.
    pub(super) fn header(&self, model: &str, layers: u32) -> Result<Header> {
        let dense = Header::dense(model, layers);
        let header = match self {
            Routing::Fixed(route, kv) => {
                let ascending = route.0.windows(2).all(|pair| pair[0].layer <= pair[1].layer);
                let mut seen = std::collections::HashSet::new();
                let reuse = !route.0.iter().all(|step| seen.insert(step.layer));
                let whole = *route == Route::dense(layers);
                let order = if ascending { Order::Monotone } else { Order::Any };
                let kind = if whole { RouterKind::None } else { RouterKind::Fixed };
                Header { order, reuse, kv: *kv, router: Router::costless(kind), ..dense }
            }
            Routing::Replay(trace) => {
                if trace.header.layers != layers {
                    let what = format!("a trace of a pool of {layers} layers, as the model has");
                    return Err(InputError::expected(what).key("layers").found(trace.header.layers).into());
                }
                if trace.header.router.extra.get("weighted") == Some(&json!(true)) {
                    let what = "a trace of branches that are added whole: how much of each was added is not recorded";
                    return Err(InputError::expected(what).key("router.weighted").found(true).into());
                }
                let runs = || trace.requests.iter().flat_map(|request| &request.runs);
                for (role, name) in [(Role::Draft, "draft"), (Role::Verify, "verify")] {
                    if runs().any(|run| run.role == role) {
                        let what = "tokens that are certain, and `recompute` runs";
                        return Err(InputError::expected(what).key("role").found(name).into());
                    }
                }
                trace.header.clone()
            }
            Routing::Router(mlp) => {
                let hidden = Some(mlp.hidden).filter(|&hidden| hidden > 0);
                let (when, kind) = (Some(RouterWhen::PerHop), RouterKind::Mlp);
                let router = Router { when, hidden, device: mlp.device, ..Router::costless(kind) };
                Header { order: Order::Any, reuse: true, router, max_hops: Some(mlp.most_hops), ..dense }
            }
            Routing::Radial(radial) => {
                let weights = &radial.router;
                let described = &weights.described;
                let (when, kind) = (Some(RouterWhen::PerHop), RouterKind::Mlp);
                let mut router = Router {
                    when,
                    hidden: Some(weights.hidden),
                    device: radial.device,
                    ..Router::costless(kind)
                };
                router.extra.insert("visible".into(), json!(described.visible));
                router.extra.insert("least_hops".into(), json!(described.least_hops));
                router.extra.insert("weighted".into(), json!(described.weighted));
                let (order, kv, max_hops) = (Order::Any, KvAction::Unified, Some(described.hops));
                Header { order, reuse: true, kv, router, max_hops, ..dense }
            }
            Routing::Words(table) => {
                let TableDescription { hops, visible, .. } = table.described;
                let when = Some(RouterWhen::Upfront);
                let mut router = Router { when, ..Router::costless(RouterKind::Fixed) };
                router.extra.insert("by".into(), json!("word"));
                router.extra.insert("visible".into(), json!(visible));
                let (order, kv) = (Order::Any, KvAction::Unified);
                Header { order, reuse: true, kv, router, max_hops: Some(hops), ..dense }
            }
            Routing::Skips(skips) => {
                let weights = &skips.router;
                let (when, kind) = (Some(RouterWhen::PerLayer), RouterKind::Mlp);
                let mut router = Router {
                    when,
                    hidden: Some(weights.hidden),
                    device: skips.device,
                    ..Router::costless(kind)
                };
                let candidates = &weights.described.candidates;
                let decided =
                    (0..layers).filter(|&layer| candidates.get(layer as usize) != Some(&[false; 2]));
                router.extra.insert("routed_layers".into(), json!(decided.collect::<Vec<u32>>()));
                let kv = match weights.described.kv {
                    SkipKv::ProjectOnly => KvAction::ProjectOnly,
                    SkipKv::None => KvAction::None,
                };
                Header { kv, router, granularity: Granularity::Token, ..dense }
            }
            Routing::Oracle(oracle) => {
                let mut router = Router::costless(RouterKind::OracleThreshold);
                let over = match oracle.ratio {
                    Ratio::OverOutput => "branch_over_output",
                    Ratio::OverInput => "branch_over_input",
                };
                router.extra.insert("ratio".into(), json!(over));
                router.extra.insert("attn_threshold".into(), json!(oracle.attention));
                router.extra.insert("ffn_threshold".into(), json!(oracle.feed_forward));
                router.extra.insert("always_run_layers".into(), json!(oracle.always));
                let granularity = Granularity::Token;
                Header { kv: KvAction::ProjectOnly, router, granularity, ..dense }
            }
        };
        if let Routing::Fixed(route, _) = self {
            route.check(&header)?;
        }
        Ok(header)
    }
}

/// The route that an oracle's records of a row amount to: attention and feed-forward branch of each layer in turn.
pub(super) fn taken(records: &[BranchRecord]) -> Route {
    let step = |(layer, pair): (u32, &[BranchRecord])| {
        let modules = match (pair[0].taken > 0.0, pair[1].taken > 0.0) {
            (true, true) => Modules::Block,
            (true, false) => Modules::Attention,
            (false, true) => Modules::FeedForward,
            (false, false) => return None,
        };
        Some(Step { modules, ..Step::block(layer) })
    };
    Route((0..).zip(records.chunks_exact(2)).filter_map(step).collect())
}

/// The routes that the tokens of one request took.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// Route of each token that was fed.
    pub routes: Vec<u32>,
    /// What filled layers that tokens had left open.
    pub fills: Vec<Fill>,
}

/// A `recompute` run.
#[derive(Clone, Debug)]
pub(super) struct Fill {
    /// So many tokens have passed before it.
    pub due: u32,
    /// Position of its first token.
    pub start: u32,
    /// As the trace calls it.
    pub phase: Phase,
    /// Route of each of its tokens.
    pub routes: Vec<u32>,
}

impl Fill {
    /// The `recompute` runs of a request, in order.
    pub fn of(request: &crate::trace::Request) -> Vec<Fill> {
        let mut due = 0;
        let mut fills = Vec::new();
        for run in &request.runs {
            if run.role == Role::Recompute {
                fills.push(Fill {
                    due,
                    start: run.start,
                    phase: run.phase,
                    routes: run.routes.iter().collect(),
                });
            }
            due += run.advance();
        }
        fills
    }
}

/// The trace of a run.
pub(super) fn trace(header: Header, routes: RouteTable, requests: &[Taken], adapter: &str) -> Trace {
    let source = format!("recorded by radialsim execute on {adapter}");
    let request = |(id, taken): (u64, &Taken)| {
        let (prompt, decode) = taken.routes.split_at(taken.prompt_tokens as usize);
        let request = crate::trace::Request::plain(id, prompt, taken.output_tokens, decode);
        crate::trace::Request { runs: with_fills(&request.runs, &taken.fills), ..request }
    };
    let requests = (0..).zip(requests).map(request).collect();
    Trace { header: Header { source, ..header }, routes, requests }
}

/// Runs, cut where others came between.
fn with_fills(runs: &[Run], fills: &[Fill]) -> Vec<Run> {
    let mut all = Vec::new();
    let mut fills = fills.iter().peekable();
    for run in runs {
        let part = |from: u32, to: u32| Run {
            start: from,
            routes: run.routes.range(from - run.start, to - run.start).collect(),
            ..run.clone()
        };
        let (mut at, end) = (run.start, run.start + run.routes.len());
        while let Some(fill) = fills.next_if(|fill| fill.due < end) {
            if fill.due > at {
                all.push(part(at, fill.due));
                at = fill.due;
            }
            all.push(fill.run());
        }
        all.push(part(at, end));
    }
    all.extend(fills.map(Fill::run));
    all
}

impl Fill {
    fn run(&self) -> Run {
        let routes = self.routes.iter().copied().collect();
        Run { start: self.start, phase: self.phase, role: Role::Recompute, routes, accepted: Vec::new() }
    }
}
