//! Time, tasks, resources and memory pools. Knows no model and no token.
//!
//! A [`Plan`] is a graph of tasks; each task holds one server of one resource for a fixed time. A free server takes the
//! ready task that was submitted first (earlier plan, then earlier index), as an in-order stream does. Links are resources
//! whose tasks last bytes over bandwidth. The loop is explicit: [`Engine::run`] runs tasks and returns when a plan ends or a timer fires.

mod event;
mod plan;
mod pool;

pub use event::{EventClass, EventQueue};
pub use plan::{Plan, Task};
pub use pool::Pool;

use crate::units::SimTime;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Index of a resource, as [`Engine::add_resource`] returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(pub u16);

/// What a task was, once it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Index of the task in its plan.
    pub index: u32,
    /// Where it ran.
    pub resource: ResourceId,
    /// When it became ready: all its predecessors had ended.
    pub ready: SimTime,
    /// When it got its server.
    pub start: SimTime,
    /// When it left it.
    pub end: SimTime,
}

/// Why [`Engine::run`] returned.
#[derive(Debug)]
pub enum Occurrence {
    /// All tasks of a plan ended. The plan comes back, so that its memory serves the next one.
    PlanDone(Plan),
    /// A timer fired; this is the number it was set with.
    Timer(u64),
    /// Nothing is left to happen.
    Idle,
}

#[derive(Debug)]
struct Resource {
    name: String,
    servers: u32,
    free: u32,
    /// Ready tasks without a server, by submission.
    waiting: BinaryHeap<Reverse<(u64, TaskRef)>>,
    busy: SimTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskRef {
    index: u32,
    plan: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    TaskEnd(TaskRef),
    Timer(u64),
}

/// A run of the machine: the clock, the events to come, and who holds what.
#[derive(Debug, Default)]
pub struct Engine {
    now: SimTime,
    events: EventQueue<Payload>,
    resources: Vec<Resource>,
    plans: Vec<Option<Plan>>,
    tasks_ended: u64,
    submitted: u64,
}

impl Engine {
    /// An engine at time zero with no resources.
    pub fn new() -> Self {
        Engine::default()
    }

    /// A resource with this many servers.
    pub fn add_resource(&mut self, name: impl Into<String>, servers: u32) -> ResourceId {
        assert!(servers > 0, "a resource without servers never serves");
        let id = ResourceId(u16::try_from(self.resources.len()).expect("fewer than 65536 resources"));
        let waiting = BinaryHeap::new();
        self.resources.push(Resource {
            name: name.into(),
            servers,
            free: servers,
            waiting,
            busy: SimTime::ZERO,
        });
        id
    }

    /// The clock.
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// Tasks that have ended so far.
    pub fn tasks_ended(&self) -> u64 {
        self.tasks_ended
    }

    /// Each resource: name, servers, and server time spent on tasks that have started.
    pub fn resources(&self) -> impl Iterator<Item = (&str, u32, SimTime)> {
        self.resources.iter().map(|resource| (resource.name.as_str(), resource.servers, resource.busy))
    }

    /// Fires at `at` (not before now) with this number.
    pub fn set_timer(&mut self, at: SimTime, number: u64) {
        assert!(at >= self.now, "a timer in the past");
        self.events.push(at, EventClass::Timer, Payload::Timer(number));
    }

    /// Starts a plan now. Its tasks without predecessors are ready at once, in their order.
    pub fn submit(&mut self, mut plan: Plan) {
        self.submitted += 1;
        plan.seal(self.submitted);
        let slot = self.plans.iter().position(Option::is_none).unwrap_or(self.plans.len());
        if slot == self.plans.len() {
            self.plans.push(None);
        }
        let empty = plan.is_empty();
        let first: Vec<u32> = plan.roots().collect();
        self.plans[slot] = Some(plan);
        if empty {
            // An empty plan ends at once, through the queue like every other end.
            self.events.push(
                self.now,
                EventClass::TaskEnd,
                Payload::TaskEnd(TaskRef { plan: slot as u32, index: u32::MAX }),
            );
        }
        for index in first {
            self.ready(TaskRef { plan: slot as u32, index });
        }
    }

    /// Runs until a plan ends, a timer fires or nothing is left. `log` hears of each task that ends, in order of time.
    pub fn run(&mut self, log: &mut impl FnMut(&Ended)) -> Occurrence {
        while let Some((time, payload)) = self.events.pop() {
            assert!(time >= self.now, "time never runs backwards");
            self.now = time;
            match payload {
                Payload::Timer(number) => return Occurrence::Timer(number),
                Payload::TaskEnd(task) if task.index == u32::MAX => {
                    let plan = self.plans[task.plan as usize].take();
                    return Occurrence::PlanDone(plan.expect("an empty plan stays until its end event"));
                }
                Payload::TaskEnd(task) => {
                    if let Some(plan) = self.end(task, log) {
                        return Occurrence::PlanDone(plan);
                    }
                }
            }
        }
        Occurrence::Idle
    }

    #[inline]
    fn ready(&mut self, task: TaskRef) {
        let plan = self.plans[task.plan as usize].as_mut().expect("a ready task has a plan");
        let id = plan.set_ready(task.index, self.now);
        let resource = &mut self.resources[id.0 as usize];
        // A server that has just become free goes to whoever was submitted first, once all who become ready are known.
        if resource.free > 0 && resource.waiting.is_empty() {
            self.start(task, id);
        } else {
            resource.waiting.push(Reverse((plan.number(), task)));
        }
    }

    #[inline]
    fn start(&mut self, task: TaskRef, id: ResourceId) {
        let plan = self.plans[task.plan as usize].as_mut().expect("a started task has a plan");
        let duration = plan.set_start(task.index, self.now);
        let resource = &mut self.resources[id.0 as usize];
        resource.free -= 1;
        resource.busy += duration;
        self.events.push(self.now + duration, EventClass::TaskEnd, Payload::TaskEnd(task));
    }

    /// Ends a task: frees its server, makes successors ready, gives the server to the first in line. Returns the plan if it is over.
    #[inline]
    fn end(&mut self, task: TaskRef, log: &mut impl FnMut(&Ended)) -> Option<Plan> {
        let plan = self.plans[task.plan as usize].as_mut().expect("a running task has a plan");
        let ended = plan.ended(task.index, self.now);
        log(&ended);
        self.tasks_ended += 1;

        self.resources[ended.resource.0 as usize].free += 1;
        let mut successor =
            self.plans[task.plan as usize].as_ref().expect("still there").first_successor(task.index);
        while let Some(edge) = successor {
            let plan = self.plans[task.plan as usize].as_mut().expect("still there");
            let (index, is_ready, next) = plan.release(edge);
            if is_ready {
                self.ready(TaskRef { plan: task.plan, index });
            }
            successor = next;
        }
        let resource = &mut self.resources[ended.resource.0 as usize];
        if resource.free > 0
            && let Some(Reverse((_, waiting))) = resource.waiting.pop()
        {
            self.start(waiting, ended.resource);
        }
        let over = self.plans[task.plan as usize].as_ref().expect("still there").is_over();
        if over { self.plans[task.plan as usize].take() } else { None }
    }
}
