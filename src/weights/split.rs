//! How text is cut into words before bytes are merged, by the name that GGUF files give it (`tokenizer.ggml.pre`).
//!
//! Names, patterns and defaults are those of llama.cpp (`src/llama-vocab.cpp`, commit 00ad355); where it says that a pattern
//! stands for another of a `tokenizer.json`, that one is taken.

use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{self, SplitPattern};

/// A way to cut.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    /// Its names.
    names: &'static [&'static str],
    /// Patterns that cut one after the other; what a pattern matches and what lies between are words.
    patterns: &'static [&'static str],
    /// Whether a word that is a token stays whole, whatever the merges say.
    pub whole: bool,
    /// Whether a text begins with a token where the file does not say.
    pub begin: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// All ways that are known.
const ALL: [Split; 16] = [
    plain(
        &[
            "gpt-2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        &[GPT2],
    ),
    plain(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    Split {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        whole: true,
        begin: true,
    },
    plain(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    plain(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "f2llmv2",
        ],
        &[QWEN2],
    ),
    plain(&["qwen35"], &[QWEN35]),
    Split { names: &["tekken"], patterns: &[TEKKEN], whole: true, begin: true },
    plain(&["gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"], &[GPT4O]),
    plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    plain(&["seed-coder"], &[SEED]),
    plain(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    plain(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    plain(&["viking"], &[BLOOM, r"\p{N}"]),
    plain(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        &[r"\p{N}{1,3}", r"[\x{4e00}-\x{9fa5}\x{3040}-\x{30ff}]+", DEEPSEEK3],
    ),
    plain(
        &["deepseek-coder"],
        &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+",
            r"\p{N}",
        ],
    ),
    plain(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1f7d}ᾀ-ᾴᾶ-ᾼ\x{1fbe}ῂ-ῄῆ-ῌῐ-\x{1fd3}ῖ-\x{1fdb}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212a}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
            r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+",
            r"\s+$",
            r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+",
            r"\p{N}+",
        ],
    ),
];

const fn plain(names: &'static [&'static str], patterns: &'static [&'static str]) -> Split {
    Split { names, patterns, whole: false, begin: false }
}

impl Split {
    /// The way of this name.
    pub fn named(name: &str) -> Option<&'static Split> {
        const KNOWN: &[Split] = &ALL;
        KNOWN.iter().find(|split| split.names.contains(&name))
    }

    /// The cuts, in their order.
    pub fn steps(&self) -> tokenizers::Result<Vec<PreTokenizerWrapper>> {
        let step = |pattern: &&str| {
            split::Split::new(SplitPattern::Regex((*pattern).to_owned()), Isolated, false).map(Into::into)
        };
        self.patterns.iter().map(step).collect()
    }

    /// All names.
    pub fn names() -> String {
        ALL.iter().flat_map(|split| split.names).copied().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Split};
    use tokenizers::pre_tokenizers::sequence::Sequence;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    const TEXT: &str = "I'M sure it's 12345 tests:  x=3.14; (don't)\n\n  HelloWorld naïve CAFÉ über\tß 你好世界123 नमस्ते العربية 3٣४\r\n\r\n\"quote\" a/b\\c #tag @you… 'LL we'd   \n";

    /// Words of the text, with a bar between: what the tokenizers library for Python (0.23) cuts, whose patterns run in another
    /// engine (Oniguruma). For llama-bpe, dbrx, qwen2, qwen35, tekken and gpt-4o the patterns were those of transformers 5.24
    /// (`integrations/gguf/gguf_tokenizer_mapping.py`), which equal the ones here.
    const WORDS: [(&str, &str); 16] = [
        (
            "gpt-2",
            "I|'|M| sure| it|'s| 12345| tests|:| | x|=|3|.|14|;| (|don|'t|)|\n\n | HelloWorld| naïve| CAFÉ| über|\t|ß| 你好世界|123| नमस|्|त|े| العربية| 3٣४|\r\n\r|\n|\"|quote|\"| a|/|b|\\|c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "smollm",
            "I|'|M| sure| it|'s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'t|)|\n\n | HelloWorld| naïve| CAFÉ| über|\t|ß| 你好世界|1|2|3| नमस|्|त|े| العربية| |3|٣|४|\r\n\r|\n|\"|quote|\"| a|/|b|\\|c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "llama-bpe",
            "I|'M| sure| it|'s| |123|45| tests|:| | x|=|3|.|14|;| (|don|'t|)\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| 你好世界|123| नमस|्त|े| العربية| |3٣४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "dbrx",
            "I|'M| sure| it|'s| |123|45| tests|:| | x|=|3|.|14|;| (|don|'t|)\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| 你好世界|123| नमस|्त|े| العربية| |3٣४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "qwen2",
            "I|'M| sure| it|'s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'t|)\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| 你好世界|1|2|3| नमस|्त|े| العربية| |3|٣|४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "qwen35",
            "I|'M| sure| it|'s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'t|)\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| 你好世界|1|2|3| नमस्ते| العربية| |3|٣|४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "tekken",
            "I|'M| sure| it|'s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'t|)\n\n| | Hello|World| naïve| CAFÉ| über|\tß| 你好世界|1|2|3| नमस्ते| العربية| |3|٣|४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "gpt-4o",
            "I'M| sure| it's| |123|45| tests|:| | x|=|3|.|14|;| (|don't|)\n\n| | Hello|World| naïve| CAFÉ| über|\tß| 你好世界|123| नमस्ते| العربية| |3٣४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we'd|   \n",
        ),
        (
            "falcon",
            "I|'|M| sure| it|'|s| |123|45| tests|:| | x|=|3|.|14|;| |(|don|'|t|)|\n\n | HelloWorld| naïve| CAFÉ| über|\t|ß| 你好世界|123| नमस|्|त|े| العربية| 3٣४|\r\n\r\n|\"|quote|\"| a|/|b|\\|c| |#|tag| |@|you|…| |'|LL| we|'|d|   \n",
        ),
        (
            "seed-coder",
            "I|'M| sure| it|'s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'t|)|\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| 你好世界|1|2|3| नमस|्त|े| العربية| |3|٣|४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "bailingmoe",
            "I|'M| sure| it|'s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'t|)\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| 你好世界|1|2|3| नमस|्त|े| العربية| |3|٣|४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "bloom",
            "I'M| sure| it's| 12345| tests:| | x=3|.|14;| (|don't|)\n\n | HelloWorld| naïve| CAFÉ| über|\t|ß| 你好世界123| नमस्ते| العربية| 3٣४|\r\n\r\n|\"quote\"| a/b\\c| #tag| @you|…| 'LL| we'd|   \n",
        ),
        (
            "viking",
            "I'M| sure| it's| |1|2|3|4|5| tests:| | x=|3|.|1|4|;| (|don't|)\n\n | HelloWorld| naïve| CAFÉ| über|\t|ß| 你好世界|1|2|3| नमस्ते| العربية| |3|٣|४|\r\n\r\n|\"quote\"| a/b\\c| #tag| @you|…| 'LL| we'd|   \n",
        ),
        (
            "deepseek-v3",
            "I|'M| sure| it|'s| |123|45| tests|:| | x|=|3|.|14|;| (|don|'t|)\n\n| | HelloWorld| naïve| CAFÉ| über|\tß| |你好世界|123| नमस्ते| العربية| |3٣४|\r\n\r\n|\"quote|\"| a|/b|\\c| #|tag| @|you|…| '|LL| we|'d|   \n",
        ),
        (
            "deepseek-coder",
            "I|'|M| sure| it|'|s| |1|2|3|4|5| tests|:| | x|=|3|.|1|4|;| (|don|'|t|)|\n|\n| | HelloWorld| naïve| CAFÉ| über|\tß| |你好世界|1|2|3| |नमस|्|त|े| العربية| |3|٣|४|\r|\n|\r|\n|\"|quote|\"| a|/|b|\\|c| #|tag| @|you|…| '|LL| we|'|d|   |\n",
        ),
        (
            "deepseek-llm",
            "I|'|M| sure| it|'|s| |12345| tests|:| | x|=|3|.|14|;| (|don|'|t|)|\n|\n| | HelloWorld| na|ï|ve| CAF|É| ü|ber|\tß| |你好世界|123| |नमस्ते| العربية |3٣|४|\r|\n|\r|\n|\"|quote|\"| a|/|b|\\|c| #|tag| @|you|…| '|LL| we|'|d|   |\n",
        ),
    ];

    #[test]
    fn every_name_cuts_as_another_engine_does() {
        for (name, words) in WORDS {
            let split = Split::named(name).expect("a known name");
            let mut cut = PreTokenizedString::from(TEXT);
            Sequence::new(split.steps().expect("good patterns")).pre_tokenize(&mut cut).expect("words");
            let found = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let found: Vec<&str> = found.into_iter().map(|(word, ..)| word).collect();
            assert_eq!(found.join("|"), words, "{name}");
        }
        let missing = ALL.iter().find(|split| WORDS.iter().all(|(name, _)| !split.names.contains(name)));
        assert_eq!(missing, None);
    }
}
