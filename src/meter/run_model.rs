//! Which network a row of a table means.

use crate::model::{Model, builtin_names};
use crate::units::Dtype;

/// A network, and whether it only stands in for one whose shapes are not known here.
#[derive(Clone, Debug, PartialEq)]
pub struct RunModel {
    /// The network, in the format of the row.
    pub model: Model,
    /// Shapes are those of the built-in model of the nearest size, with a feed-forward part that makes up the difference.
    pub stands_in: bool,
}

/// Published under another name than the model whose shapes they share, as parts of names.
const ALIKE: [(&str, &str); 3] = [
    // Llama 3.3: model card of meta-llama/Llama-3.3-70B-Instruct.
    ("llama-3.3", "llama-3.1"),
    ("mistral-nemo", "mistral-nemo-12b"),
    ("mistral-small", "mistral-small-24b"),
];

/// A built-in model may be so far from the size that the table states, as a factor: vision parts are left out here.
const SIZE_SLACK: f64 = 1.2;

/// The network of this name (`Qwen/Qwen3-VL-8B-Instruct`), with so many parameters in billions, in this format. Of models
/// that also see, the part that reads and writes text. Nothing where neither name nor size is of use.
pub fn shape_of(id: &str, billions: Option<f64>, format: Dtype) -> Option<RunModel> {
    let in_format = |model: Model| {
        let activations = model.activations;
        if format == model.weights { model } else { model.with_formats(format, activations, activations) }
    };
    let size = |model: &Model| model.total_params() as f64 / 1e9;
    let near = |model: &Model| {
        billions.is_none_or(|stated| (size(model) / stated).max(stated / size(model)) <= SIZE_SLACK)
    };
    if let Some(model) = by_name(id).filter(near) {
        return Some(RunModel { model: in_format(model), stands_in: false });
    }
    let stated = billions.filter(|stated| (0.1..1000.0).contains(stated))?;
    let distance = |model: &Model| libm::fabs(libm::log(size(model) / stated));
    let texts = builtin_names().filter_map(Model::builtin).filter(|model| model.gated);
    let nearest = texts.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
    let missing = (stated - size(&nearest)) * 1e9;
    let wider = nearest.ffn as f64 + missing / (3.0 * f64::from(nearest.layers) * nearest.hidden as f64);
    // In steps of 128, as published models have them.
    let ffn = ((wider / 128.0).round() * 128.0).max(128.0) as u64;
    let name = format!("{id}, with shapes like {}", nearest.name);
    let model = Model { name, ffn, ..nearest };
    near(&model).then(|| RunModel { model: in_format(model), stands_in: true })
}

/// The built-in model whose name's parts all stand in this name, in their order; the longest such name.
fn by_name(id: &str) -> Option<Model> {
    let name = id.rsplit('/').next().unwrap_or(id).to_lowercase().replace('_', "-");
    let name = ALIKE.iter().fold(
        name,
        |name, (from, to)| {
            if name.contains(to) { name } else { name.replace(from, to) }
        },
    );
    let within = |known: &str| {
        let mut parts = name.split('-');
        known.split('-').all(|part| parts.any(|other| other == part))
    };
    let known = builtin_names().filter(|known| within(known)).max_by_key(|known| known.len())?;
    Model::builtin(known)
}
