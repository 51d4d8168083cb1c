//! Computes the points of a study on many threads, and everything that its searches ask for.

use super::assembly::Assembly;
use super::case::Case;
use super::journal::Journal;
use super::row::Row;
use super::shard::Shard;
use super::{Finding, Study};
use crate::error::{Error, InputError, Result};
use crate::scenario::Inputs;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Hears how far a sweep is; called from several threads.
pub trait SweepWatch: Sync {
    /// So many cases are to be looked at, beyond those said before.
    fn more(&self, cases: u64);
    /// One was looked at.
    fn one(&self);
}

impl SweepWatch for () {
    fn more(&self, _cases: u64) {}
    fn one(&self) {}
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepCounts {
    /// Cases that were computed.
    pub computed: u64,
    /// Cases that the journals in the folder knew already, of other shards, too.
    pub known: u64,
}

/// Who answers what a search asks.
pub trait Asker {
    /// The rows of a case.
    ///
    /// # Errors
    /// What ends the study.
    fn ask(&self, case: &Case) -> Result<Vec<Row>>;

    /// The rows of several cases, in their order.
    ///
    /// # Errors
    /// What ends the study.
    fn ask_all(&self, cases: &[Case]) -> Result<Vec<Vec<Row>>> {
        cases.iter().map(|case| self.ask(case)).collect()
    }
}

/// Computes what the journal does not know.
struct Live<'a> {
    study: &'a Study,
    inputs: Inputs,
    journal: &'a Journal,
    computed: AtomicU64,
}

impl Live<'_> {
    /// Makes sure that the journal knows the case.
    fn know(&self, case: &Case) -> Result<()> {
        let id = case.id();
        if self.journal.knows(&id) {
            return Ok(());
        }
        let ran = case.run(self.study, &self.inputs)?;
        self.journal.add(&id, &ran)?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Asker for Live<'_> {
    fn ask(&self, case: &Case) -> Result<Vec<Row>> {
        self.know(case)?;
        Ok(self.journal.get(&case.id())?.expect("it knows the case now").0)
    }

    fn ask_all(&self, cases: &[Case]) -> Result<Vec<Vec<Row>>> {
        cases.par_iter().with_max_len(1).map(|case| self.ask(case)).collect()
    }
}

/// Knows what the journal knows, and notes what was asked.
struct Replay<'a> {
    journal: &'a Journal,
    asked: RefCell<Vec<Case>>,
}

impl Asker for Replay<'_> {
    fn ask(&self, case: &Case) -> Result<Vec<Row>> {
        self.asked.borrow_mut().push(case.clone());
        self.journal.get(&case.id())?.map(|(rows, _)| rows).ok_or_else(|| missing(1))
    }
}

fn missing(count: u64) -> Error {
    let expected = "all points of the study; run `radialsim sweep` for the shards that are not complete";
    InputError::expected(expected).found(format!("{count} or more missing")).into()
}

/// Computes the points of this shard, and what the searches ask for at its settings, into a journal in `folder`. What the journals there
/// know is not computed again.
///
/// # Errors
/// Those of [`Journal::open`] and [`Journal::add`]; metrics that rows do not have. Points that fail, by whatever fault, are rows.
///
/// # Panics
/// Where the system starts no threads.
pub fn sweep(
    study: &Study,
    folder: &Path,
    shard: Shard,
    jobs: usize,
    watch: &dyn SweepWatch,
) -> Result<SweepCounts> {
    let journal = Journal::open(folder, &study.digest, &study.spec.title, shard)?;
    let known = journal.count() as u64;
    let inputs = Inputs::default();
    inputs.check(&study.base.folder, &journal.inputs())?;
    let live = Live { study, inputs, journal: &journal, computed: AtomicU64::new(0) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().expect("threads can be started");
    // What a search moves along an axis stays in one shard, so that no two shards compute the same point.
    let moved = study.spec.searches.first().map(|search| search.settings(study)).transpose()?;
    let owner = |point: u64| moved.as_ref().map_or(point, |settings| settings.index_of(point));
    let count = study.grid.count();
    watch.more(match &moved {
        None => shard.share(count),
        Some(settings) => shard.share(settings.count()) * (count / settings.count().max(1)),
    });
    let each = |count: u64, work: &(dyn Fn(u64) -> Result<()> + Sync)| {
        let all = (0..count as usize).into_par_iter().with_max_len(1);
        pool.install(|| all.try_for_each(|index| work(index as u64)))
    };
    each(count, &|index| {
        if shard.has(owner(index)) {
            live.know(&Case::of(&study.grid.at(index)))?;
            watch.one();
        }
        Ok(())
    })?;
    for search in &study.spec.searches {
        let settings = search.settings(study)?;
        watch.more(shard.share(settings.count()));
        each(settings.count(), &|index| {
            if shard.has(index) {
                search.answers(study, &settings.at(index), &live)?;
                watch.one();
            }
            Ok(())
        })?;
    }
    Ok(SweepCounts { computed: live.computed.into_inner(), known })
}

/// Everything that the journals in these folders know about the study, in the order of its points. It is the same however the study was
/// split and however often it was interrupted.
///
/// # Errors
/// Those of [`Journal::read_only`], and points that nobody computed.
pub fn merge<'a>(study: &'a Study, folders: &[PathBuf]) -> Result<Assembly<'a>> {
    let journal = Journal::read_only(folders, &study.digest)?;
    match Inputs::default().check(&study.base.folder, &journal.inputs()) {
        // Tables can be joined where the inputs are not at hand; the report then looks closer at nothing.
        Err(Error::Input(error)) if error.file.is_none() => return Err(Error::Input(error)),
        _ => {}
    }
    let count = study.grid.count();
    let lacking = (0..count).filter(|&index| !journal.knows(&Case::of(&study.grid.at(index)).id())).count();
    if lacking > 0 {
        return Err(missing(lacking as u64));
    }
    let (mut searched, mut answers) = (Vec::new(), Vec::<Finding>::new());
    let mut seen: HashSet<_> = HashSet::new();
    for (place, search) in study.spec.searches.iter().enumerate() {
        let settings = search.settings(study)?;
        for index in 0..settings.count() {
            let choices = settings.at(index);
            let replay = Replay { journal: &journal, asked: RefCell::default() };
            answers.extend(search.answers(study, &choices, &replay)?);
            for case in replay.asked.into_inner() {
                if seen.insert(case.id()) {
                    searched.push((place, case));
                }
            }
        }
    }
    Ok(Assembly::new(study, journal, searched, answers))
}
