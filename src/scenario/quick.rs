//! A scenario from a few words: what `radialsim simulate --trace T --model M --hardware H` runs, and what `--save-scenario` writes.

use super::{Inputs, Scenario};
use crate::error::Result;
use crate::ron_text;
use crate::trace::synth::Method;
use crate::trace::{Order, Stats};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Most tokens of a pass unless the batch is larger: vLLM's `max_num_batched_tokens` without chunks that a user sets (`vllm/config/scheduler.py`).
const BATCHED_TOKENS: u32 = 2048;
/// Lengths where one is given and the other is not, and for routes of a formula. Assumed: a short question and its answer.
const PROMPT: u32 = 512;
const OUTPUT: u32 = 128;
/// Requests that are drawn for each sequence of a batch, and most of all. Assumed: enough for the batch to be full most of the time.
const WAVES: u32 = 4;
const MOST_REQUESTS: u32 = 2000;

/// Where routes come from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// A recorded trace.
    Trace(PathBuf),
    /// A formula, as a scenario writes it: `IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)`.
    Method(String),
}

/// What a comparison in a few words says.
#[derive(Clone, Debug, PartialEq)]
pub struct Quick {
    /// Where routes come from.
    pub from: RouteSource,
    /// A built-in model, or a `config.json`.
    pub model: String,
    /// A shipped device, or a profile.
    pub hardware: String,
    /// Most sequences that run at once.
    pub batch: u32,
    /// Whether a row of static depth stands beside, at the mean depth of a trace.
    pub with_static: bool,
    /// Dispatch policies of the routed rows; empty: those that suit the routes.
    pub policies: Vec<String>,
    /// Tokens of a prompt; absent, as the others: what the trace recorded.
    pub prompt: Option<u32>,
    /// Tokens generated.
    pub output: Option<u32>,
    /// Requests a second; absent: all there at the start.
    pub rate: Option<f64>,
    /// Requests.
    pub requests: Option<u32>,
}

impl Quick {
    /// The text of the scenario, as a user would write it. Paths are those of this run's folder.
    ///
    /// # Errors
    /// A trace that cannot be read, a formula that is none.
    pub fn text(&self, inputs: &Inputs) -> Result<String> {
        let (order, has_static, source) = match &self.from {
            RouteSource::Trace(path) => {
                let trace = inputs.trace(Path::new(""), path)?;
                // A token that takes more layers than there are has no peer of static depth.
                let shallow = Stats::of(&trace).mean_depth < f64::from(trace.header.layers);
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (trace.header.order, self.with_static && shallow, name)
            }
            RouteSource::Method(text) => {
                let method: Method = ron_text::parse(text, "a method in RON, such as IndependentSkips(skip: 0.25, branches: Jointly, kv: project_only)")
                    .map_err(|error| error.file("--method"))?;
                (method.order().0, false, text.split('(').next().unwrap_or_default().trim().to_owned())
            }
        };
        let (kind, routes) = match &self.from {
            RouteSource::Trace(_) => ("recorded", "Recorded".to_owned()),
            RouteSource::Method(text) => ("routed", format!("Method({})", text.trim())),
        };
        let own: &[&str] =
            if order == Order::Any { &["hop", "grouped"] } else { &["dense_masked", "aligned"] };
        let policies: Vec<&str> = match self.policies.as_slice() {
            [] => own.to_vec(),
            named => named.iter().map(String::as_str).collect(),
        };
        let string = |text: &str| ron::to_string(text).expect("a text is RON");
        let title = format!("{source} on {}, {}, batch {}", self.model, self.hardware, self.batch);
        let captured: Vec<String> = (0..)
            .map(|power| 1u32 << power)
            .take_while(|size| *size < self.batch)
            .chain([self.batch])
            .map(|size| size.to_string())
            .collect();

        let mut text = String::from("(\n");
        let mut line = |line: std::fmt::Arguments| writeln!(text, "    {line}").expect("a text takes lines");
        line(format_args!("title: {},", string(&title)));
        line(format_args!("model: {},", string(&self.model)));
        line(format_args!("hardware: {},", string(&self.hardware)));
        line(format_args!("workload: ({}),", self.workload(&string)));
        line(format_args!(
            "serving: (max_batched_tokens: {}, max_sequences: {}, chunked_prefill: true),",
            self.batch.max(BATCHED_TOKENS),
            self.batch
        ));
        line(format_args!("dispatch: (policy: {}, capture: [{}]),", policies[0], captured.join(", ")));
        line(format_args!("seed: 1,"));
        line(format_args!("variants: ["));
        line(format_args!("    (name: \"dense\", routes: Method(Dense)),"));
        if has_static {
            line(format_args!("    (name: \"static, middle dropped\", routes: DropMiddleAsRecorded),"));
        }
        for policy in policies {
            let name = string(&format!("{kind}, {policy}"));
            line(format_args!("    (name: {name}, routes: {routes}, policy: {policy}),"));
        }
        line(format_args!("],"));
        Ok(text + ")\n")
    }

    /// The scenario itself, read from that text.
    ///
    /// # Errors
    /// Those of [`Quick::text`] and of [`Scenario::from_text`].
    pub fn scenario(&self, inputs: &Inputs, settings: &[String]) -> Result<Scenario> {
        Scenario::from_text(&self.text(inputs)?, Path::new("command line"), settings)
    }

    /// The same for a file in `folder`, from which the trace is found.
    ///
    /// # Errors
    /// Those of [`Quick::text`], and a trace without a full path.
    pub fn text_in(&self, folder: &Path, inputs: &Inputs) -> Result<String> {
        let mut there = self.clone();
        if let RouteSource::Trace(path) = &mut there.from
            && !folder.as_os_str().is_empty()
        {
            *path = std::path::absolute(&*path).map_err(crate::error::Error::io(&*path, "find"))?;
        }
        there.text(inputs)
    }

    fn workload(&self, string: &impl Fn(&str) -> String) -> String {
        let mut parts = Vec::new();
        if let RouteSource::Trace(path) = &self.from {
            parts.push(format!("trace: {}", string(&path.to_string_lossy())));
        }
        let is_drawn =
            self.prompt.is_some() || self.output.is_some() || self.rate.is_some() || self.requests.is_some();
        if is_drawn || matches!(self.from, RouteSource::Method(_)) {
            let count =
                self.requests.unwrap_or_else(|| (WAVES.saturating_mul(self.batch)).clamp(1, MOST_REQUESTS));
            let arrivals =
                self.rate.map_or("Closed".to_owned(), |rate| format!("Poisson(rate_per_s: {rate:?})"));
            parts.push(format!(
                "requests: (count: {count}, lengths: (prompt: Fixed({}), output: Fixed({})), arrivals: {arrivals})",
                self.prompt.unwrap_or(PROMPT),
                self.output.unwrap_or(OUTPUT)
            ));
        }
        parts.join(", ")
    }
}
