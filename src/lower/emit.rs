//! Calls strung together: device order, host order, launches, captured graphs, forks and joins.

use super::Dispatch;
use super::block::Formats;
use super::experts::ExpertPlan;
use super::graph::{Call, Cause, Node};
use super::groups::Group;
use super::longest::Longest;
use super::places::Places;
use super::router::When;
use super::sink::{Sink, Stretch, StretchPart};
use crate::batch::{Decisions, Policy};
use crate::hw::Operation;
use crate::kernel::{Density, Filling, Kernel};
use crate::model::Model;
use crate::tier::Residency;
use crate::trace::RouterWhen;
use crate::units::Dtype;
use std::collections::VecDeque;

/// How kernels of a pass get started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The host launches each.
    Eager,
    /// One captured graph, of layers that are known or with all layers in it; host decisions cut it.
    OneGraph,
    /// A captured graph for each group, which the host picks: which groups there are changes from pass to pass.
    GraphPerGroup,
}

/// The pass under construction.
pub(super) struct Emit<'a, S: Sink> {
    pub model: &'a Model,
    pub dispatch: &'a Dispatch,
    /// What a graph holds that is captured before the routes are known.
    places: &'a Places,
    /// Tokens of the pass.
    pub tokens: u32,
    /// Tokens whose states are on the device: a group of fewer is gathered and put back.
    pub on_device: u32,
    /// Layer that the next kernels belong to.
    pub layer_id: u16,
    /// Formats of its matrices.
    pub formats: Formats,
    sink: &'a mut S,
    start: Start,
    /// The last call of the current branch on the device.
    last: Option<u32>,
    /// The host's last call: the host does one thing after another.
    last_host: Option<u32>,
    /// A launched graph whose first kernel has not come yet.
    launched: Option<u32>,
    /// The last call and the launched graph that the branches begin behind.
    fork: (Option<u32>, Option<u32>),
    branches: Vec<u32>,
    /// Which layers are on the device, where not all are.
    pub residency: Option<&'a mut Residency>,
    /// The longest contexts of groups, and what they mean on the device; absent: nobody measured that.
    pub filling: Option<(&'a Filling, &'a Longest)>,
    /// What is known of the experts, where the model has some.
    pub experts: Option<&'a mut ExpertPlan>,
    /// Whether nobody in the pass has a prompt.
    pub generates_only: bool,
    /// Layers that were fetched in this pass and not awaited yet, with the fetch.
    on_the_way: Vec<(u16, u32)>,
    /// Decisions that are being read back, by the layer that they are about.
    reading: VecDeque<(u16, u32)>,
}

impl<'a, S: Sink> Emit<'a, S> {
    /// `tokens` of which take part in what is emitted, and `on_device`, whose states are there. `one_graph`: which groups there are does not
    /// change from pass to pass, or the graph holds all that there may be.
    pub fn new(
        model: &'a Model,
        (dispatch, places): (&'a Dispatch, &'a Places),
        sink: &'a mut S,
        (tokens, on_device): (u32, u32),
        captured: bool,
        one_graph: bool,
    ) -> Self {
        let share = |rows: u32| rows.div_ceil(model.sequence_spread());
        let start = match (captured, one_graph) {
            (false, _) => Start::Eager,
            (true, true) => Start::OneGraph,
            (true, false) => Start::GraphPerGroup,
        };
        Emit {
            model,
            dispatch,
            places,
            tokens: share(tokens),
            on_device: share(on_device),
            layer_id: Call::NO_LAYER,
            formats: Formats::whole(model),
            sink,
            start,
            last: None,
            last_host: None,
            launched: None,
            fork: (None, None),
            branches: Vec::new(),
            residency: None,
            filling: None,
            experts: None,
            generates_only: true,
            on_the_way: Vec::new(),
            reading: VecDeque::new(),
        }
    }

    /// Rows of one of the devices that sequences are spread over.
    pub fn share(&self, rows: u32) -> u32 {
        rows.div_ceil(self.model.sequence_spread())
    }

    /// Rows after padding to the captured sizes.
    pub fn pad(&self, rows: u32) -> u32 {
        // The share of the tokens that a layer takes is a size of its own.
        let given = matches!(self.dispatch.decisions, Decisions::Capacity { .. }) && rows < self.tokens;
        if self.start == Start::Eager || given {
            return rows;
        }
        self.dispatch.padded(rows)
    }

    /// Whether what the router decides is read back.
    pub fn reads_back(&self) -> bool {
        self.dispatch.router.host || self.dispatch.decisions.reads_back(self.start != Start::Eager)
    }

    /// Whether groups run hop by hop rather than in pool order.
    pub fn in_waves(&self) -> bool {
        match self.dispatch.policy {
            Policy::Aligned => false,
            Policy::DenseMasked => !self.dispatch.in_pool_order(),
            Policy::Hop | Policy::Grouped | Policy::Queued { .. } => true,
        }
    }

    /// A group begins: where graphs are captured by group, the host launches one.
    pub fn segment(&mut self) {
        let first = self.last_host.is_none();
        if self.start == Start::GraphPerGroup || (self.start == Start::OneGraph && first) {
            self.launch_graph();
        }
    }

    /// A router runs between groups: part of the one graph, or a graph of its own.
    pub fn routing_segment(&mut self) {
        if self.start == Start::GraphPerGroup && self.launched.is_none() {
            self.launch_graph();
        }
    }

    fn launch_graph(&mut self) {
        let launch = self.host(Node::LaunchGraph, Cause::Launch, None);
        self.launched = Some(launch);
    }

    /// Calls that depend on nothing but `stretch`: emitted by `calls`, unless the sink knows them.
    #[inline]
    pub fn stretch(&mut self, stretch: Stretch, calls: impl FnOnce(&mut Self)) {
        if self.sink.begin(stretch) {
            // A sink that knows stretches numbers no calls; that there were some is all that counts.
            self.launched = None;
            self.last = Some(0);
            if self.start == Start::Eager {
                self.last_host = Some(0);
            }
        } else {
            calls(self);
            self.sink.end();
        }
    }

    /// The stretch of embedding or head: kernels of so many rows of the pass.
    pub fn key_outside_layers(&self, part: StretchPart, rows: u32) -> Stretch {
        let (eager, moved) = (self.eager(), rows != self.tokens);
        let (together, rotate, kind, groups) = (false, false, 0, 1);
        let rows = self.pad(rows);
        Stretch { part, eager, moved, together, rotate, kind, rows, groups, slices: 0, width: 0, taken: 0 }
    }

    /// Whether nothing but the layer itself runs for each layer that `group` stands for.
    pub fn nothing_between(&self, group: &Group) -> bool {
        let routed = match self.dispatch.router.when {
            None | Some(When::Header(RouterWhen::Upfront | RouterWhen::PerSequence)) => false,
            Some(When::Marked) => group.routed > 0,
            Some(When::Header(RouterWhen::PerLayer | RouterWhen::PerHop)) => true,
        };
        !routed && !self.experts_differ() && self.residency.is_none() && !self.dispatch.decisions.has_nodes()
    }

    /// What comes now, up to [`Emit::end_repeat`], stands for so many times the same. False: the sink wants each.
    pub fn repeat(&mut self, times: u16) -> bool {
        self.sink.repeat(times.into())
    }

    /// What is repeated has come.
    pub fn end_repeat(&mut self) {
        self.sink.end_repeat();
    }

    /// Whether the host launches each kernel.
    pub fn eager(&self) -> bool {
        self.start == Start::Eager
    }

    /// Adds a kernel behind the last call of the branch.
    pub fn kernel(&mut self, kernel: Kernel, cause: Cause) {
        let captured = self.start != Start::Eager;
        let launch = (!captured).then(|| self.host(Node::Launch, Cause::Launch, None));
        self.device(Call { node: Node::Kernel { kernel, captured }, cause, layer: self.layer_id }, launch);
    }

    /// The devices that have parts of the model exchange `rows x width` activations, which each has whole before or afterwards. A model on one
    /// device exchanges nothing.
    pub fn collective(&mut self, operation: Operation, rows: u32, width: u64, cause: Cause) {
        if self.model.shards == 1 {
            return;
        }
        let bytes = self.model.activations.bytes(u64::from(self.pad(rows)) * width);
        self.message(|captured| Node::Collective { operation, bytes, captured }, cause);
    }

    /// A message between devices, captured or not.
    pub fn message(&mut self, node: impl Fn(bool) -> Node, cause: Cause) {
        let captured = self.start != Start::Eager;
        let launch = (!captured).then(|| self.host(Node::Launch, Cause::Launch, None));
        self.device(Call { node: node(captured), cause, layer: self.layer_id }, launch);
    }

    /// The host launches so many kernels that are parts of the next one.
    pub fn launches(&mut self, count: u32) {
        if self.start == Start::Eager {
            (0..count).for_each(|_| {
                self.host(Node::Launch, Cause::Launch, None);
            });
        }
    }

    /// A dense product `rows x inner -> rows x columns`.
    pub fn matmul(&mut self, rows: u32, inner: u32, columns: u32, weights: Dtype, cause: Cause) {
        let rows = self.pad(rows);
        let activations = self.model.activations;
        self.kernel(Kernel::product(rows, [inner, columns], weights, activations, Density::Dense), cause);
    }

    /// The device's last result, a decision about `layer`, goes to the host.
    pub fn read_back(&mut self, rows: u32, layer: u16) {
        let last = self.last.expect("a read-back follows a kernel");
        let node = Node::Readback { bytes: 4 * rows };
        let read = self.sink.push(Call { node, cause: Cause::Router, layer: Call::NO_LAYER }, &[last]);
        self.reading.push_back((layer, read));
    }

    /// The host waits for the decisions about `layer` and all layers before it, or decides them itself; nothing that follows is launched before.
    pub fn learn(&mut self, layer: u16) {
        let node = if self.dispatch.router.host { Node::Decide } else { Node::Learn };
        let mut learned = false;
        while let Some((_, read)) = self.reading.front().copied().filter(|&(about, _)| about <= layer) {
            self.reading.pop_front();
            self.host(node, Cause::Router, Some(read));
            learned = true;
        }
        if learned && self.start == Start::OneGraph {
            self.launch_graph();
        }
    }

    /// The conditional nodes before a layer, which run whether or not anybody takes it.
    pub fn conditions(&mut self, layer: u16) {
        let place = self.places.layers.get(usize::from(layer)).copied().unwrap_or_default();
        let count = match self.dispatch.decisions {
            _ if self.start == Start::Eager => 0,
            Decisions::Conditional => place.bodies,
            Decisions::Switch => place.choices,
            _ => 0,
        };
        if count > 0 {
            let call = Call { node: Node::Conditions { count }, cause: Cause::Router, layer };
            self.device(call, None);
        }
    }

    /// A call on the device, behind the last of the branch and behind what starts it.
    fn device(&mut self, call: Call, launch: Option<u32>) {
        let launch = launch.or_else(|| self.launched.take());
        let index = match (self.last, launch) {
            (Some(last), Some(launch)) => self.sink.push(call, &[last, launch]),
            (Some(before), None) | (None, Some(before)) => self.sink.push(call, &[before]),
            (None, None) => self.sink.push(call, &[]),
        };
        self.last = Some(index);
    }

    fn host(&mut self, node: Node, cause: Cause, after: Option<u32>) -> u32 {
        let call = Call { node, cause, layer: Call::NO_LAYER };
        let index = match (self.last_host, after) {
            (Some(last), Some(after)) => self.sink.push(call, &[last, after]),
            (Some(before), None) | (None, Some(before)) => self.sink.push(call, &[before]),
            (None, None) => self.sink.push(call, &[]),
        };
        self.last_host = Some(index);
        index
    }

    /// Layers that can be on the device at once for one call.
    pub fn layers_at_once(&self) -> usize {
        self.residency.as_ref().map_or(usize::MAX, |residency| residency.at_once())
    }

    /// KV entries go or come before anything runs: blocks that became free are filled anew, and those that come are read.
    pub fn swap(&mut self, bytes: u64) {
        let swap = Call { node: Node::Swap { bytes }, cause: Cause::Launch, layer: Call::NO_LAYER };
        let swap = self.sink.push(swap, &[]);
        let call = Call { node: Node::Await, cause: Cause::Launch, layer: Call::NO_LAYER };
        self.last = Some(self.sink.push(call, &[swap]));
    }

    /// The layers of these groups come to the device if they are not there, behind what has run so far: until then others
    /// may have been in their place. What else should come runs beside the groups, unless they are the `last`: no
    /// fetch reaches into the next pass on purpose.
    pub fn fetch_layers(&mut self, groups: &[Group], last: bool) {
        let Some(residency) = &mut self.residency else { return };
        let layers: Vec<u16> = groups.iter().map(|group| group.layer).collect();
        let mut fetched = Vec::new();
        residency.visit(&layers, &mut fetched);
        if !last {
            residency.ahead(&layers, &mut fetched);
        }
        let bytes = residency.layer_bytes();
        for layer in fetched {
            let call = Call { node: Node::Fetch { bytes }, cause: Cause::Launch, layer };
            let fetch = self.sink.push(call, self.last.as_slice());
            self.on_the_way.push((layer, fetch));
        }
        for layer in layers {
            if let Some(at) = self.on_the_way.iter().rposition(|&(coming, _)| coming == layer) {
                let (_, fetch) = self.on_the_way.swap_remove(at);
                let call = Call { node: Node::Await, cause: Cause::Launch, layer };
                self.last = Some(match self.last {
                    Some(last) => self.sink.push(call, &[last, fetch]),
                    None => self.sink.push(call, &[fetch]),
                });
            }
        }
    }

    /// Independent branches begin here: behind the last call, and in the graph that was just launched, if there is one.
    pub fn fork(&mut self) {
        if self.residency.is_some() {
            return;
        }
        self.fork = (self.last, self.launched);
        self.branches.clear();
        self.sink.fork();
    }

    /// A branch is complete; the next one starts where the fork was.
    pub fn branch_done(&mut self) {
        if self.residency.is_some() {
            return;
        }
        self.branches.extend(self.last);
        (self.last, self.launched) = self.fork;
        self.sink.branch();
    }

    /// What follows waits for all branches.
    pub fn join(&mut self) {
        if self.residency.is_some() {
            return;
        }
        self.sink.join();
        self.launched = None;
        self.last = match self.branches[..] {
            [] => self.fork.0,
            [only] => Some(only),
            _ => {
                let call = Call { node: Node::Join, cause: Cause::Launch, layer: Call::NO_LAYER };
                Some(self.sink.push(call, &self.branches))
            }
        };
    }
}
