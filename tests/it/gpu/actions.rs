//! KV actions that leave or show something else than a token that follows the trace's words, entry by entry, in double precision:
//! random routes of every token's own, several sequences, prompts beside generations, every policy.

use crate::gpu::routed::{AsLowered, POLICIES};
use crate::small_models::{KeysValues, Small, VOCABULARY};
use radialsim::batch::{Policy, Visibility};
use radialsim::error::Result;
use radialsim::gpu::{
    Chosen, Executor, ExecutorOptions, GenerationSettings, GenerationWatch, Pass, PassOutcome, Prompt,
    Routing,
};
use radialsim::rng::Stream;
use radialsim::trace::{
    Header, KvAction, Modules, Order, Phase, Request, Role, Route, RouteTable, Router, RouterKind, Run, Step,
    Trace,
};
use radialsim::weights::Checkpoint;
use safetensors::Dtype;
use std::cell::RefCell;
use std::rc::Rc;

const LAYERS: usize = 5;

/// An entry; empty while it waits for its values.
type Entry = Rc<RefCell<Option<KeysValues>>>;

/// How the trace's words are read, right or, to see that the check can fail, wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Right,
    /// Entries of other layers do not serve.
    NothingServes,
    /// States are those with which tokens leave.
    LastStates,
    /// Nothing is filled later.
    NothingFilled,
    /// All hops and layers are seen, or those of the layer alone.
    Sees(Visibility),
}

/// What a sequence holds, in lists.
struct Sequence<'a> {
    small: &'a Small,
    header: &'a Header,
    visibility: Visibility,
    reading: Reading,
    /// By layer: position and entry.
    layers: Vec<Vec<(usize, Entry)>>,
    /// By token.
    tokens: Vec<Vec<Entry>>,
    /// By layer: position, state and entry of what is projected at the next visit.
    waiting: Vec<Vec<(usize, Vec<f64>, Entry)>>,
    /// State with which each token left.
    left: Vec<Vec<f64>>,
}

impl<'a> Sequence<'a> {
    fn new(small: &'a Small, header: &'a Header, visibility: Visibility, reading: Reading) -> Self {
        let visibility = if let Reading::Sees(other) = reading { other } else { visibility };
        let (layers, waiting) = (vec![Vec::new(); LAYERS], vec![Vec::new(); LAYERS]);
        let (tokens, left) = (Vec::new(), Vec::new());
        Sequence { small, header, visibility, reading, layers, tokens, waiting, left }
    }

    fn show(&mut self, layer: usize, position: usize, entry: Entry) {
        self.layers[layer].push((position, entry.clone()));
        self.tokens[position].push(entry);
    }

    fn seen(&self, layer: usize, position: usize) -> Vec<Entry> {
        let within =
            |at: usize| at <= position && self.small.window.is_none_or(|window| at + window > position);
        match self.visibility {
            Visibility::SameLayer => {
                let here = self.layers[layer].iter().filter(|(at, _)| within(*at));
                here.map(|(_, entry)| entry.clone()).collect()
            }
            Visibility::OnePerToken => {
                let hop = self.tokens[position].len();
                let one = |at: usize| self.tokens[at].get(hop).or(self.tokens[at].last()).cloned();
                (0..position).filter(|&at| within(at)).filter_map(one).collect()
            }
            Visibility::AllEntries => {
                (0..=position).filter(|&at| within(at)).flat_map(|at| self.tokens[at].clone()).collect()
            }
        }
    }

    /// A token takes a route, from its embedding or from where it left. Returns its logits.
    fn pass(&mut self, position: usize, token: u32, route: &Route, again: bool) -> Vec<f64> {
        let small = self.small;
        if again && self.reading == Reading::NothingFilled {
            return Vec::new();
        }
        if !again {
            assert_eq!(position, self.left.len(), "token after token");
            self.tokens.push(Vec::new());
            self.left.push(small.embed(position as u32, token));
        }
        let mut x = self.left[position].clone();
        let mut states = vec![x.clone()];
        let mut own: Vec<(usize, Entry)> = Vec::new();
        for step in &route.0 {
            let layer = step.layer as usize;
            if step.modules.attention() {
                for (at, state, entry) in std::mem::take(&mut self.waiting[layer]) {
                    *entry.borrow_mut() = Some(small.keys_values(layer, at as u32, &state));
                }
                let fresh: Entry = Rc::new(RefCell::new(Some(small.keys_values(layer, position as u32, &x))));
                let mut seen = self.seen(layer, position);
                seen.push(fresh.clone());
                let seen: Vec<KeysValues> =
                    seen.iter().map(|entry| entry.borrow().clone().expect("a value")).collect();
                small.attend(layer, position as u32, &mut x, &seen.iter().collect::<Vec<_>>());
                match step.kv {
                    Some(KvAction::None | KvAction::Deferred) => {}
                    Some(KvAction::Share) => {
                        let here = own.iter().rev().find(|(at, _)| *at == layer).or(own.last());
                        let serves = here.expect("something was left before").1.clone();
                        if self.reading != Reading::NothingServes {
                            self.show(layer, position, serves);
                        }
                    }
                    _ => {
                        own.push((layer, fresh.clone()));
                        self.show(layer, position, fresh);
                    }
                }
            }
            if step.modules.feed_forward() {
                small.feed(layer, &mut x);
            }
            states.push(x.clone());
        }
        self.left[position] = x.clone();
        for layer in (0..LAYERS).filter(|_| !again) {
            let names = |step: &&Step| step.layer as usize == layer;
            if route.0.iter().filter(names).any(|step| step.modules.attention()) {
                continue;
            }
            let named = route.0.iter().find(names).and_then(|step| step.kv);
            // The state before the first step at this layer or a higher one.
            let reached = route.0.iter().take_while(|step| (step.layer as usize) < layer).count();
            let last = self.reading == Reading::LastStates;
            let state = if last { x.clone() } else { states[reached].clone() };
            match named.unwrap_or(self.header.kv) {
                KvAction::ProjectOnly => {
                    let values = small.keys_values(layer, position as u32, &state);
                    let entry: Entry = Rc::new(RefCell::new(Some(values)));
                    own.push((layer, entry.clone()));
                    self.show(layer, position, entry);
                }
                KvAction::CopyState => {
                    let entry: Entry = Rc::new(RefCell::new(None));
                    self.waiting[layer].push((position, state, entry.clone()));
                    self.show(layer, position, entry);
                }
                KvAction::Share => {
                    let below = own.iter().filter(|(at, _)| *at < layer).max_by_key(|(at, _)| *at);
                    let serves = below.expect("something was left below").1.clone();
                    if self.reading != Reading::NothingServes {
                        self.show(layer, position, serves);
                    }
                }
                KvAction::Write | KvAction::None | KvAction::Deferred | KvAction::Unified => {}
            }
        }
        small.said(&x)
    }
}

/// Collects what the head says of each token while kernels are held against those of the lowering.
struct Heard<'a> {
    lowered: AsLowered<'a>,
    said: Vec<(usize, usize, Chosen)>,
    /// Passes in which prompts run beside generations.
    mixed: u32,
}

impl GenerationWatch for Heard<'_> {
    fn pass(&mut self, pass: &Pass, outcome: &PassOutcome, rows: &[(usize, u32, bool)]) -> Result<()> {
        let heads = pass.batch.spans.iter().flat_map(|span| {
            let end = span.first + span.tokens;
            (end - span.logits..end).map(|row| rows[row as usize])
        });
        let said = heads.zip(&outcome.chosen);
        self.said.extend(said.map(|((prompt, at, _), chosen)| (prompt, at as usize, chosen.clone())));
        let decodes = |decode: bool| pass.batch.spans.iter().any(|span| span.decode == decode);
        self.mixed += u32::from(decodes(true) && decodes(false));
        self.lowered.pass(pass, outcome, rows)
    }
}

/// Draws routes and runs.
struct Draw {
    random: Stream,
    monotone: bool,
    /// Actions of steps that differ from the header's: of those with attention, and of those without.
    attending: Vec<KvAction>,
    passing: Vec<KvAction>,
    /// Whether each route begins with layer 0, so that something was left that can serve.
    rooted: bool,
}

impl Draw {
    fn upto(&mut self, count: usize) -> usize {
        self.random.below(count as u64) as usize
    }

    fn step(&mut self, layer: usize, first: bool) -> Step {
        let modules = match self.upto(5) {
            _ if first && self.rooted => Modules::Block,
            0 => Modules::Attention,
            1 => Modules::FeedForward,
            _ => Modules::Block,
        };
        let actions = if modules.attention() { &self.attending } else { &self.passing };
        let (count, plain) = (actions.len(), first && self.rooted);
        let kv = if count > 0 && !plain && self.upto(3) == 0 {
            let at = self.upto(count);
            let actions = if modules.attention() { &self.attending } else { &self.passing };
            Some(actions[at])
        } else {
            None
        };
        Step { modules, kv, ..Step::block(layer as u32) }
    }

    fn route(&mut self) -> Route {
        let mut layers: Vec<usize> = if self.monotone {
            (0..LAYERS).filter(|_| self.upto(5) > 1).collect()
        } else {
            (0..self.upto(7)).map(|_| self.upto(LAYERS)).collect()
        };
        if self.rooted {
            layers.retain(|&layer| layer != 0 || !self.monotone);
            layers.insert(0, 0);
        }
        Route(layers.into_iter().enumerate().map(|(at, layer)| self.step(layer, at == 0)).collect())
    }

    fn trace(&mut self, kv: KvAction, refills: bool) -> Trace {
        let order = if self.monotone { Order::Monotone } else { Order::Any };
        let router = Router::costless(RouterKind::Fixed);
        let header =
            Header { kv, order, reuse: !self.monotone, router, ..Header::dense("small", LAYERS as u32) };
        let mut routes = RouteTable::default();
        let mut requests = Vec::new();
        for (id, (prompt, output)) in [(11, 4), (1, 9), (5, 6)].into_iter().enumerate() {
            let mut runs = Vec::new();
            let mut add = |start: usize, role: Role, ids: Vec<u32>| {
                let phase = if start < prompt || (role == Role::Recompute && runs.is_empty()) {
                    Phase::Prefill
                } else {
                    Phase::Decode
                };
                runs.push(Run { start: start as u32, phase, role, routes: ids.into(), accepted: Vec::new() });
            };
            let mut at = 0;
            while at < prompt + output - 1 {
                // A run of the prompt or of the generation.
                let end = if at < prompt { prompt } else { prompt + output - 1 };
                let count = if refills { 1 + self.upto(end - at) } else { end - at };
                add(at, Role::Plain, (0..count).map(|_| routes.intern(self.route())).collect());
                at += count;
                if refills && self.upto(3) > 0 {
                    let from = self.upto(at);
                    let count = 1 + self.upto(at - from);
                    add(from, Role::Recompute, (0..count).map(|_| routes.intern(self.route())).collect());
                }
            }
            requests.push(Request {
                id: id as u64,
                arrival: radialsim::units::SimTime::ZERO,
                prompt_tokens: prompt as u32,
                output_tokens: output as u32,
                priority: 0,
                prefix: Vec::new(),
                runs,
            });
        }
        Trace { header, routes, requests }
    }
}

/// Tokens of each prompt, and what the lists say of every token that the run fed; `worst`: how far the run is from it, as a share of the
/// largest logit.
fn worst(
    small: &Small,
    trace: &Trace,
    ids: &[Vec<u32>],
    said: &[(usize, usize, Chosen)],
    visibility: Visibility,
    reading: Reading,
) -> f64 {
    let mut logits: Vec<Vec<Vec<f64>>> = Vec::new();
    for (request, ids) in trace.requests.iter().zip(ids) {
        let mut sequence = Sequence::new(small, &trace.header, visibility, reading);
        let mut of = Vec::new();
        for run in &request.runs {
            for (at, route) in (run.start as usize..).zip(&run.routes) {
                let again = run.role == Role::Recompute;
                let heard = sequence.pass(at, ids[at], trace.routes.get(route), again);
                if !again {
                    of.push(heard);
                }
            }
        }
        logits.push(of);
    }
    let mut worst: f64 = 0.0;
    for (prompt, at, chosen) in said {
        let wanted = &logits[*prompt][*at];
        let scale = wanted.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let best = wanted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let far = |(id, logit): &(u32, f32)| (f64::from(*logit) - wanted[*id as usize]).abs() / scale;
        worst = chosen.top.iter().map(far).fold(worst, f64::max);
        worst = worst.max((f64::from(chosen.top[0].1) - best).abs() / scale);
    }
    worst
}

struct Case {
    kv: KvAction,
    visibility: Visibility,
    refills: bool,
    draw: Draw,
    /// What would be wrong, and is seen to be.
    wrong: Vec<Reading>,
}

/// Runs a case under a policy and holds it against the lists.
fn hold(small: &Small, executor: &mut Executor, case: &mut Case, policies: &[Policy], what: &str) {
    let trace = case.draw.trace(case.kv, case.refills);
    let prompts: Vec<Prompt> = (trace.requests.iter())
        .map(|request| Prompt {
            ids: (0..request.prompt_tokens).map(|_| case.draw.upto(VOCABULARY) as u32).collect(),
            most: request.output_tokens,
        })
        .collect();
    for &policy in policies {
        let what = format!("{what}, {}", policy.name());
        let settings = GenerationSettings {
            routing: Routing::Replay(Box::new(trace.clone())),
            policy,
            visibility: case.visibility,
            sampling: None,
            end_ids: vec![],
            prompt_logits: true,
            timed: false,
        };
        let model = executor.model().clone();
        let lowered = AsLowered { model: &model, passes: 0, kernels: 0 };
        let mut heard = Heard { lowered, said: Vec::new(), mixed: 0 };
        let generated = executor
            .generate(&prompts, &settings, &mut heard)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let ids: Vec<Vec<u32>> = prompts
            .iter()
            .zip(&generated.answers)
            .map(|(prompt, answer)| [&prompt.ids[..], &answer.ids].concat())
            .collect();
        let tokens: u32 =
            trace.requests.iter().map(|request| request.prompt_tokens + request.output_tokens - 1).sum();
        assert_eq!(heard.said.len(), tokens as usize, "{what}: every token is heard");
        for (ours, theirs) in generated.trace.requests.iter().zip(&trace.requests) {
            assert_eq!(flat(&generated.trace, ours), flat(&trace, theirs), "{what}: the routes come back");
        }
        let of = |reading| worst(small, &trace, &ids, &heard.said, case.visibility, reading);
        let far = of(Reading::Right);
        assert!(far <= 1e-4, "{what}: off by {far} of the largest logit");
        for &reading in &case.wrong {
            let far = of(reading);
            assert!(far > 1e-3, "{what}: {reading:?} goes unnoticed, off by {far}");
        }
    }
}

/// Role, position and steps of each token, in order.
fn flat(trace: &Trace, request: &Request) -> Vec<(Role, u32, String)> {
    let of = |run: &Run| -> Vec<(Role, u32, String)> {
        let steps = run.routes.iter().map(|route| trace.routes.get(route).to_string());
        (run.start..).zip(steps).map(|(at, steps)| (run.role, at, steps)).collect()
    };
    request.runs.iter().flat_map(of).collect()
}

fn opened(small: &Small) -> Option<(tempfile::TempDir, Executor)> {
    let folder = tempfile::tempdir().expect("a folder");
    small.write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    // Few tokens a pass, so that prompts run in parts beside generations.
    let options = ExecutorOptions { positions: 40, pass_tokens: 7, ..ExecutorOptions::default() };
    let executor = Executor::new(crate::gpu()?, &checkpoint, options).expect("a model that fits");
    Some((folder, executor))
}

fn draw(seed: u64, monotone: bool, attending: &[KvAction], passing: &[KvAction], rooted: bool) -> Draw {
    let random = Stream::new(seed, "actions");
    Draw { random, monotone, attending: attending.into(), passing: passing.into(), rooted }
}

fn policies(monotone: bool) -> &'static [Policy] {
    const FREE: [Policy; 3] = [Policy::DenseMasked, Policy::Hop, Policy::Grouped];
    if monotone { &POLICIES } else { &FREE }
}

/// Small models of both kinds, and one whose tokens see a few positions alone.
fn models() -> Vec<Small> {
    let mut windowed = Small::deep(false, LAYERS);
    windowed.window = Some(4);
    vec![Small::deep(false, LAYERS), Small::deep(true, LAYERS), windowed]
}

/// Every case for every model, in ascending and in free order, with several draws.
fn all(name: &str, case: impl Fn(u64, bool) -> Case) {
    for (number, small) in models().iter().enumerate() {
        let Some((_folder, mut executor)) = opened(small) else { return };
        for monotone in [true, false] {
            for seed in 0..3 {
                let mut case = case(seed, monotone);
                let what = format!("{name}, model {number}, monotone {monotone}, seed {seed}");
                hold(small, &mut executor, &mut case, policies(monotone), &what);
            }
        }
    }
}

const LEAVING: [KvAction; 5] =
    [KvAction::Share, KvAction::None, KvAction::Deferred, KvAction::Write, KvAction::ProjectOnly];
const PASSING: [KvAction; 5] =
    [KvAction::Share, KvAction::None, KvAction::Deferred, KvAction::CopyState, KvAction::ProjectOnly];

#[test]
fn entries_of_an_earlier_layer_serve() {
    all("share", |seed, monotone| Case {
        kv: KvAction::Share,
        visibility: Visibility::SameLayer,
        refills: false,
        draw: draw(seed, monotone, &[], &[], true),
        wrong: vec![Reading::NothingServes],
    });
}

#[test]
fn states_are_projected_at_the_next_visit() {
    all("copy_state", |seed, monotone| Case {
        kv: KvAction::CopyState,
        visibility: Visibility::SameLayer,
        refills: false,
        draw: draw(seed, monotone, &[], &[], false),
        wrong: vec![Reading::LastStates],
    });
}

#[test]
fn a_later_run_fills_what_tokens_left_open() {
    all("deferred", |seed, monotone| Case {
        kv: KvAction::Deferred,
        visibility: Visibility::SameLayer,
        refills: true,
        draw: draw(seed, monotone, &[], &[], false),
        wrong: vec![Reading::NothingFilled],
    });
}

#[test]
fn every_action_mixed_with_every_other() {
    for kv in [
        KvAction::Write,
        KvAction::ProjectOnly,
        KvAction::CopyState,
        KvAction::Share,
        KvAction::None,
        KvAction::Deferred,
    ] {
        all(kv.to_string().as_str(), |seed, monotone| Case {
            kv,
            visibility: Visibility::SameLayer,
            refills: seed == 0,
            draw: draw(seed + 9, monotone, &LEAVING, &PASSING, true),
            wrong: vec![Reading::NothingServes],
        });
    }
}

#[test]
fn a_unified_cache_shows_what_its_visibility_says() {
    for visibility in Visibility::ALL {
        let others = Visibility::ALL.into_iter().filter(|&other| other != visibility);
        let wrong: Vec<Reading> = others.map(Reading::Sees).collect();
        // Steps that leave nothing among them, or none: then the tokens of a prompt run side by side.
        for attending in [&[][..], &[KvAction::None, KvAction::Unified][..]] {
            all(visibility.name(), |seed, monotone| Case {
                kv: KvAction::Unified,
                visibility,
                refills: false,
                draw: draw(seed, monotone, attending, &[], false),
                wrong: wrong.clone(),
            });
        }
    }
}
