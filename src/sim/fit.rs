//! What must hold before anything runs: weights, activations and each request alone fit, and every token has a route.

use super::Setup;
use crate::batch::Paths;
use crate::cost::Device;
use crate::error::{InputError, Result};
use crate::model::{Input, Kind};
use crate::sched::{Admission, Paging, Takes, longest_unit, most_blocks, prompt_blocks};
use crate::trace::{Request, Role, RouterKind, Trace};

/// Bytes of the weights that must be kept: of all layers, unless the choice was made once and for all; then of the branches
/// and widths that some route takes. Sparse matrices take what their density leaves.
/// Where layers are streamed, those that are on the device at a time, whatever the routes.
/// Of each device, where several have layers of their own: embedding on the first, head on the last.
pub(super) fn weights(setup: &Setup, trace: &Trace) -> Vec<u64> {
    let model = &setup.model;
    if let Some(tiers) = &setup.tiers {
        return vec![model.weight_bytes(0) + u64::from(tiers.resident) * layer_bytes(setup)];
    }
    let layers = layer_weights(setup, trace);
    match setup.placed.as_deref().map(|placed| &placed.layout) {
        Some(layout) if layout.devices() > 1 => {
            let last = layout.devices() as usize - 1;
            let mut of = vec![0; last + 1];
            of[0] = model.entry_weight_bytes();
            of[last] = model.exit_weight_bytes();
            layout.of().iter().zip(layers).for_each(|(&device, bytes)| of[device as usize] += bytes);
            of
        }
        _ => vec![model.weight_bytes(0) + layers.iter().sum::<u64>()],
    }
}

/// Bytes of each layer that must be kept.
fn layer_weights(setup: &Setup, trace: &Trace) -> Vec<u64> {
    let model = &setup.model;
    let mut taken = vec![(false, 0.0f64); model.layers as usize];
    if trace.header.router.kind == RouterKind::Fixed {
        for step in trace.routes.iter().flat_map(|route| &route.0) {
            let (attends, width) = &mut taken[step.layer as usize];
            *attends |= step.modules.attention();
            *width = if step.modules.feed_forward() { width.max(step.width.into()) } else { *width };
        }
    } else {
        taken.fill((true, 1.0));
    }
    let kept = |(kind, &(attends, width)): (&Kind, &(bool, f64))| match (attends, width) {
        (false, 0.0) => 0,
        _ => part_bytes(setup, kind, attends, width),
    };
    model.layer_kinds().zip(&taken).map(kept).collect()
}

/// Bytes of a layer's norms, of its attention if it is kept, and of this share of its feed-forward part.
fn part_bytes(setup: &Setup, kind: &Kind, attends: bool, width: f64) -> u64 {
    let (model, density) = (&setup.model, setup.dispatch.density);
    let attention = if attends { model.attention_params() } else { 0 };
    let ffn = (model.own_ffn_params(kind) as f64 * width) as u64;
    density.bytes(model.attention_format(kind), attention)
        + density.bytes(model.ffn_format(kind), ffn)
        + model.norm_weight_bytes()
}

/// Bytes of a layer as it lies in memory; of the largest, where they differ.
pub(super) fn layer_bytes(setup: &Setup) -> u64 {
    let bytes = |kind| part_bytes(setup, kind, true, 1.0);
    setup.model.kinds.iter().map(bytes).max().expect("a model has a kind of layers")
}

/// How the cache is cut: layers with a window hold no more than it.
pub(super) fn paging(setup: &Setup, unified: bool) -> Result<Paging> {
    let (model, block_tokens) = (&setup.model, setup.serving.kv_block_tokens);
    let paging = Paging::new(block_tokens, model.layers, unified);
    if model.kinds.iter().all(|kind| kind.window.is_none()) {
        return Ok(paging);
    }
    if unified {
        let what = "a KV cache for each layer, as some layers of the model attend to a window";
        return Err(InputError::expected(what).key("kv").found("unified").into());
    }
    Ok(paging.windowed(model.layer_kinds().map(|kind| kind.window)))
}

/// The KV blocks there are, each of one layer or of the unified cache: as many as the server says, if they fit, or what memory
/// leaves.
pub(super) fn kv_blocks(setup: &Setup, fit: u64, unified: bool) -> Result<u64> {
    let Some(said) = setup.serving.kv_blocks else { return Ok(fit) };
    let blocks = u64::from(said) * if unified { 1 } else { u64::from(setup.model.layers) };
    if blocks > fit {
        let per_block = blocks / u64::from(said);
        let what = format!("at most {} blocks, which fit in memory beside the weights", fit / per_block);
        return Err(InputError::expected(what).key("serving.kv_blocks").found(said).into());
    }
    Ok(blocks)
}

/// KV blocks that fit: in all, and on each device where several have layers of their own.
pub(super) struct KvRooms {
    pub all: u64,
    pub each: Vec<u64>,
}

/// The KV blocks that fit beside these weights on devices with so much memory. Where several have layers of their own, every layer gets as many
/// as on the device that has least room for each, as vLLM does (`get_kv_cache_configs`: the fewest blocks of all workers).
pub(super) fn kv_rooms(
    setup: &Setup,
    aside: &SetAside,
    (weights, capacity): (&[u64], u64),
    block_bytes: u64,
) -> Result<KvRooms> {
    let room = |&weights: &u64| Ok(aside.kv_capacity(weights, capacity)? / block_bytes);
    let each = weights.iter().map(room).collect::<Result<Vec<u64>>>()?;
    if let [all] = each[..] {
        return Ok(KvRooms { all, each });
    }
    let of = setup.placed.as_ref().expect("several devices have layers").layout.of();
    let layers = |device: usize| of.iter().filter(|&&other| other as usize == device).count() as u64;
    let of_a_layer = each.iter().enumerate().filter_map(|(device, room)| room.checked_div(layers(device)));
    Ok(KvRooms { all: of_a_layer.min().unwrap_or(0) * of.len() as u64, each })
}

/// What a server sets aside of the device's memory, beside weights, before it counts its KV blocks.
pub(super) struct SetAside {
    /// The largest pass.
    activations: u64,
    /// What the process holds beside tensors.
    runtime: u64,
}

/// Bytes that a sampler takes for a logit beside the logit itself: vLLM 0.19 widens it to 32 bits, takes the softmax of that, and draws an
/// exponential number for each probability (`sampler.py`, `topk_topp_sampler.py`: `forward_native`, `random_sample`).
const SAMPLER_BYTES_PER_LOGIT: u64 = 3 * 4;

/// Bytes of a logit in the rows that its top-k and top-p kernel works in, one for each unit that is busy (`topk_topp_triton.py`).
const FILTER_BYTES_PER_LOGIT: u64 = 4;

impl SetAside {
    /// What an engine finds by a run of the largest pass: as many tokens as the budget takes through the layers, then the sampler on one
    /// row for each sequence (vLLM's `profile_run` and `_dummy_sampler_run`); on more where runs verify. At least what the passes of this run need.
    pub(super) fn new(setup: &Setup, trace: &Trace, device: &Device) -> Self {
        let (model, serving) = (&setup.model, setup.serving);
        let sequences = u64::from(serving.max_sequences);
        let tokens = u64::from(serving.max_batched_tokens).max(sequences);
        // A token that generates or drafts brings its row to the head, and a verify run all of its rows.
        let runs = trace.requests.iter().flat_map(|request| &request.runs);
        let verified = runs.filter(|run| run.role == Role::Verify).map(|run| u64::from(run.routes.len()));
        let outputs = tokens.min(sequences * verified.max().unwrap_or(1).max(1));
        let pass = crate::lower::activation_bytes(model, tokens, outputs);
        let busy = sequences.min(device.units());
        let sampler = model.activations.bytes(sequences * model.outputs)
            + model.outputs * (sequences * SAMPLER_BYTES_PER_LOGIT + busy * FILTER_BYTES_PER_LOGIT)
            // The last layer's output, and two copies of its rows that reach the head.
            + model.activations.bytes((tokens + 2 * sequences) * model.hidden);
        let samples = matches!(model.input, Input::Tokens { .. });
        SetAside { activations: pass.max(if samples { sampler } else { 0 }), runtime: device.runtime_bytes() }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> u64 {
        self.activations.saturating_add(self.runtime)
    }

    /// What is left for KV entries.
    pub(super) fn kv_capacity(&self, weights: u64, capacity: u64) -> Result<u64> {
        let needed = weights.saturating_add(self.bytes());
        capacity.checked_sub(needed).filter(|&left| left > 0).ok_or_else(|| {
            let what = format!(
                "at most {capacity} bytes of usable memory for weights ({weights}), activations ({}) and the process ({}); {} are short",
                self.activations,
                self.runtime,
                needed.saturating_sub(capacity)
            );
            InputError::expected(what).key("memory").found(needed).into()
        })
    }
}

/// The KV blocks of each request's whole life or prompt, where admission asks for them; an error where a request can never run.
pub(super) fn check_requests(
    setup: &Setup,
    trace: &Trace,
    (takes, paths): (&mut Takes, &mut Paths),
    paging: &Paging,
    blocks: u64,
) -> Result<Vec<u64>> {
    let layers = setup.model.layers;
    let admission = setup.serving.admission;
    let whole = admission == Admission::Whole;
    let mut most = Vec::new();
    // Each kept prompt block may leave a part-filled block at every layer.
    let cut = |request: &Request| setup.serving.prefix_block().map_or(0, |_| request.prefix.len() as u64);
    let most_at_a_layer = takes.most_at_a_layer(&trace.header, paths);
    let at_most = |request: &Request| {
        paging.most_blocks(entries_at_most(request, most_at_a_layer)) + cut(request) * u64::from(layers)
    };
    for request in &trace.requests {
        let key = || format!("request {}", request.id);
        if request.runs.is_empty() {
            let what = "routes for every token (draw_routes gives some)";
            return Err(InputError::expected(what).key(key()).into());
        }
        let budget = setup.serving.max_batched_tokens;
        let longest = longest_unit(request);
        if !setup.serving.chunked_prefill && longest > budget {
            let what = format!("runs within max_batched_tokens = {budget}, as chunked_prefill is off");
            return Err(InputError::expected(what).key(key()).found(longest).into());
        }
        if whole || at_most(request) > blocks {
            let prefix_block = setup.serving.prefix_block();
            let held = takes.look(request, paths, |request, paths| {
                most_blocks(request, paths, paging, layers, prefix_block)
            });
            if held > blocks {
                let what = format!("at most {blocks} KV blocks for one request; {} are short", held - blocks);
                return Err(InputError::expected(what).key(key()).found(held).into());
            }
            if whole {
                most.push(held);
            }
        }
        if admission == Admission::WholePrompt {
            most.push(takes.look(request, paths, |request, paths| prompt_blocks(request, paths, paging)));
        }
    }
    Ok(most)
}

/// A bound on the entries of a layer that needs no route: every token, each time it passes, leaves as many as the path does that leaves
/// most at a layer.
fn entries_at_most(request: &Request, most_at_a_layer: u64) -> u64 {
    request.runs.iter().map(|run| u64::from(run.routes.len())).sum::<u64>() * most_at_a_layer
}
