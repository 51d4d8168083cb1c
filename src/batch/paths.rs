//! The paths of a run, by number: all of them compiled before it, or each while a request that takes it runs.

use super::path::{Compiler, Entries, Path};
use crate::trace::{Header, Role, Route, RouteTable, Run};
use foldhash::fast::RandomState;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// The paths of a run. A route has two: as a plain token takes it, and as a later pass over the same position takes it
/// (`verify`, `recompute`), whose skipped layers were left by the first pass.
#[derive(Clone, Debug)]
pub struct Paths {
    /// By number; `None` where nobody who runs takes it.
    plain: Vec<Option<Box<Path>>>,
    again: Vec<Option<Box<Path>>>,
    passes_again: bool,
    compiler: Compiler,
    /// How often each route occurs in the runs of requests that have begun; not counted where all paths stay.
    uses: Vec<u32>,
    /// Numbers that no route has.
    free: Vec<u32>,
    /// From the hash of a route that came to this run to its number, and back.
    known: HashMap<u64, u32>,
    hashes: Vec<u64>,
    hasher: RandomState,
    /// Numbers that became free so far.
    freed: u64,
    narrow: bool,
    stays: bool,
}

/// Set in the number of a path that passes a position again.
const AGAIN: u32 = 1 << 31;

impl Paths {
    /// Compiles the routes of `table`; `again`: also as later passes take them.
    pub fn new(header: &Header, table: &RouteTable, again: bool) -> Self {
        let mut paths = Paths { stays: true, ..Paths::of_none(header, table.len(), again) };
        table.iter().enumerate().for_each(|(number, route)| paths.compile(number, route));
        paths
    }

    /// Compiles none: each of `routes` known numbers, and of others that [`Paths::number`] gives, has a path from its first [`Paths::hold`] to its last
    /// [`Paths::let_go`].
    pub fn of_none(header: &Header, routes: usize, again: bool) -> Self {
        Paths {
            plain: vec![None; routes],
            again: if again { vec![None; routes] } else { Vec::new() },
            passes_again: again,
            compiler: Compiler::new(header),
            uses: vec![0; routes],
            free: Vec::new(),
            known: HashMap::new(),
            hashes: Vec::new(),
            hasher: RandomState::default(),
            freed: 0,
            narrow: false,
            stays: false,
        }
    }

    fn compile(&mut self, number: usize, route: &Route) {
        self.narrow |= route.0.iter().any(|step| step.width < 1.0);
        self.plain[number] = Some(self.compiler.compile(route, false).into());
        if self.passes_again {
            self.again[number] = Some(self.compiler.compile(route, true).into());
        }
    }

    /// A number for a route that comes to this run: that of the same route, if somebody holds it; otherwise one that nobody holds yet.
    pub fn number(&mut self, route: &Route) -> u32 {
        let hash = self.hasher.hash_one(route);
        if let Some(&number) = self.known.get(&hash)
            && self.plain[number as usize].as_ref().is_some_and(|path| path.is_of(route))
        {
            return number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.plain.push(None);
            self.uses.push(0);
            if self.passes_again {
                self.again.push(None);
            }
            self.plain.len() as u32 - 1
        });
        self.compile(number as usize, route);
        self.hashes.resize(self.plain.len(), 0);
        self.hashes[number as usize] = hash;
        self.known.insert(hash, number);
        number
    }

    /// A request with these runs begins; `route` gives the route of a number.
    pub fn hold<'r>(&mut self, runs: &[Run], route: impl Fn(u32) -> &'r Route) {
        if self.stays {
            return;
        }
        for (number, _) in runs.iter().flat_map(|run| run.routes.counted()) {
            self.uses[number as usize] += 1;
            if self.plain[number as usize].is_none() {
                self.compile(number as usize, route(number));
            }
        }
    }

    /// A request with these runs is over. `recycle`: numbers that nobody holds may stand for other routes.
    pub fn let_go(&mut self, runs: &[Run], recycle: bool) {
        if self.stays {
            return;
        }
        for (number, _) in runs.iter().flat_map(|run| run.routes.counted()) {
            let uses = &mut self.uses[number as usize];
            *uses -= 1;
            if *uses == 0 {
                self.plain[number as usize] = None;
                if self.passes_again {
                    self.again[number as usize] = None;
                }
                if recycle {
                    let hash = self.hashes[number as usize];
                    if self.known.get(&hash) == Some(&number) {
                        self.known.remove(&hash);
                    }
                    self.free.push(number);
                    self.freed += 1;
                }
            }
        }
    }

    /// The most entries that a path that is there leaves at one layer, at least 1.
    pub fn most_at_a_layer(&self) -> u64 {
        let most = |entries: &Entries| {
            let differing = entries.differences.iter().map(|&(_, by)| i64::from(entries.all) + i64::from(by));
            differing.max().unwrap_or(0).max(entries.all.into()) as u64
        };
        let there = self.plain.iter().chain(&self.again).flatten();
        there.map(|path| most(&path.stored)).max().unwrap_or(0).max(1)
    }

    /// While this stays the same, a number stands for one path.
    pub fn freed(&self) -> u64 {
        self.freed
    }

    /// Whether any path so far computes but a part of a feed-forward width.
    pub fn has_narrow(&self) -> bool {
        self.narrow
    }

    /// Whether all paths are there as long as the run.
    pub fn all_stay(&self) -> bool {
        self.stays
    }

    /// The path of this number, compiled if it is not there.
    pub fn look(&mut self, index: u32, routes: &RouteTable) -> Cow<'_, Path> {
        let (number, again) = ((index & !AGAIN) as usize, index & AGAIN != 0);
        match if again { &self.again[number] } else { &self.plain[number] } {
            Some(path) => Cow::Borrowed(path),
            None => Cow::Owned(self.compiler.compile(routes.get(number as u32), again)),
        }
    }

    /// Whether tokens of this role pass their positions again.
    pub fn passes_again(role: Role) -> bool {
        matches!(role, Role::Verify | Role::Recompute)
    }

    /// Number of the path of `route` for tokens of this role.
    #[inline]
    pub fn index(route: u32, role: Role) -> u32 {
        if Paths::passes_again(role) { route | AGAIN } else { route }
    }

    /// Whether the path of this number passes a position again.
    #[inline]
    pub fn is_again(index: u32) -> bool {
        index & AGAIN != 0
    }

    /// Without rows, so that sums are taken hop by hop.
    #[cfg(test)]
    pub fn forget_rows(&mut self) {
        self.plain.iter_mut().chain(&mut self.again).flatten().for_each(|path| path.row = None);
    }

    /// The path of this number, which somebody who runs takes.
    #[inline]
    pub fn get(&self, index: u32) -> &Path {
        let (of, number) =
            if index & AGAIN == 0 { (&self.plain, index) } else { (&self.again, index & !AGAIN) };
        of[number as usize].as_deref().expect("whoever runs holds its paths")
    }
}
