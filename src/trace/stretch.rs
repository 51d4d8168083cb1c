//! Recorded routes laid over another pool, or over other requests.

use super::synth::check_lengths;
use super::{MOST_LAYERS, Order, Phase, Request, Role, Route, RouteIds, RouteTable, Run, Step, Trace};
use crate::error::{InputError, Result};
use crate::rng::Stream;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Lays a trace over a pool of `layers` by relative depth.
///
/// Layer l of the new pool takes its decision from layer `floor((l + 0.5) * recorded / layers)` of the recorded one. So
/// each recorded step becomes the steps of the new layers that look at it, ascending, with the same modules, width, KV
/// action and mark: none, one or several. In a deeper pool every recorded layer has `floor(layers / recorded)` or one
/// more; in a shallower one some recorded layers are looked at by none, and their steps go. The relative depth of a
/// monotone route changes by less than one layer in the smaller pool at each border between layers run and skipped.
///
/// Routes in any order follow the same rule step by step: from 8 layers to 16, `4 1 7` becomes `8 9 2 3 14 15`, and a loop
/// stays a loop: `0 1 2 1 2 3` becomes `0 1 2 3 4 5 2 3 4 5 6 7`. Where the order is monotone and a layer comes twice in a
/// row, each new layer does so: `1 1` becomes `2 2 3 3`.
///
/// Requests, phases and roles stay. `max_hops` grows by the most steps
/// that one step becomes. The router's `routed_layers` follow the same rule; its other keys stay. Equal pools give the
/// trace back unchanged; otherwise `source` says what was done.
///
/// # Errors
/// A pool of 0 or more than [`MOST_LAYERS`] layers, or a recorded pool without layers.
pub fn stretch(trace: &Trace, layers: u32) -> Result<Trace> {
    let recorded = trace.header.layers;
    for (key, found) in [("layers", layers), ("header.layers", recorded)] {
        if !(1..=MOST_LAYERS).contains(&found) {
            let what = format!("a pool of 1 to {MOST_LAYERS} layers");
            return Err(InputError::expected(what).key(key).found(found).into());
        }
    }
    if layers == recorded {
        return Ok(trace.clone());
    }
    let mut becomes = vec![Vec::new(); recorded as usize];
    for layer in 0..layers {
        becomes[source_layer(layer, recorded, layers) as usize].push(layer);
    }
    let mut routes = RouteTable::default();
    let monotone = trace.header.order == Order::Monotone;
    let stretched = |route: &Route| {
        let groups = route.0.chunk_by(|a, b| monotone && a.layer == b.layer);
        let laid = groups.flat_map(|group| {
            let layers = becomes[group[0].layer as usize].iter();
            layers.flat_map(move |&layer| group.iter().map(move |&step| Step { layer, ..step }))
        });
        Route(laid.collect())
    };
    // Two recorded routes may become one, so ids change.
    let ids: Vec<u32> = trace.routes.iter().map(|route| routes.intern(stretched(route))).collect();
    let mut requests = trace.requests.clone();
    // Runs that share a cycle share the new one too.
    let mut cycles: HashMap<*const u32, Arc<[u32]>> = HashMap::new();
    for run in requests.iter_mut().flat_map(|request| &mut request.runs) {
        let (cycle, start) = run.routes.cycle_parts();
        let laid = || cycle.iter().map(|&id| ids[id as usize]).collect();
        let laid = cycles.entry(cycle.as_ptr()).or_insert_with(laid).clone();
        run.routes = RouteIds::cycle(laid, start, run.routes.len());
    }
    let mut header = trace.header.clone();
    header.layers = layers;
    if let Some(Value::Array(routed)) = header.router.extra.get_mut("routed_layers") {
        let laid = routed.iter().filter_map(Value::as_u64).filter_map(|layer| becomes.get(layer as usize));
        *routed = laid.flatten().map(|&layer| layer.into()).collect();
    }
    header.max_hops = header.max_hops.map(|most| most.saturating_mul(layers.div_ceil(recorded)));
    note(&mut header.source, &format!("laid from {recorded} over {layers} layers by relative depth"));
    Ok(Trace { header, routes, requests })
}

/// `floor((layer + 0.5) * recorded / layers)`, exactly.
fn source_layer(layer: u32, recorded: u32, layers: u32) -> u32 {
    let twice = (2 * u64::from(layer) + 1) * u64::from(recorded);
    (twice / (2 * u64::from(layers))) as u32
}

fn note(source: &mut String, what: &str) {
    if !source.is_empty() {
        source.push_str("; ");
    }
    source.push_str(what);
}

/// Gives requests the routes of a recorded trace: lengths, arrivals and prefixes of `requests`, routes drawn.
///
/// For each request one recorded request is drawn, each as likely, among those that have routes for the phases needed.
/// Its prefill routes are laid over the prompt and its decode routes over the generated tokens, one after the other from
/// a start that is drawn for each phase, and from the first again after the last. So neighbours stay neighbours, and a
/// phase never takes the routes of the other. Runs that a request brings are replaced. Each request draws from a stream
/// of its own. Requests come out by arrival, equal arrivals as given, with P + G - 1 routes each.
///
/// # Errors
/// A request without prompt or output tokens, a recorded trace that has no routes for a phase that is needed, or one with
/// draft, verify or recompute runs: those belong to the positions where they were recorded.
pub fn draw_routes(trace: &Trace, mut requests: Vec<Request>, seed: u64) -> Result<Trace> {
    check_lengths(&requests)?;
    if let Some(run) = trace.requests.iter().flat_map(|r| &r.runs).find(|run| run.role != Role::Plain) {
        let what = "a trace of plain runs, to lay its routes over other lengths";
        return Err(InputError::expected(what).key("role").found(format!("{:?}", run.role)).into());
    }
    requests.sort_by_key(|request| request.arrival);
    let recorded: Vec<Recorded> = trace.requests.iter().map(Recorded::of).collect();
    let prompts: Vec<&Recorded> = recorded.iter().filter(|r| !r.prefill.is_empty()).collect();
    let both: Vec<&Recorded> = prompts.iter().copied().filter(|r| !r.decode.is_empty()).collect();
    for request in &mut requests {
        let mut stream = Stream::new(seed, &format!("drawn routes of request {}", request.id));
        let decodes = request.output_tokens - 1;
        let (from, needs) = if decodes > 0 { (&both, "prefill and decode") } else { (&prompts, "prefill") };
        if from.is_empty() {
            let what = format!("a recorded request with {needs} routes");
            return Err(InputError::expected(what).key("requests").found("none").into());
        }
        let donor = from[stream.below(from.len() as u64) as usize];
        request.runs = vec![laid(&donor.prefill, Phase::Prefill, 0, request.prompt_tokens, &mut stream)];
        if decodes > 0 {
            let start = request.prompt_tokens;
            request.runs.push(laid(&donor.decode, Phase::Decode, start, decodes, &mut stream));
        }
    }
    let mut header = trace.header.clone();
    note(&mut header.source, &format!("laid over other lengths, routes drawn, seed {seed}"));
    Ok(Trace { header, routes: trace.routes.clone(), requests })
}

/// Routes of one recorded request, by phase, in order of position.
struct Recorded {
    prefill: Arc<[u32]>,
    decode: Arc<[u32]>,
}

impl Recorded {
    fn of(request: &Request) -> Self {
        let of = |phase| {
            let runs = request.runs.iter().filter(move |run| run.phase == phase);
            runs.flat_map(|run| &run.routes).collect()
        };
        Recorded { prefill: of(Phase::Prefill), decode: of(Phase::Decode) }
    }
}

/// `count` of these routes, consecutive, from a drawn start, around the end. The run shares them.
fn laid(from: &Arc<[u32]>, phase: Phase, start: u32, count: u32, stream: &mut Stream) -> Run {
    let first = stream.below(from.len() as u64) as u32;
    let routes = RouteIds::cycle(from.clone(), first, count);
    Run { start, phase, role: Role::Plain, routes, accepted: Vec::new() }
}
