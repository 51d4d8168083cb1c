//! The tokenizer and the chat templates that a GGUF file holds (ggml's `docs/gguf.md`; defaults as in llama.cpp,
//! `src/llama-vocab.cpp`).

use super::chat::{Chat, Template};
use super::gguf::{Gguf, Value};
use super::split::Split;
use super::vocabulary::{self, TokenizerKind, Vocabulary};
use crate::error::Result;

/// Ids that templates know as texts: key, name in a template.
const SPECIAL: [(&str, &str); 6] = [
    ("bos_token_id", "bos_token"),
    ("eos_token_id", "eos_token"),
    ("unknown_token_id", "unk_token"),
    ("seperator_token_id", "sep_token"),
    ("padding_token_id", "pad_token"),
    ("mask_token_id", "mask_token"),
];

/// Special tokens that end a turn whether or not a key says so (llama.cpp, `special_eog_ids`).
const ENDS: [&str; 14] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
];

/// The tokenizer that the file holds.
pub fn words(gguf: &Gguf) -> Result<Vocabulary> {
    let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
    let whole = |value: &Value| if let Value::Whole(whole) = value { Some(*whole) } else { None };
    let tokens = gguf.list(&key("tokens"), "texts", text)?;
    let count = tokens.len() as u64;
    let kinds = match gguf.get(&key("token_type")) {
        Some(_) => gguf.list(&key("token_type"), "whole numbers", whole)?,
        None => vec![vocabulary::NORMAL; tokens.len()],
    };
    if kinds.len() != tokens.len() {
        return Err(gguf.wrong(&key("token_type"), format!("{count}, one for each token")));
    }
    let id = |name: &str| match gguf.get(&key(name)) {
        None => Ok(None),
        Some(_) => gguf.whole(&key(name), 0..=count.saturating_sub(1)).map(|id| Some(id as u32)),
    };
    let score = |value: &Value| match value {
        Value::Float(score) => Some(*score),
        Value::Whole(score) => Some(*score as f64),
        _ => None,
    };
    let (kind, begin_by_default) = match gguf.text(&key("model"))? {
        "gpt2" => {
            let split = split(gguf)?;
            (
                TokenizerKind::Bytes {
                    merges: gguf.list(&key("merges"), "texts", text)?,
                    split,
                    compose: false,
                },
                split.begin,
            )
        }
        "llama" => {
            let scores = gguf.list(&key("scores"), "numbers", score)?;
            if scores.len() != tokens.len() {
                return Err(gguf.wrong(&key("scores"), format!("{count}, one for each token")));
            }
            (TokenizerKind::Scores { scores, prefix_space: flag(gguf, "add_space_prefix", true)? }, true)
        }
        _ => {
            return Err(gguf.wrong(&key("model"), "gpt2 or llama; vocabularies of other models are not read"));
        }
    };
    let by_score = matches!(kind, TokenizerKind::Scores { .. });
    // A vocabulary of SentencePiece has its three special tokens first where the file does not say.
    let or = |found: Option<u32>, default: u32| {
        found.or_else(|| (by_score && u64::from(default) < count).then_some(default))
    };
    let (bos, eos) = (or(id("bos_token_id")?, 1), or(id("eos_token_id")?, 2));
    let around = |name: &str, default: bool, id: Option<u32>, of: &str| {
        if !flag(gguf, name, default)? {
            Ok(None)
        } else if id.is_none() && flag(gguf, name, false)? {
            Err(gguf.wrong(&key(of), format!("the id of a token, as {} is true", key(name))))
        } else {
            Ok(id)
        }
    };
    let begin = around("add_bos_token", begin_by_default, bos, "bos_token_id")?;
    let finish = around("add_eos_token", false, eos, "eos_token_id")?;
    if flag(gguf, "add_sep_token", false)? {
        return Err(gguf.wrong(&key("add_sep_token"), "false, as language models have no separator"));
    }
    let mut end: Vec<u32> = [eos, id("eot_token_id")?, id("eom_token_id")?].into_iter().flatten().collect();
    end.extend(written_ends(&tokens, &kinds));
    let mut known = std::collections::HashSet::new();
    end.retain(|&id| known.insert(id));
    let mut chat = Chat { templates: templates(gguf)?, ..Chat::default() };
    for (name, called) in SPECIAL {
        let default = match name {
            "bos_token_id" => bos,
            "eos_token_id" => eos,
            "unknown_token_id" => or(id(name)?, 0),
            _ => id(name)?,
        };
        if let Some(id) = default {
            chat.tokens.insert(called.to_owned(), tokens[id as usize].clone());
        }
    }
    let unknown = if by_score { or(id("unknown_token_id")?, 0) } else { None };
    // llama.cpp knows these models by their name: white space behind their special tokens belongs to the tokens.
    let name = gguf.text("general.name").unwrap_or_default().to_lowercase();
    let strips = by_score && ["phi-3", "phi3"].iter().any(|part| name.contains(part));
    Ok(Vocabulary { tokens, kinds, kind, begin, begin_chats: true, finish, unknown, strips, end, chat })
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

fn flag(gguf: &Gguf, name: &str, default: bool) -> Result<bool> {
    match gguf.get(&key(name)) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(gguf.wrong(&key(name), "a truth value")),
    }
}

fn split(gguf: &Gguf) -> Result<&'static Split> {
    let name = key("pre");
    let unsaid = match gguf.get(&name) {
        None => true,
        Some(value) => *value == Value::Text("default".into()),
    };
    if unsaid {
        let what =
            "how text is cut, which this file does not say: convert the model again with a newer converter";
        return Err(gguf.wrong(&name, what));
    }
    let called = gguf.text(&name)?;
    Split::named(called).ok_or_else(|| gguf.wrong(&name, format!("one of {}", Split::names())))
}

/// Ends of a turn by their texts. Where a turn has calls, `<|end|>` ends a part of it.
fn written_ends(tokens: &[String], kinds: &[i128]) -> Vec<u32> {
    let special = |&(_, (token, kind)): &(u32, (&String, &i128))| {
        (*kind == vocabulary::CONTROL || *kind == vocabulary::ADDED) && ENDS.contains(&token.as_str())
    };
    let all: Vec<(u32, &str)> = (0..)
        .zip(tokens.iter().zip(kinds))
        .filter(special)
        .map(|(id, (token, _))| (id, token.as_str()))
        .collect();
    let has = |name: &str| all.iter().any(|(_, token)| *token == name);
    let parts = has("<|return|>") && has("<|call|>");
    all.iter().filter(|(_, token)| !(parts && *token == "<|end|>")).map(|(id, _)| *id).collect()
}

/// The template, and those with names (gguf-py, `add_chat_template`).
fn templates(gguf: &Gguf) -> Result<Vec<Template>> {
    const KEY: &str = "tokenizer.chat_template";
    let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
    let mut all = Vec::new();
    let mut add = |name: &str, key: &str| -> Result<()> {
        let text = gguf.text(key)?.to_owned();
        all.push(Template { name: name.into(), text, file: gguf.path.clone(), key: key.into() });
        Ok(())
    };
    if gguf.get(KEY).is_some() {
        add("default", KEY)?;
    }
    if gguf.get("tokenizer.chat_templates").is_some() {
        for name in gguf.list("tokenizer.chat_templates", "texts", text)? {
            if name != "default" {
                add(&name, &format!("{KEY}.{name}"))?;
            }
        }
    }
    Ok(all)
}
