//! Tables of whole expert layers in, what a profile says of them out, with errors on families that were left out in turn.

mod loads;
mod rows;

pub use loads::GateShape;
pub use rows::{ExpertRow, ExpertTable, read_experts};

use super::boost::{TreeSettings, grow};
use super::constants::Rounds;
use super::error::PercentErrors;
use super::rounded;
use super::rows::TableFormat;
use crate::cost::{Device, Limits, expert_numbers};
use crate::error::{InputError, Result};
use crate::hw::{Evidence, ExpertConstants, ExpertTimes, Hardware};
use std::collections::{BTreeMap, BTreeSet};

/// How trees are grown: shallow and few, as what they learn is asked of families that they have not seen. Settled on the tables of H100, B200 and
/// L40S with each family left out.
const SETTINGS: TreeSettings =
    TreeSettings { trees: 150, leaves: 16, rate: 0.1, least_rows: 20, edges: 128, clip: 0.2, middle: true };
/// Rows that the search for constants looks at.
const MOST_ROWS: usize = 1200;
/// How the constants are searched.
const SEARCH: Rounds = Rounds { rounds: 5, reach: 4.0, closer: 1.6 };
/// What the search begins with, and its bounds, in the order of [`ExpertConstants::numbers`]: some kernels of a few microseconds; shares of peaks.
const EXPECTED: [(f64, f64, f64); 10] = [
    (25.0, 1.0, 200.0),
    (2.0, 1e-3, 50.0),
    (0.9, 0.1, 1.0),
    (0.7, 0.05, 10.0),
    (0.5, 1e-3, 5.0),
    (0.2, 0.01, 1.2),
    (0.3, 0.01, 1.2),
    (0.4, 0.01, 1.2),
    (0.6, 0.01, 1.2),
    (0.4, 0.01, 1.0),
];

/// What came of the layers of one format.
#[derive(Clone, Debug)]
pub struct ExpertFit {
    /// Its name in the profile.
    pub name: String,
    /// Rows, and families they belong to.
    pub rows: (usize, usize),
    /// By the formula alone, on families left out in turn.
    pub formula: PercentErrors,
    /// With the trees.
    pub held: PercentErrors,
    /// The same of each family: hidden width, width of an expert, experts a token takes, experts.
    pub families: Vec<([u32; 4], PercentErrors)>,
    /// Of families with the plain SiLU gate, or none: those that most kernels are written for.
    pub plain: Option<PercentErrors>,
    /// Of the final profile on every row.
    pub seen: PercentErrors,
}

/// The name of a format's layers in profiles.
pub fn experts_name(format: TableFormat) -> &'static str {
    match format {
        TableFormat::Sixteen => "experts",
        TableFormat::Fp8 => "experts_fp8",
        TableFormat::Fp8Block => "experts_fp8_block",
        TableFormat::Nvfp4 => "experts_nvfp4",
    }
}

/// Fits constants and trees to the layers of each format that the table has. Each family is left out in turn for the errors; then all are fitted.
///
/// # Errors
/// Fewer than four families of a format; times that depend on nothing.
pub fn fit_experts(hw: &mut Hardware, table: &ExpertTable) -> Result<Vec<ExpertFit>> {
    let device = Device::new(hw, Limits::default())?;
    let mut out = Vec::new();
    for format in TableFormat::ALL {
        let rows: Vec<&ExpertRow> = table.rows.iter().filter(|row| row.format == format).collect();
        if rows.is_empty() {
            continue;
        }
        let name = experts_name(format);
        let families: BTreeSet<[u32; 4]> = rows.iter().map(|row| row.family).collect();
        if families.len() < 4 {
            let wrong = InputError::expected("layers of at least 4 models").key(name).found(families.len());
            return Err(wrong.into());
        }
        let mut said: Vec<([u32; 4], bool, [f64; 2], f64)> = Vec::with_capacity(rows.len());
        for &family in &families {
            let (kept, rest): (Vec<&ExpertRow>, Vec<&ExpertRow>) =
                rows.iter().partition(|row| row.family == family);
            let learned = learn(&device, &rest)?;
            said.extend(
                kept.iter().map(|row| (family, row.shape.plain, learned.says(&device, row), row.seconds)),
            );
        }
        let errors = |with: usize, of: &dyn Fn(&[u32; 4], bool) -> bool| {
            let chosen = said.iter().filter(|(family, plain, ..)| of(family, *plain));
            PercentErrors::of_families(chosen.map(|(family, _, said, was)| (*family, said[with], *was)))
        };
        let none = || InputError::expected("rows").key(name);
        let held = errors(1, &|_, _| true).ok_or_else(none)?;
        held.check_explained(name, "times that depend on shapes")?;
        let each =
            families.iter().filter_map(|family| Some((*family, errors(1, &|other, _| other == family)?)));
        let families_of: Vec<([u32; 4], PercentErrors)> = each.collect();
        let whole = learn(&device, &rows)?;
        let seen = rows.iter().map(|row| (row.family, whole.says(&device, row)[1], row.seconds));
        let seen = PercentErrors::of_families(seen).ok_or_else(none)?;
        let split = format!(
            "each of {} families (hidden, inner, top, experts) left out in turn, then all fitted",
            families.len()
        );
        let mut evidence = Evidence::new(&table.sha256, rows.len(), 0, split);
        held.state(&mut evidence);
        let mut range: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (number, value) in rows.iter().flat_map(|row| expert_numbers(&row.shape)) {
            let range = range.entry(number.to_owned()).or_insert((value, value));
            *range = (range.0.min(value), range.1.max(value));
        }
        let times = ExpertTimes {
            evidence,
            format: rows[0].shape.weights,
            range,
            constants: whole.constants,
            forest: whole.forest.into(),
        };
        out.push(ExpertFit {
            name: name.to_owned(),
            rows: (rows.len(), families.len()),
            formula: errors(0, &|_, _| true).ok_or_else(none)?,
            held,
            families: families_of,
            plain: errors(1, &|_, plain| plain),
            seen,
        });
        let all = hw.corrections.get_or_insert_default();
        if all.transferred_from.is_some() && !all.own.iter().any(|own| own == name) {
            all.own.push(name.to_owned());
        }
        all.experts.insert(name.to_owned(), times);
    }
    Ok(out)
}

struct Learned {
    constants: ExpertConstants,
    forest: crate::hw::Forest,
}

impl Learned {
    /// Seconds by the formula, and with the trees.
    fn says(&self, device: &Device, row: &ExpertRow) -> [f64; 2] {
        let (base, features) = device.expert_features(&row.shape, &self.constants);
        [base, base * libm::exp(self.forest.nodes().predict(&features))]
    }
}

/// Constants by families with the plain gate, whose kernels all engines tune; trees by all.
fn learn(device: &Device, rows: &[&ExpertRow]) -> Result<Learned> {
    let plain: Vec<&ExpertRow> = rows.iter().copied().filter(|row| row.shape.plain).collect();
    let constants = search(device, if plain.is_empty() { rows } else { &plain })?;
    let (features, targets): (Vec<Vec<f32>>, Vec<f64>) = rows
        .iter()
        .map(|row| {
            let (base, features) = device.expert_features(&row.shape, &constants);
            (features, libm::log(row.seconds / base))
        })
        .unzip();
    Ok(Learned { constants, forest: grow(&features, &targets, SETTINGS) })
}

/// The constants of least mean absolute logarithm, errors beyond a factor of e counting as that.
fn search(device: &Device, rows: &[&ExpertRow]) -> Result<ExpertConstants> {
    let step = rows.len().div_ceil(MOST_ROWS).max(1);
    let some: Vec<&ExpertRow> = rows.iter().step_by(step).copied().collect();
    let of = |values: &[f64; 10]| {
        let mut constants = ExpertConstants {
            start_us: 0.0,
            row_ns: 0.0,
            weights: 0.0,
            rows: 0.0,
            all: 0.0,
            flops: [0.0; 4],
            exposed: 0.0,
        };
        constants.numbers().into_iter().zip(values).for_each(|(number, value)| *number = *value);
        constants
    };
    let cost = |values: &[f64; 10]| -> f64 {
        let constants = of(values);
        let left = |row: &&ExpertRow| {
            let (base, _) = device.expert_features(&row.shape, &constants);
            libm::log(base / row.seconds).abs().min(1.0)
        };
        some.iter().map(left).sum::<f64>() / some.len().max(1) as f64
    };
    Ok(of(&SEARCH.search(EXPECTED, [true; EXPECTED.len()], rounded, cost)?))
}
