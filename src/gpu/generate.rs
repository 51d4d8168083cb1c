//! Text from a model: prompts in, tokens out, several sequences in flight.

use super::executor::Executor;
use super::fits;
use super::hop_lists::RouterOnDevice;
use super::ledger::Listing;
use super::pass_io::{Chosen, Pass, PassOutcome};
use super::prompts::{Prompt, check_lengths, check_prompts};
use super::routing::{self, Fill, Routing, Taken};
use super::sampling::TokenSampling;
use super::skips::PlacedSkips;
use crate::batch::{Batch, Context, Left, Part, Path, Paths, Policy, Visibility};
use crate::error::{InputError, Result, demand};
use crate::rng::Stream;
use crate::trace::{Header, KvAction, Order, Role, RouteTable, RouterDevice, Trace};
use std::collections::VecDeque;

/// How to generate.
#[derive(Clone, Debug)]
pub struct GenerationSettings {
    /// Who decides the routes.
    pub routing: Routing,
    /// Who runs together.
    pub policy: Policy,
    /// What attention sees in a unified cache.
    pub visibility: Visibility,
    /// How tokens are drawn; absent: the likeliest is taken.
    pub sampling: Option<TokenSampling>,
    /// Tokens that end a generation; they are part of it.
    pub end_ids: Vec<u32>,
    /// Whether the logits of every token of a prompt are wanted, not of the last alone.
    pub prompt_logits: bool,
    /// Whether every kernel is timed.
    pub timed: bool,
}

/// A router on the device.
enum Decider<'a> {
    Hops(RouterOnDevice),
    Skips(PlacedSkips<'a>),
}

/// What came of a prompt.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    /// Generated tokens.
    pub ids: Vec<u32>,
    /// What the head said behind the prompt: likeliest tokens with logits.
    pub first: Vec<(u32, f32)>,
    /// Mean negative log-likelihood of the prompt's tokens behind the first; with `prompt_logits` alone.
    pub nll: Option<f64>,
}

/// Looks on while a run goes.
pub trait GenerationWatch {
    /// A token of a prompt's answer is there.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn token(&mut self, _prompt: usize, _id: u32) -> Result<()> {
        Ok(())
    }
    /// A pass is done. `rows`: prompt and position of each row, and whether it is one of the prompt's own tokens.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn pass(&mut self, _pass: &Pass, _outcome: &PassOutcome, _rows: &[(usize, u32, bool)]) -> Result<()> {
        Ok(())
    }
    /// The logits of a pass are on the device, in the order of `rows`: prompt and position of each.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn logits(
        &mut self,
        _executor: &Executor,
        _rows: &[(usize, usize)],
        _outcome: &PassOutcome,
    ) -> Result<()> {
        Ok(())
    }
}

/// Looks at nothing.
impl GenerationWatch for () {}

/// A run's results.
#[derive(Clone, Debug)]
pub struct Generated {
    /// For each prompt.
    pub answers: Vec<Completion>,
    /// Which routes its tokens took.
    pub trace: Trace,
}

struct Going {
    /// Prompt and generated tokens.
    ids: Vec<u32>,
    prompt: usize,
    most: u32,
    fed: usize,
    done: bool,
    routes: Vec<u32>,
    /// `recompute` runs to come, and those that are over.
    fills: VecDeque<Fill>,
    filled: Vec<Fill>,
    /// Tokens of the next of them that have passed.
    refed: usize,
    nll: f64,
    answer: Completion,
    random: Stream,
}

impl Going {
    fn in_prompt(&self) -> bool {
        self.fed < self.prompt
    }

    /// What must be filled before the next token.
    fn fill(&self) -> Option<&Fill> {
        self.fills.front().filter(|fill| fill.due as usize <= self.fed)
    }
}

impl Executor {
    /// Generates behind all prompts at once.
    ///
    /// # Errors
    /// Empty prompts, prompts that do not fit, routes that cannot be run, and what the device refuses.
    pub fn generate(
        &mut self,
        prompts: &[Prompt],
        settings: &GenerationSettings,
        watch: &mut dyn GenerationWatch,
    ) -> Result<Generated> {
        let header = settings.routing.header(&self.model.name, self.model.layers)?;
        check_prompts(prompts, &settings.routing, self.positions())?;
        check_lengths(&self.model, prompts)?;
        if let Routing::Oracle(oracle) = &settings.routing {
            fits::check_oracle(&self.model, oracle)?;
        }
        if let Routing::Words(table) = &settings.routing {
            table.check(&self.model)?;
        }
        if let Some(visible) = settings.routing.visible() {
            let found = settings.visibility;
            let what = format!("{}, as the network was trained", visible.name());
            demand(found == visible, "visibility", found.name(), &what)?;
        }
        if let Some(TokenSampling { top, temperature, .. }) = settings.sampling {
            let most = self.options.top;
            demand((1..=most).contains(&top), "top-k", top, &format!("1 to {most}"))?;
            demand(
                temperature > 0.0 && temperature.is_finite(),
                "temperature",
                temperature,
                "a number above 0",
            )?;
        }
        let mut run = Run::new(prompts, settings, header, self.model.layers)?;
        let room: Vec<u32> = run.going.iter().map(|going| run.room(going)).collect();
        let lengths: Vec<u32> = prompts.iter().map(|prompt| prompt.ids.len() as u32).collect();
        match run.listing() {
            None => self.begin_prompts(&room, &lengths)?,
            Some(listing) => {
                self.begin_prompts(&[], &lengths)?;
                self.begin_listed(&room, listing)?;
            }
        }
        let placed = match &settings.routing {
            Routing::Router(router) => Some(Decider::Hops(self.place(router)?)),
            Routing::Radial(radial) => Some(Decider::Hops(self.place_radial(radial)?)),
            Routing::Skips(skips) => Some(Decider::Skips(self.place_skips(skips)?)),
            _ => None,
        };
        while run.form(self.pass_tokens()) {
            let outcome = match &placed {
                None => self.run(&run.pass())?,
                Some(placed) => {
                    let (outcome, routes) = match placed {
                        Decider::Hops(placed) => self.run_routed(&run.pass(), placed)?,
                        Decider::Skips(placed) => self.run_skipping(&run.pass(), placed)?,
                    };
                    run.routed(routes);
                    outcome
                }
            };
            watch.logits(self, &run.heads, &outcome)?;
            run.take(&outcome, self.model.layers, watch)?;
        }
        let adapter = self.gpu.info().name.clone();
        Ok(run.finish(&adapter))
    }
}

/// A run between two passes.
struct Run<'a> {
    settings: &'a GenerationSettings,
    header: Header,
    routes: RouteTable,
    /// What the device runs: the routes, or the dense one where an oracle looks on.
    paths: Paths,
    /// Routes of each prompt's tokens, where they are known before.
    known: Vec<Vec<u32>>,
    /// The route of each word, where it says the route.
    by_word: Vec<u32>,
    going: Vec<Going>,
    contexts: Vec<Context>,
    batch: Batch,
    /// Position of the first token of each span.
    starts: Vec<u32>,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// Prompt and position of each row, and whether it is of the prompt.
    rows: Vec<(usize, u32, bool)>,
    /// For each row that reaches the head: prompt, position.
    heads: Vec<(usize, usize)>,
    layers: u32,
}

impl<'a> Run<'a> {
    fn new(
        prompts: &[Prompt],
        settings: &'a GenerationSettings,
        header: Header,
        layers: u32,
    ) -> Result<Self> {
        let mut routes = RouteTable::default();
        let (mut known, mut fills, mut by_word) = (Vec::new(), Vec::new(), Vec::new());
        match &settings.routing {
            Routing::Fixed(route, _) => {
                routes.intern(route.clone());
            }
            Routing::Router(_) | Routing::Radial(_) | Routing::Skips(_) => {}
            Routing::Words(table) => {
                by_word = (0..table.words).map(|word| routes.intern(table.route(word))).collect();
            }
            Routing::Oracle(_) => {
                routes.intern(crate::trace::Route::dense(layers));
            }
            Routing::Replay(trace) => {
                for route in trace.routes.iter() {
                    routes.push(route.clone());
                }
                let of = |request: &crate::trace::Request| {
                    let plain = request.runs.iter().filter(|run| run.role == Role::Plain);
                    plain.flat_map(|run| run.routes.iter()).collect()
                };
                known = trace.requests.iter().map(of).collect();
                fills = trace.requests.iter().map(Fill::of).collect();
            }
        }
        let again = fills.iter().any(|fills: &Vec<Fill>| !fills.is_empty());
        let paths = Paths::new(&header, &routes, again);
        let seed = settings.sampling.map_or(0, |sampling| sampling.seed);
        let going = prompts.iter().enumerate().map(|(index, prompt)| Going {
            ids: prompt.ids.clone(),
            prompt: prompt.ids.len(),
            most: prompt.most,
            fed: 0,
            done: false,
            routes: Vec::new(),
            fills: fills.get(index).cloned().unwrap_or_default().into(),
            filled: Vec::new(),
            refed: 0,
            nll: 0.0,
            answer: Completion::default(),
            random: Stream::new(seed, &format!("prompt {index}")),
        });
        if matches!(settings.routing, Routing::Oracle(_)) {
            // Whatever is taken is added as it is met.
            routes = RouteTable::default();
        }
        let contexts = vec![Context::default(); prompts.len()];
        Ok(Run {
            settings,
            header,
            routes,
            paths,
            known,
            by_word,
            going: going.collect(),
            contexts,
            batch: Batch::default(),
            starts: Vec::new(),
            tokens: Vec::new(),
            targets: Vec::new(),
            rows: Vec::new(),
            heads: Vec::new(),
            layers,
        })
        .and_then(Run::checked)
    }

    /// Whether the cache is of the kind that the visibility is of.
    fn checked(self) -> Result<Self> {
        let wrong = |key: &str, found: String, what: &str| {
            Err(InputError::expected(what).key(key).found(found).into())
        };
        if self.settings.visibility == Visibility::SameLayer {
            return Ok(self);
        }
        let kv = self.header.kv;
        if kv != KvAction::Unified {
            let what = "`same_layer`, or the KV action `unified`";
            return wrong("visibility", format!("{} with {kv}", self.settings.visibility.name()), what);
        }
        let odd = |path: &Path| {
            let attends = |left| matches!(left, Left::Entry | Left::Nothing);
            !path.skips.is_empty()
                || path.stored != path.visible
                || path.hops.iter().any(|hop| !attends(hop.left))
        };
        if self.fills() || self.all_paths().any(odd) {
            let what = "steps that leave their own entry or none, and no `recompute` runs";
            return wrong("visibility", self.settings.visibility.name().into(), what);
        }
        Ok(self)
    }

    /// Whether layers that tokens left open are filled later.
    fn fills(&self) -> bool {
        self.going.iter().any(|going| !going.fills.is_empty())
    }

    /// The paths of all routes that are known before.
    fn all_paths(&self) -> impl Iterator<Item = &Path> {
        let roles = if self.fills() { &[Role::Plain, Role::Recompute][..] } else { &[Role::Plain] };
        let count = match self.settings.routing {
            // The dense path alone, whatever is taken.
            Routing::Oracle(_) => 1,
            _ => self.routes.len() as u32,
        };
        (0..count)
            .flat_map(move |route| roles.iter().map(move |&role| Paths::index(route, role)))
            .map(|index| self.paths.get(index))
    }

    /// How entries are listed, where they are no runs one behind the other.
    fn listing(&self) -> Option<Listing> {
        let visibility = self.settings.visibility;
        let scratch = self
            .all_paths()
            .any(|path| path.hops.iter().any(|hop| hop.modules.attention() && hop.left != Left::Entry));
        let listed = |path: &Path| path.copies || path.stored != path.visible;
        if visibility == Visibility::SameLayer && !scratch && !self.fills() && !self.all_paths().any(listed) {
            return None;
        }
        let again = |going: &Going| {
            let mut again = vec![false; going.prompt + going.most as usize];
            for fill in &going.fills {
                again[fill.start as usize..][..fill.routes.len()].fill(true);
            }
            again
        };
        let again = self.going.iter().map(again).collect();
        let scratch = scratch || self.settings.policy == Policy::DenseMasked;
        Some(Listing { visibility, again, scratch })
    }

    /// Most entries that a sequence can leave in a layer.
    fn room(&self, going: &Going) -> u32 {
        let each = match &self.settings.routing {
            // A router may choose one layer at every hop.
            Routing::Router(router) => router.most_hops,
            Routing::Radial(radial) => radial.router.described.hops,
            Routing::Skips(_) => 1,
            _ if self.settings.visibility == Visibility::SameLayer => self.paths.most_at_a_layer() as u32,
            _ => self.all_paths().map(|path| path.stored.total).max().unwrap_or(0).max(1),
        };
        let again: usize = going.fills.iter().map(|fill| fill.routes.len()).sum();
        // The last token that is generated is never fed.
        (going.prompt as u32 + going.most - 1 + again as u32).saturating_mul(each)
    }

    fn monotone(&self) -> bool {
        self.header.order == Order::Monotone && !self.header.reuse
    }

    /// Whether what a token sees of its predecessors is there when the tokens of a prompt run side by side.
    fn side_by_side(&self) -> bool {
        if matches!(&self.settings.routing, Routing::Radial(radial) if radial.device == RouterDevice::Gpu) {
            return false;
        }
        match self.settings.visibility {
            Visibility::SameLayer => self.monotone(),
            // Hop by hop, if each hop leaves an entry, and all layers of a hop write theirs before any of them reads.
            Visibility::OnePerToken => {
                let leaves = |path: &Path| path.hops.iter().all(|hop| hop.left == Left::Entry);
                self.settings.policy == Policy::Grouped && self.all_paths().all(leaves)
            }
            Visibility::AllEntries => false,
        }
    }

    fn path(&self, prompt: usize, position: usize) -> u32 {
        if !self.by_word.is_empty() {
            return self.by_word[self.going[prompt].ids[position] as usize];
        }
        self.known.get(prompt).map_or(0, |routes| routes[position])
    }

    /// Puts the next pass together: a token of every generation, then as much of the prompts as fits. False at the end.
    fn form(&mut self, most: u32) -> bool {
        self.batch.clear();
        self.tokens.clear();
        self.targets.clear();
        self.rows.clear();
        self.heads.clear();
        self.starts.clear();
        let together = self.side_by_side();
        let mut left = most as usize;
        for late in [false, true] {
            for index in 0..self.going.len() {
                let going = &self.going[index];
                let fill = going.fill().map(|fill| fill.routes.len() - going.refed);
                if (going.done && fill.is_none())
                    || (going.in_prompt() || fill.is_some()) != late
                    || left == 0
                {
                    continue;
                }
                // A token may need what its predecessors leave at a later hop, where routes come again or go back.
                let whole = match fill {
                    _ if !late || !together => 1,
                    Some(tokens) => tokens,
                    None => {
                        let next = going.fills.front().map_or(usize::MAX, |fill| fill.due as usize);
                        going.prompt.min(next) - going.fed
                    }
                };
                let count = whole.min(left);
                left -= count;
                match fill {
                    Some(_) => self.refill(index, count),
                    None => self.add(index, count, late && together),
                }
            }
        }
        !self.rows.is_empty()
    }

    /// The next tokens of a `recompute` run pass once more.
    fn refill(&mut self, index: usize, count: usize) {
        let going = &self.going[index];
        let fill = going.fill().expect("one is due");
        let routes = fill.routes[going.refed..][..count].iter();
        let paths: Vec<u32> = routes.map(|&route| Paths::index(route, Role::Recompute)).collect();
        let from = fill.start as usize + going.refed;
        self.starts.push(from as u32);
        self.tokens.extend(&going.ids[from..from + count]);
        self.rows.extend((from..from + count).map(|at| (index, at as u32, at < going.prompt)));
        self.batch.push(index as u32, paths, false, 0, Part::WHOLE);
    }

    fn add(&mut self, index: usize, count: usize, prefill: bool) {
        let going = &self.going[index];
        let (from, to) = (going.fed, going.fed + count);
        let paths: Vec<u32> = (from..to).map(|position| self.path(index, position)).collect();
        let wanted = |position: usize| self.settings.prompt_logits || position + 1 >= going.prompt;
        let logits = (from..to).filter(|&position| wanted(position));
        for position in logits.clone() {
            // Behind the last token of the prompt, nothing is wanted.
            let next = if position + 1 < going.prompt { going.ids[position + 1] } else { 0 };
            self.targets.push(next);
            self.heads.push((index, position));
        }
        self.starts.push(from as u32);
        self.tokens.extend(&going.ids[from..to]);
        self.rows.extend((from..to).map(|position| (index, position as u32, position < going.prompt)));
        let logits = logits.count() as u32;
        self.batch.push(index as u32, paths, !prefill, logits, Part::WHOLE);
    }

    fn pass(&self) -> Pass<'_> {
        let oracle = if let Routing::Oracle(oracle) = &self.settings.routing { Some(oracle) } else { None };
        Pass {
            batch: &self.batch,
            tokens: &self.tokens,
            targets: &self.targets,
            paths: &self.paths,
            // What lies at other layers keeps to no order of the pool. A generated token does.
            monotone: self.monotone()
                && (self.settings.visibility == Visibility::SameLayer
                    || self.settings.policy == Policy::Aligned),
            contexts: &self.contexts,
            starts: &self.starts,
            visibility: self.settings.visibility,
            policy: self.settings.policy,
            oracle,
            timed: self.settings.timed,
        }
    }

    /// Takes the routes that a router decided for the rows of the pass.
    fn routed(&mut self, routes: Vec<crate::trace::Route>) {
        let known = self.routes.len();
        self.batch.paths = routes.into_iter().map(|route| self.routes.intern(route)).collect();
        for number in known as u32..self.routes.len() as u32 {
            self.paths.number(self.routes.get(number));
        }
    }

    /// Takes the results of a pass.
    fn take(&mut self, outcome: &PassOutcome, layers: u32, watch: &mut dyn GenerationWatch) -> Result<()> {
        watch.pass(&self.pass(), outcome, &self.rows)?;
        let each = 2 * layers as usize;
        let mut records = outcome.records.chunks_exact(each.max(1));
        for row in 0..self.rows.len() {
            let (index, ..) = self.rows[row];
            let route = match records.next() {
                Some(records) => self.routes.intern(routing::taken(records)),
                None => self.batch.paths[row],
            };
            let path = self.paths.get(self.batch.paths[row]);
            let going = &mut self.going[index];
            if Paths::is_again(self.batch.paths[row]) {
                self.contexts[index].revisit(path, 1, self.layers);
                going.refed += 1;
                if going.fill().is_some_and(|fill| fill.routes.len() == going.refed) {
                    going.refed = 0;
                    going.filled.extend(going.fills.pop_front());
                }
                continue;
            }
            self.contexts[index].advance(path, 1, self.layers);
            going.routes.push(route);
            going.fed += 1;
        }
        let heads = std::mem::take(&mut self.heads);
        for (&(index, position), chosen) in heads.iter().zip(&outcome.chosen) {
            self.head(index, position, chosen, watch)?;
        }
        Ok(())
    }

    fn head(
        &mut self,
        index: usize,
        position: usize,
        chosen: &Chosen,
        watch: &mut dyn GenerationWatch,
    ) -> Result<()> {
        let routes = self.known.get(index).map(Vec::len);
        let going = &mut self.going[index];
        if position + 1 < going.prompt {
            going.nll += f64::from(chosen.log_sum) - f64::from(chosen.target);
            return Ok(());
        }
        if position + 1 == going.prompt {
            going.answer.first = chosen.top.clone();
            let counted = going.prompt - 1;
            going.answer.nll =
                (self.settings.prompt_logits && counted > 0).then(|| going.nll / counted as f64);
        }
        let (id, _) = chosen.top[0];
        let id = match &self.settings.sampling {
            None => id,
            Some(sampling) => sampling.draw(&chosen.top, &mut going.random),
        };
        going.ids.push(id);
        going.answer.ids.push(id);
        watch.token(index, id)?;
        let full = going.answer.ids.len() as u32 >= going.most;
        let routed_out = routes.is_some_and(|count| going.fed >= count);
        going.done = full || routed_out || self.settings.end_ids.contains(&id);
        Ok(())
    }

    fn finish(self, adapter: &str) -> Generated {
        let taken = |going: &Going| Taken {
            prompt_tokens: going.prompt as u32,
            output_tokens: going.answer.ids.len() as u32,
            routes: going.routes.clone(),
            fills: going.filled.clone(),
        };
        let requests: Vec<Taken> = self.going.iter().map(taken).collect();
        let trace = routing::trace(self.header, self.routes, &requests, adapter);
        Generated { answers: self.going.into_iter().map(|going| going.answer).collect(), trace }
    }
}
