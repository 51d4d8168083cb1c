//! Devices that compute one model together.

use super::fleet::ApartSpec;
use super::inputs::Inputs;
use super::{Note, PlacementSpec, Scenario, Variant};
use crate::batch::ExchangeChoice;
use crate::cost::Ranks;
use crate::error::{InputError, Result};
use crate::hw::{Fabric, Hardware, Library};
use crate::model::Model;
use crate::sim::fleet::Router;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// How a model is split over devices, and how many engines have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelSpec {
    /// Tensor parallelism: devices that each have an equal part of every layer ([`Model::shard`]).
    #[serde(default = "super::one")]
    pub tensor: u32,
    /// Expert parallelism: devices that each have an equal part of the experts of every layer, and of the sequences
    /// ([`Model::spread_over`]). Not together with `tensor`.
    #[serde(default = "super::one")]
    pub experts: u32,
    /// Attention data parallelism: engines with sequences and caches of their own whose experts are spread over all of them; as many as `experts`.
    #[serde(default = "super::one")]
    pub data: u32,
    /// Which of DeepEP's kernels bring tokens to their experts.
    #[serde(default)]
    pub exchange: ExchangeChoice,
    /// Pipeline stages: devices that each have some neighbouring layers, cut as vLLM cuts them.
    #[serde(default = "super::one")]
    pub pipeline: u32,
    /// Which of `devices` has which layers, where not pipeline stages have them.
    #[serde(default)]
    pub placement: Option<PlacementSpec>,
    /// Devices of the placement; those of a list are told from it.
    #[serde(default)]
    pub devices: Option<u32>,
    /// Most passes in flight over stages or placed layers; absent: as many as these devices.
    #[serde(default)]
    pub in_flight: Option<u32>,
    /// Most sequences of such a pass; absent: as many as budget and blocks allow, as in vLLM.
    #[serde(default)]
    pub micro_batch: Option<u32>,
    /// What joins them: a shipped fabric, a file, or several with `+` between them; absent: that of the machines in which the device is sold.
    #[serde(default)]
    pub fabric: Option<String>,
    /// Whose collectives they use.
    #[serde(default = "vllm")]
    pub collectives: Library,
    /// Engines that each have all of the above, behind a router.
    #[serde(default = "super::one")]
    pub replicas: u32,
    /// Which of them a request goes to.
    #[serde(default)]
    pub router: Router,
    /// Engines that only pass prompts and others that generate, in place of `replicas`.
    #[serde(default)]
    pub apart: Option<ApartSpec>,
}

fn vllm() -> Library {
    Library::Vllm
}

impl Default for ParallelSpec {
    fn default() -> Self {
        ParallelSpec {
            tensor: 1,
            experts: 1,
            data: 1,
            exchange: ExchangeChoice::default(),
            pipeline: 1,
            placement: None,
            devices: None,
            in_flight: None,
            micro_batch: None,
            fabric: None,
            collectives: vllm(),
            replicas: 1,
            router: Router::default(),
            apart: None,
        }
    }
}

/// How a variant is split, and the key that says so.
pub(super) struct Split {
    pub spec: ParallelSpec,
    pub of: String,
}

impl Split {
    /// What joins the devices, with a note where nobody says.
    pub(super) fn fabric(
        &self,
        folder: &Path,
        inputs: &Inputs,
        hardware: &Hardware,
        notes: &mut Vec<Note>,
    ) -> Result<Arc<Fabric>> {
        let Split { spec, of } = self;
        let Some(name) = spec.fabric.as_deref().or_else(|| Fabric::usual(&hardware.name)) else {
            let names = Fabric::shipped_names().join(", ");
            let expected = format!("a fabric that joins devices: a file, or one of {names}");
            return Err(InputError::expected(expected).key(format!("{of}.fabric")).found("none").into());
        };
        if spec.fabric.is_none() {
            let why = "the machines in which this device is sold have it";
            notes.push(Note::new(format!("{of}.fabric"), name, why));
        }
        inputs.fabric(folder, name)
    }
}

impl Scenario {
    /// How a variant is split.
    pub(super) fn split_of(&self, variant: &Variant) -> Split {
        let (spec, of) = match (&variant.parallel, &self.parallel) {
            (Some(own), _) => (own.clone(), format!("variants.{}.parallel", variant.name)),
            (None, Some(of_all)) => (of_all.clone(), "parallel".to_owned()),
            (None, None) => (ParallelSpec::default(), "parallel".to_owned()),
        };
        Split { spec, of }
    }

    /// The part of the model that a device of the variant has, and the devices that compute it together.
    ///
    /// # Errors
    /// A split that does not go evenly, a fabric that is not there or too small.
    pub(super) fn split(
        &self,
        inputs: &Inputs,
        split: &Split,
        (model, hardware): (&Model, &Hardware),
        notes: &mut Vec<Note>,
    ) -> Result<(Model, Option<Arc<Ranks>>)> {
        let Split { spec, of } = split;
        for (key, devices) in [("tensor", spec.tensor), ("experts", spec.experts)] {
            if devices == 0 {
                let error = InputError::expected("a number of devices, at least 1");
                return Err(error.key(format!("{of}.{key}")).found(0).into());
            }
        }
        if spec.tensor > 1 && spec.experts > 1 {
            let error = InputError::expected(
                "1 beside tensor: layers cut and experts spread at once are not modelled",
            );
            return Err(error.key(format!("{of}.experts")).found(spec.experts).into());
        }
        let (key, devices) =
            if spec.experts > 1 { ("experts", spec.experts) } else { ("tensor", spec.tensor) };
        if devices == 1 {
            return Ok((model.clone(), None));
        }
        let fabric = split.fabric(&self.folder, inputs, hardware, notes)?;
        let named = |mut error: InputError, part: &str| {
            error.key = Some(format!("{of}.{part}"));
            error
        };
        let ranks = Ranks::new(&fabric, devices, spec.collectives).map_err(|error| named(error, key))?;
        let why = "no profile says what links and switches draw, so energy is that of the devices alone";
        notes.push(Note::new(format!("{of}: energy of {}", fabric.name), "0", why));
        let cut = if key == "experts" { model.spread_over(devices) } else { model.shard(devices) };
        let part = cut.map_err(|error| match error {
            crate::error::Error::Input(input) => named(*input, key).into(),
            other => other,
        })?;
        let ranks = if key == "experts" {
            let spread = "tokens of a pass are spread evenly over the devices, those of one prompt too: where few prompts run, the device that \
                       has a prompt takes longer. Experts lie in their order, the device with most rows decides, and energy is that of all at its pace";
            let own = "each engine has its own sequences, and all wait for the slowest pass, at its end and not at each exchange; a dummy pass brings one \
                       token to the experts and takes no energy here. Experts lie in their order, the device with most rows decides";
            notes.push(Note::new(format!("{of}.experts"), devices, if spec.data > 1 { own } else { spread }));
            ranks.exchanging(&fabric).map_err(|error| {
                let part = if error.key.as_deref() == Some("fabric") { "fabric" } else { "experts" };
                named(error, part)
            })?
        } else {
            ranks
        };
        Ok(match spec.data {
            1 => (part, Some(Arc::new(ranks))),
            _ => (part.with_own_sequences(), Some(Arc::new(ranks.of_engines()))),
        })
    }
}
