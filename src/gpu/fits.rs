//! What the executor runs, and what it refuses: by name, before anything is uploaded.

use super::pass_io::Oracle;
use crate::error::{InputError, Result};
use crate::model::{Activation, Gating, Input, Model, NormPlacement, Rotation, Scaling};
use crate::trace::RouterDevice;

/// Shapes and arithmetic that the kernels cannot run.
pub(super) fn check_model(model: &Model) -> Result<()> {
    let no = |key: &str, found: &dyn std::fmt::Display, what: &str| {
        Err(InputError::expected(what).key(key).found(found).into())
    };
    if !matches!(model.input, Input::Tokens { .. }) || model.outputs == 0 {
        return no("model", &model.name, "a language model, which reads and writes tokens");
    }
    let table = if let Input::Tokens { width, .. } = model.input { width } else { 0 };
    let expert = model.experts.map_or(0, |experts| experts.width);
    for (key, value) in [
        ("hidden", model.hidden),
        ("head_dim", model.head_dim),
        ("ffn", model.ffn),
        ("input.width", table),
        ("experts.width", expert),
    ] {
        if value % 4 != 0 {
            return no(key, &value, "a multiple of 4, as the kernels take four values at a time");
        }
    }
    if model.latent.is_some() {
        return no(
            "latent",
            &model.name,
            "keys and values of each head, as latent attention is not executed",
        );
    }
    if let Some(products) = model.products {
        let what = "inputs of products as the activations are, as quantised ones are not executed";
        return no("products", &products, what);
    }
    if model.activation == Activation::Other {
        return no("activation", &"another", "SiLU, GELU (exact, tanh or quick) or ReLU (plain or squared)");
    }
    if model.norm.bias && !model.norm.layer {
        return no("norm.bias", &true, "RMS norms without biases");
    }
    if model.biases.head {
        return no("biases.head", &true, "a head without biases");
    }
    if let Some(experts) = model.experts {
        for (key, has) in [
            ("experts.shared_width", experts.shared_width > 0),
            ("experts.choice_bias", experts.choice_bias),
            ("experts.router_bias", experts.router_bias),
            ("experts.groups", experts.groups.1 < experts.groups.0),
        ] {
            if has {
                let what = "experts that a softmax or sigmoid of plain scores chooses, without shared ones";
                return no(key, &model.name, what);
            }
        }
        debug_assert!(matches!(experts.gating, Gating::Softmax | Gating::Sigmoid));
    }
    let ropes: Vec<_> = model.kinds.iter().filter_map(|kind| model.rope_of(kind)).collect();
    if let Some(other) =
        ropes.iter().find(|rope| (rope.width, rope.interleaved) != (ropes[0].width, ropes[0].interleaved))
    {
        return no("rope.width", &other.width, "the same turning values of a head in all layers");
    }
    match model.remarks.first() {
        Some(remark) => no("config", remark, "keys that are known, as this one may change the arithmetic"),
        None => Ok(()),
    }
}

/// An oracle leaves branches out by what they add, behind which nothing else may happen to the stream.
pub(super) fn check_oracle(model: &Model, oracle: &Oracle) -> Result<()> {
    let leaves_out = oracle.attention > 0.0 || oracle.feed_forward > 0.0;
    if leaves_out && model.placement == NormPlacement::AfterSum {
        let what = "thresholds of 0, as this model norms the stream behind each branch";
        return Err(InputError::expected(what).key("oracle").found(&model.name).into());
    }
    Ok(())
}

/// What a router on the device cannot do, as the host does not know the layers.
pub(super) fn check_router(model: &Model, device: RouterDevice) -> Result<()> {
    let simple = model
        .kinds
        .iter()
        .all(|kind| kind.window.is_none() && !kind.experts && kind.rotation == Rotation::Main);
    let fits = simple
        && matches!(
            model.placement,
            NormPlacement::Before | NormPlacement::AfterBranch | NormPlacement::Around
        );
    if device == RouterDevice::Host || fits {
        return Ok(());
    }
    let what = "host, where layers have windows, experts, other rotations, parallel branches or norms behind their sums";
    Err(InputError::expected(what).key("router.device").found("gpu").into())
}

/// Whether angles depend on the length of the sequence.
pub(super) fn grows(model: &Model) -> bool {
    let of =
        |rope: &crate::model::Rope| matches!(rope.scaling, Scaling::Dynamic { .. } | Scaling::Long { .. });
    model.kinds.iter().filter_map(|kind| model.rope_of(kind)).any(of)
}

/// Whether the kernel of the decisions takes a hidden layer of this width.
pub(super) fn check_hidden(hidden: u32) -> Result<()> {
    if hidden == 0 || hidden > 1024 || !hidden.is_multiple_of(4) {
        let what = "a multiple of 4 from 4 to 1024";
        return Err(InputError::expected(what).key("router.hidden").found(hidden).into());
    }
    Ok(())
}
