//! Over which devices and engines a scenario splits a variant.

use super::inputs::Inputs;
use super::note::Note;
use crate::batch::ExchangeChoice;
use crate::error::{InputError, Result};
use crate::hw::{Fabric, Hardware, Library};
use crate::sim::fleet::RequestRouter;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// How a model is split over devices, and how many engines have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelSpec {
    /// Tensor parallelism: devices that each have an equal part of every layer ([`crate::model::Model::shard`]).
    #[serde(default = "super::one")]
    pub tensor: u32,
    /// Expert parallelism: devices that each have an equal part of the experts of every layer, and of the sequences
    /// ([`crate::model::Model::spread_over`]). Not together with `tensor`.
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
    pub router: RequestRouter,
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
            router: RequestRouter::default(),
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

/// Which device has which layers of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PlacementSpec {
    /// Neighbouring layers, as many on each device, give or take one.
    Contiguous,
    /// Layer l on device l modulo their number.
    RoundRobin,
    /// Few crossings for the tokens of some of the requests.
    Cut {
        /// Layers that a device may have, as a multiple of its even share.
        #[serde(default = "one")]
        balance: f64,
        /// Share of the requests, the first to arrive, from which it is learned.
        #[serde(default = "half")]
        learn: f64,
    },
    /// The device of each layer, by layer.
    Listed(Vec<u32>),
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

impl PlacementSpec {
    /// Its name in reports.
    pub(super) fn name(&self) -> &'static str {
        match self {
            PlacementSpec::Contiguous => "contiguous",
            PlacementSpec::RoundRobin => "round robin",
            PlacementSpec::Cut { .. } => "cut",
            PlacementSpec::Listed(_) => "listed",
        }
    }
}

/// Engines that pass prompts, and engines that generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApartSpec {
    /// How many pass prompts and put the first token out.
    pub prefill: u32,
    /// How many generate the other tokens.
    pub decode: u32,
}
