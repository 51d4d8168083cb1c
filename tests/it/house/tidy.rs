//! House rules that nobody would notice broken: each is tried on the tree and on a sample that breaks it.

use crate::house::tidy_rules::*;
use radialsim::scenario::Scenario;
use std::path::Path;

fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

fn code() -> Vec<File> {
    let ours = |path: &str| {
        ["src/", "tests/", "benches/", "examples/", "shaders/"].iter().any(|f| path.starts_with(f))
    };
    let mut files = tree();
    files.retain(|file| ours(&file.path) && (file.path.ends_with(".rs") || file.path.ends_with(".wgsl")));
    files
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// How many complaints a rule has about a text at this path.
fn count(rule: impl Fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&file(path, text)).len()
}

#[test]
fn imports_go_down_only() {
    none(code().iter().flat_map(imports).collect());
    assert_eq!(count(imports, "src/cost/mod.rs", "use crate::hw::Hardware;\nuse crate::units::Dtype;"), 0);
    assert_eq!(count(imports, "src/hw/mod.rs", "use crate::cost::Device;"), 1);
    assert_eq!(
        count(imports, "src/hw/mod.rs", "    let x = crate::model::Model::default();"),
        1,
        "a neighbour"
    );
    assert_eq!(count(imports, "src/cost/tiles.rs", "use crate::{units::SimTime, sim::Machine};"), 1);
    assert_eq!(count(imports, "src/cost/tiles.rs", "use crate::cost::Device;"), 0, "its own room");
    assert_eq!(count(imports, "src/hw/mod.rs", "/// See [`crate::cost`]."), 0, "comments may point up");
    assert_eq!(count(imports, "src/attic.rs", ""), 1, "a room that is not in the table");
    assert_eq!(count(imports, "src/hw/mod.rs", "use super::sim::Machine;"), 1);
    assert_eq!(count(imports, "src/cli/mod.rs", "use radialsim::report::table;"), 0);
}

/// Every room of the library is in the table, and the table names no room that is not there.
#[test]
fn the_table_of_floors_is_the_tree() {
    let files = code();
    let lib = files.iter().find(|file| file.path == "src/lib.rs").expect("a library");
    let mut rooms: Vec<&str> =
        lib.text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    rooms.push("cli");
    let mut table = FLOORS.concat();
    table.sort_unstable();
    rooms.sort_unstable();
    assert_eq!(rooms, table);
}

/// The map shows the same floors: its rows are `| floor | `room` | job |`.
#[test]
fn the_map_of_the_house_shows_the_floors() {
    let map = std::fs::read_to_string("docs/ARCHITECTURE.md").expect("the map");
    let row = |line: &str| {
        let (floor, rest) = line.strip_prefix("| ")?.split_once(" | `")?;
        Some((floor.parse::<usize>().ok()?, rest.split_once('`')?.0.to_owned()))
    };
    let mut shown: Vec<_> = map.lines().filter_map(row).collect();
    let mut table: Vec<_> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, rooms)| rooms.iter().map(move |room| (floor, (*room).to_owned())))
        .collect();
    shown.sort_unstable();
    table.sort_unstable();
    assert_eq!(shown, table);
}

#[test]
fn only_gpu_names_wgpu() {
    none(code().iter().flat_map(gpu).collect());
    assert_eq!(count(gpu, "src/cost/mod.rs", "use wgpu::Device;"), 1);
    assert_eq!(count(gpu, "src/gpu/mod.rs", "use wgpu::Device;"), 0);
}

#[test]
fn only_the_program_prints() {
    none(code().iter().flat_map(printing).collect());
    for line in ["println!(\"x\");", "    eprint!(\"x\");", "dbg!(x);", "std::process::exit(1)"] {
        assert_eq!(
            (count(printing, "src/sim/mod.rs", line), count(printing, "src/cli/mod.rs", line)),
            (1, 0),
            "{line}"
        );
    }
}

#[test]
fn files_are_short() {
    none(code().iter().flat_map(length).collect());
    assert_eq!(
        (count(length, "src/a.rs", &"\n".repeat(600)), count(length, "src/a.rs", &"\n".repeat(601))),
        (0, 1)
    );
    assert_eq!(
        (count(length, "a.wgsl", &"\n".repeat(150)), count(length, "a.wgsl", &"\n".repeat(151))),
        (0, 1)
    );
    let main = |lines| count(length, "src/main.rs", &"\n".repeat(lines));
    assert_eq!((main(79), main(80)), (0, 1));
}

#[test]
fn nothing_is_left_for_later() {
    none(code().iter().flat_map(finished).collect());
    for line in
        [concat!("todo", "!()"), concat!("unimplemented", "!(\"x\")"), concat!("#[ign", "ore = \"slow\"]")]
    {
        assert_eq!(count(finished, "tests/it/a.rs", line), 1, "{line}");
    }
}

#[test]
fn no_path_of_a_machine() {
    none(tree().iter().flat_map(machine_paths).collect());
    let (work, root) = (concat!("/wo", "rk/main"), concat!("/ro", "ot/x"));
    assert_eq!(count(machine_paths, "docs/A.md", &format!("see {work}\n{root}")), 2);
    assert_eq!(count(machine_paths, "docs/A.md", &format!("https://example.org{work} and a{root}")), 0);
}

#[test]
fn every_example_loads() {
    let scenarios: Vec<_> =
        tree().into_iter().map(|file| file.path).filter(|path| is_scenario(path)).collect();
    assert!(!scenarios.is_empty());
    for path in scenarios {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        if let Err(error) = Scenario::load(&full, &[]) {
            panic!("{path}: {error}");
        }
    }
}

fn is_scenario(path: &str) -> bool {
    path.strip_prefix("examples/").is_some_and(|name| name.ends_with(".ron") && !name.contains('/'))
}

#[test]
fn links_lead_somewhere() {
    let files = tree();
    let pages = files.iter().filter(|file| file.path.ends_with(".md") && !file.path.starts_with("tests/"));
    let exists = |target: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists();
    none(pages.flat_map(|file| dead_links(file, exists)).collect());

    let page = file(
        "docs/A.md",
        "[a](B.md#part) [b](../src/lib.rs) [c](https://x.y/z) [d](#here) [e](img/f.png \"t\")\n```\n[no](gone)\n```",
    );
    assert_eq!(links(&page), ["docs/B.md", "src/lib.rs", "docs/img/f.png"]);
    assert_eq!(dead_links(&page, |target| target != "docs/B.md").len(), 1);
}

#[test]
fn every_page_is_linked() {
    let files = tree();
    if files.iter().any(|file| file.path == "README.md") {
        none(lost_pages(&files));
    } else {
        eprintln!("SKIPPED: there is no README.md to link from");
    }
    let mut sample = vec![file("README.md", "[map](docs/ARCHITECTURE.md)"), file("docs/A.md", "")];
    sample.push(file("docs/ARCHITECTURE.md", ""));
    assert_eq!(lost_pages(&sample).len(), 1);
    sample[2].text = "[a](A.md)".into();
    none(lost_pages(&sample));
}

#[test]
fn every_test_module_runs() {
    none(lost_tests(&tree()));
    let sample = |paths: &[(&str, &str)]| -> Vec<File> {
        paths.iter().map(|(path, text)| file(&format!("tests/it/{path}"), text)).collect()
    };
    let mut tests = sample(&[("main.rs", "mod a;\nmod c;\n"), ("a.rs", "pub mod b;\n"), ("a/b.rs", "")]);
    tests.extend(sample(&[("c/mod.rs", "#[cfg(feature = \"gpu\")]\nmod d;\n"), ("c/d.rs", "")]));
    none(lost_tests(&tests));
    tests.extend(sample(&[("ab.rs", ""), ("a/d.rs", ""), ("c/b.rs", "")]));
    assert_eq!(lost_tests(&tests).len(), 3);
}

#[test]
fn paths_in_texts_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = tree();
    // The tests of the rules name what is not there.
    let texts = files.iter().filter(|file| !file.path.starts_with("tests/it/house/"));
    none(texts.flat_map(|file| dead_paths(file, |path| root.join(path).exists())).collect());
    let sample =
        file("docs/A.md", "`src/a.rs`, (src/b.rs) and tests/it/c.rs. Not src/*.rs, x/src/b.rs or src/b");
    assert_eq!(dead_paths(&sample, |path| path == "src/a.rs").len(), 2);
}
