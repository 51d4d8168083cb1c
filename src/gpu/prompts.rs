//! Prompts, and what is wrong with those that cannot be generated from.

use super::routing::Routing;
use crate::error::{InputError, Result};
use crate::model::{Model, Scaling};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Most tokens to generate.
    pub most: u32,
}

/// Sequences that would change the angles of all their tokens while they grow: two lists of divisors have a border, at which engines
/// compute everything anew.
pub(super) fn check_lengths(model: &Model, prompts: &[Prompt]) -> Result<()> {
    for rope in model.kinds.iter().filter_map(|kind| model.rope_of(kind)) {
        let Scaling::Long { original, .. } = rope.scaling else { continue };
        for (index, prompt) in prompts.iter().enumerate() {
            let (length, end) =
                (prompt.ids.len() as u64, prompt.ids.len() as u64 + u64::from(prompt.most) - 1);
            if length <= original && end > original {
                let what = format!(
                    "at most {original} tokens, generated ones included, or a prompt that is longer: there the angles change"
                );
                let found = format!("{length} tokens and up to {} more", prompt.most);
                return Err(InputError::expected(what).key(format!("prompt {index}")).found(found).into());
            }
        }
    }
    Ok(())
}

/// Prompts that are empty, too long, or not those of the trace that is followed.
pub(super) fn check_prompts(prompts: &[Prompt], routing: &Routing, positions: u32) -> Result<()> {
    for (index, prompt) in prompts.iter().enumerate() {
        let wrong = |found: u64, what: String| -> Result<()> {
            Err(InputError::expected(what)
                .key(format!("prompt {index}"))
                .found(format!("{found} tokens"))
                .into())
        };
        let tokens = prompt.ids.len() as u64;
        if tokens == 0 || prompt.most == 0 {
            return wrong(tokens, "at least one token, and at least one to generate".into());
        }
        if tokens + u64::from(prompt.most) > u64::from(positions) + 1 {
            return wrong(
                tokens + u64::from(prompt.most),
                format!("at most {positions} tokens, generated ones included"),
            );
        }
        if let Routing::Replay(trace) = routing {
            match trace.requests.get(index) {
                None => {
                    return wrong(
                        tokens,
                        format!("at most the {} requests of the trace", trace.requests.len()),
                    );
                }
                Some(request) if u64::from(request.prompt_tokens) != tokens => {
                    return wrong(
                        tokens,
                        format!(
                            "{} tokens, as request {} of the trace has",
                            request.prompt_tokens, request.id
                        ),
                    );
                }
                Some(request) if request.runs.is_empty() => {
                    return wrong(tokens, format!("routes for the tokens of request {}", request.id));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}
