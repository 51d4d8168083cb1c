//! The run behind `radialsim execute`.

use super::{Args, Device, Over};
use crate::cli::{print, say};
use radialsim::batch::{Policy, Visibility};
use radialsim::error::{Error, InputError, Result};
use radialsim::gpu::{
    Executor, ExecutorOptions, Form, Generated, GenerationSettings, GenerationWatch, Gpu, Oracle, Pass,
    PassOutcome, Prompt, Ratio, Residual, RouterMlp, Routing, TokenSampling,
};
use radialsim::json_text;
use radialsim::lower::{Call, Node};
use radialsim::report::timeline::{self, Timeline};
use radialsim::report::{Staged, execution, residuals};
use radialsim::trace::{self, KvAction, Route, RouterDevice, Trace};
use radialsim::units::SimTime;
use radialsim::weights::{AnyRouter, Checkpoint, Date, TensorFormat, TokenStream, Tokenizer};
use std::io::{BufRead, BufReader};
use std::time::Instant;

#[path = "execute_perplexity.rs"]
mod perplexity;

/// Most layers that a token visits with a plain MLP, unless `--hops` says otherwise.
const MLP_HOPS: u32 = 32;

/// Runs.
pub fn run(args: &Args) -> Result<()> {
    if !args.perplexity.is_empty() {
        return perplexity::run(args);
    }
    args.check_files()?;
    let checkpoint = Checkpoint::open(&args.weights)?;
    let tokenizer = checkpoint.tokenizer();
    let (prompts, mut remarks) = args.read_prompts(tokenizer.as_ref())?;
    remarks.extend(args.expanded(&checkpoint));
    if !args.quiet {
        remarks.iter().for_each(|remark| say(&format!("note: {remark}")));
    }
    let routing = args.routing(&checkpoint)?;
    let [json, timeline, table, plot] = [&args.json, &args.timeline, &args.residuals, &args.residual_plot]
        .map(|path| path.as_ref().map(Staged::create));
    let (json, timeline, table, plot) =
        (json.transpose()?, timeline.transpose()?, table.transpose()?, plot.transpose()?);
    let longest =
        prompts.iter().map(|prompt| prompt.ids.len() as u64 + u64::from(prompt.most)).max().unwrap_or(1);
    let gpu = Gpu::open(args.adapter.as_deref())?;
    let options = ExecutorOptions {
        precision: args.precision.into(),
        top: args.top_k.unwrap_or(5).max(5),
        positions: longest.min(1 << 20) as u32,
        ..ExecutorOptions::default()
    };
    let begun = Instant::now();
    let mut executor = Executor::new(gpu, &checkpoint, options)?;
    if !args.quiet {
        let (name, s) = (executor.gpu().info().name.clone(), begun.elapsed().as_secs_f64());
        let mib = executor.gpu().allocated_bytes() >> 20;
        say(&format!("{} on {name}: {mib} MiB in {s:.1} s", checkpoint.model().name));
    }
    let policy = args.policy_for(&routing);
    let visibility = args.visibility_for(&routing);
    let end_ids = tokenizer.as_ref().map_or(checkpoint.end_ids(), Tokenizer::end_ids).to_vec();
    let sampling =
        args.top_k.map(|top| TokenSampling { top, temperature: args.temperature, seed: args.seed });
    let settings = GenerationSettings {
        routing,
        policy,
        visibility,
        end_ids,
        prompt_logits: json.is_some(),
        sampling,
        timed: timeline.is_some(),
    };
    let stream = args.prompt.as_ref().and(tokenizer.as_ref().ok()).map(Tokenizer::stream);
    let mut watch = Watcher::new(stream, args.ratio());
    let generated = args.generate(&mut executor, &prompts, settings, &mut watch)?;

    if let Some(file) = json {
        file.finish(|out| {
            for (index, (prompt, answer)) in prompts.iter().zip(&generated.answers).enumerate() {
                let text = tokenizer.as_ref().ok().and_then(|tokenizer| tokenizer.decode(&answer.ids).ok());
                let last = watch.last_of(index, prompt);
                writeln!(out, "{}", execution::line(&prompt.ids, text.as_deref(), answer, &last, &remarks))?;
            }
            Ok(())
        })?;
    }
    if let Some(path) = &args.trace {
        trace::write(path, &generated.trace)?;
    }
    if let Some(file) = timeline {
        file.finish(|out| timeline::write(out, &[(checkpoint.model().name.clone(), &watch.timeline)]))?;
    }
    if let Some(file) = table {
        file.finish(|out| residuals::write(out, &watch.residuals))?;
    }
    if let Some(file) = plot {
        let picture = residuals::picture(&checkpoint.model().name, &watch.residuals);
        file.finish(|out| out.write_all(picture.map_err(std::io::Error::other)?.as_bytes()))?;
    }
    args.summary(&watch, &generated)
}

impl Args {
    /// How tokens share the device: as asked for, or as suits the routing.
    fn policy_for(&self, routing: &Routing) -> Policy {
        self.policy.unwrap_or(match routing {
            Routing::Oracle(_) => Policy::DenseMasked,
            Routing::Router(_) | Routing::Radial(_) | Routing::Words(_) => Policy::Grouped,
            Routing::Skips(skips) if skips.device == RouterDevice::Gpu => Policy::DenseMasked,
            _ => Policy::Aligned,
        })
    }

    /// What attention sees in a unified cache: as asked for, or as the router was trained.
    fn visibility_for(&self, routing: &Routing) -> Visibility {
        self.visibility.or(routing.visible()).unwrap_or_default()
    }

    fn ratio(&self) -> Ratio {
        if self.ratio == Over::Input { Ratio::OverInput } else { Ratio::OverOutput }
    }

    /// No two results go to one file.
    fn check_files(&self) -> Result<()> {
        let files = [
            ("--json", &self.json),
            ("--trace", &self.trace),
            ("--timeline", &self.timeline),
            ("--residuals", &self.residuals),
            ("--residual-plot", &self.residual_plot),
        ];
        for (index, (key, file)) in files.iter().enumerate() {
            if let Some((other, _)) = files[..index].iter().find(|(_, other)| file.is_some() && other == file)
            {
                let expected = format!("a file of its own, which is not that of {other}");
                return Err(InputError::expected(expected).key(*key).into());
            }
        }
        if let Some(path) = &self.trace {
            Staged::check(path)?;
        }
        Ok(())
    }

    /// Who decides the routes.
    fn routing(&self, checkpoint: &Checkpoint) -> Result<Routing> {
        let layers = checkpoint.model().layers;
        if let Some(path) = &self.replay {
            return Ok(Routing::Replay(Box::new(trace::read(path)?)));
        }
        let device = if self.router_device == Device::Host { RouterDevice::Host } else { RouterDevice::Gpu };
        let router = match &self.router {
            Some(path) => AnyRouter::read(path)?,
            None if self.route.is_some() || self.oracle.is_some() => None,
            None => checkpoint.router()?,
        };
        if let (Some(hops), Some(router)) = (self.hops, &router) {
            let what =
                format!("a plain MLP: a {} router says itself how far tokens go", router.described().kind());
            return Err(InputError::expected(what).key("--hops").found(hops).into());
        }
        if self.router.is_some() || router.is_some() {
            for (key, path) in [("--residuals", &self.residuals), ("--residual-plot", &self.residual_plot)] {
                if let Some(path) = path {
                    let what = "a dense run or an oracle, which measure every branch, rather than a router";
                    return Err(InputError::expected(what).key(key).found(path.display()).into());
                }
            }
        }
        match (router, &self.router) {
            (Some(router), _) => return Ok(Routing::by(router, device)),
            (None, Some(path)) => {
                let hops = self.hops.unwrap_or(MLP_HOPS);
                return Ok(Routing::Router(Box::new(RouterMlp::read(path, hops, device)?)));
            }
            (None, None) => {}
        }
        if let Some(steps) = &self.route {
            return Ok(Routing::Fixed(Route::parse(steps)?, KvAction::parse(&self.kv)?));
        }
        let measured = self.json.is_some() || self.residuals.is_some() || self.residual_plot.is_some();
        let masked = self.policy.is_none_or(|policy| policy == Policy::DenseMasked);
        // Ratios come from an oracle; one without thresholds takes every branch.
        match self.oracle.or((measured && masked).then_some((0.0, 0.0))) {
            None => Ok(Routing::dense(layers)),
            Some((attention, feed_forward)) => {
                if let Some(layer) = self.always.iter().find(|&&layer| layer >= layers) {
                    let what = format!("layers below {layers}");
                    return Err(InputError::expected(what).key("--always").found(layer).into());
                }
                let always = self.always.clone();
                Ok(Routing::Oracle(Oracle { attention, feed_forward, ratio: self.ratio(), always }))
            }
        }
    }

    /// A remark on weights that take more memory on the device than in the file.
    fn expanded(&self, checkpoint: &Checkpoint) -> Option<String> {
        let formats = checkpoint.formats().into_iter();
        let wider = formats.filter(|format| format.is_quantised() && Form::own(*format) == Form::F32);
        let names: Vec<&str> = wider.map(TensorFormat::name).collect();
        let what =
            || format!("{} weights stand as f32 on the device, with the same values", names.join(", "));
        (self.precision == super::Form::Kept && !names.is_empty()).then(what)
    }

    /// The prompts, and remarks on what was put around them.
    fn read_prompts(
        &self,
        tokenizer: std::result::Result<&Tokenizer, &Error>,
    ) -> Result<(Vec<Prompt>, Vec<String>)> {
        // A model without a tokenizer can still be given ids.
        let words = || {
            tokenizer.map_err(|error| {
                InputError::expected(format!("a tokenizer for text ({error})")).key("--weights")
            })
        };
        let most = self.max_tokens;
        if let Some(text) = &self.prompt {
            let words = words()?;
            if self.raw {
                let prompt = Prompt { ids: words.encode(text)?, most };
                return Ok((vec![prompt], words.remarks().to_vec()));
            }
            let asked = words.ask(text, Date::parse(&self.date)?)?;
            return Ok((vec![Prompt { ids: asked.ids, most }], asked.remarks));
        }
        let path = self.prompts.as_ref().expect("clap asks for one of both");
        let file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
        let (mut prompts, mut remarks) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(BufReader::new(file).lines()) {
            let wrong = |key: &str, what: &str| InputError::expected(what).key(key).file(path).line(number);
            let line = line.map_err(Error::io(path, "read"))?;
            if line.trim().is_empty() {
                continue;
            }
            let line: serde_json::Value = json_text::from_slice(line.as_bytes(), "an object of JSON")
                .map_err(|error| error.file(path).line(number))?;
            let ids = match (line.get("prompt_ids"), line.get("text").map(serde_json::Value::as_str)) {
                (Some(ids), _) => {
                    serde_json::from_value(ids.clone()).map_err(|_| wrong("prompt_ids", "a list of ids"))?
                }
                (None, Some(Some(text))) => {
                    remarks = words()?.remarks().to_vec();
                    words()?.encode(text)?
                }
                _ => return Err(wrong("text", "`text`, or `prompt_ids`").into()),
            };
            prompts.push(Prompt { ids, most });
        }
        if prompts.is_empty() {
            return Err(InputError::expected("at least one line").file(path).into());
        }
        Ok((prompts, remarks))
    }

    /// All prompts, so many at a time.
    fn generate(
        &self,
        executor: &mut Executor,
        prompts: &[Prompt],
        settings: GenerationSettings,
        watch: &mut Watcher,
    ) -> Result<Generated> {
        let mut whole: Option<Generated> = None;
        for (first, some) in (0..).step_by(self.batch as usize).zip(prompts.chunks(self.batch as usize)) {
            watch.first = first;
            watch.memory = executor.gpu().allocated_bytes();
            let mut settings = settings.clone();
            if let Routing::Replay(trace) = &mut settings.routing {
                trace.requests.drain(..first.min(trace.requests.len()));
            }
            let next = executor.generate(some, &settings, watch)?;
            match &mut whole {
                None => whole = Some(next),
                Some(whole) => append(whole, next),
            }
        }
        Ok(whole.expect("there is at least one prompt"))
    }

    fn summary(&self, watch: &Watcher, generated: &Generated) -> Result<()> {
        if self.prompt.is_some() {
            print("\n")?;
        }
        if self.quiet {
            return Ok(());
        }
        let tokens: usize = generated.answers.iter().map(|answer| answer.ids.len()).sum();
        let rate = |tokens: f64, s: f64| if s > 0.0 { tokens / s } else { 0.0 };
        say(&format!(
            "{tokens} tokens: prompts {:.1} tokens/s, generation {:.1} tokens/s; {} passes, {} kernels, {:.3} s",
            rate(watch.prompt.0, watch.prompt.1),
            rate(watch.decode.0, watch.decode.1),
            watch.passes,
            watch.kernels,
            watch.prompt.1 + watch.decode.1,
        ));
        if !watch.residuals.is_empty() {
            let [attention, feed_forward, block, cosine] = residuals::medians(&watch.residuals);
            say(&format!(
                "medians over tokens and layers: attention {attention:.4}, feed-forward {feed_forward:.4}, block {block:.4}, cosine {cosine:.4}"
            ));
        }
        Ok(())
    }
}

/// Adds the results of a later batch; its routes are named anew.
fn append(whole: &mut Generated, next: Generated) {
    whole.answers.extend(next.answers);
    let Trace { routes, requests, .. } = next.trace;
    for mut request in requests {
        request.id = whole.trace.requests.len() as u64;
        for run in &mut request.runs {
            let ids: Vec<u32> =
                run.routes.iter().map(|id| whole.trace.routes.intern(routes.get(id).clone())).collect();
            run.routes = ids.into();
        }
        whole.trace.requests.push(request);
    }
}

/// What is kept of a run while it goes.
struct Watcher<'a> {
    stream: Option<TokenStream<'a>>,
    ratio: Ratio,
    /// Number of the batch's first prompt.
    first: usize,
    /// Bytes on the device.
    memory: u64,
    residuals: Vec<Residual>,
    timeline: Timeline,
    begun: Instant,
    passes: u64,
    kernels: u64,
    /// Tokens and seconds of passes with prompts, and of passes without.
    prompt: (f64, f64),
    decode: (f64, f64),
}

impl<'a> Watcher<'a> {
    fn new(stream: Option<TokenStream<'a>>, ratio: Ratio) -> Self {
        Watcher {
            stream,
            ratio,
            first: 0,
            memory: 0,
            residuals: Vec::new(),
            timeline: Timeline::measured(timeline::MOST_KERNELS),
            begun: Instant::now(),
            passes: 0,
            kernels: 0,
            prompt: (0.0, 0.0),
            decode: (0.0, 0.0),
        }
    }

    /// What each layer did to the last token of a prompt.
    fn last_of(&self, index: usize, prompt: &Prompt) -> Vec<Residual> {
        let last = prompt.ids.len() as u32 - 1;
        let of = |residual: &&Residual| residual.prompt as usize == index && residual.position == last;
        self.residuals.iter().filter(of).copied().collect()
    }
}

impl GenerationWatch for Watcher<'_> {
    fn token(&mut self, _prompt: usize, id: u32) -> Result<()> {
        match &mut self.stream {
            Some(stream) => print(&stream.push(id)?),
            None => Ok(()),
        }
    }

    fn pass(&mut self, pass: &Pass, outcome: &PassOutcome, rows: &[(usize, u32, bool)]) -> Result<()> {
        let host_s = outcome.timing.host_s;
        let side = if rows.iter().any(|row| row.2) { &mut self.prompt } else { &mut self.decode };
        side.0 += rows.len() as f64;
        side.1 += host_s;
        self.passes += 1;
        self.kernels += outcome.kernels.len() as u64;
        if let Some(each) = outcome.records.len().checked_div(rows.len()).filter(|&each| each > 0) {
            for (row, records) in rows.iter().zip(outcome.records.chunks_exact(each)) {
                let prompt = (self.first + row.0) as u32;
                self.residuals.extend(Residual::of_row(prompt, row.1, row.2, records, self.ratio));
            }
        }
        let Some(&(start, _)) = outcome.timing.kernels_ns.first() else { return Ok(()) };
        let end = SimTime::from_s(self.begun.elapsed().as_secs_f64());
        let begin = end.saturating_sub(SimTime::from_s(host_s));
        // The device's clock has an origin of its own: the first kernel is put at the pass's begin on the host's.
        let at = |ns: u64| begin + SimTime::from_ps(ns.saturating_sub(start) * 1000);
        for done in &outcome.kernels {
            let times = &outcome.timing.kernels_ns[done.first as usize..(done.first + done.count) as usize];
            let node = Node::Kernel { kernel: done.kernel, captured: false };
            let call = Call { node, cause: done.cause, layer: done.layer };
            let first = times.first().map_or(start, |&(first, _)| first);
            let last = times.last().map_or(first, |&(_, last)| last);
            self.timeline.ran(call, at(first), at(last));
        }
        let sequences = pass.batch.spans.len() as u32;
        self.timeline.passed([begin, end], rows.len() as u32, sequences, self.memory);
        Ok(())
    }
}
