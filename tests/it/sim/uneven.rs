//! Uneven contexts: what a call waits for is told from the contexts of its tokens, costs time and no energy, and is learned from measured calls.

use crate::cli::{folder, radialsim, text};
use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::batch::{Batch, Context, Part, Paths, Policy};
use radialsim::calib::layers;
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Attention, Filling, Kernel};
use radialsim::lower::{Call, Graph, Lowering, Node};
use radialsim::trace::synth::{Method, generate};
use radialsim::units::Dtype;
use radialsim::workload::{Arrivals, Length, Lengths, requests};
use std::fmt::Write as _;
use std::path::Path;

const PRO: &str = "nvidia-rtx-pro-6000";

/// Attention over generated tokens of one pass: (layer, shape).
fn decodes(
    lab: &Lab,
    routes: &str,
    before: &[u32],
    prompt: u32,
    filling: Option<Filling>,
) -> Vec<(u16, Attention)> {
    let model = &lab.setup.model;
    let length = Length::Fixed(400);
    let drawn = requests(1, &Lengths { prompt: length.clone(), output: length }, &Arrivals::Closed, 1);
    let trace = generate(&method(routes), model.layers, drawn.expect("lengths"), 1).expect("a method");
    let paths = Paths::new(&trace.header, &trace.routes, false);
    let routes = trace.routes.len() as u32;
    let (mut batch, mut contexts) = (Batch::default(), Vec::new());
    for (sequence, &before) in (0..).zip(before) {
        let mut context = Context::default();
        (0..before).for_each(|at| context.advance(paths.get((sequence * 7 + at) % routes), 1, model.layers));
        batch.push(sequence, [sequence % routes], true, 1, Part::WHOLE);
        contexts.push(context);
    }
    if prompt > 0 {
        let taken = (0..prompt).map(|at| at % routes);
        batch.push(before.len() as u32, taken, false, 1, Part::WHOLE);
        contexts.push(Context::default());
    }
    let mut graph = Graph::default();
    let mut lowering = Lowering::new(model, lab.setup.dispatch.clone()).filled_by(filling);
    lowering.lower(&batch, &contexts, &paths, &mut graph);
    let shape = |call: &Call| match call.node {
        Node::Kernel { kernel: Kernel::Attention(shape), .. } if shape.decode => Some((call.layer, shape)),
        _ => None,
    };
    graph.calls().iter().filter_map(shape).collect()
}

fn lab(policy: Policy) -> Lab {
    let mut lab = Lab::new("smollm2-135m", PRO, 64).policy(policy);
    lab.setup.model.layers = 4;
    lab.setup.model.pattern.truncate(4);
    lab
}

/// Few sequences fill it, so that small batches wait.
const FILLING: Filling = Filling { alone: 3.5, whole_from: 4.0, beside: 2.5 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// A call waits for what its own contexts say: dense ones by their lengths; routed ones, whatever the policy, by the entries that each of
    /// their tokens sees at the layer, which calls of single tokens tell.
    #[test]
    fn calls_wait_for_their_longest_contexts(
        before in prop::collection::vec(0..300_u32, 1..24),
        prompt in prop_oneof![Just(0_u32), 1..40_u32],
        routes in prop::sample::select(vec![
            "Dense",
            "IndependentSkips(skip: 0.4, branches: Separately, kv: project_only)",
            "IndependentSkips(skip: 0.4, branches: Jointly, kv: none)",
        ]),
        policy in prop::sample::select(vec![Policy::Aligned, Policy::DenseMasked, Policy::Grouped]),
    ) {
        let lab = lab(policy);
        let calls = decodes(&lab, routes, &before, prompt, Some(FILLING));
        let even = decodes(&lab, routes, &before, prompt, None);
        prop_assert_eq!(calls.len(), even.len());
        for ((_, with), (_, without)) in calls.iter().zip(&even) {
            prop_assert_eq!(Attention { waits: 0, ..*with }, *without, "the work is the same");
        }
        // Where a call is one layer's, it is that of its tokens one by one.
        if policy == Policy::Grouped {
            return Ok(());
        }
        for (layer, shape) in calls {
            let alone = |index: usize| {
                let mut one = before.clone();
                // Tokens keep their numbers, and with them their routes.
                one.truncate(index + 1);
                let upto = decodes(&lab, routes, &one, prompt, None);
                one.truncate(index);
                let less = decodes(&lab, routes, &one, prompt, None);
                let at = |calls: &[(u16, Attention)]| {
                    calls.iter().find(|call| call.0 == layer).map_or(0, |call| call.1.pairs)
                };
                at(&upto) - at(&less)
            };
            if policy == Policy::DenseMasked && routes != "Dense" {
                // Who joins changes which layers run for all.
                continue;
            }
            let mut sees: Vec<u32> = (0..before.len()).map(|index| alone(index) as u32).filter(|&sees| sees > 0).collect();
            sees.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(sees.len() as u32, shape.rows);
            sees.truncate(FILLING.longest());
            // A prompt of which no token attends at the layer is not in the call.
            let waits = FILLING.waits(&sees, (shape.rows, shape.rows), shape.pairs, shape.beside > 0);
            prop_assert_eq!(shape.waits, waits, "layer {}", layer);
        }
    }
}

fn device(hw: &Hardware) -> Device {
    Device::new(hw, Limits::default()).expect("no limits")
}

/// A call that waits takes as long as the even one that [`Attention::even`] names, and neither moves nor computes more; it is no surer.
#[test]
fn waiting_takes_time_and_nothing_else() {
    for name in ["nvidia-rtx-4090", PRO] {
        let device = device(&Hardware::shipped(name).expect("a shipped profile"));
        let filling = device.filling(32, 8).expect("fitted to uneven calls");
        let (rows, pairs) = (64, 64 * 700 + 6000);
        let mut longest = vec![6700];
        longest.resize(filling.longest(), 700);
        let call = |waits, beside| {
            let (heads, kv_heads, head_dim) = (32, 8, 128);
            let (activations, kv) = (Dtype::Bf16, Dtype::Bf16);
            let entries = pairs;
            Attention {
                rows,
                heads,
                kv_heads,
                head_dim,
                decode: true,
                beside,
                pairs,
                entries,
                waits,
                activations,
                kv,
            }
        };
        for beside in [0, 128] {
            let waits = filling.waits(&longest, (rows, rows), pairs, beside > 0);
            assert!(waits > 0, "{name}: {filling:?}");
            let even = device.price(&Kernel::Attention(call(0, beside)));
            let uneven = device.price(&Kernel::Attention(call(waits, beside)));
            let larger = device.price(&Kernel::Attention(call(waits, beside).even()));
            assert_eq!(uneven.time, larger.time);
            assert!(uneven.time > even.time);
            assert_eq!(
                (uneven.flops, uneven.dram_bytes, uneven.dynamic_pj),
                (even.flops, even.dram_bytes, even.dynamic_pj)
            );
            assert!(uneven.error.expect("fitted").mean > larger.error.expect("fitted").mean);
        }
        // Of few sequences contexts are cut, but not beside prompts.
        assert_eq!(filling.waits(&longest, (20, 20), 20 * 700 + 6000, false), 0);
        assert!(filling.waits(&longest, (20, 20), 20 * 700 + 6000, true) > 0);
    }
    let h100 = device(&Hardware::shipped("nvidia-h100-sxm").expect("a shipped profile"));
    assert_eq!(h100.filling(32, 8), None, "nobody measured uneven calls there");
}

/// One long prompt among short ones makes passes longer than equal prompts of the same sum do (both fidelities say the same: `Lab::run`), and the
/// more the longer it is; without the measurement it makes none.
#[test]
fn a_run_with_one_long_context_takes_longer() {
    let decode_ps = |long: u32, knows: bool| -> u128 {
        let mut lab = Lab::new("llama-3.1-8b", PRO, 64);
        lab.setup.hardware = Hardware::shipped(PRO).expect("a shipped profile");
        if let Some(corrections) = lab.setup.hardware.corrections.as_mut().filter(|_| !knows) {
            corrections.uneven = None;
        }
        let length = |tokens| Length::Fixed(tokens);
        let lengths = Lengths { prompt: length(600), output: length(24) };
        let mut drawn = requests(64, &lengths, &Arrivals::Closed, 1).expect("lengths");
        // The sum stays.
        drawn.iter_mut().for_each(|request| request.prompt_tokens -= (long - 600) / 63);
        drawn[0].prompt_tokens = long;
        let trace = generate(&Method::Dense, lab.setup.model.layers, drawn, 1).expect("routes");
        lab.run(&trace).decode.time_ps
    };
    let [even, long, longer] = [600, 600 + 63 * 20, 600 + 63 * 80].map(|long| decode_ps(long, true));
    assert!(even < long && long < longer, "{even} {long} {longer}");
    let blind = decode_ps(600 + 63 * 80, false);
    assert!(blind < longer, "{blind} {longer}");
    assert_eq!(decode_ps(600, false), even, "who is even waits for none");
}

/// Tables of a device on which other numbers of blocks fill the memory than on the shipped one, sums over three passes.
pub fn table(path: &Path, filling: &Filling, device: &Device) -> usize {
    let mut lines =
        "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha\n".to_owned();
    let mut count = 0;
    for n in [2_u32, 8, 32, 64, 128] {
        for longer in [1, n / 2] {
            for (short, long) in [(128, 512), (256, 4096), (1024, 2048)] {
                for chunk in [0, 32, 256] {
                    let pairs = u64::from(longer * long + (n - longer) * short);
                    let lengths = (0..n).map(|at| if at < longer { long } else { short });
                    let longest: Vec<u32> = lengths.take(filling.longest()).collect();
                    let of = |waits| {
                        let (heads, kv_heads, head_dim) = (32, 8, 128);
                        let (activations, kv) = (Dtype::Bf16, Dtype::Bf16);
                        let shape = Attention {
                            rows: n,
                            heads,
                            kv_heads,
                            head_dim,
                            decode: true,
                            beside: chunk,
                            pairs,
                            entries: pairs,
                            waits,
                            activations,
                            kv,
                        };
                        let count = u64::from(chunk);
                        let prompt = Attention {
                            rows: chunk,
                            decode: false,
                            beside: 0,
                            pairs: count * (count + 1) / 2,
                            entries: count,
                            waits: 0,
                            ..shape
                        };
                        let prompt =
                            if chunk > 0 { device.price(&Kernel::Attention(prompt)).time.us() } else { 0.0 };
                        3.0 * (prompt + device.price(&Kernel::Attention(shape)).time.us())
                    };
                    let (even, uneven) = (of(0), of(filling.waits(&longest, (n, n), pairs, chunk > 0)));
                    writeln!(lines, "x,{n},{longer},0,0,{chunk},0,{short},{long},0,{even},0,{uneven},0")
                        .expect("a string");
                    count += 1;
                }
            }
        }
    }
    std::fs::write(path, lines).expect("written");
    count
}

/// What is put into a table comes out of it, errors included; a file named after two devices has half the heads of each.
#[test]
fn tables_of_uneven_calls_are_scored() {
    let device = device(&Hardware::shipped(PRO).expect("a shipped profile"));
    let folder = folder();
    let filling = device.filling(32, 8).expect("fitted");
    let right = folder.path().join("llama31_8b_skew.csv");
    let rows = table(&right, &filling, &device);
    let run = |path: &Path, more: &[&str]| {
        let mut arguments = vec!["validate", "operators", "--hw", PRO, path.to_str().expect("a path")];
        arguments.extend(more);
        radialsim(&arguments)
    };
    let score = run(&right, &["--gate", "0.01"]);
    assert_eq!(score.status.code(), Some(0), "{}", text(&score.stderr));
    assert!(text(&score.stdout).contains("beside a prompt"), "{}", text(&score.stdout));
    let (calls, _) = layers::read_uneven(&right).expect("a table");
    assert_eq!(calls.len(), rows);
    assert_eq!((calls[0].heads.heads, calls[0].heads.kv_heads), (32, 8));
    let wrong = Filling { alone: filling.alone * 3.0, beside: filling.beside * 3.0, ..filling };
    table(&right, &wrong, &device);
    let score = run(&right, &["--gate", "0.01"]);
    assert_eq!(score.status.code(), Some(1), "{}", text(&score.stdout));
    assert!(
        text(&score.stderr).contains("ratios of uneven to even calls are off by"),
        "{}",
        text(&score.stderr)
    );
    let two = folder.path().join("llama31_8b_tp2_skew.csv");
    std::fs::copy(&right, &two).expect("copied");
    let (calls, _) = layers::read_uneven(&two).expect("a table");
    assert_eq!((calls[0].heads.heads, calls[0].heads.kv_heads), (16, 4));
    // What is no such table, and who does not know, is refused by name.
    let without =
        radialsim(&["validate", "operators", "--hw", "nvidia-h100-sxm", right.to_str().expect("a path")]);
    assert_eq!(without.status.code(), Some(2));
    assert!(
        text(&without.stderr).contains("fitted to a table of uneven contexts"),
        "{}",
        text(&without.stderr)
    );
    for (row, say) in [
        ("x,2,3,0,0,0,0,128,512,0,1,0,1,0", "nb: found 3"),
        ("x,0,0,0,0,0,0,128,512,0,1,0,1,0", "sequences"),
        ("x,2,1,0,0,0,0,128,512,0,0,0,1,0", "microseconds above 0"),
        ("x,2,1,0,0,0,0,-1,512,0,1,0,1,0", "kvs: found -1"),
    ] {
        let head = "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha";
        std::fs::write(&right, format!("{head}\n{row}\n")).expect("written");
        let refused = run(&right, &[]);
        assert_eq!(refused.status.code(), Some(2), "{row}");
        assert!(text(&refused.stderr).contains(say), "{row}: {}", text(&refused.stderr));
    }
}

/// On tables of models that no fit saw, the shipped profile is nearer than the mean context is.
#[test]
fn models_kept_aside_are_nearer_than_by_their_mean() {
    let device = device(&Hardware::shipped(PRO).expect("a shipped profile"));
    for name in ["qwen3_32b_tp1", "qwen3_32b_tp2"] {
        let Some(path) = crate::data(&format!("timings/rtxpro6000/{name}_skew.csv")) else { return };
        let (calls, _) = layers::read_uneven(&path).expect("a table");
        let ratios = radialsim::calib::ratios(&device, &calls).expect("a fitted profile");
        for alone in [true, false] {
            let rows: Vec<(f64, f64)> = calls
                .iter()
                .zip(&ratios)
                .filter(|(call, _)| (call.chunk.0 == 0) == alone)
                .map(|(_, &ratio)| ratio)
                .collect();
            let mean = |said: fn(&(f64, f64)) -> f64| {
                rows.iter().map(|row| (said(row) / row.1 - 1.0).abs()).sum::<f64>() / rows.len() as f64
            };
            let (even, uneven) = (mean(|_| 1.0), mean(|row| row.0));
            assert!(uneven < if alone { 0.75 } else { 0.9 } * even, "{name} {alone}: {uneven} for {even}");
        }
    }
}
