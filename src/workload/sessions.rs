//! Conversations: requests that follow one another, and what the later ones share with the earlier ones.

use super::{Remark, RequestSet};
use crate::error::{InputError, Result, demand};
use crate::rng::Stream;
use crate::trace::Request;
use crate::units::SimTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How turns of a conversation follow one another: the key `workload.file.sessions`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// The pause between the end of a turn and the next one.
    pub think_s: Pause,
}

/// A pause between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Pause {
    /// As the file says it: the pause that it states or measured. Where it has none but arrivals, a turn comes at its own time, or when
    /// the one before has ended, whichever is later.
    Recorded,
    /// Always this long, in seconds; arrivals of later turns do not matter.
    Fixed(f64),
    /// Exponential with this mean, in seconds; arrivals of later turns do not matter.
    Exponential(f64),
}

/// The name of a request or a conversation: the first 128 bits of its hash, as names may be of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(u128);

impl Name {
    pub fn of(text: &str) -> Name {
        Name(Sha256::digest(text).iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

/// The place of a request in a conversation, as a file says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Its own name, where others point to it.
    pub name: Option<Name>,
    /// The name of the turn before it.
    pub after: Option<Name>,
    /// The conversation, where turns follow each other by arrival.
    pub session: Option<Name>,
    /// Its number within the conversation.
    pub number: Option<u64>,
    /// The pause before it, where the file states one.
    pub think: Option<SimTime>,
    /// When it ended, as the clock of the arrivals gave it.
    pub end: Option<i128>,
    /// Whether it has no arrival of its own: it comes when the turn before has ended.
    pub follows: bool,
}

/// A request that follows another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// The id of the request before it.
    pub after: u64,
    /// The pause between the two, where the source says it.
    pub think: Option<SimTime>,
    /// Whether it has no arrival of its own.
    pub follows: bool,
}

/// Requests that are sent only when another has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// By the id of the later request: the id of the one before, and the pause after its end. It comes then, or at its own arrival,
    /// whichever is later.
    pub turns: BTreeMap<u64, (u64, SimTime)>,
}

/// Turns while a file is read.
#[derive(Debug, Default)]
pub(super) struct Turns(Vec<(u64, Turn)>);

impl Turns {
    /// The request of this id is such a turn.
    pub fn add(&mut self, id: u64, turn: Turn) {
        self.0.push((id, turn));
    }

    /// Links each turn to the one before. `requests` are in the order of their ids, with their arrivals; `ps` makes picoseconds, counted
    /// as those are, of an end. A turn whose predecessor the file does not have begins a conversation.
    ///
    /// # Errors
    /// A turn that follows itself or a later one.
    pub fn settle(self, requests: &[Request], ps: impl Fn(i128) -> i128) -> Result<BTreeMap<u64, FollowUp>> {
        let mut links = BTreeMap::new();
        let names: HashMap<Name, u64> =
            self.0.iter().filter_map(|(id, turn)| Some((turn.name?, *id))).collect();
        let mut chains: HashMap<Name, Vec<(u64, &Turn)>> = HashMap::new();
        for (id, turn) in &self.0 {
            if let Some(before) = turn.after.and_then(|name| names.get(&name)) {
                links.insert(*id, FollowUp { after: *before, think: turn.think, follows: turn.follows });
            }
            if let Some(session) = turn.session {
                chains.entry(session).or_default().push((*id, turn));
            }
        }
        for chain in chains.values_mut() {
            let arrival = |id: u64| requests[id as usize].arrival;
            // Who has none of its own comes behind the turn that stands before it in the file.
            let mut last = SimTime::ZERO;
            let mut places = HashMap::new();
            for (id, turn) in chain.iter() {
                last = if turn.follows { last } else { arrival(*id) };
                places.insert(*id, (turn.number, last, *id));
            }
            chain.sort_by_key(|(id, _)| places[id]);
            for pair in chain.windows(2) {
                let [(after, before), (id, turn)] = pair else { continue };
                // What was measured: from the end of one to the arrival of the next.
                let measured = before.end.map(|end| {
                    let pause = i128::from(arrival(*id).ps()) - ps(end);
                    SimTime::from_ps(u64::try_from(pause).unwrap_or(0))
                });
                links.insert(
                    *id,
                    FollowUp { after: *after, think: turn.think.or(measured), follows: turn.follows },
                );
            }
        }
        check(&links)?;
        Ok(links)
    }
}

/// Refuses turns that wait for each other.
fn check(links: &BTreeMap<u64, FollowUp>) -> Result<()> {
    // Each turn is visited once: 1 while it is on the way that is followed, 2 when it is known to end.
    let mut known: HashMap<u64, u8> = HashMap::new();
    for &start in links.keys() {
        let (mut way, mut id) = (Vec::new(), start);
        while let Some(link) = links.get(&id).filter(|_| !known.contains_key(&id)) {
            known.insert(id, 1);
            way.push(id);
            id = link.after;
        }
        if known.get(&id) == Some(&1) {
            let found = format!("request {id}, which follows itself");
            return Err(InputError::expected("turns that follow earlier ones")
                .key("sessions")
                .found(found)
                .into());
        }
        known.extend(way.into_iter().map(|id| (id, 2)));
    }
    Ok(())
}

impl SessionSpec {
    /// Refuses pauses that are none.
    pub(super) fn check(&self) -> Result<()> {
        match self.think_s {
            Pause::Recorded => Ok(()),
            Pause::Fixed(s) | Pause::Exponential(s) => {
                let what = "a finite number of seconds, at least 0";
                demand(s.is_finite() && s >= 0.0, "sessions.think_s", s, what)
            }
        }
    }

    /// Makes the turns of a load wait for each other, and draws the pauses from the stream `think`, in the order of the ids. A turn
    /// that has to wait for no time of its own says the arrival of the first turn.
    ///
    /// # Errors
    /// A pause out of range, and a source without conversations.
    pub(super) fn apply(&self, load: &mut RequestSet, seed: u64) -> Result<()> {
        self.check()?;
        if load.turns.is_empty() {
            let what = "a file with turns of conversations (session_id, conversation_id, parent_chat_id and the like)";
            return Err(InputError::expected(what)
                .key("sessions")
                .found("no request that follows another")
                .into());
        }
        let mut stream = Stream::new(seed, "think");
        let mut turns = BTreeMap::new();
        for (&id, link) in &load.turns {
            let think = match self.think_s {
                Pause::Recorded => link.think.unwrap_or(SimTime::ZERO),
                Pause::Fixed(s) => SimTime::from_s(s),
                Pause::Exponential(mean) => SimTime::from_s(stream.exponential(mean)),
            };
            turns.insert(id, (link.after, think));
        }
        let own_time =
            |link: &FollowUp| self.think_s == Pause::Recorded && link.think.is_none() && !link.follows;
        let waits = |id: u64| load.turns.get(&id).is_some_and(|link| !own_time(link));
        begin_together(&mut load.requests, &load.turns, waits);
        load.sessions = Some(Sessions { turns });
        Ok(())
    }
}

/// Forgets turns whose predecessor is not among the requests any more.
pub(super) fn forget_missing(load: &mut RequestSet) {
    let there: HashSet<u64> = load.requests.iter().map(|request| request.id).collect();
    load.turns.retain(|id, link| there.contains(id) && there.contains(&link.after));
}

/// Gives turns for which `which` holds the arrival of the first turn of their conversation, and sorts the requests.
pub(super) fn begin_together(
    requests: &mut [Request],
    turns: &BTreeMap<u64, FollowUp>,
    which: impl Fn(u64) -> bool,
) {
    let arrivals: HashMap<u64, SimTime> =
        requests.iter().map(|request| (request.id, request.arrival)).collect();
    let mut begins: HashMap<u64, SimTime> = HashMap::new();
    for &start in turns.keys() {
        let (mut way, mut id) = (vec![start], start);
        while let Some(link) = turns.get(&id).filter(|_| !begins.contains_key(&id)) {
            id = link.after;
            way.push(id);
        }
        let begin = begins.get(&id).or_else(|| arrivals.get(&id)).copied().unwrap_or(SimTime::ZERO);
        begins.extend(way.into_iter().map(|id| (id, begin)));
    }
    for request in requests.iter_mut().filter(|request| which(request.id)) {
        request.arrival = begins.get(&request.id).copied().unwrap_or(request.arrival);
    }
    requests.sort_by_key(|request| request.arrival);
}

impl Default for SessionSpec {
    fn default() -> Self {
        SessionSpec { think_s: Pause::Recorded }
    }
}

/// Most hashes that turns are given, with those that are kept meanwhile: 2 GiB.
const MOST_HASHES: u64 = 1 << 28;

/// Gives the turns of a load hashes of blocks of `block` tokens, those of the shared beginning the same: a turn begins with the prompt
/// and the output of the turn before, as far as it is long enough. Requests without turns get none.
///
/// # Errors
/// More hashes than [`MOST_HASHES`].
pub(super) fn share_prefixes(load: &mut RequestSet, block: u32) -> Result<()> {
    let turns: HashSet<u64> = load.turns.iter().flat_map(|(&id, link)| [link.after, id]).collect();
    let hashes = |request: &Request| {
        let (prompt, output) = (u64::from(request.prompt_tokens), u64::from(request.output_tokens));
        (prompt + prompt + output) / u64::from(block)
    };
    let all: u64 = load.requests.iter().filter(|request| turns.contains(&request.id)).map(hashes).sum();
    let what = format!("blocks of so many tokens that turns have at most {MOST_HASHES} of them");
    demand(all <= MOST_HASHES, "block_tokens", format!("{block}, which makes {all}"), &what)?;
    let place: HashMap<u64, usize> =
        (0..).zip(&load.requests).map(|(index, request)| (request.id, index)).collect();
    // The blocks of the whole conversation up to the end of a request.
    let mut chains: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut next = 0;
    let mut shortened = 0_u64;
    for start in load.turns.iter().flat_map(|(&id, link)| [link.after, id]).collect::<Vec<_>>() {
        // Earlier turns first; `check` made sure that this ends.
        let mut way = vec![start];
        while let Some(link) =
            load.turns.get(way.last().unwrap_or(&start)).filter(|link| !chains.contains_key(&link.after))
        {
            way.push(link.after);
        }
        for id in way.into_iter().rev() {
            let Some(&index) = place.get(&id).filter(|_| !chains.contains_key(&id)) else { continue };
            let request = &load.requests[index];
            let before = load
                .turns
                .get(&id)
                .and_then(|link| Some((chains.get(&link.after)?, &load.requests[*place.get(&link.after)?])));
            let (mut chain, shared) = match before {
                None => (Vec::new(), 0),
                Some((chain, before)) => {
                    let whole = u64::from(before.prompt_tokens) + u64::from(before.output_tokens);
                    let shared = if u64::from(request.prompt_tokens) >= whole {
                        whole
                    } else if request.prompt_tokens >= before.prompt_tokens {
                        before.prompt_tokens.into()
                    } else {
                        shortened += 1;
                        0
                    };
                    (chain.clone(), shared)
                }
            };
            chain.truncate((shared / u64::from(block)) as usize);
            let whole =
                (u64::from(request.prompt_tokens) + u64::from(request.output_tokens)) / u64::from(block);
            while (chain.len() as u64) < whole {
                next += 1;
                chain.push(next);
            }
            load.requests[index].prefix = chain[..(request.prompt_tokens / block) as usize].to_vec();
            chains.insert(id, chain);
        }
    }
    load.prefix_block = Some(block);
    let why = "prompt tokens of a hash; a turn begins with the prompt and the output of the turn before";
    load.remarks.push(Remark::new("block_tokens", block, why));
    if shortened > 0 {
        let why = "turns have shorter prompts than the turn before, and share nothing with it";
        load.remarks.push(Remark::new("sessions", shortened, why));
    }
    Ok(())
}
