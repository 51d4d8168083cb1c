//! Bounds of a model. Within them no count below overflows 64 bits, so the sums in `size` need no checks.
//!
//! A layer has at most 4 x 2^40 attention and 3 x 2^42 feed-forward values, or 3 x 2^44 in experts; biases and norms included
//! below 2^46. 65,535 layers of them stay below 2^62 values; tables and patches stay below 2^46. At four bytes a value that
//! would be 2^64, so layers and experts are also bounded together: see `check_parts`.

use super::{Input, Model, PRODUCTS};
use crate::error::{InputError, Result};
use crate::units::Dtype;

/// Most layers.
pub(crate) const LAYERS: u64 = 65_535;
/// Widest residual stream, and widest query of all heads together.
pub(crate) const WIDTH: u64 = 1 << 20;
/// Most heads, and widest head: kernels count both in 16 bits.
pub(crate) const HEADS: u64 = u16::MAX as u64;
/// Widest feed-forward part.
pub(crate) const FFN: u64 = 1 << 22;
/// Most experts of a layer. Published models have up to 1,024.
pub(super) const EXPERTS: u64 = 1 << 14;

/// Widest the experts of a layer are together; published ones stay below 2^22.
const EXPERT_WIDTHS: u64 = 1 << 24;
/// Most rows of a table: vocabulary, classes, positions, patches.
pub(crate) const ROWS: u64 = 1 << 24;
/// Most parameters beside those that write text.
const BESIDE: u64 = 1 << 46;
/// Most values of one image patch.
pub(crate) const PATCH_VALUES: u64 = 1 << 24;

/// A number outside its range, named by the field.
fn range(key: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, value, format!("a whole number from {least} to {most}")))
}

/// A mistake in one field.
fn wrong(key: &str, found: impl std::fmt::Display, expected: impl Into<String>) -> crate::error::Error {
    InputError::expected(expected).key(key).found(found).into()
}

impl Model {
    /// Inputs of products are quantised to the format of the weights, from activations of 16 or 32 bits.
    fn check_products(&self) -> Result<()> {
        let Some(products) = self.products else { return Ok(()) };
        if !PRODUCTS.contains(&products) {
            return Err(wrong("products", products, "fp8, fp8_block or fp4"));
        }
        if self.weights != products {
            return Err(wrong("products", products, format!("the format of the weights, {}", self.weights)));
        }
        if !matches!(self.activations, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            return Err(wrong(
                "activations",
                self.activations,
                "f32, f16 or bf16 where products are quantised",
            ));
        }
        Ok(())
    }

    /// Whether the shapes can belong to a network; names the first field that cannot.
    ///
    /// [`Model::from_config`] and [`Model::builtin`] return checked models. A model that was deserialised or
    /// changed by hand must pass here before its sizes are asked for.
    pub fn check(&self) -> Result<()> {
        range("layers", self.layers.into(), 1, LAYERS)?;
        range("hidden", self.hidden, 1, WIDTH)?;
        range("heads", self.heads, 1, HEADS)?;
        range("kv_heads", self.kv_heads, 1, self.heads)?;
        range("head_dim", self.head_dim, 1, HEADS)?;
        range("ffn", self.ffn, 1, FFN)?;
        range("outputs", self.outputs, 0, ROWS)?;
        range("positions", self.positions, 0, ROWS)?;
        range("beside", self.beside, 0, BESIDE)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(wrong("kv_heads", self.kv_heads, format!("a divisor of {} heads", self.heads)));
        }
        if self.q_dim() > WIDTH {
            let found = format!("{} heads of {}", self.heads, self.head_dim);
            return Err(wrong("head_dim", found, format!("at most {WIDTH} for all heads together")));
        }
        if self.rope.is_some() && !self.head_dim.is_multiple_of(2) {
            return Err(wrong(
                "head_dim",
                self.head_dim,
                "an even width, as rotation by position takes pairs",
            ));
        }
        for rope in self.rope.iter().chain(&self.local_rope) {
            if rope.width > self.head_dim || !rope.width.is_multiple_of(2) {
                let what = format!("an even number of turning values up to the {} of a head", self.head_dim);
                return Err(wrong("rope.width", rope.width, what));
            }
        }
        let known = self.pattern.iter().all(|&kind| usize::from(kind) < self.kinds.len());
        if self.kinds.is_empty() || !known || ![0, self.layers as usize].contains(&self.pattern.len()) {
            let found = format!("{} kinds, {} layers with one", self.kinds.len(), self.pattern.len());
            return Err(wrong("pattern", found, format!("a kind for each of {} layers", self.layers)));
        }
        self.check_products()?;
        self.check_parts()?;
        match self.input {
            Input::Tokens { vocabulary, width } => {
                range("input.vocabulary", vocabulary, 1, ROWS)?;
                range("input.width", width, 1, WIDTH)?;
                if self.tied && self.outputs != vocabulary {
                    let expected = format!("the vocabulary of {vocabulary}, as the head is the embedding");
                    return Err(wrong("outputs", self.outputs, expected));
                }
            }
            Input::Patches { values, count } => {
                range("input.values", values, 1, PATCH_VALUES)?;
                range("input.count", count, 2, ROWS)?;
                if self.tied {
                    return Err(wrong("tied", true, "false, as patches have no table to tie the head to"));
                }
            }
        }
        Ok(())
    }

    /// The bounds of experts and of latent attention.
    fn check_parts(&self) -> Result<()> {
        if let Some(experts) = self.experts {
            range("experts.count", experts.count, 1, EXPERTS)?;
            range("experts.per_token", experts.per_token, 1, experts.count)?;
            range("experts.width", experts.width, 1, FFN)?;
            range("experts.shared_width", experts.shared_width, 0, FFN)?;
            if experts.count * experts.width + experts.shared_width > EXPERT_WIDTHS {
                let found = format!("{} experts of {}", experts.count, experts.width);
                return Err(wrong("experts", found, format!("at most {EXPERT_WIDTHS} wide together")));
            }
        } else if self.kinds.iter().any(|kind| kind.experts) {
            return Err(wrong("kinds.experts", true, "false, as the model has no experts"));
        }
        if let Some(latent) = self.latent {
            range("latent.q_rank", latent.q_rank, 0, WIDTH)?;
            range("latent.kv_rank", latent.kv_rank, 1, WIDTH)?;
            range("latent.value_dim", latent.value_dim, 1, HEADS)?;
            range("latent.nope_dim", latent.nope_dim, 1, HEADS)?;
            range("latent.rope_dim", latent.rope_dim, 2, HEADS)?;
            // What attention reads of an entry, and the widths of all heads together.
            for (key, value) in
                [("latent.entry", latent.entry()), ("latent.head_dim", latent.nope_dim + latent.rope_dim)]
            {
                range(key, value, 1, HEADS)?;
            }
            for (key, each) in [("latent.value_dim", latent.value_dim), ("latent.nope_dim", latent.nope_dim)]
            {
                range(key, self.heads * each, 1, WIDTH)?;
            }
        }
        Ok(())
    }
}
