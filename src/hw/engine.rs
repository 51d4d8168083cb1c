//! Host profiles: what the software that drives a device takes to start a kernel, a captured graph, a scheduler step.

use super::{Hardware, Launch, Sourced, Submit};
use crate::error::{InputError, hint};
use crate::ron_text;
use serde::{Deserialize, Serialize};

/// Host times of one engine, in microseconds. What is absent stays as the device's profile says, unless the field says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServingEngine {
    /// Name in scenarios: the stem of its file in `engine-profiles/`.
    pub name: String,
    /// The software in words.
    pub title: String,
    /// Host time for one kernel that is launched on its own, as this simulator counts kernels: what the framework does around the
    /// launch, and what it launches in several kernels, is in it.
    pub kernel_us: Sourced,
    /// Host time for a captured graph; absent where the engine captures none.
    #[serde(default)]
    pub graph_us: Option<Sourced>,
    /// Device time between two kernels launched one by one, beyond that between two of a graph; absent: none.
    #[serde(default)]
    pub eager_gap_us: Option<Sourced>,
    /// Device time of a conditional node of a graph; absent where the engine has none.
    #[serde(default)]
    pub conditional_us: Option<Sourced>,
    /// From a result on the device to the host having read it.
    #[serde(default)]
    pub readback_us: Option<Sourced>,
    /// Host time for one routing decision taken on the host.
    #[serde(default)]
    pub host_decision_us: Option<Sourced>,
    /// Host time of a scheduler step that does not overlap the device.
    #[serde(default)]
    pub step_us: Option<Sourced>,
    /// When the device begins.
    #[serde(default)]
    pub submit: Submit,
}

macro_rules! shipped {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../engine-profiles/", $name, ".ron")))),*]
    };
}

/// Stem and text of each file of `engine-profiles/`, from the fastest host to the slowest.
const SHIPPED: &[(&str, &str)] = shipped! {
    "cuda-cpp"
    "tensorrt-llm"
    "vllm-v1"
    "sglang-eager"
    "webgpu"
    "vllm-v1-eager"
    "hf-generate"
    "pytorch-eager"
};

impl ServingEngine {
    /// Names of all engines.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// The engine of this name.
    ///
    /// # Errors
    /// A name that no engine has, with the list.
    pub fn named(name: &str) -> Result<ServingEngine, InputError> {
        let Some((stem, text)) = SHIPPED.iter().find(|(stem, _)| *stem == name) else {
            let near = hint(name, ServingEngine::names());
            let names = ServingEngine::names().collect::<Vec<_>>().join(", ");
            return Err(InputError::expected(format!("one of {names}{near}")).found(name));
        };
        let file = format!("engine-profiles/{stem}.ron");
        ron_text::parse(text, "an engine in RON").map_err(|error| error.file(&file))
    }

    /// What it costs to start things under this engine on a device with this `launch`.
    pub fn launch(&self, device: &Launch) -> Launch {
        let or = |own: &Option<Sourced>, device: &Sourced| own.clone().unwrap_or_else(|| device.clone());
        Launch {
            kernel_us: self.kernel_us.clone(),
            graph_us: or(&self.graph_us, &device.graph_us),
            graph_gap_us: device.graph_gap_us.clone(),
            eager_gap_us: self.eager_gap_us.clone(),
            conditional_us: self.conditional_us.clone(),
            readback_us: or(&self.readback_us, &device.readback_us),
            host_decision_us: or(&self.host_decision_us, &device.host_decision_us),
            step_us: or(&self.step_us, &device.step_us),
            submit: self.submit,
        }
    }

    /// Whether it captures graphs.
    pub fn captures(&self) -> bool {
        self.graph_us.is_some()
    }
}

impl Hardware {
    /// Whether kernels of this device are launched through CUDA: shipped profiles of NVIDIA's devices are named so.
    pub fn is_cuda(&self) -> bool {
        self.name.starts_with("nvidia-")
    }

    /// Whether it is a device of somebody else, by the names of shipped profiles; another name says nothing.
    pub fn is_not_cuda(&self) -> bool {
        ["amd-", "google-", "mesa-", "generic-"].iter().any(|maker| self.name.starts_with(maker))
    }

    /// The profile's own launches. What it does not say of a CUDA device, the gap between kernels launched one by one and conditional
    /// nodes, is that of bare CUDA.
    pub fn own_launch(&self) -> Launch {
        let mut launch = self.launch.clone();
        if self.is_cuda() && launch.submit == Submit::Eager {
            let bare = ServingEngine::named("cuda-cpp").expect("it is shipped");
            launch.eager_gap_us = launch.eager_gap_us.or(bare.eager_gap_us);
            launch.conditional_us = launch.conditional_us.or(bare.conditional_us);
        }
        launch
    }
}
