//! One request on its way: which run and which token comes next, what a pass puts out, what is taken back.

use super::blocks::{BlockTable, Paging};
use super::draws::Begun;
use super::lockstep::Joined;
use super::prefix::Share;
use crate::batch::{Context, Path, Paths, in_runs};
use crate::trace::{Phase, Request, Role, Run, Taken};
use crate::units::SimTime;
use std::sync::Arc;

/// A request that has begun.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    request: Begun<'a>,
    /// When it came; that of the request, unless a client sent it when it had the answer to an earlier one.
    pub arrival: SimTime,
    /// Start of its first pass.
    pub scheduled: SimTime,
    /// When its first token came out.
    pub first: Option<SimTime>,
    /// When its latest token came out.
    pub latest: SimTime,
    /// Its share of the energy of the passes that it was in, picojoules.
    pub energy_pj: u128,
    /// KV blocks that are kept for it.
    pub(super) promised: u64,
    /// Blocks that it held when it was preempted, and one more for each layer.
    pub(super) lost_blocks: u64,
    /// Blocks of it that are on the host.
    pub(super) on_host: u64,
    /// How often it lost its blocks.
    pub preemptions: u32,
    /// Current run, and how many of its tokens have passed.
    run: usize,
    passed: u32,
    put_out: u32,
    /// Tokens that pass anew after a preemption, and how many of them have.
    replay: Vec<u32>,
    replayed: u32,
    /// The KV blocks that it fills.
    pub(super) table: BlockTable,
    /// Prompt blocks that it has from others or leaves to them.
    pub(super) share: Box<Share>,
    /// Whether the prompt blocks that it computes are kept for others.
    pub(super) open: bool,
    /// Whether it is in the pass that is being formed or run.
    pub(super) in_pass: bool,
    /// Its place in the order in which sequences began.
    pub(super) order: u64,
    /// When it joined a group of sequences that generate in lockstep, where it is in one: what is said here is as of then.
    pub(super) joined: Option<Joined>,
    /// What each token takes, by position, where that is drawn; otherwise its path says it.
    pub(super) taken: Option<Arc<[Taken]>>,
}

impl<'a> Sequence<'a> {
    /// At its first run. `prefix_block`: tokens of a prompt block, where prefixes are shared.
    pub fn new(request: Begun<'a>, arrival: SimTime, prefix_block: Option<u32>) -> Self {
        assert!(!request.runs.is_empty(), "requests without routes are given some before they run");
        let share = Box::new(Share::new(&request, prefix_block));
        Sequence {
            request,
            arrival,
            scheduled: arrival,
            first: None,
            latest: SimTime::ZERO,
            energy_pj: 0,
            promised: 0,
            lost_blocks: 0,
            on_host: 0,
            preemptions: 0,
            run: 0,
            passed: 0,
            put_out: 0,
            replay: Vec::new(),
            replayed: 0,
            table: BlockTable::default(),
            open: share.is_some(),
            share,
            in_pass: false,
            order: 0,
            joined: None,
            taken: None,
        }
    }

    /// The request.
    pub fn request(&self) -> &Begun<'a> {
        &self.request
    }

    /// Output tokens so far.
    pub fn put_out(&self) -> u32 {
        self.put_out
    }

    /// Whether every run has passed.
    pub fn is_over(&self) -> bool {
        self.run == self.request.runs.len()
    }

    #[inline]
    fn current(&self) -> &Run {
        &self.request.runs[self.run]
    }

    /// Whether tokens that have passed before pass anew.
    #[inline]
    pub fn is_replaying(&self) -> bool {
        !self.replay.is_empty()
    }

    /// Whether its tokens pass one at a time: generation and drafts.
    #[inline]
    pub fn is_single(&self) -> bool {
        let run = self.current();
        run.phase == Phase::Decode && matches!(run.role, Role::Plain | Role::Draft) && !self.is_replaying()
    }

    /// Whether it drafts or verifies: what such a round has done is lost at a preemption.
    pub fn in_round(&self) -> bool {
        matches!(self.current().role, Role::Draft | Role::Verify) && !self.is_replaying()
    }

    /// Whether its next token is one of the prompt, for the first time.
    pub fn in_prompt(&self) -> bool {
        self.current().phase == Phase::Prefill && self.current().role == Role::Plain && !self.is_replaying()
    }

    /// Tokens that could pass together next.
    #[inline]
    pub fn unit(&self) -> u32 {
        if self.is_replaying() {
            self.replay.len() as u32 - self.replayed
        } else if self.is_single() {
            1
        } else {
            self.current().routes.len() - self.passed
        }
    }

    /// The path that it takes to the end of its run, where it generates on one, and how many of its tokens put out another.
    pub(super) fn on_one_path(&self) -> Option<(u32, u32)> {
        if self.is_over() || !self.is_single() || self.in_round() {
            return None;
        }
        let run = self.current();
        let at = run.start + self.passed;
        let last = self.request.prompt_tokens + self.request.output_tokens - 1;
        let tokens = (run.routes.len() - self.passed).min(last.saturating_sub(at));
        let path = if self.taken.is_some() { 0 } else { Paths::index(run.routes.only()?, run.role) };
        Some((path, tokens))
    }

    /// So many tokens of its run have passed, and each put out another.
    pub(super) fn take_tokens(&mut self, tokens: u32) {
        self.passed += tokens;
        self.put_out += tokens;
        if self.passed == self.current().routes.len() {
            self.next_run();
        }
    }

    fn next_run(&mut self) {
        self.run += 1;
        self.passed = 0;
    }

    /// Path of the token `ahead` of the next one.
    pub fn path(&self, ahead: u32) -> u32 {
        if self.is_replaying() {
            return self.replay[(self.replayed + ahead) as usize];
        }
        let run = self.current();
        self.index(run.routes.get(self.passed + ahead), run.role)
    }

    /// Number of the path of a route. Where tokens take sets of branches, all paths leave the same, and one stands for them.
    #[inline]
    fn index(&self, route: u32, role: Role) -> u32 {
        if self.taken.is_some() { 0 } else { Paths::index(route, role) }
    }

    /// Adds the paths of the next `tokens` tokens.
    #[inline]
    pub(super) fn extend_paths(&self, tokens: u32, paths: &mut Vec<u32>) {
        if self.is_replaying() {
            let from = self.replayed as usize;
            paths.extend_from_slice(&self.replay[from..from + tokens as usize]);
            return;
        }
        let run = self.current();
        if tokens == 1 {
            paths.push(self.index(run.routes.get(self.passed), run.role));
            return;
        }
        if let Some(route) = run.routes.only().or(self.taken.as_ref().map(|_| 0)) {
            paths.resize(paths.len() + tokens as usize, self.index(route, run.role));
            return;
        }
        let routes = run.routes.range(self.passed, self.passed + tokens);
        paths.extend(routes.map(|route| Paths::index(route, run.role)));
    }

    /// What so many tokens take from position `from` on; nothing where their paths say it.
    #[inline]
    pub(super) fn takes(&self, from: u32, tokens: u32) -> &[Taken] {
        let all = self.taken.as_deref().unwrap_or_default();
        if all.is_empty() { all } else { &all[from as usize..(from + tokens) as usize] }
    }

    /// Blocks that are its own: not those of prompt blocks that it shares.
    pub(super) fn blocks(&self) -> u64 {
        self.table.blocks() + self.share.blocks()
    }

    /// Whether its blocks come from the host.
    pub(super) fn is_back(&self) -> bool {
        self.on_host > 0
    }

    /// Prompt tokens that did not pass because others had left their entries.
    pub fn cached_tokens(&self) -> u32 {
        self.share.cached_tokens
    }

    /// The first `tokens` of the prompt need not pass.
    pub(super) fn skip(&mut self, tokens: u32) {
        let before = if self.run == 0 { self.passed } else { self.request.prompt_tokens };
        self.share.cached_tokens += tokens.saturating_sub(before);
        if (tokens as usize) < self.replay.len() {
            self.replay.drain(..tokens as usize);
        } else {
            self.replay = Vec::new();
            if self.run == 0 {
                self.passed = self.passed.max(tokens);
            }
        }
    }

    /// Whether no prompt block of it has a name for others, and every token passes once.
    pub(super) fn is_plain_and_alone(&self) -> bool {
        self.request.prefix.is_empty() && self.request.runs.iter().all(|run| run.role == Role::Plain)
    }

    /// The tokens that pass anew.
    pub(super) fn replay(&self) -> &[u32] {
        &self.replay
    }

    /// How many of the next `count` tokens come before the end of a prompt block that is to be kept, and whether they reach it.
    #[inline]
    pub(super) fn piece(&self, ahead: u32, count: u32) -> (u32, bool) {
        if !self.open || !self.in_prompt() {
            return (count, false);
        }
        self.share.piece(&self.request, self.passed + ahead, count)
    }

    /// The next tokens take these paths: returns the blocks that come on top. Each prompt block that is to be kept begins
    /// new blocks.
    #[inline]
    pub(super) fn fill(&mut self, indices: &[u32], paths: &Paths, paging: &Paging) -> u64 {
        let (mut blocks, mut done) = (0, 0);
        while done < indices.len() {
            let (count, closes) = self.piece(done as u32, (indices.len() - done) as u32);
            let piece = &indices[done..done + count as usize];
            for (path, times) in in_runs(piece) {
                blocks += self.table.add(&paths.get(path).stored, times, paging);
            }
            if closes {
                self.share.closed.push_back(std::mem::take(&mut self.table).blocks());
            }
            done += count as usize;
        }
        blocks
    }

    /// The prompt block that ends with the next `count` tokens.
    pub(super) fn hash_after(&self, count: u32) -> u64 {
        self.share.hash_before(&self.request, self.passed + count)
    }

    /// Tokens among the next `tokens` whose logits are needed.
    pub fn logits(&self, tokens: u32) -> u32 {
        if self.is_replaying() {
            return 0;
        }
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

    /// The next tokens have passed on `passed` paths. Returns the output tokens that came out, and the blocks that drafts which were
    /// not accepted held.
    pub(super) fn complete(
        &mut self,
        context: &mut Context,
        passed: &[u32],
        paths: &Paths,
        paging: &Paging,
        layers: u32,
    ) -> (u32, u64) {
        for (number, times) in in_runs(passed) {
            let path = paths.get(number);
            if Paths::is_again(number) {
                context.revisit(path, times, layers);
            } else {
                context.advance(path, times, layers);
            }
        }
        let tokens = passed.len() as u32;
        if self.is_replaying() {
            self.replayed += tokens;
            if self.replayed as usize == self.replay.len() {
                (self.replay, self.replayed) = (Vec::new(), 0);
            }
            return (0, 0);
        }
        let logits = self.logits(tokens);
        self.passed += tokens;
        let run = self.current();
        let (over, role) = (self.passed == run.routes.len(), run.role);
        let (put_out, freed) = match role {
            Role::Plain => (logits, 0),
            Role::Verify if over => self.settle(context, paths, paging, layers),
            Role::Draft | Role::Recompute | Role::Verify => (0, 0),
        };
        if over {
            self.next_run();
        }
        // The pass that ends a round may put out one token more than the request asked for.
        let put_out = put_out.min(self.request.output_tokens - self.put_out);
        self.put_out += put_out;
        (put_out, freed)
    }

    /// All prompt tokens pass at once, as they have passed elsewhere; the first token came out there.
    pub(super) fn pass_prompt(&mut self, context: &mut Context, paths: &Paths, paging: &Paging, layers: u32) {
        while !self.is_over() && self.current().phase == Phase::Prefill {
            let mut passed = Vec::new();
            self.extend_paths(self.unit(), &mut passed);
            self.fill(&passed, paths, paging);
            self.complete(context, &passed, paths, paging, layers);
        }
    }

    /// A verify run is over: what was not accepted is taken back, drafts included. Each position that stays gave a token.
    fn settle(&mut self, context: &mut Context, paths: &Paths, paging: &Paging, layers: u32) -> (u32, u64) {
        let Sequence { request, table, run, .. } = self;
        let verify = &request.runs[*run];
        let (start, kept) = (verify.start, verify.advance());
        let mut freed = 0;
        for (run, role) in rejected_runs(&request.runs[..=*run], verify) {
            for (ahead, route) in (0..).zip(&run.routes) {
                if run.start + ahead >= start + kept {
                    let path = paths.get(Paths::index(route, role));
                    context.retract(path, layers);
                    freed += table.remove(&path.stored, 1, paging);
                }
            }
        }
        context.set_tokens(start + kept);
        (kept, freed)
    }

    /// Its entries are thrown away; what has passed will pass anew, many tokens at once. A round of drafts that is not over
    /// begins anew. Returns the blocks that it held.
    pub(super) fn preempt(&mut self) -> u64 {
        self.replay.clear();
        let runs = &self.request.runs;
        if matches!(self.current().role, Role::Draft | Role::Verify) {
            while self.run > 0 && runs[self.run].role != Role::Plain && runs[self.run - 1].role == Role::Draft
            {
                self.run -= 1;
            }
            self.passed = 0;
        }
        let so_far = |(index, run): (usize, &Run)| if index < self.run { run.advance() } else { self.passed };
        for (index, run) in runs.iter().enumerate().take(self.run + 1) {
            match run.role {
                Role::Draft => {}
                Role::Recompute => {
                    let tokens = if index < self.run { run.routes.len() } else { self.passed };
                    let ids = run.routes.range(0, tokens);
                    self.replay.extend(ids.map(|route| Paths::index(route, run.role)));
                }
                Role::Plain | Role::Verify => {
                    let ids = run.routes.range(0, so_far((index, run)));
                    let one = self.taken.is_some();
                    self.replay
                        .extend(ids.map(|route| if one { 0 } else { Paths::index(route, Role::Plain) }));
                }
            }
        }
        self.replayed = 0;
        self.preemptions += 1;
        let lost = self.blocks();
        self.table = BlockTable::default();
        *self.share = Share { cached_tokens: self.share.cached_tokens, ..Share::default() };
        self.open = false;
        lost
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

/// The KV blocks that the prompt of a request fills.
pub fn prompt_blocks(request: &Request, paths: &Paths, paging: &Paging) -> u64 {
    let mut table = BlockTable::default();
    for run in request.runs.iter().take_while(|run| run.phase == Phase::Prefill) {
        for (route, times) in run.routes.counted() {
            table.add(&paths.get(Paths::index(route, run.role)).stored, times, paging);
        }
    }
    table.blocks()
}

/// The most KV blocks that a request ever holds.
pub fn most_blocks(
    request: &Request,
    paths: &Paths,
    paging: &Paging,
    layers: u32,
    prefix_block: Option<u32>,
) -> u64 {
    let path = |route, role| -> &Path { paths.get(Paths::index(route, role)) };
    let plain = request.runs.iter().all(|run| matches!(run.role, Role::Plain | Role::Recompute));
    let mut sequence = Sequence::new(Begun::Listed(request), request.arrival, prefix_block);
    if plain && !sequence.open {
        // Entries only come, and in whatever order they come to the same blocks.
        let mut table = BlockTable::default();
        for run in &request.runs {
            for (route, times) in run.routes.counted() {
                table.add(&path(route, run.role).stored, times, paging);
            }
        }
        return table.blocks();
    }
    // With drafts, entries come and go, and kept prompt blocks begin new blocks: walk the request once.
    let (mut most, mut passed, mut context) = (0, Vec::new(), Context::default());
    while !sequence.is_over() {
        let run = sequence.current();
        passed.clear();
        passed.extend(run.routes.iter().map(|route| Paths::index(route, run.role)));
        sequence.fill(&passed, paths, paging);
        most = most.max(sequence.blocks());
        sequence.complete(&mut context, &passed, paths, paging, layers);
    }
    most
}
