//! Layers of a model on several devices: pipeline stages and placements, as scenarios say them.

use super::inputs::Inputs;
use super::split::PlacementSpec;
use super::split::Split;
use super::{Note, Scenario};
use crate::cost::Links;
use crate::error::{Error, InputError, Result, demand};
use crate::hw::Hardware;
use crate::lower::Layout;
use crate::sim::Placed;
use crate::trace::{Hops, Placement, Trace};
use std::sync::Arc;

impl Scenario {
    /// Whether a variant has layers on several devices.
    fn has_layers_apart(&self) -> bool {
        let mut specs = self.variants.iter().map(|variant| self.split_of(variant).spec);
        specs.any(|spec| spec.pipeline > 1 || spec.placement.is_some())
    }

    /// Whether a timeline, which shows the kernels of one device, can show its variants. `key`: what asks for one.
    ///
    /// # Errors
    /// Layers on several devices.
    pub fn check_timeline(&self, key: &str) -> Result<()> {
        demand(
            !self.has_layers_apart(),
            key,
            &self.title,
            "variants with all layers on one device, whose kernels it shows",
        )
    }

    /// The devices that have layers of their own; nothing where one has all. The trace has the variant's routes.
    ///
    /// # Errors
    /// Placements and stages that do not go, by key; a fabric that is not there or too small.
    pub(super) fn place(
        &self,
        inputs: &Inputs,
        split: &Split,
        (hardware, trace): (&Hardware, &Trace),
        notes: &mut Vec<Note>,
    ) -> Result<Option<Arc<Placed>>> {
        let Split { spec, of } = split;
        let wrong = |key: &str, found: String, expected: &str| -> Result<Option<Arc<Placed>>> {
            Err(InputError::expected(expected).key(format!("{of}.{key}")).found(found).into())
        };
        let named = |error: InputError, part: &str| error.key(format!("{of}.{part}"));
        let layers = trace.header.layers;
        let of_input = |part: &'static str| {
            move |error: Error| match error {
                Error::Input(input) => named(*input, part).into(),
                other => other,
            }
        };
        for (key, value) in [("pipeline", Some(spec.pipeline)), ("devices", spec.devices)] {
            if value == Some(0) {
                return wrong(key, "0".into(), "a number of devices, at least 1");
            }
        }
        for (key, value) in [("in_flight", spec.in_flight), ("micro_batch", spec.micro_batch)] {
            if value == Some(0) {
                return wrong(key, "0".into(), "at least 1");
            }
        }
        let (name, placement) = match (&spec.placement, spec.devices) {
            (None, None) if spec.pipeline == 1 => {
                return match (spec.in_flight, spec.micro_batch) {
                    (None, None) => Ok(None),
                    (Some(found), _) => {
                        wrong("in_flight", found.to_string(), "none, as one device has all layers")
                    }
                    (_, Some(found)) => {
                        wrong("micro_batch", found.to_string(), "none, as one device has all layers")
                    }
                };
            }
            (None, None) => {
                let stages = Placement::stages(layers, spec.pipeline);
                ("pipeline", stages.map_err(of_input("pipeline"))?)
            }
            (None, Some(devices)) => {
                return wrong("devices", devices.to_string(), "a placement of the layers on so many devices");
            }
            (Some(_), _) if spec.pipeline != 1 => {
                return wrong(
                    "pipeline",
                    spec.pipeline.to_string(),
                    "1, as placement says which device has which layers",
                );
            }
            (Some(PlacementSpec::Listed(list)), devices) => {
                let count = devices.unwrap_or_else(|| list.iter().max().map_or(1, |most| most + 1));
                if list.len() != layers as usize {
                    let expected = format!("a device for each of the {layers} layers");
                    return wrong("placement", format!("{} devices", list.len()), &expected);
                }
                ("listed", Placement::listed(list.clone(), count).map_err(of_input("placement"))?)
            }
            (Some(_), None) => {
                return wrong("devices", "none".into(), "a number of devices for the placement");
            }
            (Some(how), Some(devices)) => {
                let even = Placement::contiguous(layers, devices).map_err(of_input("devices"))?;
                let placement = match how {
                    PlacementSpec::Contiguous | PlacementSpec::Listed(_) => even,
                    PlacementSpec::RoundRobin => Placement::round_robin(layers, devices)?,
                    PlacementSpec::Cut { balance, learn } => {
                        self.cut(trace, devices, (*balance, *learn), of, notes)?
                    }
                };
                (how.name(), placement)
            }
        };
        let devices = placement.count();
        if let Some(found) = spec.in_flight.filter(|&most| most > devices) {
            let expected = format!(
                "at most {devices}, as each of so many devices has room for the activations of a pass"
            );
            return wrong("in_flight", found.to_string(), &expected);
        }
        if self.serving.chunked_prefill && spec.in_flight.unwrap_or(devices) > 1 {
            let why = "chunks of one prompt wait for one another; vLLM has several of them under way (Scheduler._update_after_schedule)";
            notes.push(Note::new(format!("{of}: passes with a prompt"), 1, why));
        }
        let fabric = split.fabric(&self.folder, inputs, hardware, notes)?;
        let links = Links::new(&fabric, devices, spec.tensor, spec.collectives)
            .map_err(|error| named(error, "devices"))?;
        let why = "states go from device to device beside the kernels; what links and switches draw no profile says";
        notes.push(Note::new(format!("{of}: energy of {}", links.fabric()), "0", why));
        if links.states() == 1 {
            let why = "one state of a token crosses: nobody looked up what this engine sends";
            notes.push(Note::new(format!("{of}: states sent"), "1", why));
        }
        Ok(Some(Arc::new(Placed {
            name: name.to_owned(),
            layout: Layout::new(placement.devices(), devices),
            links,
            in_flight: spec.in_flight.unwrap_or(devices),
            micro_batch: spec.micro_batch,
        })))
    }

    /// A cut learned from the first requests, with what it does for the others.
    fn cut(
        &self,
        trace: &Trace,
        devices: u32,
        (balance, learn): (f64, f64),
        of: &str,
        notes: &mut Vec<Note>,
    ) -> Result<Placement> {
        let wrong = |key: &str, found: f64, expected: &str| -> Result<Placement> {
            Err(InputError::expected(expected).key(format!("{of}.placement.cut.{key}")).found(found).into())
        };
        if !(balance >= 1.0 && balance <= f64::from(u16::MAX)) {
            return wrong("balance", balance, "a factor of at least 1");
        }
        if !(learn > 0.0 && learn <= 1.0) {
            return wrong("learn", learn, "a share above 0, at most 1");
        }
        let (layers, requests) = (trace.header.layers, trace.requests.len());
        let learned = ((requests as f64 * learn).ceil() as usize).min(requests);
        let known = Hops::of(trace, 0..learned);
        let placement =
            Placement::cut(&known, devices, Placement::most(layers, devices, balance), self.seed)?;
        let crossings = |requests| Hops::of(trace, requests).fares(&placement).crossings;
        let value = format!("{:.2} crossings a token", crossings(0..learned));
        let why = match learned < requests {
            true => format!(
                "learned from the first {learned} of {requests} requests, seed {}; {:.2} on the others",
                self.seed,
                crossings(learned..requests)
            ),
            false => format!("learned from all {requests} requests, seed {}, none kept aside", self.seed),
        };
        notes.push(Note::new(format!("{of}.placement: cut"), value, why));
        Ok(placement)
    }
}
