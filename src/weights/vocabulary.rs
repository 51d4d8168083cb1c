//! What a file says of its tokenizer, whatever the file.

use super::bytes;
use super::chat::Chat;
use super::split::Split;
use crate::error::{Error, InputError, Result};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// Type of an ordinary token (gguf.md, `tokenizer.ggml.token_type`).
pub const NORMAL: i128 = 1;
/// The token for what no token has.
pub const UNKNOWN: i128 = 2;
/// A token that text does not contain, unless it is written out.
pub const CONTROL: i128 = 3;
/// A token that was added to a finished vocabulary.
pub const ADDED: i128 = 4;
/// A token that is not used.
pub const UNUSED: i128 = 5;
/// A byte, written as `<0x0A>`.
pub const BYTE: i128 = 6;

/// Tokens, and how text becomes them.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    pub tokens: Vec<String>,
    /// Type of each token.
    pub kinds: Vec<i128>,
    pub kind: TokenizerKind,
    /// What stands before every text.
    pub begin: Option<u32>,
    /// Whether it stands before a chat too where the template did not write it.
    pub begin_chats: bool,
    /// What stands behind every text.
    pub finish: Option<u32>,
    /// What stands for a character that no token has.
    pub unknown: Option<u32>,
    /// Whether white space behind special tokens belongs to them.
    pub strips: bool,
    /// What ends a generation.
    pub end: Vec<u32>,
    /// What stands around a chat.
    pub chat: Chat,
}

/// How text is cut.
#[derive(Clone, Debug)]
pub enum TokenizerKind {
    /// Pairs of bytes, merged in the order of the list; each entry has its two parts with a space between.
    /// `compose`: whether characters are composed first (NFC).
    Bytes { merges: Vec<String>, split: &'static Split, compose: bool },
    /// Pairs of characters, merged by the score of the result.
    Scores { scores: Vec<f64>, prefix_space: bool },
}

impl Vocabulary {
    /// What to say of tokens with the text of an earlier one, by id with that one. Files of real models have some (the QAT files of
    /// Gemma 4 for `//` and `#`: llama.cpp, issue 25739), and both say the same, but only one of them can come out of text.
    pub fn shared(&self, same: &HashMap<u32, u32>) -> Option<String> {
        let said = |id: u32| !self.tokens[id as usize].is_empty() && self.kinds[id as usize] != UNUSED;
        let shared = || same.iter().filter(|&(&id, _)| said(id));
        let (id, first) = shared().min()?;
        let (count, token) = (shared().count(), &self.tokens[*id as usize]);
        Some(format!(
            "tokens with the text of an earlier one: {count}, as {token:?} of the ids {first} and {id}; text becomes the earlier"
        ))
    }
}

/// What ends a generation of llama2.c (run.c: either of both tokens).
pub const LLAMA2C_END: [u32; 2] = [1, 2];

/// The tokenizer of llama2.c: the longest token's length, then score, length and bytes of each token (`build_tokenizer` in
/// run.c). Token 1 begins a text, 1 and 2 end one.
pub fn llama2c(path: &Path, count: u64) -> Result<Vocabulary> {
    let mut file = File::open(path).map_err(Error::io(path, "read"))?;
    let length = file.metadata().map_err(Error::io(path, "read"))?.len();
    let wrong = |at: usize, what: &str| -> Error {
        InputError::expected(what).key(format!("token {at}")).file(path).into()
    };
    // Tokens have at most some bytes; a file much larger is none of llama2.c's.
    if length > 4 + count * 1024 {
        return Err(wrong(0, "a tokenizer of llama2.c for this vocabulary, which is smaller"));
    }
    let all = bytes::at(&mut file, 0, length).map_err(Error::io(path, "read"))?;
    let mut rest = all.get(4..).ok_or_else(|| wrong(0, "at least four bytes"))?;
    let (mut tokens, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..count as usize {
        let ended = || wrong(at, &format!("{count} tokens; the file ends here"));
        let (head, behind) = rest.split_at_checked(8).ok_or_else(ended)?;
        let score = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let bytes = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let bytes = usize::try_from(bytes).map_err(|_| wrong(at, "a length of 0 or more"))?;
        let (token, behind) = behind.split_at_checked(bytes).ok_or_else(ended)?;
        let token = std::str::from_utf8(token).map_err(|_| wrong(at, "UTF-8"))?;
        let byte = token.len() == 6 && token.starts_with("<0x");
        kinds.push(if at < 3 {
            CONTROL
        } else if byte {
            BYTE
        } else {
            NORMAL
        });
        tokens.push(token.replace(' ', "\u{2581}"));
        scores.push(f64::from(score));
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(wrong(count as usize, &format!("the end of the file behind {count} tokens")));
    }
    // What run.c calls them in its sources; in the file they are markup of several forms.
    for (at, name) in ["<unk>", "<s>", "</s>"].iter().enumerate().take(tokens.len()) {
        tokens[at] = (*name).into();
    }
    let kind = TokenizerKind::Scores { scores, prefix_space: true };
    Ok(Vocabulary {
        tokens,
        kinds,
        kind,
        begin: Some(1),
        begin_chats: false,
        finish: None,
        unknown: (count > 0).then_some(0),
        strips: false,
        end: LLAMA2C_END.to_vec(),
        chat: Chat::default(),
    })
}
