//! Parameters of the part that sees images: it lies in memory beside the text's, and writes nothing.

use super::json::Object;
use super::{FFN, LAYERS, Model, ROWS, WIDTH};
use crate::error::Result;

/// Adds the parameters of the vision part to [`Model::beside`], or remarks that they are not counted.
pub(super) fn add(model: &mut Model, config: &Object) -> Result<()> {
    let Some(vision) = config.object("vision_config")? else { return Ok(()) };
    let kind = config.text("model_type")?.unwrap_or_default();
    let counted = match kind {
        "qwen3_vl" | "qwen3_vl_moe" => Some(qwen3_vl(&vision)?),
        "qwen2_5_vl" => Some(qwen2_5_vl(&vision)?),
        "gemma3" => Some(gemma3(&vision, model.hidden)?),
        "kimi_k25" => Some(kimi_k25(&vision, model.hidden)?),
        _ => None,
    };
    match counted {
        Some(count) => model.beside = count,
        None => model.remarks.push("vision_config: the part that sees images is not counted".into()),
    }
    Ok(())
}

/// Values of a product with bias.
fn linear(from: u64, to: u64) -> u64 {
    from * to + to
}

/// A layer of a vision transformer: two layer norms, four products of attention and two of the feed-forward part, all with biases.
fn vit_layer(width: u64, ffn: u64) -> u64 {
    2 * 2 * width + linear(width, 3 * width) + linear(width, width) + linear(width, ffn) + linear(ffn, width)
}

/// `Qwen3VLVisionModel`: patches over time, learned positions, a merger at the end and one for each layer that feeds the text.
fn qwen3_vl(config: &Object) -> Result<u64> {
    let width = config.number("hidden_size", WIDTH)?;
    let ffn = config.number("intermediate_size", FFN)?;
    let side = config.number_or("patch_size", 16, 1 << 12)?;
    let time = config.number_or("temporal_patch_size", 2, 1 << 8)?;
    let merged = width * config.number_or("spatial_merge_size", 2, 1 << 6)?.pow(2);
    let to = config.number("out_hidden_size", WIDTH)?;
    let deep = config.numbers("deepstack_visual_indexes")?.len() as u64;
    let patches = linear(config.number_or("in_channels", 3, 1 << 8)? * time * side * side, width);
    let merger = |norm: u64| 2 * norm + linear(merged, merged) + linear(merged, to);
    Ok(patches
        + config.number_or("num_position_embeddings", 2_304, ROWS)? * width
        + config.number("depth", LAYERS)? * vit_layer(width, ffn)
        + merger(width)
        + deep * merger(merged))
}

/// `Qwen2_5_VisionTransformerPretrainedModel`: RMS norms, gated feed-forward parts with biases, no learned positions.
fn qwen2_5_vl(config: &Object) -> Result<u64> {
    let width = config.number("hidden_size", WIDTH)?;
    let ffn = config.number("intermediate_size", FFN)?;
    let side = config.number_or("patch_size", 14, 1 << 12)?;
    let time = config.number_or("temporal_patch_size", 2, 1 << 8)?;
    let merged = width * config.number_or("spatial_merge_size", 2, 1 << 6)?.pow(2);
    let to = config.number("out_hidden_size", WIDTH)?;
    let channels = config.number_or(config.first_of(&["in_channels", "in_chans"]), 3, 1 << 8)?;
    let layer = 2 * width
        + linear(width, 3 * width)
        + linear(width, width)
        + 2 * linear(width, ffn)
        + linear(ffn, width);
    let merger = width + linear(merged, merged) + linear(merged, to);
    Ok(channels * time * side * side * width + config.number("depth", LAYERS)? * layer + merger)
}

/// `SiglipVisionModel` without its pooling head, with Gemma's projector: an RMS norm and one matrix.
fn gemma3(config: &Object, text: u64) -> Result<u64> {
    let width = config.number_or("hidden_size", 1_152, WIDTH)?;
    let ffn = config.number_or("intermediate_size", 4_304, FFN)?;
    let side = config.number_or("patch_size", 14, 1 << 12)?;
    let image = config.number_or("image_size", 896, 1 << 14)?;
    let patches = linear(config.number_or("num_channels", 3, 1 << 8)? * side * side, width);
    let positions = (image / side).pow(2) * width;
    let layers = config.number_or("num_hidden_layers", 27, LAYERS)?;
    Ok(patches + positions + layers * vit_layer(width, ffn) + 2 * width + width + width * text)
}

/// `MoonViT3d` of Kimi K2.5 with its projector (`modeling_kimi_k25.py`).
fn kimi_k25(config: &Object, text: u64) -> Result<u64> {
    let width = config.number(config.first_of(&["vt_hidden_size", "hidden_size"]), WIDTH)?;
    let ffn = config.number(config.first_of(&["vt_intermediate_size", "intermediate_size"]), FFN)?;
    let layers = config.number(config.first_of(&["vt_num_hidden_layers", "num_hidden_layers"]), LAYERS)?;
    let side = config.number_or("patch_size", 14, 1 << 12)?;
    let rows = config.number_or("init_pos_emb_height", 64, ROWS)?
        * config.number_or("init_pos_emb_width", 64, ROWS)?;
    let patches = linear(3 * side * side, width);
    let merged = 4 * width;
    let projector = 2 * width + linear(merged, merged) + linear(merged, text);
    Ok(patches + rows * width + layers * vit_layer(width, ffn) + 2 * width + projector)
}
