//! Devices that compute one model together.

use super::inputs::Inputs;
use super::{Note, Scenario, Variant};
use crate::batch::ExchangeChoice;
use crate::cost::Ranks;
use crate::error::{InputError, Result};
use crate::hw::{Fabric, Hardware, Library};
use crate::model::Model;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a model is split over devices.
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
    /// Which of DeepEP's kernels bring tokens to their experts.
    #[serde(default)]
    pub exchange: ExchangeChoice,
    /// What joins them: a shipped fabric, a file, or several with `+` between them; absent: that of the machines in which the device is sold.
    #[serde(default)]
    pub fabric: Option<String>,
    /// Whose collectives they use.
    #[serde(default = "vllm")]
    pub collectives: Library,
}

fn vllm() -> Library {
    Library::Vllm
}

impl Default for ParallelSpec {
    fn default() -> Self {
        ParallelSpec {
            tensor: 1,
            experts: 1,
            exchange: ExchangeChoice::default(),
            fabric: None,
            collectives: vllm(),
        }
    }
}

impl Scenario {
    /// The part of the model that a device of the variant has, and the devices that compute it together.
    ///
    /// # Errors
    /// A split that does not go evenly, a fabric that is not there or too small.
    pub(super) fn split(
        &self,
        inputs: &Inputs,
        variant: &Variant,
        (model, hardware): (&Model, &Hardware),
        notes: &mut Vec<Note>,
    ) -> Result<(Model, Option<Arc<Ranks>>)> {
        let (spec, of) = match (&variant.parallel, &self.parallel) {
            (Some(own), _) => (own, format!("variants.{}.parallel", variant.name)),
            (None, Some(of_all)) => (of_all, "parallel".to_owned()),
            (None, None) => return Ok((model.clone(), None)),
        };
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
        if key == "experts" && (variant.tiers.is_some() || self.tiers.is_some()) {
            let error = InputError::expected("1 beside tiers: experts that are spread are not streamed");
            return Err(error.key(format!("{of}.experts")).found(devices).into());
        }
        let Some(name) = spec.fabric.as_deref().or_else(|| Fabric::usual(&hardware.name)) else {
            let names = Fabric::shipped_names().join(", ");
            let expected = format!("a fabric that joins devices: a file, or one of {names}");
            return Err(InputError::expected(expected).key(format!("{of}.fabric")).found("none").into());
        };
        if spec.fabric.is_none() {
            let why = "the machines in which this device is sold have it";
            notes.push(Note::new(format!("{of}.fabric"), name, why));
        }
        let named = |mut error: InputError, part: &str| {
            error.key = Some(format!("{of}.{part}"));
            error
        };
        let fabric = inputs.fabric(&self.folder, name)?;
        let ranks = Ranks::new(&fabric, devices, spec.collectives).map_err(|error| named(error, key))?;
        let why = "no profile says what links and switches draw, so energy is that of the devices alone";
        notes.push(Note::new(format!("{of}: energy of {name}"), "0", why));
        let cut = if key == "experts" { model.spread_over(devices) } else { model.shard(devices) };
        let part = cut.map_err(|error| match error {
            crate::error::Error::Input(input) => named(*input, key).into(),
            other => other,
        })?;
        let ranks = if key == "experts" {
            let why = "tokens of a pass are spread evenly over the devices, those of one prompt too: where few prompts run, the device that \
                       has a prompt takes longer. Experts lie in their order, the device with most rows decides, and energy is that of all at its pace";
            notes.push(Note::new(format!("{of}.experts"), devices, why));
            ranks.exchanging(&fabric).map_err(|error| {
                let part = if error.key.as_deref() == Some("fabric") { "fabric" } else { "experts" };
                named(error, part)
            })?
        } else {
            ranks
        };
        Ok((part, Some(Arc::new(ranks))))
    }
}
