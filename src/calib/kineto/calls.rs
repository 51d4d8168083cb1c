//! Which call of a decoder an operator of PyTorch is, by the shapes of its inputs.

use super::events::Inputs;
use crate::calib::rows::{Operator, TableFormat};
use crate::kernel::{Attention, Kernel};
use crate::units::Dtype;
use serde_json::Value;

/// Operators that are looked at. `aten::linear` and `aten::matmul` call one of these; attention comes whole, whatever it calls.
const PRODUCTS: [&str; 3] = ["aten::mm", "aten::addmm", "aten::bmm"];
/// Attention, whatever kernel it chooses.
const ATTENTION: &str = "aten::scaled_dot_product_attention";

/// Whether the inputs of an operator of this name say something.
pub(super) fn looked_at(name: &str) -> bool {
    name == ATTENTION || PRODUCTS.contains(&name)
}

/// A call as the tables have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    /// Place of the operator in [`Operator::ALL`].
    pub operator: usize,
    /// Format of all its inputs.
    pub dtype: Dtype,
    /// Its numbers, in the order of the columns of a table.
    pub numbers: Vec<u32>,
}

impl Call {
    /// The operator.
    pub fn operator(&self) -> Operator {
        Operator::ALL[self.operator].0
    }

    /// The kernel of such a call; none of a size that cannot be.
    pub fn kernel(&self) -> Option<Kernel> {
        let dtype = self.dtype;
        let kernel = self.operator().kernel(TableFormat::Sixteen, &self.numbers)?;
        Some(match kernel {
            Kernel::MatMul { rows, inner, columns, density, .. } => {
                let (weights, inputs, activations) = (dtype, dtype, dtype);
                Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density }
            }
            Kernel::Attention(shape) => {
                Kernel::Attention(Attention { activations: dtype, kv: dtype, ..shape })
            }
            other => other,
        })
    }
}

/// Why a call says nothing about a decoder.
pub(super) type Left = &'static str;

/// The call of an operator with these inputs, or why there is none.
pub(super) fn call(name: &str, inputs: &Inputs) -> Result<Call, Left> {
    let dims = inputs.dims.as_deref().ok_or("no shapes (record_shapes=True notes them)")?;
    let sizes = |index: usize| -> Option<Vec<u32>> {
        let list = dims.get(index)?.as_array()?;
        list.iter().map(|size| size.as_u64().and_then(|size| u32::try_from(size).ok())).collect()
    };
    let dtype = |index: usize| match inputs.types.get(index).and_then(Value::as_str) {
        Some("float") => Ok(Dtype::F32),
        // The two of 16 bits are as fast as each other.
        Some("c10::BFloat16" | "c10::Half") => Ok(Dtype::Bf16),
        _ => Err("another format than float32, bfloat16 and float16"),
    };
    let odd = "shapes that are none of a product or of attention";
    if name == ATTENTION {
        let (query, keys) = (sizes(0).ok_or(odd)?, sizes(1).ok_or(odd)?);
        let numbers = attention(inputs, (&query, &keys), dims.get(3)).map_err(|left| left.unwrap_or(odd))?;
        let operator =
            if numbers[1] == 1 { Operator::GenerationAttention } else { Operator::ContextAttention };
        return Ok(Call { operator: operator as usize, dtype: dtype(0)?, numbers });
    }
    let first = usize::from(name == "aten::addmm");
    let (left, right) = (sizes(first).ok_or(odd)?, sizes(first + 1).ok_or(odd)?);
    let (rows, inner, columns) = match (left.as_slice(), right.as_slice()) {
        (&[rows, inner], &[deep, columns]) | (&[1, rows, inner], &[1, deep, columns]) if inner == deep => {
            (rows, inner, columns)
        }
        ([_, _, _], [_, _, _]) => return Err("several products at once (bmm)"),
        _ => return Err(odd),
    };
    if [rows, inner, columns].contains(&0) {
        return Err(odd);
    }
    if dtype(first)? != dtype(first + 1)? {
        return Err("inputs of two formats");
    }
    Ok(Call { operator: Operator::Gemm as usize, dtype: dtype(first)?, numbers: vec![rows, columns, inner] })
}

/// Columns of a table of attention: sequences, tokens of each, entries before them, heads, heads of keys and values, width of a head.
/// `Err(None)`: no shapes of attention.
fn attention(
    inputs: &Inputs,
    (query, keys): (&[u32], &[u32]),
    mask: Option<&Value>,
) -> Result<Vec<u32>, Option<Left>> {
    let (&[batch, heads, rows, width], &[batch_too, kv_heads, seen, width_too]) = (query, keys) else {
        return Err(None);
    };
    if batch != batch_too
        || width != width_too
        || [batch, heads, rows, width, kv_heads].contains(&0)
        || seen < rows
    {
        return Err(None);
    }
    // Of `[]` nothing was given.
    if mask.and_then(Value::as_array).is_some_and(|sizes| !sizes.is_empty()) {
        return Err(Some("attention with a mask, whose values the profile does not have"));
    }
    let causal = inputs.values.get(5).and_then(Value::as_str) == Some("True");
    match (rows, causal) {
        // One token sees all entries either way; PyTorch's causal mask would leave it the first alone.
        (1, false) => {}
        (1, true) if seen == 1 => {}
        (_, true) if rows == seen => {}
        (_, true) => return Err(Some("attention with a causal mask that does not end with the last entry")),
        (_, false) => return Err(Some("attention of several tokens without a causal mask")),
    }
    Ok(vec![batch, rows, seen - rows, heads, kv_heads, width])
}
