//! Routes that a router decides hop by hop, in any order and with reuse: an MLP looks at each token's state and names its next
//! layer, or the exit.
//!
//! With read-back, the host waits for the decisions of each hop and runs each layer's tokens as groups. Without, all hops are one
//! recording (`hop_lists`): kernels look up each row's layer where the router wrote it, and rows that have left are masked out.

use super::cache::Visit;
use super::device::Buffer;
use super::executor::Executor;
use super::fits::check_hidden;
use super::hop_lists::HopLists;
use super::hop_lists::RouterOnDevice;
use super::ledger::{Ledger, Token};
use super::ops::{ExecutedKernel, Ops, Rows};
use super::ops_choice::plain_router;
use super::pass::Work;
use super::pass_io::PassSum;
use super::pass_io::{Chosen, Pass, PassOutcome};
use super::plan::Group;
use super::recording::Timing;
use super::shaders as s;
use crate::batch::{Policy, Visibility};
use crate::error::{Error, InputError, Result};
use crate::lower::{Call, Cause};
use crate::trace::{Route, RouterDevice, Step};
use crate::weights::{RadialRouter, RouterFile};
use std::collections::BTreeMap;
use std::path::Path;

/// A router's weights and bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterMlp {
    /// Width of its hidden layer, a multiple of 4 and at most 1024; 0: one product.
    pub hidden: u32,
    /// `hidden x width of the stream`; empty where it is one product.
    pub first: Vec<f32>,
    /// `(layers + 1) x hidden`, or x width of the stream; the last option is the exit.
    pub second: Vec<f32>,
    /// Most layers that a token visits.
    pub most_hops: u32,
    /// Who waits for its decisions: the device goes on by itself, the host reads them back.
    pub device: RouterDevice,
}

/// A radial router, and who waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Radial {
    /// Its weights.
    pub router: RadialRouter,
    /// Who waits for its decisions: the device goes on by itself, the host reads them back at every hop.
    pub device: RouterDevice,
}

/// A row of the pass whose routes are decided.
struct Walking {
    token: Token,
    decode: bool,
    alive: bool,
    /// Visits of this pass at each layer.
    left: BTreeMap<u16, u32>,
    route: Vec<Step>,
}

/// What came of a pass.
struct Walked {
    outcome: PassOutcome,
    routes: Vec<Route>,
    /// Whether some decision came of scores that are not numbers.
    odd: bool,
    /// What the cache holds behind the pass, where entries are listed.
    ledger: Option<Ledger>,
}

impl RouterMlp {
    /// Reads one from a safetensors file with f32 tensors `first` (`hidden x width`; absent where it is one product) and `second`.
    ///
    /// # Errors
    /// A file that is none, and tensors of other names or formats.
    pub fn read(path: &Path, most_hops: u32, device: RouterDevice) -> Result<RouterMlp> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let file = RouterFile::open(&bytes, path)?;
        if file.described.is_some() {
            return Err(file.wrong("__metadata__.radial", "no description in the file of a plain MLP"));
        }
        file.only(&["first", "second"])?;
        let (_, second) = file.tensor::<2>("second")?;
        let ([hidden, _], first) = file.find::<2>("first")?.unwrap_or_default();
        Ok(RouterMlp { hidden: file.size(hidden)?, first, second, most_hops, device })
    }

    /// Whether it fits a pool of `layers` over a stream of `width`.
    ///
    /// # Errors
    /// Weights of another size, and bounds that the kernel does not take.
    pub fn check(&self, layers: u32, width: u32) -> Result<()> {
        let options = layers + 1;
        let inside = if self.hidden == 0 { width } else { self.hidden };
        let wrong = |key: &str, found: usize, what: String| -> Result<()> {
            Err(InputError::expected(what).key(key).found(found).into())
        };
        if self.hidden > 1024 || !self.hidden.is_multiple_of(4) {
            return wrong("router.hidden", self.hidden as usize, "0, or a multiple of 4 up to 1024".into());
        }
        if self.most_hops == 0 || self.most_hops > 1024 {
            return wrong("router.most_hops", self.most_hops as usize, "1 to 1024".into());
        }
        if self.first.len() != (self.hidden * width) as usize {
            return wrong("router.first", self.first.len(), format!("{} x {width} values", self.hidden));
        }
        if self.second.len() != (options * inside) as usize {
            return wrong(
                "router.second",
                self.second.len(),
                format!("{options} x {inside} values: each layer, and the exit"),
            );
        }
        if self.first.iter().chain(&self.second).any(|weight| !weight.is_finite()) {
            return wrong("router", 0, "finite weights".into());
        }
        Ok(())
    }
}

impl Executor {
    /// Puts a router beside the model.
    ///
    /// # Errors
    /// A router for other shapes, and what the device cannot decide by itself.
    pub(super) fn place(&self, router: &RouterMlp) -> Result<RouterOnDevice> {
        router.check(self.model.layers, self.model.hidden as u32)?;
        let first = if router.hidden == 0 { &[0.0] } else { &router.first[..] };
        let placed = RouterOnDevice {
            radial: false,
            hidden: router.hidden,
            options: self.model.layers + 1,
            hops: router.most_hops,
            least_hops: 0,
            weighted: false,
            words: false,
            device: router.device,
            first: self.gpu.upload("a router", first)?,
            rest: self.gpu.upload("a router", &router.second)?,
            decisions: self.decisions(router.most_hops)?,
        };
        super::fits::check_router(&self.model, placed.device).map(|()| placed)
    }

    /// Puts a radial router beside the model.
    ///
    /// # Errors
    /// Those of [`Executor::place`].
    pub(super) fn place_radial(&self, radial: &Radial) -> Result<RouterOnDevice> {
        let router = &radial.router;
        router.check(&self.model)?;
        check_hidden(router.hidden)?;
        let rest = [&router.vectors[..], &router.second, &router.biases, &router.words].concat();
        let described = &router.described;
        let placed = RouterOnDevice {
            radial: true,
            hidden: router.hidden,
            options: router.layers + 1,
            hops: described.hops,
            least_hops: described.least_hops,
            weighted: described.weighted,
            words: router.seen_words().is_some(),
            device: radial.device,
            first: self.gpu.upload("a router", &router.first[..])?,
            rest: self.gpu.upload("a router", &rest)?,
            decisions: self.decisions(described.hops)?,
        };
        super::fits::check_router(&self.model, placed.device).map(|()| placed)
    }

    fn decisions(&self, hops: u32) -> Result<Buffer> {
        let bytes = u64::from(self.options.pass_tokens) * u64::from(hops) * 8;
        self.gpu.buffer("a router's decisions", bytes)
    }

    /// Runs a pass whose routes the router decides. Returns them, one a row.
    ///
    /// # Errors
    /// Those of [`Executor::run`], another policy than `hop` or `grouped`, and scores of the router that are not numbers.
    pub(super) fn run_routed(
        &mut self,
        pass: &Pass,
        placed: &RouterOnDevice,
    ) -> Result<(PassOutcome, Vec<Route>)> {
        self.check(pass)?;
        if !matches!(pass.policy, Policy::Hop | Policy::Grouped) {
            let what = "hop or grouped, where a router decides hop by hop";
            return Err(InputError::expected(what).key("policy").found(pass.policy.name()).into());
        }
        let begin = std::time::Instant::now();
        let Walked { mut outcome, routes, odd, ledger } = self.run_routed_once(pass, placed)?;
        if odd || outcome.chosen.iter().any(Chosen::odd) {
            let again = |exec: &mut Executor| exec.run_routed_once(pass, placed).map(drop);
            let error = self.not_finite(pass, &outcome.chosen, again);
            if odd && self.odd.get().is_none() {
                let what = "finite scores, of which the best can be taken";
                return Err(InputError::expected(what).key("router").found("undefined ones").into());
            }
            return Err(error);
        }
        self.ledger = ledger;
        outcome.host_s = begin.elapsed().as_secs_f64();
        Ok((outcome, routes))
    }

    fn run_routed_once(&mut self, pass: &Pass, placed: &RouterOnDevice) -> Result<Walked> {
        match placed.device {
            RouterDevice::Gpu => self.run_on_device(pass, placed),
            RouterDevice::Host => self.run_with_host(pass, placed),
        }
    }

    /// The decisions of each hop come back before its kernels are recorded.
    fn run_with_host(&mut self, pass: &Pass, placed: &RouterOnDevice) -> Result<Walked> {
        let mut walking = walking(pass);
        let rows = walking.len() as u32;
        let mut ledger = self.ledger.clone();
        let (mut sum, mut odd) = (PassSum::default(), false);
        for hop in 0..placed.hops {
            let part = self.record(pass, |work| {
                if hop == 0 {
                    work.embed()?;
                }
                let words = work.ops.words(placed, pass);
                work.ops.route(placed, rows, hop, words, work.exec.stream())
            })?;
            sum.add(part);
            let decisions: Vec<[u32; 2]> =
                self.gpu.read_part(&placed.decisions, (hop * rows) as usize, rows as usize)?;
            let mut groups: BTreeMap<u16, Group> = BTreeMap::new();
            for (row, [choice, probability]) in walking.iter_mut().zip(decisions) {
                odd |= row.alive && f32::from_bits(probability).is_nan();
                row.alive &= choice < self.model.layers;
                if row.alive {
                    let group = groups.entry(choice as u16).or_insert_with(|| Group {
                        wave: hop,
                        layer: choice as u16,
                        listed: ledger.is_some(),
                        ..Group::default()
                    });
                    self.visit(pass, ledger.as_mut(), row, group);
                    if placed.weighted {
                        group.weights.push(f32::from_bits(probability));
                    }
                }
            }
            if groups.is_empty() {
                break;
            }
            let groups: Vec<Group> = groups.into_values().collect();
            let bundles = if pass.policy == Policy::Grouped { groups.len() } else { 1 };
            let part =
                self.record(pass, |work| groups.chunks(bundles).try_for_each(|bundle| work.layer(bundle)))?;
            sum.add(part);
        }
        let part = self.record(pass, |work| work.head().map(drop))?;
        sum.add(part);
        let chosen = self.chosen(pass.targets.len() as u32)?;
        let routes = walking.into_iter().map(|row| Route(row.route)).collect();
        Ok(Walked { outcome: sum.outcome(chosen), routes, odd, ledger })
    }

    /// A row joins a group.
    fn visit(&self, pass: &Pass, ledger: Option<&mut Ledger>, row: &mut Walking, group: &mut Group) {
        let Token { row: at, sequence, .. } = row.token;
        let entry = match ledger {
            None => {
                let own = row.left.entry(group.layer).or_default();
                let seen =
                    pass.contexts[sequence as usize].seen(group.layer, Visibility::SameLayer) as u32 + *own;
                *own += 1;
                seen
            }
            Some(ledger) => {
                let seen = ledger.visit(&self.cache, &self.model, row.token, group.layer);
                let own = *seen.last().expect("a token sees its own keys");
                group.seen.push(seen);
                own
            }
        };
        group.attention.push(Visit { row: at, sequence, decode: row.decode, entry, leaves: true });
        group.feed_forward.push(at);
        row.route.push(Step { routed: true, ..Step::block(group.layer.into()) });
    }

    /// Records some kernels and runs them.
    pub(super) fn record(
        &mut self,
        pass: &Pass,
        work: impl Fn(&mut Work) -> Result<()>,
    ) -> Result<(Vec<ExecutedKernel>, Timing, u32)> {
        let recorded = self.recorded(|exec, ops| work(&mut Work::new(exec, pass, ops)))?;
        let timing = self.submit(&recorded, pass.timed && !self.looking)?;
        Ok((recorded.kernels, timing, recorded.recording.dispatches.len() as u32))
    }

    /// All hops are recorded at once; the device finds each row's layer itself.
    fn run_on_device(&mut self, pass: &Pass, placed: &RouterOnDevice) -> Result<Walked> {
        let rows = pass.tokens.len() as u32;
        // Products look up where a layer's weights are; the cache must lie in one buffer.
        if !self.cache.is_one() {
            let what = "KV entries of all layers in one buffer where the device decides; `host` does without";
            return Err(InputError::expected(what).key("router.device").found("gpu").into());
        }
        let (kernels, timing, dispatches) = self.record(pass, |work| {
            work.embed()?;
            let hop_lists = HopLists::new(work, pass, placed);
            let words = work.ops.words(placed, pass);
            for hop in 0..placed.hops {
                work.ops.route(placed, rows, hop, words, work.exec.stream())?;
                work.hop(placed, &hop_lists, hop)?;
            }
            work.head().map(drop)
        })?;
        let decisions: Vec<[u32; 2]> = self.gpu.read(&placed.decisions, (rows * placed.hops) as usize)?;
        let (mut routes, mut odd) = (Vec::new(), false);
        let mut ledger = self.ledger.clone();
        for walking in walking(pass) {
            let row = walking.token.row as usize;
            let mut route = Vec::new();
            for &[choice, probability] in decisions.iter().skip(row).step_by(rows as usize) {
                odd |= f32::from_bits(probability).is_nan();
                if choice >= self.model.layers {
                    break;
                }
                route.push(Step { routed: true, ..Step::block(choice) });
                if let Some(ledger) = &mut ledger {
                    ledger.note(&self.cache, walking.token, choice as u16);
                }
            }
            routes.push(Route(route));
        }
        let mut sum = PassSum::default();
        sum.add((kernels, timing, dispatches));
        let chosen = self.chosen(pass.targets.len() as u32)?;
        Ok(Walked { outcome: sum.outcome(chosen), routes, odd, ledger })
    }
}

/// The rows of a pass before their first hop.
fn walking(pass: &Pass) -> Vec<Walking> {
    let mut rows = Vec::new();
    for (span, &start) in pass.batch.spans.iter().zip(pass.starts) {
        for position in start..start + span.tokens {
            let token = Token { row: rows.len() as u32, sequence: span.sequence, position };
            let (left, route) = (BTreeMap::new(), Vec::new());
            rows.push(Walking { token, decode: span.decode, alive: true, left, route });
        }
    }
    rows
}

impl Ops<'_> {
    /// Where in the lists the rows' words stand, for a router that sees them.
    fn words(&mut self, placed: &RouterOnDevice, pass: &Pass) -> u32 {
        if placed.words { self.list(pass.tokens.iter().copied()) } else { u32::MAX }
    }

    /// The router's decisions for these rows at a hop.
    fn route(
        &mut self,
        placed: &RouterOnDevice,
        rows: u32,
        hop: u32,
        words: u32,
        stream: Rows,
    ) -> Result<()> {
        (self.cause, self.layer) = (Cause::Router, Call::NO_LAYER);
        let RouterOnDevice { radial, hidden, options, least_hops, .. } = *placed;
        let plain = plain_router(rows, stream.stride, hidden, options);
        let parameters = s::Router {
            allowed: options - u32::from(hop < least_hops),
            decisions: hop * rows,
            before: if hop == 0 { u32::MAX } else { (hop - 1) * rows },
            words,
            epsilon: RadialRouter::EPSILON as f32,
            ..plain
        };
        let buffers = [stream.buffer, &placed.first, &placed.rest, &placed.decisions];
        self.router(parameters, radial, buffers)
    }
}
