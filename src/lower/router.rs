//! What routing costs: when a router runs, how large it is, and where it decides.

use super::emit::Emit;
use super::graph::{Call, Cause};
use super::groups::Group;
use super::sink::Sink;
use crate::kernel::Kernel;
use crate::trace::{Header, Order, Router, RouterDevice, RouterKind, RouterWhen, Trace};

/// Routing of a run, as its graphs need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPlan {
    /// When it runs; `None` where it costs nothing.
    pub when: Option<When>,
    /// Width of its MLP; 0 for a single product.
    pub hidden: u32,
    /// What it chooses among at a decision.
    pub options: u32,
    /// Whether the host decides.
    pub host: bool,
    /// Layers before which a router of each layer runs, where not all have one.
    pub only: Option<Vec<u32>>,
}

/// When a router runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As the header says.
    Header(RouterWhen),
    /// Before the steps that the trace marks with `+r`.
    Marked,
}

impl RouterPlan {
    /// A router that costs nothing.
    pub const FREE: RouterPlan = RouterPlan { when: None, hidden: 0, options: 0, host: false, only: None };

    /// The plan of a trace with this router, which is that of its header unless another is asked for.
    pub fn of_trace(router: &Router, trace: &Trace) -> Self {
        let marked = trace.routes.iter().any(|route| route.0.iter().any(|step| step.routed));
        RouterPlan::new(router, &trace.header, marked)
    }

    /// The plan of a trace whose router is `router`. `marked`: some step carries `+r`.
    ///
    /// Routers of kind `none`, `fixed` and `oracle_threshold` cost nothing: the first two decide nothing, and the third is
    /// a recorder's, which no deployed model has. Where the header does not say when it runs, a threshold
    /// and any router of marked steps runs where marks stand, else one of monotone routes at each layer, one of free
    /// routes at each hop.
    pub fn new(router: &Router, header: &Header, marked: bool) -> Self {
        let when = match (router.kind, router.when) {
            (RouterKind::None | RouterKind::Fixed | RouterKind::OracleThreshold, _) => {
                return RouterPlan::FREE;
            }
            (_, Some(when)) => When::Header(when),
            (RouterKind::Threshold, None) => When::Marked,
            (_, None) if marked => When::Marked,
            (_, None) if header.order == Order::Monotone => When::Header(RouterWhen::PerLayer),
            (_, None) => When::Header(RouterWhen::PerHop),
        };
        let options = match when {
            When::Header(RouterWhen::Upfront | RouterWhen::PerSequence) => header.layers,
            _ if header.order == Order::Any => header.layers + 1,
            _ => 2,
        };
        let host = router.device == RouterDevice::Host;
        RouterPlan {
            when: Some(when),
            hidden: router.hidden.unwrap_or(0),
            options,
            host,
            only: routed_layers(router),
        }
    }
}

/// The layers that Mixture-of-Depths routes: the list `routed_layers` in the header's router.
fn routed_layers(router: &Router) -> Option<Vec<u32>> {
    let list = router.extra.get("routed_layers")?.as_array()?;
    list.iter().map(|layer| layer.as_u64().and_then(|layer| u32::try_from(layer).ok())).collect()
}

impl<S: Sink> Emit<'_, S> {
    /// Decisions after the embedding: of every entering token, or of every sequence that starts.
    pub(super) fn enter(&mut self, tokens: u32, sequences: u32) {
        match self.dispatch.router.when {
            Some(When::Header(RouterWhen::Upfront)) => self.route(tokens, Call::NO_LAYER),
            Some(When::Header(RouterWhen::PerSequence)) => self.route(self.share(sequences), Call::NO_LAYER),
            _ => {}
        }
    }

    /// Decisions of all tokens before a layer of the pool.
    pub(super) fn route_layer(&mut self, layer: u16) {
        let plan = &self.dispatch.router;
        let has_one = plan.only.as_ref().is_none_or(|only| only.contains(&layer.into()));
        if has_one && plan.when == Some(When::Header(RouterWhen::PerLayer)) {
            self.route(self.tokens, layer);
        }
    }

    /// Decisions before the steps of a hop. Routers of layers that a token passes over see the state it has now, and
    /// are one call with that of the layer it takes.
    pub(super) fn route_hop(&mut self, wave: &[Group]) {
        if let Some(When::Header(RouterWhen::PerLayer | RouterWhen::PerHop)) = self.dispatch.router.when {
            self.route(self.share(wave.iter().map(Group::visiting).sum()), Call::NO_LAYER);
        }
    }

    /// Decisions before steps marked `+r`; in pool order also those of a router that runs at each hop.
    pub(super) fn route_marked(&mut self, groups: &[Group]) {
        match self.dispatch.router.when {
            Some(When::Marked) => {
                self.route(self.share(groups.iter().map(|group| group.routed).sum()), Call::NO_LAYER);
            }
            Some(When::Header(RouterWhen::PerHop)) if !self.in_waves() => {
                self.route(self.share(groups.iter().map(Group::visiting).sum()), Call::NO_LAYER);
            }
            _ => {}
        }
    }

    fn route(&mut self, rows: u32, layer: u16) {
        if rows == 0 {
            return;
        }
        let plan = &self.dispatch.router;
        let (width, activations) = (self.model.hidden as u32, self.model.activations);
        let kernel = Kernel::Router {
            rows: self.pad(rows),
            width,
            hidden: plan.hidden,
            options: plan.options,
            weights: activations,
            activations,
        };
        self.layer_id = layer;
        self.routing_segment();
        self.kernel(kernel, Cause::Router);
        self.layer_id = Call::NO_LAYER;
        if self.reads_back() {
            self.read_back(rows, layer);
            if self.dispatch.decisions.ahead() == 0 {
                self.learn(Call::NO_LAYER);
            }
        }
    }
}
