//! Runs passes of a model on the device: the same passes that the simulator lowers, with real weights.

use super::angles::Angles;
use super::cache::{Cache, Room};
use super::device::{Buffer, Gpu};
use super::fits;
use super::ledger::{Ledger, Listing};
use super::ops::Look;
use super::ops::{ExecutedKernel, Ops, Rows};
use super::ops_choice::{chosen_words, found_words};
use super::packed::Precision;
use super::pass_io::{Chosen, Pass};
use super::pool::{ExpertStacks, Pool};
use super::recording::{Recording, Timing};
use super::stack::Stack;
use super::states::States;
use crate::batch::{Policy, Visibility};
use crate::error::{InputError, Result};
use crate::lower::{Call, Cause};
use crate::model::{Experts, Input, Model};
use crate::weights::Checkpoint;
use std::rc::Rc;

/// How a model is run.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorOptions {
    /// Form of the weights on the device.
    pub precision: Precision,
    /// Most tokens of a pass.
    pub pass_tokens: u32,
    /// Most rows of a pass that reach the head; absent: all.
    pub logit_rows: Option<u32>,
    /// Largest position, for rotary angles.
    pub positions: u32,
    /// Tokens reported for each row of logits, best first.
    pub top: u32,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        ExecutorOptions {
            precision: Precision::Kept,
            pass_tokens: 512,
            logit_rows: None,
            positions: 4096,
            top: 5,
        }
    }
}

/// A model on a device.
#[derive(Debug)]
pub struct Executor {
    pub(super) gpu: Rc<Gpu>,
    pub(super) model: Model,
    pub(super) options: ExecutorOptions,
    pub(super) pool: Pool,
    pub(super) cache: Cache,
    /// What the cache holds, where entries are listed.
    pub(super) ledger: Option<Ledger>,
    /// States that wait to be projected or to be gone on from.
    pub(super) states: States,
    pub(super) buffers: Buffers,
    pub(super) angles: Angles,
    pub(super) lists: Buffer,
    /// Whether rows are looked at for numbers that are not finite, and where some were found first.
    pub(super) looking: bool,
    pub(super) odd: std::cell::Cell<Option<Look>>,
    /// Bytes of everything else on the device.
    own_bytes: u64,
}

/// Kernels ready to be submitted.
pub(super) struct Recorded {
    pub recording: Recording,
    pub kernels: Vec<ExecutedKernel>,
    /// Where rows are looked at.
    looks: Vec<Look>,
}

/// What lives between kernels.
#[derive(Debug)]
pub(super) struct Buffers {
    pub stream: Buffer,
    pub block: Buffer,
    pub normed: Buffer,
    /// Rows that are normed for the feed-forward branch before attention runs.
    pub ahead: Buffer,
    /// Rows of an embedding that is not as wide as the stream.
    pub projected: Buffer,
    /// Copies of rows, one for each expert that they take, then what the experts make of them.
    pub spread: Buffer,
    pub scores: Buffer,
    pub shares: Buffer,
    pub qkv: Buffer,
    pub attended: Buffer,
    pub branch: Buffer,
    pub wide: Buffer,
    pub narrow: Buffer,
    pub logits: Buffer,
    pub chosen: Buffer,
    /// What the sampler finds in parts of rows.
    pub found: Buffer,
    pub starts: Buffer,
    pub records: Buffer,
}

impl Executor {
    /// Puts a model on a device, which it may share with another model.
    ///
    /// # Errors
    /// Shapes that the kernels cannot run, a device without subgroups, and memory that does not suffice.
    pub fn new(
        gpu: impl Into<Rc<Gpu>>,
        checkpoint: &Checkpoint,
        options: ExecutorOptions,
    ) -> Result<Executor> {
        let gpu = gpu.into();
        let model = checkpoint.model().clone();
        fits::check_model(&model)?;
        gpu.subgroup()?;
        // What was asked for, as far as the logits of a whole pass fit into a buffer.
        let most = gpu.info().max_binding_bytes.min(gpu.info().max_buffer_bytes);
        let fits = most / (model.outputs.max(Widths::of(&model).widest()) * 4).max(1);
        let options = ExecutorOptions { pass_tokens: options.pass_tokens.min(fits as u32).max(1), ..options };
        let pool = Pool::new(&gpu, checkpoint, options.precision)?;
        let buffers = Buffers::new(&gpu, &model, options)?;
        let angles = Angles::new(&gpu, &model, options.positions, &[])?;
        let own_bytes = gpu.allocated_bytes();
        let cache = Cache::new(&gpu, &model, &[])?;
        let lists = gpu.buffer("lists", 1 << 10)?;
        let states = States::new(&gpu)?;
        let formats = (pool.output.dtype(), pool.embedding.dtype());
        let mut executor = Executor {
            gpu,
            model,
            options,
            pool,
            cache,
            ledger: None,
            states,
            buffers,
            angles,
            lists,
            looking: false,
            odd: Default::default(),
            own_bytes,
        };
        // The simulator is told what really lies in memory.
        (executor.model.weights, executor.model.embedding_weights) = formats;
        executor.model.activations = super::ops::ACTIVATIONS;
        executor.model.kv = super::ops::ACTIVATIONS;
        executor.check_sampler()?;
        Ok(executor)
    }

    /// The model, with the formats in which it lies on the device.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Most tokens of a pass.
    pub fn pass_tokens(&self) -> u32 {
        self.options.pass_tokens
    }

    /// The device.
    pub fn gpu(&self) -> &Rc<Gpu> {
        &self.gpu
    }

    /// Makes room for sequences of at most so many entries in each layer. What was in the cache is forgotten.
    ///
    /// # Errors
    /// Entries that do not fit.
    pub fn begin(&mut self, capacities: &[u32]) -> Result<()> {
        self.begin_prompts(capacities, &[])
    }

    /// The same, with the length of each prompt: some scalings of angles depend on it.
    pub(super) fn begin_prompts(&mut self, capacities: &[u32], prompts: &[u32]) -> Result<()> {
        if fits::grows(&self.model) {
            self.angles = Angles::new(&self.gpu, &self.model, self.options.positions, prompts)?;
        }
        self.cache = Cache::new(&self.gpu, &self.model, capacities)?;
        self.ledger = None;
        Ok(())
    }

    /// The same for sequences whose entries are listed.
    ///
    /// # Errors
    /// Entries that do not fit one buffer.
    pub(super) fn begin_listed(&mut self, capacities: &[u32], listing: Listing) -> Result<()> {
        let unified = listing.visibility != Visibility::SameLayer;
        let scratch = if listing.scratch { self.options.pass_tokens } else { 0 };
        self.cache = Cache::with_room(&self.gpu, &self.model, Room { capacities, unified, scratch })?;
        if !self.cache.is_one() {
            let what = "KV entries of all layers in one buffer, where tokens see entries of other layers or entries that come later";
            return Err(InputError::expected(what).key("KV cache").found("several buffers").into());
        }
        self.ledger = Some(Ledger::new(listing, self.model.layers));
        Ok(())
    }

    /// Bytes on the device: weights, activations, KV cache, lists.
    pub fn held_bytes(&self) -> u64 {
        self.own_bytes + self.cache.bytes() + self.lists.bytes() + self.states.bytes()
    }

    /// Bytes of the KV cache.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Bytes of weights that a token of a dense route reads: every matrix once, of experts those that it takes.
    pub fn weight_bytes_of_a_token(&self) -> u64 {
        let bytes = |stack: &Stack| stack.shards.iter().map(|shard| shard.buffer.bytes()).sum::<u64>();
        let of = |stacks: &ExpertStacks, experts: Experts| {
            let parts = bytes(&stacks.parts.up) + bytes(&stacks.parts.down);
            bytes(&stacks.router)
                + (u128::from(parts) * u128::from(experts.per_token) / u128::from(experts.count)) as u64
        };
        let pool = &self.pool;
        let dense = pool.dense.as_ref().map_or(0, |parts| bytes(&parts.up) + bytes(&parts.down));
        let experts =
            pool.experts.as_ref().zip(self.model.experts).map_or(0, |(stacks, shape)| of(stacks, shape));
        let projections: u64 = pool.project_in.iter().chain(&pool.project_out).map(bytes).sum();
        bytes(&pool.qkv) + bytes(&pool.output) + dense + experts + projections + bytes(pool.head())
    }

    /// Records kernels and puts what they look up on the device.
    pub(super) fn recorded(
        &mut self,
        mut work: impl for<'x, 'y> FnMut(&'x Executor, &'y mut Ops<'x>) -> Result<()>,
    ) -> Result<Recorded> {
        // What a first recording asks of the lists may need a larger buffer; the second then has it.
        loop {
            let mut ops = self.ops()?;
            work(self, &mut ops)?;
            let bytes = ops.lists.len() as u64 * 4;
            if bytes <= self.lists.bytes() {
                self.gpu.write(&self.lists, 0, &ops.lists);
                let looks = ops.looks.unwrap_or_default();
                return Ok(Recorded { recording: ops.recording, kernels: ops.done, looks });
            }
            drop(ops);
            self.lists = self.gpu.buffer("lists", bytes.next_power_of_two())?;
        }
    }

    pub(super) fn submit(&self, recorded: &Recorded, timed: bool) -> Result<Timing> {
        if timed {
            return self.gpu.run_timed(&recorded.recording);
        }
        let begin = std::time::Instant::now();
        self.gpu.submit(&recorded.recording)?;
        self.gpu.wait()?;
        if let Some(last) = recorded.looks.last() {
            let lists: Vec<u32> = self.gpu.read(&self.lists, last.note as usize + 1)?;
            let odd = recorded.looks.iter().find(|look| lists[look.note as usize] != 0);
            self.odd.set(self.odd.get().or(odd.copied()));
        }
        Ok(Timing { kernels_ns: Vec::new(), host_s: begin.elapsed().as_secs_f64() })
    }

    pub(super) fn ops(&self) -> Result<Ops<'_>> {
        Ok(Ops {
            gpu: &self.gpu,
            recording: Recording::default(),
            done: Vec::new(),
            lists: Vec::new(),
            lists_at: self.lists.clone(),
            cause: Cause::Embed,
            layer: Call::NO_LAYER,
            subgroup: self.gpu.subgroup()?,
            looks: self.looking.then(Vec::new),
        })
    }

    /// What the head said of `rows` rows.
    pub(super) fn chosen(&self, rows: u32) -> Result<Vec<Chosen>> {
        let each = chosen_words(self.options.top) as usize;
        let words: Vec<u32> = self.gpu.read(&self.buffers.chosen, rows as usize * each)?;
        let row = |words: &[u32]| Chosen {
            log_sum: f32::from_bits(words[0]),
            target: f32::from_bits(words[1]),
            infinite: words[2],
            top: words[3..].chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect(),
        };
        Ok(words.chunks_exact(each).map(row).collect())
    }

    pub(super) fn check(&self, pass: &Pass) -> Result<()> {
        let wrong = |key: &str, found: &dyn std::fmt::Display, what: String| {
            Err(InputError::expected(what).key(key).found(found).into())
        };
        let tokens = pass.batch.tokens();
        assert_eq!(tokens as usize, pass.tokens.len(), "a token for each row");
        if tokens > self.options.pass_tokens {
            return wrong("tokens", &tokens, format!("at most {} in a pass", self.options.pass_tokens));
        }
        let (heads, most) = (pass.targets.len() as u32, self.options.logit_rows.unwrap_or(u32::MAX));
        if heads > most {
            return wrong("logits", &heads, format!("at most {most} rows that reach the head"));
        }
        if let Some(token) =
            pass.tokens.iter().chain(pass.targets).find(|&&id| u64::from(id) >= self.model.outputs)
        {
            return wrong("token", token, format!("an id below {}", self.model.outputs));
        }
        for (span, start) in pass.batch.spans.iter().zip(pass.starts) {
            let last = start + span.tokens;
            let most = self.positions();
            if last > most {
                return wrong("position", &last, format!("sequences of at most {most} tokens"));
            }
        }
        if let Some(oracle) = pass.oracle {
            fits::check_oracle(&self.model, oracle)?;
        }
        if pass.policy == Policy::Aligned && !pass.monotone {
            let what = "hop, grouped or dense_masked, as these routes do not ascend through the pool";
            return wrong("policy", &pass.policy.name(), what.into());
        }
        if pass.oracle.is_some() && pass.policy != Policy::DenseMasked {
            return wrong(
                "policy",
                &pass.policy.name(),
                "dense_masked, as an oracle measures every branch".into(),
            );
        }
        Ok(())
    }

    /// Longest sequence that the model or the options allow.
    pub fn positions(&self) -> u32 {
        match self.model.positions {
            0 => self.options.positions,
            rows => (rows - self.model.position_offset) as u32,
        }
    }

    pub(super) fn stream(&self) -> Rows<'_> {
        Rows { buffer: &self.buffers.stream, stride: self.model.hidden as u32 }
    }
}

/// Values of a row in the buffers whose widths depend on more than the stream's.
struct Widths {
    /// What goes into a branch.
    wide: u64,
    /// What a branch makes of it.
    narrow: u64,
    /// Copies of a row, one for each expert that it takes, or of the embedding where it is not as wide as the stream.
    spread: u64,
    projected: u64,
    /// Scores and shares of experts.
    scores: u64,
    shares: u64,
}

impl Widths {
    fn of(model: &Model) -> Widths {
        let gates = 1 + u64::from(model.gated);
        let taken = model.experts.map_or(0, |experts| experts.per_token);
        let expert = model.experts.map_or(0, |experts| experts.per_token * experts.width);
        let table = if let Input::Tokens { width, .. } = model.input { width } else { 0 };
        Widths {
            wide: (model.ffn.max(expert) * gates).max(model.q_dim() + 2 * model.kv_dim()),
            narrow: model.ffn.max(expert).max(model.q_dim()),
            spread: taken * model.hidden,
            projected: if table == model.hidden { 0 } else { table },
            scores: model.experts.map_or(0, |experts| experts.count),
            shares: taken,
        }
    }

    fn widest(&self) -> u64 {
        self.wide.max(self.narrow).max(self.spread)
    }
}

impl Buffers {
    fn new(gpu: &Gpu, model: &Model, options: ExecutorOptions) -> Result<Buffers> {
        let tokens = u64::from(options.pass_tokens);
        let make = |what: &str, width: u64| gpu.buffer(what, tokens * width * 4);
        // What is never alive together shares memory: inputs and results of attention with those of the feed-forward branch, and
        // what goes into a branch with what comes out of it, unless both branches read the same.
        let widths = Widths::of(model);
        let wide = make("branch inputs", widths.wide)?;
        let narrow = make("what branches make of them", widths.narrow)?;
        let normed = make("normed rows and branch results", model.hidden)?;
        let parallel = model.placement.parallel();
        let branch = if parallel { make("branch results", model.hidden)? } else { normed.clone() };
        let heads = u64::from(options.logit_rows.unwrap_or(options.pass_tokens).min(options.pass_tokens));
        Ok(Buffers {
            stream: make("the residual stream", model.hidden)?,
            block: make("gathered rows", model.hidden)?,
            branch,
            normed,
            ahead: make("rows normed ahead", if parallel { model.hidden } else { 0 })?,
            qkv: wide.clone(),
            wide,
            attended: narrow.clone(),
            narrow,
            projected: make("embeddings of another width", widths.projected)?,
            spread: make("copies of rows for experts", widths.spread)?,
            scores: make("scores of experts", widths.scores)?,
            shares: make("shares of experts", widths.shares)?,
            logits: gpu.buffer("logits", heads * model.outputs * 4)?,
            chosen: gpu.buffer("chosen tokens", heads * u64::from(chosen_words(options.top)) * 4)?,
            found: gpu
                .buffer("parts of logits", heads * found_words(model.outputs as u32, options.top) * 4)?,
            starts: make("block inputs", model.hidden)?,
            records: make("residual records", 2 * u64::from(model.layers) * 8)?,
        })
    }
}
