//! Errors of runs: joined from those of the corrections that priced their kernels, absent where nothing is known.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::cost::{BETWEEN_SOURCES, Bound, Device, EXTRAPOLATED, Limits, Price, PriceError};
use radialsim::hw::{Hardware, Held, PowerEvidence};
use radialsim::kernel::{Attention, Class, Kernel};
use radialsim::lower::Cause;
use radialsim::metrics::{ErrorBar, Ledger, Saving, Verdict};
use radialsim::units::{Dtype, SimTime, SourceKind};
use serde_json::Value;

/// The shipped H100 with these mean errors of products, prompt attention and decode attention, in percent.
fn hardware(errors: [f64; 3]) -> Hardware {
    let mut hw = Hardware::resolve("nvidia-h100-sxm").expect("a shipped device");
    hw.power.metered = None;
    let corrections = &mut **hw.corrections.as_mut().expect("a fitted profile");
    let all =
        [&mut corrections.gemm, &mut corrections.context_attention, &mut corrections.generation_attention];
    for (correction, error) in all.into_iter().zip(errors) {
        let evidence = &mut correction.as_mut().expect("fitted").evidence;
        (evidence.held_error, evidence.held_interval) = (error, Some(2.0 * error));
    }
    hw
}

fn device() -> Device {
    Device::new(&hardware([4.0, 6.0, 2.0]), Limits::default()).expect("no limits")
}

/// A kernel that takes so many picoseconds.
fn price(time: u64, source: SourceKind, error: Option<f64>) -> Price {
    Price {
        time: SimTime::from_ps(time),
        flops: 1,
        dram_bytes: 1,
        dynamic_pj: 0,
        bound: Bound::Dram,
        source,
        error: error.map(|mean| PriceError::new(mean, 2.0 * mean)),
    }
}

/// A run of these kernels.
fn run(kernels: &[(usize, Price)]) -> Ledger {
    let mut ledger = Ledger::default();
    for (class, price) in kernels {
        ledger.kernel(Cause::Attention, *class, price, price.time, 1);
    }
    ledger.pass_ps = ledger.busy_ps;
    ledger.makespan = SimTime::from_ps(ledger.busy_ps as u64);
    ledger
}

/// A run of so many picoseconds of each of the first three classes with these errors, and of `rest` without an error.
fn ledger(errors: [f64; 3], times: [u64; 3], rest: u64) -> Ledger {
    let mut kernels = vec![(Class::Elementwise as usize, price(rest, SourceKind::Assumed, None))];
    for (class, (time, error)) in times.into_iter().zip(errors).enumerate() {
        kernels.push((class, price(time, SourceKind::Fitted, Some(error))));
    }
    run(&kernels)
}

/// Half width of the 90 % interval of the pass time.
fn interval(bar: &ErrorBar) -> Option<f64> {
    bar.interval90?.any_source.time_percent
}

fn percent() -> impl Strategy<Value = f64> {
    0.1..40.0f64
}

/// One thing more than none, so that something is covered.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0u64), 1u64..1_000_000]
}

proptest! {
    #[test]
    fn an_error_lies_between_those_of_its_kernels(
        errors in prop::array::uniform3(percent()), times in prop::array::uniform3(time()), rest in 0u64..1_000_000,
    ) {
        let bar = ErrorBar::of(&ledger(errors, times, rest), &device());
        let present: Vec<f64> = errors.iter().zip(times).filter(|(_, time)| *time > 0).map(|(error, _)| *error).collect();
        if present.is_empty() {
            prop_assert_eq!((bar.mean.time_percent, bar.interval90, bar.covered_share), (None, None, 0.0));
            return Ok(());
        }
        let (least, most) = present.iter().fold((f64::MAX, 0.0f64), |(least, most), &error| (least.min(error), most.max(error)));
        let error = bar.mean.time_percent.expect("something is covered");
        // Errors are kept in hundredths of a percent.
        prop_assert!(least - 0.01 <= error && error <= most + 0.01, "{} {} {}", least, error, most);
        prop_assert!((bar.mean.any_mix_percent.expect("covered") - most).abs() < 0.01);
        let ninety = bar.interval90.expect("covered");
        prop_assert!((ninety.same_source_time_percent - 2.0 * error).abs() < 0.02);
        prop_assert!(ninety.any_source.time_percent.expect("covered") > ninety.same_source_time_percent);
        let covered = times.iter().sum::<u64>() as f64 / (times.iter().sum::<u64>() + rest) as f64;
        prop_assert!((bar.covered_share - covered).abs() < 1e-9);
    }

    #[test]
    fn it_grows_with_every_error(
        errors in prop::array::uniform3(percent()), times in prop::array::uniform3(1_000u64..1_000_000), class in 0usize..3, more in 1.0..20.0f64,
    ) {
        let mut worse = errors;
        worse[class] += more;
        let of = |errors| ErrorBar::of(&ledger(errors, times, 1000), &device());
        prop_assert!(of(worse).mean.time_percent > of(errors).mean.time_percent);
        prop_assert!(interval(&of(worse)) > interval(&of(errors)));
    }

    #[test]
    fn savings_are_surest_where_errors_are_shared(
        errors in prop::array::uniform3(percent()), a in prop::array::uniform3(1u64..1_000_000), b in prop::array::uniform3(1u64..1_000_000),
    ) {
        let runs = [a, b].map(|times| ledger(errors, times, 0));
        let bars = [0, 1].map(|run: usize| ErrorBar::of(&runs[run], &device()));
        let saving = Saving::of((runs[0].pass_ps, &bars[0]), (runs[1].pass_ps, &bars[1])).expect("covered");
        prop_assert!(saving.shared_error_percent <= saving.opposed_error_percent * (1.0 + 1e-9));
        let itself = Saving::of((runs[0].pass_ps, &bars[0]), (runs[0].pass_ps, &bars[0])).expect("covered");
        prop_assert_eq!((itself.saved_percent, itself.shared_error_percent, itself.verdict()), (0.0, 0.0, Verdict::No));
    }

    /// Times and errors of a run do not depend on how its kernels were gathered.
    #[test]
    fn ledgers_add_up(a in prop::array::uniform3(time()), b in prop::array::uniform3(time()), errors in prop::array::uniform3(percent())) {
        let (mut sum, part) = (ledger(errors, a, 5), ledger(errors, b, 7));
        sum.absorb(&part);
        let all: Vec<(usize, Price)> = [(a, 5), (b, 7)].into_iter().flat_map(|(times, rest)| {
            let of = |class: usize| (class, price(times[class], SourceKind::Fitted, Some(errors[class])));
            [of(0), of(1), of(2), (Class::Elementwise as usize, price(rest, SourceKind::Assumed, None))]
        }).collect();
        prop_assert_eq!(sum.doubts, run(&all).doubts);
    }

    /// The error of what is lent begins at its own, is what the loans say at their distance, and grows with the distance.
    #[test]
    fn what_is_lent_is_wrong_by_how_far(own in 0.5..40.0f64, lent in 0.5..60.0f64, near in 0.01..2.0f64, more in 0.01..2.0f64) {
        let error = PriceError::new(own, 2.0 * own);
        prop_assert!(error.lent(lent, near).mean.abs_diff(error.mean) < 1 || lent > own);
        prop_assert!(error.lent(lent, near) .mean <= error.lent(lent, near + more).mean);
        prop_assert!(error.lent(lent, near).any_source <= error.lent(lent, near + more).any_source);
        // 1.38: mean distance of the three devices.
        prop_assert!(error.lent(lent, 1.38).mean.abs_diff((lent.max(own) * 100.0).round() as u32) <= 1);
    }
}

/// Half of the time in products (4 %), a quarter in decode attention (2 %) beyond what was fitted, a quarter unknown.
#[test]
fn a_join_by_hand() {
    let beyond = PriceError::new(2.0, 4.0).times(EXTRAPOLATED);
    let mut ledger = run(&[
        (Class::MatMul as usize, price(500, SourceKind::Fitted, Some(4.0))),
        (
            Class::DecodeAttention as usize,
            Price { error: Some(beyond), ..price(250, SourceKind::Extrapolated, None) },
        ),
        (Class::Elementwise as usize, price(250, SourceKind::Assumed, None)),
    ]);
    ledger.makespan = SimTime::from_ps(2000);
    let bar = ErrorBar::of(&ledger, &device());
    assert_eq!((bar.covered_share, bar.extrapolated_share), (0.75, 0.25));
    // (500 x 4 + 250 x 3 x 2) / 750.
    assert!((bar.mean.time_percent.expect("covered") - 14.0 / 3.0).abs() < 1e-12);
    assert_eq!(bar.mean.any_mix_percent, Some(6.0));
    // Half of the makespan is a wait for arrivals, which is exact.
    assert!((bar.mean.makespan_percent.expect("covered") - 7.0 / 3.0).abs() < 1e-12);
    assert_eq!(bar.mean.energy_percent, None, "nobody measured the power");
    // 8 and 12 % of one source; with the spread between sources, whose logarithms add up by squares.
    let any = |percent: f64| 100.0 * ((percent / 100.0).ln_1p().hypot(BETWEEN_SOURCES).exp() - 1.0);
    let wanted = (500.0 * any(8.0) + 250.0 * any(12.0)) / 750.0;
    assert!((interval(&bar).expect("covered") - wanted).abs() < 0.01, "{bar:?}");
    assert!((bar.interval90.expect("covered").same_source_time_percent - 28.0 / 3.0).abs() < 1e-9);
}

#[test]
fn without_evidence_there_is_no_error() {
    let none = run(&[(0, price(5, SourceKind::Fitted, None)), (2, price(6, SourceKind::Assumed, None))]);
    let bar = ErrorBar::of(&none, &device());
    let json = serde_json::to_value(&bar).expect("JSON");
    let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["covered_share", "extrapolated_share", "by_class"], "{json}");
    let hw = Hardware::datasheet("nvidia-h100-sxm").expect("a shipped device");
    let datasheet = Device::new(&hw, Limits::default()).expect("no limits");
    assert_eq!(datasheet.price(&product(16)).error, None);
}

fn product(rows: u32) -> Kernel {
    let (weights, inputs, activations) = (Dtype::Bf16, Dtype::Bf16, Dtype::Bf16);
    let density = radialsim::kernel::Density::Dense;
    Kernel::MatMul { rows, inner: 4096, columns: 4096, weights, inputs, activations, density }
}

fn decode(beside: u32) -> Kernel {
    let (activations, kv) = (Dtype::Bf16, Dtype::Bf16);
    let (heads, kv_heads, head_dim) = (32, 8, 128);
    let (rows, pairs, entries, decode) = (8, 8 * 1024, 8 * 1024, true);
    Kernel::Attention(Attention {
        rows,
        pairs,
        entries,
        heads,
        kv_heads,
        head_dim,
        decode,
        beside,
        waits: 0,
        activations,
        kv,
    })
}

/// Every price carries the error of the correction that made it: of decoding beside a prompt that of `mixed_attention`, not that of decoding
/// alone; of a sampler its own; of a product beyond the fitted rows three times that of the products.
#[test]
fn every_price_carries_the_error_of_what_made_it() {
    let hw = Hardware::resolve("nvidia-rtx-4090").expect("a shipped device");
    let device = Device::new(&hw, Limits::default()).expect("no limits");
    let corrections = hw.corrections.as_ref().expect("fitted");
    let of = |name: &str| {
        let found = corrections.named().find(|(other, _)| *other == name).expect(name).1;
        PriceError::new(found.evidence.held_error, found.evidence.interval())
    };
    let error = |kernel: &Kernel| device.price(kernel).error.expect("fitted");
    assert_eq!(error(&decode(0)), of("generation_attention"));
    assert_eq!(error(&decode(256)), of("mixed_attention"));
    assert!(of("mixed_attention").mean > 2 * of("generation_attention").mean, "else this shows nothing");
    let sample = Kernel::Sample { rows: 8, vocabulary: 128_256, activations: Dtype::Bf16 };
    assert_eq!(error(&sample), of("sample"));

    let mut hw = hardware([4.0, 6.0, 2.0]);
    let sampler = hw.sampler.as_mut().expect("fitted to serving runs");
    sampler.error = Some(Held { mean: 7.0, interval: 21.0 });
    let device = Device::new(&hw, Limits::default()).expect("no limits");
    assert_eq!(device.price(&sample).error, Some(PriceError::new(7.0, 21.0)));
    assert_eq!(device.price(&product(16)).error, Some(PriceError::new(4.0, 8.0)));
    let beyond = device.price(&product(1 << 20));
    assert_eq!((beyond.source, beyond.error), (SourceKind::Extrapolated, Some(PriceError::new(12.0, 24.0))));
}

#[test]
fn the_energy_has_the_error_of_the_power_and_of_the_time_it_flows() {
    let mut hw = hardware([4.0, 4.0, 4.0]);
    hw.power.metered = Some(PowerEvidence {
        stack: "a stack".into(),
        sha256: "0".into(),
        rows: 10,
        models: 2,
        itl_error: 5.0,
        itl_bias: 0.0,
        joules_error: 9.0,
        joules_bias: 0.0,
        watts_error: 7.0,
        watts_bias: 0.0,
    });
    let device = Device::new(&hw, Limits::default()).expect("no limits");
    let mut ledger = ledger([4.0; 3], [1000, 0, 0], 0);
    let (static_w, _) = device.static_and_idle_w();
    // As much dynamic as static energy: half of the energy goes with the time.
    ledger.dynamic_pj = (static_w * 1000.0) as i128;
    let bar = ErrorBar::of(&ledger, &device);
    assert!((bar.mean.energy_percent.expect("metered") - (7.0 + 0.5 * 4.0)).abs() < 0.01, "{bar:?}");
}

/// A saving of 3 % by what has an interval of 8 % of one source, and of more of any.
#[test]
fn verdicts() {
    let of = |times: [u64; 3]| {
        let ledger = ledger([4.0, 8.0, 8.0], times, 0);
        (ledger.pass_ps, ErrorBar::of(&ledger, &device()))
    };
    let (first, alike, other, little) = (of([1000, 0, 0]), of([970, 0, 0]), of([0, 970, 0]), of([50, 0, 0]));
    let verdict =
        |run: &(u128, ErrorBar)| Saving::of((first.0, &first.1), (run.0, &run.1)).expect("covered").verdict();
    // The same kernels, fewer of them: sure if what is wrong with them is the same in both runs.
    assert_eq!(verdict(&alike), Verdict::IfShared);
    // Other kernels, which are wrong in their own way.
    assert_eq!(verdict(&other), Verdict::No);
    assert_eq!(verdict(&little), Verdict::Yes);
    // Of which most is unknown.
    let unknown = ledger([4.0; 3], [100, 0, 0], 150);
    assert_eq!(verdict(&(unknown.pass_ps, ErrorBar::of(&unknown, &device()))), Verdict::Unknown);
}

/// Both fidelities, and shares that are those of the ledger. A power cap makes times of energies, which have no error here.
#[test]
fn runs_know_their_shares() {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 8);
    lab.setup.hardware = hardware([4.0, 6.0, 2.0]);
    let dense = method("StaticDepth(keep: AllBut([]))");
    let trace = lab.trace(&dense, 8, 100, 20, 1);
    let ledger = lab.run(&trace);
    let summary = lab.summary(&ledger);
    let bar = &summary.error;
    assert!(bar.covered_share > 0.5 && bar.covered_share < 1.0, "{bar:?}");
    let by_class: f64 = bar.by_class.iter().flatten().map(|class| class.share).sum();
    assert!((by_class - bar.covered_share).abs() < 1e-12);
    let all: u128 = ledger.by_source.iter().map(|tally| tally.time_ps).sum();
    assert_eq!(all, ledger.busy_ps);

    lab.setup.limits.power_w = Some(lab.setup.hardware.power.static_w.value + 5.0);
    let capped = lab.run(&trace);
    let less = lab.summary(&capped).error;
    assert!(less.covered_share < bar.covered_share, "{less:?}");
}

#[test]
fn json_and_table_show_them() {
    let folder = crate::cli::folder();
    let [json, timeline] = ["json", "trace"].map(|ending| folder.path().join(format!("out.{ending}")));
    let run = |hardware: &str| {
        let hardware = format!("hardware={hardware}");
        let place = json.to_str().expect("a path");
        let out = crate::cli::radialsim(&[
            "simulate",
            crate::cli::EXAMPLE,
            "--json",
            place,
            "--timeline",
            timeline.to_str().expect("a path"),
            "--quiet",
            "--full",
            "--set",
            &hardware,
        ]);
        assert_eq!(out.status.code(), Some(0), "{}", crate::cli::text(&out.stderr));
        let root: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("JSON");
        (crate::cli::text(&out.stdout), root)
    };
    let (table, root) = run("nvidia-h100-sxm");
    assert!(table.contains("How wrong this may be") && table.contains('±'), "{table}");
    let kernels = || std::fs::read_to_string(&timeline).expect("a timeline");
    assert!(kernels().contains("\"error_percent\":"), "kernels of the timeline state their errors");
    let variants = root["variants"].as_array().expect("variants");
    for (index, variant) in variants.iter().enumerate() {
        let error = &variant["error"];
        for key in
            ["covered_share", "extrapolated_share", "time_percent", "makespan_percent", "any_mix_percent"]
        {
            assert!(error[key].as_f64().is_some_and(|value| value >= 0.0), "{key}: {error}");
        }
        for key in ["time_percent", "makespan_percent", "any_mix_percent", "same_source_time_percent"] {
            assert!(error["interval90"][key].as_f64().is_some_and(|value| value >= 0.0), "{key}: {error}");
        }
        for key in ["error_percent", "interval_percent"] {
            assert!(error["by_class"]["matmul"][key].as_f64().is_some(), "{error}");
        }
        let against = &error["against_first"];
        assert_eq!(against.is_object(), index > 0, "{error}");
        if index > 0 {
            let saved = against["saved_percent"].as_f64().expect("a number");
            let passes = |variant: &Value| variant["pass_time_s"].as_f64().expect("a number");
            assert!((saved - 100.0 * (1.0 - passes(variant) / passes(&variants[0]))).abs() < 1e-6);
            assert!(
                ["yes", "if_shared", "no", "unknown"].contains(&against["verdict"].as_str().expect("a word"))
            );
        }
    }
    let (table, root) = run("ideal");
    assert!(table.contains("unknown: the profile has no errors") && !table.contains('±'), "{table}");
    assert!(!kernels().contains("error_percent"));
    let error = root["variants"][1]["error"].as_object().expect("an object");
    assert!(!error.contains_key("time_percent") && !error.contains_key("against_first"), "{error:?}");
}

/// What was learned on a device is lent to another: one with another bandwidth has extrapolated prices and an error that grows by how far it
/// lies away; one whose launches or power differ, or whose bandwidth is set to what it is, keeps both.
#[test]
fn a_device_with_other_numbers_is_no_longer_the_one_that_was_fitted() {
    let folder = crate::cli::folder();
    let path = crate::cli::small(folder.path(), "t", r#"(name: "dense", routes: Method(Dense))"#);
    let bar = |settings: &[String]| {
        let scenario = radialsim::scenario::Scenario::load(&path, settings).expect("a scenario");
        let (outcome, _) =
            radialsim::scenario::run(&scenario, 1, &(), |_, _| radialsim::sim::Silent).expect("a run");
        outcome.variants[0].first().summary.error.clone()
    };
    let own = bar(&[]);
    let dram = Hardware::resolve("nvidia-h100-sxm").unwrap().memory.dram_gb_per_s.value;
    for same in [
        "hardware.launch.kernel_us=9".to_owned(),
        "hardware.power.static_w=90".into(),
        format!("hardware.memory.dram_gb_per_s={dram}"),
    ] {
        let same = bar(&[same]);
        assert_eq!(
            same.by_class.map(|class| class.map(|class| class.error_percent)),
            own.by_class.map(|class| class.map(|class| class.error_percent))
        );
    }
    for other in [
        "hardware.memory.dram_gb_per_s=5000",
        "hardware.compute.matrix_f16_tflops=1500",
        "hardware.kernels.matmul.flops=0.9",
    ] {
        let bar = bar(&[other.to_owned()]);
        assert!((bar.extrapolated_share - bar.covered_share).abs() < 1e-9, "{other}: {bar:?}");
        assert!(bar.mean.any_mix_percent > own.mean.any_mix_percent, "{other}: {bar:?}");
    }
    let of_dram = |share: f64| bar(&[format!("hardware.memory.dram_gb_per_s={}", share * dram)]);
    let errors = [1.01, 1.2, 1.4, 1.6].map(|share| of_dram(share).mean.time_percent);
    assert!(errors.windows(2).all(|pair| pair[0] < pair[1]), "{errors:?}");
    let near = errors[0].expect("known") / own.mean.time_percent.expect("known");
    assert!(near < 1.2, "a hundredth more bandwidth hardly makes another device: {near}");
}

/// A cap or a lock that slows passes makes their errors wider, and takes no kernel out of them; one that slows nothing changes nothing.
#[test]
fn a_cap_adds_its_error_and_leaves_none_out() {
    let mut lab = Lab::new("llama-3.1-8b", "nvidia-h100-sxm", 4);
    lab.setup.hardware = Hardware::resolve("nvidia-h100-sxm").expect("a shipped device");
    let trace = lab.trace(&method("Dense"), 4, 64, 8, 1);
    let of = |lab: &Lab| {
        let ledger = lab.run(&trace);
        let device = Device::new(&lab.setup.hardware, lab.setup.limits).expect("limits within reach");
        (ErrorBar::of(&ledger, &device), ledger.hottest_pass_w)
    };
    let (free, hottest_w) = of(&lab);
    assert_eq!(free.clock_percent, None);
    let boost = lab.setup.hardware.compute.boost_clock_mhz.value;
    let mut before = 0.0;
    for limits in [
        Limits { power_w: None, clock_mhz: Some(0.7 * boost), ..Limits::default() },
        Limits { power_w: Some(0.8 * hottest_w), clock_mhz: None, ..Limits::default() },
    ] {
        lab.setup.limits = limits;
        let (held, _) = of(&lab);
        let clock = held.clock_percent.expect("slowed passes");
        assert!(
            clock > before,
            "the draw that sets the clock of a cap is not sure, either: {limits:?} {clock}"
        );
        before = clock;
        assert!((held.covered_share - free.covered_share).abs() < 0.1, "{held:?} {free:?}");
        for (wider, narrow) in [
            (held.mean.time_percent, free.mean.time_percent),
            (held.mean.any_mix_percent, free.mean.any_mix_percent),
            (held.mean.energy_percent, free.mean.energy_percent),
        ] {
            assert!(wider.expect("an error") > narrow.expect("an error") + 0.5 * clock, "{held:?} {free:?}");
        }
        // The clock's error is a mean; half an interval of 90 % of a normal number is 2.06 times its mean without sign.
        let parts = held.apart(&free, [1.0; 2]) / clock;
        assert!(parts > 2.0, "against a run without limits, the interval of the clock stays: {parts}");
    }
    lab.setup.limits = Limits { power_w: Some(1.01 * hottest_w), clock_mhz: None, ..Limits::default() };
    assert_eq!(of(&lab).0, free);
}
