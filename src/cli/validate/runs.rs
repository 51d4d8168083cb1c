//! `radialsim validate runs`: a real model on the GPU of this machine beside the same runs simulated with its profile.

use crate::cli::execute::{Form, policy};
use radialsim::batch::Policy;
use std::path::PathBuf;

/// What to run and to simulate.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Hugging Face folder, a .gguf file, or a llama2.c .bin file.
    #[arg(long, value_name = "PATH")]
    weights: PathBuf,
    /// The profile of this machine's adapter, as `calibrate` writes it; a file or a shipped name.
    #[arg(long, value_name = "PROFILE")]
    hw: String,
    /// Router traces whose routes are executed, in addition to the dense route.
    #[arg(long, value_name = "TRACES", value_delimiter = ',')]
    traces: Vec<PathBuf>,
    /// The file of a router, which decides at run time; absent: the router of the model's folder, if it has one.
    #[arg(long, value_name = "FILE")]
    router: Option<PathBuf>,
    /// Requests in flight together.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_value = "1,2,4,8,12")]
    batches: Vec<usize>,
    /// Dispatch policies for the traces' routes. The dense route is the same under all, and runs under the first.
    #[arg(long, value_name = "POLICIES", value_delimiter = ',', default_value = "aligned,dense_masked,hop,grouped", value_parser = policy)]
    policies: Vec<Policy>,
    /// Most tokens of a prompt: requests are cut, routes stay those of their first tokens.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    prompt_tokens: u32,
    /// Tokens to generate for each request.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_tokens: u32,
    /// How often every case is executed; the medians count.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// Form of the weights on the device.
    #[arg(long, value_enum, default_value_t = Form::Kept)]
    precision: Form,
    /// Exit code 1 if the mean or the largest error of times of prompts and generation is larger, in percent.
    #[arg(long, value_name = "MEAN,WORST", value_parser = gate)]
    gate: Option<(f64, f64)>,
    /// Writes executed and simulated kernels of the last case, for ui.perfetto.dev.
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,
    /// The adapter whose name contains this; absent: the strongest.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// No progress bar and no remarks.
    #[arg(long, short)]
    quiet: bool,
}

fn gate(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|x: &f64| (0.0..=1e6).contains(x));
    let pair = text.split_once(',').and_then(|(a, b)| Some((number(a)?, number(b)?)));
    pair.ok_or_else(|| "expected two percentages with a comma between: 8,15".into())
}

/// Without the feature there is nothing to run on.
#[cfg(not(feature = "gpu"))]
pub fn run(_: &Args) -> radialsim::error::Result<()> {
    Err(crate::cli::no_gpu())
}

#[cfg(feature = "gpu")]
pub use with_gpu::run;

#[cfg(feature = "gpu")]
mod with_gpu {
    use super::Args;
    use crate::cli::print;
    use crate::cli::progress::Bar;
    use radialsim::batch::Policy;
    use radialsim::error::{InputError, Result};
    use radialsim::gpu::Routing;
    use radialsim::hw::Hardware;
    use radialsim::report::{Staged, timeline};
    use radialsim::scenario::Progress;
    use radialsim::trace::{self, Header, Request, Route, RouteTable, RouterDevice, Trace};
    use radialsim::validate::{Bench, CaseErrors, ExecutedCase, RunComparison, RunTimes, simulate, table};
    use radialsim::weights::{AnyRouter, Checkpoint};

    /// Runs, simulates, compares.
    pub fn run(args: &Args) -> Result<()> {
        let checkpoint = Checkpoint::open(&args.weights)?;
        let hardware = Hardware::resolve(&args.hw)?;
        let file = args.timeline.as_ref().map(Staged::create).transpose()?;
        let cases = args.cases(&checkpoint)?;
        let bar = Bar::new("validate", args.quiet);
        bar.begin(cases.len() as u64 * u64::from(args.repeats));
        let mut bench = Bench::new(&checkpoint, args.adapter.as_deref(), args.precision.into());
        let mut all = Vec::new();
        for of_batch in cases.chunk_by(|a, b| a.batch() == b.batch()) {
            // Round by round, so that a slow minute does not fall on one case alone.
            let mut runs: Vec<Vec<(RunTimes, Trace)>> = of_batch.iter().map(|_| Vec::new()).collect();
            for _ in 0..args.repeats {
                for (case, runs) in of_batch.iter().zip(&mut runs) {
                    runs.push(bench.run(case)?);
                    bar.output(1);
                }
            }
            let (model, pass_tokens) = bench.described().expect("a case has run");
            for (case, runs) in of_batch.iter().zip(runs) {
                let (executed, traces): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
                let simulated = simulate(model, &hardware, &traces[0], case, pass_tokens)?;
                all.push(RunComparison::new(case.clone(), RunTimes::median(executed), simulated)?);
            }
        }
        drop(bar);
        if let (Some(file), Some(last)) = (file, all.last()) {
            let both = [
                ("executed".to_owned(), &last.executed.timeline),
                ("simulated".to_owned(), &last.simulated.timeline),
            ];
            file.finish(|out| timeline::write(out, &both))?;
        }
        print(&table(&all))?;
        match (args.gate, CaseErrors::of(&all)) {
            (Some((mean, worst)), Some(verdict)) => verdict.gate(mean, worst),
            _ => Ok(()),
        }
    }

    impl Args {
        /// Batch by batch, so that an executor serves all cases of one size.
        fn cases(&self, checkpoint: &Checkpoint) -> Result<Vec<ExecutedCase>> {
            let (model, layers) = (&checkpoint.model().name, checkpoint.model().layers);
            let network = self.network(checkpoint)?;
            let most = self.batches.iter().copied().max().unwrap_or(0);
            if self.batches.iter().any(|&batch| batch == 0 || batch > 4096) {
                return Err(InputError::expected("sizes from 1 to 4096").key("--batches").into());
            }
            let mut sources =
                vec![("dense".to_owned(), dense(model, layers, most, self.prompt_tokens, self.max_tokens))];
            for path in &self.traces {
                let trace = trace::read(path)?.cut(most, self.prompt_tokens, self.max_tokens);
                if trace.requests.len() < most {
                    let what = format!("at least {most} requests with routes, for a batch as large");
                    return Err(InputError::expected(what).file(path).found(trace.requests.len()).into());
                }
                let name =
                    path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                sources.push((name, trace));
            }
            let mut cases = Vec::new();
            for &batch in &self.batches {
                for (index, (routes, trace)) in sources.iter().enumerate() {
                    let policies: &[Policy] = if index == 0 { &self.policies[..1] } else { &self.policies };
                    let trace = trace.cut(batch, self.prompt_tokens, self.max_tokens);
                    cases.extend(
                        policies
                            .iter()
                            .map(|&policy| ExecutedCase::replayed(routes.clone(), trace.clone(), policy)),
                    );
                }
                if let Some((network, policy)) = &network {
                    let trace = sources[0].1.cut(batch, self.prompt_tokens, self.max_tokens);
                    let network = Some(network.clone());
                    cases.push(ExecutedCase {
                        routes: "network".to_owned(),
                        trace,
                        policy: *policy,
                        network,
                    });
                }
            }
            Ok(cases)
        }

        /// The router that decides as it runs, on the host, and the policy for which executor and simulator form the same groups.
        fn network(&self, checkpoint: &Checkpoint) -> Result<Option<(Routing, Policy)>> {
            let router = match &self.router {
                Some(path) => {
                    let what = "the key `radial` in the metadata of a router's file";
                    let read = AnyRouter::read(path)?;
                    Some(read.ok_or_else(|| InputError::expected(what).file(path))?)
                }
                None => checkpoint.router()?,
            };
            Ok(router.map(|router| {
                let policy = match router {
                    AnyRouter::Skip(_) => Policy::Aligned,
                    AnyRouter::Radial(_) | AnyRouter::Table(_) => Policy::Grouped,
                };
                (Routing::by(router, RouterDevice::Host), policy)
            }))
        }
    }

    /// Requests of equal length that take every layer.
    fn dense(model: &str, layers: u32, requests: usize, prompt: u32, output: u32) -> Trace {
        let mut routes = RouteTable::default();
        routes.intern(Route::dense(layers));
        let (prompt, decode) = (vec![0; prompt as usize], vec![0; output as usize - 1]);
        let request = |id| Request::plain(id, &prompt, output, &decode);
        Trace {
            header: Header::dense(model, layers),
            routes,
            requests: (0..requests as u64).map(request).collect(),
        }
    }
}
