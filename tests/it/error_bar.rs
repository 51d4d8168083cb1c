//! Errors of runs: joined from those of kernel classes, never more than what they are made of, absent where nothing is known.

use crate::lab::{Lab, method};
use proptest::prelude::*;
use radialsim::cost::{Device, Limits};
use radialsim::hw::{Hardware, Metered};
use radialsim::kernel::Class;
use radialsim::metrics::{ErrorBar, Ledger, Saving, Verdict, error_percent};
use radialsim::units::{SimTime, SourceKind};
use serde_json::Value;

/// The shipped H100 with these errors of products, prompt attention and decode attention, in percent.
fn hardware(errors: [f64; 3]) -> Hardware {
    let mut hw = Hardware::resolve("nvidia-h100-sxm").expect("a shipped device");
    hw.power.metered = None;
    let corrections = hw.corrections.as_mut().expect("a fitted profile");
    let all =
        [&mut corrections.gemm, &mut corrections.context_attention, &mut corrections.generation_attention];
    for (correction, error) in all.into_iter().zip(errors) {
        correction.as_mut().expect("fitted").evidence.held_error = error;
    }
    hw
}

fn device(errors: [f64; 3]) -> Device {
    Device::new(&hardware(errors), Limits::default()).expect("no limits")
}

/// A run of so many picoseconds of each of the first three classes with this source, and of `rest` without an error.
fn ledger(times: [u64; 3], source: SourceKind, rest: u64) -> Ledger {
    let mut ledger = Ledger::default();
    for (class, time) in times.into_iter().enumerate() {
        ledger.by_class[class][source as usize].time_ps = time.into();
    }
    ledger.by_class[Class::Elementwise as usize][SourceKind::Assumed as usize].time_ps = rest.into();
    let all = times.iter().sum::<u64>() + rest;
    ledger.busy_ps = all.into();
    ledger.pass_ps = all.into();
    ledger.makespan = SimTime::from_ps(all);
    ledger
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
    fn an_error_lies_between_those_of_its_classes(
        errors in prop::array::uniform3(percent()), times in prop::array::uniform3(time()), rest in 0u64..1_000_000,
    ) {
        let bar = ErrorBar::of(&ledger(times, SourceKind::Fitted, rest), &device(errors));
        let present: Vec<f64> = errors.iter().zip(times).filter(|(_, time)| *time > 0).map(|(error, _)| *error).collect();
        if present.is_empty() {
            prop_assert_eq!((bar.time_percent, bar.any_mix_percent, bar.covered_share), (None, None, 0.0));
            return Ok(());
        }
        let (least, most) = present.iter().fold((f64::MAX, 0.0f64), |(least, most), &error| (least.min(error), most.max(error)));
        let error = bar.time_percent.expect("something is covered");
        prop_assert!(least * (1.0 - 1e-9) <= error && error <= most * (1.0 + 1e-9), "{} {} {}", least, error, most);
        prop_assert_eq!(bar.any_mix_percent, Some(most));
        let covered = times.iter().sum::<u64>() as f64 / (times.iter().sum::<u64>() + rest) as f64;
        prop_assert!((bar.covered_share - covered).abs() < 1e-9);
    }

    #[test]
    fn it_grows_with_every_residual(
        errors in prop::array::uniform3(percent()), times in prop::array::uniform3(1u64..1_000_000), class in 0usize..3, more in 0.1..20.0f64,
    ) {
        let ledger = ledger(times, SourceKind::Fitted, 1000);
        let mut worse = errors;
        worse[class] += more;
        let of = |errors| ErrorBar::of(&ledger, &device(errors)).time_percent.expect("covered");
        prop_assert!(of(worse) > of(errors));
    }

    #[test]
    fn savings_are_surest_where_errors_are_shared(
        errors in prop::array::uniform3(percent()), a in prop::array::uniform3(1u64..1_000_000), b in prop::array::uniform3(1u64..1_000_000),
    ) {
        let device = device(errors);
        let runs = [a, b].map(|times| ledger(times, SourceKind::Fitted, 0));
        let bars = [0, 1].map(|run: usize| ErrorBar::of(&runs[run], &device));
        let saving = Saving::of((runs[0].pass_ps, &bars[0]), (runs[1].pass_ps, &bars[1])).expect("covered");
        prop_assert!(saving.shared_error_percent <= saving.opposed_error_percent * (1.0 + 1e-9));
        let itself = Saving::of((runs[0].pass_ps, &bars[0]), (runs[0].pass_ps, &bars[0])).expect("covered");
        prop_assert_eq!((itself.saved_percent, itself.shared_error_percent, itself.verdict()), (0.0, 0.0, Verdict::No));
    }
}

#[test]
fn the_error_of_one_class_is_that_of_a_run_of_it_alone() {
    for class in 0..3 {
        let mut times = [0; 3];
        times[class] = 1000;
        let bar = ErrorBar::of(&ledger(times, SourceKind::Fitted, 0), &device([4.0, 6.0, 2.0]));
        assert_eq!(bar.time_percent, Some([4.0, 6.0, 2.0][class]));
        assert_eq!((bar.covered_share, bar.extrapolated_share), (1.0, 0.0));
    }
}

/// Half of the time in products (4 %), a quarter in decode attention (2 %) beyond what was fitted, a quarter unknown.
#[test]
fn a_join_by_hand() {
    let mut ledger = ledger([500, 0, 0], SourceKind::Fitted, 250);
    ledger.by_class[Class::DecodeAttention as usize][SourceKind::Extrapolated as usize].time_ps = 250;
    ledger.pass_ps = 1000;
    ledger.busy_ps = 1000;
    ledger.makespan = SimTime::from_ps(2000);
    let bar = ErrorBar::of(&ledger, &device([4.0, 6.0, 2.0]));
    assert_eq!((bar.covered_share, bar.extrapolated_share), (0.75, 0.25));
    // (500 x 4 + 250 x 3 x 2) / 750.
    assert!((bar.time_percent.expect("covered") - 14.0 / 3.0).abs() < 1e-12);
    assert_eq!(bar.any_mix_percent, Some(6.0));
    // Half of the makespan is a wait for arrivals, which is exact.
    assert!((bar.makespan_percent.expect("covered") - 7.0 / 3.0).abs() < 1e-12);
    assert_eq!(bar.energy_percent, None, "nobody measured the power");
}

#[test]
fn without_evidence_there_is_no_error() {
    let hw = Hardware::datasheet("nvidia-h100-sxm").expect("a shipped device");
    let device = Device::new(&hw, Limits::default()).expect("no limits");
    let bar = ErrorBar::of(&ledger([5, 6, 7], SourceKind::Fitted, 1), &device);
    let json = serde_json::to_value(&bar).expect("JSON");
    let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["covered_share", "extrapolated_share", "by_class"], "{json}");
    assert_eq!((bar.covered_share, bar.time_percent), (0.0, None));
    // Nor where the price is an estimate, whatever the class.
    let fitted = self::device([4.0, 6.0, 2.0]);
    for source in [SourceKind::Assumed, SourceKind::Datasheet] {
        assert_eq!(error_percent(&fitted, Class::MatMul, source), None);
        assert_eq!(ErrorBar::of(&ledger([5, 6, 7], source, 1), &fitted).time_percent, None);
    }
    assert_eq!(error_percent(&fitted, Class::Gather, SourceKind::Fitted), None);
}

#[test]
fn the_energy_has_the_error_of_the_power_and_of_the_time_it_flows() {
    let mut hw = hardware([4.0, 4.0, 4.0]);
    hw.power.metered = Some(Metered {
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
    let mut ledger = ledger([1000, 0, 0], SourceKind::Fitted, 0);
    let (static_w, _) = device.static_and_idle_w();
    // As much dynamic as static energy: half of the energy goes with the time.
    ledger.dynamic_pj = (static_w * 1000.0) as i128;
    let bar = ErrorBar::of(&ledger, &device);
    assert!((bar.energy_percent.expect("metered") - (7.0 + 0.5 * 4.0)).abs() < 0.01, "{bar:?}");
}

/// A saving of 3 % by what has an error of 4 %.
#[test]
fn verdicts() {
    let device = device([4.0, 8.0, 8.0]);
    let of = |times: [u64; 3]| {
        let ledger = ledger(times, SourceKind::Fitted, 0);
        (ledger.pass_ps, ErrorBar::of(&ledger, &device))
    };
    let (first, alike, other, half) = (of([1000, 0, 0]), of([970, 0, 0]), of([0, 970, 0]), of([500, 0, 0]));
    let verdict =
        |run: &(u128, ErrorBar)| Saving::of((first.0, &first.1), (run.0, &run.1)).expect("covered").verdict();
    // The same kernels, fewer of them: sure if what is wrong with them is the same in both runs.
    assert_eq!(verdict(&alike), Verdict::IfShared);
    // Other kernels, which are wrong in their own way.
    assert_eq!(verdict(&other), Verdict::No);
    assert_eq!(verdict(&half), Verdict::Yes);
    // Of which most is unknown.
    let unknown = ledger([100, 0, 0], SourceKind::Fitted, 150);
    assert_eq!(verdict(&(unknown.pass_ps, ErrorBar::of(&unknown, &device))), Verdict::Unknown);
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
    let all: u128 = ledger.by_class.iter().flatten().map(|tally| tally.time_ps).sum();
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
        assert!(error["by_class"]["matmul"]["error_percent"].as_f64().is_some(), "{error}");
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

/// What was learned on a device is lent to another: one with another bandwidth has extrapolated prices and three times the error; one whose
/// launches or power differ, or whose bandwidth is set to what it is, keeps both.
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
        assert!(bar.any_mix_percent > own.any_mix_percent, "{other}: {bar:?}");
    }
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
        Limits { power_w: None, clock_mhz: Some(0.7 * boost) },
        Limits { power_w: Some(0.8 * hottest_w), clock_mhz: None },
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
            (held.time_percent, free.time_percent),
            (held.any_mix_percent, free.any_mix_percent),
            (held.energy_percent, free.energy_percent),
        ] {
            assert!(wider.expect("an error") > narrow.expect("an error") + 0.5 * clock, "{held:?} {free:?}");
        }
        assert!(
            held.apart(&free, [1.0; 2]) > 0.9 * clock,
            "against a run without limits, the error of the clock stays"
        );
    }
    lab.setup.limits = Limits { power_w: Some(1.01 * hottest_w), clock_mhz: None };
    assert_eq!(of(&lab).0, free);
}
