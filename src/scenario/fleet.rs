//! How many engines a variant has, and how requests come to them.

use super::inputs::Inputs;
use super::split::ApartSpec;
use super::split::Split;
use super::{Note, ParallelSpec, Scenario};
use crate::batch::Policy;
use crate::cost::Ranks;
use crate::error::{InputError, Result};
use crate::hw::{Hardware, Operation};
use crate::model::Model;
use crate::sched::Admission;
use crate::sim::fleet::{Apart, Fleet, RequestRouter};
use crate::trace::Request;
use std::sync::Arc;

/// Engines of a variant, at most.
const MOST_ENGINES: u32 = 4096;

/// What of a variant decides whether its engines can be several.
pub(super) struct Engine<'a> {
    pub hardware: &'a Hardware,
    pub model: &'a Model,
    pub requests: &'a [Request],
    pub policy: Policy,
    pub streamed: bool,
    pub has_layers_apart: bool,
}

impl Scenario {
    /// The engines of a variant.
    ///
    /// # Errors
    /// A number out of range, a router that needs what the scenario does not have, what prefill and decode apart do not go with.
    pub(super) fn fleet(
        &self,
        inputs: &Inputs,
        split: &Split,
        engine: &Engine,
        notes: &mut Vec<Note>,
    ) -> Result<Fleet> {
        let Split { spec, of } = split;
        let router = spec.router;
        let counts = match spec.apart {
            None => vec![("replicas", spec.replicas)],
            Some(ApartSpec { prefill, decode }) => vec![("apart.prefill", prefill), ("apart.decode", decode)],
        };
        for (key, count) in counts {
            if !(1..=MOST_ENGINES).contains(&count) {
                let error = InputError::expected(format!("1 to {MOST_ENGINES} engines"));
                return Err(error.key(format!("{of}.{key}")).found(count).into());
            }
        }
        if spec.apart.is_none() && spec.replicas == 1 && spec.data == 1 {
            return Ok(Fleet::ALONE);
        }
        if engine.has_layers_apart {
            let (key, found) = match &spec.apart {
                None => ("replicas", spec.replicas.to_string()),
                Some(apart) => ("apart", format!("{} and {}", apart.prefill, apart.decode)),
            };
            let expected = "one engine, where it has pipeline stages or layers placed on devices: several of them are not modelled";
            return Err(InputError::expected(expected).key(format!("{of}.{key}")).found(found).into());
        }
        if router == RequestRouter::Prefix && self.serving.prefix_caching.is_none() {
            let expected = "serving.prefix_caching, as this router asks who keeps the prefix of a prompt; or another router";
            return Err(InputError::expected(expected)
                .key(format!("{of}.router"))
                .found(router.name())
                .into());
        }
        let why = "power_w.peak and power_w.hottest_pass are those of one engine: when several draw their most at once is not added up";
        notes.push(Note::new(format!("{of}: largest draw"), "of one engine", why));
        let why = "requests reach the chosen engine at once, and choosing takes no time";
        notes.push(Note::new(format!("{of}: time of the router"), "0", why));
        if router.looks() {
            let why = "the router knows the engines as they are at that instant; real ones hear of them late";
            notes.push(Note::new(format!("{of}.router"), router.name(), why));
        }
        let rounds = spec.data > 1;
        let replicas = if rounds { spec.data } else { spec.replicas };
        let fleet = Fleet { replicas, router, seed: self.seed, apart: None, rounds };
        match spec.apart {
            None => Ok(fleet),
            Some(apart) => {
                self.goes_apart(spec, of, engine)?;
                let fabric = split.fabric(&self.folder, inputs, engine.hardware, notes)?;
                let draws =
                    "no profile says what links and switches draw, so energy is that of the devices alone";
                notes.push(Note::new(format!("{of}: energy of {}", fabric.name), "0", draws));
                let devices = (apart.prefill + apart.decode) * spec.tensor;
                let link = Ranks::pair(&fabric, devices, spec.collectives)
                    .map_err(|error| InputError { key: Some(format!("{of}.apart")), ..error })?;
                let why = "entries of a prompt go in one message when it is over, once there are places for them; engines that send layer by layer \
                           hide part of it behind the prompt, and a copy takes no time of the device here";
                notes.push(Note::new(format!("{of}.apart"), fabric.name.clone(), why));
                notes.push(message(&link, of, engine));
                let apart_of = Apart { decode: apart.decode, link: Arc::new(link) };
                Ok(Fleet { replicas: apart.prefill, apart: Some(apart_of), ..fleet })
            }
        }
    }

    /// Refuses what prefill and decode apart do not go with.
    fn goes_apart(&self, spec: &ParallelSpec, of: &str, engine: &Engine) -> Result<()> {
        let refuse = |key: String, found: String, expected: &str| {
            Err(InputError::expected(format!("{expected}, where prefill and decode are apart"))
                .key(key)
                .found(found)
                .into())
        };
        if spec.replicas != 1 {
            return refuse(format!("{of}.replicas"), spec.replicas.to_string(), "no replicas beside");
        }
        if let RequestRouter::Prefix | RequestRouter::Queue = spec.router {
            return refuse(
                format!("{of}.router"),
                spec.router.name().into(),
                "a router by turn, chance or load",
            );
        }
        if let Some(caching) = self.serving.prefix_caching {
            let found = format!("{} tokens", caching.block_tokens);
            return refuse("serving.prefix_caching".into(), found, "none");
        }
        if self.serving.admission == Admission::Whole {
            let expected = "as_it_comes or whole_prompt";
            return refuse("serving.admission".into(), "whole".into(), expected);
        }
        if engine.streamed {
            return refuse("tiers".into(), "layers that come over a link".into(), "all layers on the device");
        }
        if let Policy::Queued { .. } = engine.policy {
            return refuse("policy".into(), engine.policy.name().into(), "a policy without queues");
        }
        Ok(())
    }
}

/// What the entries of a prompt take on the link, and who says so: error bars do not know it.
fn message(link: &Ranks, of: &str, engine: &Engine) -> Note {
    let tokens: u64 = engine.requests.iter().map(|request| u64::from(request.prompt_tokens)).sum();
    let mean = tokens / (engine.requests.len() as u64).max(1);
    let bytes = mean * u64::from(engine.model.layers) * engine.model.kv_entry_bytes();
    let price = link.exchange(Operation::SendReceive, bytes);
    let value = format!("{:.3} ms", price.time.us() / 1e3);
    let why = format!(
        "{} MB between two devices, the entries of {mean} prompt tokens at every layer ({}); no part of the error bars",
        bytes / 1_000_000,
        price.source
    );
    Note::new(format!("{of}.apart: time of a message"), value, why)
}
