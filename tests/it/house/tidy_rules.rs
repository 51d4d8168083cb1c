//! The rules of the house as functions from texts to complaints; `tidy` runs them on the tree and on wrong samples.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// The rooms from the ground up. A room names only rooms of lower floors, in code (comments may point anywhere).
/// `cli` stands above all: a private room, which no other names.
pub const FLOORS: [&[&str]; 11] = [
    &["units", "error", "rng"],
    &["json_text", "ron_text", "kernel", "reference", "plot", "page"],
    &["model", "hw", "trace"],
    &["batch", "engine", "cost", "workload", "tier", "weights"],
    &["lower", "sched", "calib", "quality"],
    &["metrics"],
    &["sim", "gpu"],
    &["scenario", "meter"],
    &["report"],
    &["study", "train", "validate", "simulation"],
    &["cli"],
];

/// A file: its path from the root of the repository, with `/`, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    /// Its room, for files of `src`: `src/hw/load.rs` is in `hw`. `main` and `lib` are none.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?.trim_end_matches(".rs");
        (!matches!(room, "main" | "lib")).then_some(room)
    }

    /// Lines of code with their numbers, without what follows `//` at a line's start or after a space.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).map(|(number, line)| {
            let comment = if line.starts_with("//") { Some(0) } else { line.find(" //") };
            (number, &line[..comment.unwrap_or(line.len())])
        })
    }

    fn complaints(&self, wrong: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let said = |(number, line)| wrong(line).map(|what| format!("{}:{number}: {what}", self.path));
        self.code().filter_map(said).collect()
    }
}

/// Words of a line: runs of letters, digits and `_`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Rooms that a line names as `crate::room`, `crate::{room, ...}`, or `radialsim::room` in the program.
fn named(line: &str) -> Vec<&str> {
    let starts = ["crate::", "radialsim::"]
        .into_iter()
        .flat_map(|prefix| line.match_indices(prefix).map(move |(at, _)| &line[at + prefix.len()..]));
    let first = |text| words(text).next().filter(|word| !word.is_empty());
    starts
        .flat_map(|rest| match rest.strip_prefix('{') {
            // One level of braces; only the first word of each part is a room.
            Some(group) => group.split(['}', ';']).next().unwrap_or("").split(',').collect(),
            None => vec![rest],
        })
        .filter_map(|part| first(part.trim()))
        .collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Imports go down only.
pub fn imports(file: &File) -> Vec<String> {
    let Some(room) = file.room() else { return Vec::new() };
    let Some(own) = floor(room) else {
        return vec![format!("{}: {room} is in no room of the table", file.path)];
    };
    let top = file.path == format!("src/{room}.rs") || file.path == format!("src/{room}/mod.rs");
    file.complaints(|line| {
        if top && line.starts_with("use super::") {
            return Some("names the crate as `super`; say `crate`".into());
        }
        let up =
            named(line).into_iter().find(|&other| other != room && floor(other).is_some_and(|f| f >= own));
        up.map(|other| format!("{room} (floor {own}) names {other}, which is not below it"))
    })
}

/// Only `gpu` and its command name wgpu.
pub fn gpu(file: &File) -> Vec<String> {
    if file.path.starts_with("src/gpu") || file.path.starts_with("src/cli") || !file.path.starts_with("src/")
    {
        return Vec::new();
    }
    file.complaints(|line| words(line).any(|word| word == "wgpu").then(|| "only gpu names wgpu".into()))
}

/// The library neither prints nor exits.
pub fn printing(file: &File) -> Vec<String> {
    if file.path.starts_with("src/cli") || file.path == "src/main.rs" || !file.path.starts_with("src/") {
        return Vec::new();
    }
    let banned = ["print!(", "println!(", "dbg!(", "process::exit("];
    file.complaints(|line| {
        banned.iter().find(|word| line.contains(**word)).map(|word| format!("{word}) belongs to cli"))
    })
}

/// No file is too long to be read.
pub fn length(file: &File) -> Vec<String> {
    let most = match file.path.rsplit('.').next() {
        _ if file.path == "src/main.rs" => 79,
        Some("rs") => 600,
        Some("wgsl") => 150,
        _ => return Vec::new(),
    };
    let lines = file.text.lines().count();
    if lines > most { vec![format!("{}: {lines} lines, at most {most}", file.path)] } else { Vec::new() }
}

/// Nothing is left for later, and no test sleeps.
pub fn finished(file: &File) -> Vec<String> {
    // Put together here, so that this file does not contain them.
    let banned = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ign", "ore")];
    file.complaints(|line| banned.iter().find(|word| line.contains(**word)).map(|word| format!("has {word}")))
}

/// No path of somebody's machine, in code or prose.
pub fn machine_paths(file: &File) -> Vec<String> {
    let homes = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/fa", "rm/")];
    let absolute = |line: &str, home: &str| {
        let starts = |at: usize| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '/' | '}' | ')'))
        };
        line.match_indices(home).any(|(at, _)| starts(at))
    };
    let lines = (1..).zip(file.text.lines());
    lines
        .filter_map(|(number, line)| {
            let home = homes.iter().find(|home| absolute(line, home))?;
            Some(format!("{}:{number}: {home} is a place on one machine", file.path))
        })
        .collect()
}

/// Targets of links in Markdown that are files, as paths from the root.
pub fn links(file: &File) -> Vec<String> {
    let mut fenced = false;
    let prose = file.text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let targets = prose.flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    let local = targets.filter_map(|target| target.split(['#', ' ']).next());
    let local = local
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"));
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    local.map(|target| flat(&folder.join(target))).collect()
}

/// Without `.` and `..`.
fn flat(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::ParentDir if parts.pop().is_none() => parts.push(".."),
            Component::Normal(part) => parts.push(part.to_str().unwrap_or("?")),
            _ => {}
        }
    }
    parts.join("/")
}

/// Links to files that are not there.
pub fn dead_links(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let dead = links(file).into_iter().filter(|target| !exists(target));
    dead.map(|target| format!("{}: links to {target}, which is not there", file.path)).collect()
}

/// Pages of `docs/` that neither the README, nor the book's contents, nor the map leads to.
pub fn lost_pages(files: &[File]) -> Vec<String> {
    let doors = files.iter().filter(|file| {
        matches!(file.path.as_str(), "README.md" | "docs/SUMMARY.md" | "docs/ARCHITECTURE.md")
    });
    let known: BTreeSet<String> = doors.flat_map(links).collect();
    let pages = files.iter().filter(|file| file.path.starts_with("docs/") && file.path.ends_with(".md"));
    let lost = pages.filter(|page| !known.contains(&page.path));
    lost.map(|page| format!("{}: neither README.md nor docs/ARCHITECTURE.md links to it", page.path))
        .collect()
}

/// Modules of the tests that the module above them does not name: they would never run.
pub fn lost_tests(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let lost = files.iter().filter_map(|file| {
        let path = file.path.strip_prefix("tests/it/")?.strip_suffix(".rs")?;
        let path = path.strip_suffix("/mod").unwrap_or(path);
        let (above, stem) = path.rsplit_once('/').unwrap_or(("main", path));
        let named = |text: &str| {
            let names = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
            names.filter_map(|name| name.strip_suffix(';')).any(|name| name == stem)
        };
        let at = [format!("tests/it/{above}.rs"), format!("tests/it/{above}/mod.rs")];
        let is_named = path == "main" || at.iter().filter_map(|at| text(at)).any(named);
        (!is_named).then(|| format!("{}: the module above it does not name it", file.path))
    });
    lost.collect()
}

/// Files that a text names by their path from the root, and that are not there.
pub fn dead_paths(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || "_-./*{}".contains(c);
    let lines = (1..).zip(file.text.lines());
    let named = lines.flat_map(|(number, line)| {
        line.split(|c| !is_part(c)).map(move |word| (number, word.trim_end_matches('.')))
    });
    let ours = |word: &str| {
        let (folders, endings) = (["src/", "tests/it/", "shaders/"], [".rs", ".wgsl"]);
        folders.iter().any(|folder| word.starts_with(folder))
            && endings.iter().any(|ending| word.ends_with(ending))
            && !word.contains(['*', '{'])
    };
    let dead = named.filter(|(_, word)| ours(word) && !exists(word));
    dead.map(|(number, word)| format!("{}:{number}: names {word}, which is not there", file.path)).collect()
}

/// The tracked texts of the repository: known folders and the files at its root. Data are left out.
pub fn tree() -> Vec<File> {
    let folders = ["src", "tests", "benches", "examples", "docs", "hw-profiles", "shaders", "scripts", ".ci"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left: Vec<PathBuf> =
        folders.iter().map(|folder| root.join(folder)).filter(|path| path.exists()).collect();
    let at_root = std::fs::read_dir(root).expect("the root").map(|entry| entry.expect("an entry").path());
    left.extend(at_root.filter(|path| path.is_file()));
    let mut files = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()),
            );
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let inside = path.strip_prefix(root).expect("below the root");
            files.push(File { path: flat(inside), text });
        }
    }
    files.retain(|file| file.path != ".git" && file.path != "Cargo.lock");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
