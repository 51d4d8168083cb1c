//! One request on its way: which run and which token comes next, what a pass puts out, what is taken back.

use crate::batch::{Context, Paths};
use crate::trace::{Phase, Request, Role, Run};

/// A running request.
#[derive(Clone, Debug)]
pub struct Sequence {
    request: Request,
    promised: u64,
    /// Current run, and how many of its tokens have passed.
    run: usize,
    passed: u32,
    put_out: u32,
}

impl Sequence {
    /// At its first run; `promised` KV bytes are kept for it.
    pub fn new(request: Request, promised: u64) -> Self {
        assert!(!request.runs.is_empty(), "requests without routes are given some before they run");
        Sequence { request, promised, run: 0, passed: 0, put_out: 0 }
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// KV bytes kept for it.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// Output tokens so far.
    pub fn put_out(&self) -> u32 {
        self.put_out
    }

    /// Whether every run has passed.
    pub fn is_over(&self) -> bool {
        self.run == self.request.runs.len()
    }

    fn current(&self) -> &Run {
        &self.request.runs[self.run]
    }

    /// Whether its tokens pass one at a time: generation and drafts.
    pub fn is_single(&self) -> bool {
        let run = self.current();
        run.phase == Phase::Decode && matches!(run.role, Role::Plain | Role::Draft)
    }

    /// Whether its next token is one of the prompt.
    pub fn in_prompt(&self) -> bool {
        self.current().phase == Phase::Prefill && self.current().role == Role::Plain
    }

    /// Tokens that could pass together next.
    pub fn unit(&self) -> u32 {
        if self.is_single() { 1 } else { self.current().routes.len() - self.passed }
    }

    /// Path of the token `ahead` of the next one.
    pub fn path(&self, ahead: u32) -> u32 {
        let run = self.current();
        Paths::index(run.routes.get(self.passed + ahead), run.role)
    }

    /// Tokens among the next `tokens` whose logits are needed.
    pub fn logits(&self, tokens: u32) -> u32 {
        let run = self.current();
        let end = run.start + self.passed + tokens;
        match run.role {
            Role::Recompute => 0,
            Role::Draft => tokens,
            Role::Verify => tokens,
            // The last prompt token gives the first output token; a last output token that the recorder fed gives none.
            Role::Plain if run.phase == Phase::Prefill => u32::from(end == self.request.prompt_tokens),
            Role::Plain => u32::from(end < self.request.prompt_tokens + self.request.output_tokens),
        }
    }

    /// `tokens` of the current run have passed. Returns the output tokens that came out.
    pub fn complete(&mut self, context: &mut Context, tokens: u32, paths: &Paths, layers: u32) -> u32 {
        let logits = self.logits(tokens);
        let run = &self.request.runs[self.run];
        for route in run.routes.range(self.passed, self.passed + tokens) {
            let path = paths.get(Paths::index(route, run.role));
            match run.role {
                Role::Plain | Role::Draft => context.advance(path, layers),
                Role::Verify | Role::Recompute => context.revisit(path, layers),
            }
        }
        self.passed += tokens;
        let over = self.passed == run.routes.len();
        let put_out = match run.role {
            Role::Plain => logits,
            Role::Draft | Role::Recompute => 0,
            Role::Verify if over => self.settle(context, paths, layers),
            Role::Verify => 0,
        };
        if over {
            self.run += 1;
            self.passed = 0;
        }
        // The pass that ends a round may put out one token more than the request asked for.
        let put_out = put_out.min(self.request.output_tokens - self.put_out);
        self.put_out += put_out;
        put_out
    }

    /// A verify run is over: what was not accepted is taken back, drafts included. Each position that stays gave a token.
    fn settle(&self, context: &mut Context, paths: &Paths, layers: u32) -> u32 {
        let verify = self.current();
        let kept = verify.advance();
        for (run, role) in rejected_runs(&self.request.runs[..=self.run], verify) {
            for (position, route) in (run.start..).zip(&run.routes) {
                if position >= verify.start + kept {
                    context.retract(paths.get(Paths::index(route, role)), layers);
                }
            }
        }
        context.set_tokens(verify.start + kept);
        kept
    }
}

/// The verify run and the draft runs of its round.
fn rejected_runs<'a>(runs: &'a [Run], verify: &'a Run) -> impl Iterator<Item = (&'a Run, Role)> {
    let round =
        runs.iter().rev().skip(1).take_while(move |run| run.role == Role::Draft && run.start >= verify.start);
    std::iter::once(verify).chain(round).map(|run| (run, run.role))
}

/// The longest run of a request whose tokens could pass together.
pub fn longest_unit(request: &Request) -> u32 {
    let together = |run: &&Run| run.phase == Phase::Prefill || Paths::passes_again(run.role);
    request.runs.iter().filter(together).map(|run| run.routes.len()).max().unwrap_or(0)
}

/// The most KV entries that a request ever holds.
pub fn kv_entries_at_most(request: &Request, paths: &Paths, layers: u32) -> u64 {
    let plain = request.runs.iter().all(|run| matches!(run.role, Role::Plain | Role::Recompute));
    if plain {
        let stored = |run: &Run| -> u64 {
            run.routes.iter().map(|route| u64::from(paths.get(Paths::index(route, run.role)).stored)).sum()
        };
        return request.runs.iter().map(stored).sum();
    }
    // With drafts, entries come and go: walk the request once.
    let mut sequence = Sequence::new(request.clone(), 0);
    let mut context = Context::default();
    let mut most = 0;
    while !sequence.is_over() {
        let before = context.stored();
        let run = sequence.current();
        let role = run.role;
        let added: u64 =
            run.routes.iter().map(|route| u64::from(paths.get(Paths::index(route, role)).stored)).sum();
        let all = run.routes.len();
        sequence.complete(&mut context, all, paths, layers);
        most = most.max(before + added);
    }
    most
}
