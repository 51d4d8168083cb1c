//! Shaders as pipelines, made once for each choice of constants.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A shader file: its stem and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// Stem of its file under `shaders/`.
    pub name: &'static str,
    /// WGSL.
    pub source: &'static str,
}

/// Values of a shader's `override`s.
pub type Overrides<'a> = &'a [(&'a str, f64)];

/// Buffers with offsets and sizes.
type Bound = Vec<(wgpu::Buffer, u64, u64)>;

type Key = (&'static str, Vec<(String, u64)>);

/// Pipelines made so far.
pub(super) type Cache = RefCell<HashMap<Key, Rc<Pipeline>>>;

/// A shader with its constants, ready to run.
#[derive(Debug)]
pub struct Pipeline {
    pub(super) raw: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// Bind groups made so far, by buffers, offsets and sizes.
    pub(super) groups: RefCell<HashMap<Bound, wgpu::BindGroup>>,
    /// Its shader.
    pub shader: Shader,
}
