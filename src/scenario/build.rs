//! From what a scenario says to what a run needs: models, devices and traces, with a note of everything assumed.

use super::context;
use super::doubts;
use super::fleet;
use super::formats;
use super::inputs::{Inputs, KINDS, ReadInput};
use super::launches::{self, Asked};
use super::network;
use super::note::Note;
use super::set::with_keys;
use super::shared::Shared;
use super::words::{self, token_count};
use super::{
    LimitsSpec, ParallelSpec, RouterSpec, Routes, SHORT_RUN_TOKENS, Scenario, Sparsity, Variant, Workload,
};
use crate::cost::Limits;
use crate::error::{InputError, Result};
use crate::hw::{Fabric, Hardware, ServingEngine};
use crate::kernel::Density;
use crate::lower::{Dispatch, RouterPlan};
use crate::model::{Model, Network, Visibility};
use crate::sched::Sampling;
use crate::sim::fleet::Fleet;
use crate::sim::{Against, Fidelity, Setup};
use crate::trace::synth::{Keep, Later, Method, generate};
use crate::trace::{Header, Order, Router, RouterKind, Stats, Trace, draw_routes, stretch};
use crate::workload::RequestSet;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A variant, ready to run.
#[derive(Debug)]
pub struct Built {
    /// Name of the row.
    pub name: String,
    /// Whose host times count: an engine, or `profile`.
    pub engine: String,
    /// The machine and the policies.
    pub setup: Setup,
    /// Who arrives, on which routes.
    pub trace: Trace,
    /// What draws the routes when a request begins, where they are not in the trace: it has the dense route for all then.
    pub later: Option<Later>,
    /// How many engines have this setup, and how requests come to them.
    pub fleet: Fleet,
}

impl Scenario {
    /// Reads what the scenario names and makes its variants.
    ///
    /// # Errors
    /// Whatever is wrong with a file, a name or a number, before anything runs.
    pub fn build(&self) -> Result<(Vec<Built>, Vec<Note>)> {
        self.build_with(&Inputs::default())
    }

    /// The same, with what `inputs` have read already.
    ///
    /// # Errors
    /// Those of [`Scenario::build`].
    pub fn build_with(&self, inputs: &Inputs) -> Result<(Vec<Built>, Vec<Note>)> {
        let mut notes = Vec::new();
        let shared = self.shared(inputs, &mut notes)?;
        let built = self.variants.iter().map(|variant| self.variant(inputs, &shared, variant, &mut notes));
        let mut built = built.collect::<Result<Vec<_>>>()?;
        compare_with_first(&mut built);
        let conditional = built.iter().any(|built| built.setup.dispatch.decisions.has_nodes());
        let used = |key: &str| conditional || key != "launch.conditional_us";
        for assumption in shared.hardware.assumed().into_iter().filter(|assumption| used(&assumption.key)) {
            notes.push(Note::of_device(assumption.key, assumption.value, assumption.text));
        }
        for (variant, built) in
            self.variants.iter().zip(&built).filter(|(variant, _)| variant.engine.is_some())
        {
            let own = built.setup.hardware.assumed();
            let of_engine = own
                .into_iter()
                .filter(|assumption| assumption.key.starts_with("launch.") && used(&assumption.key));
            for assumption in of_engine {
                let key = format!("variants.{}: {}", variant.name, assumption.key);
                notes.push(Note::of_device(key, assumption.value, assumption.text));
            }
        }
        Ok((built, notes))
    }

    fn shared(&self, inputs: &Inputs, notes: &mut Vec<Note>) -> Result<Shared> {
        let mut model = Model::clone(&*inputs.model(&self.folder, &self.model)?);
        if let Some(formats) = &self.formats {
            formats.set(&mut model)?;
        }
        let mut hardware = Hardware::clone(&*inputs.hardware(&self.folder, &self.hardware)?);
        let own_launch = hardware.launch.clone();
        let engine = launches::engine(self.engine.as_ref(), "engine")?;
        launches::drive(&mut hardware, engine.as_ref());
        if self.engine.is_none() && self.variants.iter().any(|variant| variant.engine.is_none()) {
            launches::remark(notes);
        }
        let mut doubts = Vec::new();
        if !Hardware::is_shipped(&self.hardware) {
            doubts.extend(doubts::of_profile(&hardware, None));
        }
        if !self.overrides.is_empty() {
            let before = hardware.clone();
            hardware = self.overridden(hardware)?;
            let set = doubts::of_profile(&hardware, Some(&before));
            doubts.retain(|known: &Note| set.iter().all(|note| note.key != known.key));
            doubts.extend(set);
            model = with_keys(&model, self.set_by, "shape.", &self.overrides_of("shape."))?;
        }
        if self.serving.sampling == Sampling::Greedy {
            hardware.without_sampler();
        }
        // Files were checked when they were read, so what is wrong now was set.
        let set = |prefix: &str, error: InputError| {
            let key = format!("{prefix}{}", error.key.clone().unwrap_or_default());
            error.key(key)
        };
        for (key, value) in &self.overrides {
            notes.push(Note::new(key, value, self.set_by.why()));
        }
        hardware.check().map_err(|error| doubts::explained(set("hardware.", error), &doubts))?;
        notes.splice(0..0, doubts);
        formats::fit_device(&mut model, &hardware, self.formats.as_ref(), notes)?;
        model.check()?;

        let read = |path: &PathBuf| inputs.trace(&self.folder, path);
        let recorded = self.workload.trace.as_ref().map(read).transpose()?;
        let recorded = recorded.map(|trace| lay_over(&trace, &model, notes)).transpose()?;
        if let Some(file) = &self.workload.file {
            inputs.requests(&self.folder, &file.path)?;
            if let Some(tokenizer) = &file.tokenizer {
                inputs.requests(&self.folder, &words::file(&self.folder, tokenizer))?;
            }
        }
        context::remark(&model, notes);
        context::remark_experts(&model, self, notes);
        context::remark_uneven(&hardware, self.serving.max_sequences, notes);
        let mut load = self.load_requests(notes)?;
        if let Some((_, load)) = &mut load {
            context::cut(&mut load.requests, &model, &self.serving, notes)?;
        }
        let recorded = match (recorded, &load) {
            (Some(trace), Some((source, load))) => {
                let requests = &load.requests;
                let why =
                    format!("routes of the trace drawn for {} requests, seed {}", requests.len(), self.seed);
                notes.push(Note::new(*source, "lengths, arrivals, routes", why));
                Some(draw_routes(&trace, requests.clone(), self.seed)?)
            }
            (Some(trace), None) => Some(self.complete(trace, notes)?),
            (None, _) => None,
        };
        let (requests, clients, sessions) = match (load, &recorded) {
            (Some((_, load)), _) => (load.requests, load.clients, load.sessions),
            (None, Some(trace)) => (trace.requests.clone(), None, None),
            (None, None) => {
                return Err(InputError::expected("a trace, requests or a file").key("workload").into());
            }
        };
        context::check(&requests, &model, &self.serving, notes)?;
        context::remark_outputs(&requests, &self.serving, notes);
        let network = Network::of(&self.folder.join(&self.model))?;
        Ok(Shared { model, network, hardware, own_launch, recorded, requests, clients, sessions })
    }

    /// The profile with the keys set anew. What was learned from measured tables is large, and stays as it is unless a key is in it.
    fn overridden(&self, mut hardware: Hardware) -> Result<Hardware> {
        let settings = self.overrides_of("hardware.");
        let learned = ["corrections", "measured"];
        let kept = !settings.iter().any(|(key, _)| learned.iter().any(|part| key.starts_with(part)));
        let (corrections, measured) = match kept {
            true => (hardware.corrections.take(), hardware.measured.take()),
            false => (None, None),
        };
        let set = with_keys(&hardware, self.set_by, "hardware.", &settings)?;
        let set = Hardware { altered: hardware.altered + set.distance(&hardware), ..set };
        Ok(if kept { Hardware { corrections, measured, ..set } } else { set })
    }

    /// The keys set anew under this prefix, without it.
    fn overrides_of<'a>(&'a self, prefix: &str) -> Vec<(&'a str, &'a Value)> {
        let of = |(key, value): &'a (String, Value)| Some((key.strip_prefix(prefix)?, value));
        self.overrides.iter().filter_map(of).collect()
    }

    /// What of the inputs that were read this scenario uses.
    pub fn used(&self, inputs: &Inputs) -> Vec<ReadInput> {
        let Workload { trace, file, .. } = &self.workload;
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let [hardware, model, traces, requests, fabric] = KINDS;
        let of_variants = self.variants.iter().map(|variant| &variant.parallel);
        // A split that names no fabric takes that of the machines in which the device is sold.
        let usual = inputs.hardware(&self.folder, &self.hardware);
        let usual = usual.ok().and_then(|hardware| Fabric::usual(&hardware.name));
        let of_split = |spec: &ParallelSpec| spec.fabric.clone().or_else(|| usual.map(str::to_owned));
        let fabrics: Vec<String> =
            of_variants.chain([&self.parallel]).flatten().filter_map(of_split).collect();
        let tokenizer = file.as_ref().and_then(|file| file.tokenizer.as_ref());
        let names = [
            (hardware, Some(self.hardware.clone())),
            (model, Some(self.model.clone())),
            (traces, trace.as_ref().map(path)),
            (requests, file.as_ref().map(|file| path(&file.path))),
            (requests, tokenizer.map(|name| path(&words::file(&self.folder, name)))),
        ];
        let is_used = |input: &ReadInput| {
            names.iter().any(|(kind, name)| *kind == input.kind && name.as_ref() == Some(&input.name))
                || (input.kind == fabric && fabrics.contains(&input.name))
        };
        inputs.read().into_iter().filter(is_used).collect()
    }

    /// The requests that are drawn or read, where there are some, with the key that says so.
    fn load_requests(&self, notes: &mut Vec<Note>) -> Result<Option<(&'static str, RequestSet)>> {
        let (key, load) = match (&self.workload.requests, &self.workload.file) {
            (Some(drawn), None) => ("workload.requests", drawn.load(self.seed)?),
            (None, Some(file)) => {
                let name = |path: &Path| path.to_string_lossy().into_owned();
                let tokenizer = file.tokenizer.as_ref();
                let tokenizer =
                    tokenizer.map(|path| token_count(&self.folder.join(path), &name(path))).transpose();
                ("workload.file", file.load_with(&self.folder, self.seed, tokenizer?)?)
            }
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(InputError::expected("requests or a file").key("workload").found("both").into());
            }
        };
        if let (Some(found), Some(expected)) = (self.serving.prefix_block(), load.prefix_block)
            && found != expected
        {
            let what = format!("{expected} tokens, for which a hash of the file stands");
            let key = "serving.prefix_caching.block_tokens";
            return Err(InputError::expected(what).key(key).found(found).into());
        }
        for remark in &load.remarks {
            notes.push(Note::new(format!("{key}.{}", remark.key), &remark.value, &remark.why));
        }
        Ok(Some((key, load)))
    }

    /// Requests of the trace that have no routes get some drawn.
    fn complete(&self, trace: Trace, notes: &mut Vec<Note>) -> Result<Trace> {
        let (with, without): (Vec<_>, Vec<_>) =
            trace.requests.iter().cloned().partition(|r| !r.runs.is_empty());
        if without.is_empty() {
            return Ok(trace);
        }
        let why = format!(
            "{} requests of the trace have no routes; drawn from the others, seed {}",
            without.len(),
            self.seed
        );
        notes.push(Note::new("workload.trace", "routes", why));
        let drawn = draw_routes(&trace, without, self.seed)?;
        let mut requests = with;
        requests.extend(drawn.requests);
        requests.sort_by_key(|request| request.arrival);
        Ok(Trace { requests, ..drawn })
    }

    fn variant(
        &self,
        inputs: &Inputs,
        shared: &Shared,
        variant: &Variant,
        notes: &mut Vec<Note>,
    ) -> Result<Built> {
        let (trace, later) = self.trace_of(shared, variant)?;
        let header = &trace.header;
        let router = match (variant.router, &shared.network) {
            (Some(spec), _) => spec.router(),
            (None, Some(network)) => network::router(network, variant, header, notes),
            (None, None) => header.router.clone(),
        };
        let visibility = network::visibility(self.dispatch.visibility, shared, variant, &trace, notes);
        if let Some(network) = &shared.network {
            network::remark(network, visibility, variant, &trace, notes);
        }
        if router.kind == RouterKind::OracleThreshold {
            let why =
                "the trace's router is an oracle that no deployed model has; its decisions are taken as free";
            notes.push(Note::new(format!("variants.{}.router", variant.name), "free", why));
        }
        let policy = variant.policy.unwrap_or(self.dispatch.policy);
        if header.order == Order::Any && policy == crate::batch::Policy::Aligned {
            let expected = "hop, grouped, queued or dense_masked: the routes do not ascend through the pool";
            let key = format!("variants.{}.policy", variant.name);
            return Err(InputError::expected(expected).key(key).found("aligned").into());
        }
        if visibility == Visibility::OnePerToken && policy == crate::batch::Policy::Hop {
            let why = "tokens of a prompt are counted side by side, as under grouped; an engine that runs the layers of a hop one \
                       after the other takes them one by one, as a layer would read entries that the next has yet to write";
            notes.push(Note::new(format!("variants.{}.policy", variant.name), "hop", why));
        }
        let spec = variant.limits.unwrap_or(self.limits);
        let limited = spec != LimitsSpec::default();
        if limited && shared.hardware.power.clocks.is_none() {
            let why = "the profile says nothing of other clocks; voltages and memory speeds are those that nine other devices have on average";
            notes.push(Note::new("hardware.power.clocks", "a general law", why));
        }
        let limits: Limits = spec.into();
        let tiers = variant.tiers.clone().or_else(|| self.tiers.clone());
        let own = variant.limits.is_some() || variant.tiers.is_some();
        let of = if own { format!("variants.{}.", variant.name) } else { String::new() };
        notes.splice(0..0, doubts::of_variant(limits, tiers.as_ref(), &shared.hardware, &of));
        let dispatch = Dispatch {
            capture: variant.capture.clone().unwrap_or_else(|| self.dispatch.capture.clone()),
            visibility,
            density: density(variant)?,
            router: RouterPlan::of_trace(&router, &trace),
            ..Dispatch::of_trace(policy, &trace)
        };
        let (engine, hardware) = self.driven(shared, variant)?;
        let decisions = variant.decisions.or(self.dispatch.decisions);
        let asked = Asked {
            variant: &variant.name,
            engine: engine.as_ref(),
            hardware: &hardware,
            trace: &trace,
            streamed: tiers.is_some(),
            decisions,
            dispatch: &dispatch,
        };
        let dispatch = Dispatch { decisions: asked.decisions()?, ..dispatch };
        let tokens: u64 = trace.requests.iter().map(|request| u64::from(request.output_tokens)).sum();
        let split = self.split_of(variant);
        self.ranks_go_together(&split, (&variant.name, policy), (&trace, later.is_some()))?;
        let (model, ranks) = self.split(inputs, &split, (&shared.model, &hardware), notes)?;
        let placed = self.place(inputs, &split, (&hardware, &trace), notes)?;
        let of_engine = fleet::Engine {
            hardware: &hardware,
            model: &model,
            requests: &trace.requests,
            policy,
            streamed: tiers.is_some(),
            has_layers_apart: placed.is_some(),
        };
        let fleet = self.fleet(inputs, &split, &of_engine, notes)?;
        let experts = self.experts(inputs, variant, &model, notes)?;
        self.experts_stay_together(&split, (placed.is_some(), tiers.is_some()), &experts)?;
        let setup = Setup {
            model,
            hardware,
            limits,
            ranks,
            placed,
            experts,
            clients: shared.clients.clone(),
            sessions: shared.sessions.clone(),
            serving: self.serving,
            dispatch,
            tiers,
            fidelity: self.fidelity.unwrap_or(if tokens <= SHORT_RUN_TOKENS {
                Fidelity::Kernel
            } else {
                Fidelity::Step
            }),
            explain: true,
            against: None,
        };
        let engine = variant.engine.clone().or_else(|| self.engine.clone());
        let engine = engine.unwrap_or_else(|| launches::OWN.into());
        Ok(Built { name: variant.name.clone(), engine, setup, trace, later, fleet })
    }

    /// The engine of a variant, and the device with its host times.
    fn driven(&self, shared: &Shared, variant: &Variant) -> Result<(Option<ServingEngine>, Hardware)> {
        let mut hardware = shared.hardware.clone();
        if variant.engine.is_none() {
            return Ok((launches::engine(self.engine.as_ref(), "engine")?, hardware));
        }
        let key = format!("variants.{}.engine", variant.name);
        let engine = launches::engine(variant.engine.as_ref(), &key)?;
        hardware.launch = shared.own_launch.clone();
        launches::drive(&mut hardware, engine.as_ref());
        let hardware = if self.overrides.is_empty() { hardware } else { self.overridden(hardware)? };
        Ok((engine, hardware))
    }

    fn trace_of(&self, shared: &Shared, variant: &Variant) -> Result<(Trace, Option<Later>)> {
        let recorded = || {
            shared.recorded.as_ref().ok_or_else(|| {
                InputError::expected("a trace under workload.trace")
                    .key(format!("variants.{}.routes", variant.name))
            })
        };
        let method = match &variant.routes {
            Routes::Recorded => return Ok((recorded()?.clone(), None)),
            Routes::DropLastAsRecorded => {
                Method::StaticDepth { keep: Keep::DropLast { depth: Stats::of(recorded()?).mean_depth } }
            }
            Routes::DropMiddleAsRecorded => {
                Method::StaticDepth { keep: Keep::DropMiddle { depth: Stats::of(recorded()?).mean_depth } }
            }
            Routes::Method(method) => method.clone(),
        };
        let layers = shared.model.layers;
        if self.may_wait(variant)
            && shared.network.is_none()
            && let Some((trace, later)) = Later::new(&method, layers, &shared.requests, self.seed)?
        {
            return Ok((trace, Some(later)));
        }
        Ok((generate(&method, layers, shared.requests.clone(), self.seed)?, None))
    }
}

/// Tells each variant the settings of the first, which its savings are against, where it has others.
fn compare_with_first(built: &mut [Built]) {
    let of = |Setup { dispatch, limits, hardware, model, ranks, experts, .. }: &Setup| Against {
        experts: experts.clone(),
        split: (model.clone(), ranks.clone()),
        capture: dispatch.capture.clone(),
        density: dispatch.density,
        limits: *limits,
        launch: hardware.launch.clone(),
    };
    let Some((first, others)) = built.split_first_mut() else { return };
    let first = of(&first.setup);
    for built in others {
        built.setup.against = (of(&built.setup) != first).then(|| first.clone());
    }
}

impl RouterSpec {
    fn router(&self) -> Router {
        Router {
            when: Some(self.when),
            hidden: Some(self.hidden),
            device: self.device,
            ..Router::costless(self.kind)
        }
    }
}

impl From<LimitsSpec> for Limits {
    fn from(spec: LimitsSpec) -> Limits {
        Limits { power_w: spec.power_w, clock_mhz: spec.clock_mhz, board: spec.board }
    }
}

/// The trace on the model's pool.
fn lay_over(trace: &Trace, model: &Model, notes: &mut Vec<Note>) -> Result<Trace> {
    if trace.header.layers == model.layers {
        return Ok(trace.clone());
    }
    let Header { model: from, layers, .. } = &trace.header;
    let why = format!("routes recorded on {from} laid over {} by relative depth", model.name);
    notes.push(Note::new("workload.trace", format!("{layers} to {} layers", model.layers), why));
    stretch(trace, model.layers)
}

fn density(variant: &Variant) -> Result<Density> {
    let share = |key: &str, value: f64, top: f64| {
        if (0.0..=top).contains(&value) {
            return Ok(value);
        }
        let key = format!("variants.{}.sparsity.{key}", variant.name);
        Err(InputError::expected(format!("a number from 0 to {top}")).key(key).found(value))
    };
    Ok(match variant.sparsity {
        None => Density::Dense,
        Some(Sparsity::TwoFour) => Density::TwoFour,
        Some(Sparsity::Unstructured { zeros, efficiency }) => {
            let left = 1.0 - share("zeros", zeros, 0.999)? * share("efficiency", efficiency, 1.0)?;
            Density::Effective((left * 1000.0).round() as u16)
        }
    })
}
