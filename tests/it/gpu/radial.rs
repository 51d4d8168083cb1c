//! Radial networks: decided by the host and by the device, against a naive walk in double precision over one cache for all layers.

use crate::cli::cli_execute::execute;
use crate::gpu::hops::AsLowered;
use crate::small_models::{HIDDEN, KeysValues, Small, VOCABULARY};
use radialsim::batch::{Policy, Visibility};
use radialsim::error::Result;
use radialsim::gpu::{
    Executor, ExecutorOptions, Generated, GenerationSettings, GenerationWatch, Pass, PassOutcome, Prompt,
    Radial, Routing,
};
use radialsim::rng::Stream;
use radialsim::scenario::Scenario;
use radialsim::trace::{KvAction, Order, RouterDevice, RouterKind, RouterWhen};
use radialsim::weights::{Checkpoint, RadialDescription, RadialKv, RadialRouter};
use safetensors::Dtype;
use std::path::Path;
use std::process::Command;

const HIDDEN_LAYER: usize = 8;

/// A router of random weights for a pool.
pub fn router(seed: u64, layers: usize, described: &RadialDescription) -> RadialRouter {
    let mut random = Stream::new(seed, "radial");
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    let options = layers + 1;
    RadialRouter {
        described: described.clone(),
        layers: layers as u32,
        width: HIDDEN as u32,
        hidden: HIDDEN_LAYER as u32,
        first: values(HIDDEN_LAYER * HIDDEN),
        vectors: values(options * HIDDEN_LAYER),
        second: values(options * HIDDEN_LAYER),
        biases: values(options * options),
        words: Vec::new(),
    }
}

pub fn described(hops: u32, least_hops: u32, weighted: bool, visible: Visibility) -> RadialDescription {
    let (kind, model, kv) = ("radial".into(), "small".into(), RadialKv::Unified);
    RadialDescription { kind, model, hops, least_hops, weighted, kv, visible }
}

/// Logits of every token and the layers that each took, token by token and hop by hop, as the definition has it.
fn naive(small: &Small, router: &RadialRouter, tokens: &[u32]) -> (Vec<Vec<f64>>, Vec<Vec<usize>>) {
    let RadialDescription { hops, least_hops, weighted, visible, .. } = router.described;
    let (pool, options) = (router.layers as usize, router.layers as usize + 1);
    let mut entries: Vec<Vec<(usize, KeysValues)>> = Vec::new();
    let (mut logits, mut routes) = (Vec::new(), Vec::new());
    for (position, &token) in tokens.iter().enumerate() {
        let mut x = small.embed(position as u32, token);
        let (mut route, mut before) = (Vec::new(), pool);
        entries.push(Vec::new());
        for hop in 0..hops as usize {
            let length = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-6).sqrt();
            let inside: Vec<f64> = (0..HIDDEN_LAYER)
                .map(|h| {
                    let of = |k: usize| f64::from(router.first[h * HIDDEN + k]) * x[k] / length;
                    let sum = (0..HIDDEN).map(of).sum::<f64>();
                    let y = sum + f64::from(router.vectors[before * HIDDEN_LAYER + h]);
                    y / (1.0 + (-y).exp())
                })
                .collect();
            let allowed = if hop >= least_hops as usize { options } else { pool };
            let scores: Vec<f64> = (0..allowed)
                .map(|option| {
                    let of = |h: usize| f64::from(router.second[option * HIDDEN_LAYER + h]) * inside[h];
                    (0..HIDDEN_LAYER).map(of).sum::<f64>()
                        + f64::from(router.biases[before * options + option])
                })
                .collect();
            let choice = (0..allowed).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
            if choice == pool {
                break;
            }
            let sum = scores.iter().map(|score| (score - scores[choice]).exp()).sum::<f64>();
            let weight = if weighted { 1.0 / sum } else { 1.0 };
            let own = small.keys_values(choice, position as u32, &x);
            entries[position].push((choice, own));
            let (earlier, own) = entries.split_at(position);
            let seen: Vec<&KeysValues> = match visible {
                Visibility::OnePerToken => earlier
                    .iter()
                    .filter_map(|of| of.get(hop).or(of.last()))
                    .chain(own[0].last())
                    .map(|(_, entry)| entry)
                    .collect(),
                Visibility::AllEntries => entries.iter().flatten().map(|(_, entry)| entry).collect(),
                Visibility::SameLayer => {
                    let here = entries.iter().flatten().filter(|(layer, _)| *layer == choice);
                    here.map(|(_, entry)| entry).collect()
                }
            };
            let mut add = |branch: &dyn Fn(&mut [f64])| {
                let mut with = x.clone();
                branch(&mut with);
                x.iter_mut().zip(with).for_each(|(x, with)| *x += weight * (with - *x));
            };
            add(&|x| small.attend(choice, position as u32, x, &seen));
            add(&|x| small.feed(choice, x));
            route.push(choice);
            before = choice;
        }
        logits.push(small.said(&x));
        routes.push(route);
    }
    (logits, routes)
}

/// What the head said of a token: prompt, position, likeliest tokens with their logits.
type SaidOf = (usize, usize, Vec<(u32, f32)>);

/// What the head said of each token. Kernels are those of the lowering where the
/// host decides.
struct Said<'a> {
    lowered: AsLowered<'a>,
    said: Vec<SaidOf>,
    /// Most tokens of one prompt in a pass.
    most: usize,
}

impl GenerationWatch for Said<'_> {
    fn pass(&mut self, pass: &Pass, outcome: &PassOutcome, rows: &[(usize, u32, bool)]) -> Result<()> {
        assert_eq!(rows.len(), outcome.chosen.len(), "every row reaches the head");
        for (&(prompt, position, _), chosen) in rows.iter().zip(&outcome.chosen) {
            self.said.push((prompt, position as usize, chosen.top.clone()));
        }
        let most = pass.batch.spans.iter().map(|span| span.tokens as usize).max();
        self.most = self.most.max(most.unwrap_or(0));
        self.lowered.pass(pass, outcome, rows)
    }
}

fn settings(routing: Routing, policy: Policy, visibility: Visibility) -> GenerationSettings {
    let (sampling, end_ids) = (None, vec![]);
    GenerationSettings { routing, policy, visibility, sampling, end_ids, prompt_logits: true, timed: false }
}

/// An executor of a small model, with its folder.
fn opened(small: &Small) -> Option<(Executor, tempfile::TempDir)> {
    let folder = tempfile::tempdir().expect("a folder");
    small.write(folder.path(), Dtype::F32, 1);
    let checkpoint = Checkpoint::open(folder.path()).expect("a valid folder");
    let options = ExecutorOptions { positions: 40, ..ExecutorOptions::default() };
    let executor = Executor::new(crate::gpu()?, &checkpoint, options).expect("a model that fits");
    Some((executor, folder))
}

fn prompts() -> Vec<Prompt> {
    [vec![1, 2, 3, 40, 0, 8, 8, 5, 60, 11], vec![5], vec![9; 3]].map(|ids| Prompt { ids, most: 4 }).into()
}

/// The layers of every token, by prompt.
fn routes(generated: &Generated) -> Vec<Vec<Vec<usize>>> {
    let layers = |id: u32| {
        let route = generated.trace.routes.get(id);
        route.0.iter().map(|step| step.layer as usize).collect()
    };
    let of = |request: &radialsim::trace::Request| {
        request.runs.iter().flat_map(|run| run.routes.iter()).map(layers).collect()
    };
    generated.trace.requests.iter().map(of).collect()
}

const WAYS: [(RouterDevice, Policy); 3] = [
    (RouterDevice::Host, Policy::Hop),
    (RouterDevice::Host, Policy::Grouped),
    (RouterDevice::Gpu, Policy::Grouped),
];

#[test]
fn both_ways_go_where_a_naive_walk_goes() {
    let (mut again, mut back, mut early, mut whole) = (0, 0, 0, 0);
    for (seed, (opt, layers, hops, least, weighted)) in (1..).zip([
        (false, 3, 7, 1, true),
        (false, 3, 7, 0, false),
        (true, 2, 5, 5, true),
        (true, 6, 3, 1, false),
        (false, 6, 3, 2, true),
    ]) {
        let small = Small::deep(opt, layers);
        let Some((mut executor, _folder)) = opened(&small) else { return };
        for visible in Visibility::ALL {
            let router = router(seed, layers, &described(hops, least, weighted, visible));
            for (device, policy) in WAYS {
                let model = executor.model().clone();
                let lowered = AsLowered(&model, device == RouterDevice::Host);
                let mut watch = Said { lowered, said: Vec::new(), most: 0 };
                let routing = Routing::Radial(Box::new(Radial { router: router.clone(), device }));
                let generated = executor
                    .generate(&prompts(), &settings(routing, policy, visible), &mut watch)
                    .expect("a run");
                let what = format!("{seed} {visible:?} {device:?} {}", policy.name());
                // Under `hop` a layer would read before another one of the same hop has written.
                let in_one_pass = visible == Visibility::OnePerToken
                    && (device, policy) == (RouterDevice::Host, Policy::Grouped);
                assert_eq!(watch.most, if in_one_pass { 10 } else { 1 }, "{what}");
                let taken = routes(&generated);
                for (index, prompt) in prompts().into_iter().enumerate() {
                    let answer = &generated.answers[index].ids;
                    let fed = [&prompt.ids[..], &answer[..answer.len() - 1]].concat();
                    let (logits, wanted) = naive(&small, &router, &fed);
                    assert_eq!(taken[index], wanted, "{what}");
                    let mut seen = 0;
                    for (_, position, top) in watch.said.iter().filter(|(prompt, ..)| *prompt == index) {
                        let logits = &logits[*position];
                        let largest = logits.iter().fold(0f64, |most, x| most.max(x.abs()));
                        for &(id, logit) in top {
                            let off = (f64::from(logit) - logits[id as usize]).abs();
                            assert!(
                                off <= 1e-4 * largest,
                                "{what} {position}: {logit} {}",
                                logits[id as usize]
                            );
                        }
                        let best = (0..VOCABULARY).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                        let tied = f64::from(top[0].1) + 1e-4 * largest;
                        assert!(logits[best.expect("a token")] <= tied, "{what} {position}");
                        seen += 1;
                    }
                    assert_eq!(seen, fed.len(), "{what}");
                    for route in wanted {
                        again += usize::from((1..route.len()).any(|at| route[..at].contains(&route[at])));
                        back += usize::from(route.windows(2).any(|pair| pair[1] < pair[0]));
                        early += usize::from(route.len() < hops as usize);
                        whole += usize::from(route.len() == hops as usize);
                        assert!(route.len() >= least as usize);
                    }
                }
            }
        }
    }
    let all = [again, back, early, whole];
    assert!(all.iter().all(|&count| count > 20), "routes are of every kind: {all:?}");
}

/// A router whose biases name the next layer of the pool.
fn forced(layers: usize, weighted: bool) -> RadialRouter {
    let described = described(layers as u32, layers as u32, weighted, Visibility::OnePerToken);
    let mut router = router(3, layers, &described);
    router.biases.fill(0.0);
    for before in 0..=layers {
        let next = if before == layers { 0 } else { (before + 1) % layers };
        router.biases[before * (layers + 1) + next] = 500.0;
    }
    router
}

#[test]
fn a_router_that_names_one_layer_after_the_other_is_the_dense_model() {
    for (opt, weighted) in [(false, false), (true, true)] {
        let small = Small::deep(opt, 4);
        let Some((mut executor, _folder)) = opened(&small) else { return };
        let model = executor.model().clone();
        let mut said = |routing: Routing, policy: Policy, visibility: Visibility| {
            let mut watch = Said { lowered: AsLowered(&model, false), said: Vec::new(), most: 0 };
            let settings = settings(routing, policy, visibility);
            let generated = executor.generate(&prompts(), &settings, &mut watch).expect("a run");
            watch.said.sort_by_key(|(prompt, position, _)| (*prompt, *position));
            (generated.answers.into_iter().map(|answer| answer.ids).collect::<Vec<_>>(), watch.said)
        };
        let dense = said(Routing::dense(4), Policy::Aligned, Visibility::SameLayer);
        for (device, policy) in WAYS {
            let routing = Routing::Radial(Box::new(Radial { router: forced(4, weighted), device }));
            let radial = said(routing, policy, Visibility::OnePerToken);
            assert_eq!(dense.0, radial.0);
            assert_eq!(dense.1.len(), radial.1.len());
            for (one, other) in dense.1.iter().zip(&radial.1) {
                // All tokens of a prompt side by side, as the dense model takes them.
                if (device, policy) == (RouterDevice::Host, Policy::Grouped) {
                    assert_eq!(one, other, "the very numbers");
                }
                let near = |(a, b): (&(u32, f32), &(u32, f32))| (a.1 - b.1).abs() <= 1e-5 * one.2[0].1.abs();
                assert!(one.2.iter().zip(&other.2).all(near), "{one:?} {other:?}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let small = Small::deep(false, 3);
    let Some((mut executor, _folder)) = opened(&small) else { return };
    let good = router(1, 3, &described(4, 1, false, Visibility::OnePerToken));
    let mut refused = |router: RadialRouter, policy, visibility, parts: &[&str]| {
        for device in [RouterDevice::Host, RouterDevice::Gpu] {
            let routing = Routing::Radial(Box::new(Radial { router: router.clone(), device }));
            let error = executor.generate(&prompts(), &settings(routing, policy, visibility), &mut ());
            let error = error.expect_err("a refusal");
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in: {text}");
        }
    };
    let one = Visibility::OnePerToken;
    refused(good.clone(), Policy::Aligned, one, &["policy", "aligned", "hop"]);
    refused(good.clone(), Policy::DenseMasked, one, &["policy", "dense_masked", "hop or grouped"]);
    refused(
        good.clone(),
        Policy::Hop,
        Visibility::AllEntries,
        &["visibility", "all_entries", "one_per_token"],
    );
    refused(router(1, 4, &good.described), Policy::Hop, one, &["router", "4 layers"]);
    let odd = RadialRouter { hidden: 6, ..good.clone() };
    refused(odd, Policy::Hop, one, &["router.hidden", "found 6"]);
    let mut endless = good;
    endless.second.fill(3e38);
    endless.vectors.fill(3e38);
    refused(endless, Policy::Hop, one, &["router", "finite scores"]);
}

#[test]
fn a_state_that_is_no_number_is_not_routed_around() {
    let mut small = Small::deep(false, 3);
    small.spoil("model.layers.1.self_attn.v_proj.weight");
    let Some((mut executor, _folder)) = opened(&small) else { return };
    for device in [RouterDevice::Host, RouterDevice::Gpu] {
        let routing = Routing::Radial(Box::new(Radial { router: forced(3, false), device }));
        let settings = settings(routing, Policy::Hop, Visibility::OnePerToken);
        let error = executor.generate(&prompts(), &settings, &mut ()).expect_err("a refusal").to_string();
        assert!(error.contains("attention"), "{error}");
    }
}

/// A folder with a router of its own runs without options, is explained, and its trace is read back, replayed and simulated.
#[test]
fn a_folder_is_run_explained_and_simulated() {
    if crate::gpu().is_none() {
        return;
    }
    let small = Small::deep(false, 3);
    let folder = tempfile::tempdir().expect("a folder");
    small.write(folder.path(), Dtype::F32, 1);
    let described = described(5, 1, false, Visibility::OnePerToken);
    let router = router(2, 3, &described);
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let mut config = small.config();
    config["radial"] = serde_json::to_value(&described).expect("JSON");
    std::fs::write(at("config.json"), config.to_string()).expect("a writable folder");
    let program = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_radialsim")).args(args).output().expect("it starts");
        (
            output.status.code(),
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
        )
    };
    std::fs::write(at("prompts.jsonl"), "{\"prompt_ids\":[1,2,3,7,7,9]}\n{\"prompt_ids\":[7]}\n")
        .expect("a writable folder");
    let run = |args: &[&str]| {
        let prompts = at("prompts.jsonl");
        let output =
            execute(folder.path(), &[&["--prompts", &prompts, "--max-tokens", "5", "-q"], args].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&[]);
    assert!(code == Some(2) && said.contains("router.safetensors"), "the file is missed: {said}");

    std::fs::write(at("router.safetensors"), router.bytes()).expect("a writable folder");
    let (code, said) = run(&["--trace", &at("a.jsonl"), "--json", &at("a.json")]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["--router-device", "host", "--policy", "hop", "--trace", &at("b.jsonl")]);
    assert_eq!(code, Some(0), "{said}");
    let [one, other] =
        ["a.jsonl", "b.jsonl"].map(|name| radialsim::trace::read(Path::new(&at(name))).expect("a trace"));
    assert_eq!(one.requests, other.requests);
    let header = &one.header;
    assert_eq!(
        (header.order, header.reuse, header.kv, header.max_hops),
        (Order::Any, true, KvAction::Unified, Some(5))
    );
    let found = (header.router.kind, header.router.when, header.router.hidden, header.router.device);
    let device = RouterDevice::Gpu;
    assert_eq!(found, (RouterKind::Mlp, Some(RouterWhen::PerHop), Some(HIDDEN_LAYER as u32), device));
    assert_eq!(other.header.router.device, RouterDevice::Host);

    // The recorded routes, followed, say the same.
    let follow = [
        "--replay",
        &at("a.jsonl"),
        "--visibility",
        "one_per_token",
        "--policy",
        "hop",
        "--json",
        &at("b.json"),
    ];
    let (code, said) = run(&follow);
    assert_eq!(code, Some(0), "{said}");
    let ids = |name: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(at(name)).expect("lines");
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["greedy_ids"].clone())
            .collect()
    };
    assert_eq!(ids("a.json"), ids("b.json"));
    assert!(ids("a.json").iter().all(|ids| ids.as_array().is_some_and(|ids| ids.len() == 5)));

    let (code, said) = program(&["inspect", "model", &at("")]);
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "each token takes up to 5 hops over a pool of 3 layers, in any order and with reuse, and may leave after 1",
        "MLP of 8, 272 weights, 1.1 kB, trained for small; it decides at each hop; branches are added as they are",
        "one for all layers: a hop leaves 32 B, a token up to 160 B, and sees one entry of each earlier token",
    ] {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }

    let scenario = |variant: &str, visibility: &str| {
        format!(
            r#"(title: "radial", model: ".", hardware: "nvidia-h100-sxm", workload: (trace: "a.jsonl"), seed: 1,
            serving: (max_batched_tokens: 64, max_sequences: 4, chunked_prefill: true),
            dispatch: (policy: hop{visibility}), variants: [{variant}])"#
        )
    };
    let recorded = r#"(name: "recorded", routes: Recorded)"#;
    let drawn = |hops| {
        let walk = format!("transitions: Banded(back: 1, ahead: 2), start: Layer(0), hops: Fixed({hops})");
        format!(r#"(name: "drawn", routes: Method(Radial({walk})))"#)
    };
    let dense = r#"(name: "dense", routes: Method(Dense))"#;
    let unused = "the model's folder has a router, which these routes do not use";
    for (variants, visibility, found, absent) in [
        (recorded, "one_per_token", vec![], vec!["the network sees", "of the model's folder", unused]),
        (recorded, "all_entries", vec!["the network sees one_per_token"], vec!["counted side by side"]),
        (recorded, "", vec!["as the trace's router says", "counted side by side"], vec!["the network sees"]),
        (&*drawn(4), "", vec!["as the model's folder says"], vec!["the network sees"]),
        (
            &*drawn(4),
            "one_per_token",
            vec!["the router of the model's folder, 272 weights"],
            vec!["the network takes"],
        ),
        (&*drawn(6), "one_per_token", vec!["the network takes at most 5"], vec![unused]),
        (dense, "one_per_token", vec![unused], vec!["272 weights"]),
    ] {
        let visibility =
            if visibility.is_empty() { "".into() } else { format!(", visibility: {visibility}") };
        std::fs::write(at("s.ron"), scenario(variants, &visibility)).expect("a writable folder");
        let (code, said) = program(&["simulate", &at("s.ron")]);
        assert_eq!(code, Some(0), "{said}");
        let scenario = Scenario::load(Path::new(&at("s.ron")), &[]).expect("a scenario");
        let (_, notes) = scenario.build().expect("variants");
        let said = notes.iter().map(|note| note.why.as_str()).collect::<Vec<_>>().join("; ");
        assert!(found.iter().all(|words| said.contains(words)), "{found:?} in {said}");
        assert!(absent.iter().all(|words| !said.contains(words)), "not {absent:?} in {said}");
    }

    // What the folder and the file say must be the same; options stand above the folder.
    config["radial"]["least_hops"] = 2.into();
    std::fs::write(at("config.json"), config.to_string()).expect("a writable folder");
    for said in [run(&[]), program(&["inspect", "model", &at("")])] {
        assert!(said.0 == Some(2) && said.1.contains("what config.json says"), "{}", said.1);
    }
    let (code, said) = run(&["--route", "0 1 2"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["--router", &at("router.safetensors"), "--visibility", "all_entries"]);
    assert!(code == Some(2) && said.contains("visibility") && said.contains("one_per_token"), "{said}");
    let (code, said) = run(&["--hops", "3", "--router", &at("router.safetensors")]);
    assert!(code == Some(2) && said.contains("--hops"), "{said}");
    let (code, said) = run(&["--router", &at("router.safetensors"), "--residuals", &at("r.csv")]);
    assert!(code == Some(2) && said.contains("--residuals"), "{said}");
    config["radial"]["hops"] = 0.into();
    std::fs::write(at("config.json"), config.to_string()).expect("a writable folder");
    let (code, said) = run(&[]);
    assert!(code == Some(2) && said.contains("radial.hops") && said.contains("config.json"), "{said}");
}
