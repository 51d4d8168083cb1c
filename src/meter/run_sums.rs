//! A measured run, simulated: the sums in which its latency and its energy are linear.

use super::constants::{ComparedRun, RunSums, StackConstants};
use super::run_table::{MeasuredRun, RunTable};
use crate::batch::Policy;
use crate::cost::{Limits, Ranks};
use crate::error::{InputError, Result};
use crate::hw::{Fabric, Hardware, Library, Sampler, Sourced};
use crate::lower::Dispatch;
use crate::sched::Serving;
use crate::sim::{Fidelity, Observer, PassInfo, Setup, run};
use crate::trace::synth::{Keep, Method, generate};
use crate::units::{PS_PER_S, SimTime};
use crate::workload::{Arrivals, Clients, Length, Lengths, requests};
use std::sync::Arc;

/// Tokens of a prompt by task, which the tables do not say. Assumed: for chats, what lets as many sequences as were measured fill the
/// KV memory of an H100 in the rows whose mean batch lies below its limit (Llama-3.1-8B at 768, Qwen3-8B at 512); for questions of
/// GPQA, their text with four answers; a question of 100 tokens beside an image or a video. Others count as a chat.
const PROMPTS: [(&str, u32); 4] =
    [("lm-arena-chat", 350), ("gpqa", 250), ("image-chat", 100), ("video-chat", 100)];

/// Tokens of what stands beside the question. Assumed: a photograph is about 700 tokens to models that keep its size, a video some frames.
const PICTURES: [(&str, u32); 2] = [("image-chat", 700), ("video-chat", 2100)];

/// Tokens of an image to Gemma 3, whatever its size (arXiv 2503.19786, section 2.1).
const GEMMA_IMAGE: u32 = 256;

/// Standard deviation of the logarithm of an answer's length. Assumed: answers of one task differ by about half of their mean.
const SPREAD: f64 = 0.5;

/// Tokens of a pass at most, the default of vLLM's server on devices with 70 GB and more.
const MOST_TOKENS: u32 = 8192;

/// Batches for which graphs are captured: 1, 2, 4 and every eighth up to 512, the default of vLLM.
fn captured() -> Vec<u32> {
    [1, 2, 4].into_iter().chain((1..=64).map(|eighth| 8 * eighth)).collect()
}

/// Requests that each client sends. The first is for coming to a steady mix, the last for the end.
const ROUNDS: u32 = 4;

/// Watches the steady part: from the pass on with the number `from`, while all clients have something to send.
#[derive(Debug, Default)]
struct Steady {
    from: u64,
    clients: u32,
    seen: u64,
    /// Length and generated tokens of each pass.
    passes: Vec<(u64, u32)>,
    busy_ps: u128,
    dynamic_pj: i128,
}

impl Observer for Steady {
    fn pass(&mut self, info: &PassInfo) {
        self.seen += 1;
        if self.seen <= self.from || info.running + info.waiting < self.clients {
            return;
        }
        let generated = info.batch.generating();
        self.passes.push(((info.end - info.begin).ps(), generated));
        self.busy_ps += u128::from(info.busy.ps());
        self.dynamic_pj += i128::from(info.dynamic_pj);
    }
}

impl Steady {
    fn tokens(&self) -> u64 {
        self.passes.iter().map(|(_, tokens)| u64::from(*tokens)).sum()
    }

    /// Median over generated tokens of the length of their pass, seconds.
    fn median_s(&self) -> f64 {
        let mut passes = self.passes.clone();
        passes.sort_unstable();
        let (half, mut below) = (self.tokens() / 2, 0);
        let median = passes.iter().find(|(_, tokens)| {
            below += u64::from(*tokens);
            below > half
        });
        median.map_or(0.0, |(ps, _)| seconds(u128::from(*ps)))
    }
}

fn seconds(ps: u128) -> f64 {
    ps as f64 / PS_PER_S as f64
}

/// What is assumed about every run, in a line for reports.
pub fn assumed() -> String {
    let tokens = |list: &[(&str, u32)]| -> Vec<String> {
        list.iter().map(|(task, tokens)| format!("{task} {tokens}")).collect()
    };
    format!(
        "Assumed, since the table does not say: prompt tokens ({}; pictures on top: {}, {GEMMA_IMAGE} an image for Gemma 3); log-normal\n\
         lengths of answers, sigma {SPREAD}; at most {MOST_TOKENS} tokens a pass; graphs captured up to 512 sequences.\n",
        tokens(&PROMPTS).join(", "),
        tokens(&PICTURES).join(", "),
    )
}

/// Simulates every row of a table. Those that do not fit the device are added to what it skips.
///
/// # Errors
/// No row fits.
pub fn points(hw: &Hardware, table: &mut RunTable) -> Result<Vec<ComparedRun>> {
    let mut points = Vec::new();
    for row in table.rows.drain(..) {
        match parts(hw, &row) {
            Ok(parts) if parts.tokens > 0.0 => points.push(ComparedRun { row, parts }),
            Ok(_) => *table.skipped.entry("without a steady part".into()).or_default() += 1,
            Err(error) => {
                let reason = format!("of {}, which does not run: {error}", row.id);
                *table.skipped.entry(reason).or_default() += 1;
            }
        }
    }
    if points.is_empty() {
        let reasons: Vec<&str> = table.skipped.keys().map(String::as_str).collect();
        return Err(InputError::expected("rows that fit the device").found(reasons.join("; ")).into());
    }
    Ok(points)
}

/// Simulates a row on `hw`: runs that are alike in all but the constants whose sums are asked for.
///
/// # Errors
/// A model that does not fit the device.
pub fn parts(hw: &Hardware, row: &MeasuredRun) -> Result<RunSums> {
    /// Of the run that tells what the sampler sees; any would do, and this one is near what is fitted.
    const PS_PER_LOGIT: f64 = 250.0;
    // Sums, whatever the board's limit.
    let mut boundless = hw.clone();
    boundless.power.limit_w.value = 1e12;
    let by_bytes = steady(&boundless, row, StackConstants { pj_per_byte: 1.0, ..NOTHING })?;
    let by_flops = steady(&boundless, row, StackConstants { pj_per_flop: 1.0, ..NOTHING })?;
    let by_logits =
        steady(&boundless, row, StackConstants { ps_per_logit: PS_PER_LOGIT, pj_per_logit: 1.0, ..NOTHING })?;
    let tera = |steady: &Steady| steady.dynamic_pj as f64 / 1e12;
    let itl_s = by_bytes.median_s();
    let parts = RunSums {
        held: 1.0,
        itl_s,
        itl_teralogits: (by_logits.median_s() - itl_s) / PS_PER_LOGIT,
        passes: by_bytes.passes.len() as f64,
        time_s: seconds(by_bytes.passes.iter().map(|(ps, _)| u128::from(*ps)).sum()),
        busy_s: seconds(by_bytes.busy_ps),
        terabytes: tera(&by_bytes),
        teraflops: tera(&by_flops),
        teralogits: tera(&by_logits),
        tokens: by_bytes.tokens() as f64,
        devices: f64::from(row.devices),
    };
    Ok(RunSums { held: held(hw, row, &parts)?, ..parts })
}

/// The share of the energy by the constants of the profile that is left when no kernel draws more than the board's limit.
///
/// # Errors
/// A model that does not fit the device.
pub fn held(hw: &Hardware, row: &MeasuredRun, parts: &RunSums) -> Result<f64> {
    let constants = StackConstants { step_s: 0.0, ..StackConstants::of(hw) };
    let watch = steady(hw, row, constants)?;
    let time_s = seconds(watch.passes.iter().map(|(ps, _)| u128::from(*ps)).sum());
    let busy_s = seconds(watch.busy_ps);
    let resting = constants.static_w * busy_s + constants.idle_w * (time_s - busy_s);
    let joules = f64::from(row.devices) * resting + watch.dynamic_pj as f64 / 1e12;
    let free = constants.predict(&RunSums { held: 1.0, ..*parts });
    Ok(joules / (free.joules * parts.tokens))
}

/// Steps and samplers that take no time, and work that takes no energy.
const NOTHING: StackConstants = StackConstants {
    step_s: 0.0,
    ps_per_logit: 0.0,
    idle_w: 0.0,
    static_w: 0.0,
    pj_per_byte: 0.0,
    pj_per_flop: 0.0,
    pj_per_logit: 0.0,
};

fn prompt_tokens(row: &MeasuredRun) -> u32 {
    let of =
        |list: &[(&str, u32)]| list.iter().find(|(task, _)| *task == row.task).map(|(_, tokens)| *tokens);
    let gemma = row.shape.model.name.starts_with("gemma-3") && row.task == "image-chat";
    let pictures = if gemma { GEMMA_IMAGE } else { of(&PICTURES).unwrap_or(0) };
    of(&PROMPTS).unwrap_or(PROMPTS[0].1) + pictures
}

/// So many devices in the machines in which they are sold, with vLLM's collectives: it served the models of these tables.
fn ranks(hw: &Hardware, devices: u32) -> Result<Arc<Ranks>> {
    let Some(name) = Fabric::usual(&hw.name) else {
        let expected = "a device whose fabric is known";
        return Err(InputError::expected(expected).key("hw").found(&hw.name).into());
    };
    Ok(Arc::new(Ranks::new(&Fabric::shipped(name)?, devices, Library::Vllm)?))
}

/// The steady part of the row with these constants.
fn steady(hw: &Hardware, row: &MeasuredRun, constants: StackConstants) -> Result<Steady> {
    let mut hardware = hw.clone();
    let with = |value: f64| Sourced { value, source: hw.launch.step_us.source.clone() };
    hardware.launch.step_us = with(constants.step_s * 1e6);
    hardware.power.pj_per_byte = with(constants.pj_per_byte);
    hardware.power.pj_per_flop = with(constants.pj_per_flop);
    hardware.sampler = Some(Sampler {
        ps_per_logit: with(constants.ps_per_logit),
        pj_per_logit: with(constants.pj_per_logit),
        error: None,
    });
    let clients = row.batch.round().max(1.0) as u32;
    // The median of a log-normal length of this mean.
    let median = (row.output_tokens * libm::exp(-SPREAD * SPREAD / 2.0)).max(1.0);
    let most = (4.0 * row.output_tokens).ceil() as u32;
    let lengths = Lengths {
        prompt: Length::Fixed(prompt_tokens(row)),
        output: Length::LogNormal { median, sigma: SPREAD, most },
    };
    let requests = requests(clients * ROUNDS, &lengths, &Arrivals::Closed, 0)?;
    let think = vec![SimTime::ZERO; requests.len()];
    let model = row.shape.model.shard(row.devices)?;
    let ranks = (row.devices > 1).then(|| ranks(hw, row.devices)).transpose()?;
    let dense = Method::StaticDepth { keep: Keep::AllBut(Vec::new()) };
    let trace = generate(&dense, model.layers, requests, 0)?;
    let setup = Setup {
        ranks,
        placed: None,
        model,
        hardware,
        limits: Limits::default(),
        experts: crate::batch::ExpertUse::default(),
        clients: Some(Clients { count: clients, think }),
        sessions: None,
        serving: Serving::new(MOST_TOKENS.max(clients), clients, true),
        dispatch: Dispatch { capture: captured(), ..Dispatch::of_trace(Policy::Aligned, &trace) },
        tiers: None,
        fidelity: Fidelity::Step,
        explain: false,
        against: None,
    };
    // By then the first answers have ended, and no two sequences are at the same place.
    let from = row.output_tokens as u64;
    let mut watch = Steady { from, clients, ..Steady::default() };
    run(&setup, &trace, &mut watch)?;
    Ok(watch)
}
