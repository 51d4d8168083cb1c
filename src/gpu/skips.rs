//! Routes that a skip router decides before each layer: which of its two branches a token takes.
//!
//! With read-back, the host waits for the decisions of a layer and runs those tokens that take a branch. Without, the whole pass is one
//! recording: all tokens run every branch, and kernels add what comes of it where the router wrote that the token takes it.

use super::cache::Visit;
use super::device::Buffer;
use super::executor::Executor;
use super::fits::check_hidden;
use super::ops::Ops;
use super::pass::Work;
use super::pass_io::{Pass, PassOutcome, PassSum};
use super::plan::{Group, Masks};
use super::shaders as s;
use crate::batch::{Policy, Visibility};
use crate::error::{InputError, Result};
use crate::lower::Cause;
use crate::model::NormPlacement;
use crate::trace::{Modules, Route, RouterDevice, Step};
use crate::weights::{SkipKv, SkipRouter, takes};

/// A skip router, and who waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Skips {
    /// Its weights.
    pub router: SkipRouter,
    /// Who waits for its decisions: the device goes on by itself, the host reads them back before each layer.
    pub device: RouterDevice,
}

/// A skip router on the device.
#[derive(Debug)]
pub(super) struct PlacedSkips<'a> {
    skips: &'a Skips,
    first: Buffer,
    /// Vectors, second products and biases of all layers.
    rest: Buffer,
    /// Two scores of each row before each layer.
    scores: Buffer,
}

/// Which branches a row takes.
type Taken = [bool; 2];

impl Skips {
    /// Whether a layer's branches are decided at all.
    fn decides(&self, layer: u32) -> bool {
        self.router.described.candidates[layer as usize] != [false; 2]
    }

    /// What scores mean.
    fn taken(&self, layer: u32, scores: [f32; 2]) -> Taken {
        let candidates = self.router.described.candidates[layer as usize];
        [0, 1].map(|branch| takes(candidates[branch], scores[branch]))
    }
}

impl Executor {
    /// Puts a skip router beside the model.
    ///
    /// # Errors
    /// A router for other shapes, and what the device cannot decide by itself.
    pub(super) fn place_skips<'a>(&self, skips: &'a Skips) -> Result<PlacedSkips<'a>> {
        let (router, model) = (&skips.router, &self.model);
        router.check(model.layers, model.hidden)?;
        check_hidden(router.hidden)?;
        if skips.device == RouterDevice::Gpu {
            let no = |found: &str, what: &str| {
                Err(InputError::expected(what).key("router.device").found(found).into())
            };
            if router.described.kv == SkipKv::None {
                return no("gpu", "host, where tokens leave no entry at what they skip");
            }
            if model.placement == NormPlacement::AfterSum {
                return no("gpu", "host, where norms stand behind the sums");
            }
        }
        let rest: Vec<f32> =
            router.vectors.iter().chain(&router.second).chain(&router.biases).copied().collect();
        let scores = u64::from(self.pass_tokens()) * u64::from(router.layers) * 8;
        Ok(PlacedSkips {
            skips,
            first: self.gpu.upload("a router", &router.first[..])?,
            rest: self.gpu.upload("a router", &rest)?,
            scores: self.gpu.buffer("a router's scores", scores)?,
        })
    }

    /// Runs a pass whose branches the router decides. Returns the routes, one a row.
    ///
    /// # Errors
    /// Those of [`Executor::run`], and another policy than the one in which decisions are taken.
    pub(super) fn run_skipping(
        &mut self,
        pass: &Pass,
        placed: &PlacedSkips,
    ) -> Result<(PassOutcome, Vec<Route>)> {
        self.check(pass)?;
        let policy = match placed.skips.device {
            RouterDevice::Gpu => Policy::DenseMasked,
            RouterDevice::Host => Policy::Aligned,
        };
        if pass.policy != policy {
            let what = format!("{}, where this router decides", policy.name());
            return Err(InputError::expected(what).key("policy").found(pass.policy.name()).into());
        }
        let begin = std::time::Instant::now();
        let (mut outcome, taken) = self.run_skipping_once(pass, placed)?;
        if outcome.chosen.iter().any(super::pass_io::Chosen::odd) {
            let again = |exec: &mut Executor| exec.run_skipping_once(pass, placed).map(drop);
            return Err(self.not_finite(pass, &outcome.chosen, again));
        }
        outcome.host_s = begin.elapsed().as_secs_f64();
        let route = |row: usize| {
            let step = |(layer, taken): (u32, &Vec<Taken>)| {
                let modules = match taken[row] {
                    [true, true] => Modules::Block,
                    [true, false] => Modules::Attention,
                    [false, true] => Modules::FeedForward,
                    [false, false] => return None,
                };
                Some(Step { modules, ..Step::block(layer) })
            };
            Route((0..).zip(&taken).filter_map(step).collect())
        };
        Ok((outcome, (0..pass.tokens.len()).map(route).collect()))
    }

    /// What each row takes, layer by layer.
    fn run_skipping_once(
        &mut self,
        pass: &Pass,
        placed: &PlacedSkips,
    ) -> Result<(PassOutcome, Vec<Vec<Taken>>)> {
        match placed.skips.device {
            RouterDevice::Gpu => self.skip_on_device(pass, placed),
            RouterDevice::Host => self.skip_with_host(pass, placed),
        }
    }

    fn skip_on_device(
        &mut self,
        pass: &Pass,
        placed: &PlacedSkips,
    ) -> Result<(PassOutcome, Vec<Vec<Taken>>)> {
        let (rows, layers) = (pass.tokens.len() as u32, self.model.layers);
        let everything = vec![[true; 2]; rows as usize];
        let (kernels, timing, dispatches) = self.record(pass, |work| {
            work.embed()?;
            for layer in 0..layers {
                let masks = work.skip_router(placed, layer)?.map(|at| Masks::Decided([at, at + rows]));
                let visits = visits(pass, layer, &everything, SkipKv::ProjectOnly);
                work.layer(&[Group { masks, ..visits }])?;
            }
            work.head().map(drop)
        })?;
        let scores: Vec<[f32; 2]> = self.gpu.read(&placed.scores, (rows * layers) as usize)?;
        let taken = |layer: u32| {
            let scores = &scores[(layer * rows) as usize..][..rows as usize];
            if placed.skips.decides(layer) {
                scores.iter().map(|&scores| placed.skips.taken(layer, scores)).collect()
            } else {
                everything.clone()
            }
        };
        let taken = (0..layers).map(taken).collect();
        let mut sum = PassSum::default();
        sum.add((kernels, timing, dispatches));
        let chosen = self.chosen(pass.targets.len() as u32)?;
        Ok((sum.outcome(chosen), taken))
    }

    fn skip_with_host(
        &mut self,
        pass: &Pass,
        placed: &PlacedSkips,
    ) -> Result<(PassOutcome, Vec<Vec<Taken>>)> {
        let (rows, layers) = (pass.tokens.len() as u32, self.model.layers);
        let (mut sum, mut taken) = (PassSum::default(), Vec::new());
        // Layers whose tokens are known, and that have not run.
        let mut known: Vec<Group> = Vec::new();
        let mut embedded = false;
        for layer in 0..layers {
            let mut here = vec![[true; 2]; rows as usize];
            if placed.skips.decides(layer) {
                let part = self.record(pass, |work| {
                    if !embedded {
                        work.embed()?;
                    }
                    known.iter().try_for_each(|group| work.layer(std::slice::from_ref(group)))?;
                    work.skip_router(placed, layer).map(drop)
                })?;
                sum.add(part);
                known.clear();
                embedded = true;
                let scores: Vec<[f32; 2]> = self.gpu.read(&placed.scores, rows as usize)?;
                here = scores.into_iter().map(|scores| placed.skips.taken(layer, scores)).collect();
            }
            known.push(visits(pass, layer, &here, placed.skips.router.described.kv));
            taken.push(here);
        }
        let part = self.record(pass, |work| {
            if !embedded {
                work.embed()?;
            }
            known.iter().try_for_each(|group| work.layer(std::slice::from_ref(group)))?;
            work.head().map(drop)
        })?;
        sum.add(part);
        let chosen = self.chosen(pass.targets.len() as u32)?;
        Ok((sum.outcome(chosen), taken))
    }
}

/// The tokens of a pass at a layer, by the branches that they take.
fn visits(pass: &Pass, layer: u32, taken: &[Taken], kv: SkipKv) -> Group {
    let mut group = Group { wave: layer, layer: layer as u16, ..Group::default() };
    let mut row = 0;
    for span in &pass.batch.spans {
        let context = &pass.contexts[span.sequence as usize];
        let mut entry = context.seen(layer as u16, Visibility::SameLayer) as u32;
        for _ in 0..span.tokens {
            let [attention, feed_forward] = taken[row as usize];
            let visit = Visit { row, sequence: span.sequence, decode: span.decode, entry, leaves: true };
            if attention {
                group.attention.push(visit);
            } else if kv == SkipKv::ProjectOnly {
                group.project.push(visit);
            }
            if feed_forward {
                group.feed_forward.push(row);
            }
            entry += u32::from(attention || kv == SkipKv::ProjectOnly);
            row += 1;
        }
    }
    group
}

impl Work<'_, '_, '_> {
    /// The router before a layer; where in the lists its masks will stand. Nothing where nothing is decided.
    fn skip_router(&mut self, placed: &PlacedSkips, layer: u32) -> Result<Option<u32>> {
        if !placed.skips.decides(layer) {
            return Ok(None);
        }
        let rows = self.pass.tokens.len() as u32;
        let stream = self.exec.stream();
        let router = &placed.skips.router;
        let (layers, hidden) = (router.layers, router.hidden);
        let candidates = router.described.candidates[layer as usize];
        let masks = self.ops.list(std::iter::repeat_n(1, 2 * rows as usize));
        (self.ops.cause, self.ops.layer) = (Cause::Router, layer as u16);
        let parameters = s::SkipRouter {
            rows,
            width4: stream.stride / 4,
            stride4: stream.stride / 4,
            hidden,
            vectors: layer * hidden,
            second: layers * hidden + layer * 2 * hidden,
            biases: layers * hidden * 3 + layer * 2,
            // The host reads them before the next layer's are written.
            scores: if placed.skips.device == RouterDevice::Host { 0 } else { layer * rows },
            masks,
            candidates: u32::from(candidates[0]) | u32::from(candidates[1]) << 1,
            epsilon: SkipRouter::EPSILON as f32,
        };
        self.ops.skip_router(parameters, [stream.buffer, &placed.first, &placed.rest, &placed.scores])?;
        Ok(Some(masks))
    }
}

impl Ops<'_> {
    /// A skip router's decisions. Buffers: stream, first product, the rest of the weights, scores.
    pub fn skip_router(&mut self, parameters: s::SkipRouter, buffers: [&Buffer; 4]) -> Result<()> {
        let first = self.recording.dispatches.len();
        let input = u64::from(parameters.width4.div_ceil(self.subgroup));
        let inside = u64::from(parameters.hidden.div_ceil(self.subgroup));
        self.check_turns(
            "a router",
            u64::from(parameters.hidden.div_ceil(4)) * (input + 1) + input + inside,
        )?;
        let pipeline = self.gpu.pipeline(s::SKIP_ROUTER, &self.one_subgroup())?;
        let lists = self.lists_at.clone();
        let [stream, weights, rest, scores] = buffers;
        self.push(pipeline, &[stream, weights, rest, scores, &lists], parameters, [parameters.rows, 1, 1]);
        let s::SkipRouter { rows, width4, hidden, .. } = parameters;
        let (width, options) = (width4 * 4, 2);
        let (weights, activations) = (super::ops::ACTIVATIONS, super::ops::ACTIVATIONS);
        self.label(
            crate::kernel::Kernel::Router { rows, width, hidden, options, weights, activations },
            first,
        );
        Ok(())
    }
}
