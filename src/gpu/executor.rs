//! Runs passes of a model on the device: the same passes that the simulator lowers, with real weights.

use super::cache::Cache;
use super::device::{Buffer, Gpu};
use super::ops::{Done, Ops, Rows};
use super::pass::Work;
use super::plan::{Plan, View};
use super::pool::{Pool, Precision, check_shapes};
use super::recording::{Recording, Timing};
use crate::batch::{Batch, Context, Paths, Policy};
use crate::error::{InputError, Result};
use crate::lower::{Call, Cause};
use crate::model::Model;
use crate::weights::Checkpoint;
use bytemuck::{Pod, Zeroable};

/// How a model is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
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

impl Default for Options {
    fn default() -> Self {
        Options { precision: Precision::Kept, pass_tokens: 512, logit_rows: None, positions: 4096, top: 5 }
    }
}

/// A branch is left out where its ratio is below a threshold. Only what was computed can be measured, so this saves nothing;
/// it says what a router could save.
#[derive(Clone, Debug, PartialEq)]
pub struct Oracle {
    /// Threshold of the attention branch.
    pub attention: f64,
    /// Threshold of the feed-forward branch.
    pub feed_forward: f64,
    /// What the branch's length is measured against.
    pub ratio: Ratio,
    /// Layers that are never skipped.
    pub always: Vec<u32>,
}

/// A branch's length over another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ratio {
    /// Over the stream with the branch added.
    OverOutput,
    /// Over the stream before it.
    OverInput,
}

/// A pass to run.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Who runs, and on which routes.
    pub batch: &'a Batch,
    /// Token of each row.
    pub tokens: &'a [u32],
    /// For rows that reach the head: the token whose logit is wanted, 0 where none is.
    pub targets: &'a [u32],
    /// The compiled routes.
    pub paths: &'a Paths,
    /// Whether routes ascend through the pool.
    pub monotone: bool,
    /// What each sequence holds before the pass.
    pub contexts: &'a [Context],
    /// Who runs together.
    pub policy: Policy,
    /// Decides on the device what of the routes counts.
    pub oracle: Option<&'a Oracle>,
    /// Whether every kernel is timed.
    pub timed: bool,
}

/// What the head said of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Logarithm of the sum of exponentials of the logits.
    pub log_sum: f32,
    /// Logit of the wanted token.
    pub target: f32,
    /// Likeliest tokens with their logits.
    pub top: Vec<(u32, f32)>,
}

/// What a branch did to a row. Squared lengths; see `residual_oracle.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Record {
    /// Of the branch.
    pub branch: f32,
    /// Of the stream before it.
    pub input: f32,
    /// Of the stream with the branch added.
    pub output: f32,
    /// Of what the block has added so far.
    pub added: f32,
    /// Product of the block's input and the stream so far.
    pub along: f32,
    /// Of the block's input.
    pub start: f32,
    /// 1 where the branch was added, else 0.
    pub taken: f32,
    /// The ratio that decided.
    pub ratio: f32,
}

/// What came of a pass.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For each row that reached the head.
    pub chosen: Vec<Chosen>,
    /// For each row, attention and feed-forward branch of each layer; empty without an oracle.
    pub records: Vec<Record>,
    /// The kernels in order.
    pub kernels: Vec<Done>,
    /// When they ran; without `timed`, the host's clock alone.
    pub timing: Timing,
    /// Device commands of the pass.
    pub dispatches: u32,
    /// Host's clock from the begin of the pass to its result, in seconds.
    pub host_s: f64,
}

/// A model on a device.
#[derive(Debug)]
pub struct Executor {
    pub(super) gpu: Gpu,
    pub(super) model: Model,
    pub(super) options: Options,
    pub(super) pool: Pool,
    pub(super) cache: Cache,
    pub(super) buffers: Buffers,
    lists: Buffer,
    /// Bytes of everything else on the device.
    own_bytes: u64,
}

/// Kernels ready to be submitted.
pub(super) struct Recorded {
    pub recording: Recording,
    pub kernels: Vec<Done>,
}

/// What lives between kernels.
#[derive(Debug)]
pub(super) struct Buffers {
    pub stream: Buffer,
    pub block: Buffer,
    pub normed: Buffer,
    pub qkv: Buffer,
    pub attended: Buffer,
    pub branch: Buffer,
    pub wide: Buffer,
    pub narrow: Buffer,
    pub logits: Buffer,
    pub chosen: Buffer,
    pub angles: Buffer,
    pub starts: Buffer,
    pub records: Buffer,
}

impl Executor {
    /// Puts a model on a device.
    ///
    /// # Errors
    /// Shapes that the kernels cannot run, a device without subgroups, and memory that does not suffice.
    pub fn new(gpu: Gpu, checkpoint: &Checkpoint, options: Options) -> Result<Executor> {
        let model = checkpoint.model().clone();
        check_shapes(&model)?;
        gpu.subgroup()?;
        // What was asked for, as far as the logits of a whole pass fit into a buffer.
        let most = gpu.info().max_binding_bytes.min(gpu.info().max_buffer_bytes);
        let fits = most / (model.outputs * 4).max(model.ffn * 8).max(1);
        let options = Options { pass_tokens: options.pass_tokens.min(fits as u32).max(1), ..options };
        let pool = Pool::new(&gpu, checkpoint, options.precision)?;
        let buffers = Buffers::new(&gpu, &model, options)?;
        let own_bytes = gpu.allocated_bytes();
        let cache = Cache::new(&gpu, &model, &[])?;
        let lists = gpu.buffer("lists", 1 << 10)?;
        let formats = (pool.output.dtype(), pool.embedding.dtype());
        let mut executor = Executor { gpu, model, options, pool, cache, buffers, lists, own_bytes };
        // The simulator is told what really lies in memory.
        (executor.model.weights, executor.model.embedding_weights) = formats;
        executor.model.activations = super::ops::ACTIVATIONS;
        executor.model.kv = super::ops::ACTIVATIONS;
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
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Makes room for sequences of at most so many entries in each layer. What was in the cache is forgotten.
    ///
    /// # Errors
    /// Entries that do not fit.
    pub fn begin(&mut self, capacities: &[u32]) -> Result<()> {
        self.cache = Cache::new(&self.gpu, &self.model, capacities)?;
        Ok(())
    }

    /// Bytes on the device: weights, activations, KV cache, lists.
    pub fn held_bytes(&self) -> u64 {
        self.own_bytes + self.cache.bytes() + self.lists.bytes()
    }

    /// Bytes of the KV cache.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Bytes of weights that a token of a dense route reads: every matrix once.
    pub fn weight_bytes_of_a_token(&self) -> u64 {
        let pool = &self.pool;
        let layers = [&pool.qkv, &pool.output, &pool.up, &pool.down];
        layers
            .iter()
            .copied()
            .chain([pool.head()])
            .flat_map(|stack| &stack.shards)
            .map(|shard| shard.buffer.bytes())
            .sum()
    }

    /// Runs a pass to its end.
    ///
    /// # Errors
    /// Routes that cannot be executed, more tokens than a pass holds, ids outside of the vocabulary, and what the device
    /// refuses.
    pub fn run(&mut self, pass: &Pass) -> Result<Outcome> {
        let begin = std::time::Instant::now();
        self.check(pass)?;
        let plan = Plan::new(&View {
            batch: pass.batch,
            paths: pass.paths,
            contexts: pass.contexts,
            policy: pass.policy,
            monotone: pass.monotone,
            layers: self.model.layers,
        })?;
        let mut rows = 0;
        let recorded = self.recorded(|exec, ops| {
            rows = Work::new(exec, pass, ops).record(&plan)?;
            Ok(())
        })?;
        let Recorded { recording, kernels } = recorded;
        let timing = self.submit(&recording, pass.timed)?;
        let chosen = self.chosen(rows)?;
        let count =
            if pass.oracle.is_some() { pass.tokens.len() * 2 * self.model.layers as usize } else { 0 };
        let records = self.gpu.read(&self.buffers.records, count)?;
        let dispatches = recording.dispatches.len() as u32;
        let host_s = begin.elapsed().as_secs_f64();
        Ok(Outcome { chosen, records, kernels, timing, dispatches, host_s })
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
                return Ok(Recorded { recording: ops.recording, kernels: ops.done });
            }
            drop(ops);
            self.lists = self.gpu.buffer("lists", bytes.next_power_of_two())?;
        }
    }

    pub(super) fn submit(&self, recording: &Recording, timed: bool) -> Result<Timing> {
        if timed {
            return self.gpu.run_timed(recording);
        }
        let begin = std::time::Instant::now();
        self.gpu.submit(recording)?;
        self.gpu.wait()?;
        Ok(Timing { kernels_ns: Vec::new(), host_s: begin.elapsed().as_secs_f64() })
    }

    fn ops(&self) -> Result<Ops<'_>> {
        Ok(Ops {
            gpu: &self.gpu,
            recording: Recording::default(),
            done: Vec::new(),
            lists: Vec::new(),
            lists_at: self.lists.clone(),
            cause: Cause::Embed,
            layer: Call::NO_LAYER,
            subgroup: self.gpu.subgroup()?,
        })
    }

    /// What the head said of `rows` rows.
    pub(super) fn chosen(&self, rows: u32) -> Result<Vec<Chosen>> {
        let each = 2 + 2 * self.options.top as usize;
        let words: Vec<u32> = self.gpu.read(&self.buffers.chosen, rows as usize * each)?;
        let row = |words: &[u32]| Chosen {
            log_sum: f32::from_bits(words[0]),
            target: f32::from_bits(words[1]),
            top: words[2..].chunks_exact(2).map(|pair| (pair[0], f32::from_bits(pair[1]))).collect(),
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
        let end = |context: &Context| context.tokens();
        for span in &pass.batch.spans {
            let last = end(&pass.contexts[span.sequence as usize]) + span.tokens;
            let most = self.positions();
            if last > most {
                return wrong("position", &last, format!("sequences of at most {most} tokens"));
            }
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

impl Buffers {
    fn new(gpu: &Gpu, model: &Model, options: Options) -> Result<Buffers> {
        let tokens = u64::from(options.pass_tokens);
        let make = |what: &str, width: u64| gpu.buffer(what, tokens * width * 4);
        let angles = match &model.rope {
            Some(rope) => super::angles::table(options.positions, model.head_dim as u32, rope.theta),
            None => vec![[1.0, 0.0]],
        };
        // What is never alive together shares memory: inputs and results of attention with those of the feed-forward branch, and
        // what goes into a branch with what comes out of it.
        let wide = (model.ffn * (1 + u64::from(model.gated))).max(model.q_dim() + 2 * model.kv_dim());
        let wide = make("branch inputs", wide)?;
        let narrow = make("what branches make of them", model.ffn.max(model.q_dim()))?;
        let normed = make("normed rows and branch results", model.hidden)?;
        let heads = u64::from(options.logit_rows.unwrap_or(options.pass_tokens).min(options.pass_tokens));
        Ok(Buffers {
            stream: make("the residual stream", model.hidden)?,
            block: make("gathered rows", model.hidden)?,
            branch: normed.clone(),
            normed,
            qkv: wide.clone(),
            wide,
            attended: narrow.clone(),
            narrow,
            logits: gpu.buffer("logits", heads * model.outputs * 4)?,
            chosen: gpu.buffer("chosen tokens", heads * (2 + 2 * u64::from(options.top)) * 4)?,
            angles: gpu.upload("rotary angles", &angles)?,
            starts: make("block inputs", model.hidden)?,
            records: make("residual records", 2 * u64::from(model.layers) * 8)?,
        })
    }
}
