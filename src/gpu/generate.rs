//! Text from a model: prompts in, tokens out, several sequences in flight.

use super::executor::{Chosen, Executor, Outcome, Pass};
use super::fits;
use super::hops::Placed;
use super::routing::{self, Routing, Taken};
use super::skips::PlacedSkips;
use crate::batch::{Batch, Context, Part, Paths, Policy};
use crate::error::{InputError, Result, demand};
use crate::rng::Stream;
use crate::trace::{Header, Order, RouteTable, Trace};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Most tokens to generate.
    pub most: u32,
}

/// How a token is drawn from those that the head finds likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Among how many, at most [`Options::top`](super::Options::top).
    pub top: u32,
    /// What logits are divided by before their exponentials become shares; above 0.
    pub temperature: f64,
    /// Seed; a prompt's draws depend on it and on the prompt's number alone.
    pub seed: u64,
}

impl Sampling {
    /// Draws one of the likeliest tokens (Fan et al., arXiv 1805.04833, section 5.4).
    fn draw(&self, top: &[(u32, f32)], random: &mut Stream) -> u32 {
        let top = &top[..top.len().min(self.top as usize)];
        let highest = f64::from(top[0].1);
        let share = |&(_, logit): &(u32, f32)| libm::exp((f64::from(logit) - highest) / self.temperature);
        let mut left = random.uniform() * top.iter().map(share).sum::<f64>();
        for entry in top {
            left -= share(entry);
            if left < 0.0 {
                return entry.0;
            }
        }
        top[0].0
    }
}

/// How to generate.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who decides the routes.
    pub routing: Routing,
    /// Who runs together.
    pub policy: Policy,
    /// How tokens are drawn; absent: the likeliest is taken.
    pub sampling: Option<Sampling>,
    /// Tokens that end a generation; they are part of it.
    pub end_ids: Vec<u32>,
    /// Whether the logits of every token of a prompt are wanted, not of the last alone.
    pub prompt_logits: bool,
    /// Whether every kernel is timed.
    pub timed: bool,
}

/// A router on the device.
enum Decider<'a> {
    Hops(Placed<'a>),
    Skips(PlacedSkips<'a>),
}

/// What came of a prompt.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Generated tokens.
    pub ids: Vec<u32>,
    /// What the head said behind the prompt: likeliest tokens with logits.
    pub first: Vec<(u32, f32)>,
    /// Mean negative log-likelihood of the prompt's tokens behind the first; with `prompt_logits` alone.
    pub nll: Option<f64>,
}

/// Looks on while a run goes.
pub trait Watch {
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
    fn pass(&mut self, _pass: &Pass, _outcome: &Outcome, _rows: &[(usize, u32, bool)]) -> Result<()> {
        Ok(())
    }
    /// The logits of a pass are on the device, in the order of `rows`: prompt and position of each.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn logits(&mut self, _executor: &Executor, _rows: &[(usize, usize)], _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

/// Looks at nothing.
impl Watch for () {}

/// A run's results.
#[derive(Clone, Debug)]
pub struct Generated {
    /// For each prompt.
    pub answers: Vec<Answer>,
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
    nll: f64,
    answer: Answer,
    random: Stream,
}

impl Going {
    fn in_prompt(&self) -> bool {
        self.fed < self.prompt
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
        settings: &Settings,
        watch: &mut dyn Watch,
    ) -> Result<Generated> {
        let header = settings.routing.header(&self.model.name, self.model.layers)?;
        check(prompts, settings, self.positions())?;
        fits::check_lengths(&self.model, prompts)?;
        if let Routing::Oracle(oracle) = &settings.routing {
            fits::check_oracle(&self.model, oracle)?;
        }
        if let Some(Sampling { top, temperature, .. }) = settings.sampling {
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
        self.begin_prompts(&room, &lengths)?;
        let placed = match &settings.routing {
            Routing::Router(router) => Some(Decider::Hops(self.place(router)?)),
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

fn check(prompts: &[Prompt], settings: &Settings, positions: u32) -> Result<()> {
    for (index, prompt) in prompts.iter().enumerate() {
        let wrong = |found: u64, what: String| -> Result<()> {
            Err(InputError::expected(what)
                .key(format!("prompt {index}"))
                .found(format!("{found} tokens"))
                .into())
        };
        let tokens = prompt.ids.len() as u64;
        if tokens == 0 || prompt.most == 0 {
            return wrong(tokens, "at least one token, and at least one to generate".into());
        }
        if tokens + u64::from(prompt.most) > u64::from(positions) + 1 {
            return wrong(
                tokens + u64::from(prompt.most),
                format!("at most {positions} tokens, generated ones included"),
            );
        }
        if let Routing::Replay(trace) = &settings.routing {
            match trace.requests.get(index) {
                None => {
                    return wrong(
                        tokens,
                        format!("at most the {} requests of the trace", trace.requests.len()),
                    );
                }
                Some(request) if u64::from(request.prompt_tokens) != tokens => {
                    return wrong(
                        tokens,
                        format!(
                            "{} tokens, as request {} of the trace has",
                            request.prompt_tokens, request.id
                        ),
                    );
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// A run between two passes.
struct Run<'a> {
    settings: &'a Settings,
    header: Header,
    routes: RouteTable,
    /// What the device runs: the routes, or the dense one where an oracle looks on.
    paths: Paths,
    /// Routes of each prompt's tokens, where they are known before.
    known: Vec<Vec<u32>>,
    going: Vec<Going>,
    contexts: Vec<Context>,
    batch: Batch,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// Prompt and position of each row, and whether it is of the prompt.
    rows: Vec<(usize, u32, bool)>,
    /// For each row that reaches the head: prompt, position.
    heads: Vec<(usize, usize)>,
    layers: u32,
}

impl<'a> Run<'a> {
    fn new(prompts: &[Prompt], settings: &'a Settings, header: Header, layers: u32) -> Result<Self> {
        let mut routes = RouteTable::default();
        let mut known = Vec::new();
        match &settings.routing {
            Routing::Fixed(route, _) => {
                routes.intern(route.clone());
            }
            Routing::Router(_) | Routing::Skips(_) => {}
            Routing::Oracle(_) => {
                routes.intern(crate::trace::Route::dense(layers));
            }
            Routing::Replay(trace) => {
                for route in trace.routes.iter() {
                    routes.push(route.clone());
                }
                let of = |request: &crate::trace::Request| {
                    request.runs.iter().flat_map(|run| run.routes.iter()).collect()
                };
                known = trace.requests.iter().map(of).collect();
            }
        }
        let paths = Paths::new(&header, &routes, false);
        let seed = settings.sampling.map_or(0, |sampling| sampling.seed);
        let going = prompts.iter().enumerate().map(|(index, prompt)| Going {
            ids: prompt.ids.clone(),
            prompt: prompt.ids.len(),
            most: prompt.most,
            fed: 0,
            done: false,
            routes: Vec::new(),
            nll: 0.0,
            answer: Answer::default(),
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
            going: going.collect(),
            contexts,
            batch: Batch::default(),
            tokens: Vec::new(),
            targets: Vec::new(),
            rows: Vec::new(),
            heads: Vec::new(),
            layers,
        })
    }

    /// Most entries that a sequence can leave in a layer.
    fn room(&self, going: &Going) -> u32 {
        let each = match &self.settings.routing {
            // A router may choose one layer at every hop.
            Routing::Router(router) => router.most_hops,
            Routing::Skips(_) => 1,
            _ => self.paths.most_at_a_layer() as u32,
        };
        // The last token that is generated is never fed.
        (going.prompt as u32 + going.most - 1).saturating_mul(each)
    }

    fn monotone(&self) -> bool {
        self.header.order == Order::Monotone && !self.header.reuse
    }

    fn path(&self, prompt: usize, position: usize) -> u32 {
        self.known.get(prompt).map_or(0, |routes| routes[position])
    }

    /// Puts the next pass together: a token of every generation, then as much of the prompts as fits. False at the end.
    fn form(&mut self, most: u32) -> bool {
        self.batch.clear();
        self.tokens.clear();
        self.targets.clear();
        self.rows.clear();
        self.heads.clear();
        let mut left = most as usize;
        for in_prompt in [false, true] {
            for index in 0..self.going.len() {
                let going = &self.going[index];
                if going.done || going.in_prompt() != in_prompt || left == 0 {
                    continue;
                }
                // A token may need what its predecessors leave at a later hop, where routes come again or go back.
                let whole = if in_prompt && self.monotone() { going.prompt - going.fed } else { 1 };
                let count = whole.min(left);
                left -= count;
                self.add(index, count, in_prompt && self.monotone());
            }
        }
        !self.rows.is_empty()
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
            monotone: self.monotone(),
            contexts: &self.contexts,
            policy: self.settings.policy,
            oracle,
            timed: self.settings.timed,
        }
    }

    /// Takes the routes that a router decided for the rows of the pass.
    fn routed(&mut self, routes: Vec<crate::trace::Route>) {
        let known = self.routes.len();
        self.batch.paths = routes.into_iter().map(|route| self.routes.intern(route)).collect();
        if self.routes.len() > known {
            self.paths = Paths::new(&self.header, &self.routes, false);
        }
    }

    /// Takes the results of a pass.
    fn take(&mut self, outcome: &Outcome, layers: u32, watch: &mut dyn Watch) -> Result<()> {
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
            self.contexts[index].advance(path, 1, self.layers);
            self.going[index].routes.push(route);
            self.going[index].fed += 1;
        }
        let heads = std::mem::take(&mut self.heads);
        for (&(index, position), chosen) in heads.iter().zip(&outcome.chosen) {
            self.head(index, position, chosen, watch)?;
        }
        Ok(())
    }

    fn head(&mut self, index: usize, position: usize, chosen: &Chosen, watch: &mut dyn Watch) -> Result<()> {
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
        };
        let requests: Vec<Taken> = self.going.iter().map(taken).collect();
        let trace = routing::trace(self.header, self.routes, &requests, adapter);
        Generated { answers: self.going.into_iter().map(|going| going.answer).collect(), trace }
    }
}
