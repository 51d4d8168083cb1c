//! A model whose folder has a router of its own: what a run takes of it, and what it does not.

use super::shared::{Shared, unified};
use super::{Note, Routes, Variant};
use crate::model::{Described, Network, SkipKv, Visibility};
use crate::trace::synth::Method;
use crate::trace::{Header, KvAction, Router, RouterDevice, RouterKind, RouterWhen, Trace};

/// The router that a variant pays for: the network's, where a formula has drawn the routes that such a router would decide; else the
/// trace's own.
pub(super) fn router(network: &Network, variant: &Variant, header: &Header, notes: &mut Vec<Note>) -> Router {
    let when = match (&variant.routes, &network.described) {
        // A method that names a router keeps it.
        _ if header.router.kind != RouterKind::OracleThreshold => return header.router.clone(),
        (Routes::Method(Method::Radial { .. }), Described::Radial(_)) => RouterWhen::PerHop,
        (
            Routes::Method(Method::IndependentSkips { .. } | Method::CorrelatedSkips { .. }),
            Described::Skip(_),
        ) => RouterWhen::PerLayer,
        _ => return header.router.clone(),
    };
    let why = format!("the router of the model's folder, {} weights", network.parameters);
    let key = format!("variants.{}.router", variant.name);
    notes.push(Note::new(key, format!("mlp, hidden {}", network.hidden), why));
    let (hidden, device) = (Some(network.hidden), RouterDevice::Gpu);
    Router { when: Some(when), hidden, device, ..Router::costless(RouterKind::Mlp) }
}

/// What attention sees in a unified cache: what the scenario says, else the trace's router, else the model's folder. Other caches have one
/// answer.
pub(super) fn visibility(
    asked: Option<Visibility>,
    shared: &Shared,
    variant: &Variant,
    trace: &Trace,
    notes: &mut Vec<Note>,
) -> Visibility {
    if !unified(trace) {
        return Visibility::default();
    }
    let by_trace = || {
        let known = Visibility::named(trace.header.router.extra.get("visible")?.as_str()?)?;
        Some((known, "as the trace's router says"))
    };
    let by_network = || match &shared.network.as_ref()?.described {
        Described::Radial(radial) => Some((radial.visible, "as the model's folder says")),
        Described::Table(table) => Some((table.visible, "as the model's folder says")),
        Described::Skip(_) => None,
    };
    if let Some(asked) = asked {
        return asked;
    }
    let Some((found, why)) = by_trace().or_else(by_network) else { return Visibility::default() };
    if found != Visibility::default() {
        notes.push(Note::new(format!("variants.{}.visibility", variant.name), found.name(), why));
    }
    found
}

/// What of the network a variant does otherwise.
pub(super) fn remark(
    network: &Network,
    visibility: Visibility,
    variant: &Variant,
    trace: &Trace,
    notes: &mut Vec<Note>,
) {
    let mut say = |what: &str, value: String, why: String| {
        notes.push(Note::new(format!("variants.{}.{what}", variant.name), value, why));
    };
    let header = &trace.header;
    let free = matches!(header.router.kind, RouterKind::None | RouterKind::Fixed);
    match &network.described {
        Described::Table(table) if header.router.kind == RouterKind::Fixed => {
            unified_as(table.visible, visibility, trace, &mut say);
        }
        _ if free => {
            let why = "the model's folder has a router, which these routes do not use nor pay for".to_owned();
            let routes = if header.router.kind == RouterKind::None { "dense" } else { "fixed" };
            say("routes", routes.to_owned(), why);
        }
        Described::Table(_) => {
            let why = "the model's folder has a table of routes; these decide by a router".to_owned();
            say("routes", "routed".to_owned(), why);
        }
        Described::Radial(radial) => {
            unified_as(radial.visible, visibility, trace, &mut say);
            let longest = trace.routes.iter().map(|route| route.0.len()).max().unwrap_or(0);
            if longest > radial.hops as usize {
                let why = format!("the network takes at most {}", radial.hops);
                say("hops", longest.to_string(), why);
            }
        }
        Described::Skip(skip) => {
            let kv = match skip.kv {
                SkipKv::ProjectOnly => KvAction::ProjectOnly,
                SkipKv::None => KvAction::None,
            };
            if header.kv != kv {
                say("kv", header.kv.to_string(), format!("the network leaves {kv} at what it skips"));
            }
        }
    }
}

/// Whether routes keep the network's one cache for all layers and see of it what the network sees.
fn unified_as(
    visible: Visibility,
    found: Visibility,
    trace: &Trace,
    say: &mut impl FnMut(&str, String, String),
) {
    if !unified(trace) {
        let why = "the network keeps one cache for all layers; these routes do not".to_owned();
        say("kv", trace.header.kv.to_string(), why);
    } else if found != visible {
        let name = visible.name();
        let why = format!("the network sees {name} of its cache; dispatch.visibility says otherwise");
        say("visibility", found.name().to_owned(), why);
    }
}
