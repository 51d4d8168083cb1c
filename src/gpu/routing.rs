//! Where the routes of a run come from, and the trace that it leaves.

use super::executor::{Oracle, Ratio, Record};
use super::hops::RouterMlp;
use super::skips::Skips;
use crate::error::{InputError, Result};
use crate::trace::{
    Granularity, Header, KvAction, Modules, Order, Route, RouteTable, Router, RouterKind, RouterWhen, Step,
    Trace,
};
use crate::weights::SkipKv;
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
    /// A router decides before each layer which of its branches a token takes.
    Skips(Box<Skips>),
    /// Every branch is computed; those that add little are left out.
    Oracle(Oracle),
}

impl Routing {
    /// Every layer, in order.
    pub fn dense(layers: u32) -> Routing {
        Routing::Fixed(Route::dense(layers), KvAction::Write)
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
                Header { order, reuse, kv: *kv, router: Router::free(kind), ..dense }
            }
            Routing::Replay(trace) => {
                if trace.header.layers != layers {
                    let what = format!("a trace of a pool of {layers} layers, as the model has");
                    return Err(InputError::expected(what).key("layers").found(trace.header.layers).into());
                }
                trace.header.clone()
            }
            Routing::Router(mlp) => {
                let hidden = Some(mlp.hidden).filter(|&hidden| hidden > 0);
                let (when, kind) = (Some(RouterWhen::PerHop), RouterKind::Mlp);
                let router = Router { when, hidden, device: mlp.device, ..Router::free(kind) };
                Header { order: Order::Any, reuse: true, router, max_hops: Some(mlp.most_hops), ..dense }
            }
            Routing::Skips(skips) => {
                let weights = &skips.router;
                let (when, kind) = (Some(RouterWhen::PerLayer), RouterKind::Mlp);
                let mut router =
                    Router { when, hidden: Some(weights.hidden), device: skips.device, ..Router::free(kind) };
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
                let mut router = Router::free(RouterKind::OracleThreshold);
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
pub(super) fn taken(records: &[Record]) -> Route {
    let step = |(layer, pair): (u32, &[Record])| {
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
pub struct Taken {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// Route of each token that was fed.
    pub routes: Vec<u32>,
}

/// The trace of a run.
pub(super) fn trace(header: Header, routes: RouteTable, requests: &[Taken], adapter: &str) -> Trace {
    let source = format!("recorded by radialsim execute on {adapter}");
    let request = |(id, taken): (u64, &Taken)| {
        let (prompt, decode) = taken.routes.split_at(taken.prompt_tokens as usize);
        crate::trace::Request::plain(id, prompt, taken.output_tokens, decode)
    };
    let requests = (0..).zip(requests).map(request).collect();
    Trace { header: Header { source, ..header }, routes, requests }
}
