//! The GPU: shaders, the executor that runs routed layers with real weights, and timing. Only this room names wgpu.

mod adapter;
mod angles;
mod cache;
pub mod calibrate;
mod choice;
mod device;
mod energy;
mod executor;
mod generate;
mod hops;
mod ops;
mod ops_listed;
mod packed;
mod pass;
mod pipeline;
mod plan;
mod pool;
mod recording;
mod residuals;
mod rig;
mod rig_check;
mod routing;
pub mod shaders;

pub use adapter::{AdapterInfo, adapters};
pub use device::{Buffer, Gpu};
pub use executor::{Chosen, Executor, Options, Oracle, Outcome, Pass, Ratio, Record};
pub use generate::{Answer, Generated, Prompt, Sampling, Settings, Watch};
pub use hops::RouterMlp;
pub use ops::Done;
pub use packed::{Form, pack, to_f16};
pub use pipeline::{Constants, Pipeline, Shader};
pub use pool::Precision;
pub use recording::{Binding, Dispatch, Recording, Timing};
pub use residuals::Residual;
pub use rig::Rig;
pub use routing::Routing;
