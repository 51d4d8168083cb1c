//! How well a model predicts texts, and how far its predictions lie from a teacher's. The teacher's logits stay on the device; a kernel holds the
//! others against them, so that no vocabulary is read back.

use super::device::Buffer;
use super::executor::Executor;
use super::generate::{GenerationSettings, GenerationWatch};
use super::ops_choice::Logits;
use super::pass_io::PassOutcome;
use super::prompts::Prompt;
use super::recording::{Binding, KernelDispatch, Recording};
use super::routing::Routing;
use super::shaders as s;
use crate::batch::{Policy, Visibility};
use crate::error::{Error, InputError, Result};
use crate::model::Model;
use crate::quality::{SequenceSums, Texts};

/// Bytes of a teacher's logits that are kept at once, as far as a buffer holds them.
const MOST_KEPT: u64 = 1 << 28;

/// Sequences that run together, at most.
const MOST_TOGETHER: u64 = 16;

/// What a network and its teacher are worth: a `SequenceSums` for each sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceDivergence {
    /// The teacher's, which is no distance from itself.
    pub teacher: Vec<SequenceSums>,
    /// The network's.
    pub network: Vec<SequenceSums>,
}

impl Executor {
    /// Runs texts through a teacher, every layer for every token, and through this model under its routing. Absent, the teacher is this model.
    /// `done` hears how many sequences are through.
    ///
    /// # Errors
    /// A teacher of another vocabulary, sequences too long for the device, and those of [`Executor::generate`].
    pub fn worth(
        &mut self,
        mut teacher: Option<&mut Executor>,
        texts: &Texts,
        (routing, policy, visibility): (&Routing, Policy, Visibility),
        mut done: impl FnMut(usize),
    ) -> Result<SequenceDivergence> {
        let words = |model: &Model| model.outputs;
        if let Some(other) = teacher.as_deref().filter(|other| words(&other.model) != words(&self.model)) {
            let what =
                format!("a teacher with a vocabulary of {} words, as the model has", words(&self.model));
            return Err(InputError::expected(what).key("teacher").found(words(&other.model)).into());
        }
        let of = |routing: &Routing, policy: Policy, visibility: Visibility| GenerationSettings {
            routing: routing.clone(),
            policy,
            visibility,
            sampling: None,
            end_ids: Vec::new(),
            prompt_logits: true,
            timed: false,
        };
        let (own, first) =
            (of(routing, policy, visibility), teacher.as_deref().map_or(&self.model, |other| &other.model));
        let dense = of(&Routing::dense(first.layers), Policy::Aligned, Visibility::SameLayer);
        let is_teacher = teacher.is_none()
            && matches!(routing, Routing::Fixed(route, _) if *route == crate::trace::Route::dense(self.model.layers));
        let (together, mut kept) = Kept::new(self, first, texts)?;
        let mut holds = Holds::new(self)?;
        let mut worth = SequenceDivergence { teacher: Vec::new(), network: Vec::new() };
        for sequences in texts.sequences.chunks(together) {
            let prompt = |ids: &Vec<u32>| Prompt { ids: ids.clone(), most: 1 };
            let prompts: Vec<Prompt> = sequences.iter().map(prompt).collect();
            let generated = match teacher.as_deref_mut() {
                Some(other) => other.generate(&prompts, &dense, &mut kept)?,
                None => self.generate(&prompts, &dense, &mut kept)?,
            };
            let zeros = vec![0.0; sequences.len()];
            worth.teacher.extend(measured(&generated, &zeros, texts.length)?);
            if !is_teacher {
                holds.kl = zeros;
                let generated =
                    self.generate(&prompts, &own, &mut Held { kept: &kept, holds: &mut holds })?;
                worth.network.extend(measured(&generated, &holds.kl, texts.length)?);
            }
            done(worth.teacher.len());
        }
        if is_teacher {
            worth.network.clone_from(&worth.teacher);
        }
        Ok(worth)
    }
}

/// What came of some sequences.
fn measured(generated: &super::generate::Generated, kl: &[f64], length: usize) -> Result<Vec<SequenceSums>> {
    let count = (length - 1) as f64;
    let trace = &generated.trace;
    let one = |((answer, request), &kl): ((&super::generate::Completion, &crate::trace::Request), &f64)| {
        let routes = request.runs.iter().flat_map(|run| run.routes.iter());
        let depth = routes.map(|route| trace.routes.get(route).depth()).sum::<f64>() / length as f64;
        let nll = answer.nll.unwrap_or(f64::NAN) * count;
        if !(nll.is_finite() && kl.is_finite()) {
            return Err(Error::Gpu("the likelihood of a text came out as no number".into()));
        }
        Ok(SequenceSums { nll, kl, depth, count })
    };
    generated.answers.iter().zip(&trace.requests).zip(kl).map(one).collect()
}

/// What a teacher predicts at each token of some sequences.
#[derive(Debug)]
struct Kept {
    /// Row after row, sequence after sequence.
    logits: Buffer,
    /// Logarithm of the sum of exponentials of each row.
    sums: Vec<f32>,
    length: usize,
    vocabulary: u64,
    shape: Logits,
}

impl Kept {
    /// Room for as many sequences as run together, and that number.
    fn new(executor: &Executor, teacher: &Model, texts: &Texts) -> Result<(usize, Kept)> {
        let (gpu, length, vocabulary) = (&executor.gpu, texts.length, executor.model.outputs);
        let most = MOST_KEPT.min(gpu.info().max_binding_bytes).min(gpu.info().max_buffer_bytes);
        let sequence = length as u64 * vocabulary * 4;
        let together = (most / sequence).min(MOST_TOGETHER).min(texts.sequences.len() as u64);
        if together == 0 {
            let tokens = most / (vocabulary * 4);
            let what = format!("at most {tokens} tokens a sequence, whose logits are kept on the device");
            return Err(InputError::expected(what).key("length").found(length).into());
        }
        let kept = Kept {
            logits: gpu.buffer("a teacher's logits", together * sequence)?,
            sums: vec![0.0; together as usize * length],
            length,
            vocabulary,
            shape: shape(teacher),
        };
        Ok((together as usize, kept))
    }

    fn row(&self, (sequence, position): (usize, usize)) -> usize {
        sequence * self.length + position
    }
}

/// What becomes of a model's logits.
fn shape(model: &Model) -> Logits {
    Logits { scale: model.scales.logits, cap: model.scales.logit_cap }
}

impl GenerationWatch for Kept {
    fn logits(&mut self, executor: &Executor, rows: &[(usize, usize)], outcome: &PassOutcome) -> Result<()> {
        let bytes = self.vocabulary * 4;
        let mut from = 0;
        for run in rows.chunk_by(|a, b| self.row(*a) + 1 == self.row(*b)) {
            let to = self.row(run[0]) as u64;
            let parts = (from * bytes, to * bytes, run.len() as u64 * bytes);
            executor.gpu.copy(&executor.buffers.logits, &self.logits, parts)?;
            from += run.len() as u64;
        }
        for (row, chosen) in rows.iter().zip(&outcome.chosen) {
            let at = self.row(*row);
            self.sums[at] = chosen.log_sum;
        }
        Ok(())
    }
}

/// Room for what the kernel reads and writes, and the divergence of each sequence.
#[derive(Debug)]
struct Holds {
    lists: Buffer,
    divergences: Buffer,
    kl: Vec<f64>,
}

impl Holds {
    fn new(executor: &Executor) -> Result<Holds> {
        let rows = u64::from(executor.pass_tokens());
        Ok(Holds {
            lists: executor.gpu.buffer("rows of a teacher", rows * 12)?,
            divergences: executor.gpu.buffer("divergences", rows * 4)?,
            kl: Vec::new(),
        })
    }
}

/// Holds what a pass predicts against what a teacher did.
struct Held<'a> {
    kept: &'a Kept,
    holds: &'a mut Holds,
}

impl GenerationWatch for Held<'_> {
    fn logits(&mut self, executor: &Executor, rows: &[(usize, usize)], outcome: &PassOutcome) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let (gpu, vocabulary) = (&executor.gpu, self.kept.vocabulary as u32);
        let lanes = gpu.subgroup()?;
        executor.ops()?.check_turns("a divergence", u64::from(vocabulary.div_ceil(lanes)))?;
        let words = |(row, chosen): (&(usize, usize), &super::pass_io::Chosen)| {
            let at = self.kept.row(*row);
            [at as u32, self.kept.sums[at].to_bits(), chosen.log_sum.to_bits()]
        };
        let words: Vec<u32> = rows.iter().zip(&outcome.chosen).flat_map(words).collect();
        gpu.write(&self.holds.lists, 0, &words);
        let (own, teacher) = (shape(&executor.model), self.kept.shape);
        let parameters = s::Divergence {
            rows: rows.len() as u32,
            vocabulary,
            rows_at: 0,
            scale: own.scale as f32,
            cap: own.cap.unwrap_or(1.0) as f32,
            teacher_scale: teacher.scale as f32,
            teacher_cap: teacher.cap.unwrap_or(1.0) as f32,
        };
        let capped = |shape: Logits| f64::from(u8::from(shape.cap.is_some()));
        let constants =
            [("WORKGROUP", f64::from(lanes)), ("CAPPED", capped(own)), ("TEACHER_CAPPED", capped(teacher))];
        let buffers =
            [&executor.buffers.logits, &self.kept.logits, &self.holds.lists, &self.holds.divergences];
        let mut recording = Recording::default();
        recording.push(KernelDispatch {
            pipeline: gpu.pipeline(s::DIVERGENCE, &constants)?,
            bindings: buffers.map(Binding::from).to_vec(),
            parameters: bytemuck::bytes_of(&parameters).to_vec(),
            workgroups: [rows.len() as u32, 1, 1],
        });
        gpu.submit(&recording)?;
        let found: Vec<f32> = gpu.read(&self.holds.divergences, rows.len())?;
        // Behind the last token of a sequence nothing is known to be right.
        let counted = rows.iter().zip(found).filter(|((_, position), _)| position + 1 < self.kept.length);
        counted.for_each(|((sequence, _), kl)| self.holds.kl[*sequence] += f64::from(kl));
        Ok(())
    }
}
