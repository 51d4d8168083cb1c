//! Experts that a trace names token by token: what a pass asks of each is counted.

use radialsim::batch::{ExpertIds, ExpertLoads, ExpertUse};
use radialsim::error::Error;
use radialsim::kernel::ExpertLoad;
use radialsim::rng::Stream;
use radialsim::scenario::{Built, Scenario};
use radialsim::sim::{Fidelity, Setup, Silent, run};
use std::fmt::Write as _;
use std::path::Path;

const LAYERS: u32 = 3;
const COUNT: u32 = 8;
const TOP: u32 = 2;

/// A folder with a mixture of three layers with eight experts each, of which a token takes two.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string("examples/models/qwen3-30b-a3b/config.json").expect("a shipped model");
    let text = text
        .replace("\"num_hidden_layers\": 48", &format!("\"num_hidden_layers\": {LAYERS}"))
        .replace("\"num_experts\": 128", &format!("\"num_experts\": {COUNT}"))
        .replace("\"num_experts_per_tok\": 8", &format!("\"num_experts_per_tok\": {TOP}"));
    std::fs::write(folder.path().join("config.json"), text).expect("written");
    folder
}

/// Requests with so many tokens of prompt and answer; `chosen` names the experts of a token at a layer.
fn trace(requests: &[(u32, u32)], chosen: &mut impl FnMut(u32, u32, u32) -> Vec<u32>) -> String {
    let mut text = format!(
        "{{\"type\":\"header\",\"format\":\"router-trace\",\"version\":1,\"model\":\"m\",\"layers\":{LAYERS},\"order\":\"monotone\",\"reuse\":false,\
         \"granularity\":\"token\",\"kv\":\"write\",\"router\":{{\"kind\":\"none\"}},\"source\":\"\"}}\n\
         {{\"type\":\"route\",\"id\":0,\"steps\":\"0 1 2\"}}\n"
    );
    for (id, &(prompt, output)) in (0u32..).zip(requests) {
        writeln!(text, "{{\"type\":\"request\",\"id\":{id},\"arrival_s\":0.0,\"prompt_tokens\":{prompt},\"output_tokens\":{output}}}")
            .expect("a string");
        for (phase, begin, count) in [("prefill", 0, prompt), ("decode", prompt, output - 1)] {
            if count == 0 {
                continue;
            }
            let token = |position: u32, chosen: &mut dyn FnMut(u32, u32, u32) -> Vec<u32>| {
                let steps: Vec<String> =
                    (0..LAYERS).map(|layer| format!("{:?}", chosen(id, position, layer))).collect();
                format!("[{}]", steps.join(","))
            };
            let experts: Vec<String> =
                (begin..begin + count).map(|position| token(position, chosen)).collect();
            let routes = vec!["0"; count as usize].join(",");
            writeln!(
                text,
                "{{\"type\":\"tokens\",\"request\":{id},\"start\":{begin},\"phase\":\"{phase}\",\"routes\":[{routes}],\"experts\":[{}]}}",
                experts.join(",")
            )
            .expect("a string");
        }
    }
    text
}

fn build(folder: &Path, lines: &str, load: &str, more: &str) -> Result<Built, Error> {
    std::fs::write(folder.join("t.jsonl"), lines).expect("written");
    let text = format!(
        "(title: \"t\", model: \".\", hardware: \"nvidia-h100-sxm\", seed: 1, experts: (load: {load}), {more}
          workload: (trace: \"t.jsonl\"), serving: (max_batched_tokens: 16, max_sequences: 4, chunked_prefill: true),
          dispatch: (policy: aligned), variants: [(name: \"recorded\", routes: Recorded)])"
    );
    let (mut built, _) = Scenario::from_text(&text, &folder.join("s.ron"), &[])?.build()?;
    Ok(built.remove(0))
}

/// Rows of each expert are counted over the tokens that are asked for, at their positions.
#[test]
fn rows_are_those_of_the_tokens() {
    let folder = folder();
    let mut stream = Stream::new(3, "experts");
    let mut all = Vec::new();
    let mut chosen = |request: u32, position: u32, layer: u32| {
        let first = stream.below(u64::from(COUNT)) as u32;
        let second = (first + 1 + stream.below(u64::from(COUNT) - 1) as u32) % COUNT;
        all.push((request, position, layer, [first, second]));
        vec![first, second]
    };
    let lines = trace(&[(5, 4), (7, 1)], &mut chosen);
    std::fs::write(folder.path().join("t.jsonl"), lines).expect("written");
    let ids = ExpertIds::read(&folder.path().join("t.jsonl"), LAYERS, [COUNT, TOP]).expect("ids");
    for asked in [vec![(0u64, 0u32, 8u32)], vec![(0, 2, 1), (1, 0, 7)], vec![(1, 3, 2), (0, 7, 1)]] {
        let rows = ids.rows(asked.iter().copied());
        for layer in 0..LAYERS {
            let mut naive = vec![0; COUNT as usize];
            for &(request, first, count) in &asked {
                let taken = all.iter().filter(|(of, position, at, _)| {
                    u64::from(*of) == request && (first..first + count).contains(position) && *at == layer
                });
                taken.flat_map(|(.., experts)| experts).for_each(|&expert| naive[expert as usize] += 1);
            }
            assert_eq!(rows[layer as usize], naive, "{asked:?} at {layer}");
        }
        // Of the device with most rows among two.
        for (load, rows) in ids.loads(asked.iter().copied(), 2).iter().zip(&rows) {
            let halves = [&rows[..4], &rows[4..]].map(|half| half.iter().sum::<u32>());
            assert_eq!(ExpertLoad::whole(load.copies), f64::from(halves[0].max(halves[1])));
        }
    }
}

/// Where every token takes the same experts, those are read and no other: as quick as one expert fewer can be, and the same as shares of all or nothing
/// say. Where tokens that run together take different ones, more are read: shares of the whole trace do not know who runs together.
#[test]
fn who_runs_together_decides() {
    let folder = folder();
    let time = |built: &Built| {
        let of = |fidelity| {
            let setup = Setup { fidelity, ..built.setup.clone() };
            run(&setup, &built.trace, &mut Silent).expect("it runs").makespan
        };
        assert_eq!(of(Fidelity::Kernel), of(Fidelity::Step));
        of(Fidelity::Step)
    };
    let same = trace(&[(16, 6); 4], &mut |_, _, _| vec![1, 5]);
    let by_token = build(folder.path(), &same, "ByToken", "").expect("it builds");
    assert_eq!(time(&by_token), time(&build(folder.path(), &same, "Recorded", "").expect("it builds")));
    // Each request has two experts of its own: alone in a pass, a prompt reads two of eight; generated together, all.
    let own = trace(&[(16, 6); 4], &mut |request, _, _| vec![2 * request, 2 * request + 1]);
    let (exact, shares) = ["ByToken", "Recorded"]
        .map(|load| time(&build(folder.path(), &own, load, "").expect("it builds")))
        .into();
    assert_ne!(exact, shares);
    assert!(time(&by_token) < exact, "two experts are fewer than eight");
}

/// The mean of the ids is the share: copies over a run are as many as the trace has, by either.
#[test]
fn copies_add_up_to_those_of_the_trace() {
    let folder = folder();
    let mut turn = 0u32;
    let mut chosen = |_: u32, _: u32, _: u32| {
        turn += 1;
        vec![turn % COUNT, (turn + 3) % COUNT]
    };
    let requests = [(20, 9), (3, 4), (31, 2), (8, 8), (1, 1)];
    let lines = trace(&requests, &mut chosen);
    let built = build(folder.path(), &lines, "ByToken", "").expect("it builds");
    let ids = built.setup.experts.ids.clone().expect("ids");
    let tokens = (0u64..).zip(&requests).map(|(id, &(prompt, output))| (id, 0, prompt + output - 1));
    let rows = ids.rows(tokens);
    let counts = built.setup.experts.recorded.as_ref().expect("counts");
    for (rows, counts) in rows.iter().zip(counts.iter()) {
        assert_eq!(rows.iter().map(|&rows| u64::from(rows)).collect::<Vec<_>>(), *counts);
    }
    let ledger = run(&built.setup, &built.trace, &mut Silent).expect("it runs");
    assert_eq!(ledger.requests.len(), requests.len());
    assert_eq!(
        ledger.routed_tokens,
        requests.iter().map(|(prompt, output)| u64::from(prompt + output - 1)).sum::<u64>()
    );
}

#[test]
fn what_cannot_be_looked_up_is_refused() {
    let folder = folder();
    let good = trace(&[(4, 2)], &mut |_, _, _| vec![1, 2]);
    let without = good.replace(",\"experts\":[[[1, 2],[1, 2],[1, 2]]]", "");
    assert_ne!(good, without);
    for (lines, more, say) in [
        (without.as_str(), "", "experts of every token"),
        (good.replace("[1, 2]", "[1, 2, 3]").as_str(), "", "at most 2 a token"),
        (good.replace("[1, 2]", "[1, 9]").as_str(), "", "experts below 8"),
        (good.as_str(), "parallel: (data: 2, experts: 2),", "experts.load"),
        (good.as_str(), "parallel: (pipeline: 3),", "experts.load"),
    ] {
        let refused = build(folder.path(), lines, "ByToken", more).expect_err(say);
        assert!(refused.to_string().contains(say), "{say}: {refused}");
        assert_eq!(refused.exit_code(), 2);
    }
    let other = ExpertUse { loads: ExpertLoads::ByToken, ..ExpertUse::default() };
    assert!(other.loads.differs_by_layer());
}
