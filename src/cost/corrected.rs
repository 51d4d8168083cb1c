//! Prices corrected by measurements, monotone in rows and context.
//!
//! For each family of shapes (a product's inner width and columns, a head configuration) the formulas times the learned
//! correction are evaluated once at the anchors of the profile, made monotone, and kept. A price is read between them: along rows
//! of a product as the formulas grow there, so that the staircase of tiles stays; on straight lines between logarithms for
//! attention. Both keep order, so more rows or a longer context never cost less.

mod shape;
mod table;

use super::{Device, EXTRAPOLATED, FoldHasher, Learned, PriceError};
use crate::hw::{Correction, Hardware, Nodes};
use crate::kernel::{Attention, Class, Density, GROUP_SLICE, Kernel};
use crate::units::{Dtype, SimTime, SourceKind};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};
use table::{Anchors, Table};

pub(crate) use shape::of_shape_name;
pub(crate) use table::{length, with_rows};

/// Tables kept at a time; a model has about ten families.
const MOST_TABLES: usize = 4096;

/// Names of the numbers over which a table runs.
const ROWS: &str = "rows";
const CONTEXT: &str = "context";
/// How the names of products begin.
const PRODUCT: &str = "matmul_";
/// What is corrected by trees.
#[derive(Clone, Copy, Debug)]
struct Trees {
    /// Its name in profiles; in other formats, how its names begin.
    name: &'static str,
    /// The kernels that it is of.
    class: Class,
    /// Mean error in percent of what was lent among H100, A100 and L40S (`docs/VALIDATION.md`, "Lent").
    lent_error: f64,
}

const GEMM: Trees = Trees { name: "gemm", class: Class::MatMul, lent_error: 15.0 };
const CONTEXT_ATTENTION: Trees =
    Trees { name: "context_attention", class: Class::PrefillAttention, lent_error: 21.8 };
const GENERATION_ATTENTION: Trees =
    Trees { name: "generation_attention", class: Class::DecodeAttention, lent_error: 32.4 };

/// The name under which a profile keeps what was measured of a kernel over its rows.
pub(crate) fn by_rows_name(kernel: &Kernel) -> Cow<'static, str> {
    match kernel {
        Kernel::MatMul { inner, columns, .. } => format!("{PRODUCT}{inner}x{columns}").into(),
        other => other.name().into(),
    }
}

/// The corrections of a device, by operator.
#[derive(Clone, Debug, Default)]
pub(super) struct Corrected {
    gemm: Option<Arc<Operator>>,
    context: Option<Arc<Operator>>,
    generation: Option<Arc<Operator>>,
    chunk: Option<Arc<Operator>>,
    mixed: Option<Arc<Operator>>,
    by_format: Arc<[Arc<Operator>]>,
    by_rows: Arc<BTreeMap<String, Arc<Operator>>>,
    of_shape: Arc<BTreeMap<String, Arc<Operator>>>,
    fused: Arc<[String]>,
    transferred: bool,
}

/// What there is for the kernels of a family, whatever their rows and contexts.
#[derive(Clone, Debug)]
enum Found {
    /// Nobody measured such kernels.
    Nothing,
    /// They run inside of others, whose times hold theirs.
    WithinAnother,
    /// Others of the kind were measured: that of the largest error.
    Guess(Arc<Operator>),
    /// A correction, and its times for the family.
    Table(Arc<Operator>, Arc<Table>),
}

/// What was found for the latest families of attention calls: of prompts, and of generated tokens. A pass asks for the same ones at every layer.
#[derive(Clone, Debug, Default)]
pub struct Recent([Option<(Kernel, Found)>; 2]);

impl Recent {
    fn of(&mut self, kind: usize, family: Kernel, find: impl FnOnce() -> Found) -> &Found {
        let place = &mut self.0[kind];
        if place.as_ref().is_none_or(|(known, _)| *known != family) {
            *place = None;
        }
        &place.get_or_insert_with(|| (family, find())).1
    }
}

#[derive(Debug)]
struct Operator {
    correction: Correction,
    error: PriceError,
    /// Mean error in percent where it is lent to another device.
    lent_error: f64,
    nodes: Arc<Nodes>,
    anchors: Anchors,
    /// Fitted rows, and entries that a row of attention sees.
    rows: (f64, f64),
    context: (f64, f64),
    /// Which kernels it is of.
    class: Class,
    /// Whether another device or another format of this one learned it.
    lent: bool,
    host: Option<Arc<Nodes>>,
    tables: RwLock<HashMap<Kernel, Arc<Table>, FoldHasher>>,
}

impl Corrected {
    pub(super) fn new(hw: &Hardware) -> Self {
        let Some(all) = &hw.corrections else { return Corrected::default() };
        let transferred = all.transferred_from.is_some();
        let lent = |name: &str| transferred && !all.own.iter().any(|own| own == name);
        let trees = |correction: &Correction, Trees { class, lent_error, .. }, lent| {
            Arc::new(Operator::new(correction, (class, Anchors::of(class)), lent_error, lent))
        };
        let or_within = |correction: &Option<Correction>, of: Trees| {
            let within = || all.lent_within(of.name).map(|correction| trees(&correction, of, true));
            correction.as_ref().map(|correction| trees(correction, of, lent(of.name))).or_else(within)
        };
        let in_format = |(name, correction): (&String, &Correction)| {
            let all = [GEMM, CONTEXT_ATTENTION, GENERATION_ATTENTION];
            let of = all.into_iter().find(|of| name.starts_with(of.name))?;
            Some(trees(correction, of, lent(name)))
        };
        let grid = |correction: &Option<Correction>, anchors, Trees { class, lent_error, .. }| {
            let new =
                |correction| Arc::new(Operator::new(correction, (class, anchors), lent_error, transferred));
            correction.as_ref().map(new)
        };
        let by_rows = |(name, correction): (&String, &Correction)| {
            let product = name.starts_with(PRODUCT);
            let class = if product { Class::MatMul } else { Class::Elementwise };
            let own = correction.evidence.held_error;
            let lent_error = if product { GEMM.lent_error } else { EXTRAPOLATED * own };
            let operator = Operator::new(correction, (class, Anchors::Rows), lent_error, transferred);
            (name.clone(), Arc::new(operator))
        };
        Corrected {
            gemm: or_within(&all.gemm, GEMM),
            context: or_within(&all.context_attention, CONTEXT_ATTENTION),
            generation: or_within(&all.generation_attention, GENERATION_ATTENTION),
            chunk: grid(&all.chunk_attention, Anchors::Chunk, CONTEXT_ATTENTION),
            mixed: grid(&all.mixed_attention, Anchors::Sequences, GENERATION_ATTENTION),
            by_format: all.by_format.iter().filter_map(in_format).collect(),
            by_rows: Arc::new(all.by_rows.iter().map(by_rows).collect()),
            of_shape: Arc::new(all.of_shape.iter().map(shape::operator(transferred)).collect()),
            fused: all.fused.clone().into(),
            transferred,
        }
    }

    /// What corrections say of a kernel; nothing where the profile has none for it. `physical` is the time by the formulas; `recent` keeps
    /// what was found for the attention calls before.
    pub(super) fn time(
        &self,
        device: &Device,
        kernel: &Kernel,
        physical: SimTime,
        recent: &mut Recent,
    ) -> Option<Learned> {
        let kernel = &self.alone(kernel);
        let here;
        let found = match kernel {
            Kernel::Attention(shape) => {
                recent.of(usize::from(shape.decode), family(kernel), || self.find(device, kernel))
            }
            _ => {
                here = self.find(device, kernel);
                &here
            }
        };
        match found {
            Found::Nothing => None,
            Found::WithinAnother => {
                let source = source(true, self.transferred);
                Some(Learned { time: SimTime::ZERO, source, error: None })
            }
            Found::Guess(worst) => {
                let (source, error) = (SourceKind::Extrapolated, worst.error);
                Some(Learned::by(physical, source, error, worst.lent_error, device.altered))
            }
            Found::Table(operator, table) => {
                let (time, covered) = operator.read(table, device, kernel, physical)?;
                let source = source(covered, operator.lent);
                Some(Learned::by(time, source, operator.error, operator.lent_error, device.altered))
            }
        }
    }

    /// What there is for the kernels of a family.
    fn find(&self, device: &Device, kernel: &Kernel) -> Found {
        if self.fused.iter().any(|name| name == kernel.name()) || self.within_products(kernel) {
            return Found::WithinAnother;
        }
        let in_format = self.in_format(kernel).or_else(|| self.of_shape(kernel));
        let operator = match kernel {
            _ if in_format.is_some() => in_format,
            // Measured kernels of other formats say nothing about a product whose inputs are quantised.
            Kernel::MatMul { inputs, activations, .. }
            | Kernel::GroupedMatMul { inputs, activations, .. }
                if inputs != activations =>
            {
                return Found::Nothing;
            }
            Kernel::MatMul { .. } | Kernel::GroupedMatMul { .. } if self.gemm.is_some() => self.gemm.as_ref(),
            Kernel::Attention(shape) if shape.beside > 0 => self.mixed.as_ref(),
            Kernel::Attention(shape) if shape.decode => self.generation.as_ref(),
            Kernel::Attention(_) => self.chunk.as_ref().or(self.context.as_ref()),
            other => self.by_rows.get(&*by_rows_name(&plain(other))),
        };
        match operator {
            Some(_) if empty(&plain(kernel)) && !matches!(kernel, Kernel::Attention(_)) => Found::Nothing,
            Some(operator) => Found::Table(operator.clone(), operator.table(device, &plain(kernel))),
            // Beside products that were measured one by one, another is a guess.
            None => match self.worst_product().filter(|_| kernel.class() == Class::MatMul) {
                Some(worst) => Found::Guess(worst.clone()),
                None => Found::Nothing,
            },
        }
    }

    /// What was learned of products and attention in the format of this kernel.
    fn in_format(&self, kernel: &Kernel) -> Option<&Arc<Operator>> {
        if self.by_format.is_empty()
            || !matches!(kernel.class(), Class::MatMul | Class::PrefillAttention | Class::DecodeAttention)
        {
            return None;
        }
        let plain = match plain(kernel) {
            Kernel::MatMul { rows, inner, columns, weights, inputs, activations, .. } => {
                let density = Density::Dense;
                Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density }
            }
            other => other,
        };
        let formats = formats(&plain)?;
        let of = |formats: (Dtype, Dtype)| {
            let fits = move |operator: &&Arc<Operator>| {
                operator.class == kernel.class() && operator.correction.formats.contains(&formats)
            };
            self.by_format.iter().find(fits)
        };
        // Blocks of scales are multiplied as fast as one scale a tensor, nearly: who was fitted to the one says `extrapolated` of the other.
        let quantised = formats.0 == formats.1;
        of(formats).or_else(|| of((formats.0.plain(), formats.1.plain())).filter(|_| quantised))
    }

    /// Whether a kernel brings rows into a format whose measured products hold that.
    fn within_products(&self, kernel: &Kernel) -> bool {
        let Kernel::Quantise { to, .. } = *kernel else { return false };
        let holds = |operator: &Arc<Operator>| {
            let quantises = operator.correction.waves.as_ref().is_some_and(|waves| waves.quantise.is_some());
            let formats = &operator.correction.formats;
            quantises && (formats.contains(&(to, to)) || formats.contains(&(to.plain(), to.plain())))
        };
        self.by_format.iter().any(holds)
    }

    /// What the host took for a call in the table that was fitted, where that was measured without captured graphs.
    pub(super) fn host_time(&self, kernel: &Kernel) -> Option<SimTime> {
        self.in_format(kernel)?.host_time(kernel)
    }

    /// Of the products that were measured one by one, that of the largest error.
    fn worst_product(&self) -> Option<&Arc<Operator>> {
        let products = self.by_rows.iter().filter(|(name, _)| name.starts_with(PRODUCT));
        products.map(|(_, operator)| operator).max_by_key(|operator| operator.error.mean)
    }

    /// The kernel, without what is beside it where nobody measured what that changes.
    fn alone(&self, kernel: &Kernel) -> Kernel {
        match *kernel {
            Kernel::Attention(shape) if self.mixed.is_none() => {
                Kernel::Attention(Attention { beside: 0, ..shape })
            }
            other => other,
        }
    }
}

/// Who says what was learned, of a shape among those that were fitted, on this device or on another.
fn source(covered: bool, lent: bool) -> SourceKind {
    match (covered, lent) {
        (false, _) => SourceKind::Extrapolated,
        (true, true) => SourceKind::Transferred,
        (true, false) => SourceKind::Fitted,
    }
}

/// The measured kind that a kernel is read as: a grouped product is one product of its padded rows.
fn plain(kernel: &Kernel) -> Kernel {
    match *kernel {
        Kernel::GroupedMatMul { slices, inner, columns, weights, inputs, activations, density, .. } => {
            let rows = slices * GROUP_SLICE;
            Kernel::MatMul { rows, inner, columns, weights, inputs, activations, density }
        }
        _ => *kernel,
    }
}

fn empty(kernel: &Kernel) -> bool {
    match *kernel {
        Kernel::MatMul { rows, inner, columns, .. } => rows == 0 || inner == 0 || columns == 0,
        Kernel::Attention(shape) => shape.rows == 0 || shape.pairs == 0,
        _ => table::rows(kernel).is_none_or(|rows| rows == 0),
    }
}

impl Operator {
    /// `lent_error`: see [`Trees`]; `lent`: whether another device or another format of this one learned it.
    fn new(
        correction: &Correction,
        (class, anchors): (Class, Anchors),
        lent_error: f64,
        lent: bool,
    ) -> Operator {
        let range = |name: &str| correction.range.get(name).copied().unwrap_or((f64::INFINITY, 0.0));
        let (rows, context) = (range(ROWS), range(CONTEXT));
        let error = PriceError::new(correction.evidence.held_error, correction.evidence.interval());
        let (correction, nodes) = (correction.clone(), correction.forest.nodes());
        let host = correction.host.as_ref().map(|host| host.nodes());
        let tables = RwLock::default();
        Operator { correction, error, lent_error, nodes, anchors, rows, context, class, lent, host, tables }
    }

    fn table(&self, device: &Device, kernel: &Kernel) -> Arc<Table> {
        let family = family(kernel);
        if let Some(table) = self.tables.read().ok().and_then(|tables| tables.get(&family).cloned()) {
            return table;
        }
        let covered = self.covers_family(&family);
        let table = Table::new(device, &family, &self.correction, &self.nodes, self.anchors, covered);
        let table = Arc::new(table);
        if let Ok(mut tables) = self.tables.write() {
            if tables.len() >= MOST_TABLES {
                tables.clear();
            }
            tables.insert(family, table.clone());
        }
        table
    }

    /// The time of a kernel of the family of `table`, which takes `physical` by the formulas, and whether it lies among what was fitted. Nothing for
    /// a kernel without work.
    fn read(
        &self,
        table: &Table,
        device: &Device,
        kernel: &Kernel,
        physical: SimTime,
    ) -> Option<(SimTime, bool)> {
        let plain = plain(kernel);
        if empty(&plain) {
            return None;
        }
        if plain == *kernel {
            let time = table.time(device, &plain, physical);
            // What hides behind the host was not measured.
            let seen = self.host_time(kernel).is_none_or(|host| host < time);
            return Some((time, table.covered && self.covers(&plain) && seen));
        }
        // A grouped product costs at least a plain one of its padded rows, and at least what its own weights cost.
        let time = table.time(device, &plain, device.physical(&plain).time);
        Some((time.max(physical), false))
    }

    /// Whether the numbers that all kernels of a family share lie among those fitted, in a format that was fitted, dense.
    fn covers_family(&self, family: &Kernel) -> bool {
        let within = |&(name, value): &(&str, f64)| {
            let range = self.correction.range.get(name);
            [ROWS, CONTEXT].contains(&name)
                || range.is_some_and(|&(least, most)| least <= value && value <= most)
        };
        let known = formats(family).is_some_and(|formats| self.correction.formats.contains(&formats));
        known && numbers(family).iter().all(within)
    }

    /// What the host took for such a call.
    fn host_time(&self, kernel: &Kernel) -> Option<SimTime> {
        let nodes = self.host.as_ref()?;
        let microseconds = libm::exp(nodes.predict(&Device::host_features(kernel)));
        Some(SimTime::from_us(microseconds))
    }

    /// Whether a kernel's rows and context lie among those fitted.
    fn covers(&self, kernel: &Kernel) -> bool {
        let within = |value: f64, (least, most): (f64, f64)| least <= value && value <= most;
        match kernel {
            Kernel::Attention(shape) => {
                let rows = f64::from(shape.rows.max(1));
                within(rows, self.rows) && within(shape.seen(), self.context)
            }
            other => table::rows(other).is_some_and(|rows| within(rows.into(), self.rows)),
        }
    }
}

/// The numbers of a shape by name.
pub(crate) fn numbers(kernel: &Kernel) -> Vec<(&'static str, f64)> {
    match *kernel {
        Kernel::MatMul { rows, inner, columns, .. } => {
            let named = [(ROWS, rows), ("inner", inner), ("columns", columns)];
            named.map(|(name, value)| (name, f64::from(value))).to_vec()
        }
        Kernel::Attention(Attention { rows, heads, kv_heads, head_dim, beside, pairs, .. }) => {
            let rows = f64::from(rows.max(1));
            let mut named = vec![
                (ROWS, rows),
                (CONTEXT, pairs as f64 / rows),
                ("heads", heads.into()),
                ("kv_heads", kv_heads.into()),
                ("head_dim", head_dim.into()),
            ];
            named.extend((beside > 0).then_some(("beside", beside.into())));
            named
        }
        Kernel::Embed { rows, width, .. }
        | Kernel::Norm { rows, width, .. }
        | Kernel::Activation { rows, width, .. }
        | Kernel::Sample { rows, vocabulary: width, .. } => {
            vec![(ROWS, rows.into()), ("width", width.into())]
        }
        Kernel::Rope { rows, heads, head_dim, .. } => {
            let named = [(ROWS, rows), ("heads", heads), ("head_dim", head_dim)];
            named.map(|(name, value)| (name, f64::from(value))).to_vec()
        }
        _ => Vec::new(),
    }
}

/// Formats of inputs, and of weights or KV entries, of a dense product or an attention call; of activations twice of a small
/// kernel that is measured by its rows. The two of 16 bits are as fast as each other.
pub(crate) fn formats(kernel: &Kernel) -> Option<(Dtype, Dtype)> {
    let (activations, other) = match *kernel {
        Kernel::MatMul { weights, inputs, density: Density::Dense, .. } => (inputs, weights),
        Kernel::Attention(Attention { activations, kv, .. }) => (activations, kv),
        Kernel::Embed { activations, .. }
        | Kernel::Norm { activations, .. }
        | Kernel::Activation { activations, .. }
        | Kernel::Sample { activations, .. }
        | Kernel::Rope { activations, .. } => (activations, activations),
        _ => return None,
    };
    let plain = |dtype: Dtype| if dtype == Dtype::F16 { Dtype::Bf16 } else { dtype };
    Some((plain(activations), plain(other)))
}

/// A kernel without what its table runs over.
fn family(kernel: &Kernel) -> Kernel {
    match *kernel {
        Kernel::Attention(shape) => Kernel::Attention(Attention { rows: 0, pairs: 0, entries: 0, ..shape }),
        _ => table::with_rows(kernel, 0),
    }
}
