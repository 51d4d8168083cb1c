//! Traces that were recorded in several runs, made one.

use super::{Header, Reader, RouteIds, RouteTable, Writer, open};
use crate::error::{InputError, Result};
use crate::rng::first_word;
use crate::units::SimTime;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// How runs are put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joining {
    /// Each run begins so long after the one before.
    pub offset: SimTime,
    /// Whether equal prefix hashes of different runs are the same prompt blocks. `None`: refused where two runs have hashes.
    pub prefixes: Option<Prefixes>,
}

/// What equal prefix hashes of different runs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefixes {
    /// The same prompt blocks: hashes of contents.
    Same,
    /// Others: numbers that each run counts for itself.
    Apart,
}

/// Writes one trace to `out` with the requests of all, run by run, under new ids from 0; equal routes are defined once. Only the routes
/// and the requests that are not complete are held. What `source` says is put together.
///
/// # Errors
/// A trace that cannot be read, a header that differs from that of the first one in a key that counts, arrivals beyond simulated time,
/// and a file that cannot be written.
pub fn join(runs: &[PathBuf], joining: Joining, out: &Path) -> Result<()> {
    let readers = runs.iter().map(open).collect::<Result<Vec<Reader>>>()?;
    let [first, others @ ..] = readers.as_slice() else {
        return Err(InputError::expected("at least one trace").found("none").into());
    };
    let mut sources = vec![first.header().source.clone()];
    for other in others {
        agree(first, other)?;
        let source = &other.header().source;
        if !sources.contains(source) {
            sources.push(source.clone());
        }
    }
    let header = Header { source: sources.join("; "), ..first.header().clone() };
    let mut writer = Writer::create(out, &header)?;
    let (mut routes, mut next_id, mut hashed) = (RouteTable::default(), 0, None);
    for (run, mut reader) in (0_u64..).zip(readers) {
        reader.keep_experts();
        let begin = joining.offset.ps().checked_mul(run);
        let mut numbers: Vec<u32> = Vec::new();
        while let Some(request) = reader.next() {
            let mut request = request?;
            let id = request.id;
            let wrong = |key: &str, what: &str| {
                InputError::expected(what).key(key).found(format!("request {id}")).file(reader.path())
            };
            let arrival = begin.and_then(|begin| begin.checked_add(request.arrival.ps()));
            let within = "arrivals within 213 days after the offset";
            request.arrival = SimTime::from_ps(arrival.ok_or_else(|| wrong("arrival_s", within))?);
            if !request.prefix.is_empty() {
                if *hashed.get_or_insert(run) != run && joining.prefixes.is_none() {
                    let what = "prefix hashes in one of the runs, or word whether equal ones are the same blocks (--prefixes same or apart)";
                    return Err(wrong("prefix", what).into());
                }
                if joining.prefixes == Some(Prefixes::Apart) {
                    request.prefix.iter_mut().for_each(|hash| *hash = of_run(*hash, run));
                }
            }
            request.id = next_id;
            next_id += 1;
            for known in numbers.len()..reader.routes().len() {
                numbers.push(routes.intern(reader.routes().get(known as u32).clone()));
            }
            for run in &mut request.runs {
                run.routes =
                    RouteIds::listed(run.routes.iter().map(|route| numbers[route as usize]).collect());
            }
            writer.request_with(&request, &routes, reader.experts())?;
        }
        // Routes that no request takes are kept too.
        for known in numbers.len()..reader.routes().len() {
            routes.intern(reader.routes().get(known as u32).clone());
        }
    }
    writer.finish(&routes)
}

/// Refuses a header that says something else than the first one.
fn agree(first: &Reader, other: &Reader) -> Result<()> {
    let (a, b): (&Header, &Header) = (first.header(), other.header());
    let shown = |header: &Header| -> [(&'static str, String); 8] {
        [
            ("model", header.model.clone()),
            ("layers", header.layers.to_string()),
            ("order", format!("{:?}", header.order).to_lowercase()),
            ("reuse", header.reuse.to_string()),
            ("granularity", format!("{:?}", header.granularity).to_lowercase()),
            ("kv", header.kv.to_string()),
            ("router", header.router_json().to_string()),
            ("max_hops", header.max_hops.map_or("none".into(), |hops| hops.to_string())),
        ]
    };
    for ((key, expected), (_, found)) in shown(a).into_iter().zip(shown(b)) {
        if expected != found {
            let what = format!("{expected}, as in {}", first.path().display());
            return Err(InputError::expected(what).key(key).found(found).file(other.path()).line(1).into());
        }
    }
    Ok(())
}

/// A hash that no other run has, but for the chance of two 64-bit hashes.
fn of_run(hash: u64, run: u64) -> u64 {
    first_word(Sha256::new().chain_update(run.to_le_bytes()).chain_update(hash.to_le_bytes()))
}
