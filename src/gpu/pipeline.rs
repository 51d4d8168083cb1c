//! Shaders as pipelines, made once for each choice of constants.

use super::device::Gpu;
use crate::error::{Error, Result};
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
pub type Constants<'a> = &'a [(&'a str, f64)];

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

impl Gpu {
    /// The pipeline of this shader with these constants.
    ///
    /// # Errors
    /// What the driver refuses, and workgroups larger than the device takes.
    pub fn pipeline(&self, shader: Shader, constants: Constants) -> Result<Rc<Pipeline>> {
        let bits = constants.iter().map(|&(name, value)| (name.to_owned(), value.to_bits())).collect();
        let key = (shader.name, bits);
        if let Some(known) = self.pipelines.borrow().get(&key) {
            return Ok(known.clone());
        }
        self.check_workgroup(shader, constants)?;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(shader.name),
            source: wgpu::ShaderSource::Wgsl(shader.source.into()),
        });
        let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name),
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions { constants, ..Default::default() },
            cache: None,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Gpu(format!("the shader {} is refused: {error}", shader.name)));
        }
        let layout = raw.get_bind_group_layout(0);
        let pipeline = Rc::new(Pipeline { raw, layout, groups: RefCell::default(), shader });
        self.pipelines.borrow_mut().insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// wgpu 30 checks literal workgroup sizes against the device's limits, but not those that come by `override`.
    fn check_workgroup(&self, shader: Shader, constants: Constants) -> Result<()> {
        let size = constants.iter().find(|(name, _)| *name == "WORKGROUP").map_or(1.0, |&(_, value)| value);
        let most = f64::from(self.info().max_invocations.min(self.info().max_workgroup[0]));
        if size <= most {
            return Ok(());
        }
        Err(Error::Gpu(format!(
            "{} in workgroups of {size}, and the device takes at most {most}",
            shader.name
        )))
    }
}
