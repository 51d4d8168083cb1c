//! The screen that `simulate` prints: its size, and whether its sentences say what the numbers say.

use crate::cli::{EXAMPLE, SKIPS, folder, radialsim, small, text};
use radialsim::report::answer::Answer;
use radialsim::report::brief::{Brief, LINES, WIDTH};
use radialsim::scenario::{LayerChoice, Outcome, Scenario, run};
use radialsim::sim::Silent;
use std::path::Path;

fn outcome(path: &Path, settings: &[&str]) -> Outcome {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    run(&Scenario::load(path, &settings).unwrap(), 1, &(), |_, _| Silent).unwrap().0
}

fn of_variants(variants: &str) -> Outcome {
    let folder = folder();
    outcome(&small(folder.path(), "t", variants), &[])
}

#[track_caller]
fn fits(screen: &str) {
    assert!(screen.lines().count() <= LINES, "{} lines:\n{screen}", screen.lines().count());
    assert!(screen.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{screen}");
}

/// Whatever is compared: one row, a few, a hundred with long names.
#[test]
fn the_answer_is_one_screen() {
    fits(&Brief::of(&outcome(Path::new(EXAMPLE), &[])).text());
    let dense = "(name: \"dense\", routes: Method(Dense))";
    fits(&Brief::of(&of_variants(dense)).text());
    let long = "a name that is much longer than any column of any table should ever be ";
    let many: Vec<String> = (0..100)
        .map(|row| format!("(name: \"row {row} {}\", routes: {SKIPS})", long.repeat(row % 3)))
        .collect();
    let outcome = of_variants(&format!("{dense}, {}", many.join(", ")));
    let screen = Brief::of(&outcome).text();
    fits(&screen);
    let best = Answer::of(&outcome).best.unwrap();
    assert!(screen.lines().any(|line| line.starts_with("dense ")), "the first row is there");
    assert!(screen.contains(&outcome.variants[best].name[..5]) && screen.contains("more rows"), "{screen}");
}

/// The first sentence names the fastest routed row with what it saves; the second the static row of the nearest depth.
#[test]
fn sentences_say_what_the_numbers_say() {
    let outcome = outcome(Path::new(EXAMPLE), &[]);
    let answer = Answer::of(&outcome);
    let pass = |row: usize| outcome.variants[row].first().ledger.pass_ps as f64;
    let routed = |row: &usize| outcome.variants[*row].choice == LayerChoice::ByToken;
    let rows = 0..outcome.variants.len();
    let best = rows.clone().filter(routed).min_by(|&a, &b| pass(a).total_cmp(&pass(b))).unwrap();
    assert_eq!(answer.best, Some(best));
    let percent = |share: f64| format!("{:.1} %", 100.0 * share.abs());
    let first = &answer.sentences[0];
    let share = 1.0 - pass(best) / pass(0);
    assert!(
        share > 0.0 && first.starts_with("Routing may pay: "),
        "the example's error is not known: {first}"
    );
    assert!(
        first.contains(&format!("\"{}\" takes {} less", outcome.variants[best].name, percent(share))),
        "{first}"
    );
    let fixed = rows.clone().find(|row| outcome.variants[*row].choice == LayerChoice::Static).unwrap();
    let of_static = 1.0 - pass(fixed) / pass(0);
    let second = &answer.sentences[1];
    assert!(second.starts_with("It does not beat static depth: ") && of_static > share, "{second}");
    assert!(second.contains(&format!("takes {} less", percent(of_static))), "{second}");
    assert!(second.contains(&format!("{:.1} points more", 100.0 * (of_static - share))), "{second}");
    assert!(answer.sentences[2].starts_with("Less work would save "), "{:?}", answer.sentences);
}

/// The words follow the sign: a routed row that takes longer does not pay, and one that beats static depth is said to.
#[test]
fn the_words_follow_the_sign() {
    let answer = |variants: &str| Answer::of(&of_variants(variants)).sentences;
    let slow = answer(&format!(
        "(name: \"dense\", routes: Method(Dense)), (name: \"hops\", routes: {SKIPS}, policy: hop)"
    ));
    assert!(
        slow[0].contains("not pay: \"hops\" takes ") && slow[0].contains(" % more pass time"),
        "{slow:?}"
    );
    assert!(slow[1].starts_with("No row beside it has static depth"), "{slow:?}");
    // A router that leaves out nearly everything beats the removal of one layer.
    let skips = "Method(IndependentSkips(skip: 0.9, branches: Jointly, kv: none))";
    let fast = answer(&format!(
        "(name: \"dense\", routes: Method(Dense)), (name: \"deep\", routes: Method(StaticDepth(keep: DropLast(depth: 29)))), \
         (name: \"routed\", routes: {skips}, policy: aligned)"
    ));
    assert!(fast[0].contains("pay: \"routed\" takes ") && fast[0].contains(" % less pass time"), "{fast:?}");
    assert!(
        fast[1].starts_with("It beats static depth: \"deep\", of a mean depth of 29.0 beside "),
        "{fast:?}"
    );
    let none = answer("(name: \"dense\", routes: Method(Dense)), (name: \"again\", routes: Method(Dense))");
    assert!(none[0].starts_with("No other row is routed: "), "{none:?}");
}

/// Rows on other devices are not what routing saves, where there are rows on as many.
#[test]
fn devices_are_not_routes() {
    let rows = |more: &str| {
        format!(
            "(name: \"dense\", routes: Method(Dense)), {more} (name: \"three\", routes: {SKIPS}, parallel: (tensor: 3))"
        )
    };
    let alone = Answer::of(&of_variants(&rows("")));
    assert!(
        alone.sentences[0].starts_with("The fastest other row also has other devices"),
        "{:?}",
        alone.sentences
    );
    let beside = Answer::of(&of_variants(&rows(&format!("(name: \"one\", routes: {SKIPS}),"))));
    assert_eq!(beside.best, Some(1));
}

#[test]
fn who_chooses_is_told_from_the_routes() {
    for (routes, choice) in [
        ("Method(Dense)", LayerChoice::Dense),
        ("Method(StaticDepth(keep: DropLast(depth: 20)))", LayerChoice::Static),
        ("Method(StaticWidth(keep: 0.5))", LayerChoice::Static),
        ("Method(EarlyExit(exits: Fixed(30), kv: copy_state))", LayerChoice::Dense),
        ("Method(EarlyExit(exits: Fixed(20), kv: copy_state, dense_prefill: true))", LayerChoice::Static),
        ("Method(EarlyExit(exits: Each([(20, 0.5), (30, 0.5)]), kv: copy_state))", LayerChoice::ByToken),
        (
            "Method(Recursion(prefix: 4, suffix: 4, times: Fixed(2), kv: Own)), policy: hop",
            LayerChoice::Static,
        ),
        (SKIPS, LayerChoice::ByToken),
        (
            "Method(Radial(transitions: Uniform, start: Uniform, hops: Fixed(20))), policy: hop",
            LayerChoice::ByToken,
        ),
        ("Method(Dense), sparsity: two_four", LayerChoice::Static),
    ] {
        let outcome = of_variants(&format!("(name: \"one\", routes: {routes})"));
        assert_eq!(outcome.variants[0].choice, choice, "{routes}");
    }
}

/// The constants that move a saving most: on a device that waits for memory, its bandwidth or what is lost in starting kernels; and what is said is what
/// a run with the constant moved saves.
#[test]
fn what_matters_is_what_moves_the_saving() {
    let folder = folder();
    let variants = format!("(name: \"dense\", routes: Method(Dense)), (name: \"skips\", routes: {SKIPS})");
    let path = small(folder.path(), "t", &variants);
    let out = radialsim(&["simulate", path.to_str().unwrap(), "--matters", "--quiet"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    let line = said
        .lines()
        .skip_while(|line| !line.starts_with("What moves the saving of \"skips\""))
        .find(|line| line.starts_with("  "));
    let line = line.unwrap_or_else(|| panic!("{said}")).trim();
    let (key, rest) = line.split_once(" (").unwrap();
    let number = |text: &str| text.trim().trim_end_matches(" % saved").parse::<f64>().unwrap();
    let (_, rest) = rest.split_once("): ").unwrap();
    let mut parts = rest.split(", ");
    let down = number(parts.next().unwrap());
    let now = number(parts.next().unwrap().strip_prefix("not ").unwrap());
    let up = number(parts.next().unwrap().strip_prefix("or ").unwrap());
    assert!((up - down).abs() > 0.05, "{line}");
    let saved = |settings: &[&str]| {
        let outcome = outcome(&path, settings);
        let pass = |row: usize| outcome.variants[row].first().ledger.pass_ps as f64;
        100.0 * (1.0 - pass(1) / pass(0))
    };
    assert!((saved(&[]) - now).abs() < 0.06, "{line}");
    let hardware = radialsim::hw::Hardware::resolve(&Scenario::load(&path, &[]).unwrap().hardware).unwrap();
    let numbers = hardware.numbers();
    let value = numbers.iter().find(|(known, _)| known == key).unwrap().1.value;
    let set = format!("hardware.{key}={}", value * 1.1);
    assert!((saved(&[&set]) - up).abs() < 0.06, "{line}: {}", saved(&[&set]));
}

/// The pass time that several engines share is no saving against one: the column is empty, and the answer says what to compare.
#[test]
fn other_numbers_of_engines_save_nothing() {
    let outcome = of_variants(&format!(
        "(name: \"one\", routes: Method(Dense)), (name: \"two\", routes: {SKIPS}, parallel: (replicas: 2))"
    ));
    let answer = Answer::of(&outcome);
    assert_eq!(answer.best, None);
    assert!(answer.sentences[0].starts_with("No other row has as many engines as \"one\""), "{answer:?}");
    let screen = Brief::of(&outcome).text();
    let row = screen.lines().find(|line| line.starts_with("two ")).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[cells.len() - 2..], ["-", "-"], "{screen}");
    fits(&screen);
}
