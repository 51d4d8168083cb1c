//! A chat template that is not found, or is rendered otherwise than by transformers, so that a model is asked in other tokens than
//! it was trained on and nobody is told.

use crate::cli::cli_execute::execute;
use crate::small_models::Small;
use radialsim::error::Result;
use radialsim::weights::{Asked, Checkpoint, Date, Tokenizer};
use safetensors::Dtype;
use serde_json::{Value, json};
use std::path::Path;

/// GPT-2's characters for bytes (`bytes_to_unicode`): printable ones are themselves, the others follow U+0100.
pub fn byte_chars() -> Vec<char> {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let mut char_of = |byte| if plain(byte) { byte } else { others.next().expect("endless") };
    (0..256).map(|byte| char::from_u32(char_of(byte)).expect("a character")).collect()
}

/// A `tokenizer.json` of bytes: `<s>` is 0, `</s>` 1, `<|user|>` 2, `<|bot|>` 3, then each byte plus 4. With `begin`, `<s>` comes
/// before every text.
fn bytes(begin: bool) -> Value {
    let special = ["<s>", "</s>", "<|user|>", "<|bot|>"];
    let characters = byte_chars().into_iter().map(String::from);
    let all = special.into_iter().map(str::to_owned).chain(characters);
    let vocabulary: serde_json::Map<String, Value> =
        all.zip(0u64..).map(|(token, id)| (token, id.into())).collect();
    let added = |(id, token): (usize, &&str)| {
        json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let around = json!({ "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": { "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] } } });
    let level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": special.iter().enumerate().map(added).collect::<Vec<_>>(),
        "pre_tokenizer": level, "decoder": level,
        "post_processor": if begin { around } else { Value::Null },
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] }
    })
}

/// The tokenizer of a folder with these files beside a small model.
fn open(tokenizer: &Value, files: &[(&str, String)]) -> Result<Tokenizer> {
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), Dtype::F32, 1);
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::write(path, text).expect("a writable folder");
    };
    write("tokenizer.json", &tokenizer.to_string());
    files.iter().for_each(|(name, text)| write(name, text));
    Checkpoint::open(folder.path()).and_then(|checkpoint| checkpoint.tokenizer())
}

fn today() -> Date {
    Date::parse("2025-03-09").expect("a day")
}

fn ask(files: &[(&str, String)], prompt: &str) -> Result<Asked> {
    open(&bytes(false), files).and_then(|tokenizer| tokenizer.ask(prompt, today()))
}

/// What a template alone makes of a prompt.
fn rendered(template: &str, prompt: &str) -> Result<Asked> {
    ask(&[("chat_template.jinja", template.into())], prompt)
}

const ROLES: &str = "{% for m in messages %}{{ '<|user|>' if m['role']=='user' else '<|bot|>' }}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}";

/// Wherever transformers keeps a template, it stands around the prompt; `x` alone is a template that must not be taken.
#[test]
fn a_template_is_found_wherever_it_is_kept() {
    let config = |template: Value| json!({ "chat_template": template }).to_string();
    let named = json!([{ "name": "tool_use", "template": "x" }, { "name": "default", "template": ROLES }]);
    let places: [&[(&str, String)]; 8] = [
        &[("chat_template.jinja", ROLES.into())],
        &[("tokenizer_config.json", config(ROLES.into()))],
        &[("tokenizer_config.json", config(named))],
        &[("chat_template.json", config(ROLES.into()))],
        &[("processor_config.json", config(ROLES.into()))],
        &[("chat_template.jinja", ROLES.into()), ("tokenizer_config.json", config("x".into()))],
        &[("tokenizer_config.json", config(ROLES.into())), ("chat_template.json", config("x".into()))],
        &[
            ("additional_chat_templates/tool_use.jinja", "x".into()),
            ("chat_template.jinja", ROLES.into()),
            ("tokenizer_config.json", format!("\u{feff}{}", config(Value::Null))),
        ],
    ];
    for files in places {
        let asked = ask(files, "hi").expect("a template");
        assert_eq!(asked.text, "<|user|>hi<|bot|>", "{files:?}");
        assert_eq!(asked.ids, [2, 4 + u32::from(b'h'), 4 + u32::from(b'i'), 3]);
        assert_eq!(asked.remarks, Vec::<String>::new());
    }
}

#[test]
fn a_model_without_a_template_says_so() {
    for files in [vec![], vec![("tokenizer_config.json", json!({ "chat_template": null }).to_string())]] {
        let asked = ask(&files, "hi").expect("a prompt");
        assert_eq!((asked.text.as_str(), asked.ids.len()), ("hi", 2));
        assert_eq!(asked.remarks, ["the model has no chat template: the prompt is taken as it is"]);
    }
}

/// Template, prompt, and what transformers 5.24 makes of both: `render_jinja_template` of `utils/chat_template_utils.py` with one
/// message of the user, `add_generation_prompt=True`, and the special tokens `<s>` and `</s>`. The last one, Python's forms of lists and
/// dicts, was worked by hand.
const RENDERED: [(&str, &str, &str); 15] = [
    (
        "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'].strip() }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}",
        " hi fox ",
        "<s><|user|>hi fox</s><|a|>",
    ),
    (
        "{% for m in messages %}\n    {% if m.role == 'user' %}\n[{{ m.content }}]\n    {% endif %}\n{% endfor %}\nend\n",
        " hi fox ",
        "[ hi fox ]\nend",
    ),
    (
        "{%- set ns = namespace(found=false, n=0) -%}\n{%- for m in messages -%}\n{%- if m.role == 'user' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif -%}\n{%- endfor -%}\n{{ ns.found }}{{ ns.n }}{{ none }}{{ messages[0].content }}",
        " hi fox ",
        "True1None hi fox ",
    ),
    (
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ messages[-1]['content'] }}",
        "hi",
        "0134hi",
    ),
    (
        "{{ messages | tojson }}\n{{ messages | tojson(indent=2) }}\n{{ {'b': 1.5, 'a': [true, none, 'é<&>'] } | tojson }}{{ {'b': 1, 'a': []} | tojson(sort_keys=true, ensure_ascii=true) }}{{ messages[0].content }}",
        "é<'&>",
        "[{\"role\": \"user\", \"content\": \"é<'&>\"}]\n[\n  {\n    \"role\": \"user\",\n    \"content\": \"é<'&>\"\n  }\n]\n{\"b\": 1.5, \"a\": [true, null, \"é<&>\"]}{\"a\": [], \"b\": 1}é<'&>",
    ),
    (
        "{% for m in messages %}{% generation %}\n{{ m.content }}{% endgeneration %}\n{%- generation -%}  x  {%- endgeneration -%}  y{% endfor %}",
        " hi fox ",
        " hi fox xy",
    ),
    (
        "{% if tools is defined %}D{% endif %}{% if tools is not none %}N{% endif %}{% if tools %}T{% endif %}{% if documents %}d{% endif %}{% if not date_string is defined %}n{% endif %}{{ undefined_thing }}{{ messages[0].nothing }}{{ messages[0]['content'] }}",
        "hi",
        "Dnhi",
    ),
    (
        "{% set rest = messages[1:] if messages[0]['role'] == 'system' else messages %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}{% if loop.first and loop.last %}FL{% endif %}{{ m['content'] | trim }}{% endfor %}",
        " hi fox ",
        "FLhi fox",
    ),
    (
        "{% macro box(x, y='!') %}[{{ x }}{{ y }}]{% endmacro %}{{ box(messages[0].content) }}{% set c %}A{{ box('q', y='?') }}{% endset %}{{ c }}",
        "hi",
        "[hi!]A[q?]",
    ),
    (
        "{{ messages[0].content.split(' ')[1] }}{{ messages[0].content.startswith(' h') }}{{ 'a,b,,c'.split(',')[-1] }}{{ 'xAxBx'.rsplit('x', 1) | join('|') }}{{ ' q '.lstrip() }}{{ ' q '.rstrip() }}{{ '--q--'.strip('-') }}{{ 'Ab'.upper() }}{{ 'Ab'.lower() }}{{ 'ab cd'.title() }}{{ 'prefix_x'.removeprefix('prefix_') }}{{ 'a=b=c'.partition('=') | join('~') }}{{ 'x'.join(['1','2']) }}{{ 'a\\nb'.splitlines() | length }}{{ messages[0].get('content') }}{{ messages[0].get('zz', 'dflt') }}{{ messages[0].keys() | list | join }}{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ 'abc'.find('c') }}{{ 'aXa'.replace('X', 'y') }}",
        " hi fox ",
        "hiTruecxAxB|q  qqABabAb Cdxa~=~b=c1x22 hi fox dfltrolecontentrole=user;content= hi fox ;2aya",
    ),
    (
        "{{ messages[0].content is string }}{{ messages[0].content is iterable }}{{ messages[0].content is sequence }}{{ messages[0] is mapping }}{{ messages is sequence }}{{ messages is mapping }}{{ 3 is number }}{{ x is undefined }}{{ messages[0].content }}",
        "hi",
        "TrueTrueTrueTrueTrueFalseTrueTruehi",
    ),
    (
        "{# comment #}\n  {# c2 #}\nA\n  {%+ if true %}\nB{% endif +%}\n{{ 'c' -}}\n  {{- messages[0].content -}}  \n",
        " hi fox ",
        "A\n  B\nc hi fox ",
    ),
    (
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('+') }}{{ messages | rejectattr('role', 'equalto', 'user') | list | length }}{{ ['b','a'] | sort | first }}{{ 'x' | default('y') }}{{ zz | default('y') }}{{ '' | default('z', true) }}{{ 'abc'[::-1] }}{{ messages[::-1] | length }}{{ [1,2,3] | last }}{{ 7 // 2 }}{{ 7 / 2 }}{{ 2 ** 3 }}{{ 'a' ~ 1 ~ 'b' }}{{ 'ab' * 2 }}{{ 'a' in 'abc' }}{{ 'é' | upper }}{{ 'a b' | capitalize }}{{ '%s-%d' | format('x', 3) }}{{ messages[0].content | length }}{{ ' x ' | trim | replace('x', 'w') }}{{ 'abc' | list | join(',') }}{{ {'k': 1}.k }}{{ dict(a=1).a }}{{ messages[0].content }}",
        " hi fox ",
        " hi fox 0axyzcba1333.58a1bababTrueÉA bx-38wa,b,c11 hi fox ",
    ),
    (
        "{{ 'begin' }}\n{%- if messages[0]['content'] is not none and messages[0]['content'] | length > 0 -%}\n    {{- '\\n' + messages[0]['content'] + '<|end|>\\n' }}\n{%- endif %}\n{%- for message in messages %}{% if not loop.last %},{% endif %}{{ loop.length }}{{ loop.revindex }}{% endfor %}",
        "hi",
        "begin\nhi<|end|>\n11",
    ),
    (
        "{{ [1, 'a', none, true, 2.0] }}{{ {'k': 'v'} }}{{ messages[0].content }}",
        "hi",
        "[1, 'a', None, True, 2.0]{'k': 'v'}hi",
    ),
];

#[test]
fn templates_are_rendered_as_transformers_renders_them() {
    let tokens =
        json!({ "bos_token": "<s>", "eos_token": { "content": "</s>", "lstrip": false } }).to_string();
    for (template, prompt, expected) in RENDERED {
        let files = [("chat_template.jinja", template.to_owned()), ("tokenizer_config.json", tokens.clone())];
        let asked = ask(&files, prompt).unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!(asked.text, expected, "{template}");
    }
}

/// Templates of multimodal models take parts; a plain text would be left out in silence.
#[test]
fn a_template_that_takes_parts_gets_parts() {
    let parts = "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'text' %}[{{ part['text'] }}]{% endif %}{% endfor %}{% endfor %}";
    assert_eq!(rendered(parts, "hi").expect("a text").text, "[hi]");
    assert_eq!(rendered("{{ messages[0].content[0]['text'] }}", "hi").expect("a text").text, "hi");
    let other = rendered("{{ messages[0].content | upper }}", "hi").expect("a text");
    assert_eq!(other.text, "HI");
    assert_eq!(other.remarks, ["the chat template does not repeat the prompt word for word"]);
}

/// The clock is never read: the day is an input, and a reader is told of it.
#[test]
fn a_template_that_asks_for_the_date_is_told_the_day_that_was_given() {
    let asked = rendered("{{ strftime_now('%d %b %Y, %A %-d. %j %%') }} {{ messages[0].content }}", "hi");
    let asked = asked.expect("a text");
    assert_eq!(asked.text, "09 Mar 2025, Sunday 9. 068 % hi");
    assert_eq!(asked.remarks, ["the chat template asks for the date and is told 2025-03-09"]);
    let defined =
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}{{ messages[0].content }}";
    assert_eq!(rendered(defined, "hi").expect("a text").text, "2025hi");
    for wrong in ["2025-02-30", "today", "", "2025-3", "9.3.2025"] {
        let error = Date::parse(wrong).expect_err("no day");
        assert_eq!(error.exit_code(), 2);
    }
}

/// A template writes its own tokens; what the tokenizer puts before plain texts does not come on top.
#[test]
fn tokens_before_a_text_come_once() {
    let config = json!({ "bos_token": "<s>" }).to_string();
    let files = |template: &str| {
        [("tokenizer_config.json", config.clone()), ("chat_template.jinja", template.to_owned())]
    };
    let h = 4 + u32::from(b'h');
    let with = open(&bytes(true), &files("{{ bos_token }}{{ messages[0].content }}")).expect("a tokenizer");
    assert_eq!(with.ask("h", today()).expect("ids").ids, [0, h]);
    let without = open(&bytes(true), &files("{{ messages[0].content }}")).expect("a tokenizer");
    assert_eq!(without.ask("h", today()).expect("ids").ids, [h]);
    for (text, ids) in [("h", vec![0, h]), ("<s>h", vec![0, h]), ("<s><s>h", vec![0, 0, h]), ("", vec![0])] {
        assert_eq!(without.encode(text).expect("ids"), ids, "{text:?}");
    }
}

/// What `tokenizer_config.json` says of added tokens and of tokens around a text, as transformers 5.24 follows it
/// (`AutoTokenizer.from_pretrained` on such a folder gives these ids).
#[test]
fn the_configuration_beside_a_tokenizer_is_followed() {
    let open = |begin: bool, keys: Value| open(&bytes(begin), &[("tokenizer_config.json", keys.to_string())]);
    let encode = |begin: bool, keys: Value, text: &str| {
        open(begin, keys).and_then(|words| words.encode(text)).expect("ids")
    };
    let (h, less) = (4 + u32::from(b'h'), 4 + u32::from(b'<'));
    // Tokens around a text are those of the file, whatever flags stand beside it.
    let flags = |begin: bool| json!({ "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": begin });
    assert_eq!(encode(false, flags(true), "h"), [h]);
    assert_eq!(encode(true, flags(false), "h"), [0, h]);
    // A token that only the configuration knows, with the white space that it takes.
    let new =
        json!({ "added_tokens_decoder": { "260": { "content": "<new>", "rstrip": true, "special": true } } });
    assert_eq!(encode(false, new, "h<new> h"), [h, 260, h]);
    assert_eq!(encode(false, json!({}), "<")[0], less);
    // A token of the vocabulary that the configuration calls special is found in text.
    assert_eq!(encode(false, json!({ "pad_token": "h" }), "hh"), [h, h]);
    let refused = |keys: Value, part: &str| {
        let said = open(false, keys).map(drop).expect_err(part).to_string();
        assert!(said.contains(part), "no {part:?} in: {said}");
    };
    refused(json!({ "added_tokens_decoder": { "999": { "content": "<new>" } } }), "under the id 999");
    refused(json!({ "added_tokens_decoder": { "x": { "content": "<new>" } } }), "added_tokens_decoder");
}

/// The library keeps the last of two words and some one of two ids, and numbers added tokens on behind the vocabulary.
#[test]
fn a_tokenizer_says_one_id_for_each_word() {
    let opened = |text: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        Small::new(false).write(folder.path(), Dtype::F32, 1);
        std::fs::write(folder.path().join("tokenizer.json"), text).expect("a writable folder");
        Checkpoint::open(folder.path()).and_then(|checkpoint| checkpoint.tokenizer())
    };
    let whole = bytes(false).to_string();
    let with = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replacen(from, to, 1)
    };
    let refused = |text: &str, part: &str| {
        let said = opened(text).map(drop).expect_err(part).to_string();
        assert!(said.contains("tokenizer.json:") && said.contains(part), "no {part:?} in: {said}");
    };
    let h = 4 + u32::from(b'h');
    refused(&with("\"vocab\":{", "\"vocab\":{\"h\":300,"), &format!("\"h\": found the ids 300 and {h}"));
    let both = format!("\"vocab\":{{\"hh\":{h},");
    refused(&with("\"vocab\":{", &both), &format!("id {h}: found the words \"hh\" and \"h\""));
    let added = |id: u32, content: &str| {
        let token = json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true });
        with("\"added_tokens\":[", &format!("\"added_tokens\":[{token},"))
    };
    refused(&added(h, "<new>"), &format!("id {h}: found the words \"h\" and \"<new>\""));
    refused(&added(300, "h"), &format!("\"h\": found the ids {h} and 300"));
    refused(
        &added(300, "<new>"),
        "added_tokens: found 260, expected \"<new>\" under the id 300 of added_tokens",
    );
    assert_eq!(opened(&added(260, "<new>")).expect("a tokenizer").encode("h<new>").expect("ids"), [h, 260]);
    let list = json!({ "type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["b", -1.0], ["a", -2.0]] });
    let unigram = json!({ "version": "1.0", "added_tokens": [], "model": list });
    refused(&unigram.to_string(), "\"a\": found the ids 0 and 2");
    refused("{\"version\": 1", "tokenizer: found the end of the line, expected a tokenizer.json");
    let marked = opened(&format!("\u{feff}{whole}")).expect("a tokenizer");
    assert_eq!(marked.encode("h").expect("ids"), [h]);
}

#[test]
fn ends_of_a_generation_come_from_every_place_that_says_one() {
    let ends = |files: &[(&str, Value)]| {
        let files: Vec<_> = files.iter().map(|(name, keys)| (*name, keys.to_string())).collect();
        open(&bytes(false), &files).expect("a tokenizer").end_ids().to_vec()
    };
    assert_eq!(ends(&[]), Vec::<u32>::new());
    assert_eq!(ends(&[("generation_config.json", json!({ "eos_token_id": [3, 2] }))]), [3, 2]);
    assert_eq!(ends(&[("tokenizer_config.json", json!({ "eos_token": "</s>" }))]), [1]);
    let both = [
        ("generation_config.json", json!({ "eos_token_id": 3 })),
        ("special_tokens_map.json", json!({ "eos_token": { "content": "</s>" } })),
    ];
    assert_eq!(ends(&both), [3, 1]);
    let mut config = Small::new(false).config();
    config["text_config"] = json!({ "eos_token_id": [2] });
    assert_eq!(ends(&[("config.json", config.clone())]), [2]);
    config["eos_token_id"] = 3.into();
    assert_eq!(
        ends(&[("config.json", config), ("generation_config.json", json!({ "eos_token_id": null }))]),
        [3]
    );
}

#[track_caller]
fn refused(files: &[(&str, String)], parts: &[&str]) {
    let error = ask(files, "hi").expect_err("no prompt");
    assert_eq!(error.exit_code(), 2, "{error}");
    let said = error.to_string();
    assert!(!said.contains('\n'), "one line: {said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

#[test]
fn broken_templates_are_one_clear_error() {
    let file = |text: &str| [("chat_template.jinja", text.to_owned())];
    refused(&file("a\n{% if %}"), &["chat_template.jinja", "chat_template:2", "syntax error"]);
    refused(&file("{% for m in messages %}"), &["chat_template.jinja", "syntax error"]);
    refused(&file("{{ messages.nothing() }}"), &["chat_template.jinja", "unknown method"]);
    refused(&file("{{ nothing() }}"), &["unknown function"]);
    refused(&file("{{ raise_exception('roles must alternate') }}"), &["roles must alternate"]);
    refused(&file("{{ strftime_now('%Q') }}"), &["%Q"]);
    refused(
        &file("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"),
        &["fuel"],
    );
    refused(&file("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), &["chat_template.jinja"]);
    let config =
        |template: Value| [("tokenizer_config.json", json!({ "chat_template": template }).to_string())];
    refused(&config(json!(7)), &["tokenizer_config.json", "chat_template", "a text"]);
    refused(&config(json!([{ "name": "default" }])), &["tokenizer_config.json", "`template`"]);
    let named = json!([{ "name": "rag", "template": "x" }, { "name": "tool_use", "template": "x" }]);
    refused(&config(named), &["tokenizer_config.json", "found rag, tool_use", "default"]);
    refused(&config(json!("{{ 1 +")), &["tokenizer_config.json: chat_template", "syntax error"]);
    refused(&[("tokenizer_config.json", "{".into())], &["tokenizer_config.json", "JSON"]);
}

/// The same through the program: the tokens of a prompt, and the remark beside the result.
#[test]
fn the_program_asks_with_the_template_and_says_when_there_is_none() {
    if crate::gpu().is_none() {
        return;
    }
    let run = |folder: &Path, args: &[&str]| -> (Value, String) {
        let json = folder.join("out.jsonl");
        let path = json.to_string_lossy();
        let asked = ["--prompt", "A", "--max-tokens", "1", "--json", &path];
        let output = execute(folder, &[&asked, args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let line = std::fs::read_to_string(json).expect("a line");
        (serde_json::from_str(&line).expect("JSON"), said)
    };
    let folder = tempfile::tempdir().expect("a folder");
    Small::new(false).write(folder.path(), Dtype::F32, 1);
    std::fs::write(folder.path().join("tokenizer.json"), bytes(false).to_string()).expect("a file");
    let (line, said) = run(folder.path(), &[]);
    assert_eq!(line["prompt_ids"], json!([69]));
    assert!(said.contains("note: the model has no chat template"), "{said}");
    assert_eq!(line["remarks"][0], "the model has no chat template: the prompt is taken as it is");
    std::fs::write(folder.path().join("chat_template.jinja"), ROLES).expect("a file");
    let (line, said) = run(folder.path(), &[]);
    assert_eq!((&line["prompt_ids"], line.get("remarks")), (&json!([2, 69, 3]), None));
    assert!(!said.contains("note:"), "{said}");
    let (line, _) = run(folder.path(), &["--raw"]);
    assert_eq!(line["prompt_ids"], json!([69]));
    std::fs::write(
        folder.path().join("chat_template.jinja"),
        "{{ strftime_now('%d') }}{{ messages[0].content }}",
    )
    .expect("a file");
    let (line, _) = run(folder.path(), &["--date", "2025-03-09", "-q"]);
    assert_eq!(line["prompt_ids"], json!([52, 61, 69]));
}
