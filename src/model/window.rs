//! What layers see and how they rotate, layer by layer: sliding windows, chunks, layers without positions.

use super::json::Object;
use super::{Kind, Model, ROWS, Rotation};
use crate::error::Result;

/// Which layers have a window, and how wide it is.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Key of the width; empty: no layer of the family has a window.
    pub key: &'static str,
    /// The width where the key is absent; 0: none.
    pub default: u64,
    /// A truth key that must be set for any window to act; empty: none is needed.
    pub switch: &'static str,
    /// Which layers have one where `layer_types` does not say.
    pub every: Every,
}

/// Which layers have a window.
#[derive(Clone, Copy)]
pub(super) enum Every {
    /// All.
    Layer,
    /// The first, the third and so on.
    Odd,
    /// All but every n-th; n under a key, with a value for its absence.
    Pattern(&'static str, u64),
    /// Those from a number on, under a key (Qwen: `max_window_layers`, absent 28).
    From(&'static str, u64),
    /// Those that rotate nothing (SmolLM3).
    Unrotated,
    /// Those that rotate (Llama 4).
    Rotated,
}

impl Window {
    pub const NONE: Window = Window { key: "", default: 0, switch: "", every: Every::Layer };
    pub const ALL: Window = Window { key: "sliding_window", ..Window::NONE };
    pub const QWEN: Window = Window {
        default: 4_096,
        switch: "use_sliding_window",
        every: Every::From("max_window_layers", 28),
        ..Window::ALL
    };
    /// Chunks (Llama 4): a token sees those of its own chunk.
    pub const CHUNKS: Window =
        Window { key: "attention_chunk_size", default: 8_192, switch: "", every: Every::Rotated };
}

/// Which layers rotate queries and keys, and how.
#[derive(Clone, Copy)]
pub(super) enum Rotates {
    /// All, alike.
    All,
    /// Those of a list of zeros and ones, else all but every n-th: `no_rope_layers`, `no_rope_layer_interval` (4).
    Listed,
    /// Those with a window (Cohere 2), or all where no layer has one.
    InWindows,
    /// All; those with a window by a base of their own under `rope_local_base_freq`, with this value for its absence.
    LocalInWindows(f64),
    /// All; those with a window without scaling.
    PlainInWindows,
}

/// Names in `layer_types`: whether they stand for a window.
const TYPES: [(&str, bool); 6] = [
    ("full_attention", false),
    ("sliding_attention", true),
    ("chunked_attention", true),
    ("deepseek_sparse_attention", false),
    ("indexed_attention", false),
    ("global_attention", false),
];

/// Sets the kinds of all layers. `experts`: which have them.
pub(super) fn set_kinds(
    model: &mut Model,
    config: &Object,
    (rotates, window): (Rotates, Window),
    experts: &[bool],
) -> Result<()> {
    let layers = model.layers as usize;
    let listed = match rotates {
        Rotates::Listed
            if config.get("no_rope_layers").is_some_and(|list| list != &serde_json::json!([])) =>
        {
            config.flags_of("no_rope_layers", layers)?
        }
        Rotates::Listed => {
            let every = config.number_or("no_rope_layer_interval", 4, ROWS)? as usize;
            (0..layers).map(|layer| !(layer + 1).is_multiple_of(every)).collect()
        }
        _ => vec![true; layers],
    };
    let windows = windows(model, config, window, &listed)?;
    let any = windows.iter().any(Option::is_some);
    let mut kinds = Vec::new();
    for (layer, &window) in windows.iter().enumerate() {
        let rotation = match rotates {
            _ if model.rope.is_none() => Rotation::Main,
            Rotates::LocalInWindows(_) | Rotates::PlainInWindows if window.is_some() => Rotation::Local,
            Rotates::Listed if !listed[layer] => Rotation::Off,
            Rotates::InWindows if any && window.is_none() => Rotation::Off,
            _ => Rotation::Main,
        };
        kinds.push(Kind { window, rotation, experts: experts.get(layer) == Some(&true), ..Kind::default() });
    }
    model.set_kinds(kinds);
    Ok(())
}

/// The window of each layer.
fn windows(model: &Model, config: &Object, rule: Window, rotated: &[bool]) -> Result<Vec<Option<u32>>> {
    let layers = model.layers as usize;
    let types = match config.get("layer_types") {
        None => None,
        Some(_) => {
            let types = config.texts("layer_types", layers)?;
            let windowed = |kind: &String| TYPES.iter().find(|(name, _)| name == kind).map(|(_, is)| *is);
            let known = TYPES.map(|(name, _)| name).join(", ");
            let unknown = || config.wrong("layer_types", format!("each one of {known}"));
            Some(types.iter().map(windowed).collect::<Option<Vec<bool>>>().ok_or_else(unknown)?)
        }
    };
    let none = vec![None; layers];
    if rule.key.is_empty() {
        return match types {
            Some(types) if types.contains(&true) => {
                Err(config.wrong("layer_types", "\"full_attention\" for every layer of this family"))
            }
            _ => Ok(none),
        };
    }
    let on = rule.switch.is_empty() || config.flag(rule.switch, false)?;
    // Where a switch is off, the width means nothing.
    let width = match config.is_null(rule.key) {
        true => 0,
        false => config.count_or(rule.key, rule.default, u64::MAX)?,
    };
    let width = u32::try_from(width).unwrap_or(u32::MAX);
    let marked: Vec<bool> = match (types, rule.every) {
        (Some(types), _) => types,
        (None, Every::Layer) => vec![true; layers],
        (None, Every::Odd) => (0..layers).map(|layer| layer % 2 == 0).collect(),
        (None, Every::Pattern(key, absent)) => {
            let every = if key.is_empty() { absent } else { config.number_or(key, absent, ROWS)? };
            (0..layers as u64).map(|layer| !(layer + 1).is_multiple_of(every)).collect()
        }
        (None, Every::From(key, absent)) => {
            let first = config.count_or(key, absent, u64::MAX)?;
            (0..layers as u64).map(|layer| layer >= first).collect()
        }
        (None, Every::Unrotated) => rotated.iter().map(|&rotated| !rotated).collect(),
        (None, Every::Rotated) => rotated.to_vec(),
    };
    if !on || width == 0 {
        return Ok(none);
    }
    Ok(marked.iter().map(|&marked| marked.then_some(width)).collect())
}
