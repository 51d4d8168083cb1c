//! Prices corrected by measurements, monotone in rows and context.
//!
//! For each family of shapes (a product's inner width and columns, a head configuration) the formulas times the learned
//! correction are evaluated once at the anchors of the profile, made monotone, and kept. A price is read between them: along rows
//! of a product as the formulas grow there, so that the staircase of tiles stays; on straight lines between logarithms for
//! attention. Both keep order, so more rows or a longer context never cost less.

mod forest;
mod table;

use super::Device;
use crate::hw::{Correction, Hardware};
use crate::kernel::{Attention, Class, Density, GROUP_SLICE, Kernel};
use crate::units::{Dtype, SimTime, SourceKind};
use forest::Nodes;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use table::Table;

pub(crate) use table::length;

/// Tables kept at a time; a model has about ten families.
const MOST_TABLES: usize = 4096;

/// The corrections of a device, by operator.
#[derive(Clone, Debug, Default)]
pub(super) struct Corrected {
    gemm: Option<Arc<Operator>>,
    context: Option<Arc<Operator>>,
    generation: Option<Arc<Operator>>,
    transferred: bool,
}

#[derive(Debug)]
struct Operator {
    correction: Correction,
    nodes: Nodes,
    tables: RwLock<HashMap<Kernel, Arc<Table>>>,
}

impl Corrected {
    pub(super) fn new(hw: &Hardware) -> Self {
        let Some(all) = &hw.corrections else { return Corrected::default() };
        let operator = |correction: &Option<Correction>| {
            let correction = correction.clone()?;
            let nodes = Nodes::new(&correction.forest);
            Some(Arc::new(Operator { correction, nodes, tables: RwLock::default() }))
        };
        Corrected {
            gemm: operator(&all.gemm),
            context: operator(&all.context_attention),
            generation: operator(&all.generation_attention),
            transferred: all.transferred_from.is_some(),
        }
    }

    /// The time of a kernel and who says so; nothing where the profile has no correction for it. `physical` is the time by the
    /// formulas.
    pub(super) fn time(
        &self,
        device: &Device,
        kernel: &Kernel,
        physical: SimTime,
    ) -> Option<(SimTime, SourceKind)> {
        let operator = match kernel {
            Kernel::MatMul { .. } | Kernel::GroupedMatMul { .. } => &self.gemm,
            Kernel::Attention(shape) if shape.decode => &self.generation,
            Kernel::Attention(_) => &self.context,
            _ => return None,
        };
        let operator = operator.as_deref()?;
        let plain = plain(kernel);
        if empty(&plain) {
            return None;
        }
        let time = operator.table(device, &plain).time(device, &plain);
        let source = match (operator.covers(&plain) && plain == *kernel, self.transferred) {
            (false, _) => SourceKind::Extrapolated,
            (true, true) => SourceKind::Transferred,
            (true, false) => SourceKind::Fitted,
        };
        // A grouped product costs at least a plain one of its padded rows, and at least what its own weights cost.
        let least = if plain == *kernel { SimTime::ZERO } else { physical };
        Some((time.max(least), source))
    }

    /// Mean absolute error in percent of the correction for a class, where there is one.
    pub(super) fn error(&self, class: Class) -> Option<f64> {
        let operator = match class {
            Class::MatMul => &self.gemm,
            Class::PrefillAttention => &self.context,
            Class::DecodeAttention => &self.generation,
            Class::Elementwise | Class::Gather => return None,
        };
        operator.as_deref().map(|operator| operator.correction.evidence.held_error)
    }
}

/// The measured kind that a kernel is read as: a grouped product is one product of its padded rows.
fn plain(kernel: &Kernel) -> Kernel {
    match *kernel {
        Kernel::GroupedMatMul { slices, inner, columns, weights, activations, density, .. } => {
            let rows = slices * GROUP_SLICE;
            Kernel::MatMul { rows, inner, columns, weights, activations, density }
        }
        _ => *kernel,
    }
}

fn empty(kernel: &Kernel) -> bool {
    match *kernel {
        Kernel::MatMul { rows, inner, columns, .. } => rows == 0 || inner == 0 || columns == 0,
        Kernel::Attention(shape) => shape.rows == 0 || shape.pairs == 0,
        _ => true,
    }
}

impl Operator {
    fn table(&self, device: &Device, kernel: &Kernel) -> Arc<Table> {
        let family = family(kernel);
        if let Some(table) = self.tables.read().ok().and_then(|tables| tables.get(&family).cloned()) {
            return table;
        }
        let table = Arc::new(Table::new(device, &family, &self.correction, &self.nodes));
        if let Ok(mut tables) = self.tables.write() {
            if tables.len() >= MOST_TABLES {
                tables.clear();
            }
            tables.insert(family, table.clone());
        }
        table
    }

    /// Whether every number of the shape lies among those fitted, in a format that was fitted, dense.
    fn covers(&self, kernel: &Kernel) -> bool {
        let within = |&(name, value): &(&str, f64)| {
            self.correction.range.get(name).is_some_and(|&(least, most)| least <= value && value <= most)
        };
        let known = formats(kernel).is_some_and(|formats| self.correction.formats.contains(&formats));
        known && numbers(kernel).iter().all(within)
    }
}

/// The numbers of a shape by name.
pub(crate) fn numbers(kernel: &Kernel) -> Vec<(&'static str, f64)> {
    match *kernel {
        Kernel::MatMul { rows, inner, columns, .. } => {
            let named = [("rows", rows), ("inner", inner), ("columns", columns)];
            named.map(|(name, value)| (name, f64::from(value))).to_vec()
        }
        Kernel::Attention(Attention { rows, heads, kv_heads, head_dim, pairs, .. }) => {
            let rows = f64::from(rows.max(1));
            vec![
                ("rows", rows),
                ("context", pairs as f64 / rows),
                ("heads", heads.into()),
                ("kv_heads", kv_heads.into()),
                ("head_dim", head_dim.into()),
            ]
        }
        _ => Vec::new(),
    }
}

/// Formats of activations, and of weights or KV entries, of a dense product or an attention call; the two of 16 bits are as fast
/// as each other.
pub(crate) fn formats(kernel: &Kernel) -> Option<(Dtype, Dtype)> {
    let (activations, other) = match *kernel {
        Kernel::MatMul { weights, activations, density: Density::Dense, .. } => (activations, weights),
        Kernel::Attention(Attention { activations, kv, .. }) => (activations, kv),
        _ => return None,
    };
    let plain = |dtype: Dtype| if dtype == Dtype::F16 { Dtype::Bf16 } else { dtype };
    Some((plain(activations), plain(other)))
}

/// A kernel without what its table runs over.
fn family(kernel: &Kernel) -> Kernel {
    match *kernel {
        Kernel::MatMul { inner, columns, weights, activations, density, .. } => {
            Kernel::MatMul { rows: 0, inner, columns, weights, activations, density }
        }
        Kernel::Attention(shape) => Kernel::Attention(Attention { rows: 0, pairs: 0, entries: 0, ..shape }),
        other => other,
    }
}
