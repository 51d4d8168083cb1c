//! One name, one meaning: the page of names against the code.

use crate::house::tidy_rules::{File, tree};
use std::collections::{BTreeMap, BTreeSet};

const PAGE: &str = "docs/NAMES.md";

/// Types that files of `src` declare outside of functions and unit tests: room, name, whether other rooms see it.
fn types(files: &[File]) -> Vec<(&str, &str, bool)> {
    let of_file = |file| -> Vec<(&str, &str, bool)> {
        let file: &File = file;
        let Some(room) = file.room() else { return Vec::new() };
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let of_line = |line| {
            let line: &str = line;
            let (seen, rest) = match line.strip_prefix("pub ") {
                Some(rest) => (true, rest),
                None if line.starts_with("pub(") => (false, line.split_once(") ")?.1),
                None => (false, line),
            };
            let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
            let name = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
            Some((room, name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?, seen))
        };
        code.lines().filter_map(of_line).collect()
    };
    files.iter().flat_map(of_file).collect()
}

/// Rows of the table under a heading: the cells, names without their backticks.
fn rows<'p>(page: &'p str, heading: &str) -> Vec<Vec<&'p str>> {
    let part = page.split("\n## ").find(|part| part.lines().next() == Some(heading)).unwrap_or_default();
    let row = |line: &'p str| Some(line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect());
    part.lines().filter_map(row).collect()
}

/// What is wrong with the names of these files by this page.
fn wrong(page: &str, files: &[File]) -> Vec<String> {
    let types = types(files);
    let mut wrong = Vec::new();
    let bare = |cell: &str| cell.trim_matches('`').to_owned();
    for row in rows(page, "Types") {
        let (name, room) = (bare(row[0]), bare(row[1]));
        let count = types.iter().filter(|(r, n, _)| (*r, *n) == (room.as_str(), name.as_str())).count();
        if count != 1 {
            wrong.push(format!("{name} is declared {count} times in {room}"));
        }
    }
    let mut rooms: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (room, name, _) in types.iter().filter(|(room, _, seen)| *seen && *room != "cli") {
        rooms.entry(name).or_default().insert(room);
    }
    let twice = rooms.iter().filter(|(_, rooms)| rooms.len() > 1);
    let twice: BTreeSet<(String, Vec<String>)> = twice
        .map(|(name, rooms)| ((*name).to_owned(), rooms.iter().map(|&r| r.to_owned()).collect()))
        .collect();
    let allowed = rows(page, "One name in two rooms").into_iter().map(|row| {
        let mut rooms: Vec<String> = row[1].split(", ").map(bare).collect();
        rooms.sort();
        (bare(row[0]), rooms)
    });
    let allowed: BTreeSet<_> = allowed.collect();
    for (name, rooms) in twice.symmetric_difference(&allowed) {
        let what = match rooms.len() {
            _ if allowed.contains(&(name.clone(), rooms.clone())) => "is in the list, and not so in the code",
            _ => "is declared in several rooms",
        };
        wrong.push(format!("{name} {what}: {}", rooms.join(", ")));
    }
    wrong
}

#[test]
fn names_have_one_meaning() {
    let page = std::fs::read_to_string(PAGE).expect("the page of names");
    assert!(rows(&page, "Types").len() > 50 && !rows(&page, "One name in two rooms").is_empty());
    let found = wrong(&page, &tree());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn names_that_break_the_rule_are_found() {
    let page = "# N\n\n## Types\n\n| type | room | what |\n|---|---|---|\n| `A` | `hw` | a |\n\n## One name in two rooms\n\n\
                | type | rooms | why |\n|---|---|---|\n| `T` | `sim`, `hw` | b |\n";
    let of = |files: &[(&str, &str)]| {
        let files: Vec<File> =
            files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
        wrong(page, &files)
    };
    let hw = ("src/hw/mod.rs", "pub struct A;\npub enum T {\n    A,\n}\nstruct B;");
    let sim = ("src/sim/mod.rs", "pub(crate) struct A;\npub type T = u32;\npub struct B;");
    assert!(of(&[hw, sim]).is_empty(), "what other rooms do not see may have any name");
    assert_eq!(of(&[hw, sim, ("src/hw/a.rs", "struct A;")]).len(), 1, "twice in its room");
    assert_eq!(of(&[hw, sim, ("src/cost.rs", "pub struct B<T>(T);")]).len(), 1, "in two rooms");
    assert_eq!(of(&[("src/hw/mod.rs", "pub struct A;"), sim]).len(), 1, "no longer in two rooms");
    assert_eq!(of(&[("src/hw/mod.rs", "pub struct T;"), sim]).len(), 1, "gone");
    assert!(of(&[hw, sim, ("src/cli/a.rs", "pub struct B;"), ("tests/it/a.rs", "pub struct B;")]).is_empty());
}
