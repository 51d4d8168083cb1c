//! One screen about a comparison: the answer, one table, and what to do next.

use super::answer::Answer;
use super::cells::{cells, means, of, saved_share, three, timed};
use super::errors::mean_saving;
use super::sheet::{NONE, Sheet, alike, percent, safe};
use crate::error::shorten;
use crate::metrics::Verdict;
use crate::scenario::{About, GROWS, Moved, Outcome, STEP, SeedRun, VariantOutcome};

/// Columns of the screen.
pub const WIDTH: u16 = 100;
/// Lines of the screen.
pub const LINES: usize = 40;
/// Longest name of a row that stands in one line.
const NAME: u16 = 32;
/// What the last two columns are.
const FOOT: &str =
    "saved: of the first row's pass time, ± its 90 % interval in points if kernels err alike in both.\n";

/// The screen in its parts, so that whoever prints it may set the answer off.
#[derive(Clone, Debug, PartialEq)]
pub struct Brief {
    /// What was compared: two lines.
    pub head: String,
    /// The answer, in lines.
    pub answer: String,
    /// The table and what to do next, in lines.
    pub rest: String,
}

impl Brief {
    /// Of a comparison.
    pub fn of(outcome: &Outcome) -> Brief {
        let Some(first) = outcome.variants.first() else {
            return Brief { head: String::new(), answer: String::new(), rest: String::new() };
        };
        let answer = Answer::of(outcome);
        let (head, said) = (head(outcome, first), sentences(&answer.sentences));
        let foot = if outcome.variants.len() > 1 { FOOT } else { "" };
        // Rows come first; remarks take the lines that they leave, one at least.
        let lines = |text: &str| text.lines().count();
        let about = Remarks::of(outcome);
        let around = lines(&head)
            + lines(&said)
            + lines(foot)
            + lines(&about.within(1))
            + lines(&next(outcome, &answer, 0))
            + 3;
        let (rows, table) = rows(&outcome.variants, answer.best, LINES.saturating_sub(around));
        let room = 1 + LINES.saturating_sub(around + lines(&table));
        let rest = format!("{table}{foot}{}\n{}", about.within(room), next(outcome, &answer, rows));
        Brief { head, answer: said, rest }
    }

    /// All of it.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}", self.head, self.answer, self.rest)
    }
}

fn head(outcome: &Outcome, first: &VariantOutcome) -> String {
    let whole = |of: fn(&SeedRun) -> u64| format!("{:.0}", first.mean(|run| of(run) as f64));
    let seeds = match first.runs.len() {
        1 => String::new(),
        count => format!("; means over {count} seeds"),
    };
    let what = format!(
        "{} on {}: {} requests, {} prompt and {} output tokens{seeds}",
        shorten(&first.model),
        shorten(&first.hardware),
        whole(|run| run.summary.requests),
        whole(|run| run.summary.prompt_tokens),
        whole(|run| run.summary.output_tokens),
    );
    wrapped(&shorten(&outcome.title), "") + &wrapped(&what, "")
}

/// The table of as many rows as fit into `room` lines, and how many: the first, the best, and others in their order.
fn rows(variants: &[VariantOutcome], best: Option<usize>, room: usize) -> (usize, String) {
    let must = |index: &usize| *index == 0 || Some(*index) == best;
    let mut kept: Vec<usize> = (0..variants.len()).filter(must).collect();
    let least = kept.len();
    let others = (0..variants.len()).filter(|index| !must(index));
    kept.extend(others.take(room.saturating_sub(least)));
    loop {
        let mut ordered = kept.clone();
        ordered.sort_unstable();
        let table = table(variants, &ordered);
        if kept.len() == least || table.lines().count() <= room {
            return (kept.len(), table);
        }
        kept.pop();
    }
}

/// What changes the results of these runs and is neither a constant of the device nor said in the answer: keys, and what is said of them.
struct Remarks(Vec<(String, String)>);

impl Remarks {
    /// Those of a comparison; what is said of several keys stands under the first.
    fn of(outcome: &Outcome) -> Remarks {
        let mut said: Vec<(&str, &str)> = Vec::new();
        let mut all = Vec::new();
        for note in outcome.assumed.iter().filter(|note| note.about == About::Run && note.why != GROWS) {
            let same = (note.value.as_str(), note.why.as_str());
            if !said.contains(&same) {
                said.push(same);
                let value = if note.value.is_empty() { String::new() } else { format!(" = {}", note.value) };
                all.push((note.key.clone(), safe(&format!("{}{value}: {}", note.key, note.why))));
            }
        }
        Remarks(all)
    }

    /// So many lines at most: a remark each, and the keys of the others in one.
    fn within(&self, room: usize) -> String {
        let shown = if self.0.len() <= room { self.0.len() } else { room.saturating_sub(1) };
        let (said, left) = self.0.split_at(shown);
        let mut text: String = said
            .iter()
            .map(|(_, remark)| format!("{}\n", cut(&format!("Remark: {remark}"), WIDTH)))
            .collect();
        if !left.is_empty() {
            let keys: Vec<String> = left.iter().map(|(key, _)| shorten(key)).collect();
            text += &format!("{}\n", cut(&format!("Remarks (--full) on {}", keys.join(", ")), WIDTH));
        }
        text
    }
}

/// At most so many characters of one line.
fn cut(text: &str, most: u16) -> String {
    let most = usize::from(most);
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

fn table(variants: &[VariantOutcome], rows: &[usize]) -> String {
    let chosen: Vec<VariantOutcome> = rows.iter().map(|&index| variants[index].clone()).collect();
    let chosen = chosen.as_slice();
    let first = &variants[0];
    let savings = || {
        chosen
            .iter()
            .zip(rows)
            .map(|(variant, &index)| (index > 0).then(|| (variant, mean_saving(first, variant))))
    };
    let saved_of = |variant: &VariantOutcome| saved_share(first, variant).map_or(NONE.into(), percent);
    let saved = savings().map(|row| row.map_or(NONE.into(), |(variant, _)| saved_of(variant)));
    let error = savings().map(|row| match row {
        None => NONE.into(),
        Some((variant, None)) if saved_share(first, variant).is_none() => NONE.into(),
        Some((_, None)) => "unknown".to_owned(),
        Some((_, Some(saving))) if saving.verdict() == Verdict::Unknown => "unknown".to_owned(),
        Some((_, Some(saving))) => percent(saving.shared_error_percent / 100.0),
    });
    let devices = |variant: &VariantOutcome| variant.first().summary.devices;
    let several = chosen.iter().any(|variant| devices(variant) > 1);
    let sheet = Sheet::new().narrow_to("variant", NAME, chosen.iter().map(|variant| &variant.name));
    let sheet = match several {
        true => sheet.numbers("de-\nvices", chosen.iter().map(|variant| devices(variant).to_string())),
        false => sheet,
    };
    let sheet = sheet.numbers(
        "mean\ndepth",
        cells(chosen, |run| run.summary.work.mean_depth, |depth| format!("{depth:.1}")),
    );
    let sheet = timed(sheet, "TPOT\np50", chosen, |run| of(run.summary.tpot_s, |spread| spread.p50));
    let sheet = timed(sheet, "TTFT\np50", chosen, |run| run.summary.ttft_s.p50)
        .numbers("output\ntok/s", alike(&means(chosen, |run| run.summary.output_tokens_per_s)))
        .numbers("J / out\ntoken", alike(&means(chosen, |run| run.summary.energy_per_output_token_j)));
    let peak = if several { "peak GB,\neach" } else { "peak\nGB" };
    let sheet =
        sheet.numbers(peak, cells(chosen, |run| run.summary.memory_bytes.total_peak as f64 / 1e9, three));
    match variants.len() {
        1 => sheet.within(WIDTH),
        _ => sheet.numbers("saved\n%", saved).numbers("±", error).within(WIDTH),
    }
}

/// What a user can do about a loss, by its key in [`crate::metrics::PARTS`].
const ADVICE: [(&str, &str); 6] = [
    (
        "union",
        "What matters most here is the batch: a smaller one reads fewer layers for single tokens (serving.max_sequences).",
    ),
    (
        "fragmentation",
        "What matters most here is the policy: aligned or dense_masked runs fewer, larger groups (variants.N.policy).",
    ),
    (
        "router",
        "What matters most here is when the router decides: earlier, or in a graph (variants.N.decisions).",
    ),
    (
        "launch",
        "What matters most here is who launches: captured graphs, another engine (dispatch.capture, engine, --engines).",
    ),
    ("kv", "What matters most here is what tokens leave in skipped layers: the route's KV action."),
    (
        "batching",
        "What matters most here is the load: at a higher one, passes stay full (workload.requests.arrivals).",
    ),
];

fn next(outcome: &Outcome, answer: &Answer, rows: usize) -> String {
    let left_out = outcome.variants.len() - rows;
    let rest = if left_out > 0 { format!("{left_out} more rows, ") } else { String::new() };
    let matters =
        if outcome.variants.len() > 1 { "; --matters: which constants move the saving" } else { "" };
    let options = format!(
        "Next: --full: {rest}where time, energy and memory went, {} constants that nobody measured; --html FILE: pictures; --json FILE: every \
         number{matters}.",
        outcome.assumed.len()
    );
    let advice = answer.loss.and_then(|loss| ADVICE.iter().find(|(part, _)| *part == loss));
    wrapped(&options, "") + &advice.map_or(String::new(), |(_, advice)| wrapped(advice, ""))
}

/// Which constants move the saving of a row most, in lines.
pub fn matters(name: &str, moved: &[Moved]) -> String {
    let by = percent(STEP);
    let head = format!(
        "What moves the saving of \"{}\" most, each constant of the device {by} % less and more:",
        shorten(name)
    );
    let line = |one: &Moved| {
        let Moved { key, source, saved: [down, now, up] } = one;
        format!(
            "  {key} ({source}): {} % saved, not {}, or {}\n",
            percent(*down),
            percent(*now),
            percent(*up)
        )
    };
    match moved {
        [] => wrapped("No constant of the device moves the saving.", ""),
        moved => wrapped(&head, "") + &moved.iter().map(line).collect::<String>(),
    }
}

/// Sentences of an answer, each in lines of its own.
pub fn sentences(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| wrapped(sentence, "")).collect()
}

/// A text in lines of the screen, each ended, all but the first behind `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let options = textwrap::Options::new(WIDTH.into()).initial_indent(indent).subsequent_indent(indent);
    textwrap::wrap(text, options).iter().map(|line| format!("{line}\n")).collect()
}
