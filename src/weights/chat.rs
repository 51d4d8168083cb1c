//! Chat templates: the text that a chat model wants around a prompt, rendered as the transformers library renders it
//! (`utils/chat_template_utils.py`: trimmed blocks, loop controls, its functions and filters).

use super::chat_python as python;
use super::date::Date;
use crate::error::{Error, InputError, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, context};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Steps that a template may take: a hundred times what published ones need for one message, and so many for each byte of it.
const FUEL: u64 = 200_000;
const FUEL_A_BYTE: u64 = 32;

/// A template under its name, and where it was read.
#[derive(Clone, Debug)]
pub struct Template {
    pub name: String,
    pub text: String,
    pub file: PathBuf,
    /// Key in the file; empty where the file is the template.
    pub key: String,
}

/// All that a model says of chats.
#[derive(Clone, Debug, Default)]
pub struct Chat {
    pub templates: Vec<Template>,
    /// Texts of special tokens by the names that templates know them by: `bos_token`.
    pub tokens: BTreeMap<String, String>,
}

impl Chat {
    /// The template that a plain chat takes: the one named `default`; `None` where there is no template at all.
    fn template(&self) -> Result<Option<&Template>> {
        let Some(first) = self.templates.first() else { return Ok(None) };
        let default = self.templates.iter().find(|template| template.name == "default");
        default.map(Some).ok_or_else(|| {
            let names: Vec<&str> = self.templates.iter().map(|template| template.name.as_str()).collect();
            let wrong = InputError::expected("a template named default").found(names.join(", "));
            wrong.key("chat_template").file(&first.file).into()
        })
    }

    /// The text that asks for an answer to `user`, with remarks on what a reader may not expect; `None` without a template.
    pub fn render(&self, user: &str, today: Date) -> Result<Option<(String, Vec<String>)>> {
        let Some(template) = self.template()? else { return Ok(None) };
        let dated = Arc::new(AtomicBool::new(false));
        let source = python::without_generation(&template.text);
        let mut jinja = environment(today, &dated);
        jinja.set_fuel(Some(FUEL + FUEL_A_BYTE * user.len() as u64));
        let wrong = |error: &minijinja::Error| -> Error {
            let what = format!("a chat template that can be rendered ({error})");
            let wrong = InputError::expected(what).file(&template.file);
            let key = if template.key.is_empty() { "chat_template" } else { &template.key };
            wrong.key(key).into()
        };
        let compiled =
            jinja.template_from_named_str("chat_template", &source).map_err(|error| wrong(&error))?;
        let render = |content: Value| {
            let messages = vec![context! { role => "user", content => content }];
            let mut known: BTreeMap<&str, Value> =
                self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str().into())).collect();
            known.insert("messages", messages.into());
            known.insert("add_generation_prompt", true.into());
            known.insert("tools", Value::from(()));
            known.insert("documents", Value::from(()));
            compiled.render(known)
        };
        // Templates of multimodal models take a list of parts, and leave a plain text out or stumble over it.
        let plain = render(user.into());
        let holds = |text: &str| text.contains(user.trim());
        let mut remarks = Vec::new();
        let text = match plain {
            Ok(text) if holds(&text) => text,
            plain => {
                let parts = render(vec![context! { type => "text", text => user }].into());
                match (plain, parts.ok().filter(|text| holds(text))) {
                    (_, Some(text)) => text,
                    (Ok(text), None) => {
                        remarks.push("the chat template does not repeat the prompt word for word".into());
                        text
                    }
                    (Err(error), None) => return Err(wrong(&error)),
                }
            }
        };
        if dated.load(Ordering::Relaxed) {
            remarks.push(format!("the chat template asks for the date and is told {}", today.0));
        }
        Ok(Some((text, remarks)))
    }
}

/// Jinja as transformers sets it up. Says in `dated` whether the date was asked for.
fn environment(today: Date, dated: &Arc<AtomicBool>) -> Environment<'static> {
    let mut jinja = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    jinja.set_syntax(syntax.expect("the usual delimiters"));
    jinja.set_auto_escape_callback(|_| AutoEscape::None);
    jinja.set_unknown_method_callback(python::method);
    jinja.set_formatter(python::write);
    jinja.add_filter("tojson", python::to_json);
    jinja.add_test("sequence", python::is_sequence);
    jinja.add_function("raise_exception", |message: &str| -> std::result::Result<Value, minijinja::Error> {
        let what = format!("the template refuses the prompt: {message}");
        Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, what))
    });
    let dated = Arc::clone(dated);
    jinja.add_function("strftime_now", move |format: &str| {
        dated.store(true, Ordering::Relaxed);
        python::strftime(today, format)
    });
    jinja
}
