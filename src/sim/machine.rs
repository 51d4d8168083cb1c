//! The simulated machine: a host thread, a compute queue and a copy engine on the event engine, with prices.

use super::Observer;
use crate::cost::{Device, Price, PriceCache};
use crate::engine::{Engine, Occurrence, Plan, ResourceId, Task};
use crate::lower::{Call, Graph, Node};
use crate::metrics::Ledger;
use crate::units::SimTime;

/// A graph with its prices and its plan; the memory of one pass, used again for the next.
#[derive(Debug, Default)]
pub(super) struct Graphed {
    pub graph: Graph,
    prices: Vec<Option<Price>>,
    plan: Plan,
}

/// The machine.
pub(super) struct Machine {
    device: Device,
    engine: Engine,
    host: ResourceId,
    compute: ResourceId,
    copy: ResourceId,
    prices: PriceCache,
    pub graphed: Graphed,
}

impl Machine {
    pub fn new(device: Device) -> Self {
        let mut engine = Engine::new();
        let host = engine.add_resource("host", 1);
        let compute = engine.add_resource("compute", 1);
        let copy = engine.add_resource("copy", 1);
        Machine {
            device,
            engine,
            host,
            compute,
            copy,
            prices: PriceCache::default(),
            graphed: Graphed::default(),
        }
    }

    pub fn now(&self) -> SimTime {
        self.engine.now()
    }

    /// Nothing runs until `time`.
    pub fn wait_until(&mut self, time: SimTime) {
        self.engine.set_timer(time, 0);
        let occurrence = self.engine.run(&mut |_| {});
        assert!(matches!(occurrence, Occurrence::Timer(0)), "only the timer was left to happen");
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Fraction of the time so far that each resource was busy.
    pub fn busy_shares(&self) -> Vec<(String, f64)> {
        let all = self.now().s().max(f64::MIN_POSITIVE);
        self.engine
            .resources()
            .map(|(name, servers, busy)| (name.into(), busy.s() / all / f64::from(servers)))
            .collect()
    }

    /// Where a call runs, for how long, and its price if it is a kernel.
    #[inline]
    fn task(&mut self, node: &Node) -> (Task, Option<Price>) {
        let launch = self.device.launch();
        match *node {
            Node::Kernel { ref kernel, captured } => {
                let price = self.prices.price(&self.device, kernel);
                let duration = if captured { price.time + launch.graph_gap } else { price.time };
                (Task { resource: self.compute, duration }, Some(price))
            }
            Node::Join => (Task { resource: self.compute, duration: SimTime::ZERO }, None),
            Node::Launch => (Task { resource: self.host, duration: launch.kernel }, None),
            Node::LaunchGraph => (Task { resource: self.host, duration: launch.graph }, None),
            Node::Decide => (Task { resource: self.host, duration: launch.host_decision }, None),
            Node::Readback { bytes } => {
                let duration = launch.readback.max(self.device.host_copy(bytes.into()));
                (Task { resource: self.copy, duration }, None)
            }
        }
    }

    /// Prices the graph and makes its plan. `step`: the host's own work for a scheduler step comes first.
    pub fn price(&mut self, graphed: &mut Graphed, step: bool, ledger: &mut Ledger) {
        let Graphed { graph, prices, plan } = graphed;
        plan.clear();
        prices.clear();
        let duration = if step { self.device.launch().step } else { SimTime::ZERO };
        let begin = plan.push(Task { resource: self.host, duration }, &[]);
        let mut shifted = Vec::new();
        for (index, call) in graph.calls().iter().enumerate() {
            let (task, price) = self.task(&call.node);
            if let Some(price) = &price {
                ledger.plan(price);
            }
            prices.push(price);
            // Task 0 is the host's step; call i is task i + 1.
            match graph.predecessors(index) {
                [] => plan.push(task, &[begin]),
                [a] => plan.push(task, &[a + 1]),
                [a, b] => plan.push(task, &[a + 1, b + 1]),
                many => {
                    shifted.clear();
                    shifted.extend(many.iter().map(|before| before + 1));
                    plan.push(task, &shifted)
                }
            };
        }
    }

    /// Runs the plan to its end.
    pub fn run(&mut self, graphed: Graphed, ledger: &mut Ledger, observer: &mut impl Observer) -> Graphed {
        let Graphed { graph, prices, plan } = graphed;
        ledger.critical_path += plan.critical_path();
        let (static_w, _) = self.device.static_and_idle_w();
        self.engine.submit(plan);
        let mut log = |ended: &crate::engine::Ended| {
            let Some(index) = ended.index.checked_sub(1) else { return };
            let (call, price) = (&graph.calls()[index as usize], &prices[index as usize]);
            if let (Node::Kernel { kernel, .. }, Some(price)) = (&call.node, price) {
                let time = ended.end - ended.start;
                ledger.kernel(call.cause, kernel.class() as usize, price, time);
                let watts = static_w + price.dynamic_pj as f64 / time.ps().max(1) as f64;
                ledger.peak_w = ledger.peak_w.max(watts);
            }
            observer.call(call, price.as_ref(), ended);
        };
        let Occurrence::PlanDone(plan) = self.engine.run(&mut log) else {
            unreachable!("the plan was the only thing to happen")
        };
        Graphed { graph, prices, plan }
    }

    /// Host time of a scheduler step.
    pub fn step_time(&self) -> SimTime {
        self.device.launch().step
    }

    /// Time of the graph's read-backs and of the decisions that wait for them.
    pub fn decision_time(&mut self, graph: &Graph) -> SimTime {
        let decides = |call: &&Call| matches!(call.node, Node::Readback { .. } | Node::Decide);
        graph.calls().iter().filter(decides).map(|call| self.task(&call.node).0.duration).sum()
    }

    /// Device time of the graph's kernels by cause, and the time of the whole pass, without running it.
    pub fn estimate(&mut self, graph: &Graph, step: bool, mut each: impl FnMut(&Call, SimTime)) -> SimTime {
        let step = if step { self.device.launch().step } else { SimTime::ZERO };
        let tasks = graph.calls().iter().map(|call| {
            let (task, price) = self.task(&call.node);
            if price.is_some() {
                each(call, task.duration);
            }
            task
        });
        let tasks: Vec<Task> = tasks.collect();
        chain(step, &tasks, graph)
    }
}

/// When a pass ends whose resources each serve one task after another in the order of the graph: the closed form that
/// event-by-event execution must equal. `begin`: when the first task may start.
pub fn chain(begin: SimTime, tasks: &[Task], graph: &Graph) -> SimTime {
    let mut free: Vec<SimTime> = Vec::new();
    let mut ends: Vec<SimTime> = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let before = graph.predecessors(index).iter().map(|&before| ends[before as usize]).max();
        let resource = task.resource.0 as usize;
        if free.len() <= resource {
            free.resize(resource + 1, begin);
        }
        let end = before.unwrap_or(begin).max(free[resource]) + task.duration;
        free[resource] = end;
        ends.push(end);
    }
    ends.into_iter().max().unwrap_or(begin)
}
