//! `radialsim train` from the outside: words, networks from nothing, and what is refused.

use crate::cli::{folder, names_in, radialsim, text};
use radialsim::weights::{AnyRouter, Checkpoint};
use std::path::Path;

/// A text of a few words in changing order.
fn write_text(path: &Path, seed: usize) {
    let words = ["the", "sea", "was", "calm", "and", "a", "white", "bird", "flew", "over", "it", "again"];
    let text: Vec<&str> = (0..4000).map(|at| words[(at * at / 3 + at * seed) % words.len()]).collect();
    std::fs::write(path, text.chunks(12).map(|line| line.join(" ") + ".\n").collect::<String>())
        .expect("written");
}

/// Texts become words, words and texts a network, and the network's folder is read like any other.
#[test]
fn words_and_networks_are_made() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write_text(Path::new(&path("a.txt")), 1);
    write_text(Path::new(&path("b.txt")), 2);
    let ran = |arguments: &[&str]| {
        let ran = radialsim(arguments);
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        text(&ran.stdout)
    };
    ran(&["train", "words", "--text", &path("a.txt"), "--words", "280", "--out", &path("words")]);
    let scratch = |name: &str, more: &[&str]| {
        let (out, csv) = (path(name), path(&format!("{name}.csv")));
        let (curve, picture) = (path(&format!("{name}-curve.csv")), path(&format!("{name}.svg")));
        let (a, b, words) = (path("a.txt"), path("b.txt"), path("words"));
        let mut arguments = vec!["train", "scratch", "--text", &a, "--held-out", &b, "--words", &words];
        arguments.extend(["--out", &out, "--csv", &csv, "--curve", &curve, &picture, "--quiet"]);
        arguments.extend(["--width", "16", "--heads", "2", "--feed-forward", "24", "--router-width", "8"]);
        arguments.extend(["--length", "16", "--rows", "4", "--steps", "30", "--every", "10"]);
        arguments.extend(more);
        let said = ran(&arguments);
        assert!(said.contains("held out") && said.contains("dead layers"), "{said}");
        let rows = std::fs::read_to_string(&curve).expect("a curve");
        assert_eq!(rows.lines().count(), 31);
        let picture = std::fs::read_to_string(&picture).expect("a picture");
        assert!(picture.contains("<svg") && picture.contains("trained on"));
        said
    };
    scratch("plain", &["--routes", "in-order", "--layers", "2", "--hops", "2"]);
    assert!(Checkpoint::open(path("plain")).expect("a model").model().layers == 2);
    scratch("routed", &["--routes", "router", "--layers", "4", "--hops", "2"]);
    let router =
        AnyRouter::read(Path::new(&path("routed/router.safetensors"))).expect("read").expect("a router");
    assert!(matches!(router, AnyRouter::Radial(router) if router.layers == 4 && router.described.hops == 2));
    scratch("depths", &["--routes", "depths", "--layers", "2", "--hops", "2"]);
    let router =
        AnyRouter::read(Path::new(&path("depths/router.safetensors"))).expect("read").expect("a router");
    assert!(
        matches!(router, AnyRouter::Skip(router) if router.described.candidates == [[false; 2], [true; 2]])
    );
    // The same again is the same network, and nothing but what was asked for is left.
    scratch("again", &["--routes", "router", "--layers", "4", "--hops", "2"]);
    for file in ["model.safetensors", "tokenizer.json"] {
        let bytes = |name: &str| std::fs::read(Path::new(&path(name)).join(file)).expect("a file");
        assert!(bytes("routed") == bytes("again"), "{file}");
    }
    let left = names_in(folder.path());
    assert!(left.iter().all(|name| !name.contains("checkpoint") && !name.starts_with('.')), "{left:?}");
}

/// What means nothing is refused before anything is computed, and leaves nothing.
#[test]
fn what_means_nothing_is_refused() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write_text(Path::new(&path("a.txt")), 1);
    let said =
        radialsim(&["train", "words", "--text", &path("a.txt"), "--words", "280", "--out", &path("words")]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    for (more, expected) in [
        (&["--out", "words"][..], "--out: found"),
        (
            &["--heads", "3"],
            "--heads: found 3, expected a number of heads that cuts the width into multiples of 4",
        ),
        (&["--rate", "0"], "--rate: found 0, expected a learning rate above 0, at most 1"),
        (&["--routes", "staged-hash", "--layers", "4", "--hops", "6"], "--layers: found 4"),
        (&["--routes", "depths", "--layers", "4", "--hops", "2"], "--hops: found 2"),
        (&["--least-hops", "2", "--depth", "9"], "--depth: found 9, expected 1 to the number of hops"),
        (&["--curve", "curve.txt"], "--curve: found curve.txt, expected files that end in .csv or .svg"),
        (&["--noise", "101"], "--noise: found 101, expected 0 to 100"),
    ] {
        let (a, words, out) = (path("a.txt"), path("words"), path("network"));
        let mut arguments = vec!["train", "scratch", "--text", &a, "--held-out", &a, "--words", &words];
        let taken = words.clone();
        if more[0] == "--out" {
            arguments.extend(["--out", &taken]);
        } else {
            arguments.extend(["--out", &out]);
            arguments.extend(more);
        }
        let ran = radialsim(&arguments);
        assert_eq!(ran.status.code(), Some(2), "{more:?}: {}", text(&ran.stdout));
        assert!(text(&ran.stderr).contains(expected), "{more:?}: {}", text(&ran.stderr));
    }
    assert_eq!(names_in(folder.path()), ["a.txt", "words"]);
}

/// Options of one way to train are refused with another, before anything is read.
#[test]
fn options_of_another_way_are_refused() {
    for (more, expected) in [
        (&["--beam", "2"][..], "--beam: expected this option together with --labels search"),
        (
            &["--labels", "search", "--draws", "3"],
            "--draws: expected this option together with --gradient policy",
        ),
        (&["--discount", "0.5"], "--discount: expected this option together with --gradient policy"),
    ] {
        let mut arguments =
            vec!["train", "skip", "--weights", "no", "--text", "no", "--out", "no", "--depth", "1"];
        arguments.extend(more);
        let ran = radialsim(&arguments);
        assert_eq!(ran.status.code(), Some(2), "{more:?}: {}", text(&ran.stdout));
        assert!(text(&ran.stderr).contains(expected), "{more:?}: {}", text(&ran.stderr));
    }
    let tune = ["train", "tune", "--weights", "no", "--text", "no", "--out", "no", "--left-out", "1"];
    let ran = radialsim(&[&tune[..], &["--full", "--rank", "4"]].concat());
    assert_eq!(ran.status.code(), Some(2), "{}", text(&ran.stderr));
}
