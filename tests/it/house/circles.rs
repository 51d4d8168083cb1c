//! No circles between the files of a room: what a file imports, in turn imports nothing of that file. Files between which one cannot tell who stands
//! on whom are one file in several pieces. A file and the `mod.rs` above it are one: what a folder's files share stands there.

use crate::house::tidy_rules::{File, tree};
use std::collections::{BTreeMap, BTreeSet};

/// Circles that are known, each with what ties it. None may be added; one that is gone is taken off.
const KNOWN: &[(&str, &str)] = &[
    ("batch::context batch::lanes batch::path", "a path is packed by `lanes::row`, which reads its hops"),
    (
        "cost::adapter cost::cache cost::corrected cost::device cost::experts cost::ranks cost::slots",
        "a device holds what corrects its prices, and each correction reads the device",
    ),
    ("lower::alike lower::groups lower::sets", "two ways to build `Groups`, which holds the sums of both"),
    (
        "lower::block lower::emit lower::experts lower::router",
        "`Emit` holds plans of parts that it also emits",
    ),
];

type Module = Vec<String>;

/// The files of `src` as modules, each with its imports.
struct Modules {
    /// Text of code by path of module: `hw::load`.
    texts: BTreeMap<Module, String>,
    /// What a module imports, by the name under which others may ask it for that.
    names: BTreeMap<Module, BTreeMap<String, (Module, Option<String>)>>,
}

impl Modules {
    fn of(files: &[File]) -> Modules {
        let module = |file: &File| -> Option<(Module, String)> {
            let path = file.path.strip_prefix("src/")?.strip_suffix(".rs")?;
            let path = path.strip_suffix("/mod").unwrap_or(path);
            Some((path.split('/').map(str::to_owned).collect(), plain(&file.text)))
        };
        let mut modules =
            Modules { texts: files.iter().filter_map(module).collect(), names: BTreeMap::new() };
        let names = modules.texts.iter().map(|(here, text)| {
            let uses = uses(text).filter_map(|(_, path)| {
                let name = path.rsplit("::").next()?.rsplit(" as ").next()?.to_owned();
                Some((name, modules.resolve(here, &path)?))
            });
            (here.clone(), uses.collect())
        });
        modules.names = names.collect();
        modules
    }

    /// The module that a path leads to from `here`, and what is asked of it; none for other crates and own items.
    fn resolve(&self, here: &Module, path: &str) -> Option<(Module, Option<String>)> {
        let path = path.split(" as ").next().unwrap_or(path);
        let mut words = path.split("::").map(str::trim).peekable();
        let mut at = match *words.peek()? {
            "crate" | "radialsim" => {
                words.next();
                Vec::new()
            }
            "self" => {
                words.next();
                here.clone()
            }
            "super" => here.clone(),
            word if self.is_module(here, word) => here.clone(),
            _ => return None,
        };
        while words.next_if_eq(&"super").is_some() {
            at.pop();
        }
        while let Some(word) = words.next_if(|word| self.is_module(&at, word)) {
            at.push(word.to_owned());
        }
        Some((at, words.next().filter(|word| *word != "self").map(str::to_owned)))
    }

    fn is_module(&self, above: &Module, word: &str) -> bool {
        let mut path = above.clone();
        path.push(word.to_owned());
        self.texts.contains_key(&path)
    }

    /// Behind all re-exports: where a name really is.
    fn real(&self, (mut module, mut name): (Module, Option<String>)) -> Module {
        for _ in 0..10 {
            let Some(wanted) = &name else { break };
            let Some((next, asked)) = self.names.get(&module).and_then(|names| names.get(wanted)) else {
                break;
            };
            (module, name) = (next.clone(), asked.clone());
        }
        module
    }

    /// Files of the same room that each file imports, but for those above and below it.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<&Module>> {
        let of = |(here, text): (&'_ Module, &String)| {
            let private = uses(text).filter(|(public, _)| !public).map(|(_, path)| path);
            let paths: Vec<String> = private.chain(inline(text)).collect();
            let real = paths.iter().filter_map(|path| Some(self.real(self.resolve(here, path)?)));
            real.filter(|other| !other.is_empty() && other[0] == here[0])
                .filter(|other| !other.starts_with(here) && !here.starts_with(other))
                .collect::<BTreeSet<Module>>()
        };
        let found = self.texts.iter().map(|(here, text)| (here, of((here, text))));
        let key = |module: Module| self.texts.get_key_value(&module).map(|(key, _)| key);
        found.map(|(here, others)| (here, others.into_iter().filter_map(key).collect())).collect()
    }

    /// Groups of files that reach each other, as `a::b a::c`.
    fn circles(&self) -> BTreeSet<String> {
        let imports = self.imports();
        let reach: BTreeMap<&Module, BTreeSet<&Module>> =
            imports.keys().map(|&module| (module, reached(&imports, module))).collect();
        let circle = |(&module, seen): (&&Module, &BTreeSet<&Module>)| {
            let mut all: Vec<String> = seen
                .iter()
                .filter(|other| reach[*other].contains(module))
                .map(|other| other.join("::"))
                .collect();
            all.sort();
            (!all.is_empty()).then(|| all.join(" "))
        };
        reach.iter().filter_map(circle).collect()
    }
}

/// What one reaches from a file by imports.
fn reached<'m>(
    imports: &BTreeMap<&'m Module, BTreeSet<&'m Module>>,
    from: &'m Module,
) -> BTreeSet<&'m Module> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(at) = left.pop() {
        left.extend(imports.get(at).into_iter().flatten().copied().filter(|&next| seen.insert(next)));
    }
    seen
}

/// Code without comments and without unit tests.
fn plain(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let line = |line: &str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.split(" //").next().unwrap_or(line).to_owned() + "\n",
    };
    code.lines().map(line).collect()
}

/// Paths of `use` with whether they are re-exports, braces spelled out.
fn uses(text: &str) -> impl Iterator<Item = (bool, String)> {
    let starts = text.match_indices("use ").filter(|(at, _)| {
        let before = text[..*at].rsplit('\n').next().unwrap_or_default().trim();
        before.is_empty() || before.starts_with("pub")
    });
    starts.flat_map(|(at, _)| {
        let before = text[..at].rsplit('\n').next().unwrap_or_default().trim();
        let tree = text[at + 4..].split(';').next().unwrap_or_default();
        spelled(tree).into_iter().map(move |path| (before.starts_with("pub"), path))
    })
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn spelled(tree: &str) -> Vec<String> {
    let Some((before, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inside.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().expect("at least one").push(c),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| spelled(&format!("{}{}", before.trim(), part.trim()))).collect()
}

/// Paths in the code itself: `super::a::b`, `a::b` where `a` is a module.
fn inline(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter(|line| !line.trim_start().trim_start_matches("pub ").starts_with("use "));
    lines.flat_map(|line| {
        let words = line.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c));
        words.filter(|word| word.contains("::")).map(|word| word.trim_matches(':').to_owned())
    })
}

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<File> =
        files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
    Modules::of(&files).circles().into_iter().collect()
}

#[test]
fn no_circles_inside_rooms_but_those_that_are_known() {
    let found = Modules::of(&tree()).circles();
    let known: BTreeSet<String> = KNOWN.iter().map(|(circle, _)| (*circle).to_owned()).collect();
    assert_eq!(found, known, "left: found; right: known");
}

#[test]
fn a_circle_is_found() {
    let a = ("src/r/a.rs", "use super::b::B;\npub struct A;");
    assert_eq!(circles(&[a, ("src/r/b.rs", "use super::a::A;")]), ["r::a r::b"]);
    assert_eq!(circles(&[a, ("src/r/b.rs", "fn f() {\n    let x = super::a::A;\n}")]), ["r::a r::b"]);
    let of_room = [a, ("src/r/b.rs", "use crate::r::{c, a::{A, D}};"), ("src/r/mod.rs", "mod a;")];
    assert_eq!(circles(&of_room), ["r::a r::b"]);
    let longer = [a, ("src/r/b.rs", "use super::c;"), ("src/r/c/mod.rs", "use super::a;")];
    assert_eq!(circles(&longer), ["r::a r::b r::c"]);
    // Through a re-export of the room.
    let room = ("src/r/mod.rs", "mod a;\nmod b;\npub use a::{A as Z};\nuse b::B;");
    assert_eq!(circles(&[a, room, ("src/r/b.rs", "use super::Z;")]), ["r::a r::b"]);
}

#[test]
fn what_is_no_circle_is_not_found() {
    let a = ("src/r/a.rs", "use super::b::B;\npub struct A;");
    assert!(
        circles(&[a, ("src/r/b.rs", "/// See [`super::a::A`].\npub struct B; // super::a::A")]).is_empty()
    );
    assert!(
        circles(&[a, ("src/r/b.rs", "#[cfg(test)]\nmod tests {\n    use crate::r::a::A;\n}")]).is_empty()
    );
    assert!(circles(&[a, ("src/r/b.rs", "use crate::other::a::A;"), ("src/other/a.rs", "")]).is_empty());
    let above = [("src/r/mod.rs", "mod a;\nuse a::A;\npub struct B;"), ("src/r/a.rs", "use super::B;")];
    assert!(circles(&above).is_empty(), "a file and the one above it are one");
}
