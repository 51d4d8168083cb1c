//! Time series: rows add up to the run, and equal a picosecond-by-picosecond account.

use crate::cli::{SKIPS, folder, names_in, radialsim, small, text};
use crate::lab::Lab;
use proptest::prelude::*;
use radialsim::batch::Batch;
use radialsim::cost::Device;
use radialsim::report::series::{Series, interval, write};
use radialsim::scenario::{Scenario, run};
use radialsim::sim::{Observer, PassInfo};
use radialsim::units::SimTime;
use std::collections::HashMap;

/// Rows of the file by variant, each a number for each column behind the first.
fn parsed(file: &[u8]) -> HashMap<String, Vec<[f64; 8]>> {
    let mut reader = csv::Reader::from_reader(file);
    let header: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(
        header.join(","),
        "variant,time_s,length_s,waiting,running,kv_bytes,power_w,output_tokens,passes"
    );
    let mut rows: HashMap<String, Vec<[f64; 8]>> = HashMap::new();
    for record in reader.records().map(Result::unwrap) {
        let numbers: Vec<f64> = record.iter().skip(1).map(|field| field.parse().unwrap()).collect();
        rows.entry(record[0].to_owned()).or_default().push(numbers.try_into().unwrap());
    }
    rows
}

fn rows(series: &Series) -> Vec<[f64; 8]> {
    let mut file = Vec::new();
    write(&mut file, &[("x".into(), series)]).unwrap();
    parsed(&file).remove("x").unwrap_or_default()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn the_rows_add_up_to_the_run() {
    let folder = folder();
    let variants = format!(
        r#"(name: "dense, plain", routes: Method(Dense)),
        (name: "queued", routes: {SKIPS}, policy: queued(full: 2, wait_us: 200))"#
    );
    let sparse = ["workload.requests.arrivals.Poisson.rate_per_s=4".to_owned()];
    let scenario = Scenario::load(&small(folder.path(), "t", &variants), &sparse).unwrap();
    for (seconds, most) in [(0.01, 1_000_000), (0.000_37, 1_000_000), (1000.0, 1_000_000), (0.000_01, 50)] {
        let watch = |_, setup: &_| Series::new(setup, interval(seconds).unwrap(), most);
        let (outcome, series) = run(&scenario, 2, &(), watch).unwrap();
        let named: Vec<_> =
            outcome.variants.iter().map(|variant| variant.name.clone()).zip(&series).collect();
        let mut file = Vec::new();
        write(&mut file, &named).unwrap();
        let rows = parsed(&file);
        for (variant, series) in outcome.variants.iter().zip(&series) {
            let (rows, run) = (&rows[&variant.name], variant.first());
            let sum = |of: &dyn Fn(&[f64; 8]) -> f64| rows.iter().map(of).sum::<f64>();
            let summary = &run.summary;
            assert!(close(sum(&|row| row[5] * row[1]), summary.energy_j), "energy at {seconds} s");
            assert!(close(sum(&|row| row[1]), summary.makespan_s), "length at {seconds} s");
            assert!(close(sum(&|row| row[3] * row[1]), summary.mean_running * summary.makespan_s));
            assert_eq!(sum(&|row| row[6]), summary.output_tokens as f64);
            assert_eq!(sum(&|row| row[7]), run.ledger.passes as f64);
            assert!(rows.len() as u64 <= most);
            assert_eq!(series.coarsened().is_some(), most == 50);
            let length = series.coarsened().map_or(seconds, SimTime::s);
            for (index, row) in rows.iter().enumerate() {
                assert!(close(row[0], index as f64 * length), "rows are equally long");
                assert!(index + 1 == rows.len() || close(row[1], length));
            }
        }
    }
}

#[test]
fn gaps_between_requests_are_rows_of_idle_power() {
    let folder = folder();
    let every = ["workload.requests.arrivals={\"Every\":{\"gap_s\":1.0}}".to_owned()];
    let path = small(folder.path(), "t", "(name: \"dense\", routes: Method(Dense))");
    let scenario = Scenario::load(&path, &every).unwrap();
    let (_, series) =
        run(&scenario, 1, &(), |_, setup| Series::new(setup, interval(0.1).unwrap(), 1000)).unwrap();
    let lab = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1);
    let (_, idle_w) = Device::new(&lab.setup.hardware, lab.setup.limits).unwrap().static_and_idle_w();
    let rows = rows(&series[0]);
    // Requests at 0, 1, 2 and 3 s, each over within 0.1 s.
    assert_eq!(rows.len(), 31);
    for (index, row) in rows.iter().enumerate() {
        let [_, _, waiting, running, kv_bytes, power_w, tokens, passes] = *row;
        if index % 10 == 0 {
            assert!(running > 0.0 && kv_bytes > 0.0 && power_w > idle_w && tokens > 0.0 && passes > 0.0);
        } else {
            assert_eq!([waiting, running, kv_bytes, tokens, passes], [0.0; 5], "row {index}");
            assert!(close(power_w, idle_w), "row {index}: {power_w}");
        }
    }
}

/// (gap before, length, busy, waiting, running, KV bytes, dynamic energy, tokens) of a pass, in picoseconds.
type Pass = (u64, u64, u64, u32, u32, u64, u64, u32);

fn feed(series: &mut Series, passes: &[Pass]) {
    let batch = Batch::default();
    let mut now = 0;
    for &(gap, length, busy, waiting, running, kv_bytes, dynamic_pj, tokens) in passes {
        let (begin, end) = (now + gap, now + gap + length);
        let info = PassInfo {
            begin: SimTime::from_ps(begin),
            end: SimTime::from_ps(end),
            batch: &batch,
            memory_bytes: kv_bytes,
            waiting,
            running,
            kv_bytes,
            busy: SimTime::from_ps(busy.min(length)),
            dynamic_pj: dynamic_pj as i64,
        };
        series.pass(&info);
        series.output(tokens);
        now = end;
    }
}

fn passes() -> impl Strategy<Value = Vec<Pass>> {
    let pass = (0u64..30, 1u64..40, 0u64..40, 0u32..5, 0u32..5, 0u64..1000, 0u64..100_000, 0u32..9);
    prop::collection::vec(pass, 1..30)
}

proptest! {
    #[test]
    fn rows_equal_an_account_of_every_picosecond(passes in passes(), asked in 1u64..50, most in 2u64..40) {
        let setup = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1).setup;
        let (static_w, idle_w) = Device::new(&setup.hardware, setup.limits).unwrap().static_and_idle_w();
        let mut series = Series::new(&setup, SimTime::from_ps(asked), most);
        feed(&mut series, &passes);

        let end: u64 = passes.iter().map(|pass| pass.0 + pass.1).sum();
        let mut interval = asked;
        while end.div_ceil(interval) > most {
            interval *= 2;
        }
        prop_assert_eq!(series.coarsened().map_or(asked, SimTime::ps), interval);
        // Sums of waiting, running, KV bytes, energy, tokens and passes for each interval.
        let mut naive = vec![[0.0; 6]; end.div_ceil(interval) as usize];
        let mut now = 0;
        for &(gap, length, busy, waiting, running, kv_bytes, dynamic_pj, tokens) in &passes {
            for ps in now..now + gap {
                naive[(ps / interval) as usize][3] += idle_w;
            }
            now += gap;
            let busy = busy.min(length) as f64;
            let energy = static_w * busy + idle_w * (length as f64 - busy) + dynamic_pj as f64;
            for ps in now..now + length {
                let sums = &mut naive[(ps / interval) as usize];
                let each = [f64::from(waiting), f64::from(running), kv_bytes as f64, energy / length as f64];
                sums.iter_mut().zip(each).for_each(|(sum, one)| *sum += one);
            }
            now += length;
            let last = &mut naive[((now - 1) / interval) as usize];
            last[4] += f64::from(tokens);
            last[5] += 1.0;
        }
        let rows = rows(&series);
        prop_assert_eq!(rows.len(), naive.len());
        for (index, (row, sums)) in rows.iter().zip(&naive).enumerate() {
            let ps = interval.min(end - index as u64 * interval) as f64;
            prop_assert!(close(row[1] * 1e12, ps));
            for (shown, sum) in row[2..6].iter().zip(&sums[..4]) {
                prop_assert!((shown - sum / ps).abs() <= 1e-9 * (1.0 + shown.abs()), "{row:?} {sums:?}");
            }
            prop_assert_eq!([row[6], row[7]], [sums[4], sums[5]]);
        }
    }
}

/// The longest run with the shortest interval: it coarsens and neither panics nor fills the memory.
#[test]
fn the_ends_of_time_fit() {
    let setup = Lab::new("smollm2-135m", "nvidia-h100-sxm", 1).setup;
    for (most, asked) in [(2, 1), (2, u64::MAX), (1000, 1), (1000, u64::MAX / 2)] {
        let mut series = Series::new(&setup, SimTime::from_ps(asked), most);
        feed(&mut series, &[(0, 5, 5, 0, 1, 1, 1, 1), (u64::MAX - 15, 10, 5, 0, 1, 1, 1, 1)]);
        let rows = rows(&series);
        assert!(rows.len() as u64 <= most);
        assert_eq!(rows.iter().map(|row| row[6]).sum::<f64>(), 2.0);
    }
}

#[test]
fn the_program_writes_a_series_and_refuses_what_cannot_be() {
    let folder = folder();
    let path = small(folder.path(), "t", "(name: \"a, b\", routes: Method(Dense))");
    let path = path.to_str().unwrap();
    let file = folder.path().join("series.csv");
    let file = file.to_str().unwrap();
    let out = radialsim(&["simulate", path, "--series", file, "--interval", "0.01", "--seeds", "2"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(parsed(&std::fs::read(file).unwrap())["a, b"].len() > 3);
    std::fs::remove_file(file).unwrap();

    let refused = |arguments: &[&str]| {
        let out = radialsim(&[&["simulate", path], arguments].concat());
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        text(&out.stderr)
    };
    for seconds in ["0", "-1", "nan", "inf", "1e-13", "1e9"] {
        let message = refused(&["--series", file, &format!("--interval={seconds}")]);
        assert!(
            message.contains("--interval: found") && message.contains("expected seconds from"),
            "{message}"
        );
    }
    let message = refused(&["--series", file, "--json", file]);
    assert!(
        message.contains("--series: expected a file of its own, which is not that of --json"),
        "{message}"
    );
    refused(&["--interval", "1"]);
    assert_eq!(names_in(folder.path()), ["small.ron"]);
}
