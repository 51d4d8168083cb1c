//! `radialsim simulate`: the main job.

use super::progress::Bar;
use radialsim::error::{Error, InputError, Result, quoted, shorten};
use radialsim::hw::ServingEngine;
use radialsim::report::answer::Answer;
use radialsim::report::brief::{self, Brief};
use radialsim::report::detail::Detail;
use radialsim::report::series::{self, Series};
use radialsim::report::timeline::{self, Timeline};
use radialsim::report::{Staged, engines, html, json, table};
use radialsim::scenario::{self, Inputs, Outcome, Quick, RouteSource, Scenario};
use radialsim::sim::{Fidelity, Setup, Silent};
use std::path::{Path, PathBuf};

/// What to simulate, and where the results go.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Scenario files; each gets its own screen. None if the options below describe the comparison.
    #[arg(required_unless_present = "hardware", value_name = "SCENARIO.ron")]
    scenarios: Vec<PathBuf>,
    #[command(flatten)]
    quick: QuickArgs,
    /// Writes all numbers as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes every kernel, for ui.perfetto.dev; fidelity is then `kernel`.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// Most kernels in the timeline, shared evenly between the variants.
    #[arg(long, value_name = "N", default_value_t = timeline::MOST_KERNELS, requires = "timeline",
        value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    timeline_events: u64,
    /// Writes load, memory, power and tokens over time as CSV, for the first seed.
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// Writes a page with the results and pictures of their causes, for one scenario.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Seconds that a row of the series covers.
    #[arg(long, value_name = "S", default_value_t = series::INTERVAL_S, requires = "series")]
    interval: f64,
    /// Prints every table: where time, energy and memory went, launches, bounds, errors, and the assumed constants.
    #[arg(long)]
    full: bool,
    /// Prints the constants of the device that change the saving of the best row most; takes two more runs for each constant.
    #[arg(long)]
    matters: bool,
    /// Also shows the comparison under the host times of every engine.
    #[arg(long)]
    engines: bool,
    /// Sets a key of the scenario anew: serving.max_sequences=8, variants.1.policy=hop, hardware.memory.dram_gb_per_s=2000.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Replaces the scenario's seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Runs each variant with this many seeds; tables and JSON then have means and confidence intervals.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: Option<u32>,
    /// Threads; results do not depend on them. Absent: as many as the machine has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// No progress bar and no remarks.
    #[arg(long, short)]
    quiet: bool,
}

/// A comparison without a file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Without a scenario file")]
struct QuickArgs {
    /// A shipped device (`radialsim list hardware`) or a profile.
    #[arg(long, value_name = "NAME", conflicts_with = "scenarios", requires_all = ["model", "routes"])]
    hardware: Option<String>,
    /// A built-in model (`radialsim list models`) or a config.json.
    #[arg(long, value_name = "NAME", requires = "hardware")]
    model: Option<String>,
    /// A recorded router trace.
    #[arg(long, value_name = "FILE", requires = "hardware", group = "routes")]
    trace: Option<PathBuf>,
    /// Routes of a formula instead (`radialsim list methods`).
    #[arg(long, value_name = "METHOD", requires = "hardware", group = "routes")]
    method: Option<String>,
    /// Most sequences that run at once.
    #[arg(long, value_name = "N", default_value_t = 16, requires = "hardware",
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Leaves out the row of static depth.
    #[arg(long, requires = "trace")]
    no_static: bool,
    /// Dispatch policies, a row each (`radialsim list policies`); absent: two that suit the routes.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "hardware")]
    policy: Vec<String>,
    /// Tokens of a prompt. Without this and the next three options: as recorded.
    #[arg(long, value_name = "TOKENS", requires = "hardware", value_parser = clap::value_parser!(u32).range(1..))]
    prompt: Option<u32>,
    /// Tokens generated.
    #[arg(long, value_name = "TOKENS", requires = "hardware", value_parser = clap::value_parser!(u32).range(1..))]
    output: Option<u32>,
    /// Requests a second, at random times; absent: all come at the start.
    #[arg(long, value_name = "R", requires = "hardware")]
    rate: Option<f64>,
    /// Requests.
    #[arg(long, value_name = "N", requires = "hardware", value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,
    /// Writes the scenario that these options make.
    #[arg(long, value_name = "FILE", requires = "hardware")]
    save_scenario: Option<PathBuf>,
}

impl QuickArgs {
    /// The comparison; none where scenario files are given.
    fn quick(&self) -> Option<Quick> {
        let from = match (&self.trace, &self.method) {
            (Some(path), _) => RouteSource::Trace(path.clone()),
            (None, Some(method)) => RouteSource::Method(method.clone()),
            (None, None) => return None,
        };
        Some(Quick {
            from,
            model: self.model.clone()?,
            hardware: self.hardware.clone()?,
            batch: self.batch,
            with_static: !self.no_static,
            policies: self.policy.clone(),
            prompt: self.prompt,
            output: self.output,
            rate: self.rate,
            requests: self.requests,
        })
    }

    /// Its words on a command line.
    fn words(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let number = |number: &u32| number.to_string();
        let options = [
            ("--trace", self.trace.as_ref().map(path)),
            ("--method", self.method.clone()),
            ("--model", self.model.clone()),
            ("--hardware", self.hardware.clone()),
            ("--batch", Some(self.batch.to_string())),
            ("--policy", (!self.policy.is_empty()).then(|| self.policy.join(","))),
            ("--prompt", self.prompt.as_ref().map(number)),
            ("--output", self.output.as_ref().map(number)),
            ("--rate", self.rate.map(|rate| rate.to_string())),
            ("--requests", self.requests.as_ref().map(number)),
        ];
        let given = options.into_iter().filter_map(|(option, value)| Some((option, value?)));
        let words = given.map(|(option, value)| format!("{option} {}", quoted(&value)));
        words.chain(self.no_static.then(|| "--no-static".into())).collect()
    }
}

/// Simulates.
pub fn run(args: &Args) -> Result<()> {
    let inputs = Inputs::default();
    let scenarios = args.scenarios(&inputs)?;
    args.check_files()?;
    if args.html.is_some() && scenarios.len() > 1 {
        let expected = "one scenario, which a page is about";
        return Err(InputError::expected(expected).key("--html").found(scenarios.len()).into());
    }
    if args.timeline.is_some() {
        scenarios.iter().try_for_each(|scenario| scenario.check_timeline("--timeline"))?;
    }
    // A place that cannot be written to is better known before the work than after it.
    let json = args.json.as_ref().map(Staged::create).transpose()?;
    let timeline = args.timeline.as_ref().map(Staged::create).transpose()?;
    let series = args.series.as_ref().map(Staged::create).transpose()?;
    let html = args.html.as_ref().map(Staged::create).transpose()?;
    let interval = series::interval(args.interval)?;
    let variants: u64 = scenarios.iter().map(|scenario| scenario.variants.len() as u64).sum();
    let kernels = (args.timeline_events / variants).max(1);
    let rows = series::MOST_ROWS / variants;
    let watch = |_: usize, setup: &Setup| {
        let timeline = timeline.is_some().then(|| Timeline::new(setup, kernels));
        let series = series.is_some().then(|| Series::new(setup, interval, rows));
        (timeline, (series, html.is_some().then(|| Detail::watch(setup))))
    };
    let (mut outcomes, mut watched) = (Vec::new(), Vec::new());
    for scenario in &scenarios {
        let bar = Bar::new(&scenario.title, args.quiet);
        let (outcome, watchers) =
            scenario::run_with(&inputs, scenario, super::threads(args.threads), &bar, watch)?;
        let of_engine = |name: String| match scenarios.len() {
            1 => name,
            _ => format!("{}: {name}", outcome.title),
        };
        let engines = outcome.variants.iter().flat_map(scenario::VariantOutcome::engine_names);
        watched.extend(engines.map(of_engine).zip(watchers));
        outcomes.push(outcome);
    }

    args.warn(&outcomes);

    if let Some(file) = json {
        file.finish(|out| out.write_all(json::render(&outcomes).as_bytes()))?;
    }
    if let Some(file) = timeline {
        let timelines = named(&watched, |(timeline, _)| timeline.as_ref());
        file.finish(|out| timeline::write(out, &timelines))?;
        args.say_what_is_left_out(&timelines);
    }
    if let Some(file) = series {
        let series = named(&watched, |(_, (series, _))| series.as_ref());
        file.finish(|out| series::write(out, &series))?;
        args.say_what_is_coarse(&series);
    }
    if let Some(file) = html {
        let scenario = &scenarios[0];
        let closely = watched.into_iter().filter_map(|(_, (_, (_, closely)))| closely).collect();
        let closer = Detail::of(&inputs, scenario, outcomes[0].clone(), closely)?;
        let page = html::page(scenario, &closer, &inputs.read(), &args.command());
        file.finish(|out| out.write_all(page.html().as_bytes()))?;
    }
    args.print_tables(&outcomes)?;
    if args.matters {
        for (scenario, outcome) in scenarios.iter().zip(&outcomes) {
            args.print_what_matters(&inputs, scenario, outcome)?;
        }
    }
    if args.engines {
        for (scenario, outcome) in scenarios.iter().zip(&outcomes) {
            let under = args.under_engines(&inputs, scenario, outcome)?;
            super::print(&under)?;
        }
    }
    Ok(())
}

/// What each variant's watchers hold of one kind.
fn named<'a, W, T>(watched: &'a [(String, W)], of: impl Fn(&'a W) -> Option<&'a T>) -> Vec<(String, &'a T)> {
    watched.iter().filter_map(|(name, watchers)| Some((name.clone(), of(watchers)?))).collect()
}

impl Args {
    /// A screen for each scenario, or all tables.
    fn print_tables(&self, outcomes: &[Outcome]) -> Result<()> {
        if self.full {
            return super::print(&outcomes.iter().map(table::render).collect::<Vec<_>>().join("\n"));
        }
        let screens = outcomes.iter().map(|outcome| {
            let Brief { head, answer, rest } = Brief::of(outcome);
            format!("{head}\n{}\n{rest}", super::strong(&answer))
        });
        super::print(&screens.collect::<Vec<_>>().join("\n"))
    }

    /// Which constants move what the best row saves.
    fn print_what_matters(&self, inputs: &Inputs, scenario: &Scenario, outcome: &Outcome) -> Result<()> {
        let Some(best) = Answer::of(outcome).best else { return Ok(()) };
        let moved = scenario::matters(inputs, scenario, best, super::threads(self.threads))?;
        super::print(&format!("\n{}", brief::matters(&outcome.variants[best].name, &moved)))
    }

    /// What to compare: files, or what the options say.
    fn scenarios(&self, inputs: &Inputs) -> Result<Vec<Scenario>> {
        let Some(quick) = self.quick.quick() else {
            let load = |path: &PathBuf| Ok(self.changed(Scenario::load(path, &self.settings)?));
            return self.scenarios.iter().map(load).collect();
        };
        let scenario = quick.scenario(inputs, &self.settings)?;
        if let Some(path) = &self.quick.save_scenario {
            let text = quick.text_in(path.parent().unwrap_or(Path::new("")), inputs)?;
            Staged::create(path)?.finish(|out| out.write_all(text.as_bytes()))?;
        }
        Ok(vec![self.changed(scenario)])
    }

    /// With what options change.
    fn changed(&self, mut scenario: Scenario) -> Scenario {
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        if self.timeline.is_some() {
            scenario.fidelity = Some(Fidelity::Kernel);
        }
        scenario.seeds = self.seeds.unwrap_or(scenario.seeds);
        scenario
    }

    /// The same comparison under every engine, as a table. What an engine cannot run is left open, not what is wrong anyway.
    fn under_engines(&self, inputs: &Inputs, scenario: &Scenario, outcome: &Outcome) -> Result<String> {
        let mut columns = Vec::new();
        for name in std::iter::once(scenario::OWN).chain(ServingEngine::names()) {
            let (under, threads) = (scenario.under(name)?, super::threads(self.threads));
            let bar = Bar::new(&format!("{} under {name}", scenario.title), self.quiet);
            let found = match scenario::run_with(inputs, &under, threads, &bar, |_, _| Silent) {
                Ok((outcome, _)) => Some(outcome),
                Err(Error::Input(_)) => None,
                Err(error) => return Err(error),
            };
            columns.push((name, found));
        }
        Ok(engines::table(outcome, &columns))
    }

    /// No two results go to one file.
    fn check_files(&self) -> Result<()> {
        let files = [
            ("--json", &self.json),
            ("--timeline", &self.timeline),
            ("--series", &self.series),
            ("--html", &self.html),
        ];
        for (index, (key, file)) in files.iter().enumerate() {
            let same = |(_, other): &&(&str, &Option<PathBuf>)| file.is_some() && other == file;
            if let Some((other, _)) = files[..index].iter().find(same) {
                let expected = format!("a file of its own, which is not that of {other}");
                return Err(InputError::expected(expected).key(*key).into());
            }
        }
        Ok(())
    }

    /// The command that makes the page again.
    fn command(&self) -> String {
        let mut words = vec!["radialsim".into(), "simulate".into()];
        words.extend(self.scenarios.iter().map(|path| quoted(&path.display().to_string())));
        words.extend(self.quick.quick().map_or_else(Vec::new, |_| self.quick.words()));
        words.extend(self.settings.iter().map(|setting| format!("--set {}", quoted(setting))));
        words.extend(self.seed.map(|seed| format!("--seed {seed}")));
        words.extend(self.seeds.map(|seeds| format!("--seeds {seeds}")));
        words.extend(self.html.iter().map(|path| format!("--html {}", quoted(&path.display().to_string()))));
        words.join(" ")
    }

    /// Says what is probably a mistake.
    fn warn(&self, outcomes: &[Outcome]) {
        for note in outcomes.iter().flat_map(Outcome::doubts).filter(|_| !self.quiet) {
            let (key, value) = (shorten(&note.key), shorten(&note.value));
            super::say(&format!("warning: {key} = {value} is {}", note.why));
        }
    }

    fn say_what_is_left_out(&self, timelines: &[(String, &Timeline)]) {
        let full: Vec<_> = timelines.iter().filter(|(_, timeline)| timeline.stopped().is_some()).collect();
        let Some((name, first)) = full.first().filter(|_| !self.quiet) else { return };
        let (name, more) = (shorten(name), full.len() - 1);
        let others = if more > 0 { format!(" and of {more} more") } else { String::new() };
        let until = first.stopped().unwrap_or_default();
        super::say(&format!(
            "note: the timeline of {name}{others} is full and ends early, at {until}; --timeline-events raises this"
        ));
    }

    fn say_what_is_coarse(&self, series: &[(String, &Series)]) {
        let coarse = series.iter().filter_map(|(name, series)| Some((name, series.coarsened()?)));
        for (name, interval) in coarse.filter(|_| !self.quiet) {
            let (name, asked) = (shorten(name), self.interval);
            super::say(&format!(
                "note: the series of {name} would have too many rows of {asked} s; its rows are {} s long",
                interval.s()
            ));
        }
    }
}
