//! Choices: of tokens, of layers, of experts.

use super::device::Buffer;
use super::ops::{ACTIVATIONS, Ops, Rows};
use super::shaders as s;
use super::stack::Stack;
use crate::error::Result;
use crate::kernel::Kernel;

/// Logits that a workgroup looks through; [`s::Sample`]'s parts.
pub(super) const PART: u32 = 4096;

/// Words of a row of what [`Ops::sample`] chooses.
pub(super) const fn chosen_words(top: u32) -> u32 {
    3 + 2 * top
}

/// Words of what it finds in the parts of a row.
pub(super) const fn found_words(vocabulary: u32, top: u32) -> u64 {
    vocabulary.div_ceil(PART) as u64 * (2 + 2 * top as u64)
}

/// What becomes of logits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logits {
    /// What they are multiplied with.
    pub scale: f64,
    /// Then a logit l becomes `cap tanh(l / cap)`.
    pub cap: Option<f64>,
}

impl Logits {
    /// They stay as they are.
    pub const PLAIN: Logits = Logits { scale: 1.0, cap: None };
}

/// What is sampled: `rows x vocabulary` logits, the likeliest `top` of each row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled<'a> {
    pub rows: u32,
    pub vocabulary: u32,
    pub top: u32,
    /// Where in the lists the given token of each row stands.
    pub targets: u32,
    pub shape: Logits,
    pub logits: Rows<'a>,
    /// Room for what parts find.
    pub found: &'a Buffer,
    pub chosen: &'a Buffer,
}

/// How experts are chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub top: u32,
    pub sigmoid: bool,
    pub normalised: bool,
    pub scale: f64,
}

/// Parameters of a router that sees the row as it is, and nothing else: rows of this width, side by side.
pub(super) fn plain_router(rows: u32, width: u32, hidden: u32, options: u32) -> s::Router {
    let (width4, stride4) = (width / 4, width / 4);
    let (allowed, before, words) = (options, u32::MAX, u32::MAX);
    s::Router { rows, width4, stride4, hidden, options, allowed, decisions: 0, before, words, epsilon: 0.0 }
}

impl Ops<'_> {
    /// The likeliest tokens of each row of logits, in two dispatches.
    pub fn sample(&mut self, what: Sampled) -> Result<()> {
        let first = self.recording.dispatches.len();
        let Sampled { rows, vocabulary, top, targets, shape, logits, found, chosen } = what;
        let parts = vocabulary.div_ceil(PART);
        let lanes = self.subgroup;
        let turns = |count: u32| u64::from(count.div_ceil(lanes)) * u64::from(top + 1) + u64::from(top);
        self.check_turns("sampling", turns(PART.min(vocabulary)).max(turns(parts.saturating_mul(top))))?;
        let parameters = s::Sample {
            rows,
            vocabulary,
            stride: logits.stride,
            top,
            targets,
            first: 0,
            part: PART,
            parts,
            scale: shape.scale as f32,
            cap: shape.cap.unwrap_or(1.0) as f32,
        };
        let constants = [self.one_subgroup()[0], ("CAPPED", f64::from(u8::from(shape.cap.is_some())))];
        let pipeline = self.gpu.pipeline(s::SAMPLE_PARTS, &constants)?;
        self.push(pipeline, &[logits.buffer, found], parameters, [parts, rows, 1]);
        let pipeline = self.gpu.pipeline(s::SAMPLE, &constants)?;
        let lists = self.lists_at.clone();
        self.push(pipeline, &[logits.buffer, found, &lists, chosen], parameters, [rows, 1, 1]);
        self.label(Kernel::Sample { rows, vocabulary, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// The experts of each row. Where in the lists: the layers of the rows. Returns where in the lists the chosen experts will stand,
    /// `top` a row, each the number of its matrix among those of all layers.
    pub fn choose_experts(
        &mut self,
        router: &Stack,
        choice: Choice,
        (layers, rows, groups): (u32, u32, u32),
        normed: Rows,
        scores: Rows,
        shares: &Buffer,
    ) -> Result<u32> {
        let first = self.recording.dispatches.len();
        self.matmul_listed(router, layers, (rows, groups, groups), normed, scores)?;
        self.done.pop();
        let experts = router.rows;
        self.check_turns(
            "a choice of experts",
            u64::from(experts) * u64::from(choice.top + 1) + 2 * u64::from(choice.top),
        )?;
        let chosen = self.list(std::iter::repeat_n(0, (rows * choice.top) as usize));
        let parameters = s::ExpertChoice {
            rows,
            experts,
            stride: scores.stride,
            top: choice.top,
            layers,
            chosen,
            scale: choice.scale as f32,
        };
        let flag = |is: bool| f64::from(u8::from(is));
        let constants = [("SIGMOID", flag(choice.sigmoid)), ("NORMALISED", flag(choice.normalised))];
        let lists = self.lists_at.clone();
        let bindings = [scores.buffer, &lists, shares];
        self.elementwise((s::EXPERT_CHOICE, &constants), &bindings, parameters, [rows, 1])?;
        let (width, weights, activations) = (router.width, router.dtype(), ACTIVATIONS);
        self.label(Kernel::Router { rows, width, hidden: 0, options: experts, weights, activations }, first);
        Ok(chosen)
    }

    /// The sum of what the experts of each row say, by their shares.
    pub fn sum_experts(
        &mut self,
        [rows, width, top]: [u32; 3],
        said: Rows,
        shares: &Buffer,
        to: Rows,
    ) -> Result<()> {
        let first = self.recording.dispatches.len();
        let parameters = s::ExpertSum {
            rows,
            width4: width / 4,
            from_stride4: said.stride / 4,
            to_stride4: to.stride / 4,
            top,
        };
        let bindings = [said.buffer, shares, to.buffer];
        self.elementwise((s::EXPERT_SUM, &[]), &bindings, parameters, [width / 4, rows])?;
        self.label(Kernel::ExpertSum { rows, width, top, activations: ACTIVATIONS }, first);
        Ok(())
    }

    /// A router's decisions. Buffers: stream, first product, the rest of the weights, decisions. `radial`: the rest has vectors and biases, and
    /// vectors of words where it sees them.
    pub fn router(&mut self, parameters: s::Router, radial: bool, buffers: [&Buffer; 4]) -> Result<()> {
        let first = self.recording.dispatches.len();
        // Four hidden values a turn, and every option.
        let (inside, input) =
            (parameters.hidden.div_ceil(self.subgroup), parameters.width4.div_ceil(self.subgroup));
        let each = if parameters.hidden == 0 { input } else { inside };
        let turns = u64::from(parameters.hidden.div_ceil(4)) * u64::from(input + 1)
            + u64::from(parameters.options) * u64::from(each + 1)
            + u64::from(input);
        self.check_turns("a router", turns)?;
        let flag = |is: bool| f64::from(u8::from(is));
        let linear = flag(parameters.hidden == 0);
        let constants = [self.one_subgroup()[0], ("LINEAR", linear), ("RADIAL", flag(radial))];
        let pipeline = self.gpu.pipeline(s::ROUTER, &constants)?;
        let lists = self.lists_at.clone();
        let [stream, weights, rest, decisions] = buffers;
        self.push(pipeline, &[stream, weights, rest, decisions, &lists], parameters, [parameters.rows, 1, 1]);
        let s::Router { rows, width4, hidden, options, .. } = parameters;
        let (width, weights, activations) = (width4 * 4, ACTIVATIONS, ACTIVATIONS);
        self.label(Kernel::Router { rows, width, hidden, options, weights, activations }, first);
        Ok(())
    }

    /// Turns a hop's decisions into lists; part of the router's work, under the router's name. `listed`: entries are named one by one.
    pub fn place(&mut self, parameters: s::PlaceRows, listed: bool, decisions: &Buffer) -> Result<()> {
        let lists = self.lists_at.clone();
        let constants = [("LISTED", f64::from(u8::from(listed)))];
        let shader = (s::PLACE_ROWS, &constants[..]);
        self.elementwise(shader, &[decisions, &lists], parameters, [parameters.rows, 1])?;
        if let Some(router) = self.done.last_mut() {
            router.count += 1;
        }
        Ok(())
    }
}
