//! What a model can do with the requests of a workload: how long a sequence may become, and whether it generates at all.

use super::Scenario;
use super::note::Note;
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::model::{Input, Model};
use crate::sched::{BeyondContext, Serving};
use crate::trace::Request;
use crate::workload::OutputsAgain;

/// Most tokens of a sequence: what the server says, else what the model's positions allow; `None`: nobody says.
///
/// # Errors
/// A server that promises more than the model has positions for, unless sequences may run beyond them.
fn limit(model: &Model, serving: &Serving) -> Result<Option<u64>> {
    let Some(said) = serving.max_model_len else { return Ok(Some(model.context).filter(|&most| most > 0)) };
    let said = u64::from(said);
    if model.context > 0 && said > model.context && serving.beyond_context != BeyondContext::Run {
        let what = format!("at most the {} tokens that {} has positions for", model.context, model.name);
        return Err(InputError::expected(what).key("serving.max_model_len").found(said).into());
    }
    Ok(Some(said))
}

/// Prompt and output of a request together.
fn length(request: &Request) -> u64 {
    u64::from(request.prompt_tokens) + u64::from(request.output_tokens)
}

/// Cuts requests to the limit, where the server is told to: outputs first, as engines stop there, then prompts from their end, which
/// keeps what a prefix is known by. Requests that have routes already are left to [`check`].
pub(super) fn cut(
    requests: &mut [Request],
    model: &Model,
    serving: &Serving,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let Some(most) = limit(model, serving)?.filter(|_| serving.beyond_context == BeyondContext::Cut) else {
        return Ok(());
    };
    if most < 2 {
        let what = "at least 2 tokens: one of a prompt and one of an output";
        return Err(InputError::expected(what).key("serving.max_model_len").found(most).into());
    }
    let mut count = 0;
    for request in requests.iter_mut().filter(|request| length(request) > most) {
        request.prompt_tokens = request.prompt_tokens.min((most - 1) as u32);
        request.output_tokens = (most - u64::from(request.prompt_tokens)) as u32;
        if let Some(block) = serving.prefix_block() {
            request.prefix.truncate(request.prompt_tokens.div_ceil(block) as usize);
        }
        count += 1;
    }
    if count > 0 {
        let why = format!("{count} of {} requests were longer and end there", requests.len());
        notes.push(Note::new("serving.beyond_context", format!("cut at {most} tokens"), why));
    }
    Ok(())
}

/// Whether the model can do what the requests ask for.
///
/// # Errors
/// The first request that is longer than a sequence may become, and the first that wants text from a model that writes none.
pub(super) fn check(
    requests: &[Request],
    model: &Model,
    serving: &Serving,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let writes = model.outputs > 0 && matches!(model.input, Input::Tokens { .. });
    if let Some(request) = requests.iter().find(|request| !writes && request.output_tokens > 1) {
        let key = format!("request {}", request.id);
        let what = format!("an output of 1 token: {} sees its input once and generates nothing", model.name);
        return Err(InputError::expected(what).key(key).found(request.output_tokens).into());
    }
    let Some(most) = limit(model, serving)? else { return Ok(()) };
    let longer: Vec<&Request> = requests.iter().filter(|request| length(request) > most).collect();
    let Some(first) = longer.first() else { return Ok(()) };
    if serving.beyond_context == BeyondContext::Run {
        let why = format!(
            "{} of {} requests are longer than {most} tokens and run all the same",
            longer.len(),
            requests.len()
        );
        notes.push(Note::new("serving.beyond_context", "run", why));
        return Ok(());
    }
    let found = format!("{} + {} tokens", first.prompt_tokens, first.output_tokens);
    let what = format!(
        "prompt and output of at most {most} tokens, the context of {}; serving.beyond_context = cut or run takes longer ones",
        model.name
    );
    Err(InputError::expected(what).key(format!("request {}", first.id)).found(found).into())
}

/// Says how much of the prompts may be outputs of earlier turns. vLLM and SGLang keep those too; here the server keeps blocks of prompts.
pub(super) fn remark_outputs(requests: &[Request], serving: &Serving, notes: &mut Vec<Note>) {
    let Some(block) = serving.prefix_block() else { return };
    let OutputsAgain { requests: count, tokens } = OutputsAgain::count(requests, block);
    if count > 0 {
        let value = format!("up to {tokens} prompt tokens of {count} requests");
        let why = "in blocks that outputs of earlier requests may have filled: engines keep those too, here they are computed again";
        notes.push(Note::new("serving.prefix_caching", value, why));
    }
}

/// What the model's files say and nothing here models, and what is assumed of it.
pub(super) fn remark(model: &Model, notes: &mut Vec<Note>) {
    for remark in &model.remarks {
        let (key, value) = remark.split_once(": ").unwrap_or((remark, ""));
        notes.push(Note::new(
            format!("model.{key}"),
            value,
            "in the model's files, and not modelled: times and sizes leave it out",
        ));
    }
    if model.kinds.iter().any(|kind| kind.window.is_some()) {
        let why = "where tokens skip a layer with a window, its entries are taken as spread evenly over the sequence";
        notes.push(Note::new("model.window", "", why));
    }
    if model.latent.is_some_and(|latent| latent.indexer.is_some()) {
        let why = "what chooses the entries that attention sees is counted in memory, and takes no time";
        notes.push(Note::new("model.indexer", "", why));
    }
}

/// What is said of experts where a variant does not say who takes which.
pub(super) fn remark_experts(model: &Model, scenario: &Scenario, notes: &mut Vec<Note>) {
    let Some(experts) = model.experts else { return };
    if scenario.experts.is_some() || scenario.variants.iter().all(|variant| variant.experts.is_some()) {
        return;
    }
    let value = format!("{} of {} a token", experts.per_token, experts.count);
    let why = "which experts a token takes is not read from traces: taken as independent and equally likely";
    notes.push(Note::new("model.experts", value, why));
}

/// What is said where calls of several sequences are priced by their mean context.
pub(super) fn remark_uneven(hardware: &Hardware, sequences: u32, notes: &mut Vec<Note>) {
    let knows = hardware.corrections.as_ref().is_some_and(|all| all.uneven.is_some());
    if knows || sequences == 1 {
        return;
    }
    let why = "attention over generated tokens is priced by the mean context of a call, as nobody measured uneven contexts on this device: in a \
               kernel that cuts none, a call takes up to half as long again (docs/COST_MODEL.md, Uneven contexts)";
    notes.push(Note::new("contexts", "even", why));
}
