//! Vocabularies of GGUF files, and of `vocab.json` with `merges.txt`, that turn text into other tokens than the model's own tokenizer.

use crate::gguf_support::{Gguf, list, text, typed};
use crate::small_models::Small;
use crate::weights::chat_templates::byte_chars;
use crate::weights::gguf_keys::opened;
use proptest::prelude::*;
use radialsim::weights::{Checkpoint, Date, Tokenizer};
use serde_json::json;
use std::collections::HashMap;

fn whole(n: u32) -> Vec<u8> {
    typed(4, &n.to_le_bytes())
}

fn flag(flag: bool) -> Vec<u8> {
    typed(7, &[u8::from(flag)])
}

fn texts<T: AsRef<str>>(all: &[T]) -> Vec<u8> {
    list(8, &all.iter().map(|one| text(one.as_ref())).collect::<Vec<_>>())
}

/// A small file with this vocabulary. `kinds`: types other than 1, by id.
fn with_words(model: &str, tokens: &[String], kinds: &[(u32, i32)]) -> Gguf {
    let count = tokens.len();
    let mut all = vec![1i32; count];
    kinds.iter().for_each(|&(id, kind)| all[id as usize] = kind);
    let mut gguf = Gguf::small()
        .set("tokenizer.ggml.model", typed(8, &text(model)))
        .set("tokenizer.ggml.tokens", texts(tokens))
        .set(
            "tokenizer.ggml.token_type",
            list(5, &all.iter().map(|kind| kind.to_le_bytes().to_vec()).collect::<Vec<_>>()),
        )
        .without("tokenizer.ggml.eos_token_id");
    let at = gguf.data.len() as u64;
    gguf.data.resize((at as usize + count * 32).next_multiple_of(32), 1);
    gguf.tensor("token_embd", |tensor| (tensor.1, tensor.3) = (vec![8, count as u64], at))
}

fn tokenizer(gguf: &Gguf) -> Tokenizer {
    let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("a file");
    std::fs::write(file.path(), gguf.bytes()).expect("a writable file");
    Checkpoint::open(file.path())
        .and_then(|checkpoint| checkpoint.tokenizer())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// All bytes, then these tokens; what merges them by order of the list.
fn byte_words(pre: &str, merged: &[(String, String)], more: &[&str], kinds: &[(u32, i32)]) -> Gguf {
    let mut tokens: Vec<String> = byte_chars().into_iter().map(String::from).collect();
    tokens.extend(merged.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend(more.iter().map(|&one| one.to_owned()));
    let merges: Vec<String> = merged.iter().map(|(a, b)| format!("{a} {b}")).collect();
    with_words("gpt2", &tokens, kinds)
        .set("tokenizer.ggml.pre", typed(8, &text(pre)))
        .set("tokenizer.ggml.merges", texts(&merges))
}

/// Where a word that begins at the first character ends.
type Rule = fn(&[char]) -> Option<usize>;

fn run(text: &[char], of: impl Fn(char) -> bool) -> usize {
    text.iter().take_while(|&&c| of(c)).count()
}

fn some(length: usize) -> Option<usize> {
    (length > 0).then_some(length)
}

fn other(c: char) -> bool {
    !c.is_whitespace() && !c.is_alphabetic() && !c.is_numeric()
}

fn contraction(text: &[char]) -> Option<usize> {
    let known = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    known
        .iter()
        .map(|one| one.chars().collect::<Vec<_>>())
        .find(|one| text.starts_with(one))
        .map(|one| one.len())
}

fn any_case(text: &[char]) -> Option<usize> {
    contraction(&text.iter().map(char::to_ascii_lowercase).collect::<Vec<_>>())
}

/// With a space before.
fn spaced(text: &[char], of: fn(char) -> bool) -> Option<usize> {
    let space = usize::from(text[0] == ' ');
    some(run(&text[space..], of)).map(|length| length + space)
}

fn trailing_space(text: &[char]) -> Option<usize> {
    let length = run(text, char::is_whitespace);
    some(if length == text.len() { length } else { length.saturating_sub(1) })
}

fn space(text: &[char]) -> Option<usize> {
    some(run(text, char::is_whitespace))
}

/// Letters with one character before that is no line break, letter or digit.
fn word(text: &[char]) -> Option<usize> {
    let first =
        usize::from(!['\r', '\n'].contains(&text[0]) && !text[0].is_alphabetic() && !text[0].is_numeric());
    some(run(&text[first..], char::is_alphabetic)).map(|length| length + first)
}

fn three_digits(text: &[char]) -> Option<usize> {
    some(run(text, char::is_numeric).min(3))
}

fn digit(text: &[char]) -> Option<usize> {
    some(run(text, char::is_numeric).min(1))
}

fn marks_and_breaks(text: &[char]) -> Option<usize> {
    let length = spaced(text, other)?;
    Some(length + run(&text[length..], |c| ['\r', '\n'].contains(&c)))
}

fn breaks(text: &[char]) -> Option<usize> {
    let length = run(text, char::is_whitespace);
    text[..length].iter().rposition(|c| ['\r', '\n'].contains(c)).map(|last| last + 1)
}

const GPT2: [Rule; 6] = [
    contraction,
    |text| spaced(text, char::is_alphabetic),
    |text| spaced(text, char::is_numeric),
    |text| spaced(text, other),
    trailing_space,
    space,
];
const LLAMA3: [Rule; 7] = [any_case, word, three_digits, marks_and_breaks, breaks, trailing_space, space];
const QWEN2: [Rule; 7] = [any_case, word, digit, marks_and_breaks, breaks, trailing_space, space];

fn words(text: &[char], rules: &[Rule]) -> Vec<String> {
    let (mut all, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rules.iter().find_map(|rule| rule(rest)).expect("every character is in a word");
        all.push(rest[..end].iter().collect());
        rest = &rest[end..];
    }
    all
}

/// Each digit alone, the rest by the rules of GPT-2.
fn smollm(text: &[char]) -> Vec<String> {
    let parts = text.split_inclusive(|c| c.is_numeric());
    parts
        .flat_map(|part| match part.split_last() {
            Some((&last, before)) if last.is_numeric() => {
                [words(before, &GPT2), vec![last.to_string()]].concat()
            }
            _ => words(part, &GPT2),
        })
        .collect()
}

/// Merges the neighbours of the lowest rank, the first of equals, until none is left.
fn merge(word: &str, ranks: &HashMap<(String, String), usize>) -> Vec<String> {
    let characters = byte_chars();
    let mut parts: Vec<String> = word.bytes().map(|byte| characters[usize::from(byte)].to_string()).collect();
    loop {
        let pair = |at: usize| ranks.get(&(parts[at].clone(), parts[at + 1].clone())).map(|rank| (*rank, at));
        let Some((_, at)) = (0..parts.len().saturating_sub(1)).filter_map(pair).min() else { return parts };
        let second = parts.remove(at + 1);
        parts[at] += &second;
    }
}

/// Every pair of these characters is a token, so that a word cut elsewhere is another list of tokens.
const ALPHABET: [char; 15] =
    ['a', 'S', 's', 'l', '1', '٣', ' ', ' ', '\n', '\r', '\t', '\'', '.', 'é', '\u{a0}'];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn text_is_cut_and_merged_as_by_hand(
        texts in prop::collection::vec(prop::collection::vec(0..ALPHABET.len(), 0..24), 1..8),
        order in Just((0..400_usize).collect::<Vec<_>>()).prop_shuffle(),
        which in 0..4_usize,
    ) {
        let characters = byte_chars();
        let bytes: std::collections::BTreeSet<u8> = ALPHABET.iter().collect::<String>().bytes().collect();
        let pairs: Vec<(String, String)> = bytes
            .iter()
            .flat_map(|&a| bytes.iter().map(move |&b| (a, b)))
            .map(|(a, b)| (characters[usize::from(a)].to_string(), characters[usize::from(b)].to_string()))
            .collect();
        let merged: Vec<_> = order.into_iter().filter_map(|at| pairs.get(at).cloned()).collect();
        let gguf = byte_words(["gpt-2", "smollm", "llama-bpe", "qwen2"][which], &merged, &[], &[])
            .set("tokenizer.ggml.add_bos_token", flag(false));
        let tokenizer = tokenizer(&gguf);
        let ranks: HashMap<_, _> = merged.iter().cloned().zip(0..).collect();
        let ids: HashMap<String, u32> = byte_chars().into_iter().map(String::from).chain(merged.iter().map(|(a, b)| format!("{a}{b}"))).zip(0..).collect();
        for text in texts {
            let text: Vec<char> = text.into_iter().map(|at| ALPHABET[at]).collect();
            let cut = match which {
                0 => words(&text, &GPT2),
                1 => smollm(&text),
                2 => words(&text, &LLAMA3),
                _ => words(&text, &QWEN2),
            };
            let expected: Vec<u32> = cut.iter().flat_map(|word| merge(word, &ranks)).map(|token| ids[&token]).collect();
            let text: String = text.into_iter().collect();
            prop_assert_eq!(tokenizer.encode(&text).expect("ids"), expected, "{:?} {:?}", text, cut);
        }
    }

    /// Vocabularies of SentencePiece: the neighbours whose token has the highest score are merged, the first of equals.
    #[test]
    fn scores_decide_what_is_merged(
        joins in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30),
        scores in prop::collection::vec(0..1000_i32, 40),
        texts in prop::collection::vec("[abcé ]{0,16}", 1..8),
        prefix in any::<bool>(),
    ) {
        let mut parts: Vec<String> = ["\u{2581}", "a", "b", "c"].map(str::to_owned).into();
        // Each token has one way to be put together, so that a list of merges and scores say the same.
        let ways = |token: &str, all: &[String]| {
            token.char_indices().skip(1).filter(|&(at, _)| {
                let (a, b) = token.split_at(at);
                all.iter().any(|one| one == a) && all.iter().any(|one| one == b)
            }).count()
        };
        for (a, b) in joins {
            let new = format!("{}{}", parts[a.index(parts.len())], parts[b.index(parts.len())]);
            let mut next = parts.clone();
            next.push(new.clone());
            if !parts.contains(&new) && next.iter().all(|token| ways(token, &next) <= 1) {
                parts = next;
            }
        }
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        let first = tokens.len();
        tokens.extend(parts.iter().cloned());
        let mut kinds = vec![(0, 2), (1, 3), (2, 3)];
        kinds.extend((3..259).map(|id| (id, 6)));
        // Distinct scores in a random order.
        let score = |at: usize| scores[at % 40] as f32 - at as f32 / 64.0;
        let all: Vec<Vec<u8>> = (0..tokens.len()).map(|id| if id < first { 0.0 } else { score(id - first) }.to_le_bytes().to_vec()).collect();
        let gguf = with_words("llama", &tokens, &kinds)
            .set("tokenizer.ggml.scores", list(6, &all))
            .set("tokenizer.ggml.add_space_prefix", flag(prefix));
        let tokenizer = tokenizer(&gguf);
        let id = |token: &str| tokens.iter().position(|known| known == token).map(|id| id as u32);
        for text in texts {
            let spaced = if prefix && !text.is_empty() { format!(" {text}") } else { text.clone() };
            let mut pieces: Vec<String> = spaced.replace(' ', "\u{2581}").chars().map(String::from).collect();
            loop {
                let joined = |at: usize| {
                    let token = format!("{}{}", pieces[at], pieces[at + 1]);
                    parts.iter().position(|known| *known == token).map(|part| (score(part), at))
                };
                let found = (0..pieces.len().saturating_sub(1)).filter_map(joined);
                let best = found.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
                let Some((_, at)) = best else { break };
                let second = pieces.remove(at + 1);
                pieces[at] += &second;
            }
            let of = |piece: &String| match id(piece) {
                Some(id) => vec![id],
                None => piece.bytes().map(|byte| 3 + u32::from(byte)).collect(),
            };
            let expected: Vec<u32> = [1].into_iter().chain(pieces.iter().flat_map(of)).collect();
            let found = tokenizer.encode(&text).expect("ids");
            prop_assert_eq!(&found, &expected, "{:?}: {:?}", text, pieces);
            let said = tokenizer.decode(&found[1..]).expect("known ids");
            prop_assert_eq!(said, spaced);
        }
    }
}

#[test]
fn words_that_are_tokens_stay_whole_where_the_name_says_so() {
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    for (name, stays) in
        [("llama-bpe", true), ("tekken", true), ("dbrx", false), ("qwen2", false), ("gpt-4o", false)]
    {
        let gguf = byte_words(name, &[], &["hello"], &[]).set("tokenizer.ggml.add_bos_token", flag(false));
        let expected = if stays { vec![256] } else { bytes("hello") };
        assert_eq!(tokenizer(&gguf).encode("hello").expect("ids"), expected, "{name}");
    }
}

#[test]
fn tokens_before_and_behind_a_text_are_those_of_the_file() {
    let special = |pre: &str| {
        byte_words(pre, &[], &["<s>", "</s>"], &[(256, 3), (257, 3)])
            .set("tokenizer.ggml.bos_token_id", whole(256))
            .set("tokenizer.ggml.eos_token_id", whole(257))
    };
    let encode = |gguf: &Gguf, text: &str| tokenizer(gguf).encode(text).expect("ids");
    // Where the file does not say, the name does (llama.cpp).
    assert_eq!(encode(&special("llama-bpe"), "a"), [256, 97]);
    assert_eq!(encode(&special("qwen2"), "a"), [97]);
    assert_eq!(encode(&special("llama-bpe").set("tokenizer.ggml.add_bos_token", flag(false)), "a"), [97]);
    let both = special("qwen2")
        .set("tokenizer.ggml.add_bos_token", flag(true))
        .set("tokenizer.ggml.add_eos_token", flag(true));
    assert_eq!(encode(&both, "a"), [256, 97, 257]);
    assert_eq!(encode(&both, "<s>a"), [256, 97, 257], "no second one");
    let nothing = byte_words("qwen2", &[], &[], &[]).set("tokenizer.ggml.add_bos_token", flag(true));
    assert!(opened(&nothing).map(drop).expect_err("no id").contains("bos_token_id"));
}

#[test]
fn a_chat_begins_once_and_ends_at_every_end_of_a_turn() {
    let today = Date::parse("2025-03-09").expect("a day");
    let names = ["<s>", "</s>", "<|eot|>", "<|im_end|>", "<|eom|>"];
    let gguf = byte_words("llama-bpe", &[], &names, &[(256, 3), (257, 3), (258, 3), (259, 3), (260, 4)])
        .set("tokenizer.ggml.bos_token_id", whole(256))
        .set("tokenizer.ggml.eos_token_id", whole(257))
        .set("tokenizer.ggml.eot_token_id", whole(258))
        .set("tokenizer.ggml.eom_token_id", whole(260));
    assert_eq!(tokenizer(&gguf).end_ids(), [257, 258, 260, 259]);
    for template in [
        "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "{{ messages[0].content }}{{ eos_token }}",
    ] {
        let gguf = gguf.clone().set("tokenizer.chat_template", typed(8, &text(template)));
        assert_eq!(tokenizer(&gguf).ask("a", today).expect("ids").ids, [256, 97, 257], "{template}");
    }
    let named = |list: &[&str]| {
        let gguf = gguf.clone().set("tokenizer.chat_templates", texts(list));
        list.iter().fold(gguf, |gguf, name| {
            gguf.set(&format!("tokenizer.chat_template.{name}"), typed(8, &text("x")))
        })
    };
    let good =
        named(&["tool_use"]).set("tokenizer.chat_template", typed(8, &text("[{{ messages[0].content }}]")));
    assert_eq!(tokenizer(&good).ask("a", today).expect("ids").text, "[a]");
    let none = tokenizer(&named(&["rag", "tool_use"])).ask("a", today).expect_err("none is the default");
    assert!(none.to_string().contains("found rag, tool_use"), "{none}");
    let calls =
        byte_words("gpt-4o", &[], &["<|end|>", "<|return|>", "<|call|>"], &[(256, 3), (257, 3), (258, 3)]);
    assert_eq!(tokenizer(&calls).end_ids(), [257, 258]);
}

/// Gemma: no space before a text, runs of spaces and line breaks as tokens of their own. Phi-3: white space behind a special token
/// belongs to it.
#[test]
fn tokens_that_users_defined_are_found_in_text() {
    let tokens =
        ["<unk>", "<s>", "</s>", "<t>", "  ", "\n\n", "\u{2581}", "a", "\u{2581}a", "\n"].map(str::to_owned);
    let scores: Vec<Vec<u8>> =
        [0f32, 0.0, 0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -1.0, -5.0].map(|x| x.to_le_bytes().to_vec()).into();
    let gguf = with_words("llama", &tokens, &[(0, 2), (1, 3), (2, 3), (3, 3), (4, 4), (5, 4)])
        .set("tokenizer.ggml.scores", list(6, &scores))
        .set("tokenizer.ggml.add_space_prefix", flag(false));
    let encode = |gguf: &Gguf, text: &str| tokenizer(gguf).encode(text).expect("ids");
    assert_eq!(encode(&gguf, "a a"), [1, 7, 8]);
    assert_eq!(encode(&gguf, "a  a\n\na<t> \n"), [1, 7, 4, 7, 5, 7, 3, 6, 9]);
    let spaced = gguf.clone().set("tokenizer.ggml.add_space_prefix", flag(true));
    assert_eq!(encode(&spaced, "a<t>a"), [1, 8, 3, 8]);
    let phi3 = spaced.set("general.name", typed(8, &text("Phi-3 Mini")));
    assert_eq!(encode(&phi3, "a<t> \na<s>\n"), [1, 8, 3, 8, 1, 6, 9]);
    // A character that no token has, in a vocabulary without bytes.
    assert_eq!(encode(&gguf, "aéüa"), [1, 7, 0, 7]);
}

#[test]
fn vocabularies_that_would_be_guessed_are_refused() {
    let refused = |gguf: &Gguf, parts: &[&str]| {
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().expect("a file");
        std::fs::write(file.path(), gguf.bytes()).expect("a writable file");
        let said = Checkpoint::open(file.path())
            .and_then(|checkpoint| checkpoint.tokenizer())
            .map(drop)
            .expect_err("an error")
            .to_string();
        parts.iter().for_each(|part| assert!(said.contains(part), "no {part:?} in: {said}"));
    };
    let small = || byte_words("gpt-2", &[], &[], &[]);
    for model in ["t5", "bert", "rwkv", "no_vocab"] {
        refused(
            &small().set("tokenizer.ggml.model", typed(8, &text(model))),
            &["tokenizer.ggml.model", model],
        );
    }
    refused(&small().without("tokenizer.ggml.pre"), &["tokenizer.ggml.pre", "convert"]);
    refused(
        &small().set("tokenizer.ggml.pre", typed(8, &text("default"))),
        &["tokenizer.ggml.pre", "convert"],
    );
    refused(
        &small().set("tokenizer.ggml.pre", typed(8, &text("afmoe"))),
        &["tokenizer.ggml.pre", "afmoe", "llama-bpe"],
    );
    refused(&small().set("tokenizer.ggml.add_bos_token", whole(1)), &["add_bos_token", "truth value"]);
    refused(&small().set("tokenizer.ggml.token_type", list(5, &[vec![1, 0, 0, 0]])), &["token_type", "256"]);
    let few = with_words("gpt2", &["a".to_owned()], &[])
        .set("tokenizer.ggml.pre", typed(8, &text("gpt-2")))
        .set("tokenizer.ggml.merges", texts::<&str>(&[]));
    let said = tokenizer(&few).encode("ab").expect_err("b has no token").to_string();
    assert!(said.contains("bytes have no token"), "{said}");
}

/// A folder without `tokenizer.json` whose vocabulary is two files.
#[test]
fn a_vocabulary_with_its_merges_is_read_as_its_class_reads_it() {
    let open = |files: &[(&str, String)]| {
        let folder = tempfile::tempdir().expect("a folder");
        Small::new(false).write(folder.path(), safetensors::Dtype::F32, 1);
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).expect("a file"));
        Checkpoint::open(folder.path()).and_then(|checkpoint| checkpoint.tokenizer())
    };
    let tokens: Vec<String> =
        byte_chars().into_iter().map(String::from).chain(["\u{120}a".into(), "</s>".into()]).collect();
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.into_iter().zip(0u32..).map(|(token, id)| (token, id.into())).collect();
    let vocab = ("vocab.json", json!(vocab).to_string());
    let merges = ("merges.txt", "#version: 0.2\n\u{120} a\n".to_owned());
    let config = |keys: serde_json::Value| ("tokenizer_config.json", keys.to_string());
    let class = |name: &str| config(json!({ "tokenizer_class": name }));
    let encode =
        |files: &[(&str, String)], text: &str| open(files).and_then(|words| words.encode(text)).expect("ids");
    assert_eq!(encode(&[vocab.clone(), merges.clone(), class("GPT2Tokenizer")], "a a12"), [97, 256, 49, 50]);
    // Qwen composes characters first.
    assert_eq!(
        encode(&[vocab.clone(), merges.clone(), class("Qwen2TokenizerFast")], "e\u{301}"),
        [0xc3, 0xa9]
    );
    assert_eq!(
        encode(&[vocab.clone(), merges.clone(), class("GPT2Tokenizer")], "e\u{301}"),
        [101, 0xcc, 0x81]
    );
    let opt = json!({ "tokenizer_class": "GPT2Tokenizer", "add_bos_token": true, "bos_token": { "content": "</s>" }, "eos_token": "</s>",
        "added_tokens_decoder": { "258": { "content": "<|new|>" } } });
    let words = open(&[vocab.clone(), merges.clone(), config(opt)]).expect("a tokenizer");
    assert_eq!(words.encode("a</s><|new|>").expect("ids"), [257, 97, 257, 258]);
    assert_eq!(words.end_ids(), [257]);
    let refused = |files: &[(&str, String)], part: &str| {
        let said = open(files).map(drop).expect_err(part).to_string();
        assert!(said.contains(part), "no {part:?} in: {said}");
    };
    refused(&[vocab.clone(), merges.clone(), class("RobertaTokenizer")], "RobertaTokenizer");
    refused(&[vocab.clone(), merges.clone()], "tokenizer_class: found none");
    refused(&[("tokenizer.model", "x".into())], "save_pretrained");
    refused(&[("vocab.json", "[]".into()), merges.clone(), class("GPT2Tokenizer")], "vocab.json");
    // A map would keep one of two words or ids.
    let twice = |entry: &str| ("vocab.json", vocab.1.replacen('{', &format!("{{{entry},"), 1));
    let with = |entry: &str| [twice(entry), merges.clone(), class("GPT2Tokenizer")];
    refused(&with("\"a\":300"), "vocab.json: \"a\": found the ids 300 and 97, expected one id for each word");
    refused(
        &with("\"<new>\":97"),
        "id 97: found the words \"<new>\" and \"a\", expected one word for each id",
    );
    refused(&with("\"x\":-1"), "vocab.json: x: found -1, expected an id");
    let added = |text: &str| {
        [vocab.clone(), merges.clone(), class("GPT2Tokenizer"), ("added_tokens.json", text.to_owned())]
    };
    refused(&added("{\"<new>\":97}"), "id 97: found the words \"a\" and \"<new>\"");
    refused(&added("{\"<new>\":258,\"<new>\":259}"), "\"<new>\": found the ids 258 and 259");
    let config_adds = json!({ "tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": { "5": { "content": "<new>" } } });
    refused(&[vocab.clone(), merges.clone(), config(config_adds)], "id 5: found the words");
    // What several files say alike is no harm, nor are byte order marks.
    let mut alike = added("\u{feff}{\"</s>\":257,\"<new>\":258}");
    alike[0].1.insert(0, '\u{feff}');
    alike[1].1.insert(0, '\u{feff}');
    assert_eq!(encode(&alike, " a</s><new>"), [256, 257, 258]);
    refused(&[], "tokenizer.json");
}

/// As in published GGUF files: a prompt gets the first of two tokens with one text, a model may say either, and the report says so.
#[test]
fn tokens_that_share_a_text_are_said_alike_and_remarked() {
    let words = |more: &[&str], kinds: &[(u32, i32)]| tokenizer(&byte_words("gpt-2", &[], more, kinds));
    let today = Date::parse("2025-03-09").expect("a day");
    let remarks = |words: &Tokenizer| words.ask("a", today).expect("ids").remarks;
    let some = words(&["a", "\u{120}", "a"], &[]);
    assert_eq!(some.encode("aa").expect("ids"), [97, 97]);
    assert_eq!(some.decode(&[97, 256, 257, 258]).expect("a text"), "aa a");
    let said =
        "tokens with the text of an earlier one: 3, as \"a\" of the ids 97 and 256; text becomes the earlier";
    assert_eq!(remarks(&some)[1..], [said.to_owned()]);
    // Those that are not used are no one's concern.
    assert_eq!(remarks(&words(&["a", "x"], &[(256, 5), (257, 5)])).len(), 1);
    assert_eq!(remarks(&words(&["<new>"], &[])).len(), 1);
}
