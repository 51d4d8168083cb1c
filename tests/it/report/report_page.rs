//! Reports of studies whose every text wants to be more than a text.

use crate::cli::folder;
use crate::report::page_browser::{assert_fit_to_read, dumped, measured, on_a_phone, with_probe};
use radialsim::error::shorten;
use radialsim::page::Page;
use radialsim::plot::{Chart, Ink};
use radialsim::study::{self, Report, Shard, Study};
use roxmltree::{Document, Node};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The texts of a study and of all that it reads.
const TEXTS: [&str; 14] = [
    "title",
    "question",
    "axis",
    "other axis",
    "label",
    "price source",
    "scenario title",
    "variant",
    "other variant",
    "profile name",
    "profile title",
    "profile source",
    "trace model",
    "trace source",
];

/// The names of its files.
const FILES: [&str; 5] = ["study file", "scenario file", "profile file", "model folder", "trace file"];

const HOSTILE: [&str; 6] = [
    "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">",
    "</title></style></svg></text></bdi></td></table><svg onload=\"document.title='ran'\">",
    "\" onfocus='document.title=1' autofocus style=\"position:fixed;width:4000px\" &lt;b&gt; &#0; <!-- ]]> <![CDATA[",
    "\u{202e}evil\u{2066}\u{200f} \u{5d0}\u{5d1} \u{feff}\u{61c}\u{ffff}",
    "\0\u{1}\u{1b}[31m\u{7f}\u{85}\r\n\t\u{2028} = a; b, c: 1.5 %s {0} $(x) `y` \\u{0}",
    "1e999",
];

const MODEL: &str = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu", "hidden_size": 576,
    "intermediate_size": 1536, "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "vocab_size": 49152}"#;

/// Writes a study with everything that it reads; `text` says what stands where.
fn written(folder: &Path, text: &dyn Fn(&str) -> String) -> PathBuf {
    // Rust writes a text as RON reads it.
    let ron = |what: &str| format!("{:?}", text(what));
    // No file has a `/` or a NUL in its name, nor more than 255 bytes.
    let file = |what: &str, ending: &str| {
        let name: String =
            text(what).replace('/', "\u{2215}").replace('\0', "\u{2400}").chars().take(60).collect();
        name + ending
    };
    let [study, scenario, profile, trace] = [
        ("study file", ".ron"),
        ("scenario file", ".scenario.ron"),
        ("profile file", ".profile.ron"),
        ("trace file", ".jsonl"),
    ]
    .map(|(what, ending)| file(what, ending));
    let model = file("model folder", " model");
    let write = |name: &str, content: String| fs::write(folder.join(name), content).unwrap();
    fs::create_dir(folder.join(&model)).unwrap();
    write(&format!("{model}/config.json"), MODEL.into());

    let source = "Assumed(\"default gpu_memory_utilization of vLLM\")";
    let shipped = fs::read_to_string("hw-profiles/nvidia-h100-sxm.ron").unwrap();
    assert!(shipped.contains(source));
    let own = shipped
        .replace("\"nvidia-h100-sxm\"", &ron("profile name"))
        .replace("\"NVIDIA H100 SXM5 80GB\"", &ron("profile title"))
        .replace(source, &format!("Assumed({})", ron("profile source")));
    write(&profile, own);

    let recorded = fs::read_to_string("examples/traces/smollm2-dense.jsonl").unwrap();
    let (head, rest) = recorded.split_once('\n').unwrap();
    let mut head: serde_json::Value = serde_json::from_str(head).unwrap();
    head["model"] = text("trace model").into();
    head["source"] = text("trace source").into();
    write(&trace, format!("{head}\n{rest}"));

    let (other, limit) =
        (ron("other variant"), "max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true");
    let skips = "IndependentSkips(skip: 0.3, branches: Separately, kv: project_only)";
    write(
        &scenario,
        format!(
            "(title: {}, model: {model:?}, hardware: {profile:?}, workload: (trace: {trace:?}), serving: ({limit}),\n\
             dispatch: (policy: aligned), fidelity: step, seed: 1,\n\
             variants: [(name: {}, routes: Recorded), (name: {other}, routes: Method({skips}))])",
            ron("scenario title"),
            ron("variant"),
        ),
    );
    let axis = ron("axis");
    write(
        &study,
        format!(
            "(title: {}, question: {}, scenario: {scenario:?}, axes: [\n\
             LogRange(name: {axis}, key: \"hardware.memory.dram_gb_per_s\", from: 100, to: 3000, count: 2),\n\
             Values(name: {}, key: \"serving.chunked_prefill\", values: [true, false], labels: [{}, \"b\"]),\n\
             ], objectives: [Least(\"tpot_s.p50\"), Least(\"usd_per_million_output_tokens\")],\n\
             prices: [(hardware: {profile:?}, usd_per_hour: 2, source: {})],\n\
             searches: [BreakEven(axis: {axis}, variants: [{other}], against: {}, of: Least(\"tpot_s.p50\"), tolerance: 9)])",
            ron("title"),
            ron("question"),
            ron("other axis"),
            ron("label"),
            ron("price source"),
            ron("variant"),
        ),
    );
    folder.join(study)
}

/// The page and the charts of such a study, or what is wrong with it.
fn report(text: &dyn Fn(&str) -> String) -> Result<(Page, Vec<Chart>), String> {
    let folder = folder();
    let make = || {
        let study = Study::load(&written(folder.path(), text))?;
        let out = folder.path().join("out");
        study::sweep(&study, &out, Shard::WHOLE, 2, &())?;
        let assembly = study::merge(&study, &[out])?;
        let command = format!("radialsim sweep {}", study.path.display());
        study::report(&assembly, &command, 1)
    };
    let Report { page, charts, .. } = make().map_err(|error: radialsim::error::Error| error.to_string())?;
    Ok((page, charts))
}

/// The page as XML, which it is but for `meta`.
fn closed(html: &str) -> String {
    let body = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    let tags = body.split_inclusive('>');
    tags.map(|tag| if tag.starts_with("<meta ") { tag.replace('>', "/>") } else { tag.to_owned() }).collect()
}

fn bone(node: Node) -> String {
    let names: Vec<&str> = node.attributes().map(|attribute| attribute.name()).collect();
    format!("{} {}", node.tag_name().name(), names.join(" "))
}

/// What a page is made of: its elements in their order, those within pictures apart and without order, for a name may take two lines
/// there and none where it finds no room. The note of a cut text counts as text.
fn skeleton(html: &str) -> (Vec<String>, BTreeSet<String>) {
    let closed = closed(html);
    let document = Document::parse(&closed).unwrap_or_else(|error| panic!("{error}: {closed:.2000}"));
    let elements = document.descendants().filter(|node| node.is_element() && !node.has_tag_name("em"));
    let (drawn, written): (Vec<Node>, Vec<Node>) =
        elements.partition(|node| node.ancestors().skip(1).any(|around| around.tag_name().name() == "svg"));
    let indented = |node: Node| format!("{}{}", " ".repeat(node.ancestors().count()), bone(node));
    (written.into_iter().map(indented).collect(), drawn.into_iter().map(bone).collect())
}

#[track_caller]
fn assert_tame(text: &dyn Fn(&str) -> String, tame: &(Vec<String>, BTreeSet<String>), what: &str) {
    let (page, charts) = report(text).unwrap_or_else(|error| panic!("{what}: {error:.400}"));
    let html = page.html();
    let (written, drawn) = skeleton(&html);
    let differs = written.iter().zip(&tame.0).find(|(a, b)| a != b);
    assert!(differs.is_none() && written.len() == tame.0.len(), "{what}: {differs:?}");
    assert!(drawn.is_subset(&tame.1), "{what}: {:?}", drawn.difference(&tame.1));
    assert!(!html.contains("<script") && !html.contains("<img"), "{what}");
    let hidden = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{61c}' | '\u{200f}' | '\u{202e}' | '\u{2066}' | '\u{ffff}')
    };
    assert!(!html.contains(hidden), "{what}");
    assert!(html.len() < 2_000_000, "{what}: {} bytes", html.len());
    for chart in charts {
        let svg = chart.svg(Ink::Paper);
        let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{what}: {error}: {svg:.2000}"));
        assert!(document.descendants().all(|node| !node.has_tag_name("script")), "{what}");
    }
}

/// This text in these places, tame names everywhere else.
fn only<'a>(places: &'a [&'a str], text: &'a str) -> impl Fn(&str) -> String + 'a {
    move |place: &str| if places.contains(&place) { format!("{place} {text}") } else { place.to_owned() }
}

#[test]
fn no_text_of_a_study_is_markup() {
    let (page, charts) = report(&str::to_owned).unwrap();
    assert!(charts.len() > 5);
    let html = page.html();
    let unseen: Vec<&str> = TEXTS.into_iter().filter(|place| !html.contains(place)).collect();
    assert_eq!(unseen, UNSEEN, "texts that are nowhere on the page");
    let tame = skeleton(&html);
    let all = [&TEXTS[..], &FILES].concat();
    for place in &all {
        assert_tame(&only(&[place], &HOSTILE.concat()), &tame, place);
    }
    for text in HOSTILE {
        assert_tame(&only(&all, text), &tame, text);
    }
}

/// Texts that reports do not show.
const UNSEEN: [&str; 5] = ["scenario title", "profile name", "profile title", "trace model", "trace source"];

#[test]
fn a_text_of_a_megabyte_is_cut() {
    let tame = skeleton(&report(&str::to_owned).unwrap().0.html());
    for (word, count) in [("<script>", 110_000), ("\u{202e}", 110_000)] {
        for place in TEXTS {
            // The search names the axis again, in the same file.
            let long = word.repeat(if place == "axis" { count / 2 } else { count });
            assert_tame(&only(&[place], &long), &tame, place);
        }
    }
    // Files of studies and scenarios have at most 1 MiB.
    for place in ["title", "scenario title"] {
        let error = report(&only(&[place], &"x".repeat(1 << 20))).unwrap_err();
        assert!(error.contains("ron: found 10") && error.contains(" of at most 1048576 bytes"), "{error}");
    }
}

#[test]
fn a_browser_takes_a_hostile_report_for_what_it_is() {
    let text = HOSTILE[..4].concat();
    let all = [&TEXTS[..], &FILES].concat();
    let html = report(&only(&all, &text)).unwrap().0.html();
    let Some(dom) = dumped(&with_probe(&html, ""), false) else { return };
    // What would have run without a policy would have changed the title.
    let title = shorten(&format!("title {text}"));
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    assert!(dom.contains(&format!("<title>{title}</title>")), "{dom:.3000}");
    assert_eq!((dom.matches("<script").count(), dom.matches("<img").count()), (1, 0), "the probe alone");
    let Some(found) = measured(&on_a_phone(&with_probe(&html, "")), false) else { return };
    assert_eq!(found["width"], 390.0);
    assert_fit_to_read(&found);
}
