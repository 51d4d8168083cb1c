//! The number formats of a run: what the scenario says, laid over what the model says, and what the device can multiply.

use super::Note;
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::model::Model;
use crate::units::Dtype;
use serde::{Deserialize, Serialize};

/// Number formats of a run; one that is left out is the model's own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Formats {
    /// Weights of the layers.
    #[serde(default)]
    pub weights: Option<Dtype>,
    /// Activations, embedding and head.
    #[serde(default)]
    pub activations: Option<Dtype>,
    /// KV entries.
    #[serde(default)]
    pub kv: Option<Dtype>,
    /// Inputs of products with quantised weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<Products>,
}

/// Formats of the inputs of products with quantised weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Products {
    /// As the activations are: weights are widened.
    Activations,
    /// 8-bit floats, one scale a tensor.
    Fp8,
    /// 8-bit floats, a scale for each 128 values of a row.
    Fp8Block,
    /// 4-bit floats, a scale for each 16.
    Nvfp4,
}

impl Products {
    /// The format of inputs and weights; `None`: inputs are not quantised.
    fn dtype(self) -> Option<Dtype> {
        match self {
            Products::Activations => None,
            Products::Fp8 => Some(Dtype::Fp8),
            Products::Fp8Block => Some(Dtype::Fp8Block),
            Products::Nvfp4 => Some(Dtype::Fp4),
        }
    }
}

impl Formats {
    /// Sets the formats of a model. Embedding and head follow the activations where these are said; weights follow the products where
    /// nothing else is said of them.
    ///
    /// # Errors
    /// Products in another format than weights that the scenario or the model's file says.
    pub(super) fn set(&self, model: &mut Model) -> Result<()> {
        model.embedding_weights = self.activations.unwrap_or(model.embedding_weights);
        model.activations = self.activations.unwrap_or(model.activations);
        model.kv = self.kv.unwrap_or(model.kv);
        let own = model.weights;
        model.weights = self.weights.unwrap_or(own);
        let Some(products) = self.products else {
            // The model's own go with the model's own weights.
            model.products = model.products.filter(|_| model.weights == own);
            return Ok(());
        };
        model.products = products.dtype();
        let Some(format) = model.products else { return Ok(()) };
        if self.weights.is_none() && matches!(own, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            model.weights = format;
        }
        if model.weights != format {
            let expected = format!("the format of the weights, {}, or weights in {format}", model.weights);
            return Err(InputError::expected(expected).key("formats.products").found(format).into());
        }
        Ok(())
    }
}

/// What the device makes of the products: one without arithmetic in their format widens the weights, as engines do; where the scenario asks
/// for products in it, it is refused.
pub(super) fn fit_device(
    model: &mut Model,
    hardware: &Hardware,
    formats: Option<&Formats>,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let Some(products) = model.products else { return Ok(()) };
    let (peak, key) = match products {
        Dtype::Fp4 => (&hardware.compute.matrix_fp4_tflops, "matrix_fp4_tflops"),
        _ => (&hardware.compute.matrix_fp8_tflops, "matrix_fp8_tflops"),
    };
    if peak.is_some() {
        return Ok(());
    }
    if formats.is_some_and(|formats| formats.products.is_some()) {
        let expected = format!("a format that {} multiplies: it has no compute.{key}", hardware.name);
        return Err(InputError::expected(expected).key("formats.products").found(products).into());
    }
    let why = format!(
        "the model's file has inputs of products in {products}, which {} does not multiply: weights are widened instead",
        hardware.name
    );
    notes.push(Note::new("formats.products", "activations", why));
    model.products = None;
    Ok(())
}
