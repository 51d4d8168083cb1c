//! The simulated machine: a host thread, a compute queue and a copy engine on the event engine, with prices.

use super::Observer;
use super::closed::PassSums;
use crate::cost::{Device, Price, PriceCache};
use crate::engine::{Ended, Engine, Occurrence, Plan, ResourceId, Task};
use crate::lower::{Graph, Node};
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
    link: ResourceId,
    /// What `step` fidelity runs: whole passes.
    pass: ResourceId,
    summed: PassSums,
    pub graphed: Graphed,
}

impl Machine {
    pub fn new(device: Device) -> Self {
        let mut engine = Engine::new();
        let host = engine.add_resource("host", 1);
        let compute = engine.add_resource("compute", 1);
        let copy = engine.add_resource("copy", 1);
        let link = engine.add_resource("link", 1);
        let pass = engine.add_resource("pass", 1);
        Machine {
            device,
            engine,
            host,
            compute,
            copy,
            link,
            pass,
            summed: PassSums::default(),
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

    /// Fraction of the time so far that each resource was busy; the link where asked for.
    pub fn busy_shares(&self, with_link: bool) -> Vec<(String, f64)> {
        let all = self.now().s().max(f64::MIN_POSITIVE);
        let PassSums { host, compute, copy, link, .. } = self.summed;
        let in_passes = [host, compute, copy, link];
        let resources = self.engine.resources().zip(in_passes).take(if with_link { 4 } else { 3 });
        resources.map(|((name, _, busy), summed)| (name.into(), (busy + summed).s() / all)).collect()
    }

    /// Time so far that the host, the compute queue and the copy engine were busy.
    pub fn busy_times(&self) -> [SimTime; 3] {
        let PassSums { host, compute, copy, .. } = self.summed;
        let mut times = [host, compute, copy];
        times.iter_mut().zip(self.engine.resources()).for_each(|(time, (_, _, busy))| *time += busy);
        times
    }

    /// What a pass, or a part of one, that is not run here keeps busy.
    pub fn add(&mut self, sums: &PassSums) {
        self.summed.host += sums.host;
        self.summed.compute += sums.compute + sums.conditions;
        self.summed.copy += sums.copy;
        self.summed.link += sums.link;
    }

    /// Runs a pass as one event.
    pub fn run_whole(&mut self, sums: &PassSums, ledger: &mut Ledger) {
        ledger.critical_path += sums.critical_path;
        self.add(sums);
        let mut plan = std::mem::take(&mut self.graphed.plan);
        plan.clear();
        plan.push(Task { resource: self.pass, duration: sums.length }, &[]);
        self.graphed.plan = self.run_plan(plan, &mut |_| {});
    }

    fn run_plan(&mut self, plan: Plan, log: &mut impl FnMut(&Ended)) -> Plan {
        self.engine.submit(plan);
        match self.engine.run(log) {
            Occurrence::PlanDone(plan) => plan,
            Occurrence::Timer(_) | Occurrence::Idle => unreachable!("the plan was the only thing to happen"),
        }
    }

    /// Where a call runs, for how long, and its price if it is a kernel.
    #[inline]
    fn task(&self, node: &Node, (device, prices): (&Device, &mut PriceCache)) -> (Task, Option<Price>) {
        let launch = self.device.launch();
        match *node {
            Node::Kernel { ref kernel, captured } => {
                let price = prices.price(device, kernel);
                let duration = price.time + launch.gap(captured);
                (Task { resource: self.compute, duration }, Some(price))
            }
            Node::Collective { operation, bytes, captured } => {
                let price = device.exchange(operation, bytes);
                let duration = price.time + launch.gap(captured);
                (Task { resource: self.compute, duration }, Some(price))
            }
            Node::Exchange { mode, part, ref call, captured } => {
                let price = device.expert_exchange(mode, part, call);
                let duration = price.time + launch.gap(captured);
                (Task { resource: self.compute, duration }, Some(price))
            }
            Node::Join | Node::Await => (Task { resource: self.compute, duration: SimTime::ZERO }, None),
            Node::Fetch { bytes } | Node::Swap { bytes } => {
                (Task { resource: self.link, duration: self.device.fetch(bytes).0 }, None)
            }
            // Recorded launches were done before anything of the pass began.
            Node::Launch if launch.recorded => (Task { resource: self.host, duration: SimTime::ZERO }, None),
            Node::Launch => (Task { resource: self.host, duration: launch.kernel }, None),
            Node::LaunchGraph => (Task { resource: self.host, duration: launch.graph }, None),
            Node::Decide => (Task { resource: self.host, duration: launch.host_decision }, None),
            Node::Learn => (Task { resource: self.host, duration: SimTime::ZERO }, None),
            Node::Conditions { count } => {
                let duration = launch.conditional.times(count.into());
                (Task { resource: self.compute, duration }, None)
            }
            Node::Readback { bytes } => {
                let duration = launch.readback.max(self.device.host_copy(bytes.into()));
                (Task { resource: self.copy, duration }, None)
            }
        }
    }

    /// Prices the graph, at the clock of its pass, and makes its plan. `step`, the host's own work for a scheduler step, comes first.
    pub fn price(
        &self,
        graphed: &mut Graphed,
        (device, cache): (&Device, &mut PriceCache),
        step: SimTime,
        ledger: &mut Ledger,
    ) {
        let Graphed { graph, prices, plan } = graphed;
        plan.clear();
        prices.clear();
        let launch = self.device.launch();
        let mut duration = step;
        if launch.recorded {
            let launches = graph.calls().iter().filter(|call| call.node == Node::Launch).count();
            duration += launch.kernel.times(launches as u64);
        }
        let begin = plan.push(Task { resource: self.host, duration }, &[]);
        let mut shifted = Vec::new();
        for (index, call) in graph.calls().iter().enumerate() {
            let (task, price) = self.task(&call.node, (device, &mut *cache));
            if let Some(price) = &price {
                ledger.plan(price, 1);
            }
            match call.node {
                Node::Fetch { bytes } => ledger.fetch(bytes, task.duration, self.device.fetch(bytes).1),
                Node::Swap { bytes } => ledger.swap(bytes, task.duration, self.device.fetch(bytes).1),
                _ => {}
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
        let mut log = |ended: &Ended| {
            let Some(index) = ended.index.checked_sub(1) else { return };
            let (call, price) = (&graph.calls()[index as usize], &prices[index as usize]);
            if let (Some(class), Some(price)) = (call.node.class(), price) {
                let time = ended.end - ended.start;
                ledger.kernel(call.cause, class as usize, price, time, 1);
                ledger.draw(static_w, price, time);
            }
            observer.call(call, price.as_ref(), ended);
        };
        let plan = self.run_plan(plan, &mut log);
        Graphed { graph, prices, plan }
    }
}
