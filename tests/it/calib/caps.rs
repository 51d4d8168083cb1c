//! Power caps and clock locks that were measured, against the clocks that prices have under them; and what a fit to such a table finds.

use crate::lab::{Lab, method};
use radialsim::cost::{Device, Limits};
use radialsim::hw::Hardware;
use radialsim::kernel::{Density, Kernel};
use radialsim::meter::caps::{self, CapAnswer};
use radialsim::report::{Answered, cap_errors};
use radialsim::units::Dtype;
use std::fmt::Write;

const HEADER: &str =
    "device,workload,precision,phase,batch,control,cap_w,clock_mhz,speed,mean_power_w,power_fix_factor\n";

fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("caps.csv");
    std::fs::write(&path, text).expect("written");
    (folder, path)
}

fn product(rows: u32) -> Kernel {
    let (weights, activations) = (Dtype::Bf16, Dtype::Bf16);
    Kernel::MatMul {
        rows,
        inner: 4096,
        columns: 14336,
        weights,
        inputs: activations,
        activations,
        density: Density::Dense,
    }
}

/// Seconds and joules of a kernel under limits.
fn run(hw: &Hardware, kernel: &Kernel, limits: Limits) -> (f64, f64) {
    let price = Device::new(hw, limits).expect("within reach").price(kernel);
    let time = price.time.s();
    (time, hw.power.static_w.value * time + price.dynamic_pj as f64 * 1e-12)
}

/// A table of what this device does: decoding under caps and locks, prompts under caps.
fn table_of(hw: &Hardware, device: &str) -> String {
    let mut text = HEADER.to_owned();
    let boost = hw.compute.boost_clock_mhz.value;
    for (phase, rows) in [("decode", 1), ("prefill", 4096)] {
        let kernel = product(rows);
        let (time, energy) = run(hw, &kernel, Limits::default());
        for step in 0..8 {
            let share = 1.0 - 0.06 * f64::from(step);
            // Under a lock, a board at its limit is held by the limit: prompts are, here.
            if rows == 1 {
                let clock_mhz = Some(boost * share).filter(|_| step > 0);
                let (slower, less) =
                    run(hw, &kernel, Limits { clock_mhz, power_w: None, ..Limits::default() });
                let (speed, watts) = (1.0 / slower, less / slower);
                writeln!(text, "{device},locked,bf16,{phase},1,clock,,{},{speed},{watts},", boost * share)
                    .expect("text");
            }
            let cap = energy / time * share;
            let power_w = Some(cap).filter(|_| step > 0);
            let (slower, less) = run(hw, &kernel, Limits { clock_mhz: None, power_w, ..Limits::default() });
            let (speed, watts) = (1.0 / slower, less / slower);
            writeln!(text, "{device},capped,bf16,{phase},1,cap,{cap},,{speed},{watts},").expect("text");
        }
    }
    text
}

fn all_answers(table: &caps::CapTable, hw: Option<&Hardware>) -> Vec<CapAnswer> {
    let of = |series: &caps::CapSeries| match hw {
        Some(hw) => caps::answers(hw, series),
        None => caps::answers(&series.board.hardware().expect("shipped"), series),
    };
    table.series.iter().flat_map(of).collect()
}

fn worst(answers: &[CapAnswer]) -> f64 {
    let off = |[was, said]: [f64; 2]| (said / was - 1.0).abs();
    answers.iter().map(|answer| off(answer.speed).max(off(answer.energy))).fold(0.0, f64::max)
}

/// Whoever measures a device that is the profile finds that the profile is right.
#[test]
fn a_device_that_is_its_profile_answers_as_measured() {
    for name in ["nvidia-v100-sxm", "nvidia-rtx-pro-6000"] {
        let hw = Hardware::datasheet(name).expect("shipped");
        let device = if name.contains("v100") { "V100" } else { "RTX PRO 6000" };
        let (_folder, path) = written(&table_of(&hw, device));
        let answers = all_answers(&caps::read(&path).expect("a table"), None);
        assert!(answers.len() > 12, "{}", answers.len());
        // Powers of a run are whole picojoules, clocks of a cap are found to a thousandth.
        assert!(worst(&answers) < 0.01, "{name}: {}", worst(&answers));
    }
}

/// The numbers of another device come back well enough to say how it follows.
#[test]
fn a_fit_finds_how_a_device_follows() {
    let mut truth = Hardware::datasheet("nvidia-v100-sxm").expect("shipped");
    let boost = truth.compute.boost_clock_mhz.value;
    let clocks = truth.power.clocks.as_mut().expect("fitted clocks");
    (clocks.flat_mhz.value, clocks.flat_voltage.value) = (0.65 * boost, 0.72);
    truth.power.static_w.value = 0.3 * truth.power.limit_w.value;
    let (_folder, path) = written(&table_of(&truth, "V100"));
    let table = caps::read(&path).expect("a table");
    let mut fitted = Hardware::datasheet("nvidia-v100-sxm").expect("shipped");
    let before = worst(&all_answers(&table, Some(&fitted)));
    caps::fit(&mut fitted, &table).expect("a fit");
    let after = worst(&all_answers(&table, Some(&fitted)));
    assert!(after < 0.05 && after < before / 2.0, "{before} {after}");
    let evidence =
        fitted.power.clocks.as_ref().and_then(|clocks| clocks.evidence.as_ref()).expect("evidence");
    assert!(
        evidence.rows as usize == all_answers(&table, None).len() && evidence.speed_error < 10.0,
        "{evidence:?}"
    );
    // What is written is read back.
    let (_folder, path) = written(&fitted.text());
    assert_eq!(Hardware::load(&path).expect("a profile").power, fitted.power);
}

/// One error with the file, and with what is wrong in it.
#[test]
fn tables_that_are_none_are_refused() {
    let good = "V100,a,fp16,decode,1,clock,,1000,10,100,\n";
    for (text, words) in [
        (HEADER.replace("phase,", "stage,") + good, "phase"),
        (HEADER.to_owned() + &good.replace(",10,", ",-10,"), "speed"),
        (HEADER.to_owned() + &good.replace(",1,clock", ",many,clock"), "batch"),
        (HEADER.to_owned() + &good.replace("V100", "abacus"), "abacus"),
        (HEADER.to_owned() + &good.replace("decode", "training"), "training"),
        (HEADER.to_owned() + good, "fewer than 3"),
        (HEADER.to_owned(), "rows of known devices"),
    ] {
        let (_folder, path) = written(&text);
        let error = caps::read(&path).expect_err(words).to_string();
        assert!(error.contains(words) && error.contains("caps.csv"), "{words}: {error}");
    }
}

/// Energy of a product over locks has one minimum, at or below the boost clock: it falls, then rises.
#[test]
fn energy_has_one_minimum_over_clocks() {
    for name in ["nvidia-rtx-4090", "nvidia-h100-sxm", "nvidia-v100-sxm", "nvidia-l4"] {
        let hw = Hardware::resolve(name).expect("shipped");
        let boost = hw.compute.boost_clock_mhz.value;
        for rows in [1, 4096] {
            let at = |step: u32| Limits {
                clock_mhz: Some(boost * f64::from(step) / 40.0),
                power_w: None,
                ..Limits::default()
            };
            let joules: Vec<f64> = (8..=40).map(|step| run(&hw, &product(rows), at(step)).1).collect();
            let least = (0..joules.len()).min_by(|&a, &b| joules[a].total_cmp(&joules[b])).expect("clocks");
            let slack = 1.0 + 1e-6;
            assert!(
                joules[..=least].windows(2).all(|pair| pair[1] <= pair[0] * slack),
                "{name} {rows}: {joules:?}"
            );
            assert!(
                joules[least..].windows(2).all(|pair| pair[0] <= pair[1] * slack),
                "{name} {rows}: {joules:?}"
            );
            assert!(least < joules.len() - 1, "{name} {rows}: a lower clock saves energy");
            assert_eq!(run(&hw, &product(rows), at(40)), run(&hw, &product(rows), Limits::default()));
        }
    }
}

/// The shipped profiles on measured rows, and those of devices without one made of their datasheets.
#[test]
fn measured_caps_and_locks_are_followed() {
    let Some(path) = crate::data("energy/power_caps.csv") else { return };
    let table = caps::read(&path).expect("a table");
    let answered: Vec<(Vec<CapAnswer>, f64)> = table
        .series
        .iter()
        .map(|series| {
            let hw = series.board.hardware().expect("a profile");
            (caps::answers(&hw, series), caps::draw(&hw, series).expect("a draw") / series.reference.watts)
        })
        .collect();
    let pairs: Vec<Answered> = table
        .series
        .iter()
        .zip(&answered)
        .map(|(series, (answers, draw))| (series, answers.as_slice(), *draw))
        .collect();
    let errors = cap_errors(&pairs).expect("answers");
    assert!(errors.speed < 8.0 && errors.energy < 9.0, "{errors:?}");
    assert!(100 * errors.right >= 97 * errors.changes && errors.changes > 700, "{errors:?}");
}

/// Where the board's own limit is a cap, prompts that would draw more take longer and no pass draws more than the limit; generation that draws less is
/// what it was, to the last digit; a lower cap still is one.
#[test]
fn a_board_holds_its_own_limit() {
    let run = |prompt: u32, output: u32, limits: Limits| {
        let mut lab = Lab::new("llama-3.1-70b", "nvidia-h200-sxm", 1);
        lab.setup.hardware = Hardware::shipped("nvidia-h200-sxm").expect("a shipped profile");
        for format in [&mut lab.setup.model.weights, &mut lab.setup.model.kv] {
            *format = Dtype::Fp8;
        }
        lab.setup.limits = limits;
        let ledger = lab.run(&lab.trace(&method("Dense"), 1, prompt, output, 1));
        let limit_w = lab.setup.hardware.power.limit_w.value;
        (ledger.makespan, ledger.dynamic_pj, lab.summary(&ledger).power_w.hottest_pass, limit_w)
    };
    let free = Limits::default();
    let board = Limits { board: true, ..free };
    let (short, _, _, limit_w) = run(4096, 1, free);
    let (long, _, hottest_w, _) = run(4096, 1, board);
    assert!(long.s() > 1.05 * short.s(), "{long:?} {short:?}");
    assert!(hottest_w <= limit_w * (1.0 + 1e-9), "{hottest_w} of {limit_w}");
    let [few, same] = [free, board].map(|limits| run(16, 24, limits));
    assert_eq!(few.0, same.0, "who draws less is not slowed");
    // Single kernels of such a pass may draw more than the limit, and light ones lend them what they leave.
    assert!((same.1 as f64 / few.1 as f64 - 1.0).abs() < 0.01, "{few:?} {same:?}");
    let capped = Limits { power_w: Some(0.6 * limit_w), ..free };
    let both = run(4096, 1, Limits { board: true, ..capped });
    assert!(both.0 >= run(4096, 1, capped).0 && both.2 <= 0.6 * limit_w * (1.0 + 1e-9));
}
