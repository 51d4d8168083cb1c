//! The pages of `docs/` are a book: all of them are in it, their links lead to headings, and the commands that they show are commands of the program. `scripts/book` builds it.

use super::tidy_rules::*;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn pages() -> Vec<File> {
    let mut files = tree();
    files.retain(|file| file.path.ends_with(".md") && !file.path.starts_with("tests/"));
    assert!(files.iter().any(|file| file.path == "docs/SUMMARY.md"), "the table of contents");
    files
}

fn page(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Lines outside of fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The anchor that GitHub and mdbook give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Anchors of a page. Of equal headings the second gets `-1`, and so on.
fn anchors(file: &File) -> BTreeSet<String> {
    let mut count = BTreeMap::new();
    let headings = prose(&file.text).filter_map(|(_, line)| line.strip_prefix('#'));
    let named = headings.map(|rest| {
        let name = anchor(rest.trim_start_matches('#').trim());
        let seen = count.entry(name.clone()).or_insert(0);
        *seen += 1;
        if *seen == 1 { name } else { format!("{name}-{}", *seen - 1) }
    });
    named.collect()
}

/// Links to headings that are not there. Links to files are `tidy.rs: links_lead_somewhere`.
fn dead_anchors(files: &[File]) -> Vec<String> {
    let known: BTreeMap<&str, BTreeSet<String>> =
        files.iter().map(|file| (file.path.as_str(), anchors(file))).collect();
    let mut dead = Vec::new();
    for file in files {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in prose(&file.text) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for (target, name) in targets.filter_map(|target| target.split_once('#')) {
                if target.contains("://") {
                    continue;
                }
                let path = match target.strip_prefix("../") {
                    _ if target.is_empty() => file.path.clone(),
                    Some(above) => above.into(),
                    None if folder.is_empty() => target.into(),
                    None => format!("{folder}/{target}"),
                };
                if known.get(path.as_str()).is_some_and(|anchors| !anchors.contains(name)) {
                    dead.push(format!("{}:{number}: {path} has no heading #{name}", file.path));
                }
            }
        }
    }
    dead
}

/// Pages that the table of contents lacks, has twice, or has although they are not there.
fn not_in_the_book(files: &[File]) -> Vec<String> {
    let contents = files.iter().find(|file| file.path == "docs/SUMMARY.md").map_or(Vec::new(), links);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("docs/") && file.path != "docs/SUMMARY.md") {
        let times = contents.iter().filter(|&path| *path == file.path).count();
        if times != 1 {
            wrong.push(format!("{}: {times} times in docs/SUMMARY.md, expected once", file.path));
        }
    }
    wrong
}

/// Pages that are too long, and lines of prose that are: at most 600 lines of 160 characters. Tables, headings and code are not wrapped.
fn too_long(file: &File) -> Vec<String> {
    let count = file.text.lines().count();
    let page = (count > 600).then(|| format!("{}: {count} lines, at most 600", file.path));
    if file.path == "docs/ARCHITECTURE.md" {
        return page.into_iter().collect();
    }
    let lines = prose(&file.text).filter(|(_, line)| {
        let table = line.trim_start().starts_with('|');
        !table && !line.starts_with('#') && !line.starts_with("    ") && line.chars().count() > 160
    });
    page.into_iter()
        .chain(
            lines
                .map(|(number, line)| format!("{}:{number}: {} characters", file.path, line.chars().count())),
        )
        .collect()
}

/// Commands of the program in fenced shell blocks: subcommands, then options.
fn commands(file: &File) -> Vec<(Vec<String>, Vec<String>)> {
    let mut found = Vec::new();
    for block in file.text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let joined = block.replace("\\\n", " ");
        for line in joined.lines() {
            let line = line.split(" #").next().unwrap_or("");
            let words = if let Some(at) = line.find("radialsim ") {
                // A word of a path or a file is no command.
                let before = line[..at].chars().next_back();
                if before.is_some_and(|c| !c.is_whitespace() && c != '/') {
                    continue;
                }
                &line[at + "radialsim ".len()..]
            } else if let Some((_, rest)) =
                line.split_once("cargo run ").and_then(|(_, rest)| rest.split_once(" -- "))
            {
                rest
            } else {
                continue;
            };
            let words: Vec<&str> =
                words.split_whitespace().take_while(|word| !matches!(*word, "|" | ">" | "&&")).collect();
            let two = matches!(words.first(), Some(&("trace" | "inspect" | "validate" | "train")));
            let commands: Vec<String> =
                words.iter().take(if two { 2 } else { 1 }).map(|&word| word.into()).collect();
            let options =
                words.iter().filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty());
            let options = options.map(|word| format!("--{}", word.split('=').next().unwrap_or(word)));
            found.push((commands, options.collect()));
        }
    }
    found
}

#[test]
fn every_page_is_in_the_book() {
    none(not_in_the_book(&pages()));
    let sample =
        [page("docs/SUMMARY.md", "- [a](A.md)\n- [a](A.md)"), page("docs/A.md", ""), page("docs/B.md", "")];
    assert_eq!(not_in_the_book(&sample).len(), 2, "one twice, one not at all");
}

#[test]
fn links_lead_to_headings() {
    none(dead_anchors(&pages()));
    let sample = [
        page(
            "docs/A.md",
            "# What `it` says, twice\n## B\n## B\n[a](#b-1) [b](#what-it-says-twice) [c](#gone) [d](../R.md#x)",
        ),
        page("R.md", "# X\n[a](docs/A.md#b) [b](docs/A.md#c)"),
    ];
    assert_eq!(dead_anchors(&sample).len(), 2, "{:?}", dead_anchors(&sample));
}

#[test]
fn pages_and_lines_are_short() {
    none(pages().iter().filter(|file| file.path != "CHANGELOG.md").flat_map(too_long).collect());
    let long = "a".repeat(161);
    assert_eq!(too_long(&page("docs/A.md", &format!("{long}\n| {long}\n```\n{long}\n```\n"))).len(), 1);
    assert_eq!(too_long(&page("docs/A.md", &"a\n".repeat(601))).len(), 1);
}

/// Each command that a page shows has its options in the help of the program. `train` is there with the feature `train` alone.
#[test]
fn commands_of_the_pages_are_commands_of_the_program() {
    let mut help: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in pages() {
        for (commands, options) in commands(&file) {
            let absent = |name: &str, on: bool| commands.first().is_some_and(|word| word == name) && !on;
            if absent("train", cfg!(feature = "train")) || absent("execute", cfg!(feature = "gpu")) {
                continue;
            }
            if absent("calibrate", cfg!(feature = "gpu"))
                || commands.get(1).is_some_and(|word| word == "runs")
            {
                continue;
            }
            let text = help.entry(commands.clone()).or_insert_with(|| {
                let out =
                    Command::new(env!("CARGO_BIN_EXE_radialsim")).args(&commands).arg("--help").output();
                let out = out.expect("the program runs");
                if out.status.success() {
                    String::from_utf8(out.stdout).expect("UTF-8")
                } else {
                    String::new()
                }
            });
            if text.is_empty() {
                wrong.push(format!("{}: no command {commands:?}", file.path));
            }
            let unknown = options.iter().filter(|option| !text.contains(option.as_str()));
            wrong.extend(unknown.map(|option| format!("{}: {commands:?} has no {option}", file.path)));
            seen += 1;
        }
    }
    none(wrong);
    assert!(seen > 50, "{seen} commands were looked at");
    let sample = page(
        "A.md",
        "```sh\nradialsim trace place T --devices=4 \\\n  --gone 2 # --not\n```\nradialsim lost --x\n",
    );
    let found = commands(&sample);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].0.join(" "), found[0].1.join(" ")),
        ("trace place".into(), "--devices --gone".into())
    );
}
