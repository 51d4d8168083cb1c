//! What a file holds, in plain words.

use super::sheet::{Sheet, digits, percent};
use super::table::assumed;
use crate::error::shorten;
use crate::hw::Hardware;
use crate::scenario::{Built, Footprint, Note, Scenario};
use crate::sim::Setup;
use crate::sim::fleet::Fleet;
use crate::trace::{Header, RouteTable, RouterDevice, Stats, transitions};
use crate::workload::{LengthSummary, RequestSet, RequestSummary};
use petgraph::visit::EdgeRef;
use serde_json::json;

/// Rows of lists that could be long.
const ROWS: usize = 12;

/// Lines of a word and what it stands for.
fn lines<const N: usize>(lines: [(&str, String); N]) -> String {
    lines.map(|(word, text)| format!("{word:<14} {text}\n")).concat()
}

/// Every number of a device with its source.
pub fn hardware(hardware: &Hardware) -> String {
    let numbers = hardware.numbers();
    let tiles = hardware.compute.tiles.iter().map(|(rows, columns)| format!("{rows}x{columns}"));
    let tiles = tiles.collect::<Vec<_>>().join(", ");
    let sources = || numbers.iter().map(|(_, number)| &number.source).chain([&hardware.compute.tiles_source]);
    let sheet = Sheet::new()
        .words("key", numbers.iter().map(|(key, _)| key.as_str()).chain(["compute.tiles"]))
        .narrow("value", numbers.iter().map(|(_, number)| number.value.to_string()).chain([tiles]))
        .words("source", sources().map(|source| source.kind().to_string()))
        .prose("who says so", sources().map(|source| source.text()));
    let mut kinds = super::cells::SOURCES.map(|kind| (kind, 0));
    for source in sources() {
        kinds[source.kind() as usize].1 += 1;
    }
    let kinds = kinds.map(|(kind, count)| format!("{count} {kind}")).join(", ");
    let head = lines([
        ("device", format!("{} ({})", shorten(&hardware.title), shorten(&hardware.name))),
        ("numbers", kinds),
        ("checks", "every number is in its range and has a source".into()),
    ]);
    let doubts = hardware.doubts(None).into_iter();
    let doubts = doubts.map(|(key, value, why)| format!("{:<14} {key} = {value} is {why}\n", "doubt"));
    head + &doubts.collect::<String>() + &sheet.render()
}

/// The counts of a trace.
pub fn counts(stats: &Stats) -> String {
    let (prefill, decode) = stats.phases();
    let arrivals = match stats.arrivals() {
        Some((first, last)) => format!("from {first} to {last}"),
        None => "none".into(),
    };
    let visits = &stats.layer_visits;
    let share = |visits: u64| percent(visits as f64 / stats.tokens.max(1) as f64);
    let (most, least) = (visits.iter().max().copied(), visits.iter().min().copied());
    lines([
        ("requests", stats.requests.to_string()),
        ("arrivals", arrivals),
        (
            "lengths",
            format!(
                "{} prompt and {} output tokens on average",
                digits(stats.mean_prompt_tokens(), 4),
                digits(stats.mean_output_tokens(), 4)
            ),
        ),
        ("tokens", format!("{} with a route: {prefill} in prefill, {decode} in decode", stats.tokens)),
        ("routes", format!("{} different", stats.routes)),
        (
            "mean depth",
            format!("{} of {} layers, a branch counts half", digits(stats.mean_depth, 4), visits.len()),
        ),
        (
            "skipped",
            format!(
                "{} % of (token, layer) pairs, not counting those of which a branch is taken",
                percent(stats.skipped())
            ),
        ),
        (
            "visits",
            format!(
                "the most visited layer by {} % of the tokens, the least by {} %",
                share(most.unwrap_or(0)),
                share(least.unwrap_or(0))
            ),
        ),
    ])
}

/// A trace: its header, counts, routes and transitions.
pub fn trace(header: &Header, stats: &Stats, routes: &RouteTable) -> String {
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let router = &header.router;
    let when = router.when.map_or(String::new(), |when| format!(", decides {}", name(json!(when))));
    let hidden = router.hidden.map_or(String::new(), |hidden| format!(", {hidden} wide"));
    let device = if router.device == RouterDevice::Host { ", on the host" } else { "" };
    let order =
        format!("{}{}", name(json!(header.order)), if header.reuse { ", layers may come again" } else { "" });
    let hops = header.max_hops.map_or(String::new(), |hops| format!(", at most {hops} hops"));
    let mut text = lines([
        ("model", format!("{}, {} layers", shorten(&header.model), header.layers)),
        ("source", shorten(&header.source)),
        ("order", order + &hops),
        ("router", format!("{}{when}{hidden}{device}", name(json!(router.kind)))),
        ("decisions", format!("one for each {}", name(json!(header.granularity)))),
        ("skipped KV", header.kv.to_string()),
    ]);
    for (key, value) in &router.extra {
        text += &format!("{:<14} {}\n", "router key", shorten(&format!("{key} = {value}")));
    }
    text += &counts(stats);
    text += &most_frequent(stats, routes);
    text + &followers(stats, routes) + "\nThe file keeps every rule of the format.\n"
}

fn most_frequent(stats: &Stats, routes: &RouteTable) -> String {
    let mut uses: Vec<(u64, u32)> =
        stats.uses().iter().copied().zip(0..).filter(|(uses, _)| *uses > 0).collect();
    uses.sort_by_key(|&(uses, route)| (std::cmp::Reverse(uses), route));
    let used = uses.len();
    uses.truncate(ROWS);
    let sheet = Sheet::new()
        .numbers("tokens", uses.iter().map(|(uses, _)| uses.to_string()))
        .numbers("%", uses.iter().map(|(uses, _)| percent(*uses as f64 / stats.tokens as f64)))
        .numbers("depth", uses.iter().map(|(_, route)| routes.get(*route).depth().to_string()))
        .prose("route", uses.iter().map(|(_, route)| short_route(&routes.get(*route).to_string())));
    format!("\nMost frequent routes, {} of {used}\n{}", uses.len(), sheet.render())
}

/// Runs of whole layers drawn together: `0 1 2 4a` as `0-2 4a`.
fn short_route(route: &str) -> String {
    let mut parts: Vec<(Option<(u32, u32)>, &str)> = Vec::new();
    for step in route.split(' ') {
        let layer: Option<u32> = step.parse().ok();
        match (layer, parts.last_mut()) {
            (Some(layer), Some((Some((_, last)), _))) if *last + 1 == layer => *last = layer,
            _ => parts.push((layer.map(|layer| (layer, layer)), step)),
        }
    }
    let part = |(range, step): &(Option<(u32, u32)>, &str)| match range {
        Some((first, last)) if last > first => format!("{first}-{last}"),
        _ => (*step).to_owned(),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

/// Which layers follow which, other than the next one in the pool.
fn followers(stats: &Stats, routes: &RouteTable) -> String {
    let graph = transitions(routes, stats.uses());
    let total: u64 = graph.edge_weights().sum();
    let edge = |edge: petgraph::graph::EdgeReference<'_, u64>| {
        (*edge.weight(), graph[edge.source()], graph[edge.target()])
    };
    let (follow, mut jumps): (Vec<_>, Vec<_>) =
        graph.edge_references().map(edge).partition(|(_, from, to)| from + 1 == *to);
    let next = follow.iter().map(|(uses, _, _)| uses).sum();
    jumps.sort_by_key(|&(uses, from, to)| (std::cmp::Reverse(uses), from, to));
    let count = jumps.len();
    jumps.truncate(ROWS);
    let share = |uses: u64| percent(uses as f64 / total.max(1) as f64);
    let head = format!("\nTransitions: {} % go to the next layer of the pool", share(next));
    if count == 0 {
        return head + "\n";
    }
    let sheet = Sheet::new()
        .words("from, to", jumps.iter().map(|(_, from, to)| format!("{from} -> {to}")))
        .numbers("tokens", jumps.iter().map(|(uses, _, _)| uses.to_string()))
        .numbers("%", jumps.iter().map(|(uses, _, _)| share(*uses)));
    format!("{head}; of {count} others, the most frequent\n{}", sheet.render())
}

/// The counts of a request file.
pub fn requests(load: &RequestSet) -> String {
    let facts = RequestSummary::of(load);
    let lengths = |of: &LengthSummary| {
        format!(
            "mean {}, least {}, median {}, 99 % at most {}, most {} tokens",
            digits(of.mean(facts.requests), 4),
            of.least,
            of.p50,
            of.p99,
            of.most
        )
    };
    let arrivals = match (facts.rate_per_s, facts.gap_cv) {
        (Some(rate), Some(cv)) => format!(
            "over {}, {} a second; gaps vary with a coefficient of {} (Poisson: 1)",
            facts.span,
            digits(rate, 4),
            digits(cv, 4)
        ),
        _ => "all at the start".into(),
    };
    let shared = match facts.blocks {
        Some((blocks, again)) => {
            let size = load.prefix_block.map_or(String::new(), |block| format!(" of {block} tokens"));
            let share = percent(again as f64 / blocks as f64);
            format!("{share} % of {blocks} prompt blocks{size} are in an earlier request too")
        }
        None => "no prefix hashes".into(),
    };
    let totals = format!("{} prompt and {} output tokens", facts.prompt.total, facts.output.total);
    let mut text = lines([
        ("format", load.told.format.map_or(String::new(), |format| format.name().to_owned())),
        ("times", shorten(&load.told.times)),
        ("requests", facts.requests.to_string()),
        ("arrivals", arrivals),
        ("prompts", lengths(&facts.prompt)),
        ("outputs", lengths(&facts.output)),
        ("tokens", totals),
        ("shared", shared),
    ]);
    if !load.turns.is_empty() {
        let follow = load.turns.values().filter(|link| link.follows).count();
        let turns = format!(
            "{} requests follow an earlier one, {follow} of them without an arrival",
            load.turns.len()
        );
        text += &lines([("turns", turns)]);
    }
    for remark in &load.remarks {
        text += &lines([(remark.key, format!("{}: {}", shorten(&remark.value), remark.why))]);
    }
    text
}

/// What a scenario would run.
pub fn scenario(scenario: &Scenario, built: &[Built], notes: &[Note], footprint: &Footprint) -> String {
    let serving = &scenario.serving;
    let chunks = if serving.chunked_prefill { "prompts in chunks" } else { "prompts whole" };
    let limits = &scenario.limits;
    let slo = scenario.slo.bounds().map(|(key, bound)| bound.map(|bound| format!("{key} {bound}")));
    let slo: Vec<String> = slo.into_iter().flatten().collect();
    let caps = [
        limits.power_w.map(|w| format!("{w} W")),
        limits.clock_mhz.map(|mhz| format!("{mhz} MHz")),
        limits.board.then(|| "the board's own limit".to_owned()),
    ];
    let caps: Vec<String> = caps.into_iter().flatten().collect();
    let first = built.first().map(|built| &built.setup);
    let head = lines([
        ("scenario", shorten(&scenario.title)),
        ("model", first.map_or(String::new(), |setup| shorten(&setup.model.name))),
        ("hardware", first.map_or(String::new(), |setup| shorten(&setup.hardware.title))),
        (
            "serving",
            format!(
                "at most {} sequences and {} tokens a pass, {chunks}",
                serving.max_sequences, serving.max_batched_tokens
            ),
        ),
        ("caps", if caps.is_empty() { "none".into() } else { caps.join(", ") }),
        ("seed", scenario.seed.to_string()),
        ("seeds", scenario.seeds.to_string()),
        ("slo", if slo.is_empty() { "none".into() } else { slo.join(", ") }),
        ("checks", "all files are read, all names known, all numbers in range".into()),
    ]);
    let devices = |built: &Built| {
        let Setup { ranks, placed, model, .. } = &built.setup;
        let tensor = ranks.as_ref().map(|ranks| match (model.spread, model.own_sequences) {
            (1, _) => format!("{} by tensor", ranks.count()),
            (devices, false) => format!("{devices} that share experts"),
            (devices, true) => format!("1 of {devices} that share experts"),
        });
        let layers =
            placed.as_ref().map(|placed| format!("{} by layers, {}", placed.layout.devices(), placed.name));
        let of_ranks = ranks.as_ref().map(|ranks| (ranks.fabric(), ranks.library()));
        let joined =
            of_ranks.or(placed.as_ref().map(|placed| (placed.links.fabric(), placed.links.library())));
        let joined = joined.map(|(fabric, library)| format!("{fabric}, {}", library.name()));
        let parts: Vec<String> = [tensor, layers, joined].into_iter().flatten().collect();
        let of_an_engine = if parts.is_empty() { "1".to_owned() } else { parts.join(", ") };
        let Fleet { replicas, router, apart, .. } = &built.fleet;
        match (replicas, apart) {
            (1, None) => of_an_engine,
            (_, None) => format!("{replicas} engines ({}), each {of_an_engine}", router.name()),
            (_, Some(apart)) => format!(
                "{replicas} engines for prompts and {} that generate ({}), each {of_an_engine}",
                apart.decode,
                router.name()
            ),
        }
    };
    let stats: Vec<Stats> = built.iter().map(|built| Stats::of(&built.trace)).collect();
    let of_both = || built.iter().zip(&stats);
    let routes = |(built, stats): (&Built, &Stats)| match built.later {
        Some(_) => "drawn as requests begin".to_owned(),
        None => stats.routes.to_string(),
    };
    let depth = |(built, stats): (&Built, &Stats)| match &built.later {
        Some(later) => later.mean_depth(&built.trace.requests),
        None => stats.mean_depth,
    };
    let routers = built.iter().map(|built| {
        let kind = json!(built.trace.header.router.kind);
        kind.as_str().unwrap_or_default().to_owned()
    });
    let sheet = Sheet::new()
        .words("variant", built.iter().map(|built| &built.name))
        .words("policy", built.iter().map(|built| built.setup.dispatch.policy.name()))
        .words("devices", built.iter().map(devices))
        .words("router", routers)
        .numbers("requests", stats.iter().map(|stats| stats.requests.to_string()))
        .numbers("tokens", stats.iter().map(|stats| stats.tokens.to_string()))
        .numbers("routes", of_both().map(routes))
        .numbers("mean\ndepth", of_both().map(|both| format!("{:.2}", depth(both))));
    format!("{head}\n{}\n{}\n{}", sheet.render(), held(footprint), assumed(notes))
}

/// Memory of this program, by what it holds.
fn held(footprint: &Footprint) -> String {
    let mb = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    let all = [("all", footprint.at_most())];
    let rows = || footprint.parts.iter().chain(&all);
    let sheet = Sheet::new()
        .words("memory of this program, at most", rows().map(|(what, _)| *what))
        .numbers("MB", rows().map(|&(_, bytes)| mb(bytes)));
    sheet.render()
}

/// The GPUs of this machine.
#[cfg(feature = "gpu")]
pub fn adapters(adapters: &[crate::gpu::AdapterInfo]) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let one = |adapter: &crate::gpu::AdapterInfo| {
        let [x, y, z] = adapter.max_workgroup;
        lines([
            ("adapter", shorten(&adapter.name)),
            ("backend", format!("{}, {}", adapter.backend, adapter.kind)),
            ("driver", shorten(&adapter.driver)),
            (
                "buffers",
                format!(
                    "at most {} bytes, {} in one binding",
                    adapter.max_buffer_bytes, adapter.max_binding_bytes
                ),
            ),
            (
                "workgroups",
                format!(
                    "at most {} invocations ({x} x {y} x {z}), {} bytes of shared memory",
                    adapter.max_invocations, adapter.workgroup_bytes
                ),
            ),
            ("timestamps", yes(adapter.timestamps)),
            ("f16", yes(adapter.f16)),
            (
                "subgroups",
                adapter.subgroups.map_or("no".into(), |(least, most)| format!("{least} to {most}")),
            ),
        ])
    };
    adapters.iter().map(one).collect::<Vec<_>>().join("\n")
}
