//! Text to tokens and back, by the `tokenizers` library.

use super::vocabulary::{ADDED, BYTE, CONTROL, Kind, NORMAL, Split, Vocabulary};
use crate::error::{Error, InputError, Result};
use std::collections::HashMap;
use std::path::Path;
use tokenizers::decoders::{self, DecoderWrapper};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, normalizers};

/// Stands for a space in vocabularies of SentencePiece.
const SPACE: &str = "\u{2581}";

/// A tokenizer with what its model needs around it.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    begin: Option<u32>,
    /// Whether the library's own template puts tokens around a text.
    template_of_library: bool,
    end: Vec<u32>,
    chat: Option<String>,
}

impl Tokenizer {
    /// From a `tokenizer.json`, with the chat template of the `tokenizer_config.json` beside it, if any.
    pub(super) fn from_json(path: &Path, end: Vec<u32>) -> Result<Tokenizer> {
        let wrong = |error: tokenizers::Error| -> Error {
            InputError::expected(format!("a tokenizer.json ({error})")).key("tokenizer").file(path).into()
        };
        let mut inner = tokenizers::Tokenizer::from_file(path).map_err(wrong)?;
        // Texts are taken whole and one by one, whatever the file was last used for; some strides make the library panic.
        inner.with_padding(None).with_truncation(None).map_err(wrong)?;
        let config = std::fs::read(path.with_file_name("tokenizer_config.json")).unwrap_or_default();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
        let chat = config.get("chat_template").and_then(serde_json::Value::as_str).map(str::to_owned);
        Ok(Tokenizer { inner, begin: None, template_of_library: true, end, chat })
    }

    /// From a list of tokens.
    pub(super) fn listed(words: &Vocabulary) -> Result<Tokenizer> {
        let wrong = |error: tokenizers::Error| -> Error {
            InputError::expected(format!("a usable vocabulary ({error})")).key("tokenizer").into()
        };
        let mut vocabulary = HashMap::new();
        for (id, token) in (0u32..).zip(&words.tokens) {
            // Unused tokens may share a name; the first keeps it.
            vocabulary.entry(token.clone()).or_insert(id);
        }
        let merges = match &words.kind {
            Kind::Bytes { merges, .. } => listed_merges(merges, &vocabulary)?,
            Kind::Scores { scores, .. } => scored_merges(words, scores, &vocabulary),
        };
        let by_score = matches!(words.kind, Kind::Scores { .. });
        let vocabulary: ahash::AHashMap<String, u32> = vocabulary.into_iter().collect();
        let model = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(by_score);
        let mut inner = tokenizers::Tokenizer::new(model.build().map_err(wrong)?);
        match words.kind {
            Kind::Bytes { split, .. } => {
                let bytes = ByteLevel::new(false, true, true);
                let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
                if split == Split::Digits {
                    steps.push(Digits::new(true).into());
                }
                steps.push(bytes.into());
                inner.with_pre_tokenizer(Some(Sequence::new(steps)));
                inner.with_decoder(Some(bytes));
            }
            Kind::Scores { prefix_space, .. } => {
                let mut steps: Vec<NormalizerWrapper> = Vec::new();
                if prefix_space {
                    steps.push(Prepend::new(SPACE.into()).into());
                }
                steps.push(Replace::new(" ", SPACE).map_err(wrong)?.into());
                inner.with_normalizer(Some(normalizers::Sequence::new(steps)));
                let steps: Vec<DecoderWrapper> = vec![
                    Replace::new(SPACE, " ").map_err(wrong)?.into(),
                    decoders::byte_fallback::ByteFallback::new().into(),
                    decoders::fuse::Fuse::new().into(),
                ];
                inner.with_decoder(Some(decoders::sequence::Sequence::new(steps)));
            }
        }
        let special =
            words.tokens.iter().zip(&words.kinds).filter(|&(_, &kind)| kind == CONTROL || kind == ADDED);
        let special: Vec<_> = special.map(|(token, _)| AddedToken::from(token.clone(), true)).collect();
        inner.add_special_tokens(&special);
        let chat = words.template.clone();
        Ok(Tokenizer { inner, begin: words.begin, template_of_library: false, end: words.end.clone(), chat })
    }

    /// Tokens of a text. Special tokens that are written out in it become their ids; what the model puts before every text
    /// comes first.
    ///
    /// # Errors
    /// Text that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = self.inner.encode_fast(text, self.template_of_library).map_err(|error| {
            Error::from(
                InputError::expected(format!("text that the vocabulary can express ({error})")).key("text"),
            )
        })?;
        Ok(self.begin.into_iter().chain(encoded.get_ids().iter().copied()).collect())
    }

    /// Text of tokens, special ones shown.
    ///
    /// # Errors
    /// Ids outside of the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|error| {
            InputError::expected(format!("ids of the vocabulary ({error})")).key("ids").into()
        })
    }

    /// Ids that end a generation.
    pub fn end_ids(&self) -> &[u32] {
        &self.end
    }

    /// The text that asks a chat model this; `None` where the model says no template.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn chat(&self, user: &str) -> Result<Option<String>> {
        let Some(template) = &self.chat else { return Ok(None) };
        let mut jinja = minijinja::Environment::new();
        jinja.set_fuel(Some(1_000_000));
        let message = minijinja::context! { role => "user", content => user };
        let context = minijinja::context! {
            messages => vec![message],
            add_generation_prompt => true,
            bos_token => self.begin.and_then(|id| self.inner.id_to_token(id)).unwrap_or_default(),
            eos_token => self.end.first().and_then(|&id| self.inner.id_to_token(id)).unwrap_or_default(),
        };
        let rendered = jinja.render_str(template, context);
        rendered.map(Some).map_err(|error| {
            InputError::expected(format!("a template that can be rendered ({error})"))
                .key("chat_template")
                .into()
        })
    }

    /// Text as its tokens come.
    pub fn stream(&self) -> Stream<'_> {
        Stream { tokenizer: self, ids: Vec::new(), said: 0 }
    }
}

/// Text of a growing list of tokens, whole characters at a time.
#[derive(Debug)]
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    said: usize,
}

impl Stream<'_> {
    /// What the next token adds; empty until a character is whole.
    ///
    /// # Errors
    /// An id outside of the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        // A character that is not whole yet is shown as U+FFFD.
        let whole = text.trim_end_matches('\u{fffd}');
        let new = whole.get(self.said..).unwrap_or_default().to_owned();
        self.said += new.len();
        // A few tokens are enough for what follows, once a line is complete.
        if self.ids.len() > 64 && whole.len() == text.len() {
            let last = self.ids.split_off(self.ids.len() - 1);
            self.ids = last;
            self.said = self.tokenizer.decode(&self.ids)?.len();
        }
        Ok(new)
    }
}

/// Merges as GGUF lists them.
fn listed_merges(merges: &[String], vocabulary: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let pair = |merge: &String| {
        let (a, b) = merge.split_once(' ')?;
        let known = [a, b, &format!("{a}{b}")].iter().all(|part| vocabulary.contains_key(*part));
        known.then(|| (a.to_owned(), b.to_owned()))
    };
    let wrong = |merge: &String| -> Error {
        InputError::expected("two tokens with a space between, whose sum is a token")
            .key("merges")
            .found(merge)
            .into()
    };
    merges.iter().map(|merge| pair(merge).ok_or_else(|| wrong(merge))).collect()
}

/// Merges by the score of their result: every way to put a token together from two others, best tokens first.
fn scored_merges(
    words: &Vocabulary,
    scores: &[f64],
    vocabulary: &HashMap<String, u32>,
) -> Vec<(String, String)> {
    let plain = |id: usize| words.kinds[id] == NORMAL;
    let mut order: Vec<usize> = (0..words.tokens.len()).filter(|&id| plain(id)).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut merges = Vec::new();
    for id in order {
        let token = &words.tokens[id];
        for (at, _) in token.char_indices().skip(1) {
            let (a, b) = token.split_at(at);
            let known = |part: &str| vocabulary.get(part).is_some_and(|&id| words.kinds[id as usize] != BYTE);
            if known(a) && known(b) {
                merges.push((a.to_owned(), b.to_owned()));
            }
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::Tokenizer;

    /// The stride of this file is an assertion that fails inside the library, once a text is longer than its limit.
    #[test]
    fn limits_of_the_file_cut_and_pad_no_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokenizer.json");
        let text = r#"{
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "a"},
            "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
        }"#;
        std::fs::write(&path, text).expect("a file");
        let tokenizer = Tokenizer::from_json(&path, Vec::new()).expect("a tokenizer");
        assert_eq!(tokenizer.encode("b a b b").expect("ids"), [1, 0, 1, 1]);
    }
}
