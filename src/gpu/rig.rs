//! Single kernels, run as the executor runs them: each is held against its oracle, then timed. Weights and KV entries come from
//! memory, not from a cache, as between the layers of a model: every run of a kernel takes other ones.

use super::choice::Tiling;
use super::device::{Buffer, Gpu};
use super::ops::{Normed, Ops, Rows, Segment};
use super::ops_attention::{Scored, Turned};
use super::ops_choice::{Logits, Sampled, found_words, plain_router};
use super::ops_stream::Added;
use super::packed::{Form, pack, to_f16};
use super::recording::{Recording, Timing};
use super::stack::{Shard, Stack};
use crate::calib::Probe;
use crate::error::{Error, InputError, Result};
use crate::kernel::{Attention, Kernel};
use crate::lower::{Call, Cause};
use crate::rng::Stream;
use crate::units::Dtype;
use crate::weights::{Tensor, TensorFormat};
use std::time::Instant;

/// Bytes over which weights and KV entries are spread: more than twice the last cache of a server's processor or GPU (32 to 50 MB).
const COLD_BYTES: u64 = 72 << 20;
/// Values of an input or output at most.
const MOST_VALUES: usize = 6 << 20;
/// Candidates that the sampler reports, as [`super::ExecutorOptions`] has it.
pub(super) const TOP: u32 = 5;
/// Words of what the sampler finds in parts of rows, at most.
const MOST_FOUND: u64 = 1 << 20;
/// Times of a kernel at least, and at most.
const LEAST_RUNS: usize = 2;
const MOST_RUNS: usize = 200;

/// A device with buffers for single kernels.
pub struct Rig {
    pub(super) gpu: Gpu,
    random: Stream,
    /// Random values in (-1, 1).
    pub(super) values: Vec<f32>,
    pub(super) input: Buffer,
    pub(super) other: Buffer,
    pub(super) output: Buffer,
    words: Buffer,
    bias: Buffer,
    lists: Buffer,
    /// What the sampler finds in parts of rows.
    found: Buffer,
    /// What `words` holds: the same matrix again and again.
    loaded: Option<(Dtype, u32, u32)>,
    /// The matrix, or what the cache repeats.
    pub(super) matrix: Vec<f64>,
    layers: u32,
}

/// A kernel's weights, and which layer of them is next.
pub(super) struct Turn {
    pub stack: Option<Stack>,
    pub layers: u32,
    pub layer: u32,
}

impl Rig {
    /// On this device.
    ///
    /// # Errors
    /// A device without subgroups, clocks or memory.
    pub fn new(gpu: Gpu, seed: u64) -> Result<Rig> {
        gpu.subgroup()?;
        if !gpu.timestamps() {
            return Err(Error::NoGpu(format!(
                "{} cannot say when a kernel began and ended",
                gpu.info().name
            )));
        }
        let mut random = Stream::new(seed, "rig");
        let values: Vec<f32> = (0..MOST_VALUES).map(|_| (2.0 * random.uniform() - 1.0) as f32).collect();
        let buffer = |what, bytes| gpu.buffer(what, bytes);
        let bytes = MOST_VALUES as u64 * 4;
        let cold = COLD_BYTES.min(gpu.info().max_binding_bytes).min(gpu.info().max_buffer_bytes);
        Ok(Rig {
            input: gpu.upload("inputs", &values)?,
            other: gpu.upload("inputs", &values)?,
            output: buffer("outputs", bytes)?,
            words: buffer("weights", cold)?,
            bias: buffer("biases", 16)?,
            lists: buffer("lists", 1 << 20)?,
            found: buffer("parts of logits", MOST_FOUND * 4)?,
            gpu,
            random,
            values,
            loaded: None,
            matrix: Vec::new(),
            layers: 1,
        })
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Runs a kernel and holds it against its oracle; then times it until `seconds` are over, and twice at least.
    ///
    /// # Errors
    /// A shape that is too large for the rig, a result that is wrong, a device that fails.
    pub fn measure(&mut self, probe: &Probe, seconds: f64) -> Result<Vec<f64>> {
        self.fits(probe)?;
        self.load(&probe.kernel)?;
        self.gpu.write(&self.input, 0, &self.values[..used(probe).min(MOST_VALUES)]);
        let first = self.record(probe, 0, 1)?;
        self.gpu.submit(&first)?;
        self.check(probe)?;
        let begin = Instant::now();
        let mut us = Vec::new();
        let mut turn = 1;
        while us.len() < LEAST_RUNS || begin.elapsed().as_secs_f64() < seconds && us.len() < MOST_RUNS {
            let recording = self.record(probe, turn, LEAST_RUNS as u32 + 1)?;
            let each = recording.dispatches.len() / (LEAST_RUNS + 1);
            // The first of a recording finds caches that others have used.
            us.extend(each_run(&self.gpu.run_timed(&recording)?, each).skip(1));
            turn += LEAST_RUNS as u32 + 1;
        }
        Ok(us)
    }

    /// Rows and columns of the tiles in which a product runs, rows and lanes of those of attention; nothing for other kernels.
    ///
    /// # Errors
    /// A device without subgroups.
    pub fn tile(&self, kernel: &Kernel) -> Result<Option<(u32, u32)>> {
        let (rows, groups, weights) = match *kernel {
            Kernel::MatMul { rows, weights, .. } => (rows, 1, weights),
            Kernel::GroupedMatMul { rows, groups, weights, .. } => (rows, groups, weights),
            Kernel::Attention(shape) => {
                return Ok(Some((if shape.decode { 1 } else { 8 }, self.gpu.subgroup()?)));
            }
            _ => return Ok(None),
        };
        let tiling = Tiling::best(&segments(rows, groups, 0, groups), form(weights)?.0);
        Ok(Some((tiling.tile().unwrap_or(1), 4 * self.gpu.subgroup()?)))
    }

    /// Seconds of the host's clock from the first kernel's recording to the end of the wait, for chains of `kernels` small ones.
    ///
    /// # Errors
    /// A device that fails.
    pub fn chain(&mut self, kernels: u32) -> Result<f64> {
        let activations = Dtype::F32;
        let kernel = Kernel::ResidualAdd { rows: 1, width: 64, activations };
        let begin = Instant::now();
        let recording = self.record(&Probe { kernel, sequences: 1 }, 0, kernels)?;
        self.gpu.submit(&recording)?;
        self.gpu.wait()?;
        let _: Vec<u32> = self.gpu.read(&self.output, 64)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// The kernel `runs` times, each with the next weights.
    pub(super) fn record(&self, probe: &Probe, from: u32, runs: u32) -> Result<Recording> {
        let mut ops = Ops {
            gpu: &self.gpu,
            recording: Recording::default(),
            done: Vec::new(),
            lists: Vec::new(),
            lists_at: self.lists.clone(),
            cause: Cause::Attention,
            layer: Call::NO_LAYER,
            subgroup: self.gpu.subgroup()?,
            looks: None,
        };
        let mut turn = Turn { stack: self.stack(&probe.kernel), layers: self.layers, layer: 0 };
        for run in from..from + runs {
            turn.layer = run % self.layers;
            self.call(&mut ops, probe, &turn)?;
            let ran = ops.done.last().map(|done| done.kernel);
            assert_eq!(ran, Some(probe.kernel), "a call runs as what it was planned");
        }
        if ops.lists.len() as u64 * 4 > self.lists.bytes() {
            return Err(InputError::expected("a smaller call").key("lists").found(ops.lists.len()).into());
        }
        self.gpu.write(&self.lists, 0, &ops.lists);
        Ok(ops.recording)
    }

    fn fits(&self, probe: &Probe) -> Result<()> {
        if used(probe) > MOST_VALUES {
            let what = format!("a call of at most {MOST_VALUES} values");
            return Err(InputError::expected(what).key(probe.kernel.name()).found(used(probe)).into());
        }
        if let Kernel::Sample { rows, vocabulary, .. } = probe.kernel {
            let found = u64::from(rows) * found_words(vocabulary, TOP);
            if found > MOST_FOUND {
                let what = format!("a call whose parts are at most {MOST_FOUND} words");
                return Err(InputError::expected(what).key("sample").found(found).into());
            }
        }
        Ok(())
    }

    /// Fills `words` with random weights or entries, the same matrix for each layer.
    fn load(&mut self, kernel: &Kernel) -> Result<()> {
        let Some((dtype, rows, width)) = matrix(kernel) else { return Ok(()) };
        if self.loaded == Some((dtype, rows, width)) {
            return Ok(());
        }
        let (form, format) = form(dtype)?;
        let tensor = tensor(&mut self.random, format, rows, width);
        let words = pack(&tensor, form);
        let layers = self.words.bytes() / (words.len() as u64 * 4);
        if layers == 0 {
            let what = format!("weights of at most {} bytes", self.words.bytes());
            return Err(InputError::expected(what).key(kernel.name()).found(words.len() * 4).into());
        }
        self.layers = layers.min(1 << 12) as u32;
        for layer in 0..u64::from(self.layers) {
            self.gpu.write(&self.words, layer * words.len() as u64 * 4, &words);
        }
        self.gpu.flush()?;
        self.matrix = tensor.to_f32().into_iter().map(f64::from).collect();
        self.loaded = Some((dtype, rows, width));
        Ok(())
    }

    fn stack(&self, kernel: &Kernel) -> Option<Stack> {
        let (dtype, rows, width) = matrix(kernel)?;
        let (form, _) = form(dtype).ok()?;
        let shard = Shard { buffer: self.words.clone(), first: 0, count: self.layers };
        let (row_words, bias) = (form.row_words(width), self.bias.clone());
        Some(Stack { form, rows, width, row_words, shards: vec![shard], bias, has_bias: false })
    }

    fn call(&self, ops: &mut Ops, probe: &Probe, turn: &Turn) -> Result<()> {
        let (input, output) = (&self.input, &self.output);
        let rows_of = |buffer, stride: u32| Rows { buffer, stride };
        match probe.kernel {
            Kernel::Embed { rows, width, .. } => {
                let stack = turn.stack.as_ref().expect("a table");
                // Another layer of the table is a part of a larger vocabulary: other rows each time.
                let tokens = ops.list(
                    (0..rows).map(|row| (turn.layer * stack.rows + 7 * row) % (turn.layers * stack.rows)),
                );
                let shards =
                    vec![Shard { buffer: self.words.clone(), first: 0, count: turn.layers * stack.rows }];
                let table = Stack { shards, bias: self.bias.clone(), ..*stack };
                ops.embed(&table, tokens, rows, 1.0, rows_of(output, width))
            }
            Kernel::Norm { rows, width, groups, layer_norm, .. } => {
                let layers = ops.layers(&segments(rows, groups, 0, groups));
                let norm = Normed { weights: &self.other, layer: layer_norm, epsilon: 1e-5, width };
                let (from, to) = (rows_of(input, width), rows_of(output, width));
                ops.norm(norm, (layers, rows, groups), from, Some(to))
            }
            Kernel::MatMul { rows, inner, columns, .. } => {
                let stack = turn.stack.as_ref().expect("weights");
                let segment = [Segment { layer: turn.layer, rows }];
                ops.matmul(
                    stack,
                    0..columns,
                    &segment,
                    rows_of(input, inner),
                    rows_of(output, columns.next_multiple_of(4)),
                )
            }
            Kernel::GroupedMatMul { rows, groups, inner, columns, .. } => {
                let stack = turn.stack.as_ref().expect("weights");
                let segments = segments(rows, groups, turn.layer * groups, turn.layers);
                ops.matmul(
                    stack,
                    0..columns,
                    &segments,
                    rows_of(input, inner),
                    rows_of(output, columns.next_multiple_of(4)),
                )
            }
            Kernel::Rope { rows, heads, head_dim, .. } => {
                let positions = ops.list((0..rows).map(|row| row % 64));
                let turned = Turned { angles: &self.other, half: head_dim / 2, interleaved: false };
                ops.rope(turned, positions, [rows, heads, head_dim], rows_of(input, heads * head_dim))
            }
            Kernel::KvWrite { rows, width, .. } => {
                let entries = ops.list((0..rows).map(|row| row * 3));
                ops.kv_write(rows, width, rows_of(input, width), 0, &[(output.clone(), entries)])
            }
            Kernel::Attention(shape) => self.attention(ops, shape, probe.sequences, turn),
            Kernel::Activation { rows, width, gated, .. } => {
                let from = rows_of(input, width * (1 + u32::from(gated)));
                ops.activation(0, gated, rows, width, from, rows_of(output, width))
            }
            Kernel::ResidualAdd { rows, width, .. } => {
                let (branch, stream) = (rows_of(&self.other, width), rows_of(input, width));
                ops.residual_add([rows, width], Added::all(1.0), branch, stream)
            }
            Kernel::Gather { rows, width, .. } => {
                let indices: Vec<u32> = (0..rows).map(|row| 2 * row + 1).collect();
                ops.gather(&indices, width, rows_of(input, width), rows_of(output, width))
            }
            Kernel::Scatter { rows, width, .. } => {
                let indices: Vec<u32> = (0..rows).map(|row| 2 * row + 1).collect();
                ops.scatter(&indices, width, rows_of(input, width), rows_of(output, width))
            }
            Kernel::Sample { rows, vocabulary, .. } => {
                let targets = ops.list((0..rows).map(|_| 0));
                let (logits, shape) = (rows_of(input, vocabulary.next_multiple_of(4)), Logits::PLAIN);
                let (found, chosen) = (&self.found, output);
                ops.sample(Sampled { rows, vocabulary, top: TOP, targets, shape, logits, found, chosen })
            }
            Kernel::ExpertSum { rows, width, top, .. } => {
                let said = rows_of(input, width);
                ops.sum_experts([rows, width, top], said, &self.other, rows_of(output, width))
            }
            Kernel::LatentAttention(_) | Kernel::Quantise { .. } | Kernel::ExpertLayer(_) => {
                let what = "a kernel with a shader: latent attention, quantised inputs and fused expert layers are simulated only";
                Err(InputError::expected(what).key("kernel").found(probe.kernel.name()).into())
            }
            Kernel::Router { rows, width, hidden, options, .. } => {
                let parameters = plain_router(rows, width, hidden, options);
                ops.router(parameters, false, [input, &self.other, &self.other, output])
            }
        }
    }

    /// Sequences of equal length, their entries side by side.
    fn attention(&self, ops: &mut Ops, shape: Attention, sequences: u32, turn: &Turn) -> Result<()> {
        let (q_dim, layout) =
            (u32::from(shape.heads) * u32::from(shape.head_dim), Contexts::of(&shape, sequences));
        // Each call sees other entries: the buffer holds so many places for all sequences.
        let entry_bytes = u64::from(shape.kv_heads) * u64::from(shape.head_dim) * 8;
        let places = (self.words.bytes() / entry_bytes / u64::from(layout.entries * sequences)).max(1) as u32;
        let base = turn.layer % places * layout.entries * sequences;
        let mut numbers = Vec::new();
        let mut count = 0;
        for sequence in 0..sequences {
            let first = base + sequence * layout.entries;
            let rows: Vec<(u32, u32)> =
                (0..layout.rows).map(|row| (sequence * layout.rows + row, layout.before + row + 1)).collect();
            if shape.decode {
                numbers.extend(rows.iter().flat_map(|&(row, seen)| [row, first, seen, 0]));
                count += rows.len() as u32;
            } else {
                for eight in rows.chunks(8) {
                    let full = |index: usize| eight[index.min(eight.len() - 1)];
                    numbers.extend((0..8).map(|index| full(index).0));
                    numbers.push(first);
                    numbers.extend((0..8).map(|index| full(index).1));
                    numbers.extend([0; 8]);
                    count += 1;
                }
            }
        }
        let at = ops.list(numbers);
        let rows = |buffer| Rows { buffer, stride: q_dim };
        let scored = Scored { scale: 1.0 / f64::from(shape.head_dim).sqrt(), cap: None, listed: false };
        let parts = [(self.words.clone(), at, count)];
        ops.attention(shape, scored, layout.entries, &parts, rows(&self.input), rows(&self.output))
    }
}

/// Contexts of the sequences of a call, all alike.
pub(super) struct Contexts {
    /// Rows of a sequence.
    pub rows: u32,
    /// Entries before its first row.
    pub before: u32,
    /// Entries in all.
    pub entries: u32,
}

impl Contexts {
    pub fn of(shape: &Attention, sequences: u32) -> Contexts {
        let rows = shape.rows / sequences.max(1);
        let entries = (shape.entries / u64::from(sequences.max(1))) as u32;
        Contexts { rows, before: entries - rows, entries }
    }
}

/// Rows in groups as even as can be, each at a layer of its own.
pub(super) fn segments(rows: u32, groups: u32, first: u32, layers: u32) -> Vec<Segment> {
    let (each, more) = (rows / groups, rows % groups);
    let segment =
        |group: u32| Segment { layer: (first + group) % layers, rows: each + u32::from(group < more) };
    (0..groups).map(segment).collect()
}

/// Microseconds of each run of a kernel of `each` dispatches.
fn each_run(timing: &Timing, each: usize) -> impl Iterator<Item = f64> {
    timing.kernels_ns.chunks_exact(each).map(move |run| (run[each - 1].1 - run[0].0) as f64 / 1e3)
}

/// Values that a call reads or writes in one buffer, at most.
fn used(probe: &Probe) -> usize {
    let size = |rows: u32, width: u32| rows as usize * width as usize;
    match probe.kernel {
        Kernel::Embed { rows, width, .. }
        | Kernel::Norm { rows, width, .. }
        | Kernel::ResidualAdd { rows, width, .. } => size(rows, width),
        Kernel::ExpertSum { rows, width, top, .. } => size(rows * top, width),
        Kernel::KvWrite { rows, width, .. } => 3 * size(rows, width),
        Kernel::Gather { rows, width, .. } | Kernel::Scatter { rows, width, .. } => size(2 * rows + 2, width),
        Kernel::MatMul { rows, inner, columns, .. } | Kernel::GroupedMatMul { rows, inner, columns, .. } => {
            size(rows, inner.max(columns + 4))
        }
        Kernel::Rope { rows, heads, head_dim, .. } => size(rows, heads * head_dim),
        Kernel::Attention(shape) => size(shape.rows, u32::from(shape.heads) * u32::from(shape.head_dim)),
        Kernel::LatentAttention(_) | Kernel::Quantise { .. } | Kernel::ExpertLayer(_) => 0,
        Kernel::Activation { rows, width, gated, .. } => size(rows, width * (1 + u32::from(gated))),
        Kernel::Sample { rows, vocabulary, .. } => size(rows, vocabulary + 4),
        Kernel::Router { rows, width, hidden, options, .. } => {
            size(rows, width).max(size(hidden, width)).max(size(options, width.max(hidden)))
        }
    }
}

/// Format, rows and width of a layer's weights; of the cache, one row of some entries.
fn matrix(kernel: &Kernel) -> Option<(Dtype, u32, u32)> {
    match *kernel {
        Kernel::Embed { width, table, .. } => Some((table, 1 << 10, width)),
        Kernel::MatMul { inner, columns, weights, .. }
        | Kernel::GroupedMatMul { inner, columns, weights, .. } => Some((weights, columns, inner)),
        Kernel::Attention(shape) => {
            Some((Dtype::F32, 1 << 6, 2 * u32::from(shape.kv_heads) * u32::from(shape.head_dim)))
        }
        _ => None,
    }
}

fn form(dtype: Dtype) -> Result<(Form, TensorFormat)> {
    match dtype {
        Dtype::F32 => Ok((Form::F32, TensorFormat::F32)),
        Dtype::F16 => Ok((Form::F16, TensorFormat::F16)),
        Dtype::Int8 => Ok((Form::Q8, TensorFormat::Q8_0)),
        Dtype::Int4 => Ok((Form::Q4, TensorFormat::Q4_1)),
        other => Err(InputError::expected("f32, f16, int8 or int4").key("weights").found(other).into()),
    }
}

/// A random tensor whose values are of the order of one.
fn tensor(random: &mut Stream, format: TensorFormat, rows: u32, width: u32) -> Tensor {
    let (block_bytes, values) = format.block();
    let blocks = rows as usize * width as usize / values;
    let mut bytes = Vec::with_capacity(blocks * block_bytes);
    for _ in 0..blocks {
        let x = (2.0 * random.uniform() - 1.0) as f32;
        match format {
            TensorFormat::F32 => bytes.extend(x.to_le_bytes()),
            TensorFormat::F16 => bytes.extend(to_f16(x).to_le_bytes()),
            _ => {
                bytes.extend(to_f16(x / 64.0).to_le_bytes());
                if format == TensorFormat::Q4_1 {
                    bytes.extend(to_f16(-x / 8.0).to_le_bytes());
                }
                while bytes.len() % block_bytes != 0 {
                    bytes.push(random.below(256) as u8);
                }
            }
        }
    }
    Tensor { rows: rows as usize, width: width as usize, format, bytes }
}
