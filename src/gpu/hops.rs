//! Routes that a router decides hop by hop, in any order and with reuse: an MLP looks at each token's state and names its next
//! layer, or the exit.
//!
//! With read-back, the host waits for the decisions of each hop and runs each layer's tokens as groups. Without, all hops are one
//! recording: kernels look up each row's layer where the router wrote it, and rows that have left are masked out.

use super::device::Buffer;
use super::executor::{Chosen, Executor, Outcome, Pass};
use super::ops::{Done, Ops, Rows};
use super::ops_choice::plain_router;
use super::ops_stream::Added;
use super::pass::Work;
use super::plan::{Group, Visit};
use super::pool::Norms;
use super::recording::Timing;
use super::shaders as s;
use crate::batch::{Policy, Visibility};
use crate::error::{Error, InputError, Result};
use crate::lower::{Call, Cause};
use crate::model::Placement;
use crate::trace::{Route, RouterDevice, Step};
use crate::weights::RouterFile;
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

/// A router on the device.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    router: &'a RouterMlp,
    first: Buffer,
    second: Buffer,
    /// Option and probability of each row at each hop.
    decisions: Buffer,
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
    pub(super) fn place<'a>(&self, router: &'a RouterMlp) -> Result<Placed<'a>> {
        router.check(self.model.layers, self.model.hidden as u32)?;
        super::fits::check_router(&self.model, router)?;
        let decisions = u64::from(self.options.pass_tokens) * u64::from(router.most_hops) * 8;
        Ok(Placed {
            router,
            first: self
                .gpu
                .upload("a router", if router.hidden == 0 { &[0.0] } else { &router.first[..] })?,
            second: self.gpu.upload("a router", &router.second)?,
            decisions: self.gpu.buffer("a router's decisions", decisions)?,
        })
    }

    /// Runs a pass whose routes the router decides. Returns them, one a row.
    pub(super) fn run_routed(&mut self, pass: &Pass, placed: &Placed) -> Result<(Outcome, Vec<Route>)> {
        self.check(pass)?;
        if !matches!(pass.policy, Policy::Hop | Policy::Grouped) {
            let what = "hop or grouped, where a router decides hop by hop";
            return Err(InputError::expected(what).key("policy").found(pass.policy.name()).into());
        }
        let begin = std::time::Instant::now();
        let (mut outcome, routes) = self.run_routed_once(pass, placed)?;
        if outcome.chosen.iter().any(Chosen::odd) {
            let again = |exec: &mut Executor| exec.run_routed_once(pass, placed).map(drop);
            return Err(self.not_finite(pass, &outcome.chosen, again));
        }
        outcome.host_s = begin.elapsed().as_secs_f64();
        Ok((outcome, routes))
    }

    fn run_routed_once(&mut self, pass: &Pass, placed: &Placed) -> Result<(Outcome, Vec<Route>)> {
        match placed.router.device {
            RouterDevice::Gpu => self.run_on_device(pass, placed),
            RouterDevice::Host => self.run_with_host(pass, placed),
        }
    }

    /// The decisions of each hop come back before its kernels are recorded.
    fn run_with_host(&mut self, pass: &Pass, placed: &Placed) -> Result<(Outcome, Vec<Route>)> {
        let rows = pass.tokens.len();
        let mut routes = vec![Vec::new(); rows];
        let mut left = vec![BTreeMap::<u16, u32>::new(); rows];
        let mut sum = Sum::default();
        let mut alive = vec![true; rows];
        for hop in 0..placed.router.most_hops {
            let part = self.record(pass, |work| {
                if hop == 0 {
                    work.embed()?;
                }
                work.ops.route(placed, rows as u32, 0, work.exec.stream())
            })?;
            sum.add(part);
            let decisions: Vec<[u32; 2]> = self.gpu.read(&placed.decisions, rows)?;
            let mut groups: BTreeMap<u16, Group> = BTreeMap::new();
            for (row, &[choice, _]) in decisions.iter().enumerate() {
                alive[row] &= choice < self.model.layers;
                if !alive[row] {
                    continue;
                }
                let (layer, sequence) = (choice as u16, pass.batch.spans[row].sequence);
                let own = left[row].entry(layer).or_default();
                let seen = pass.contexts[sequence as usize].seen(layer, Visibility::SameLayer) as u32;
                let visit =
                    Visit { row: row as u32, sequence, decode: true, entry: seen + *own, leaves: true };
                *own += 1;
                routes[row].push(Step { routed: true, ..Step::block(choice) });
                let group =
                    groups.entry(layer).or_insert_with(|| Group { wave: hop, layer, ..Group::default() });
                group.attention.push(visit);
                group.feed_forward.push(row as u32);
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
        let chosen = self.chosen(rows as u32)?;
        Ok((sum.outcome(chosen), routes.into_iter().map(Route).collect()))
    }

    /// Records some kernels and runs them.
    pub(super) fn record(
        &mut self,
        pass: &Pass,
        work: impl Fn(&mut Work) -> Result<()>,
    ) -> Result<(Vec<Done>, Timing, u32)> {
        let recorded = self.recorded(|exec, ops| work(&mut Work::new(exec, pass, ops)))?;
        let timing = self.submit(&recorded, false)?;
        Ok((recorded.kernels, timing, recorded.recording.dispatches.len() as u32))
    }

    /// All hops are recorded at once; the device finds each row's layer itself.
    fn run_on_device(&mut self, pass: &Pass, placed: &Placed) -> Result<(Outcome, Vec<Route>)> {
        let rows = pass.tokens.len() as u32;
        // Products look up where a layer's weights are; the cache must lie in one buffer.
        if self.cache.shard(self.model.layers as u16 - 1) > 0 {
            let what = "KV entries of all layers in one buffer where the device decides; `host` does without";
            return Err(InputError::expected(what).key("router.device").found("gpu").into());
        }
        let hops = placed.router.most_hops;
        let (kernels, timing, dispatches) = self.record(pass, |work| {
            work.embed()?;
            let hop_lists = HopLists::new(work, pass, hops);
            for hop in 0..hops {
                work.ops.route(placed, rows, hop * rows, work.exec.stream())?;
                work.hop(placed, &hop_lists, hop)?;
            }
            work.head().map(drop)
        })?;
        let decisions: Vec<[u32; 2]> = self.gpu.read(&placed.decisions, (rows * hops) as usize)?;
        let route = |row: usize| {
            let choices = decisions.iter().skip(row).step_by(rows as usize).map(|decision| decision[0]);
            let taken = choices.take_while(|&choice| choice < self.model.layers);
            Route(taken.map(|layer| Step { routed: true, ..Step::block(layer) }).collect())
        };
        let mut sum = Sum::default();
        sum.add((kernels, timing, dispatches));
        let chosen = self.chosen(rows)?;
        Ok((sum.outcome(chosen), (0..rows as usize).map(route).collect()))
    }
}

/// Recordings of a pass, added up.
#[derive(Default)]
pub(super) struct Sum {
    kernels: Vec<Done>,
    host_s: f64,
    dispatches: u32,
}

impl Sum {
    pub fn add(&mut self, (kernels, timing, dispatches): (Vec<Done>, Timing, u32)) {
        let first = self.dispatches;
        self.kernels.extend(kernels.into_iter().map(|done| Done { first: done.first + first, ..done }));
        self.host_s += timing.host_s;
        self.dispatches += dispatches;
    }

    pub fn outcome(self, chosen: Vec<super::executor::Chosen>) -> Outcome {
        let timing = Timing { kernels_ns: Vec::new(), host_s: self.host_s };
        let (kernels, dispatches, host_s) = (self.kernels, self.dispatches, self.host_s);
        Outcome { chosen, records: Vec::new(), kernels, timing, dispatches, host_s }
    }
}

/// Where in the lists a device that decides finds and leaves things.
struct HopLists {
    rows: u32,
    alive: u32,
    bases: u32,
    counts: u32,
    layers: u32,
    entries: u32,
    seen: u32,
    /// Rows of angles.
    turns: u32,
    /// Entries that a row sees at most, at a layer.
    longest: u32,
}

impl HopLists {
    fn new(work: &mut Work, pass: &Pass, hops: u32) -> HopLists {
        let rows = pass.tokens.len() as u32;
        let (cache, layers) = (&work.exec.cache, work.exec.model.layers as u16);
        let sequences: Vec<u32> = pass.batch.spans.iter().map(|span| span.sequence).collect();
        let bases: Vec<u32> = sequences.iter().map(|&sequence| cache.at(0, sequence, 0).1).collect();
        let seen = |layer: u16| {
            let at = move |&sequence: &u32| {
                pass.contexts[sequence as usize].seen(layer, Visibility::SameLayer) as u32
            };
            sequences.iter().map(at)
        };
        let counts: Vec<u32> = (0..layers).flat_map(seen).collect();
        let longest = counts.iter().max().map_or(0, |most| most + hops);
        let exec = work.exec;
        let turn = |&sequence: &u32| {
            let position = pass.contexts[sequence as usize].tokens();
            exec.angles.row(exec.model.kind(0), sequence, position)
        };
        let turns: Vec<u32> = sequences.iter().map(turn).collect();
        let ops = &mut *work.ops;
        let zeros = |ops: &mut Ops, each: u32| ops.list(std::iter::repeat_n(0, (each * rows) as usize));
        HopLists {
            rows,
            alive: ops.list(std::iter::repeat_n(1, rows as usize)),
            bases: ops.list(bases),
            counts: ops.list(counts),
            layers: zeros(ops, 1),
            entries: zeros(ops, 1),
            seen: zeros(ops, 4),
            turns: ops.list(turns),
            longest,
        }
    }
}

impl Ops<'_> {
    /// The router's decisions for these rows, from this place in its decisions on.
    fn route(&mut self, placed: &Placed, rows: u32, decisions: u32, stream: Rows) -> Result<()> {
        (self.cause, self.layer) = (Cause::Router, Call::NO_LAYER);
        let hidden = placed.router.hidden;
        let options = placed.router.second.len() as u32 / if hidden == 0 { stream.stride } else { hidden };
        let parameters = s::Router { decisions, ..plain_router(rows, stream.stride, hidden, options) };
        self.router(parameters, false, [stream.buffer, &placed.first, &placed.second, &placed.decisions])
    }
}

impl Work<'_, '_, '_> {
    /// The kernels of a hop over all rows, each at the layer that the device finds in the lists.
    fn hop(&mut self, placed: &Placed, lists: &HopLists, hop: u32) -> Result<()> {
        let (exec, model, pool) = (self.exec, &self.exec.model, &self.exec.pool);
        let (hidden, q, kv) = (model.hidden as u32, model.q_dim() as u32, model.kv_dim() as u32);
        let rows = lists.rows;
        // A row may be anywhere: as many groups as rows.
        let any = (rows, rows, rows);
        let buffers = &exec.buffers;
        let of = |buffer, stride| Rows { buffer, stride };
        let (stream, normed) = (exec.stream(), of(&buffers.normed, hidden));
        self.ops.place(
            s::PlaceRows {
                rows,
                layers: model.layers,
                slots: exec.cache.slots(),
                decisions: hop * rows,
                alive: lists.alive,
                bases: lists.bases,
                counts: lists.counts,
                layers_at: lists.layers,
                entries_at: lists.entries,
                seen_at: lists.seen,
            },
            &placed.decisions,
        )?;
        self.ops.cause = Cause::Attention;
        let qkv = of(&buffers.qkv, q + 2 * kv);
        let before = model.placement != Placement::AfterBranch;
        let layers = (lists.layers, rows, rows);
        let norm = |work: &mut Self, norms: Option<&Norms>, x, to| match norms {
            Some(norms) => work.ops.norm(work.normed(norms), layers, x, to),
            None => Ok(()),
        };
        norm(self, pool.attention_norms.as_ref(), stream, Some(normed))?;
        let into = if before { normed } else { stream };
        self.ops.matmul_listed(&pool.qkv, lists.layers, any, into, qkv)?;
        let heads = [model.heads as u32, model.kv_heads as u32];
        if let Some(norms) = &pool.head_norms {
            self.ops.head_norm(norms, layers, heads, qkv)?;
        }
        if model.rope.is_some() {
            let shape = [rows, heads[0] + heads[1], model.head_dim as u32];
            self.ops.rope(self.turned(), lists.turns, shape, qkv)?;
        }
        let cache = exec.cache.buffer(0);
        self.ops.kv_write(rows, 2 * kv, qkv, q, &[(cache.clone(), lists.entries)])?;
        let attended = of(&buffers.attended, q);
        let shape = self.shape(rows, true, 0, 0);
        let parts = [(cache, lists.seen, rows)];
        self.ops.attention(shape, self.scored(), lists.longest, &parts, qkv, attended)?;
        let branch = of(&buffers.branch, hidden);
        self.ops.matmul_listed(&pool.output, lists.layers, any, attended, branch)?;
        norm(self, pool.attention_after.as_ref(), branch, None)?;
        let added = Added { scale: model.scales.residual, mask: Some(lists.alive), weights: None };
        self.ops.residual_add([rows, hidden], added, branch, stream)?;
        self.ops.look(rows, hidden, stream)?;
        self.ops.cause = Cause::FeedForward;
        norm(self, pool.ffn_norms.as_ref(), stream, Some(normed))?;
        let parts = pool.dense.as_ref().expect("no layer has experts");
        let (wide, narrow) = (of(&buffers.wide, parts.up.rows), of(&buffers.narrow, parts.down.width));
        self.ops.matmul_listed(&parts.up, lists.layers, any, into, wide)?;
        let kind = self.activation_kind();
        self.ops.activation(kind, model.gated, rows, parts.down.width, wide, narrow)?;
        self.ops.matmul_listed(&parts.down, lists.layers, any, narrow, branch)?;
        norm(self, pool.ffn_after.as_ref(), branch, None)?;
        self.ops.residual_add([rows, hidden], added, branch, stream)?;
        self.ops.look(rows, hidden, stream)
    }
}
