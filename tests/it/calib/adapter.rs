//! Profiles of adapters that say more or less than their records, and records that are no records.

use crate::cli::{folder, names_in, radialsim, text};
use proptest::prelude::*;
use radialsim::calib::{Drawn, Environment, Probe, Record, Records, fit_adapter, shapes};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Density, KINDS, Kernel, kind, terms};
use radialsim::rng::Stream;
use radialsim::units::{Dtype, SourceKind};
use std::sync::LazyLock;

/// Nanoseconds of the terms of each kind, as unlike each other as real ones.
fn constants(kind: usize, tile: (u32, u32)) -> [f64; 4] {
    let scale = 1.0 + kind as f64 / 3.0;
    match KINDS[kind].0 {
        "matmul" => [900.0, 40.0 + 20.0 * f64::from(tile.0).sqrt(), 2.0 * f64::from(tile.0).sqrt(), 0.0],
        "attention_prefill" | "attention_decode" => [3000.0, 900.0, 60.0, 2.0],
        _ => [1500.0 * scale, 100.0, 8.0 * scale, 0.0],
    }
}

fn tile(kernel: &Kernel) -> Option<(u32, u32)> {
    match *kernel {
        Kernel::MatMul { rows, .. } | Kernel::GroupedMatMul { rows, .. } => {
            Some((if rows < 8 { 1 } else { 16 }, 32))
        }
        Kernel::Attention(shape) => Some((if shape.decode { 1 } else { 8 }, 8)),
        _ => None,
    }
}

fn microseconds(kernel: &Kernel, units: u64) -> f64 {
    let at = tile(kernel).unwrap_or((1, 1));
    let constants = constants(kind(kernel).0, at);
    terms(kernel, at, units).iter().zip(constants).map(|(term, ns)| term * ns * 1e-3).sum()
}

/// Records as an adapter with these constants and one unit would leave them, give or take `noise`.
pub fn records(noise: f64) -> Records {
    records_of(1, noise)
}

fn records_of(units: u64, noise: f64) -> Records {
    let environment = Environment {
        adapter: "made up".into(),
        processor: "none".into(),
        settings: String::new(),
        version: "0".into(),
        date: "2026-11-25".into(),
        copy_gb_per_s: 8.0,
        read_gb_per_s: 9.0,
        read_by_bytes: vec![(1 << 16, 30.0), (1 << 26, 9.0)],
        fma_gflops: 80.0,
        empty_us: 1.0,
        chains: [100, 400, 1600].map(|n| (n, 300.0 + f64::from(n) * (2.0 + small_us()))).to_vec(),
        reference_us: None,
        drawn: None,
    };
    let mut random = Stream::new(1, "noise");
    let row = |probe: Probe| {
        let us = microseconds(&probe.kernel, units);
        let visits: Vec<Vec<f64>> =
            (0..2).map(|_| (0..5).map(|_| us * (1.0 + noise * random.normal()).max(0.1)).collect()).collect();
        Record::new(probe, tile(&probe.kernel), &visits)
    };
    Records { environment, rows: shapes(&[Dtype::Int4, Dtype::Int8]).into_iter().map(row).collect() }
}

fn small_us() -> f64 {
    microseconds(&Kernel::ResidualAdd { rows: 1, width: 64, activations: Dtype::F32 }, 1)
}

fn base() -> Hardware {
    let mut base = Hardware::datasheet("generic-cpu-2core").expect("a shipped profile");
    base.compute.units.value = 1.0;
    base
}

#[test]
fn constants_come_back_from_records() {
    let (hw, fitted) = fit_adapter(&base(), &records(0.0), "made-up", 1.0).expect("a fit");
    assert!(fitted.iter().all(|one| one.held.worst < 0.1), "{fitted:?}");
    for kernel in &hw.measured.as_ref().expect("kernels").kernels {
        let kind = KINDS.iter().position(|(name, ..)| *name == kernel.name).expect("a known kernel");
        let wanted = constants(kind, kernel.tile.unwrap_or((1, 1)));
        for (name, wanted) in KINDS[kind].2.iter().zip(wanted) {
            let found = kernel.ns[*name];
            assert!(
                (found - wanted).abs() <= 2e-2 * wanted + 0.5,
                "{} {name}: {found}, not {wanted}",
                kernel.name
            );
        }
    }
    assert!((hw.launch.kernel_us.value - 2.0).abs() < 0.01, "{}", hw.launch.kernel_us.value);
    assert!((hw.launch.step_us.value - 300.0).abs() < 1.0);
    // What is written is what is read, and prices are those of the constants.
    let again = Hardware::parse(&hw.text(), "made-up.ron").expect("a profile");
    assert_eq!(again, hw);
    let device = Device::new(&again, Limits::default()).expect("a device");
    let (rows, inner, columns, weights) = (2, 320, 777, Dtype::Int4);
    let kernel = Kernel::MatMul {
        rows,
        inner,
        columns,
        weights,
        inputs: Dtype::F32,
        activations: Dtype::F32,
        density: Density::Dense,
    };
    let price = device.price(&kernel);
    assert!((price.time.us() / microseconds(&kernel, 1) - 1.0).abs() < 0.01);
    assert_eq!(price.source, SourceKind::Fitted);
    let huge = Kernel::MatMul {
        rows: 5,
        inner: 1 << 20,
        columns,
        weights,
        inputs: Dtype::F32,
        activations: Dtype::F32,
        density: Density::Dense,
    };
    assert_eq!(device.price(&huge).source, SourceKind::Extrapolated);
}

/// A software adapter runs as many tiles at once as its settings leave it threads, whatever the base says.
#[test]
fn the_units_are_those_that_ran() {
    let mut base = base();
    base.compute.units.value = 4.0;
    for units in 1..=4 {
        let (hw, _) = fit_adapter(&base, &records_of(units, 0.02), "made-up", 1.0).expect("a fit");
        assert_eq!(hw.compute.units.value, units as f64);
        assert_eq!(hw.compute.units.source.kind(), SourceKind::Measured);
    }
    base.compute.units.value = 132.0;
    let (hw, _) = fit_adapter(&base, &records_of(132, 0.0), "made-up", 1.0).expect("a fit");
    assert_eq!(hw.compute.units, base.compute.units, "those of a GPU are known");
}

/// Watts at known rates become joules of a byte and of a flop; without a counter the base's assumptions stay.
#[test]
fn power_comes_from_a_counter_or_stays_assumed() {
    let (modelled, _) = fit_adapter(&base(), &records(0.0), "made-up", 1.0).expect("a fit");
    assert_eq!(modelled.power, base().power);
    assert_eq!(modelled.power.pj_per_byte.source.kind(), SourceKind::Assumed);

    let mut counted = records(0.0);
    let drawn = Drawn {
        counter: "a counter".into(),
        idle_w: 10.0,
        empty_w: 14.0,
        read_w: 15.5,
        read_gb_per_s: 6.0,
        fma_w: 54.0,
        fma_gflops: 80.0,
    };
    counted.environment.drawn = Some(drawn);
    let (hw, _) = fit_adapter(&base(), &counted, "made-up", 1.0).expect("a fit");
    let power = &hw.power;
    let found = [&power.idle_w, &power.static_w, &power.pj_per_byte, &power.pj_per_flop, &power.limit_w];
    assert_eq!(found.map(|number| number.value), [10.0, 14.0, 250.0, 250.0, 54.0]);
    assert!(found.iter().all(|number| number.source.kind() == SourceKind::Measured));
    // The record is kept, and says the same when it is read again.
    let folder = folder();
    let path = folder.path().join("r.jsonl");
    std::fs::write(&path, counted.text()).expect("a file");
    assert_eq!(Records::read(&path).expect("records"), counted);
    // 80 GFLOP of 32 bits take a second at 80 GFLOP/s: 40 J beyond what is drawn anyway.
    let device = Device::new(&hw, Limits::default()).expect("a device");
    let (rows, inner, columns, weights) = (1000, 4000, 10000, Dtype::F32);
    let kernel = Kernel::MatMul {
        rows,
        inner,
        columns,
        weights,
        inputs: Dtype::F32,
        activations: Dtype::F32,
        density: Density::Dense,
    };
    let price = device.price(&kernel);
    let of_bytes = price.dram_bytes as f64 * 250.0;
    assert!(((price.dynamic_pj as f64 - of_bytes) / 40e12 - 1.0).abs() < 1e-6, "{price:?}");
}

#[test]
fn noise_shows_in_the_errors_and_in_the_spread_of_visits() {
    let (_, quiet) = fit_adapter(&base(), &records(0.01), "quiet", 1.0).expect("a fit");
    let (_, loud) = fit_adapter(&base(), &records(0.2), "loud", 1.0).expect("a fit");
    let mean = |all: &[radialsim::calib::FittedKernel]| {
        all.iter().map(|one| one.held.mean).sum::<f64>() / all.len() as f64
    };
    assert!(mean(&quiet) < 2.0 && mean(&loud) > 3.0 * mean(&quiet), "{} {}", mean(&quiet), mean(&loud));
    assert!(records(0.0).drift_percent() < 0.1 && records(0.2).drift_percent() > 5.0);
}

#[test]
fn times_of_other_shapes_explain_nothing() {
    let mut shuffled = records(0.01);
    let times: Vec<(f64, f64, f64)> = shuffled.rows.iter().map(|row| row.us).collect();
    let count = times.len();
    shuffled.rows.iter_mut().enumerate().for_each(|(index, row)| row.us = times[(index * 577 + 101) % count]);
    let error = fit_adapter(&base(), &shuffled, "shuffled", 1.0).expect_err("noise");
    assert!(error.to_string().contains("times that depend on shapes"), "{error}");
}

#[test]
fn rows_kept_aside_change_no_constant() {
    let (hw, _) = fit_adapter(&base(), &records(0.01), "a", 1.0).expect("a fit");
    let mut other = records(0.01);
    // The widths that one of the kernels keeps aside are found by what changes nothing.
    let mut unseen = 0;
    for width in [288, 576, 768, 1000, 1536, 2304] {
        let mut rows = other.rows.clone();
        for row in &mut rows {
            if matches!(row.kernel, Kernel::Gather { width: w, .. } if w == width) {
                row.us.1 *= 2.0;
            }
        }
        let (changed, _) = fit_adapter(&base(), &Records { rows, ..other.clone() }, "a", 1.0).expect("a fit");
        let ns = |hw: &Hardware| {
            let kernels = &hw.measured.as_ref().expect("kernels").kernels;
            kernels.iter().find(|kernel| kernel.name == "gather_rows").expect("measured").ns.clone()
        };
        unseen += usize::from(ns(&changed) == ns(&hw));
    }
    assert_eq!(unseen, 2, "a quarter of six widths, rounded up");
    other.rows.clear();
    assert!(fit_adapter(&base(), &other, "a", 1.0).is_err());
}

proptest! {
    #[test]
    fn more_is_never_faster(index in 0..usize::MAX, more in 1..9_u32) {
        static NOISY: LazyLock<Device> = LazyLock::new(|| {
            let (hw, _) = fit_adapter(&base(), &records(0.05), "a", 1.0).expect("a fit");
            Device::new(&hw, Limits::default()).expect("a device")
        });
        let device = &*NOISY;
        let all = shapes(&[Dtype::Int4]);
        let kernel = all[index % all.len()].kernel;
        let larger = match kernel {
            Kernel::MatMul { rows, inner, columns, weights, inputs: _, activations, density } => {
                Kernel::MatMul { rows: rows + more, inner: inner + more, columns: columns + more, weights, inputs: activations, activations, density }
            }
            Kernel::Norm { rows, width, groups, layer_norm, activations } => {
                Kernel::Norm { rows: rows + more, width: width + more, groups, layer_norm, activations }
            }
            Kernel::Sample { rows, vocabulary, activations } => Kernel::Sample { rows: rows + more, vocabulary, activations },
            // As many rows, more entries for each.
            Kernel::Attention(shape) if shape.decode => Kernel::Attention(radialsim::kernel::Attention {
                pairs: shape.pairs + u64::from(more), entries: shape.entries + u64::from(more), ..shape
            }),
            other => other,
        };
        prop_assert!(device.price(&larger).time >= device.price(&kernel).time);
    }
}

#[test]
fn records_are_files_that_say_what_is_wrong_with_them() {
    let folder = folder();
    let path = folder.path().join("records.jsonl");
    let whole = records(0.01);
    for mark in ["", "\u{feff}"] {
        std::fs::write(&path, format!("{mark}{}", whole.text())).expect("a file");
        assert_eq!(Records::read(&path).expect("records"), whole);
    }
    let broken = [
        ("", "records.jsonl:1: expected a line of `radialsim calibrate`"),
        ("{}\n", "records.jsonl:1: expected a line of `radialsim calibrate`"),
        (&format!("{}{{\"kernel\":3}}\n", whole.text()), &format!("records.jsonl:{}:", whole.rows.len() + 2)),
        (&whole.text().replacen("\"us\":[", "\"us\":[-", 2).replacen(",", ",-", 0), ""),
    ];
    for (text, wanted) in broken {
        std::fs::write(&path, text).expect("a file");
        match Records::read(&path) {
            Err(error) => assert!(error.to_string().contains(wanted), "{error}"),
            Ok(_) => assert!(wanted.is_empty(), "{wanted}"),
        }
    }
}

#[test]
fn the_program_fits_to_records_and_says_when_they_are_noisy() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(file("a.jsonl"), records(0.01).text()).expect("a file");
    std::fs::write(file("loud.jsonl"), records(0.4).text()).expect("a file");
    let run = |arguments: &[&str]| radialsim(&[&["calibrate"], arguments].concat());
    let out = run(&["--from", &file("a.jsonl"), "--out", &file("first-profile.ron")]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("attention_decode"));
    assert_eq!(
        run(&["--from", &file("a.jsonl"), "--out", &file("other-profile.ron")]).status.code(),
        Some(0)
    );
    let [one, two] = ["first-profile.ron", "other-profile.ron"]
        .map(|name| std::fs::read_to_string(file(name)).expect("a profile"));
    assert_eq!(one.replace("first-profile", "other-profile"), two, "the same bytes but for the name");
    let loud = run(&["--from", &file("loud.jsonl"), "--out", &file("loud.ron")]);
    assert_eq!(loud.status.code(), Some(1), "{}", text(&loud.stderr));
    assert!(text(&loud.stderr).contains("too noisy to trust"));
    for wrong in
        [&["--share", "0"][..], &["--seconds", "nan"], &["--base", "nothing"], &["--from", "nothing.jsonl"]]
    {
        let out = run(&[
            &["--out", &file("wrong.ron"), "--from", &file("a.jsonl")]
                [..wrong.len() * 2 - if wrong[0] == "--from" { 2 } else { 0 }],
            wrong,
        ]
        .concat());
        assert_eq!(out.status.code(), Some(2), "{wrong:?}");
    }
    assert!(!names_in(folder.path()).contains(&"wrong.ron".to_owned()));
}
