//! Attention windows: what a sequence holds and what its tokens see, against counts token by token. How long a sequence may
//! become, and what a model cannot do at all.

use crate::cli::{folder, radialsim, text};
use crate::lab::Lab;
use proptest::prelude::*;
use radialsim::batch::{Batch, Context, Part, Paths};
use radialsim::kernel::Kernel;
use radialsim::lower::{Graph, Lowering, Node};
use radialsim::model::{Kind, Model};
use radialsim::trace::synth::Method;
use radialsim::trace::{Header, Route, RouteTable};
use std::path::Path;

const H100: &str = "nvidia-h100-sxm";

/// Gemma-3-1B at 32,768 tokens: 4 global layers and 22 with a window of 512, 1,024 bytes an entry.
#[test]
fn windows_bound_the_kv_bytes_of_a_sequence() {
    let gemma = Model::builtin("gemma-3-1b").expect("a builtin");
    assert_eq!(gemma.kv_bytes(32_768), (4 * 32_768 + 22 * 512) * 1_024);
    assert_eq!(gemma.kv_bytes(300), 26 * 300 * 1_024, "a short sequence fits every window");
}

#[test]
fn a_run_holds_what_the_windows_leave() {
    let lab = Lab::new("gemma-3-1b", H100, 1);
    let ledger = lab.run(&lab.trace(&Method::Dense, 1, 1_000, 9, 1));
    // The last output token is never fed.
    assert_eq!(ledger.memory.kv_peak, lab.setup.model.kv_bytes(1_008));
}

/// Pairs and distinct entries of a chunk at a layer, one token after the other.
fn naive(window: Option<u32>, before: u32, tokens: u32) -> (u64, u64) {
    let (mut pairs, mut seen) = (0, std::collections::BTreeSet::new());
    for position in before..before + tokens {
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        pairs += u64::from(position + 1 - first);
        seen.extend(first..=position);
    }
    (pairs, seen.len() as u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Every layer's attention calls, for chunks and generated tokens over dense contexts.
    #[test]
    fn dense_tokens_see_what_lies_in_the_window(
        windows in prop::collection::vec(prop::option::of(1..80_u32), 3),
        spans in prop::collection::vec((0..150_u32, prop_oneof![Just(1_u32), 2..120_u32]), 1..6),
    ) {
        let mut model = Model::builtin("smollm2-135m").expect("a builtin");
        model.layers = windows.len() as u32;
        model.kinds = windows.iter().map(|&window| Kind { window, ..Kind::default() }).collect();
        model.pattern = (0..windows.len() as u8).collect();
        model.check().expect("a model");
        let header = Header::dense("m", model.layers);
        let mut routes = RouteTable::default();
        routes.intern(Route::dense(model.layers));
        let paths = Paths::new(&header, &routes, false);
        let (mut batch, mut contexts) = (Batch::default(), Vec::new());
        for (sequence, &(before, tokens)) in (0..).zip(&spans) {
            batch.push(sequence, vec![0; tokens as usize], tokens == 1, 1, Part::WHOLE);
            contexts.push(Context::dense(before, model.layers));
        }
        let dispatch = Lab::new("smollm2-135m", H100, 8).setup.dispatch;
        let mut graph = Graph::default();
        Lowering::new(&model, dispatch).lower(&batch, &contexts, &paths, &mut graph);
        let mut found = Vec::new();
        for call in graph.calls() {
            if let Node::Kernel { kernel: Kernel::Attention(shape), .. } = call.node {
                found.push((call.layer, shape.decode, shape.pairs, shape.entries));
            }
        }
        let mut expected = Vec::new();
        for (layer, &window) in (0..).zip(&windows) {
            for decode in [false, true] {
                let own = spans.iter().filter(|&&(_, tokens)| (tokens == 1) == decode);
                let sums = own.map(|&(before, tokens)| naive(window, before, tokens));
                let (pairs, entries) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                if pairs > 0 {
                    expected.push((layer, decode, pairs, entries));
                }
            }
        }
        prop_assert_eq!(found, expected);
    }
}

/// A scenario of one request of this length, on this model.
fn scenario(folder: &Path, model: &str, prompt: u32, output: u32) -> std::path::PathBuf {
    let text = format!(
        r#"(
    title: "context",
    model: "{model}",
    hardware: "nvidia-h100-sxm",
    workload: (requests: (count: 2, lengths: (prompt: Fixed({prompt}), output: Fixed({output})), arrivals: Closed)),
    serving: (max_batched_tokens: 512, max_sequences: 8, chunked_prefill: true),
    dispatch: (policy: aligned),
    seed: 3,
    variants: [(name: "one", routes: Method(Dense))],
)
"#
    );
    let path = folder.join("scenario.ron");
    std::fs::write(&path, text).expect("a file");
    path
}

/// Exit code and what was said, all of it.
fn simulate(model: &str, prompt: u32, output: u32, set: &[&str]) -> (i32, String) {
    let folder = folder();
    let path = scenario(folder.path(), model, prompt, output);
    let mut args = vec!["simulate", path.to_str().expect("UTF-8")];
    args.extend(set.iter().flat_map(|set| ["--set", set]));
    let done = radialsim(&args);
    let says = format!("{}{}", text(&done.stdout), text(&done.stderr));
    (done.status.code().expect("an exit code"), says)
}

#[test]
fn no_sequence_is_longer_than_the_context() {
    let (code, says) = simulate("opt-1.3b", 2_000, 49, &[]);
    assert_eq!(code, 2, "{says}");
    assert!(
        says.contains("request 0: found 2000 + 49 tokens, expected prompt and output of at most 2048"),
        "{says}"
    );
    assert_eq!(simulate("opt-1.3b", 2_000, 48, &[]).0, 0);
    // Rotated positions have an end too.
    assert_eq!(simulate("llama-2-7b", 4_090, 10, &[]).0, 2);
    let (code, says) = simulate("llama-2-7b", 4_090, 10, &["serving.beyond_context=cut"]);
    assert_eq!(code, 0, "{says}");
    assert!(says.contains("2 of 2 requests were longer and end there"), "{says}");
    let (code, says) = simulate("llama-2-7b", 4_090, 10, &["serving.beyond_context=run"]);
    assert_eq!(code, 0, "{says}");
    assert!(says.contains("2 of 2 requests are longer than 4096 tokens"), "{says}");
    assert_eq!(simulate("llama-2-7b", 100, 10, &["serving.max_model_len=64"]).0, 2);
    let (code, says) = simulate("llama-2-7b", 100, 10, &["serving.max_model_len=5000"]);
    assert!(
        code == 2 && says.contains("serving.max_model_len: found 5000, expected at most the 4096"),
        "{says}"
    );
}

#[test]
fn an_encoder_generates_nothing() {
    let (code, says) = simulate("vit-huge", 200, 2, &[]);
    assert!(code == 2 && says.contains("generates nothing"), "{says}");
    assert_eq!(simulate("vit-huge", 200, 1, &[]).0, 0);
}
