//! Studies that are interrupted, split, starved of disk and misunderstood: the same bytes in the end, or one clear line.

use crate::cli::{folder, names_in, text};
use crate::sweep_support::{
    FEW, JOURNAL, assert_none_partial, assert_same, cases, changed, lines, only_line, program, refused,
    sorted, strike, sweep,
};
use radialsim::rng::Stream;
use radialsim::study::{self, Shard, Study};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn killed_at_random_moments_and_resumed_gives_the_same_bytes() {
    const KILLS: u32 = 20;
    let folder = folder();
    let study = changed(folder.path(), &[], &[]);
    let [alone, out] = ["alone", "out"].map(|name| folder.path().join(name));
    sweep(&study, &alone, &[]);
    let all = cases(&alone);
    assert_eq!(BTreeSet::from_iter(&all).len(), all.len(), "a case is computed twice");
    assert!(all.len() > 60, "the search asks for no more");

    let bytes = alone.join(JOURNAL).metadata().unwrap().len() as f64;
    let mut random = Stream::new(1, "kills");
    let (mut known, mut amid) = (Vec::new(), 0);
    fs::create_dir(&out).unwrap();
    for kill in 0..KILLS {
        // The first ones by how far the journal is, from nothing at all; the last ones somewhere behind its end.
        let size = bytes * (f64::from(kill) + random.uniform()) / f64::from(KILLS - 4);
        let before = names_in(&out).len();
        let is_time = || {
            let journal = out.join(JOURNAL).metadata().map_or(0, |file| file.len());
            journal as f64 >= size || (size > bytes && names_in(&out).len() > before)
        };
        let wait = Duration::from_secs_f64(random.uniform() * if size > bytes { 0.05 } else { 0.005 });
        let mut command = Command::new(env!("CARGO_BIN_EXE_radialsim"));
        let child =
            command.arg("sweep").arg(&study).arg("--out").arg(&out).args(["--quiet", "--jobs", "2"]).spawn();
        let is_killed = strike(child.unwrap(), || {
            is_time() && {
                std::thread::sleep(wait);
                true
            }
        });
        let now = cases(&out);
        assert!(now.starts_with(&known), "kill {kill} took a whole line");
        assert_none_partial(&out, &alone);
        amid += u32::from(is_killed && (1..all.len()).contains(&now.len()));
        known = now;
    }
    assert!(amid >= KILLS / 4, "{amid} kills hit a sweep at work");
    sweep(&study, &out, &[]);
    assert_same(&alone, &out);
    assert_eq!(sorted(cases(&out)), sorted(all), "each case once");
}

/// Sweeps within this process: how many cases are computed, and the table.
fn swept(study: &Path, out: &Path) -> (u64, Vec<u8>) {
    let study = Study::load(study).unwrap();
    let done = study::sweep(&study, out, Shard::WHOLE, 2, &()).unwrap();
    let table = out.join("points.csv");
    study::csv::points(&study::merge(&study, &[out.to_owned()]).unwrap(), &table).unwrap();
    (done.computed, fs::read(table).unwrap())
}

#[test]
fn a_torn_line_is_cut_off() {
    let folder = folder();
    let study = changed(folder.path(), FEW, &[]);
    let out = folder.path().join("out");
    let (all, table) = swept(&study, &out);
    let journal = out.join(JOURNAL);
    let lines = lines(&journal);
    assert_eq!(lines.len() as u64, all + 1);
    let whole = lines.concat();
    let [head, last] = [lines[0].len(), whole.len() - lines[all as usize].len()];

    let mut torn: Vec<Vec<u8>> = Vec::new();
    let mut random = Stream::new(2, "cuts");
    let anywhere = (0..12).map(|_| random.below(whole.len() as u64) as usize);
    let edges = [0, 1, head / 2, head - 1, head, head + 1, last - 1, last, last + 1, whole.len() - 1];
    torn.extend(edges.into_iter().chain(anywhere).map(|cut| whole[..cut].to_vec()));
    // What a disk may leave behind the last or within a later line.
    let zeros = [0; 5000];
    let half = &lines[1][..lines[1].len() / 2];
    for tail in [b"\n", &zeros[..], b"\0\n", b"garbage", b"garbage\n", b"{}\n", b"\xff\xfe\n", half] {
        torn.extend([last, whole.len() - 9].map(|cut| [&whole[..cut], tail].concat()));
    }
    // A hole: what follows was written, what is before it not.
    torn.push([&whole[..last - 9], &zeros[..9], &whole[last..]].concat());
    let hole = head + lines[1].len() / 2;
    torn.push([&whole[..hole], &zeros[..9], &whole[hole + 9..]].concat());

    for (number, bytes) in torn.into_iter().enumerate() {
        let kept = whole.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        let kept = whole[..kept].iter().filter(|byte| **byte == b'\n').count() as u64;
        fs::write(&journal, bytes).unwrap();
        let (computed, same) = swept(&study, &out);
        assert_eq!(computed, all + 1 - kept.max(1), "{number}: what was lost, and nothing else");
        assert!(same == table, "{number}");
        assert_eq!(crate::sweep_support::lines(&journal).concat(), fs::read(&journal).unwrap());
        assert_eq!(cases(&out).len() as u64, all, "{number}");
    }
}

#[test]
fn shards_give_the_same_bytes_however_it_is_split() {
    let folder = folder();
    let study = changed(folder.path(), &[], &[]);
    let at = |name: String| folder.path().join(name);
    let merged = |parts: &[PathBuf], out: &Path| {
        let paths = parts.iter().map(|path| path.to_str().unwrap());
        let words: Vec<&str> = ["merge", study.to_str().unwrap(), "--out", out.to_str().unwrap()]
            .into_iter()
            .chain(paths)
            .collect();
        assert_eq!(program(&words), (Some(0), String::new()));
    };
    let alone = at("alone".into());
    sweep(&study, &alone, &["--jobs", "1"]);
    let all = sorted(cases(&alone));
    sweep(&study, &at("four".into()), &["--jobs", "4"]);
    assert_same(&alone, &at("four".into()));

    for count in [1, 3, 7] {
        let one = at(format!("one-{count}"));
        let several: Vec<PathBuf> = (1..=count).map(|index| at(format!("part-{index}-of-{count}"))).collect();
        for (index, part) in (1..).zip(&several) {
            let shard = format!("{index}/{count}");
            sweep(&study, &one, &["--shard", &shard]);
            sweep(&study, part, &["--shard", &shard, "--jobs", "3"]);
            assert!(count == 1 || !part.join("points.csv").exists());
        }
        let together: Vec<String> = several.iter().flat_map(|part| cases(part)).collect();
        assert_eq!(sorted(together), all, "each case in one shard of {count}");
        for (parts, name) in [(&several[..], "joined"), (std::slice::from_ref(&one), "gathered")] {
            let out = at(format!("{name}-{count}"));
            merged(parts, &out);
            assert_same(&alone, &out);
        }
    }
}

#[test]
#[cfg(unix)]
fn a_full_disk_loses_nothing() {
    let folder = folder();
    let study = changed(folder.path(), &[], &[]);
    let [alone, out] = ["alone", "out"].map(|name| folder.path().join(name));
    sweep(&study, &alone, &[]);
    let size = |name: &str| alone.join(name).metadata().unwrap().len();
    // Files may have so many blocks of 512 bytes; more is an error to the program, as it is on a full disk.
    let limited = |blocks: u64| {
        let script = format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$@""#);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_radialsim"), "sweep"]);
        let out = command.arg(&study).arg("--out").arg(&out).arg("--quiet").stdin(Stdio::null()).output();
        let out = out.unwrap();
        only_line(out.status.code(), &text(&out.stderr))
    };
    let too_large = "cannot write: File too large (os error 27)";

    let said = limited(size(JOURNAL) / 512 / 2);
    assert_eq!(said, format!("{}: {too_large}", out.join(JOURNAL).display()));
    let kept = cases(&out);
    assert!((1..cases(&alone).len()).contains(&kept.len()), "{} cases", kept.len());
    assert_eq!(names_in(&out), [JOURNAL]);
    assert_eq!(fs::read(out.join(JOURNAL)).unwrap(), lines(&out.join(JOURNAL)).concat());

    // The journal is complete, but a table does not fit, and then the report.
    fs::copy(alone.join(JOURNAL), out.join(JOURNAL)).unwrap();
    let table = fs::canonicalize(&out).unwrap().join("points.csv");
    let said = limited(size("points.csv") / 512 / 2);
    assert!(said.starts_with(&format!("{}: {too_large}", table.display())), "{said}");
    let left = names_in(&out);
    assert!(!left.iter().any(|name| name == "points.csv" || name.ends_with(".part")), "{left:?}");
    assert!(size("report.html") > size("points.csv") + 2048);
    let said = limited(size("report.html") / 512 - 1);
    assert!(said.contains(&format!("report.html: {too_large}")), "{said}");
    assert!(!out.join("report.html").exists());
    assert_none_partial(&out, &alone);

    sweep(&study, &out, &[]);
    assert_same(&alone, &out);
}

#[test]
fn two_sweeps_of_one_folder_do_not_meet() {
    let folder = folder();
    let study = changed(folder.path(), FEW, &[]);
    let out = folder.path().join("out");
    sweep(&study, &out, &[]);
    let journal = out.join(JOURNAL);
    let before = fs::read(&journal).unwrap();
    let other = File::options().append(true).open(&journal).unwrap();
    other.lock().unwrap();
    let expected = "expected a folder in which no other sweep of this shard is at work";
    assert_eq!(refused(&study, &out), format!("{}: {expected}", journal.display()));
    assert_eq!(fs::read(&journal).unwrap(), before);
    // Another shard may be at work beside it.
    sweep(&study, &out, &["--shard", "2/2"]);
    drop(other);
    sweep(&study, &out, &[]);
}

#[test]
fn a_journal_of_another_study_is_refused() {
    let folder = folder();
    let study = changed(folder.path(), FEW, &[]);
    let out = folder.path().join("out");
    sweep(&study, &out, &[]);
    let journal = out.join(JOURNAL);
    let before = fs::read(&journal).unwrap();
    let another_objective = [FEW, &[("tpot_s.p50", "tpot_s.p90")]].concat();
    for (in_study, in_scenario) in [(&another_objective[..], &[][..]), (FEW, &[("seed: 3", "seed: 4")])] {
        changed(folder.path(), in_study, in_scenario);
        let path = out.to_str().unwrap();
        let (code, said) = program(&["merge", study.to_str().unwrap(), path, "--out", path]);
        for said in [refused(&study, &out), only_line(code, &said)] {
            assert!(said.starts_with(&format!("{}: found one ", journal.display())), "{said}");
            assert!(
                said.contains(" of the study t, expected a journal of this study as it is now"),
                "{said}"
            );
        }
        assert!(fs::read(&journal).unwrap() == before);
    }
}

/// What no row depends on may change: what is known stays.
#[test]
fn a_study_with_another_question_goes_on() {
    let folder = folder();
    let study = changed(folder.path(), FEW, &[]);
    let out = folder.path().join("out");
    sweep(&study, &out, &[]);
    let journal = fs::read(out.join(JOURNAL)).unwrap();
    changed(folder.path(), &[FEW, &[("\"q\"", "\"another question\"")]].concat(), &[]);
    sweep(&study, &out, &[]);
    assert!(fs::read(out.join(JOURNAL)).unwrap() == journal);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("another question"));
}

#[test]
fn a_wider_study_uses_what_is_known() {
    let folder = folder();
    let [out, fresh] = ["out", "fresh"].map(|name| folder.path().join(name));
    sweep(&changed(folder.path(), FEW, &[]), &out, &[]);
    let known = cases(&out);
    let wider = [&FEW[..2], &FEW[3..], &[("\"q\"", "\"r\"")]].concat();
    let study = changed(folder.path(), &wider, &[]);
    sweep(&study, &out, &[]);
    sweep(&study, &fresh, &[]);
    assert_same(&out, &fresh);
    assert!(cases(&out).starts_with(&known) && cases(&out).len() > known.len());
    assert_eq!(sorted(cases(&out)), sorted(cases(&fresh)));
}

#[test]
fn a_trace_that_changed_meanwhile_is_refused() {
    let folder = folder();
    let recorded = ("Method(Dense)", "Recorded");
    let trace = ("workload: (", "workload: (trace: \"trace.jsonl\", ");
    let study = changed(folder.path(), FEW, &[recorded, trace]);
    let out = folder.path().join("out");
    let copy = |name: &str| {
        fs::copy(format!("examples/traces/{name}.jsonl"), folder.path().join("trace.jsonl")).unwrap();
    };
    copy("smollm2-skip25");
    sweep(&study, &out, &[]);
    let whole = lines(&out.join(JOURNAL));
    let report = fs::read(out.join("report.html")).unwrap();

    copy("smollm2-dense");
    // Whether points are missing or only the closer look of the report reads the trace again.
    for left in [whole.len() - 1, whole.len()] {
        fs::write(out.join(JOURNAL), whole[..left].concat()).unwrap();
        let said = refused(&study, &out);
        let named = said.contains("trace.jsonl: found digest ") && said.contains("with digest ");
        assert!(named, "{left} of {} lines: {said}", whole.len());
        assert_eq!(lines(&out.join(JOURNAL)), whole[..left]);
        assert!(fs::read(out.join("report.html")).unwrap() == report);
    }
    copy("smollm2-skip25");
    sweep(&study, &out, &[]);
    assert!(fs::read(out.join("report.html")).unwrap() == report);
}

#[test]
fn a_point_that_fails_is_a_row_with_its_error() {
    let folder = folder();
    // Weights of 0.27 GB beside the 0.65 of the process: neither variant fits, then the one that keeps 4 of 30 layers, then both.
    let axes = r#"axes: [Values(key: "hardware.memory.capacity_gb", values: [0.7, 0.9, 80])],"#;
    let study = folder.path().join("study.ron");
    changed(
        folder.path(),
        &[],
        &[("Method(Dense))", "Method(Dense), tiers: (link: pcie4, resident: 4, policy: lru))")],
    );
    let text = format!(
        r#"(title: "t", question: "q", scenario: "scenario.ron", {axes} objectives: [Least("tpot_s.p50")])"#
    );
    fs::write(&study, text).unwrap();
    let out = folder.path().join("out");
    sweep(&study, &out, &[]);
    let mut table = csv::Reader::from_path(out.join("points.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let place = |name: &str| header.iter().position(|column| column == name).unwrap();
    let names = ["hardware.memory.capacity_gb", "variant", "failure", "tpot_s.p50", "feasible"].map(place);
    let rows = table.records().map(|row| {
        let row = row.unwrap();
        let [capacity, variant, failure, tpot, feasible] = names.map(|place| row[place].to_owned());
        let failed = !failure.is_empty();
        assert!(!failed || failure.contains("GB") || failure.contains("byte"), "{failure}");
        assert_eq!(failed, tpot.is_empty(), "{capacity} {variant}");
        assert_eq!(feasible, (!failed).to_string());
        (capacity, variant, failed)
    });
    let expected = [
        ("0.7", "dense", true),
        ("0.7", "skips", true),
        ("0.9", "dense", false),
        ("0.9", "skips", true),
        ("80", "dense", false),
        ("80", "skips", false),
    ];
    let expected = expected.map(|(capacity, variant, failed)| (capacity.into(), variant.into(), failed));
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}

#[test]
fn merge_says_what_is_missing() {
    let folder = folder();
    let study = changed(folder.path(), &[], &[]);
    let [part, empty, out] = ["part", "empty", "out"].map(|name| folder.path().join(name));
    let merge = |from: &Path| {
        let words =
            ["merge", study.to_str().unwrap(), from.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let (code, said) = program(&words);
        only_line(code, &said)
    };
    let missing = |count: u32| {
        format!(
            "found {count} or more missing, expected all points of the study; run `radialsim sweep` for the \
             shards that are not complete"
        )
    };
    sweep(&study, &part, &["--shard", "2/3"]);
    assert_eq!(merge(&part), missing(40));
    sweep(&study, &part, &["--shard", "1/3"]);
    sweep(&study, &part, &["--shard", "3/3"]);
    // The points of the axes are there, one that the search asks for is not.
    let journal = part.join("shard-1-of-3.jsonl");
    let mut kept = lines(&journal);
    kept.pop();
    fs::write(&journal, kept.concat()).unwrap();
    assert_eq!(merge(&part), missing(1));

    fs::create_dir(&empty).unwrap();
    let expected = "expected a folder that `radialsim sweep` wrote, with files shard-*.jsonl";
    assert_eq!(merge(&empty), format!("{}: {expected}", empty.display()));
    let nowhere = folder.path().join("nowhere");
    let absent = "cannot read: No such file or directory (os error 2)";
    assert_eq!(merge(&nowhere), format!("{}: {absent}", nowhere.display()));
    assert!(!out.exists());
}

/// A file that is broken makes the rows of those points failures, the rest goes on, and a later run tries them again.
#[test]
fn a_broken_file_is_a_row_and_is_tried_again() {
    let folder = folder();
    let study = changed(
        folder.path(),
        &[
            ("[1, 2, 4]", "[1]"),
            ("count: 10", "count: 2"),
            ("[true, false]", "[true]"),
            ("seeds: 2,", ""),
            ("axes: [", "axes: [Values(key: \"model\", values: [\"smollm2-135m\", \"config.json\"]),"),
        ],
        &[],
    );
    let text = fs::read_to_string(&study).unwrap();
    let search = text.find("    searches").unwrap();
    fs::write(&study, format!("{})\n", &text[..search])).unwrap();
    let [out, fresh] = ["out", "fresh"].map(|name| folder.path().join(name));
    let model = folder.path().join("config.json");
    let failures = || {
        let mut table = csv::Reader::from_path(out.join("points.csv")).unwrap();
        let place = table.headers().unwrap().iter().position(|column| column == "failure").unwrap();
        table.records().map(|row| row.unwrap()[place].to_owned()).collect::<Vec<_>>()
    };
    fs::write(&model, "{").unwrap();
    sweep(&study, &out, &[]);
    let said = failures();
    assert_eq!(said.len(), 8);
    for (place, said) in said.iter().enumerate() {
        assert_eq!(said.contains("config.json"), place >= 4, "{place}: {said}");
    }
    // As often as it is tried, it costs one line of a point and no more.
    sweep(&study, &out, &[]);
    assert_eq!(failures(), said);
    assert_eq!(cases(&out).len(), 6);

    let small = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64,
        "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 256, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "max_position_embeddings": 512, "torch_dtype": "bfloat16"}"#;
    fs::write(&model, small).unwrap();
    sweep(&study, &out, &[]);
    assert!(failures().iter().all(String::is_empty), "{:?}", failures());
    sweep(&study, &fresh, &[]);
    for name in ["points.csv", "report.html"] {
        assert!(fs::read(out.join(name)).unwrap() == fs::read(fresh.join(name)).unwrap(), "{name}");
    }
    let journal = fs::read(out.join(JOURNAL)).unwrap();
    sweep(&study, &out, &[]);
    assert!(fs::read(out.join(JOURNAL)).unwrap() == journal, "and nothing is computed again");
}

/// A value in another unit is remarked beside the rows that have it.
#[test]
fn a_point_in_another_unit_has_a_remark() {
    let folder = folder();
    let changes: &[(&str, &str)] = &[
        (
            "LogRange(name: \"bandwidth\", key: \"hardware.memory.dram_gb_per_s\", from: 10, to: 5000, count: 10)",
            "Values(name: \"bandwidth\", key: \"hardware.memory.dram_gb_per_s\", values: [3.35, 335, 3350])",
        ),
        ("[1, 2, 4]", "[1]"),
        ("[true, false]", "[true]"),
        ("dense\", of", "dense\", tolerance: 10.0, of"),
    ];
    let study = changed(folder.path(), changes, &[]);
    let out = folder.path().join("out");
    let (code, said) = program(&["sweep", study.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(
        code == Some(0) && said.contains("have a `remark`") && said.contains("3.35 TB/s was meant"),
        "{said}"
    );
    let mut table = csv::Reader::from_path(out.join("points.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let [at, remark] =
        ["bandwidth", "remark"].map(|name| header.iter().position(|column| column == name).unwrap());
    for row in table.records().map(|row| row.unwrap()) {
        assert_eq!(row[remark].contains("3.35 TB/s was meant, write 3350"), &row[at] == "3.35", "{row:?}");
    }
}

/// A device whose error nobody measured never looks surer than one with a fitted error: it is hatched, named, and marked in tables.
#[test]
fn an_unknown_error_is_shown() {
    let folder = folder();
    let study = changed(
        folder.path(),
        &[
            ("[1, 2, 4]", "[1]"),
            ("to: 5000, count: 10", "to: 2000, count: 3"),
            ("[true, false]", "[true]"),
            ("seeds: 2,", ""),
            (
                "axes: [",
                "axes: [Values(key: \"hardware\", values: [\"nvidia-h100-sxm\", \"nvidia-h100-pcie\"]),",
            ),
        ],
        &[],
    );
    let text = fs::read_to_string(&study).unwrap();
    let search = text.find("    searches").unwrap();
    fs::write(&study, format!("{})\n", &text[..search])).unwrap();
    let out = folder.path().join("out");
    sweep(&study, &out, &["--svg"]);
    let mut table = csv::Reader::from_path(out.join("points.csv")).unwrap();
    let header = table.headers().unwrap().clone();
    let place =
        |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}"));
    let [hardware, variant, known, model] =
        ["hardware", "variant", "error_known.tpot_s.p50", "interval.tpot_s.p50.model"].map(place);
    let mut fitted = 0;
    for row in table.records().map(|row| row.unwrap()) {
        assert_eq!(row[known] == *"true", !row[model].is_empty(), "{row:?}");
        assert!(row[hardware] == *"nvidia-h100-sxm" || row[known] == *"false", "{row:?}");
        // A host router takes most of the time of the other variant, and has no fitted error.
        fitted += usize::from(
            row[hardware] == *"nvidia-h100-sxm" && row[variant] == *"dense" && row[known] == *"true",
        );
    }
    assert!(fitted > 0);
    let svg = fs::read_to_string(out.join("plot-01.svg")).unwrap();
    assert!(
        svg.contains("error not known") && svg.contains("Hatched: the error is not known"),
        "legend and remark"
    );
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("±\u{a0}?") && page.contains("error not known"));
}
