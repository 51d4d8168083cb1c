//! A list scheduler with loops over everything: slow, plain, and written apart from the engine.

/// A task: where it runs, for how long, after which earlier tasks of its plan.
#[derive(Clone, Debug)]
pub struct Toy {
    pub resource: usize,
    pub duration: u64,
    pub after: Vec<u32>,
}

/// Tasks that become known together.
#[derive(Clone, Debug)]
pub struct Submission {
    pub at: u64,
    pub tasks: Vec<Toy>,
}

/// What became of a task, in the order of ends. The engine's log does not name plans; times and order do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub index: u32,
    pub resource: usize,
    pub ready: u64,
    pub start: u64,
    pub end: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Unknown,
    Blocked,
    Ready {
        since: u64,
    },
    /// `turn`: how many tasks had started before it.
    Running {
        since: u64,
        start: u64,
        turn: usize,
    },
    Ended,
}

struct Naive<'a> {
    servers: &'a [u32],
    /// In order of submission; all the rest is found by looking at all of them.
    tasks: Vec<(usize, u32, &'a Toy, State)>,
    turns: usize,
}

impl Naive<'_> {
    fn free(&self, resource: usize) -> bool {
        let running =
            self.tasks.iter().filter(|t| t.2.resource == resource && matches!(t.3, State::Running { .. }));
        running.count() < self.servers[resource] as usize
    }

    fn start(&mut self, place: usize, now: u64) {
        let State::Ready { since } = self.tasks[place].3 else { panic!("only ready tasks start") };
        self.tasks[place].3 = State::Running { since, start: now, turn: self.turns };
        self.turns += 1;
    }

    /// The first in line for a resource.
    fn next(&self, resource: usize) -> Option<usize> {
        self.tasks.iter().position(|t| t.2.resource == resource && matches!(t.3, State::Ready { .. }))
    }

    /// Tasks of the plan whose predecessors have all ended become ready; each starts if a server idles.
    /// `freed`: a resource whose line is served after that, with all of them in it.
    fn look(&mut self, plan: usize, now: u64, freed: Option<usize>) {
        for place in 0..self.tasks.len() {
            let (owner, _, toy, state) = self.tasks[place];
            let ended = |&before: &u32| {
                self.tasks.iter().any(|t| t.0 == plan && t.1 == before && t.3 == State::Ended)
            };
            if owner == plan && state == State::Blocked && toy.after.iter().all(ended) {
                let nobody_waits = self.next(toy.resource).is_none();
                self.tasks[place].3 = State::Ready { since: now };
                if nobody_waits && self.free(toy.resource) {
                    self.start(place, now);
                }
            }
        }
        if let Some(resource) = freed
            && self.free(resource)
            && let Some(place) = self.next(resource)
        {
            self.start(place, now);
        }
    }

    /// The task that ends next; of those that end together, the one that started first.
    fn ending(&self) -> Option<(u64, usize, usize)> {
        let running = self.tasks.iter().enumerate().filter_map(|(place, t)| match t.3 {
            State::Running { start, turn, .. } => Some((start + t.2.duration, turn, place)),
            _ => None,
        });
        running.min()
    }
}

/// The log of these plans on resources with these servers.
pub fn schedule(servers: &[u32], plans: &[Submission]) -> Vec<Line> {
    let mut order: Vec<usize> = (0..plans.len()).collect();
    order.sort_by_key(|&plan| plans[plan].at);
    let toys = |&plan: &usize| {
        let tasks = plans[plan].tasks.iter().zip(0..);
        tasks.map(move |(toy, index)| (plan, index, toy, State::Unknown))
    };
    let mut naive = Naive { servers, tasks: order.iter().flat_map(toys).collect(), turns: 0 };
    let mut order = order.into_iter().peekable();
    let mut log = Vec::new();
    loop {
        let ending = naive.ending();
        // Ends come before submissions of the same instant.
        if let Some(&plan) = order.peek()
            && ending.is_none_or(|(end, ..)| plans[plan].at < end)
        {
            order.next();
            for task in naive.tasks.iter_mut().filter(|task| task.0 == plan) {
                task.3 = State::Blocked;
            }
            naive.look(plan, plans[plan].at, None);
        } else if let Some((end, _, place)) = ending {
            let (plan, index, toy, State::Running { since, start, .. }) = naive.tasks[place] else {
                unreachable!("it was running")
            };
            naive.tasks[place].3 = State::Ended;
            log.push(Line { index, resource: toy.resource, ready: since, start, end });
            naive.look(plan, end, Some(toy.resource));
        } else {
            return log;
        }
    }
}
