//! Which experts the tokens of a run take.

use super::inputs::Inputs;
use super::note::Note;
use super::split::Split;
use super::{Routes, Scenario, Variant};
use crate::batch::{ExpertIds, ExpertLoads, ExpertUse};
use crate::error::{Error, InputError, Result};
use crate::model::Model;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which experts tokens take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpertsSpec {
    /// How rows are spread over the experts of a layer.
    #[serde(default)]
    pub load: ExpertLoads,
}

impl Scenario {
    /// Refuses experts on several devices, and experts that are drawn or recorded, beside what does not carry them.
    ///
    /// # Errors
    /// Tiers, layers on several devices, prefill and decode apart.
    pub(super) fn experts_stay_together(
        &self,
        split: &Split,
        (has_layers_apart, is_streamed): (bool, bool),
        experts: &ExpertUse,
    ) -> Result<()> {
        let Split { spec, of } = split;
        let refuse = |key: &str, found: String, expected: &str| {
            Err(InputError::expected(expected).key(format!("{of}.{key}")).found(found).into())
        };
        let drawn = experts.loads != ExpertLoads::Independent;
        if spec.experts > 1 && is_streamed {
            return refuse(
                "experts",
                spec.experts.to_string(),
                "1 beside tiers: experts that are spread are not streamed",
            );
        }
        if spec.experts > 1 && (has_layers_apart || spec.apart.is_some()) {
            let expected = "1 beside pipeline, placement and apart: experts that are spread go with engines that have all layers alone";
            return refuse("experts", spec.experts.to_string(), expected);
        }
        if drawn && has_layers_apart {
            let expected = "a load of experts of Independent beside pipeline and placement";
            return Err(InputError::expected(expected).key("experts.load").found("another").into());
        }
        Ok(())
    }

    /// Which experts the tokens of a variant take, with a note that says so.
    ///
    /// # Errors
    /// A key for a model without experts, numbers out of range, a trace that does not say what it is asked.
    pub(super) fn experts(
        &self,
        inputs: &Inputs,
        variant: &Variant,
        model: &Model,
        notes: &mut Vec<Note>,
    ) -> Result<ExpertUse> {
        let (spec, of) = match (variant.experts, self.experts) {
            (Some(own), _) => (own, format!("variants.{}.experts", variant.name)),
            (None, Some(of_all)) => (of_all, "experts".to_owned()),
            (None, None) => (ExpertsSpec::default(), String::new()),
        };
        let exchange = self.split_of(variant).spec.exchange;
        let default = ExpertUse { seed: self.seed, exchange, ..ExpertUse::default() };
        let wrong = |expected: &str| InputError::expected(expected).key(format!("{of}.load"));
        let Some(experts) = model.experts else {
            return match spec.load {
                ExpertLoads::Independent => Ok(default),
                _ => Err(wrong("a model with experts").found(&model.name).into()),
            };
        };
        let (why, recorded) = match spec.load {
            ExpertLoads::Independent => return Ok(default),
            ExpertLoads::Balanced => ("every layer deals its rows out evenly", None),
            ExpertLoads::PowerLaw(alpha) => {
                if !(alpha > 0.0 && alpha < 4.0 && alpha != 1.0) {
                    return Err(wrong("PowerLaw with an exponent above 0 and below 4, other than 1")
                        .found(alpha)
                        .into());
                }
                ("shares of experts drawn for each layer by the seed, tokens independent", None)
            }
            ExpertLoads::Correlated(share) => {
                if !(0.0..=1.0).contains(&share) {
                    return Err(wrong("Correlated with a share from 0 to 1").found(share).into());
                }
                ("so many tokens of a pass take the same experts, drawn for each layer by the seed", None)
            }
            ExpertLoads::Recorded => {
                let recorded = self
                    .recorded_experts(inputs, model)
                    .map_err(|(expected, found)| wrong(&expected).found(found))?;
                (
                    "the shares of experts that the trace's tokens took, layer by layer; tokens independent",
                    Some(recorded),
                )
            }
            ExpertLoads::ByToken => {
                let recorded = self
                    .recorded_experts(inputs, model)
                    .map_err(|(expected, found)| wrong(&expected).found(found))?;
                ("each token takes the experts that the trace says it took", Some(recorded))
            }
        };
        if spec.load == ExpertLoads::Recorded && !matches!(variant.routes, Routes::Recorded) {
            let also =
                "experts of the trace beside other routes: as often as its tokens took them where they ran";
            notes.push(Note::new(format!("variants.{}.routes", variant.name), "", also));
        }
        let value = format!("{:?}, {} of {} a token", spec.load, experts.per_token, experts.count);
        notes.push(Note::new(format!("{of}.load"), value, why));
        let named = |error: Error| match error {
            Error::Input(input) => {
                let key =
                    input.key.clone().map_or_else(|| format!("{of}.load"), |own| format!("{of}.load: {own}"));
                input.key(key).into()
            }
            other => other,
        };
        let ids = match spec.load {
            ExpertLoads::ByToken => {
                let ids = self.experts_by_token(inputs, variant, model).map_err(named)?;
                Some(Arc::new(ids))
            }
            _ => None,
        };
        Ok(ExpertUse { loads: spec.load, recorded: recorded.map(Arc::new), ids, ..default })
    }

    /// The experts of each token of the trace, where its requests run as they were recorded.
    fn experts_by_token(&self, inputs: &Inputs, variant: &Variant, model: &Model) -> Result<ExpertIds> {
        let wrong =
            |found: &str, expected: &str| -> Error { InputError::expected(expected).found(found).into() };
        let Some(path) = &self.workload.trace else {
            return Err(wrong("none", "a trace under workload.trace whose tokens have experts"));
        };
        if self.workload.requests.is_some() || self.workload.file.is_some() {
            return Err(wrong("other requests", "the requests of the trace itself, whose tokens these are"));
        }
        if !matches!(variant.routes, Routes::Recorded) {
            return Err(wrong("others", "routes: Recorded, as the experts are those of the recorded steps"));
        }
        let spec = self.split_of(variant).spec;
        if spec.data > 1 || spec.apart.is_some() {
            return Err(wrong(
                "data or apart",
                "one engine or replicas: tokens of other engines are not looked up",
            ));
        }
        if inputs.trace(&self.folder, path)?.requests.iter().any(|request| request.runs.is_empty()) {
            return Err(wrong("a request without routes", "routes of every request"));
        }
        let experts =
            model.experts.map_or([1, 1], |experts| [experts.count as u32, experts.per_token as u32]);
        ExpertIds::read(&self.folder.join(path), model.layers, experts)
    }

    /// How often the trace's tokens took each expert; else what would have been right and what is there.
    fn recorded_experts(
        &self,
        inputs: &Inputs,
        model: &Model,
    ) -> std::result::Result<Vec<Vec<u64>>, (String, String)> {
        let none =
            || ("a trace under workload.trace whose tokens have experts".to_owned(), "none".to_owned());
        let path = self.workload.trace.as_ref().ok_or_else(none)?;
        let trace =
            inputs.trace(&self.folder, path).map_err(|error| ("a trace".to_owned(), error.to_string()))?;
        if trace.header.layers != model.layers {
            let expected = format!("a trace of the {} layers of {}", model.layers, model.name);
            return Err((expected, format!("{} layers", trace.header.layers)));
        }
        let counts = crate::trace::expert_counts(self.folder.join(path))
            .map_err(|error| ("a trace".to_owned(), error.to_string()))?;
        if counts.is_empty() {
            return Err((none().0, "tokens without experts".to_owned()));
        }
        let count = model.experts.map_or(0, |experts| experts.count as usize);
        if let Some(most) = counts.iter().map(Vec::len).max().filter(|&most| most > count) {
            return Err((
                format!("experts below {count}, as {} has", model.name),
                format!("expert {}", most - 1),
            ));
        }
        for (layer, (kind, counts)) in model.layer_kinds().zip(&counts).enumerate() {
            if kind.experts && counts.iter().all(|&count| count == 0) {
                let expected = "a token that took experts at each layer with experts".to_owned();
                return Err((expected, format!("none at layer {layer}")));
            }
        }
        Ok(counts)
    }
}
