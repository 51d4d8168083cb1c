//! Puts requests together from the definitions and runs of a file, whatever its encoding, and checks them.
//!
//! A request is complete when P + G - 1 of its tokens have a route. Some recorders feed the last token too, on the
//! same line or on a later one, so a complete request lingers until [`LINGERING_REQUESTS`] later ones are complete
//! (or [`LINGERING_WORDS`] are held, or the file ends) before it is given out. Requests without any run come at
//! the end of the file, in file order.

use super::ids::{IdMap, Ranges};
use super::limits::{ALL_STEPS, HELD_WORDS, LINGERING_REQUESTS, LINGERING_WORDS, ROUTE_STEPS};
use super::rules::{Progress, Shape};
use super::{Header, Request, Route, RouteIds, RouteTable, Run};
use crate::error::{InputError, Result};
use std::collections::{HashMap, VecDeque};

/// Words of four bytes that a request and a run take besides their tokens.
const REQUEST_WORDS: usize = 40;
const RUN_WORDS: usize = 20;

/// Experts of a layer at most; published models have up to 1,024.
const MOST_EXPERTS: u32 = 1 << 14;

pub(super) struct Assembler {
    pub header: Header,
    pub routes: RouteTable,
    /// How often tokens took each expert of each layer, as far as runs said; empty where none did.
    pub experts: Vec<Vec<u64>>,
    /// Whether the experts of runs are kept as they are written.
    pub keeps_experts: bool,
    /// Those of the run that comes next.
    pub next_experts: Option<Box<str>>,
    route_ids: IdMap,
    steps: usize,
    seen: Ranges,
    open: HashMap<u64, Open>,
    held_words: usize,
    lingering: VecDeque<u64>,
    lingering_words: usize,
    ready: VecDeque<Numbered>,
    next_number: u64,
}

/// A complete request with its place among the requests of the file.
pub(crate) struct Numbered {
    pub number: u64,
    pub request: Request,
    /// Experts of each run, as JSON, where they are kept.
    pub experts: Vec<Option<Box<str>>>,
}

struct Open {
    number: u64,
    line: Option<u64>,
    request: Request,
    experts: Vec<Option<Box<str>>>,
    progress: Progress,
    words: usize,
    lingers: bool,
}

impl Open {
    fn numbered(self) -> Numbered {
        Numbered { number: self.number, request: self.request, experts: self.experts }
    }
}

impl Assembler {
    pub fn new(header: Header) -> Self {
        Assembler {
            header,
            routes: RouteTable::default(),
            experts: Vec::new(),
            keeps_experts: false,
            next_experts: None,
            route_ids: IdMap::default(),
            steps: 0,
            seen: Ranges::default(),
            open: HashMap::new(),
            held_words: 0,
            lingering: VecDeque::new(),
            lingering_words: 0,
            ready: VecDeque::new(),
            next_number: 0,
        }
    }

    /// Defines a route.
    pub fn route(&mut self, id: u64, steps: &str) -> Result<()> {
        let count = if steps.is_empty() { 0 } else { 1 + steps.bytes().filter(|&byte| byte == b' ').count() };
        let bad = |key: &str, found: u64, what: String| InputError::expected(what).key(key).found(found);
        if count > ROUTE_STEPS {
            return Err(bad("steps", count as u64, format!("at most {ROUTE_STEPS} steps")).into());
        }
        self.steps += count + 4;
        if self.steps > ALL_STEPS {
            let what = format!("at most {ALL_STEPS} steps in all routes together");
            return Err(bad("steps", self.steps as u64, what).into());
        }
        if self.route_ids.get(id).is_some() {
            return Err(bad("id", id, "a route id that was not used before".into()).into());
        }
        let route = Route::parse(steps).and_then(|route| route.check(&self.header).map(|()| route));
        let index = self.routes.push(route.map_err(|error| super::in_key(error, "steps"))?);
        self.route_ids.insert(id, index);
        Ok(())
    }

    /// How many steps a route has, where there is one of this id.
    pub fn steps(&self, id: u64) -> Option<usize> {
        Some(self.routes.get(self.route_ids.get(id)?).0.len())
    }

    /// Counts the experts that a token took at each step of its route, where there is one of this id.
    ///
    /// # Errors
    /// An expert beyond those of any model.
    pub fn took(&mut self, id: u64, steps: &[Vec<u32>]) -> Result<()> {
        let Some(index) = self.route_ids.get(id) else { return Ok(()) };
        self.experts.resize(self.header.layers as usize, Vec::new());
        for (step, experts) in self.routes.get(index).0.iter().zip(steps) {
            let counts = &mut self.experts[step.layer as usize];
            for &expert in experts {
                if expert >= MOST_EXPERTS {
                    let what = format!("an expert id below {MOST_EXPERTS}");
                    return Err(InputError::expected(what).key("experts").found(expert).into());
                }
                let least = counts.len().max(expert as usize + 1);
                counts.resize(least, 0);
                counts[expert as usize] += 1;
            }
        }
        Ok(())
    }

    /// Defines a request, without its runs. `line` is where the file does so.
    pub fn request(&mut self, request: Request, line: Option<u64>) -> Result<()> {
        if !self.seen.insert(request.id) {
            let what = "a request id that was not used before";
            return Err(InputError::expected(what).key("id").found(request.id).into());
        }
        let words = REQUEST_WORDS + 2 * request.prefix.len();
        self.hold(words)?;
        let (number, progress) = (self.next_number, Progress::new(&request));
        self.next_number += 1;
        let (experts, lingers) = (Vec::new(), false);
        self.open.insert(request.id, Open { number, line, request, experts, progress, words, lingers });
        Ok(())
    }

    fn hold(&mut self, words: usize) -> Result<()> {
        self.held_words += words;
        // A set of scattered ids takes memory too.
        let held = self.held_words + 8 * self.seen.ranges();
        if held > HELD_WORDS {
            let what = format!("requests that end before they take {HELD_WORDS} words of memory");
            return Err(InputError::expected(what)
                .found(format!("{} open requests", self.open.len()))
                .into());
        }
        Ok(())
    }

    /// Adds a run to a request. `shape.tokens` is the length of `ids`.
    pub fn run(&mut self, id: u64, shape: Shape, ids: &[u64]) -> Result<()> {
        let Some(open) = self.open.get_mut(&id) else {
            let what = if self.seen.contains(id) {
                "a request that is not complete"
            } else {
                "the id of a request that was defined before"
            };
            return Err(InputError::expected(what).key("request").found(id).into());
        };
        open.progress.run(&shape)?;
        let mut routes = Vec::with_capacity(ids.len());
        for (index, &id) in ids.iter().enumerate() {
            routes.push(self.route_ids.get(id).ok_or_else(|| {
                let what = "the id of a route that was defined before";
                InputError::expected(what).key(format!("routes[{index}]")).found(id)
            })?);
        }
        let accepted = shape.accepted.unwrap_or_default().to_vec();
        let experts = self.next_experts.take();
        let words =
            RUN_WORDS + ids.len() + (accepted.len() + experts.as_ref().map_or(0, |text| text.len())) / 4;
        if self.keeps_experts {
            open.experts.push(experts);
        }
        let routes = RouteIds::listed(routes);
        let start = shape.start as u32;
        open.request.runs.push(Run { start, phase: shape.phase, role: shape.role, routes, accepted });
        open.words += words;
        if open.lingers {
            self.lingering_words += words;
        } else if open.progress.complete() {
            open.lingers = true;
            self.lingering_words += open.words;
            self.lingering.push_back(id);
        }
        self.hold(words)?;
        while self.lingering.len() > LINGERING_REQUESTS || self.lingering_words > LINGERING_WORDS {
            self.release();
        }
        Ok(())
    }

    /// Gives out the request that lingers longest.
    fn release(&mut self) {
        let id = self.lingering.pop_front().expect("a word is held by a lingering request");
        let open = self.open.remove(&id).expect("a lingering request is open");
        self.lingering_words -= open.words;
        self.held_words -= open.words;
        self.ready.push_back(open.numbered());
    }

    /// The file is at its end: gives out all that is left.
    pub fn end(&mut self) -> Result<()> {
        while !self.lingering.is_empty() {
            self.release();
        }
        let mut left: Vec<_> = std::mem::take(&mut self.open).into_values().collect();
        left.sort_unstable_by_key(|open| open.number);
        for open in left {
            let ended = open.progress.end(&open.request);
            ended.map_err(|error| super::in_line(error, open.line))?;
            self.ready.push_back(open.numbered());
        }
        Ok(())
    }

    /// The next complete request.
    pub fn pop(&mut self) -> Option<Numbered> {
        self.ready.pop_front()
    }
}
