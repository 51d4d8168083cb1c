//! Runs the variants of a scenario, on as many threads as asked for; the results do not depend on how many.

use super::{Note, Scenario};
use crate::cost::Device;
use crate::error::Result;
use crate::metrics::{Ledger, Summary};
use crate::sim::{self, Observer, PassInfo};
use rayon::prelude::*;

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
    /// Its numbers.
    pub summary: Summary,
    /// Everything that was added up.
    pub ledger: Ledger,
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

/// Hears how far a run is; called from several threads.
pub trait Progress: Sync {
    /// All variants together will put out this many tokens.
    fn begin(&self, tokens: u64);
    /// Some came out.
    fn output(&self, tokens: u64);
}

impl Progress for () {
    fn begin(&self, _tokens: u64) {}
    fn output(&self, _tokens: u64) {}
}

struct Watch<'a, O> {
    inner: O,
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
}

/// Runs every variant of `scenario` on `threads` threads. `watch` makes the observer of a variant from its place and name.
///
/// # Errors
/// What [`Scenario::build`] and [`sim::run`] refuse.
pub fn run<O: Observer + Send>(
    scenario: &Scenario,
    threads: usize,
    progress: &dyn Progress,
    watch: impl Fn(usize, &sim::Setup) -> O + Sync,
) -> Result<(Outcome, Vec<O>)> {
    let (built, mut assumed) = scenario.build()?;
    let tokens = built
        .iter()
        .flat_map(|built| &built.trace.requests)
        .map(|request| u64::from(request.output_tokens))
        .sum();
    progress.begin(tokens);
    let one = |(index, built): (usize, &super::Built)| -> Result<(VariantOutcome, O)> {
        let mut observer = Watch { inner: watch(index, &built.setup), progress };
        let ledger = sim::run(&built.setup, &built.trace, &mut observer)?;
        let device = Device::new(&built.setup.hardware, built.setup.limits)?;
        let outcome = VariantOutcome {
            name: built.name.clone(),
            hardware: built.setup.hardware.name.clone(),
            model: built.setup.model.name.clone(),
            policy: built.setup.dispatch.policy.name(),
            summary: Summary::new(&ledger, &device, &built.setup.model),
            ledger,
        };
        Ok((outcome, observer.inner))
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started");
    let results: Vec<_> = pool.install(|| built.par_iter().enumerate().map(one).collect());
    let results = results.into_iter().collect::<Result<Vec<_>>>()?;
    let (variants, observers) = results.into_iter().unzip();
    let mut seen = std::collections::HashSet::new();
    assumed.retain(|note| seen.insert((note.key.clone(), note.value.clone(), note.why.clone())));
    Ok((Outcome { title: scenario.title.clone(), variants, assumed }, observers))
}
