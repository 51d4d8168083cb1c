//! Which tensors a model needs, by what it says of itself.

use super::{LayerTensor, Name};
use crate::model::{Input, Model, NormPlacement, QkNorm};

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
    let before = placement != NormPlacement::AfterBranch;
    let own = before && placement != NormPlacement::Parallel;
    part(before && norm.weight, LayerTensor::AttentionNorm, 1, hidden);
    part(before && norm.bias, LayerTensor::AttentionNormBias, 1, hidden);
    part(own && norm.weight, LayerTensor::FfnNorm, 1, hidden);
    part(own && norm.bias, LayerTensor::FfnNormBias, 1, hidden);
    let behind = matches!(placement, NormPlacement::AfterBranch | NormPlacement::Around);
    part(behind, LayerTensor::AttentionAfter, 1, hidden);
    part(behind, LayerTensor::FfnAfter, 1, hidden);
    part(true, LayerTensor::Q, q, hidden);
    part(true, LayerTensor::K, kv, hidden);
    part(true, LayerTensor::V, kv, hidden);
    part(true, LayerTensor::O, hidden, q);
    part(biases.qkv, LayerTensor::QBias, 1, q);
    part(biases.qkv, LayerTensor::KBias, 1, kv);
    part(biases.qkv, LayerTensor::VBias, 1, kv);
    part(biases.output, LayerTensor::OBias, 1, hidden);
    let (shared, whole) = (model.qk_norm == QkNorm::Head, model.qk_norm == QkNorm::Whole);
    part(shared, LayerTensor::QNorm, 1, model.head_dim);
    part(shared, LayerTensor::KNorm, 1, model.head_dim);
    part(whole, LayerTensor::QNorm, 1, q);
    part(whole, LayerTensor::KNorm, 1, kv);
    let experts = model.experts.filter(|_| model.kind(layer).experts);
    let dense = experts.is_none();
    part(dense && model.gated, LayerTensor::Gate, ffn, hidden);
    part(dense, LayerTensor::Up, ffn, hidden);
    part(dense, LayerTensor::Down, hidden, ffn);
    part(dense && model.gated && biases.ffn, LayerTensor::GateBias, 1, ffn);
    part(dense && biases.ffn, LayerTensor::UpBias, 1, ffn);
    part(dense && biases.ffn, LayerTensor::DownBias, 1, hidden);
    if let Some(experts) = experts {
        part(true, LayerTensor::Router, experts.count, hidden);
        for expert in 0..experts.count as u32 {
            let mut each = |part, rows, width| all.push((Name::Each(layer, expert, part), rows, width));
            if model.gated {
                each(LayerTensor::Gate, experts.width, hidden);
            }
            each(LayerTensor::Up, experts.width, hidden);
            each(LayerTensor::Down, hidden, experts.width);
        }
    }
    if model.qk_norm == QkNorm::EachHead {
        let head = |part| move |head: u64| (Name::Each(layer, head as u32, part), 1, model.head_dim);
        all.extend((0..model.heads).map(head(LayerTensor::QNorm)));
        all.extend((0..model.kv_heads).map(head(LayerTensor::KNorm)));
    }
    all
}
