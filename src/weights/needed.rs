//! Which tensors a model needs, by what it says of itself.

use super::{Name, Part};
use crate::model::{Input, Model, Placement, QkNorm};

/// Every tensor of a model: name, rows, width. Layer by layer as they are asked for: a config may name more layers and experts than any file has.
pub(crate) fn needed(model: &Model) -> impl Iterator<Item = (Name, u64, u64)> {
    let hidden = model.hidden;
    let mut all = Vec::new();
    let mut add = |wanted: bool, name, rows, width| all.extend(wanted.then_some((name, rows, width)));
    if let Input::Tokens { vocabulary, width } = model.input {
        add(true, Name::Embedding, vocabulary, width);
        add(width != hidden, Name::ProjectIn, hidden, width);
        add(width != hidden, Name::ProjectOut, width, hidden);
        add(!model.tied, Name::Head, model.outputs, width);
    }
    add(model.positions > 0, Name::Positions, model.positions, hidden);
    add(model.final_norm && model.norm.weight, Name::FinalNorm, 1, hidden);
    add(model.final_norm && model.norm.bias, Name::FinalNormBias, 1, hidden);
    all.into_iter().chain((0..model.layers).flat_map(|layer| of_layer(model, layer)))
}

fn of_layer(model: &Model, layer: u32) -> Vec<(Name, u64, u64)> {
    let (hidden, q, kv, ffn) = (model.hidden, model.q_dim(), model.kv_dim(), model.ffn);
    let (norm, biases, placement) = (model.norm, model.biases, model.placement);
    let mut all = Vec::new();
    let mut part = |wanted: bool, part, rows, width| {
        all.extend(wanted.then_some((Name::Layer(layer, part), rows, width)));
    };
    let before = placement != Placement::AfterBranch;
    let own = before && placement != Placement::Parallel;
    part(before && norm.weight, Part::AttentionNorm, 1, hidden);
    part(before && norm.bias, Part::AttentionNormBias, 1, hidden);
    part(own && norm.weight, Part::FfnNorm, 1, hidden);
    part(own && norm.bias, Part::FfnNormBias, 1, hidden);
    let behind = matches!(placement, Placement::AfterBranch | Placement::Around);
    part(behind, Part::AttentionAfter, 1, hidden);
    part(behind, Part::FfnAfter, 1, hidden);
    part(true, Part::Q, q, hidden);
    part(true, Part::K, kv, hidden);
    part(true, Part::V, kv, hidden);
    part(true, Part::O, hidden, q);
    part(biases.qkv, Part::QBias, 1, q);
    part(biases.qkv, Part::KBias, 1, kv);
    part(biases.qkv, Part::VBias, 1, kv);
    part(biases.output, Part::OBias, 1, hidden);
    let (shared, whole) = (model.qk_norm == QkNorm::Head, model.qk_norm == QkNorm::Whole);
    part(shared, Part::QNorm, 1, model.head_dim);
    part(shared, Part::KNorm, 1, model.head_dim);
    part(whole, Part::QNorm, 1, q);
    part(whole, Part::KNorm, 1, kv);
    let experts = model.experts.filter(|_| model.kind(layer).experts);
    let dense = experts.is_none();
    part(dense && model.gated, Part::Gate, ffn, hidden);
    part(dense, Part::Up, ffn, hidden);
    part(dense, Part::Down, hidden, ffn);
    part(dense && model.gated && biases.ffn, Part::GateBias, 1, ffn);
    part(dense && biases.ffn, Part::UpBias, 1, ffn);
    part(dense && biases.ffn, Part::DownBias, 1, hidden);
    if let Some(experts) = experts {
        part(true, Part::Router, experts.count, hidden);
        for expert in 0..experts.count as u32 {
            let mut each = |part, rows, width| all.push((Name::Each(layer, expert, part), rows, width));
            if model.gated {
                each(Part::Gate, experts.width, hidden);
            }
            each(Part::Up, experts.width, hidden);
            each(Part::Down, hidden, experts.width);
        }
    }
    if model.qk_norm == QkNorm::EachHead {
        let head = |part| move |head: u64| (Name::Each(layer, head as u32, part), 1, model.head_dim);
        all.extend((0..model.heads).map(head(Part::QNorm)));
        all.extend((0..model.kv_heads).map(head(Part::KNorm)));
    }
    all
}
