//! Studies that cannot be: one line with the file and the key, exit code 2, and nothing computed.

use crate::cli::folder;
use crate::sweep_support::{FEW, JOURNAL, cases, changed, refused};
use std::fs;

/// What is replaced, by what, and what is said of it behind the name of the file.
const BAD: [(&str, &str, &str); 35] = [
    // Axes.
    (
        "serving.chunked_prefill",
        "serving.chunked",
        " serving.chunked: found chunked, expected max_batched_tokens, ",
    ),
    (
        "\"chunks\"",
        "\"bandwidth\"",
        "6: axes, bandwidth: found two axes of this name, expected names that differ",
    ),
    (
        "serving.chunked_prefill",
        "serving.max_sequences",
        "6: axes, chunks: found the key serving.max_sequences in two axes",
    ),
    ("count: 5", "count: 1", "6: axes, bandwidth: found count 1, expected a count from 2 to 1000000"),
    ("count: 5", "whole: true", "6: axes, bandwidth: found no count, expected a count"),
    (
        "from: 10",
        "from: 0",
        "6: axes, bandwidth: found 0 to 5000, expected two different finite numbers above 0",
    ),
    (
        "from: 10",
        "from: 5000",
        "6: axes, bandwidth: found 5000 to 5000, expected two different finite numbers",
    ),
    ("from: 10", "from: NaN", "6: axes, bandwidth: found NaN to 5000, expected two different finite numbers"),
    ("to: 5000", "to: inf", "6: axes, bandwidth: found 10 to inf, expected two different finite numbers"),
    ("[true]", "[]", "6: axes, chunks: found 0 values, expected 1 to 1000000 values"),
    (
        "[true]",
        "[true], labels: [\"a\", \"b\"]",
        "6: axes, chunks: found 2 labels for 1 values, expected as many",
    ),
    (
        "axes: [",
        "axes: [Zip([Values(key: \"seed\", values: [1, 2]), Values(key: \"seeds\", values: [1])]), ",
        "6: axes, Zip: found [2, 1] values, expected axes of equally many values",
    ),
    (
        "axes: [",
        "axes: [Range(key: \"seed\", from: 1, to: 1000000, count: 1000000), Range(key: \"seeds\", from: 1, to: 99, count: 99), ",
        "6: axes: found more, expected axes of at most 100000000 points",
    ),
    (
        "axes: [",
        "axes: [Zip([Range(key: \"seed\", from: 1, to: 9, count: 1000000), Range(key: \"seeds\", from: 1, to: 9, count: 1000000)]), ",
        "6: axes: found 2000007, expected axes that list at most 2000000 values together",
    ),
    (
        "axes: [",
        "axes: [Sobol(count: 65537, seed: 1, over: [Range(key: \"seed\", from: 1, to: 2)]), ",
        "6: axes, Sobol: found count 65537, expected a count from 1 to 65536",
    ),
    // Searches.
    (
        "axis: \"bandwidth\"",
        "axis: \"chunks\"",
        "12: searches, axis: found chunks, expected an axis of numbers",
    ),
    (
        "axis: \"bandwidth\"",
        "axis: \"nope\"",
        "12: searches, axis: found nope, expected an axis outside zips and samples: one of serving.max_sequences, ",
    ),
    ("[\"skips\"]", "[\"nope\"]", "12: searches, variant: found nope, expected one of dense, skips"),
    (
        "against: \"dense\"",
        "against: \"nope\"",
        "12: searches, variant: found nope, expected one of dense, skips",
    ),
    (
        "tolerance: 0.3",
        "tolerance: NaN",
        "12: searches, tolerance: found NaN, expected a number from 1e-6 to 10",
    ),
    (
        "searches: [",
        "searches: [Capacity(axis: \"bandwidth\"), ",
        "12: searches, Capacity: found no constraints",
    ),
    // What is wanted, and what must hold.
    (
        "Least(\"tpot_s.p50\"), ",
        "Least(\"tpot_s.p51\"), ",
        " metric: found tpot_s.p51, expected one of requests, ",
    ),
    (
        "Least(\"tpot_s.p50\"), ",
        "Least(\"usd_per_million_output_tokens\"), ",
        " metric: found usd_per_million_output_tokens, expected a price of nvidia-h100-sxm under `prices`",
    ),
    (
        "Least(\"tpot_s.p50\"), ",
        "Most(\"goodput.attained\"), ",
        " metric: found goodput.attained, expected a bound under `slo`",
    ),
    (
        "Least(\"tpot_s.p50\"), ",
        "Fewest(\"tpot_s.p50\"), ",
        "11: objectives: found Fewest, expected one of Least, Most",
    ),
    (
        "seeds: 2,",
        "prices: [(hardware: \"x\", usd_per_hour: 1, source: \" \")],",
        "5: prices, x: found none, expected a source",
    ),
    (
        "seeds: 2,",
        "prices: [(hardware: \"x\", usd_per_hour: NaN, source: \"s\")],",
        "5: prices, x: found NaN, expected a finite price",
    ),
    (
        "seeds: 2,",
        "constraints: [AtMost(\"tpot_s.p50\", NaN)],",
        "5: constraints: found NaN, expected a finite bound",
    ),
    // The rest.
    ("seeds: 2", "seeds: 0", "5: seeds: found 0, expected 1 to 1000 seeds"),
    ("seeds: 2,", "set: {\"serving.nope\": 1},", " serving.nope: found nope, expected max_batched_tokens, "),
    ("seeds: 2,", "detail: {\"nope\": 1},", "5: detail: found nope, expected the name of an axis: one of "),
    (
        "seeds: 2,",
        "plots: [Lines(x: \"nope\", y: \"tpot_s.p50\")],",
        "5: plots, x: found nope, expected the name of an axis",
    ),
    ("title: \"t\",", "", "13: title: expected the key `title`, which is missing"),
    (
        "title: \"t\",",
        "titel: \"t\",",
        "2: titel: found an unknown key, expected one of title, question, scenario, ",
    ),
    ("title: \"t\",", "title,", "2: "),
];

#[test]
fn a_bad_study_is_refused_with_file_and_key() {
    BAD.into_iter().for_each(refuses);
}

#[test]
fn an_axis_with_the_name_of_another_column_is_refused() {
    for own in ["point", "source", "set", "variant", "failure", "feasible", "version", "digest_of.study"] {
        refuses(("\"chunks\"", &format!("{own:?}"), &format!("6: axes, name: found {own}, ")));
    }
}

#[track_caller]
fn refuses((from, to, said): (&str, &str, &str)) {
    let folder = folder();
    let study = changed(folder.path(), &[FEW, &[(from, to)]].concat(), &[]);
    let out = folder.path().join("out");
    let line = refused(&study, &out);
    assert!(line.starts_with(&format!("{}:{said}", study.display())), "{to}: {line}");
    if out.exists() {
        // Only a point shows which metrics there are.
        assert!(cases(&out).is_empty(), "{to}");
        assert_eq!(crate::cli::names_in(&out), [JOURNAL], "{to}");
    }
}

#[test]
fn what_is_no_study_is_refused_unread() {
    let folder = folder();
    let [study, out] = ["study.ron", "out"].map(|name| folder.path().join(name));
    for (bytes, said) in [
        (vec![b' '; 2 << 20], " found 2097152 bytes, expected a study of at most 1048576 bytes"),
        (b"( title: \"\xff\" )".to_vec(), "1: found other bytes, expected UTF-8 text"),
        (Vec::new(), "1: "),
        (b"[1, 2]".to_vec(), "1: "),
        (b"\x7fELF\0\0".to_vec(), "1: "),
    ] {
        fs::write(&study, bytes).unwrap();
        let line = refused(&study, &out);
        assert!(line.starts_with(&format!("{}:{said}", study.display())), "{line}");
    }
    changed(folder.path(), &[("scenario.ron", "nope.ron")], &[]);
    let nope = folder.path().join("nope.ron");
    let absent = "cannot open: No such file or directory (os error 2)";
    assert_eq!(refused(&study, &out), format!("{}: {absent}", nope.display()));
    assert!(!out.exists());
}
