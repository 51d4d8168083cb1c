//! Runs the variants of a scenario, on as many threads as asked for; the results do not depend on how many.

use super::doubts;
use super::{Built, Footprint, Inputs, LayerChoice, Note, Scenario, Variant};
use crate::error::{Error, InputError, Result};
use crate::metrics::{Growth, Interval, Ledger, ReplicaUse, Summary};
use crate::sim::{self, Observer, PassInfo};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Confidence level of the intervals over seeds.
pub const LEVEL: f64 = 0.95;

/// What a growing system means.
pub const GROWS: &str = "Requests in the system still grow over the later half of the arrivals, so times and shares follow the length of \
                         the run: the rate is beyond what the device carries, or the run is too short to tell";

/// What came out of a variant.
#[derive(Clone, Debug)]
pub struct VariantOutcome {
    /// Name of the row.
    pub name: String,
    /// Device, by the profile's name.
    pub hardware: String,
    /// Model.
    pub model: String,
    /// Dispatch policy.
    pub policy: &'static str,
    /// How the host comes to know what to launch.
    pub decisions: &'static str,
    /// Whose host times count: an engine, or [`super::OWN`].
    pub engine: String,
    /// Who chooses the layers.
    pub choice: LayerChoice,
    /// What beside routes, policies and routers it runs with: devices, engine, tiers, caps, loads of experts. Equal texts say that only those differ.
    pub settings: String,
    /// Which of several engines a request goes to; none where there is one.
    pub router: Option<&'static str>,
    /// One for each seed, ascending; at least one.
    pub runs: Vec<SeedRun>,
}

/// What came out of a variant with one seed.
#[derive(Clone, Debug)]
pub struct SeedRun {
    /// The seed.
    pub seed: u64,
    /// Its numbers.
    pub summary: Summary,
    /// Everything that was added up.
    pub ledger: Ledger,
}

impl VariantOutcome {
    /// The run with the first seed.
    pub fn first(&self) -> &SeedRun {
        &self.runs[0]
    }

    /// Names of its engines, where they are told apart: that of the variant, with a number where there are several.
    pub fn engine_names(&self) -> impl Iterator<Item = String> {
        let all = &self.first().ledger.replicas;
        let name = |(place, one): (usize, &ReplicaUse)| {
            let number = all[..place].iter().filter(|other| other.part == one.part).count();
            format!("{}, {} {number}", self.name, one.part.name())
        };
        let several = all.iter().enumerate().map(name);
        several.chain(all.is_empty().then(|| self.name.clone()))
    }

    /// Mean over the seeds.
    pub fn mean(&self, of: impl Fn(&SeedRun) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / self.runs.len() as f64
    }

    /// Mean over the seeds with its confidence interval at [`LEVEL`]; none for a single seed.
    pub fn interval(&self, of: impl Fn(&SeedRun) -> f64) -> Option<Interval> {
        Interval::of(&self.runs.iter().map(of).collect::<Vec<_>>(), LEVEL)
    }

    /// Whether in most of its runs the requests in the system still grow.
    pub fn grows(&self) -> bool {
        let grow = self.runs.iter().filter(|run| run.summary.growth.is_some_and(|growth| growth.grows));
        2 * grow.count() > self.runs.len()
    }

    /// The digest of a single run; of several, the first 16 bytes of SHA-256 over their digests in the order of the seeds.
    pub fn digest(&self) -> String {
        if let [run] = self.runs.as_slice() {
            return run.summary.digest.clone();
        }
        let mut hash = Sha256::new();
        self.runs.iter().for_each(|run| hash.update(&run.summary.digest));
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What came out of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Title of the scenario.
    pub title: String,
    /// In the order of the scenario; savings are against the first.
    pub variants: Vec<VariantOutcome>,
    /// Constants and choices without a measured source, each once.
    pub assumed: Vec<Note>,
}

impl Outcome {
    /// Numbers that are probably mistakes.
    pub fn doubts(&self) -> impl Iterator<Item = &Note> {
        self.assumed.iter().filter(|note| note.doubt)
    }
}

/// Hears how far a run is; called from several threads.
pub trait Progress: Sync {
    /// All runs together will put out this many tokens; about as many, where their lengths are drawn with several seeds.
    fn begin(&self, tokens: u64);
    /// Some came out.
    fn output(&self, tokens: u64);
    /// How much memory the runs may take, before they begin; asking for it costs a look over all requests.
    fn memory(&self, _footprint: &dyn Fn() -> Footprint) {}
}

impl Progress for () {
    fn begin(&self, _tokens: u64) {}
    fn output(&self, _tokens: u64) {}
}

struct Watch<'a, O> {
    inner: Option<O>,
    progress: &'a dyn Progress,
}

impl<O: Observer> Observer for Watch<'_, O> {
    #[inline]
    fn call(
        &mut self,
        call: &crate::lower::Call,
        price: Option<&crate::cost::Price>,
        ended: &crate::engine::Ended,
    ) {
        self.inner.call(call, price, ended);
    }
    fn pass(&mut self, info: &PassInfo) {
        self.inner.pass(info);
    }
    fn output(&mut self, tokens: u32) {
        self.progress.output(tokens.into());
        self.inner.output(tokens);
    }
    fn over(&mut self, end: crate::units::SimTime) {
        self.inner.over(end);
    }
}

/// Runs every variant of `scenario` with every seed on `threads` threads. `watch` makes the observer of a variant from its
/// place and setup, once for each of its engines ([`VariantOutcome::engine_names`]); they watch the run with the first seed.
///
/// # Errors
/// What [`Scenario::build`] and [`sim::run`] refuse, and seeds that go beyond 64 bits.
pub fn run<O: Observer + Send>(
    scenario: &Scenario,
    threads: usize,
    progress: &dyn Progress,
    watch: impl Fn(usize, &sim::Setup) -> O + Sync,
) -> Result<(Outcome, Vec<O>)> {
    run_with(&Inputs::default(), scenario, threads, progress, watch)
}

/// The same, with what `inputs` have read already.
///
/// # Errors
/// Those of [`run`].
pub fn run_with<O: Observer + Send>(
    inputs: &Inputs,
    scenario: &Scenario,
    threads: usize,
    progress: &dyn Progress,
    watch: impl Fn(usize, &sim::Setup) -> O + Sync,
) -> Result<(Outcome, Vec<O>)> {
    let Some(last) = scenario.seed.checked_add(u64::from(scenario.seeds.max(1)) - 1) else {
        let expected = format!("seeds from {} on that stay below 2^64", scenario.seed);
        return Err(InputError::expected(expected).key("seeds").found(scenario.seeds).into());
    };
    let seeds: Vec<u64> = (scenario.seed..=last).collect();
    let (first_built, mut assumed) = scenario.build_with(inputs)?;
    let requests = first_built.iter().flat_map(|built| &built.trace.requests);
    let tokens: u64 = requests.map(|request| u64::from(request.output_tokens)).sum();
    progress.memory(&|| Footprint::of(scenario, &first_built, threads));
    progress.begin(tokens * seeds.len() as u64);

    let one = |seed: u64, index: usize, built: &Built| -> Result<(SeedRun, Vec<O>)> {
        let own = || (seed == scenario.seed).then(|| watch(index, &built.setup));
        let mut observers: Vec<_> =
            (0..built.fleet.engines()).map(|_| Watch { inner: own(), progress }).collect();
        let (hardware, limits) = (&built.setup.hardware, built.setup.limits);
        let device = inputs.device(hardware, limits).map_err(|error| {
            doubts::explained_error(error, &doubts::of_variant(limits, None, hardware, ""))
        })?;
        let device = device.with_ranks(built.setup.ranks.clone());
        let ledger = built.run_on(&device, &mut observers, threads > 1)?;
        let summary = Summary::new(&ledger, &device, &built.setup.model);
        let mut summary = summary.counting(&ledger, &scenario.slo, scenario.warm_up);
        // Who waits for answers comes no faster than they are given.
        let open = built.setup.clients.is_none() && built.setup.sessions.is_none();
        summary.growth = Growth::of(&ledger.requests).filter(|_| open);
        let watchers = observers.into_iter().filter_map(|watch| watch.inner).collect();
        Ok((SeedRun { seed, summary, ledger }, watchers))
    };
    let all = |seed: u64, built: &[Built]| {
        let one = |(index, built)| one(seed, index, built);
        let results: Vec<_> = match threads {
            1 => built.iter().enumerate().map(one).collect(),
            _ => built.par_iter().enumerate().map(one).collect(),
        };
        results.into_iter().collect::<Result<Vec<_>>>()
    };
    let with_seed = |&seed: &u64| {
        if seed == scenario.seed {
            return all(seed, &first_built);
        }
        let rebuilt = Scenario { seed, ..scenario.clone() }.build_with(inputs);
        rebuilt.and_then(|(built, _)| all(seed, &built)).map_err(|error| name_seed(error, seed))
    };
    let results: Vec<_> = match threads {
        // No threads of its own: a study runs many scenarios side by side.
        1 => seeds.iter().map(with_seed).collect(),
        _ => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads can be started").install(|| seeds.par_iter().map(with_seed).collect())
        }
    };

    let named = |(built, variant): (&Built, &Variant)| VariantOutcome {
        name: built.name.clone(),
        hardware: built.setup.hardware.name.clone(),
        model: built.setup.model.name.clone(),
        policy: built.setup.dispatch.policy.name(),
        decisions: built.setup.dispatch.decisions.name(),
        engine: built.engine.clone(),
        choice: LayerChoice::of(built),
        settings: scenario.settings_beside_routes(variant),
        router: (built.fleet.engines() > 1).then(|| built.fleet.router.name()),
        runs: Vec::with_capacity(seeds.len()),
    };
    let mut variants: Vec<_> = first_built.iter().zip(&scenario.variants).map(named).collect();
    let mut observers = Vec::with_capacity(variants.len());
    for of_seed in results {
        for (variant, (run, watchers)) in variants.iter_mut().zip(of_seed?) {
            variant.runs.push(run);
            observers.extend(watchers);
        }
    }
    for remark in [over_cap, at_the_boards_limit, whole_memory] {
        let pairs = first_built.iter().zip(&variants);
        assumed.extend(pairs.filter_map(|(built, variant)| remark(built, variant)));
    }
    assumed.extend(variants.iter().filter_map(unstable));
    let mut seen = std::collections::HashSet::new();
    assumed.retain(|note| seen.insert((note.key.clone(), note.value.clone(), note.why.clone())));
    Ok((Outcome { title: scenario.title.clone(), variants, assumed }, observers))
}

impl Scenario {
    /// What a variant runs with beside routes, policies and routers, as JSON: its own keys, or the scenario's.
    fn settings_beside_routes(&self, variant: &Variant) -> String {
        let parallel = variant.parallel.as_ref().or(self.parallel.as_ref());
        let tiers = variant.tiers.as_ref().or(self.tiers.as_ref());
        let limits = variant.limits.unwrap_or(self.limits);
        let engine = variant.engine.as_ref().or(self.engine.as_ref());
        let experts = variant.experts.or(self.experts);
        serde_json::json!([parallel, tiers, limits, engine, experts]).to_string()
    }
}

/// A remark where the share of the memory that servers fill was too little, so that all of it was taken.
fn whole_memory(built: &Built, variant: &VariantOutcome) -> Option<Note> {
    let share = built.setup.hardware.memory.usable_fraction.value;
    let usable =
        f64::from(built.setup.places()) * built.setup.hardware.memory.capacity_gb.value * share * 1e9;
    let taken = built.setup.serving.gpu_memory_utilization.is_none()
        && variant.runs.iter().any(|run| run.ledger.memory.capacity as f64 > usable + 1.0);
    let why = format!("{share} of the memory does not hold the model and a request, so all of it is taken");
    taken.then(|| Note::new(format!("variants.{}.gpu_memory_utilization", built.name), 1, why))
}

/// What the hottest pass draws on average, of each device.
fn hottest_pass_w(built: &Built, variant: &VariantOutcome) -> f64 {
    let devices =
        f64::from(built.setup.places() * built.setup.ranks.as_ref().map_or(1, |ranks| ranks.together()));
    variant.runs.iter().map(|run| run.summary.power_w.hottest_pass).fold(0.0, f64::max) / devices
}

/// A remark where a power cap was not held: the lowest clock draws more.
fn over_cap(built: &Built, variant: &VariantOutcome) -> Option<Note> {
    let cap = built.setup.limits.cap_w(&built.setup.hardware)?;
    let most = hottest_pass_w(built, variant);
    let why = format!("passes draw up to {most:.1} W at the lowest clock, so the cap is not held in them");
    (most > cap * (1.0 + 1e-9))
        .then(|| Note::new(format!("variants.{}.limits.power_w", built.name), cap, why))
}

/// A remark where passes draw nearly what the board allows, and the board's limit is no cap.
fn at_the_boards_limit(built: &Built, variant: &VariantOutcome) -> Option<Note> {
    let limits = built.setup.limits;
    let limit = built.setup.hardware.power.limit_w.value;
    let most = hottest_pass_w(built, variant);
    let why = format!(
        "passes draw up to {most:.0} W of the {limit:.0} W that the board allows, and kernels that would draw more keep their speed: under a lasting \
         load a board lowers its clock; limits.board: true does that"
    );
    (!limits.board && limits.power_w.is_none() && most >= NEAR_THE_LIMIT * limit)
        .then(|| Note::new(format!("variants.{}.limits.board", built.name), false, why))
}

/// From this share of the board's limit on, some kernels of a pass draw all of it. Assumed.
const NEAR_THE_LIMIT: f64 = 0.95;

/// A remark where the system fills while requests come.
fn unstable(variant: &VariantOutcome) -> Option<Note> {
    let growth = variant.mean(|run| run.summary.growth.map_or(0.0, |growth| growth.requests));
    let key = format!("variants.{}: not stable at this rate", variant.name);
    variant.grows().then(|| Note::new(key, format!("{growth:+.1} requests"), GROWS))
}

/// Says which of several seeds met the mistake: another may not.
fn name_seed(error: Error, seed: u64) -> Error {
    match error {
        Error::Input(mut input) => {
            let key = input.key.take().map_or(String::new(), |key| format!(", {key}"));
            input.key = Some(format!("seed {seed}{key}"));
            Error::Input(input)
        }
        other => other,
    }
}
