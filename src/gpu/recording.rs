//! What to dispatch as data, apart from dispatching: a list that is made, looked at, and then submitted as one command buffer.

use super::device::{Buffer, Gpu};
use super::pipeline::Pipeline;
use crate::error::Result;
use std::rc::Rc;
use std::time::Instant;

/// A part of a buffer that a kernel sees.
#[derive(Clone, Debug)]
pub struct Binding {
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
}

impl Binding {
    /// `bytes` of `buffer` from `offset` on, a multiple of the device's offset alignment (at most 256).
    pub fn part(buffer: &Buffer, offset: u64, bytes: u64) -> Binding {
        Binding { buffer: buffer.raw.clone(), offset, bytes }
    }
}

impl From<&Buffer> for Binding {
    fn from(buffer: &Buffer) -> Binding {
        Binding::part(buffer, 0, buffer.bytes())
    }
}

/// One kernel to run.
#[derive(Clone, Debug)]
pub struct KernelDispatch {
    /// Which.
    pub pipeline: Rc<Pipeline>,
    /// Group 0, in the order of `@binding`.
    pub bindings: Vec<Binding>,
    /// Its parameters: the bytes of its `var<immediate>`, empty where it has none.
    pub parameters: Vec<u8>,
    /// Workgroups in x, y and z.
    pub workgroups: [u32; 3],
}

/// Kernels in order; each sees what those before it wrote.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// In order of execution.
    pub dispatches: Vec<KernelDispatch>,
}

/// When the kernels of a recording ran.
#[derive(Default, Clone, Debug)]
pub struct Timing {
    /// Begin and end of each dispatch in nanoseconds of the device's clock; empty where the device has none.
    pub kernels_ns: Vec<(u64, u64)>,
    /// Host's clock from submission to the end of the wait, in seconds.
    pub host_s: f64,
}

impl Recording {
    /// Adds a kernel. One without workgroups is left out.
    pub fn push(&mut self, dispatch: KernelDispatch) {
        if dispatch.workgroups.iter().all(|&count| count > 0) {
            self.dispatches.push(dispatch);
        }
    }
}

impl Gpu {
    /// Submits a recording as one command buffer and does not wait.
    ///
    /// # Errors
    /// What went wrong before.
    pub fn submit(&self, recording: &Recording) -> Result<()> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        self.encode(&mut encoder, recording, None);
        self.queue.submit([encoder.finish()]);
        self.check()
    }

    /// Runs a recording to its end, with a timestamp around each kernel where the device has them.
    ///
    /// # Errors
    /// A device that is lost, or that refuses a command.
    pub fn run_timed(&self, recording: &Recording) -> Result<Timing> {
        // wgpu: a query set holds at most 4096 (wgpu-types, QUERY_SET_MAX_QUERIES).
        const MOST_KERNELS: usize = 2047;
        let mut kernels_ns = Vec::new();
        let begin = Instant::now();
        for part in recording.dispatches.chunks(MOST_KERNELS) {
            let part = Recording { dispatches: part.to_vec() };
            kernels_ns.extend(self.run_part(&part)?);
        }
        Ok(Timing { kernels_ns, host_s: begin.elapsed().as_secs_f64() })
    }

    fn run_part(&self, recording: &Recording) -> Result<Vec<(u64, u64)>> {
        let count = recording.dispatches.len() as u32 + 1;
        let timed = self.timestamps() && count > 1;
        let queries = timed.then(|| {
            let kind = wgpu::QueryType::Timestamp;
            self.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: kind, count })
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        self.encode(&mut encoder, recording, queries.as_ref());
        let Some(queries) = queries else {
            self.queue.submit([encoder.finish()]);
            self.wait()?;
            return Ok(Vec::new());
        };
        let bytes = u64::from(count) * 8;
        let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: bytes,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let staging = self.staging(bytes);
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
        self.queue.submit([encoder.finish()]);
        let ticks: Vec<u64> = self.mapped(&staging, bytes)?;
        let period = f64::from(self.queue.get_timestamp_period());
        let ns = |tick: u64| (tick as f64 * period) as u64;
        Ok(ticks.windows(2).map(|pair| (ns(pair[0]), ns(pair[1]))).collect())
    }

    /// All kernels in one pass; with `queries`, a timestamp before the first and behind each.
    fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        recording: &Recording,
        queries: Option<&wgpu::QuerySet>,
    ) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        if let Some(queries) = queries {
            pass.write_timestamp(queries, 0);
        }
        for (index, dispatch) in recording.dispatches.iter().enumerate() {
            pass.set_pipeline(&dispatch.pipeline.raw);
            pass.set_bind_group(0, &self.bind_group(dispatch), &[]);
            if !dispatch.parameters.is_empty() {
                pass.set_immediates(0, &dispatch.parameters);
            }
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
            if let Some(queries) = queries {
                pass.write_timestamp(queries, index as u32 + 1);
            }
        }
    }

    fn bind_group(&self, dispatch: &KernelDispatch) -> wgpu::BindGroup {
        let key: Vec<_> =
            dispatch.bindings.iter().map(|part| (part.buffer.clone(), part.offset, part.bytes)).collect();
        let mut groups = dispatch.pipeline.groups.borrow_mut();
        let make = || {
            let entries: Vec<_> = (0..)
                .zip(&dispatch.bindings)
                .map(|(binding, part)| wgpu::BindGroupEntry {
                    binding,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &part.buffer,
                        offset: part.offset,
                        size: std::num::NonZeroU64::new(part.bytes),
                    }),
                })
                .collect();
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.pipeline.shader.name),
                layout: &dispatch.pipeline.layout,
                entries: &entries,
            })
        };
        groups.entry(key).or_insert_with(make).clone()
    }
}
