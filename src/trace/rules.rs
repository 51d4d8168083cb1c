//! What the runs of one request must be: the one place that holds them against the request's counts.

use super::limits::RUN_TOKENS;
use super::{Phase, Request, Role, Run};
use crate::error::{InputError, Result};

/// How far the routes of one request have come.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    prompt: u64,
    output: u64,
    frontier: u64,
}

/// A run before its route ids are looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub start: u64,
    pub phase: Phase,
    pub role: Role,
    pub tokens: usize,
    pub accepted: Option<&'a [bool]>,
}

impl<'a> Shape<'a> {
    /// The shape of a finished run.
    pub fn of(run: &'a Run) -> Self {
        Shape {
            start: run.start.into(),
            phase: run.phase,
            role: run.role,
            tokens: run.routes.len() as usize,
            accepted: (!run.accepted.is_empty()).then_some(&run.accepted),
        }
    }
}

impl Progress {
    /// At the first position of `request`.
    pub fn new(request: &Request) -> Self {
        Progress { prompt: request.prompt_tokens.into(), output: request.output_tokens.into(), frontier: 0 }
    }

    /// Whether all routes are there but perhaps that of the last token, which is sampled and need not be fed back.
    pub fn complete(&self) -> bool {
        self.frontier + 1 >= self.prompt + self.output
    }

    /// Takes one run.
    ///
    /// # Errors
    /// A gap or an overlap, a run across the end of the prompt, more tokens than the request has, and `accepted`
    /// where it does not belong or is no row of trues followed by falses.
    pub fn run(&mut self, run: &Shape) -> Result<()> {
        if run.tokens == 0 || run.tokens > RUN_TOKENS {
            let what = format!("1 to {RUN_TOKENS} routes in one run");
            return Err(InputError::expected(what).key("routes").found(run.tokens).into());
        }
        let end = run.start.saturating_add(run.tokens as u64);
        self.check_place(run, end)?;
        let advance = match run.role {
            Role::Plain => run.tokens as u64,
            Role::Draft | Role::Recompute => 0,
            Role::Verify => run.accepted.map_or(run.tokens, kept) as u64,
        };
        check_accepted(run)?;
        let all = self.prompt + self.output;
        if self.frontier + advance > all {
            let what = format!("at most {all} tokens (prompt_tokens + output_tokens of the request)");
            let found = format!("token {}", self.frontier + advance);
            return Err(InputError::expected(what).key("routes").found(found).into());
        }
        self.frontier += advance;
        Ok(())
    }

    fn check_place(&self, run: &Shape, end: u64) -> Result<()> {
        let positions = format_args!("positions {} to {}", run.start, end - 1).to_string();
        if run.role == Role::Recompute {
            if end > self.frontier {
                let what = format!("positions that were run before, below {}", self.frontier);
                return Err(InputError::expected(what).key("start").found(positions).into());
            }
            return Ok(());
        }
        if run.start != self.frontier {
            let kind = if run.start < self.frontier { "an overlap" } else { "a gap" };
            let what = format!("{}, where the tokens so far end ({kind})", self.frontier);
            return Err(InputError::expected(what).key("start").found(run.start).into());
        }
        match run.phase {
            Phase::Prefill if run.role != Role::Plain => {
                let what = "decode for drafted and verified tokens";
                Err(InputError::expected(what).key("phase").found("prefill").into())
            }
            Phase::Prefill if end > self.prompt => {
                let what = format!("prefill tokens below prompt_tokens = {}", self.prompt);
                Err(InputError::expected(what).key("routes").found(positions).into())
            }
            Phase::Decode if run.start < self.prompt => {
                let what = format!("decode tokens from prompt_tokens = {} on", self.prompt);
                Err(InputError::expected(what).key("start").found(positions).into())
            }
            _ => Ok(()),
        }
    }

    /// No more runs come.
    ///
    /// # Errors
    /// Fewer tokens than the request says, unless it has none at all.
    pub fn end(&self, request: &Request) -> Result<()> {
        if request.runs.is_empty() || self.complete() {
            return Ok(());
        }
        let all = self.prompt + self.output;
        let what = format!("routes for {} or {all} tokens of request {}", all - 1, request.id);
        Err(InputError::expected(what).key("output_tokens").found(format!("{} tokens", self.frontier)).into())
    }
}

/// How many of the drafted tokens stay.
fn kept(accepted: &[bool]) -> usize {
    accepted.iter().take_while(|&&kept| kept).count()
}

fn check_accepted(run: &Shape) -> Result<()> {
    let Some(accepted) = run.accepted else { return Ok(()) };
    let bad = |found: String, what: &str| Err(InputError::expected(what).key("accepted").found(found).into());
    if run.role != Role::Verify {
        return bad("it".into(), "this key only with the role verify");
    }
    if accepted.len() != run.tokens {
        return bad(format!("{} values", accepted.len()), &format!("one for each of {} routes", run.tokens));
    }
    match accepted[kept(accepted)..].iter().position(|&kept| kept) {
        None => Ok(()),
        Some(_) => bad("true after false".into(), "leading trues, then falses"),
    }
}
