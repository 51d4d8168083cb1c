//! Quality against cost: the front against its definition, families between their members, what is refused, and what is not known.

use crate::cli::{folder, names_in, radialsim, text};
use crate::sweep_support::{JOURNAL, only_line};
use radialsim::metrics::Verdict;
use radialsim::rng::Stream;
use radialsim::study::{self, Beyond, Frontier, Measure, Objective, PeerFinding, Shard, Study, front};
use std::path::{Path, PathBuf};

const SCENARIO: &str = r#"(
    title: "t",
    model: "llama-3.1-8b",
    hardware: "nvidia-h100-sxm",
    workload: (requests: (count: 3, lengths: (prompt: Fixed(24), output: Fixed(6)), arrivals: Closed)),
    serving: (max_batched_tokens: 512, max_sequences: 2, chunked_prefill: true),
    dispatch: (policy: aligned),
    fidelity: step,
    seed: 3,
    variants: [
        (name: "dense", routes: Method(Dense)),
        (name: "27", routes: Method(StaticDepth(keep: DropMiddle(depth: 27)))),
        (name: "24", routes: Method(StaticDepth(keep: DropMiddle(depth: 24)))),
        (name: "skips", routes: Method(IndependentSkips(skip: 0.3, branches: Separately, kv: project_only))),
    ],
)
"#;

const STUDY: &str = r#"(
    title: "t",
    question: "q",
    scenario: "scenario.ron",
    axes: [
        Values(name: "device", key: "hardware", values: ["nvidia-h100-sxm", "nvidia-rtx-4090"]),
        Values(name: "batch", key: "serving.max_sequences", values: [1, 2]),
    ],
    objectives: [Least("tpot_s.p50"), Most("output_tokens_per_s"), Least("memory_bytes.total_peak")],
    quality: [
        (variant: "dense", file: "q.csv", row: "whole"),
        (variant: "27", file: "q.csv"),
        (variant: "24", file: "q.csv"),
        (variant: "skips", file: "q.csv"),
    ],
    families: [(name: "static depth", variants: ["24", "dense", "27"])],
)
"#;

/// Perplexities 16, 20 and 40; the network lies between the last two.
const TABLE: &str = "network,depth,perplexity,perplexity_low,perplexity_high,kl,kl_low,kl_high
whole,30,16,15.2,16.8,0,0,0
27,27,20,19,21,0.2,0.19,0.21
24,24,40,38,42,0.8,0.78,0.82
skips,21,25,23.75,26.25,0.3,0.29,0.31
";

fn written(folder: &Path, changes: &[(&str, &str)]) -> PathBuf {
    for (name, text) in [("scenario.ron", SCENARIO), ("study.ron", STUDY), ("q.csv", TABLE)] {
        let text = changes.iter().fold(text.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
        std::fs::write(folder.join(name), text).unwrap();
    }
    for (from, _) in changes {
        assert!([SCENARIO, STUDY, TABLE].iter().any(|text| text.contains(from)), "nothing has {from}");
    }
    folder.join("study.ron")
}

/// What a frontier is asked for.
fn asked<T>(changes: &[(&str, &str)], measure: Measure, of: impl FnOnce(&Frontier) -> T) -> T {
    let folder = folder();
    let study = Study::load(&written(folder.path(), changes)).unwrap();
    let out = folder.path().join("out");
    study::sweep(&study, &out, Shard::WHOLE, 2, &()).unwrap();
    let assembly = study::merge(&study, &[out]).unwrap();
    of(&Frontier::new(&assembly, measure).unwrap())
}

/// A point is on the front where no other is at least as good in both and better in one.
#[test]
fn the_front_is_what_no_other_beats() {
    let random = &mut Stream::new(11, "points");
    let mut beaten = 0;
    for round in 0..400 {
        let count = random.below(40) as usize;
        // Few values, so that many are equal in one or both.
        let mut value = || (random.below(if round % 2 == 0 { 6 } else { 1000 })) as f64;
        let points: Vec<(f64, f64)> = (0..count).map(|_| (value(), value())).collect();
        for [x, y] in [[false, false], [false, true], [true, false], [true, true]] {
            let objective = |most: bool| match most {
                true => Objective::Most("m".into()),
                false => Objective::Least("m".into()),
            };
            let (x, y) = (objective(x), objective(y));
            let found = front(&points, &x, &y);
            let beats = |a: &(f64, f64), b: &(f64, f64)| {
                let as_good = !x.prefers(b.0, a.0) && !y.prefers(b.1, a.1);
                as_good && (x.prefers(a.0, b.0) || y.prefers(a.1, b.1))
            };
            for point in &points {
                let is_beaten = points.iter().any(|other| beats(other, point));
                assert_eq!(found.contains(point), !is_beaten, "{point:?} of {points:?}");
                beaten += usize::from(is_beaten);
            }
            assert!(found.iter().all(|point| points.contains(point)));
        }
    }
    assert!(beaten > 1000, "the definition had something to say");
}

/// Between two members the cost of a family is even in the logarithm of perplexity, and in the divergence as it is.
#[test]
fn a_family_costs_what_lies_between_its_members() {
    for (measure, share) in [
        (Measure::Perplexity, (40f64 / 25.0).ln() / (40f64 / 20.0).ln()),
        (Measure::Kl, (0.8 - 0.3) / (0.8 - 0.2)),
    ] {
        asked(&[], measure, |frontier| {
            assert_eq!(frontier.settings.len(), 4);
            for setting in &frontier.settings {
                assert_eq!(setting.comparisons.len(), 3, "one network, one family, three objectives");
                for comparison in &setting.comparisons {
                    assert_eq!(comparison.variant, 3);
                    let cost =
                        |variant: usize| setting.spots[variant].costs[comparison.objective].unwrap().value;
                    // Of equal memory, 24 is beaten by nobody who is better: it costs less.
                    let peer = cost(2) + (cost(1) - cost(2)) * share;
                    let better =
                        if comparison.objective == 1 { cost(3) / peer - 1.0 } else { 1.0 - cost(3) / peer };
                    let PeerFinding::Gain { percent, shared, verdict, .. } = comparison.found else {
                        panic!()
                    };
                    assert!((percent - 100.0 * better).abs() < 1e-9, "{percent} against {better}");
                    if comparison.objective < 2 {
                        assert!(shared.unwrap() > 0.0 && verdict != Verdict::Unknown, "{comparison:?}");
                    }
                }
            }
        });
    }
}

/// At the quality of a member a family costs what the member does, and its gain is the gain over it.
#[test]
fn at_a_member_a_family_is_the_member() {
    let changes = [("skips,21,25,23.75,26.25", "skips,21,20,19,21")];
    asked(&changes, Measure::Perplexity, |frontier| {
        for setting in &frontier.settings {
            let cost = |variant: usize| setting.spots[variant].costs[0].unwrap().value;
            let PeerFinding::Gain { percent, .. } = setting.comparisons[0].found else { panic!() };
            assert!((percent - 100.0 * (1.0 - cost(3) / cost(1))).abs() < 1e-9);
        }
    });
}

/// Beyond its members a family says nothing.
#[test]
fn nothing_is_extrapolated() {
    for (row, beyond, words) in [
        ("skips,21,41,40,42,0.9", Beyond::Worse, "is worse than every member of static depth"),
        ("skips,21,15,14,16,0.0", Beyond::Better, "is better than every member of static depth"),
    ] {
        let changes = [("skips,21,25,23.75,26.25,0.3", row), ("0.29,0.31", "0,1")];
        asked(&changes, Measure::Perplexity, |frontier| {
            let all = frontier.settings.iter().flat_map(|setting| &setting.comparisons);
            assert!(all.clone().all(|comparison| comparison.found == PeerFinding::Beyond(beyond)), "{row}");
            assert!(frontier.answer().iter().all(|line| line.contains(words)), "{:?}", frontier.answer());
            assert_eq!(frontier.answer().len(), 2, "a sentence for each device");
        });
    }
}

/// A quality whose interval nobody knows, or a device whose errors nobody knows, makes no difference sure.
#[test]
fn an_unknown_error_is_not_sure() {
    let devices = "\"nvidia-h100-sxm\", \"nvidia-rtx-4090\"";
    for change in [("skips,21,25,23.75,26.25", "skips,21,25,,"), (devices, "\"amd-mi300x\", \"amd-mi210\"")] {
        let changes = [change];
        asked(&changes, Measure::Perplexity, |frontier| {
            for comparison in frontier.settings.iter().flat_map(|setting| &setting.comparisons) {
                let PeerFinding::Gain { verdict, .. } = comparison.found else { panic!() };
                // How much memory is taken is known on every device.
                let exact = comparison.objective == 2 && change.0 == devices;
                assert_eq!(verdict == Verdict::Unknown, !exact, "{comparison:?}");
            }
            assert!(frontier.answer().iter().all(|line| line.contains("(errors not known).")));
            let report = frontier.report("c");
            assert!(report.page.html().contains("error not known"));
        });
    }
}

/// An interval of the quality moves the family's cost: the gain's error is the move where it is larger than all else.
#[test]
fn the_interval_of_a_quality_is_part_of_the_error() {
    let shared = |changes: &[(&str, &str)]| {
        asked(changes, Measure::Kl, |frontier| {
            let PeerFinding::Gain { shared, opposed, .. } = frontier.settings[0].comparisons[0].found else {
                panic!()
            };
            (shared.unwrap(), opposed.unwrap())
        })
    };
    let exact = [
        ("0.2,0.19,0.21", "0.2,0.2,0.2"),
        ("0.8,0.78,0.82", "0.8,0.8,0.8"),
        ("0.3,0.29,0.31", "0.3,0.3,0.3"),
    ];
    let wide = [exact[0], exact[1], ("0.3,0.29,0.31", "0.3,0.25,0.35")];
    let ((least, _), (more, opposed)) = (shared(&exact), shared(&wide));
    let moved = asked(&exact, Measure::Kl, |frontier| {
        let setting = &frontier.settings[0];
        let cost = |variant: usize| setting.spots[variant].costs[0].unwrap().value;
        let peer = |kl: f64| cost(2) + (cost(1) - cost(2)) * (0.8 - kl) / 0.6;
        let gain = |kl: f64| 100.0 * (1.0 - cost(3) / peer(kl));
        (gain(0.25) - gain(0.3)).abs().max((gain(0.35) - gain(0.3)).abs())
    });
    assert!((more - least - moved).abs() < 1e-9, "{more} - {least} against {moved}");
    assert!(opposed >= more);
}

#[test]
fn what_cannot_be_is_said_in_a_line() {
    let cases = [
        (
            "row: \"whole\"",
            "row: \"hole\"",
            "q.csv: network: found hole, expected one of whole; 27; 24; skips: did you mean whole?",
        ),
        (
            "(variant: \"27\", file: \"q.csv\"),",
            "",
            "study.ron:10: quality: found none of 27, expected an entry for each variant",
        ),
        (
            "(variant: \"27\", file",
            "(variant: \"26\", file",
            "study.ron:10: quality, variant: found 26, expected the name of a variant: one of dense; 27",
        ),
        (
            "(variant: \"27\", file",
            "(variant: \"24\", file",
            "study.ron:10: quality, variant: found 24, expected each name once",
        ),
        ("(variant: \"27\", file: \"q.csv\")", "(variant: \"27\", file: \"p.csv\")", "p.csv: cannot open"),
        ("27,27,20", "27,27,NaN", "q.csv:3: perplexity: found NaN, expected a finite number"),
        (
            "24,24,40",
            "27,24,40",
            "q.csv:4: network: found 27, expected a name once; it stands in line 3 already",
        ),
        (
            "[\"24\", \"dense\", \"27\"]",
            "[\"24\"]",
            "families, variants: found 1 in static depth, expected at least two",
        ),
        (
            "[\"24\", \"dense\", \"27\"]",
            "[\"24\", \"25\"]",
            "families, variants: found 25, expected the name of a variant",
        ),
        (
            "key: \"serving.max_sequences\", values: [1, 2]",
            "key: \"shape.layers\", values: [30]",
            "axes: found shape.layers, expected axes that leave the networks as they are",
        ),
        (
            "key: \"serving.max_sequences\", values: [1, 2]",
            "key: \"variants.1.routes\", values: [\"Recorded\"]",
            "axes: found variants.1.routes, expected axes that leave",
        ),
    ];
    for (from, to, said) in cases {
        let folder = folder();
        let study = written(folder.path(), &[(from, to)]);
        let out = folder.path().join("out");
        let run =
            radialsim(&["frontier", study.to_str().unwrap(), "--out", out.to_str().unwrap(), "--quiet"]);
        let line = only_line(run.status.code(), &text(&run.stderr));
        assert!(line.contains(said), "{line}\nwanted: {said}");
        assert!(!out.exists(), "{said}: nothing was begun");
    }
    // A study without qualities is one of sweep's.
    let folder = folder();
    let study = written(folder.path(), &[]);
    let plain = STUDY.split("    quality: [").next().unwrap().to_owned() + ")";
    std::fs::write(&study, plain).unwrap();
    let out = folder.path().join("out");
    let run = radialsim(&["frontier", study.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let line = only_line(run.status.code(), &text(&run.stderr));
    assert!(line.contains("study.ron: quality: found none, expected what each variant is worth"), "{line}");
}

/// The program's files: the same bytes from any number of threads and from a folder that `sweep` filled, the answer on standard output.
#[test]
fn the_same_study_gives_the_same_frontier() {
    let folder = folder();
    let study = written(folder.path(), &[]);
    let run = |out: &Path, words: &[&str]| {
        let words = [words, &[study.to_str().unwrap(), "--out", out.to_str().unwrap(), "--svg"]].concat();
        let run = radialsim(&words);
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        // The last line says where the report lies.
        text(&run.stdout).replace(&*out.to_string_lossy(), "DIR")
    };
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let said = run(&one, &["frontier", "--jobs", "1"]);
    run(&two, &["sweep", "--quiet"]);
    let journal = std::fs::read(two.join(JOURNAL)).unwrap();
    assert_eq!(run(&two, &["frontier", "--jobs", "2"]), said);
    assert!(
        journal == std::fs::read(two.join(JOURNAL)).unwrap(),
        "what sweep computed is not computed again"
    );
    assert_eq!(
        names_in(&one),
        ["frontier-01.svg", "frontier-02.svg", "frontier-03.svg", "frontier.csv", "frontier.html", JOURNAL]
    );
    for name in ["frontier.csv", "frontier.html", "frontier-01.svg"] {
        let [one, two] = [&one, &two].map(|out| std::fs::read(out.join(name)).unwrap());
        assert!(one == two, "{name}");
    }
    assert!(said.starts_with("On nvidia-h100-sxm, at perplexity 25.00 (+56.2\u{a0}%), skips is "), "{said}");
    // Sentences are broken into lines; the last one is the page.
    let sentences = said.lines().filter(|line| !line.starts_with("DIR")).collect::<Vec<_>>().join(" ");
    assert!(
        sentences.contains(" than static depth at batch 1") && sentences.contains(" at batch 2"),
        "{said}"
    );
    assert!(said.ends_with("DIR/frontier.html\n"), "{said}");
    let csv = std::fs::read_to_string(one.join("frontier.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 2 * 4);
    let html = std::fs::read_to_string(one.join("frontier.html")).unwrap();
    assert_eq!(html.matches("<figure>").count(), 3);
    // By the other quality, other sentences.
    let kl = run(&two, &["frontier", "--quality", "kl"]);
    assert!(kl.contains("at a KL divergence of 0.3000 nats"), "{kl}");
}

#[test]
fn a_divergence_that_was_not_measured_is_asked_for_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let study = written(folder.path(), &[("24,24,40,38,42,0.8,0.78,0.82", "24,24,40,38,42,,,")]);
    let out = folder.path().join("out");
    let run = |quality: &str| {
        let [study, out] = [&study, &out].map(|path| path.to_str().unwrap());
        std::process::Command::new(env!("CARGO_BIN_EXE_radialsim"))
            .args(["frontier", study, "--out", out, "--quality", quality])
            .output()
            .unwrap()
    };
    let refused = run("kl");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("24.kl") && said.contains("q.csv") && !out.exists(), "{said}");
    assert!(run("perplexity").status.success());
    let csv = std::fs::read_to_string(out.join("frontier.csv")).unwrap();
    assert!(csv.contains(",24,24,40,38,42,,,,"), "{csv}");
    assert!(std::fs::read_to_string(out.join("frontier.html")).unwrap().contains("not measured"));
}
