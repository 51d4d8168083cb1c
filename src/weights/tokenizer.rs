//! Text to tokens and back, by the `tokenizers` library.

use super::chat::Chat;
use super::date::Date;
use super::once;
use super::text::text;
use super::vocabulary::{ADDED, BYTE, CONTROL, NORMAL, TokenizerKind, UNKNOWN, Vocabulary};
use crate::error::{Error, InputError, Result};
use crate::json_text;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::decoders::{self, DecoderWrapper};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NFC, NormalizerWrapper, Prepend, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, normalizers};

/// Stands for a space in vocabularies of SentencePiece.
const SPACE: &str = "\u{2581}";

/// A tokenizer with what its model needs around it.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    begin: Option<u32>,
    begin_chats: bool,
    finish: Option<u32>,
    /// Whether the library's own template puts tokens around a text.
    template_of_library: bool,
    /// Whether tokens say every byte of a text, so that what they do not say was left out.
    exact: bool,
    end: Vec<u32>,
    chat: Chat,
    /// Tokens with the text of an earlier one, and that one.
    same: HashMap<u32, u32>,
    remarks: Vec<String>,
}

/// A prompt as its model wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The prompt with the chat template around it; the prompt alone where the model has none.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// What a reader may not expect: no template, a date that stands in, a text that two tokens have.
    pub remarks: Vec<String>,
}

impl Tokenizer {
    /// From a `tokenizer.json`, with the tokens that the configuration beside it adds, by id.
    pub(super) fn from_json(
        path: &Path,
        mut end: Vec<u32>,
        chat: Chat,
        added: &[(u32, AddedToken)],
    ) -> Result<Tokenizer> {
        let wrong = |error: tokenizers::Error| -> Error {
            InputError::expected(format!("a tokenizer.json ({error})")).key("tokenizer").file(path).into()
        };
        let text = text(path)?.unwrap_or_default();
        let own = once::of_file(text.as_bytes(), path)?;
        let text = json_text::without_mark(text.as_bytes());
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(text)).map_err(wrong)?;
        let held = |inner: &tokenizers::Tokenizer, content: &str, id: u64, list: &str| {
            let found = inner.token_to_id(content);
            if content.is_empty() || found.map(u64::from) == Some(id) {
                return Ok(());
            }
            let what = format!("{content:?} under the id {id} of {list}");
            let found = found.map_or_else(|| "none".to_owned(), |id| id.to_string());
            Err(Error::from(InputError::expected(what).key("added_tokens").found(found).file(path)))
        };
        // The library numbers them on behind the vocabulary, whatever the file says.
        own.iter().try_for_each(|token| held(&inner, &token.content, token.id, "added_tokens"))?;
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && let Some(dropout) = bpe.dropout.filter(|dropout| *dropout > 0.0)
        {
            let what = "null or 0, as merges that are left out by chance give other tokens each time";
            return Err(InputError::expected(what).key("model.dropout").found(dropout).file(path).into());
        }
        // Texts are taken whole and one by one, whatever the file was last used for; some strides make the library panic.
        inner.with_padding(None).with_truncation(None).map_err(wrong)?;
        // Transformers adds what the configuration knows and the file does not.
        for (id, token) in added {
            let known = inner.get_added_vocabulary().get_vocab().contains_key(&token.content);
            if !known && token.special {
                inner.add_special_tokens(std::slice::from_ref(token));
            } else if !known {
                inner.add_tokens(std::slice::from_ref(token));
            }
            held(&inner, &token.content, u64::from(*id), "added_tokens_decoder")?;
        }
        for token in
            chat.tokens.values().filter(|token| inner.token_to_id(token).is_some()).collect::<Vec<_>>()
        {
            if !inner.get_added_vocabulary().get_vocab().contains_key(token) {
                inner.add_special_tokens(&[AddedToken::from(token.clone(), true)]);
            }
        }
        let last = chat.tokens.get("eos_token").and_then(|token| inner.token_to_id(token));
        end.extend(last.filter(|id| !end.contains(id)));
        Ok(Tokenizer {
            inner,
            begin: None,
            begin_chats: false,
            finish: None,
            template_of_library: true,
            exact: false,
            end,
            chat,
            same: HashMap::new(),
            remarks: Vec::new(),
        })
    }

    /// From a list of tokens.
    pub(super) fn listed(words: &Vocabulary) -> Result<Tokenizer> {
        let wrong = |error: tokenizers::Error| -> Error {
            InputError::expected(format!("a usable vocabulary ({error})")).key("tokenizer").into()
        };
        let (mut vocabulary, mut same) = (HashMap::new(), HashMap::new());
        for (id, token) in (0u32..).zip(&words.tokens) {
            let first = *vocabulary.entry(token.clone()).or_insert(id);
            if first != id {
                same.insert(id, first);
            }
        }
        let remarks = words.shared(&same).into_iter().collect();
        let merges = match &words.kind {
            TokenizerKind::Bytes { merges, .. } => listed_merges(merges, &vocabulary)?,
            TokenizerKind::Scores { scores, .. } => scored_merges(words, scores, &vocabulary),
        };
        let by_score = matches!(words.kind, TokenizerKind::Scores { .. });
        let mut end = words.end.clone();
        let last = words.chat.tokens.get("eos_token").and_then(|token| vocabulary.get(token).copied());
        end.extend(last.filter(|id| !end.contains(id)));
        let vocabulary: ahash::AHashMap<String, u32> = vocabulary.into_iter().collect();
        let mut model = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(by_score);
        if let TokenizerKind::Bytes { split, .. } = &words.kind {
            model = model.ignore_merges(split.whole);
        }
        if let Some(unknown) = words.unknown {
            model = model.unk_token(words.tokens[unknown as usize].clone()).fuse_unk(true);
        }
        let mut inner = tokenizers::Tokenizer::new(model.build().map_err(wrong)?);
        match words.kind {
            TokenizerKind::Bytes { split, compose, .. } => {
                let bytes = ByteLevel::new(false, true, false);
                let mut steps = split.steps().map_err(wrong)?;
                steps.push(bytes.into());
                inner.with_pre_tokenizer(Some(Sequence::new(steps)));
                inner.with_decoder(Some(bytes));
                inner.with_normalizer(compose.then_some(NFC));
            }
            TokenizerKind::Scores { prefix_space, .. } => {
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
        let special = words
            .tokens
            .iter()
            .zip(&words.kinds)
            .filter(|&(_, kind)| [CONTROL, ADDED, UNKNOWN].contains(kind));
        // Phi-3's (llama.cpp, `llama-vocab.cpp`): all but these three.
        let strips = |token: &str| words.strips && !["<unk>", "<s>", "<|endoftext|>"].contains(&token);
        let special: Vec<_> =
            special.map(|(token, _)| AddedToken::from(token.clone(), true).rstrip(strips(token))).collect();
        inner.add_special_tokens(&special);
        Ok(Tokenizer {
            inner,
            begin: words.begin,
            begin_chats: words.begin_chats,
            finish: words.finish,
            template_of_library: false,
            exact: matches!(words.kind, TokenizerKind::Bytes { compose: false, .. }),
            end,
            chat: words.chat.clone(),
            same,
            remarks,
        })
    }

    /// Tokens that it knows, added ones included.
    pub fn words(&self) -> u32 {
        self.inner.get_vocab_size(true) as u32
    }

    /// How many tokens a text has, without what the model puts around it.
    ///
    /// # Errors
    /// Text that the vocabulary cannot express.
    pub fn count(&self, text: &str) -> Result<u64> {
        self.plain(text, false).map(|ids| ids.len() as u64)
    }

    /// Tokens of a text. Special tokens that are written out in it become their ids; what the model puts before and behind every
    /// text is put there, once: a text that begins with it already gets no second one.
    ///
    /// # Errors
    /// Text that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.plain(text, self.template_of_library)?;
        let begun = ids.first() == self.begin.as_ref();
        ids.splice(..0, self.begin.filter(|_| !begun));
        if self.template_of_library && ids.len() > 1 && ids[0] == ids[1] {
            let bare = self.plain(text, false)?;
            if bare.first() == ids.first() && ids[1..].starts_with(&bare) {
                ids.remove(0);
            }
        }
        ids.extend(self.finish);
        Ok(ids)
    }

    /// Tokens of a text, with what the library's template puts around it if `around`.
    fn plain(&self, text: &str, around: bool) -> Result<Vec<u32>> {
        let wrong = |what: &str| -> Error {
            InputError::expected(format!("text that the vocabulary can express{what}")).key("text").into()
        };
        let encoded = guarded(|| self.inner.encode_fast(text, around))
            .map_err(|error| wrong(&format!(" ({error})")))?;
        let ids = encoded.get_ids().to_vec();
        if self.exact && ids.iter().map(|&id| self.bytes(id)).sum::<usize>() != text.len() {
            return Err(wrong("; some of its bytes have no token"));
        }
        Ok(ids)
    }

    /// Bytes that a token of a vocabulary of bytes stands for: each of its characters is one, unless it was added as a text.
    fn bytes(&self, id: u32) -> usize {
        let token = self.inner.id_to_token(id).unwrap_or_default();
        let added = self.inner.get_added_vocabulary().is_special_token(&token);
        if added { token.len() } else { token.chars().count() }
    }

    /// A prompt with the chat template of its model around it, and its tokens. Where the model has no template, the prompt is taken
    /// as it is. `today` is what a template hears that asks for the date.
    ///
    /// # Errors
    /// A template that cannot be rendered or refuses the prompt, and text that the vocabulary cannot express.
    pub fn ask(&self, prompt: &str, today: Date) -> Result<Asked> {
        let Some((text, mut remarks)) = self.chat.render(prompt, today)? else {
            let none = "the model has no chat template: the prompt is taken as it is";
            let remarks = [&[none.to_owned()], &*self.remarks].concat();
            return Ok(Asked { text: prompt.to_owned(), ids: self.encode(prompt)?, remarks });
        };
        // A template writes the tokens around a chat itself.
        let mut ids = self.plain(&text, false)?;
        if let Some(begin) = self.begin.filter(|begin| self.begin_chats && ids.first() != Some(begin)) {
            ids.insert(0, begin);
        }
        remarks.extend_from_slice(&self.remarks);
        Ok(Asked { text, ids, remarks })
    }

    /// Text of tokens, special ones shown.
    ///
    /// # Errors
    /// Ids outside of the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().map(|id| *self.same.get(id).unwrap_or(id)).collect();
        guarded(|| self.inner.decode(&ids, false)).map_err(|error| {
            InputError::expected(format!("ids of the vocabulary ({error})")).key("ids").into()
        })
    }

    /// What to know of the vocabulary where text becomes tokens by it.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Ids that end a generation.
    pub fn end_ids(&self) -> &[u32] {
        &self.end
    }

    /// Text as its tokens come.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream { tokenizer: self, ids: Vec::new(), said: 0 }
    }
}

/// Runs code of the library; a panic in it becomes an error. The library promises no errors for every broken `tokenizer.json`.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    crate::error::guarded(run).unwrap_or_else(|said| Err(said.into()))
}

/// Text of a growing list of tokens, whole characters at a time.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    said: usize,
}

impl TokenStream<'_> {
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
        let known = |part: &str| vocabulary.get(part).filter(|&&id| words.kinds[id as usize] != BYTE);
        let parts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut ways: Vec<_> =
            parts.filter_map(|(a, b)| Some((known(a)?, known(b)?, a.to_owned(), b.to_owned()))).collect();
        // Of several ways to one token, transformers takes the earlier tokens first (`generate_merges`).
        ways.sort_by_key(|&(a, b, ..)| (*a, *b));
        merges.extend(ways.into_iter().map(|(_, _, a, b)| (a, b)));
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::{Chat, Tokenizer};

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
        let tokenizer = Tokenizer::from_json(&path, Vec::new(), Chat::default(), &[]).expect("a tokenizer");
        assert_eq!(tokenizer.encode("b a b b").expect("ids"), [1, 0, 1, 1]);
    }
}
