//! Corrections of one shape, beside those that stand for all shapes of a kernel: attention with so many heads, rows of such a width.

use super::table::Anchors;
use super::{CONTEXT_ATTENTION, Corrected, GENERATION_ATTENTION, Operator};
use crate::cost::EXTRAPOLATED;
use crate::hw::Correction;
use crate::kernel::{Attention, Class, Kernel};
use std::sync::Arc;

const CHUNK: &str = "chunk_attention_";
const GENERATION: &str = "generation_attention_";
const MIXED: &str = "mixed_attention_";

/// The name under which a profile keeps what was measured of this shape alone: heads of queries and of the cache and their width, or the width of
/// a row. None of products, whose plain names hold their shapes.
pub(crate) fn of_shape_name(kernel: &Kernel) -> Option<String> {
    Some(match *kernel {
        Kernel::Attention(Attention { heads, kv_heads, head_dim, beside, decode, .. }) => {
            let kind = match (beside > 0, decode) {
                (true, _) => MIXED,
                (false, true) => GENERATION,
                (false, false) => CHUNK,
            };
            format!("{kind}{heads}x{kv_heads}x{head_dim}")
        }
        Kernel::Rope { heads, head_dim, .. } => format!("{}_{heads}x{head_dim}", kernel.name()),
        Kernel::Embed { width, .. }
        | Kernel::Norm { width, .. }
        | Kernel::Activation { width, .. }
        | Kernel::Sample { vocabulary: width, .. } => format!("{}_{width}", kernel.name()),
        _ => return None,
    })
}

/// The operator of such a correction.
pub(super) fn operator(lent: bool) -> impl Fn((&String, &Correction)) -> (String, Arc<Operator>) {
    move |(name, correction)| {
        let (class, anchors, lent_error) = match name {
            name if name.starts_with(CHUNK) => {
                (CONTEXT_ATTENTION.class, Anchors::Chunk, CONTEXT_ATTENTION.lent_error)
            }
            name if name.starts_with(GENERATION) || name.starts_with(MIXED) => {
                (GENERATION_ATTENTION.class, Anchors::Sequences, GENERATION_ATTENTION.lent_error)
            }
            _ => (Class::Elementwise, Anchors::Rows, EXTRAPOLATED * correction.evidence.held_error),
        };
        let operator = Operator::new(correction, (class, anchors), lent_error, lent);
        (name.clone(), Arc::new(operator))
    }
}

impl Corrected {
    /// What was measured of exactly the shape of this kernel.
    pub(super) fn of_shape(&self, kernel: &Kernel) -> Option<&Arc<Operator>> {
        if self.of_shape.is_empty() {
            return None;
        }
        self.of_shape.get(&of_shape_name(kernel)?)
    }
}
