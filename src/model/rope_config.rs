//! Rotations as configurations write them: `rope_theta`, `rope_scaling`, `rope_parameters`, `partial_rotary_factor`,
//! under old names and new ones, for all layers or for each type of them.

use super::families::Family;
use super::json::Object;
use super::window::Rotates;
use super::{Model, Rope, Scaling};
use crate::error::Result;

/// Reads the model's rotations; its widths of heads and its context are known.
pub(super) fn read(model: &mut Model, config: &Object, family: &Family) -> Result<()> {
    let Some(theta) = family.theta else {
        (model.rope, model.local_rope) = (None, None);
        return Ok(());
    };
    let parameters = config.object("rope_parameters")?.filter(|object| !object.is_empty());
    let scaling = config.object("rope_scaling")?.filter(|object| !object.is_empty());
    let nested = |kind: &str| -> Result<Option<Object>> {
        parameters.as_ref().map_or(Ok(None), |parameters| parameters.object(kind))
    };
    let (full, sliding) = (nested("full_attention")?, nested("sliding_attention")?);
    let by_type = full.is_some() || sliding.is_some();
    // In new files all stands in one object; in old ones theta stands beside the scaling.
    let main = if by_type { full.as_ref() } else { parameters.as_ref() };
    let width = width(model, config, family, main)?;
    let theta_key = config.first_of(&["rope_theta", "rotary_emb_base", "rotary_base"]);
    let theta = config.positive_or(theta_key, theta)?;
    let of = |object: Option<&Object>, theta: f64, remarks: &mut Vec<String>| -> Result<Rope> {
        let theta = object.map_or(Ok(theta), |object| object.positive_or("rope_theta", theta))?;
        let scaling = match object {
            Some(object) => read_scaling(model, config, object, width)?,
            None => Scaling::None,
        };
        if let Some(object) = object {
            remarks.extend(object.unread().map(|(key, value)| object.named(key, value)));
        }
        let interleaved =
            if family.latent { config.flag("rope_interleave", true)? } else { family.interleaved };
        Ok(Rope { theta, width, interleaved, scaling })
    };
    let mut remarks = Vec::new();
    let rope = of(scaling.as_ref().or(main), theta, &mut remarks)?;
    // Theta of new files stands beside an old scaling only where both are there.
    let rope = match (&scaling, main) {
        (Some(_), Some(main)) => Rope { theta: main.positive_or("rope_theta", rope.theta)?, ..rope },
        _ => rope,
    };
    let local = match family.rotates {
        Rotates::LocalInWindows(absent) => {
            let theta = config.positive_or("rope_local_base_freq", absent)?;
            Some(of(sliding.as_ref(), theta, &mut remarks)?)
        }
        Rotates::PlainInWindows => Some(of(sliding.as_ref(), theta, &mut remarks)?),
        _ => None,
    };
    (model.rope, model.local_rope) = (Some(rope), local);
    model.remarks.extend(remarks);
    Ok(())
}

/// Values of a head that turn.
fn width(model: &Model, config: &Object, family: &Family, rope: Option<&Object>) -> Result<u64> {
    if let Some(latent) = model.latent {
        return Ok(latent.rope_dim);
    }
    if config.get("rotary_dim").is_some() {
        return config.number("rotary_dim", model.head_dim);
    }
    let key = config.first_of(&["partial_rotary_factor", "rotary_pct", "rope_pct"]);
    let share = config.positive_or(key, family.partial)?;
    let share = rope.map_or(Ok(share), |rope| rope.positive_or("partial_rotary_factor", share))?;
    if share > 1.0 {
        return Err(config.wrong(key, "a share of at most 1"));
    }
    // int(head_dim * share) in Python cuts; an odd rest cannot turn.
    let width = (model.head_dim as f64 * share) as u64;
    if width < 2 || !width.is_multiple_of(2) {
        return Err(config.wrong(key, format!("an even number of turning values of a head, not {width}")));
    }
    Ok(width)
}

/// The scaling that an object names by `rope_type` (old: `type`).
fn read_scaling(model: &Model, config: &Object, object: &Object, width: u64) -> Result<Scaling> {
    // Sections of positions of images; a text has the same position in all of them.
    for key in ["mrope_section", "mrope_interleaved", "rope_theta", "partial_rotary_factor", "finetuned"] {
        object.pass_over(key);
    }
    let key = if object.get("rope_type").is_some() { "rope_type" } else { "type" };
    object.pass_over("type");
    let Some(kind) = object.text(key)? else {
        // Without a type, transformers turns as if there were no scaling; whoever wrote a factor meant another thing.
        return Ok(Scaling::None);
    };
    let pairs = (width / 2) as usize;
    let trained = || -> Result<u64> {
        let key = "original_max_position_embeddings";
        let absent = if model.context > 0 { model.context } else { 1 };
        match config.get(key) {
            Some(_) => config.number(key, u64::MAX),
            None => object.number_or(key, absent, u64::MAX),
        }
    };
    let needed = |key: &str| match object.get(key) {
        Some(_) => object.positive_or(key, 1.0),
        None => Err(object.wrong(key, "a number above 0")),
    };
    match kind {
        "default" | "mrope" => {
            object.pass_over("original_max_position_embeddings");
            Ok(Scaling::None)
        }
        "linear" => Ok(Scaling::Linear { factor: needed("factor")? }),
        "dynamic" => {
            object.pass_over("original_max_position_embeddings");
            Ok(Scaling::Dynamic { factor: needed("factor")?, original: model.context.max(1) })
        }
        "llama3" => {
            let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
            if high <= low {
                return Err(object.wrong("high_freq_factor", format!("a number above low_freq_factor {low}")));
            }
            object.pass_over("original_max_position_embeddings");
            Ok(Scaling::Llama3 { factor: needed("factor")?, low, high, original: trained()? })
        }
        // Early files of Phi-3 call their lists yarn (transformers, Phi3Config).
        "yarn" | "deepseek_yarn" if object.get("short_factor").is_none() => {
            let original = trained()?;
            object.pass_over("original_max_position_embeddings");
            let factor = object.positive_or("factor", model.context as f64 / original as f64)?;
            // Peng et al., arXiv 2309.00071, section 3.4: 0.1 ln s + 1, times a constant of the model's.
            let grown =
                |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 };
            let (mscale, all) = (object.real("mscale")?, object.real("mscale_all_dim")?);
            let amplitude = match (object.get("attention_factor"), mscale, all) {
                (Some(_), ..) => object.positive_or("attention_factor", 1.0)?,
                (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => grown(mscale) / grown(all),
                _ => grown(1.0),
            };
            Ok(Scaling::Yarn {
                factor,
                beta_fast: object.positive_or("beta_fast", 32.0)?,
                beta_slow: object.positive_or("beta_slow", 1.0)?,
                original,
                amplitude,
                truncate: object.flag("truncate", true)?,
            })
        }
        "longrope" | "su" | "yarn" => {
            let original = trained()?;
            object.pass_over("original_max_position_embeddings");
            let factor = object.positive_or("factor", model.context as f64 / original as f64)?;
            // Ding et al., arXiv 2402.13753, section 3.3: sqrt(1 + ln s / ln L).
            let amplitude = if factor <= 1.0 {
                1.0
            } else {
                libm::sqrt(1.0 + libm::log(factor) / libm::log(original.max(2) as f64))
            };
            Ok(Scaling::Long {
                short: object.positives("short_factor", pairs)?,
                long: object.positives("long_factor", pairs)?,
                original,
                amplitude: object.positive_or("attention_factor", amplitude)?,
            })
        }
        _ => Err(object.wrong(key, "one of default, linear, dynamic, llama3, yarn, longrope, su, mrope")),
    }
}

/// Most tokens of a sequence. Engines multiply what the file says by the factor of a scaling, but for those whose files give the
/// length after scaling (vLLM, `_get_and_verify_max_len`).
pub(super) fn context(model: &Model, stated: u64) -> u64 {
    let times = |length: u64, factor: f64| (length as f64 * factor).min(u64::MAX as f64 / 2.0) as u64;
    match model.rope.as_ref().map(|rope| &rope.scaling) {
        Some(Scaling::Linear { factor } | Scaling::Dynamic { factor, .. }) => times(stated, *factor),
        Some(Scaling::Yarn { factor, original, .. }) => times(*original, *factor).max(stated),
        _ => stated,
    }
}
