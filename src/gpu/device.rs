//! One open device: buffers, submissions, read-backs, and what went wrong.

use super::adapter::{self, AdapterInfo};
use super::pipeline::{Cache, Overrides, Pipeline, Shader};
use crate::error::{Error, Result, shorten};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wgpu::{BufferUsages, Features, Limits};

/// Longest wait for the device before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of parameters that a dispatch can carry: what every Vulkan device has (Vulkan 1.3, "Required Limits",
/// maxPushConstantsSize).
pub(super) const MOST_PARAMETER_BYTES: u32 = 128;

/// An open device with its queue.
#[derive(Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: AdapterInfo,
    /// The first thing that went wrong and was not asked for.
    wrong: Arc<Mutex<Option<String>>>,
    pub(super) pipelines: Cache,
    allocated: std::cell::Cell<u64>,
    pub(super) turns: std::cell::OnceCell<u32>,
}

/// Memory on the device.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
}

impl Buffer {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.raw.size()
    }
}

impl Gpu {
    /// Opens the adapter whose name contains `wanted`, or the strongest there is.
    ///
    /// # Errors
    /// [`Error::NoGpu`] where there is no such adapter, or it lacks what the kernels need.
    pub fn open(wanted: Option<&str>) -> Result<Gpu> {
        let (adapter, info) = adapter::choose(wanted)?;
        let useful = Features::IMMEDIATES
            | Features::TIMESTAMP_QUERY
            | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | Features::SHADER_F16
            | Features::SUBGROUP;
        let features = adapter.features() & useful;
        if !features.contains(Features::IMMEDIATES) {
            return Err(Error::NoGpu(format!("{} takes no immediate data (push constants)", info.name)));
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("radialsim"),
            required_features: features,
            required_limits: Limits { max_immediate_size: MOST_PARAMETER_BYTES, ..adapter.limits() },
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::NoGpu(format!("{} cannot be opened: {error}", info.name)))?;
        let wrong = Arc::new(Mutex::new(None));
        let note = |wrong: &Arc<Mutex<Option<String>>>, what: String| {
            wrong.lock().expect("nothing panics while it notes").get_or_insert(what);
        };
        let (of_errors, of_loss) = (wrong.clone(), wrong.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            note(&of_errors, one_line(&error.to_string()))
        }));
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&of_loss, format!("the device was lost: {}", one_line(&text)));
            }
        });
        Ok(Gpu {
            device,
            queue,
            info,
            wrong,
            pipelines: Default::default(),
            allocated: Default::default(),
            turns: Default::default(),
        })
    }

    /// With buffers of at most so many bytes: what does not fit into one is split over several, as on a device that has no larger ones.
    pub fn with_buffer_limit(mut self, bytes: u64) -> Gpu {
        self.info.max_buffer_bytes = self.info.max_buffer_bytes.min(bytes);
        self
    }

    /// What it is.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Bytes of all buffers made so far.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated.get()
    }

    /// Whether kernels can say when they began and ended.
    pub fn timestamps(&self) -> bool {
        let needed = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        self.device.features().contains(needed)
    }

    /// Lanes of a subgroup. Kernels exchange values between eight neighbours.
    ///
    /// # Errors
    /// [`Error::NoGpu`] where the device has none, or smaller ones.
    pub fn subgroup(&self) -> Result<u32> {
        self.info.subgroups.map(|(smallest, _)| smallest).filter(|lanes| lanes % 8 == 0).ok_or_else(|| {
            Error::NoGpu(format!("{} has no subgroups of 8 invocations or a multiple", self.info.name))
        })
    }

    /// A buffer of this many bytes (at least 16, rounded up to 16), zeros.
    ///
    /// # Errors
    /// More bytes than a buffer or a binding can have, and no memory left.
    pub fn buffer(&self, what: &str, bytes: u64) -> Result<Buffer> {
        let size = bytes.max(16).next_multiple_of(16);
        let most = self.info.max_buffer_bytes.min(self.info.max_binding_bytes);
        if size > most {
            return Err(Error::Gpu(format!(
                "{what} takes {size} bytes, and a buffer of {} holds at most {most}",
                self.info.name
            )));
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        let raw = self.device.create_buffer(&descriptor);
        if pollster::block_on(scope.pop()).is_some() {
            return Err(Error::Gpu(format!("no memory is left for {what} ({size} bytes)")));
        }
        self.allocated.set(self.allocated.get() + size);
        Ok(Buffer { raw })
    }

    /// A buffer that holds these values.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub fn upload<T: bytemuck::NoUninit>(&self, what: &str, values: &[T]) -> Result<Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.buffer(what, bytes.len() as u64)?;
        self.write(&buffer, 0, values);
        Ok(buffer)
    }

    /// Writes values at a byte offset, before whatever is submitted next.
    pub fn write<T: bytemuck::NoUninit>(&self, buffer: &Buffer, offset: u64, values: &[T]) {
        if !values.is_empty() {
            self.queue.write_buffer(&buffer.raw, offset, bytemuck::cast_slice(values));
        }
    }

    /// Submits what was written, so that the host's copies are freed.
    ///
    /// # Errors
    /// What went wrong before.
    pub fn flush(&self) -> Result<()> {
        self.queue.submit([]);
        self.wait()
    }

    /// The first `count` values of a buffer, when everything submitted is done.
    ///
    /// # Errors
    /// A device that is lost or does not answer.
    pub fn read<T: bytemuck::Pod>(&self, buffer: &Buffer, count: usize) -> Result<Vec<T>> {
        self.read_part(buffer, 0, count)
    }

    /// The same of values from this one on, whose bytes are a multiple of 4.
    ///
    /// # Errors
    /// Those of [`Gpu::read`].
    pub fn read_part<T: bytemuck::Pod>(&self, buffer: &Buffer, first: usize, count: usize) -> Result<Vec<T>> {
        let [from, bytes] = [first, count].map(|values| (values * size_of::<T>()) as u64);
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let staging = self.staging(bytes);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffer.raw, from, &staging, 0, staging.size());
        self.queue.submit([encoder.finish()]);
        self.mapped(&staging, bytes)
    }

    /// Copies bytes from an offset of one buffer to an offset of another, behind whatever was submitted; all three multiples of 4.
    ///
    /// # Errors
    /// What went wrong before.
    pub(super) fn copy(
        &self,
        from: &Buffer,
        to: &Buffer,
        (start, end, bytes): (u64, u64, u64),
    ) -> Result<()> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&from.raw, start, &to.raw, end, bytes);
        self.queue.submit([encoder.finish()]);
        self.check()
    }

    /// A buffer that the host can map.
    pub(super) fn staging(&self, bytes: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: bytes.next_multiple_of(4),
            usage: BufferUsages::COPY_DST | BufferUsages::MAP_READ,
            mapped_at_creation: false,
        })
    }

    /// What a staging buffer holds, when everything submitted is done. It can be used again.
    pub(super) fn mapped<T: bytemuck::Pod>(&self, staging: &wgpu::Buffer, bytes: u64) -> Result<Vec<T>> {
        let slice = staging.slice(..bytes.next_multiple_of(4));
        slice.map_async(wgpu::MapMode::Read, |_| {});
        self.wait()?;
        let view = slice.get_mapped_range();
        let view = view.map_err(|error| Error::Gpu(format!("a result cannot be read back: {error}")))?;
        let values = bytemuck::pod_collect_to_vec(&view[..bytes as usize]);
        drop(view);
        staging.unmap();
        Ok(values)
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// A device that is lost, does not answer, or refused a command since the last wait.
    pub fn wait(&self) -> Result<()> {
        let polled =
            self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) });
        self.check()?;
        polled.map(|_| ()).map_err(|error| {
            Error::Gpu(format!("{} did not answer within {} s: {error}", self.info.name, PATIENCE.as_secs()))
        })
    }

    /// What went wrong so far.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = self.wrong.lock().expect("nothing panics while it notes").take();
        wrong.map_or(Ok(()), |what| Err(Error::Gpu(what)))
    }

    /// Gives the device up; every later call fails. For tests of what happens then.
    pub fn destroy(&self) {
        self.device.destroy();
        let mut wrong = self.wrong.lock().expect("nothing panics while it notes");
        wrong.get_or_insert("the device was lost: it was given up".into());
    }
}

impl Gpu {
    /// The pipeline of this shader with these constants.
    ///
    /// # Errors
    /// What the driver refuses, and workgroups larger than the device takes.
    pub fn pipeline(&self, shader: Shader, constants: Overrides) -> Result<Rc<Pipeline>> {
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
    fn check_workgroup(&self, shader: Shader, constants: Overrides) -> Result<()> {
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

/// A driver's or validator's text on one line, shortened.
fn one_line(text: &str) -> String {
    shorten(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}
