//! What starts kernels: the engine whose host times count, and how the host comes to know what a router decided. Combinations that no
//! machine can run are refused by name.

use super::{Note, Scenario, Variant};
use crate::batch::{Decisions, Policy, Visibility};
use crate::error::{InputError, Result};
use crate::hw::{Hardware, ServingEngine};
use crate::lower::{Dispatch, When};
use crate::trace::{RouterWhen, Trace};

/// What reports call the host times of a scenario that names no engine.
pub const OWN: &str = "profile";

/// The engine under this key; none where the device's own launches count.
pub(super) fn engine(name: Option<&String>, key: &str) -> Result<Option<ServingEngine>> {
    let named = |name: &String| {
        ServingEngine::named(name).map_err(|error| {
            let expected = format!("{OWN} or {}", error.expected);
            InputError { expected, ..error }.key(key).into()
        })
    };
    name.filter(|name| *name != OWN).map(named).transpose()
}

impl Scenario {
    /// The same with the host times of one engine for all variants. Where it captures no graphs, no pass is captured, and variants that need
    /// a graph with all layers are left out.
    ///
    /// # Errors
    /// A name that no engine has.
    pub fn under(&self, name: &str) -> Result<Scenario> {
        let name = name.to_owned();
        let captures = engine(Some(&name), "engine")?.is_none_or(|engine| engine.captures());
        let mut scenario = Scenario { engine: Some(name), ..self.clone() };
        if !captures {
            scenario.dispatch.capture.clear();
            let of_all = scenario.dispatch.decisions;
            let needs_graph = |variant: &Variant| {
                variant.decisions.or(of_all).is_some_and(|decisions| decisions.one_graph())
            };
            scenario.variants.retain(|variant| !needs_graph(variant));
        }
        for variant in &mut scenario.variants {
            variant.engine = None;
            variant.capture = variant.capture.take().filter(|_| captures);
        }
        Ok(scenario)
    }
}

/// Gives the device the host times of the engine.
pub(super) fn drive(hardware: &mut Hardware, engine: Option<&ServingEngine>) {
    hardware.launch = match engine {
        Some(engine) => engine.launch(&hardware.launch),
        None => hardware.own_launch(),
    };
    if hardware.is_not_cuda() {
        // HIP has none (ROCm/legacy-rocm-build issue 6398), nor has anything else.
        hardware.launch.conditional_us = None;
    }
}

/// What is said where no engine is named.
pub(super) fn remark(notes: &mut Vec<Note>) {
    let why = "no engine is named: launches take what the device profile says, close to bare CUDA; simulate --engines shows the same \
               under others";
    notes.push(Note::new("engine", OWN, why));
}

/// What a variant asks for.
pub(super) struct Asked<'a> {
    /// Name of the variant.
    pub variant: &'a str,
    pub engine: Option<&'a ServingEngine>,
    pub hardware: &'a Hardware,
    pub trace: &'a Trace,
    /// Whether layers are streamed.
    pub streamed: bool,
    /// What the scenario or the variant says.
    pub decisions: Option<Decisions>,
    /// With any decisions.
    pub dispatch: &'a Dispatch,
}

impl Asked<'_> {
    /// How the host comes to know what to launch. Without a router that takes time there is nothing to learn, but a graph may hold all
    /// layers where routes differ.
    ///
    /// # Errors
    /// What cannot be: with the reason.
    pub fn decisions(&self) -> Result<Decisions> {
        if let Some(engine) =
            self.engine.filter(|engine| !engine.captures() && !self.dispatch.capture.is_empty())
        {
            let expected = format!("[], as {} captures no graphs", engine.title);
            return Err(self.refused("capture", expected, format!("{:?}", self.dispatch.capture)));
        }
        let router = &self.dispatch.router;
        let on_device = router.when.is_some() && !router.host;
        let decisions = match self.decisions {
            None if on_device => Decisions::ReadBack,
            None => return Ok(Decisions::Known),
            Some(Decisions::Known) if on_device => {
                let expected = "read_back, prefetch, padded, conditional, switch or capacity: the router decides on the device, so the \
                                host does not know what to launch";
                return Err(self.refused("decisions", expected, "known"));
            }
            Some(decisions) => decisions,
        };
        // Routes that are known and the same for all need no choice, and nothing of an oracle can be read back.
        if router.when.is_none() && (self.trace.routes.len() <= 1 || !decisions.one_graph()) {
            return Ok(Decisions::Known);
        }
        match decisions {
            Decisions::Known | Decisions::ReadBack => {}
            Decisions::Prefetch { ahead } => self.check_prefetch(ahead)?,
            Decisions::Padded | Decisions::Conditional | Decisions::Switch => {
                self.check_one_graph(decisions)?;
                if self.dispatch.capture.is_empty() {
                    let expected = "captured sizes under dispatch.capture, which the graph is for";
                    return Err(self.refused("decisions", expected, decisions.name()));
                }
            }
            Decisions::Capacity { share } => {
                self.check_one_graph(decisions)?;
                if !(share > 0.0 && share <= 1.0) {
                    return Err(self.refused(
                        "decisions.capacity.share",
                        "a number above 0, at most 1",
                        share,
                    ));
                }
            }
        }
        let has_nodes = self.hardware.launch.conditional_us.is_some();
        if decisions.has_nodes() && !has_nodes {
            let expected = "another choice: neither the engine nor the device has conditional nodes (launch.conditional_us), which CUDA \
                            has from 12.4 on";
            return Err(self.refused("decisions", expected, decisions.name()));
        }
        Ok(decisions)
    }

    fn check_prefetch(&self, ahead: u32) -> Result<()> {
        let per_layer = matches!(self.dispatch.router.when, Some(When::Header(RouterWhen::PerLayer)));
        let layers = self.trace.header.layers;
        if !(1..layers).contains(&ahead) {
            let expected = format!("1 to {} layers", layers - 1);
            return Err(self.refused("decisions.prefetch.ahead", expected, ahead));
        }
        if !per_layer || !self.in_pool_order() {
            let expected = "a router per_layer under aligned or dense_masked with monotone routes: only there it is known which layers \
                            come next";
            return Err(self.refused("decisions", expected, "prefetch"));
        }
        Ok(())
    }

    /// A graph with a place for each layer.
    fn check_one_graph(&self, decisions: Decisions) -> Result<()> {
        let refused = |expected: &str| Err(self.refused("decisions", expected, decisions.name()));
        if self.dispatch.router.host {
            return refused("known or read_back: the router decides on the host, so it knows what to launch");
        }
        if !self.in_pool_order() {
            return refused(
                "read_back, or aligned or dense_masked with monotone routes: a graph has a place for each layer only where all tokens \
                 keep to the order of the pool",
            );
        }
        let steps =
            |route: &crate::trace::Route| route.0.windows(2).any(|pair| pair[0].layer == pair[1].layer);
        if self.trace.routes.iter().any(steps) {
            return refused("read_back: routes take a layer again, and a graph has one place for it");
        }
        if self.streamed {
            return refused("read_back: layers that are streamed come when the host asks for them");
        }
        let adapters =
            self.trace.routes.iter().flat_map(|route| &route.0).any(|step| step.modules.depth() == 0.0);
        if adapters && matches!(decisions, Decisions::Capacity { .. }) {
            return refused("another choice: how many rows adapters take does not follow from the share");
        }
        Ok(())
    }

    fn in_pool_order(&self) -> bool {
        matches!(self.dispatch.policy, Policy::Aligned | Policy::DenseMasked)
            && self.dispatch.monotone
            && self.dispatch.visibility == Visibility::SameLayer
    }

    fn refused(&self, key: &str, expected: impl Into<String>, found: impl ToString) -> crate::error::Error {
        let key = format!("variants.{}.{key}", self.variant);
        InputError::expected(expected).key(key).found(found.to_string()).into()
    }
}
