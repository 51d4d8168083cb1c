//! The tokenizer, the chat templates and the ends of a generation in a folder as Hugging Face keeps models.

use super::chat::{Chat, Template};
use super::once;
use super::split::Split;
use super::text::text;
use super::tokenizer::Tokenizer;
use super::vocabulary::{CONTROL, NORMAL, TokenizerKind, Vocabulary};
use crate::error::{Error, InputError, Result};
use crate::json_text::{self, ObjectEntries};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;

/// Most tokens of a vocabulary: as many as `config.json` may say.
const MOST_TOKENS: u64 = 1 << 24;

/// Files of tokenizers that are not read.
const OTHERS: [&str; 4] = ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt"];

/// The tokenizer of a folder. `end`: what ends a generation, as the configurations say.
pub fn tokenizer(folder: &Path, end: &[u32]) -> Result<Tokenizer> {
    let chat = chat(folder)?;
    let file = folder.join("tokenizer.json");
    if file.exists() {
        let (path, config) = read(folder, "tokenizer_config.json")?;
        return Tokenizer::from_json(&file, end.to_vec(), chat, &added(&path, &config)?);
    }
    if folder.join("vocab.json").exists() && folder.join("merges.txt").exists() {
        let words = listed(folder, end, chat)?;
        return Tokenizer::listed(&words).map_err(|error| error.in_file(folder.join("vocab.json")));
    }
    let wrong = InputError::expected(
        "a tokenizer.json, or vocab.json with merges.txt; transformers writes one by \
         AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
    );
    let other = OTHERS.into_iter().find(|name| folder.join(name).exists());
    Err(other.into_iter().fold(wrong, InputError::found).key("tokenizer").file(file).into())
}

/// `added_tokens_decoder` of a configuration, by id.
fn added(path: &Path, config: &Value) -> Result<Vec<(u32, AddedToken)>> {
    const KEY: &str = "added_tokens_decoder";
    let one = |(id, token): (&String, &Value)| {
        let id = id.parse().ok().filter(|&id: &u32| u64::from(id) < MOST_TOKENS)?;
        let flag = |key: &str, absent| token.get(key).map_or(Some(absent), Value::as_bool);
        let special = flag("special", false)?;
        let added = AddedToken::from(token.get("content")?.as_str()?, special)
            .normalized(flag("normalized", !special)?)
            .single_word(flag("single_word", false)?)
            .lstrip(flag("lstrip", false)?)
            .rstrip(flag("rstrip", false)?);
        Some((id, added))
    };
    let listed = config.get(KEY).and_then(Value::as_object).into_iter().flatten();
    let all: Option<Vec<_>> = listed.map(one).collect();
    let mut all = all.ok_or_else(|| {
        let what = "ids below 2^24, each with an object that has `content` and flags";
        Error::from(InputError::expected(what).key(KEY).file(path))
    })?;
    all.sort_by_key(|(id, _)| *id);
    Ok(all)
}

/// Ids that end a generation: those of the generation's configuration, else of the model's (or of its part that writes text).
pub fn end_ids(folder: &Path, config: &Value) -> Result<Vec<u32>> {
    let (_, generation) = read(folder, "generation_config.json")?;
    let places = [Some(&generation), Some(config), config.get("text_config")];
    let mut found = places.into_iter().filter_map(|keys| keys?.get("eos_token_id"));
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    Ok(match found.find(|value| !value.is_null()) {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    })
}

/// A file of JSON; `None` where there is none.
fn json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = text(path)? else { return Ok(None) };
    let read = json_text::from_slice(text.as_bytes(), "a file of JSON");
    read.map(Some).map_err(|error| error.file(path).into())
}

/// Chat templates wherever they are kept, those of files before those of configurations, and special tokens.
fn chat(folder: &Path) -> Result<Chat> {
    let mut templates: Vec<Template> = Vec::new();
    let mut add = |more: Vec<Template>| {
        for template in more {
            if templates.iter().all(|known| known.name != template.name) {
                templates.push(template);
            }
        }
    };
    add(template_files(folder)?);
    let (path, config) = read(folder, "tokenizer_config.json")?;
    add(templates_of(&path, &config)?);
    for name in ["chat_template.json", "processor_config.json"] {
        let (path, keys) = read(folder, name)?;
        add(templates_of(&path, &keys)?);
    }
    let (_, map) = read(folder, "special_tokens_map.json")?;
    let mut tokens = BTreeMap::new();
    for keys in [&map, &config] {
        for (name, value) in keys.as_object().into_iter().flatten() {
            if let Some(token) = token(value).filter(|_| name.ends_with("_token")) {
                tokens.insert(name.clone(), token.to_owned());
            }
        }
    }
    Ok(Chat { templates, tokens })
}

/// A file's path and its keys; null where there is no such file.
fn read(folder: &Path, name: &str) -> Result<(PathBuf, Value)> {
    let path = folder.join(name);
    let keys = json(&path)?.unwrap_or_default();
    Ok((path, keys))
}

/// A special token: a text, or an object with its text.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// `chat_template.jinja`, and those with names in `additional_chat_templates`.
fn template_files(folder: &Path) -> Result<Vec<Template>> {
    let mut found = vec![("default".to_owned(), folder.join("chat_template.jinja"))];
    let more = folder.join("additional_chat_templates");
    if more.is_dir() {
        for entry in std::fs::read_dir(&more).map_err(Error::io(&more, "read"))? {
            let path = entry.map_err(Error::io(&more, "read"))?.path();
            if path.extension().is_some_and(|ending| ending == "jinja") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                found.push((name, path));
            }
        }
        found.sort();
    }
    let mut all = Vec::new();
    for (name, file) in found {
        if let Some(text) = text(&file)? {
            all.push(Template { name, text, file, key: String::new() });
        }
    }
    Ok(all)
}

/// `chat_template` of a configuration: a text, or a list of names and texts.
fn templates_of(path: &Path, keys: &Value) -> Result<Vec<Template>> {
    const KEY: &str = "chat_template";
    let wrong = || -> Error {
        let what = "a text, or a list of objects with `name` and `template`";
        InputError::expected(what).key(KEY).file(path).into()
    };
    let template = |name: &str, text: &str| Template {
        name: name.to_owned(),
        text: text.to_owned(),
        file: path.to_owned(),
        key: KEY.into(),
    };
    match keys.get(KEY) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![template("default", text)]),
        Some(Value::Array(list)) => {
            let one = |entry: &Value| {
                Some(template(entry.get("name")?.as_str()?, entry.get("template")?.as_str()?))
            };
            list.iter().map(|entry| one(entry).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The tokens that a file lists with their ids, in its order; none where there is no such file.
fn ids(path: &Path) -> Result<Vec<(String, u64)>> {
    let Some(text) = text(path)? else { return Ok(Vec::new()) };
    let listed: ObjectEntries<Value> = json_text::from_slice(text.as_bytes(), "tokens with their ids")
        .map_err(|error| error.key("vocabulary").file(path))?;
    let one = |(token, id): (String, Value)| match id.as_u64().filter(|&id| id < MOST_TOKENS) {
        Some(id) => Ok((token, id)),
        None => {
            let what = "an id of at most 24 bits";
            Err(InputError::expected(what).key(token).found(id).file(path).into())
        }
    };
    listed.0.into_iter().map(one).collect()
}

/// A vocabulary kept as `vocab.json` and `merges.txt`, cut as its class of transformers cuts.
fn listed(folder: &Path, end: &[u32], chat: Chat) -> Result<Vocabulary> {
    let path = folder.join("vocab.json");
    let (config_path, config) = read(folder, "tokenizer_config.json")?;
    let wrong = |key: &str, what: &str| InputError::expected(what).key(key).file(&path);
    let mut all: Vec<(String, u64, i128)> = Vec::new();
    all.extend(ids(&path)?.into_iter().map(|(token, id)| (token, id, NORMAL)));
    all.extend(ids(&folder.join("added_tokens.json"))?.into_iter().map(|(token, id)| (token, id, CONTROL)));
    let later = added(&config_path, &config)?.into_iter();
    all.extend(later.map(|(id, token)| (token.content, id.into(), CONTROL)));
    once::check(all.iter().map(|(token, id, _)| (token.as_str(), *id))).map_err(|error| error.file(&path))?;
    let words: BTreeMap<u64, (String, i128)> =
        all.into_iter().map(|(token, id, kind)| (id, (token, kind))).collect();
    let special: Vec<&String> = chat.tokens.values().collect();
    let count = words.keys().next_back().map_or(0, |last| last + 1);
    // A list has a place for each id, used or not; files leave few unused.
    if count > 2 * words.len() as u64 + 1024 {
        let what = format!("ids of which most are used, as there are {} tokens", words.len());
        return Err(wrong("vocabulary", &what).found(format!("ids up to {}", count - 1)).into());
    }
    let (mut tokens, mut kinds) = (vec![String::new(); count as usize], vec![NORMAL; count as usize]);
    for (id, (token, kind)) in words {
        kinds[id as usize] = if special.contains(&&token) { CONTROL } else { kind };
        tokens[id as usize] = token;
    }
    let (split, compose) = class(folder, &config_path, &config)?;
    let file = folder.join("merges.txt");
    let merges = text(&file)?.unwrap_or_default();
    let merges = merges.trim_start_matches('\u{feff}').lines();
    let merges = merges.filter(|line| !line.starts_with("#version") && !line.is_empty());
    let bos = chat.tokens.get("bos_token").and_then(|bos| tokens.iter().position(|token| token == bos));
    let begin = if config.get("add_bos_token") == Some(&Value::Bool(true)) { bos } else { None };
    Ok(Vocabulary {
        tokens,
        kinds,
        kind: TokenizerKind::Bytes { merges: merges.map(str::to_owned).collect(), split, compose },
        begin: begin.map(|id| id as u32),
        begin_chats: false,
        finish: None,
        unknown: None,
        strips: false,
        end: end.to_vec(),
        chat,
    })
}

/// How a class of transformers cuts text, and whether it composes characters first (`GPT2Tokenizer`, `Qwen2Tokenizer`).
fn class(folder: &Path, path: &Path, config: &Value) -> Result<(&'static Split, bool)> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned);
    let (_, model) = read(folder, "config.json")?;
    let family = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
    // A folder without the class has it by its model.
    let class = class.unwrap_or_else(|| match family {
        "gpt2" | "opt" => "GPT2Tokenizer".into(),
        "qwen2" | "qwen3" | "qwen2_moe" | "qwen3_moe" => "Qwen2Tokenizer".into(),
        other => format!("none, for the model type {other:?}"),
    });
    let wrong = |key: &str, what: &str| InputError::expected(what).key(key).file(path);
    if config.get("add_prefix_space") == Some(&Value::Bool(true)) {
        return Err(wrong("add_prefix_space", "false, where there is no tokenizer.json").found(true).into());
    }
    let (name, compose) = match class.trim_end_matches("Fast") {
        "GPT2Tokenizer" => ("gpt-2", false),
        "Qwen2Tokenizer" => ("qwen2", true),
        _ => {
            let what = "GPT2Tokenizer or Qwen2Tokenizer, where there is no tokenizer.json";
            return Err(wrong("tokenizer_class", what).found(class).into());
        }
    };
    Ok((Split::named(name).expect("both are known"), compose))
}

impl Tokenizer {
    /// The tokenizer of a folder as Hugging Face keeps models, of which no other file is read.
    ///
    /// # Errors
    /// None found, or a broken one.
    pub fn in_folder(folder: &Path) -> Result<Tokenizer> {
        tokenizer(folder, &[])
    }
}
