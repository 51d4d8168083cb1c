//! What layers add to the residual stream, over several models: quantiles by layer, medians against depth and size, and the trend of both, beside
//! what was published.

use crate::error::{InputError, Result};
use crate::plot::{Body, Chart, ChartAxis, Line, Lines, Panel, Point, Spot, SpotPanel, Spots};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Shares of the values below each quantile.
pub const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// Their place among the quantiles: lower quartile, median, upper quartile.
const QUARTILES: [usize; 3] = [1, 2, 3];

/// What is measured, each as a share of the stream's length: with the branch or block added, or before it. A branch is attention or the feed-forward
/// part, both counted alike.
pub const KINDS: [&str; 4] =
    ["a branch, over output", "a block, over output", "a branch, over input", "a block, over input"];

/// Columns of a residual profile that make them up, kind by kind.
const COLUMNS: [&[&str]; 4] = [
    &["attn_over_output", "ffn_over_output"],
    &["block_over_output"],
    &["attn_over_input", "ffn_over_input"],
    &["block_over_input"],
];

/// Most rows of a profile: a row keeps 24 bytes.
const MOST_ROWS: u64 = 20_000_000;

/// Most layers of a model.
const MOST_LAYERS: u32 = 10_000;

/// How values are spread: [`QUANTILES`] of them.
pub type Quantiles = [f64; 5];

/// The profile of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerProfile {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub parameters: f64,
    /// Tokens that were measured.
    pub tokens: usize,
    /// Layer by layer, kind by kind.
    pub layers: Vec<[Quantiles; 4]>,
    /// Over all layers.
    pub all: [Quantiles; 4],
}

/// A median that somebody else measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedMedian {
    /// Which model, with where it was published.
    pub name: &'static str,
    /// Its layers.
    pub layers: f64,
    /// Its parameters.
    pub parameters: f64,
    /// Median contribution of its residual blocks to their output.
    pub median: f64,
}

/// Dotzel et al., Radial Networks, arXiv 2404.04900. Layers and parameters: Zhang et al., OPT, arXiv 2205.01068, table 1; Dosovitskiy et al., ViT, arXiv
/// 2010.11929, table 1.
pub const MARKS: [PublishedMedian; 3] = [
    PublishedMedian { name: "OPT-125M (arXiv 2404.04900)", layers: 12.0, parameters: 125e6, median: 0.20 },
    PublishedMedian { name: "OPT-66B (arXiv 2404.04900)", layers: 64.0, parameters: 66e9, median: 0.05 },
    PublishedMedian { name: "ViT-Huge (arXiv 2404.04900)", layers: 32.0, parameters: 632e6, median: 0.07 },
];

impl LayerProfile {
    /// Reads a table that `execute --residuals` wrote.
    ///
    /// # Errors
    /// A file that cannot be read, columns that are missing, numbers that cannot be, and layers without a token.
    pub fn read(name: &str, parameters: f64, path: &Path) -> Result<LayerProfile> {
        let file = File::open(path).map_err(crate::error::Error::io(path, "open"))?;
        read(name, parameters, file).map_err(|error| error.file(path).into())
    }
}

fn read(name: &str, parameters: f64, file: impl io::Read) -> std::result::Result<LayerProfile, InputError> {
    let malformed = |error: csv::Error| {
        let wrong = InputError::expected(format!("a table in CSV ({error})"));
        error.position().map_or(wrong.clone(), |place| wrong.line(place.line()))
    };
    let mut reader = csv::Reader::from_reader(io::BufReader::new(file));
    let header = reader.headers().map_err(malformed)?.clone();
    let place = |column: &str| {
        header.iter().position(|known| known == column).ok_or_else(|| {
            InputError::expected("a column of this name, as `execute --residuals` writes it")
                .key(column)
                .line(1)
        })
    };
    let layer_at = place("layer")?;
    let mut places = Vec::new();
    for columns in COLUMNS {
        places.push(
            columns
                .iter()
                .map(|column| Ok((*column, place(column)?)))
                .collect::<std::result::Result<Vec<_>, InputError>>()?,
        );
    }
    let mut values: Vec<[Vec<f32>; 4]> = Vec::new();
    for (rows, record) in (1..).zip(reader.records()) {
        let record = record.map_err(malformed)?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |key: &str, found: &str, expected: &str| {
            InputError::expected(expected).key(key).found(found).line(line)
        };
        if rows > MOST_ROWS {
            return Err(wrong("rows", "more", &format!("at most {MOST_ROWS}")));
        }
        let layer = record.get(layer_at).unwrap_or("");
        let layer: u32 = layer
            .parse()
            .ok()
            .filter(|&layer| layer < MOST_LAYERS)
            .ok_or_else(|| wrong("layer", layer, &format!("a layer below {MOST_LAYERS}")))?;
        if values.len() <= layer as usize {
            values.resize_with(layer as usize + 1, Default::default);
        }
        for (kind, columns) in places.iter().enumerate() {
            for (column, at) in columns {
                let cell = record.get(*at).unwrap_or("");
                let value = cell.parse().ok().filter(|value: &f32| value.is_finite() && *value >= 0.0);
                let value = value.ok_or_else(|| wrong(column, cell, "a finite number of at least 0"))?;
                values[layer as usize][kind].push(value);
            }
        }
    }
    if let Some(lost) = values.iter().position(|kinds| kinds[1].is_empty()) {
        return Err(InputError::expected("rows of every layer up to the last")
            .key("layer")
            .found(format!("none of {lost}")));
    }
    if values.is_empty() {
        return Err(InputError::expected("at least one row").found("none"));
    }
    let tokens = values[0][1].len();
    let all = std::array::from_fn(|kind| spread(values.iter().flat_map(|kinds| &kinds[kind]).copied()));
    let layers =
        values.iter().map(|kinds| std::array::from_fn(|kind| spread(kinds[kind].iter().copied()))).collect();
    Ok(LayerProfile { name: name.to_owned(), parameters, tokens, layers, all })
}

/// Values in their order, as doubles.
pub fn sorted(values: impl Iterator<Item = f32>) -> Vec<f64> {
    let mut values: Vec<f64> = values.map(f64::from).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which this share lies, between two neighbours in proportion (Hyndman and Fan, type 7). 0 of nothing.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// The quantiles of some values.
pub fn spread(values: impl Iterator<Item = f32>) -> Quantiles {
    let values = sorted(values);
    QUANTILES.map(|share| quantile(&values, share))
}

/// y = factor x^power through some points, by least squares of the logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// The power.
    pub power: f64,
    /// The logarithm of the factor.
    pub offset: f64,
    /// Standard error of the power; none for two points, which every power law fits.
    pub error: Option<f64>,
    /// Points.
    pub count: usize,
}

impl Trend {
    /// Through points above zero; none where fewer than two have different x.
    pub fn through(points: &[(f64, f64)]) -> Option<Trend> {
        let points: Vec<(f64, f64)> = points
            .iter()
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
            .map(|(x, y)| (libm::log(*x), libm::log(*y)))
            .collect();
        let count = points.len();
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count as f64;
        let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
        let x_square: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
        if count < 2 || x_square <= 1e-12 {
            return None;
        }
        let product: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
        let power = product / x_square;
        let offset = y_mean - power * x_mean;
        let left: f64 = points.iter().map(|(x, y)| (y - offset - power * x).powi(2)).sum();
        let error = (count > 2).then(|| (left / (count as f64 - 2.0) / x_square).sqrt());
        Some(Trend { power, offset, error, count })
    }

    /// The value of the line.
    pub fn at(&self, x: f64) -> f64 {
        libm::exp(self.offset + self.power * libm::log(x))
    }

    /// Half the 90 % interval of the power: Student's t times its standard error.
    pub fn half_width(&self) -> Option<f64> {
        let free = StudentsT::new(0.0, 1.0, self.count as f64 - 2.0).ok()?;
        Some(self.error? * free.inverse_cdf(0.95))
    }
}

/// What a median is held against.
const AGAINST: [&str; 2] = ["layers", "parameters"];

fn against(profile: &LayerProfile, which: usize) -> f64 {
    if which == 0 { profile.layers.len() as f64 } else { profile.parameters }
}

fn trend(profiles: &[LayerProfile], kind: usize, which: usize) -> Option<Trend> {
    let points: Vec<(f64, f64)> =
        profiles.iter().map(|profile| (against(profile, which), profile.all[kind][2])).collect();
    Trend::through(&points)
}

/// The models in a table, what was published, and the trends.
pub fn words(profiles: &[LayerProfile]) -> String {
    let mut text = format!("{:<28} {:>12} {:>6} {:>8}", "model", "parameters", "layers", "tokens");
    KINDS.iter().for_each(|kind| text += &format!(" {kind:>24}"));
    text.push('\n');
    for profile in profiles {
        let (name, parameters, layers) = (&profile.name, profile.parameters, profile.layers.len());
        let _ = write!(text, "{name:<28} {parameters:>12.4e} {layers:>6} {:>8}", profile.tokens);
        for [low, _, median, _, high] in profile.all {
            let cell = format!("{:.1} % ({:.1} to {:.1})", 100.0 * median, 100.0 * low, 100.0 * high);
            let _ = write!(text, " {cell:>24}");
        }
        text.push('\n');
    }
    for PublishedMedian { name, layers, parameters, median } in MARKS {
        let cell = format!("about {:.0} %", 100.0 * median);
        let _ = writeln!(text, "{name:<28} {parameters:>12.4e} {layers:>6} {:>8} {cell:>24}", "");
    }
    text += "\nMedians over tokens and layers, with the range of nine tenths. What was published is \"residual blocks\" over output.\n\n";
    text += "Trends, contribution as a power of depth or size, by least squares of logarithms over the models that were measured here:\n";
    for (kind, name) in KINDS.iter().enumerate() {
        for (which, against) in AGAINST.iter().enumerate() {
            let said = match trend(profiles, kind, which) {
                None => format!("no trend: it takes two models of different {against}"),
                Some(trend @ Trend { power, error, count, .. }) => match (error, trend.half_width()) {
                    (Some(error), Some(half)) => format!(
                        "{against}^{power:.3}, standard error {error:.3}, 90 % interval {:.3} to {:.3}, {count} models",
                        power - half,
                        power + half
                    ),
                    _ => format!(
                        "{against}^{power:.3} through two models, which every power fits: its error is not known"
                    ),
                },
            };
            let _ = writeln!(text, "{name:<24} {said}");
        }
    }
    text += "Models differ in more than depth and size, and in few models both grow together: a trend describes these, and predicts no other.\n";
    text
}

/// Writes the quantiles of every layer of every model, and over all layers (`all`), as CSV.
///
/// # Errors
/// What `out` refuses.
pub fn write(out: &mut dyn Write, profiles: &[LayerProfile]) -> io::Result<()> {
    let mut rows = csv::Writer::from_writer(out);
    rows.write_record(["model", "parameters", "layers", "layer", "kind", "q05", "q25", "q50", "q75", "q95"])?;
    for profile in profiles {
        let layers = profile.layers.iter().enumerate().map(|(layer, spreads)| (layer.to_string(), spreads));
        for (layer, spreads) in layers.chain([("all".to_owned(), &profile.all)]) {
            for (kind, spread) in KINDS.iter().zip(spreads) {
                let count = profile.layers.len().to_string();
                let head = [
                    profile.name.clone(),
                    profile.parameters.to_string(),
                    count,
                    layer.clone(),
                    (*kind).to_owned(),
                ];
                rows.write_record(head.into_iter().chain(spread.map(|value| value.to_string())))?;
            }
        }
    }
    rows.flush()
}

/// The pictures, each with a short name for its file: by layer, against depth, against size.
pub fn charts(profiles: &[LayerProfile]) -> [(&'static str, Chart); 3] {
    [("layers", by_layer(profiles)), ("depth", trends(profiles, 0)), ("size", trends(profiles, 1))]
}

const CONTRIBUTION: &str = "contribution, % of the stream";

fn by_layer(profiles: &[LayerProfile]) -> Chart {
    let line = |kind: usize, profile: &LayerProfile| {
        let count = profile.layers.len() as f64;
        let point = |(layer, spreads): (usize, &[Quantiles; 4])| {
            let [low, y, high] = QUARTILES.map(|at| 100.0 * spreads[kind][at]);
            Point { x: (layer as f64 + 0.5) / count, y, low, high, unsure: false }
        };
        Line { name: profile.name.clone(), points: profile.layers.iter().enumerate().map(point).collect() }
    };
    let panel = |(kind, name): (usize, &&str)| Panel {
        name: (*name).to_owned(),
        lines: profiles.iter().map(|profile| line(kind, profile)).collect(),
        marks: Vec::new(),
    };
    Chart {
        title: "What layers add to the residual stream".into(),
        summary: "Medians over tokens of each layer, with the middle half as a band, over the layer's place in its model.".into(),
        body: Body::Lines(Lines {
            x: ChartAxis { label: "depth in the model".into(), log: false },
            y: ChartAxis { label: CONTRIBUTION.into(), log: true },
            panels: KINDS.iter().enumerate().map(panel).collect(),
            steps: false,
        }),
    }
}

fn trends(profiles: &[LayerProfile], which: usize) -> Chart {
    let panel = |(kind, name): (usize, &&str)| {
        let spot = |profile: &LayerProfile| {
            let [low, y, high] = QUARTILES.map(|at| 100.0 * profile.all[kind][at]);
            let x = against(profile, which);
            Spot { name: profile.name.clone(), x, y, x_ends: [x; 2], y_ends: [low, high], unsure: false }
        };
        let mark = |mark: &PublishedMedian| {
            let (x, y) = (if which == 0 { mark.layers } else { mark.parameters }, 100.0 * mark.median);
            Spot { name: mark.name.into(), x, y, x_ends: [x; 2], y_ends: [y; 2], unsure: true }
        };
        // What was published is over output.
        let marks = MARKS.iter().filter(|_| kind < 2);
        let xs = || profiles.iter().map(|profile| against(profile, which));
        let ends = [xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max)];
        let lines = trend(profiles, kind, which).map(|trend| {
            ("least squares over the models".to_owned(), ends.map(|x| (x, 100.0 * trend.at(x))).to_vec())
        });
        SpotPanel {
            name: (*name).to_owned(),
            spots: profiles.iter().map(spot).chain(marks.map(mark)).collect(),
            lines: lines.into_iter().collect(),
            front: Vec::new(),
        }
    };
    Chart {
        title: format!("Contribution of residuals against {}", AGAINST[which]),
        summary: "Medians over tokens and layers of each model, with the middle half as a bar. Published medians stand beside them, without an error."
            .into(),
        body: Body::Spots(Spots {
            x: ChartAxis { label: AGAINST[which].into(), log: true },
            y: ChartAxis { label: CONTRIBUTION.into(), log: true },
            panels: KINDS.iter().enumerate().map(panel).collect(),
            corner: None,
        }),
    }
}
