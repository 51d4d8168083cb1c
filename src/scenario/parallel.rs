//! Devices that compute one model together.

use super::inputs::Inputs;
use super::split::{ParallelSpec, Split};
use super::{Note, Scenario, Variant};
use crate::cost::Ranks;
use crate::error::{InputError, Result};
use crate::hw::Hardware;
use crate::model::Model;
use std::sync::Arc;

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
