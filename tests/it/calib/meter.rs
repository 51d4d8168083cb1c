//! Measured serving runs: which network a row means, what a fit learns from them and refuses, what it leaves alone.

use crate::cli::{folder, radialsim, text};
use radialsim::cost::{Device, Limits};
use radialsim::hw::{Hardware, Sampler, Source, Sourced};
use radialsim::kernel::Kernel;
use radialsim::meter::{ComparedRun, StackConstants, fit, left_out, points, read, shape_of, wrong};
use radialsim::units::Dtype;
use std::fmt::Write as _;
use std::path::Path;

fn h100() -> Hardware {
    Hardware::resolve("nvidia-h100-sxm").expect("a shipped profile")
}

const HEADER: &str = "model_id,task,gpu_model,num_gpus,architecture,weight_precision,total_params_billions,avg_batch_size,\
                      avg_output_len,median_itl_ms,energy_per_token_joules,avg_power_watts";

/// What a software stack is made of here: nothing that a shipped profile says.
const TRUTH: StackConstants = StackConstants {
    step_s: 700e-6,
    ps_per_logit: 300.0,
    idle_w: 70.0,
    static_w: 150.0,
    pj_per_byte: 120.0,
    pj_per_flop: 0.6,
    pj_per_logit: 120_000.0,
};

/// A row with these measurements.
fn row(model: &str, batch: f64, measured: [f64; 3]) -> String {
    let [itl_ms, joules, watts] = measured;
    format!("{model},lm-arena-chat,H100,1,Dense Transformer,bfloat16,,{batch},40.0,{itl_ms},{joules},{watts}")
}

fn points_of(table: &str, hw: &Hardware) -> (radialsim::meter::RunTable, Vec<ComparedRun>) {
    let folder = folder();
    let path = folder.path().join("runs.csv");
    std::fs::write(&path, table).expect("written");
    let mut table = read(&path, hw).expect("a table");
    let points = points(hw, &mut table).expect("rows that run");
    (table, points)
}

/// The device with the constants of that stack.
fn truth(hw: &Hardware) -> Hardware {
    let sourced = |value| Sourced { value, source: Source::Assumed("a test".into()) };
    let mut hw = hw.clone();
    hw.launch.step_us = sourced(TRUTH.step_s * 1e6);
    let (ps_per_logit, pj_per_logit) = (sourced(TRUTH.ps_per_logit), sourced(TRUTH.pj_per_logit));
    hw.sampler = Some(Sampler { ps_per_logit, pj_per_logit, error: None });
    hw.power.static_w = sourced(TRUTH.static_w);
    hw.power.pj_per_byte = sourced(TRUTH.pj_per_byte);
    hw.power.pj_per_flop = sourced(TRUTH.pj_per_flop);
    hw
}

/// Twenty short runs of five models on a device of those constants.
fn table(hw: &Hardware) -> String {
    let models = [
        "Qwen/Qwen3-0.6B",
        "Qwen/Qwen3-4B",
        "meta-llama/Llama-3.2-1B-Instruct",
        "google/gemma-3-1b-it",
        "meta-llama/Llama-3.1-8B",
    ];
    let runs = models.into_iter().flat_map(|model| [1.0, 8.0, 40.0, 160.0].map(|batch| (model, batch)));
    let runs: Vec<(&str, f64)> = runs.collect();
    let lines = |measured: &dyn Fn(usize) -> [f64; 3]| {
        let mut text = format!("{HEADER}\n");
        for (index, (model, batch)) in runs.iter().enumerate() {
            writeln!(text, "{}", row(model, *batch, measured(index))).expect("a string");
        }
        text
    };
    let (_, points) = points_of(&lines(&|_| [1.0; 3]), &truth(hw));
    lines(&|index| {
        let said = TRUTH.predict(&points[index].parts);
        [said.itl_s * 1e3, said.joules, said.watts]
    })
}

#[test]
fn names_mean_networks() {
    let known = [
        ("Qwen/Qwen3-VL-8B-Instruct", "qwen3-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("google/gemma-3-12b-it", "gemma-3-12b"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-12b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b"),
        ("meta-llama/Llama-3.1-405B-Instruct-FP8", "llama-3.1-405b"),
    ];
    for (id, name) in known {
        let shape = shape_of(id, None, Dtype::Bf16).expect(id);
        assert_eq!((shape.model.name.as_str(), shape.stands_in), (name, false), "{id}");
    }
    let fp8 = shape_of("meta-llama/Llama-3.1-8B-Instruct-FP8", Some(8.0), Dtype::Fp8).expect("a model").model;
    assert_eq!((fp8.weights, fp8.activations), (Dtype::Fp8, Dtype::Bf16));
    // A size that its name contradicts, and a name that nobody knows, get shapes of that size.
    for (id, billions) in [("Qwen/Qwen3-8B", 12.0), ("somebody/Something-10B", 10.0), ("x", 3.0)] {
        let shape = shape_of(id, Some(billions), Dtype::Bf16).expect(id);
        assert!(shape.stands_in, "{id}");
        shape.model.check().expect("a network");
        let size = shape.model.total_params() as f64 / 1e9;
        assert!((size / billions - 1.0).abs() < 0.02, "{id}: {size} for {billions}");
    }
    assert_eq!(shape_of("somebody/Something", None, Dtype::Bf16), None);
}

#[test]
fn a_sampler_costs_for_each_logit() {
    let mut hw = h100();
    hw.sampler = None;
    let kernel = Kernel::Sample { rows: 7, vocabulary: 1000, activations: Dtype::Bf16 };
    let price =
        |hw: &Hardware, kernel: &Kernel| Device::new(hw, Limits::default()).expect("no limits").price(kernel);
    let without = price(&hw, &kernel);
    let sourced = |value| Sourced { value, source: Source::Assumed("a test".into()) };
    hw.sampler = Some(Sampler { ps_per_logit: sourced(300.0), pj_per_logit: sourced(5.0), error: None });
    let with = price(&hw, &kernel);
    assert_eq!(with.time.ps() - without.time.ps(), 300 * 7 * 1000);
    assert_eq!(with.dynamic_pj - without.dynamic_pj, 5 * 7 * 1000);
    let other = Kernel::ResidualAdd { rows: 7, width: 1000, activations: Dtype::Bf16 };
    assert_eq!(price(&hw, &other), price(&Hardware { sampler: None, ..hw.clone() }, &other));
    let read = Hardware::parse(&hw.text(), "a file").expect("what was written");
    assert_eq!(read, hw);
}

/// What made the times is found again, whatever the profile said before, and models left out are predicted.
#[test]
fn a_fit_finds_the_constants_that_made_the_runs() {
    let mut hw = h100();
    let text = table(&hw);
    hw.power.static_w.value = 300.0;
    hw.launch.step_us.value = 3.0;
    let (table, mut points) = points_of(&text, &hw);
    let errors = fit(&mut hw, &table, &mut points).expect("a fit");
    assert!(errors.itl.mean < 0.5 && errors.joules.mean < 1.0, "{errors:?}");
    let found = StackConstants::of(&hw);
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.05;
    assert!(near(found.step_s, TRUTH.step_s) && near(found.ps_per_logit, TRUTH.ps_per_logit), "{found:?}");
    assert!(
        near(found.pj_per_byte, TRUTH.pj_per_byte) && near(found.pj_per_logit, TRUTH.pj_per_logit),
        "{found:?}"
    );
    hw.check().expect("a sound profile");
    let metered = hw.power.metered.as_ref().expect("evidence");
    assert_eq!((metered.rows, metered.models), (20, 5));
    assert!((metered.joules_error - errors.joules.mean).abs() < 1e-3);
    // Nobody is predicted by constants that were fitted to him: with one model alone there is nothing to fit to.
    let one: Vec<ComparedRun> =
        points.iter().filter(|point| point.row.id.contains("0.6B")).cloned().collect();
    assert_eq!(left_out(&one, &hw), None);
}

#[test]
fn shuffled_measurements_are_refused() {
    let mut hw = h100();
    let (table, mut points) = points_of(&table(&hw), &hw);
    let rows: Vec<_> = points.iter().map(|point| point.row.clone()).collect();
    for (index, point) in points.iter_mut().enumerate() {
        let other = &rows[(index * 7 + 3) % rows.len()];
        point.row.itl_s = other.itl_s;
        point.row.joules = other.joules;
    }
    let before = hw.clone();
    let error = fit(&mut hw, &table, &mut points).expect_err("noise").to_string();
    assert!(error.contains("of its logarithm explained"), "{error}");
    assert_eq!(hw, before);
}

/// A fitted profile that is read and written is the same file, so that a fit on top of it leaves the rest alone.
#[test]
fn fitted_profiles_are_written_as_they_were_read() {
    let path = "hw-profiles/nvidia-h100-sxm.fitted.ron";
    let hw = Hardware::load(path).expect("a profile");
    assert_eq!(hw.text().as_bytes(), std::fs::read(path).expect("a file"));
}

#[test]
fn the_program_fits_validates_and_fails_gates() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let hw = h100();
    std::fs::write(place("runs.csv"), table(&hw)).expect("written");
    std::fs::write(place("base.ron"), hw.text()).expect("written");
    let out = radialsim(&[
        "fit",
        "--hw",
        &place("base.ron"),
        "--energy",
        &place("runs.csv"),
        "--out",
        &place("new.ron"),
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));

    // All else in the file is as it was: with these few numbers put back, it is the old file.
    let [base, mut new] = ["base.ron", "new.ron"].map(|name| Hardware::load(place(name)).expect("a profile"));
    assert_ne!(base.power, new.power);
    new.power = base.power.clone();
    new.launch.step_us = base.launch.step_us.clone();
    new.sampler = base.sampler.clone();
    assert_eq!(new.text().as_bytes(), std::fs::read(place("base.ron")).expect("a file"));

    let validate = |hw: &str, gate: &str| {
        radialsim(&["validate", "energy", "--hw", hw, "--gate", gate, &place("runs.csv")])
    };
    let good = validate(&place("new.ron"), "3");
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(text(&good.stdout).contains("which was fitted to this table"), "{}", text(&good.stdout));
    assert_eq!(validate(&place("new.ron"), "0.0001").status.code(), Some(1));
    assert_eq!(validate(&place("new.ron"), "-1").status.code(), Some(2));

    // One constant off by a fifth.
    for key in ["pj_per_byte", "ps_per_logit", "dram_gb_per_s"] {
        let mut wrong = Hardware::load(place("new.ron")).expect("a profile");
        match key {
            "pj_per_byte" => wrong.power.pj_per_byte.value *= 1.2,
            "ps_per_logit" => wrong.sampler.as_mut().expect("fitted").ps_per_logit.value *= 1.2,
            _ => wrong.memory.dram_gb_per_s.value *= 0.8,
        }
        std::fs::write(place("wrong.ron"), wrong.text()).expect("written");
        let out = validate(&place("wrong.ron"), "3");
        assert_eq!(out.status.code(), Some(1), "{key}: {}{}", text(&out.stdout), text(&out.stderr));
        assert!(text(&out.stderr).contains("gate not met"), "{}", text(&out.stderr));
    }
}

#[test]
fn bad_tables_are_refused_by_line_and_key() {
    let hw = h100();
    let folder = folder();
    let said = |table: &str| {
        let path = folder.path().join("bad.csv");
        std::fs::write(&path, table).expect("written");
        read(Path::new(&path), &hw).expect_err("a bad table").to_string()
    };
    let good = row("Qwen/Qwen3-8B", 8.0, [9.0, 0.5, 400.0]);
    for (table, words) in [
        (String::new(), "bad.csv:1: model_id: found none, expected the columns"),
        ("a,b\n1,2\n".into(), "bad.csv:1: model_id: found none"),
        (format!("{HEADER}\n{good},1\n"), "bad.csv:2: expected a CSV file whose rows have as many cells"),
        (
            format!("{HEADER}\n{}\n", good.replace(",400", ",-400")),
            "bad.csv:2: avg_power_watts: found \"-400\", expected",
        ),
        (format!("{HEADER}\n{}\n", good.replace(",9,", ",NaN,")), "bad.csv:2: median_itl_ms: found \"NaN\""),
        (
            format!("{HEADER}\n{}\n", good.replace(",8,", ",1e8,")),
            "bad.csv:2: avg_batch_size: found 100000000",
        ),
        (
            format!("{HEADER}\n{}\n", good.replace("H100", "B200")),
            "found 1 rows: on B200, expected rows of known models",
        ),
        (format!("{HEADER}\n{}\n", good.replace(",1,Dense", ",0,Dense")), "bad.csv:2: num_gpus: found \"0\""),
    ] {
        let error = said(&table);
        assert!(error.contains(words), "{error}\nshould say {words}");
    }
}

/// The shipped profile on real runs: chats of at most 128 sequences, which are a minute's work less than all.
#[test]
fn the_shipped_profile_predicts_real_runs() {
    let Some(path) = crate::data("energy/mlenergy_dense.csv") else { return };
    let whole = std::fs::read_to_string(path).expect("a table");
    let short = |line: &&str| {
        line.contains("median_itl_ms") || (line.contains(",H100,") && line.ends_with(",lm-arena-chat"))
    };
    let text: Vec<&str> = whole.lines().filter(short).collect();
    let hw = h100();
    let (_, points) = points_of(&(text.join("\n") + "\n"), &hw);
    let constants = StackConstants::of(&hw);
    for several in [false, true] {
        let of = points.iter().filter(|point| (point.row.devices > 1) == several);
        let pairs: Vec<_> = of.map(|point| (point, constants.predict(&point.parts))).collect();
        let errors = wrong(&pairs).expect("rows");
        eprintln!(
            "{} chats: time between tokens {:.1} %, joules a token {:.1} %",
            pairs.len(),
            errors.itl.mean,
            errors.joules.mean
        );
        let most = if several { (14.0, 14.0) } else { (8.0, 9.0) };
        assert!(errors.itl.mean < most.0 && errors.joules.mean < most.1, "{errors:?}");
    }
}

/// A fit leaves out what ran on several devices; a prediction splits the model over them, and counts the energy of all.
#[test]
fn rows_on_several_devices_are_predicted_and_not_fitted() {
    let hw = h100();
    let one = row("Qwen/Qwen3-32B", 8.0, [9.0, 0.5, 400.0]);
    let four = one.replace(",1,Dense", ",4,Dense");
    let (mut table, points) = points_of(&format!("{HEADER}\n{one}\n{four}\n"), &hw);
    let said: Vec<_> = points.iter().map(|point| StackConstants::of(&hw).predict(&point.parts)).collect();
    assert_eq!(points.iter().map(|point| point.row.devices).collect::<Vec<_>>(), [1, 4]);
    assert!(said[1].itl_s < said[0].itl_s && said[1].itl_s > said[0].itl_s / 4.0, "{said:?}");
    assert!(said[1].watts > 2.0 * said[0].watts && said[1].joules > said[0].joules, "{said:?}");
    table.rows = points.into_iter().map(|point| point.row).collect();
    table.on_one_device();
    assert_eq!(table.rows.len(), 1);
    assert!(
        table
            .skipped
            .keys()
            .any(|reason| reason.contains("on 4 GPUs, and constants are fitted to one device"))
    );
}
