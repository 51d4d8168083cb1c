//! The GPU: shaders, the executor that runs routed layers with real weights, and timing. Only this room names wgpu.

mod adapter;
mod device;
mod pipeline;
mod recording;

pub use adapter::{AdapterInfo, adapters};
pub use device::{Buffer, Gpu};
pub use pipeline::{Constants, Pipeline, Shader};
pub use recording::{Binding, Dispatch, Recording, Timing};
pub mod shaders;
