//! The GPUs of this machine: what each is called and what it can do.

use crate::error::{Error, Result, shorten};
use wgpu::{Backends, Features, Instance, InstanceDescriptor};

/// One adapter, as wgpu finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// What the driver calls it.
    pub name: String,
    /// `vulkan` or `metal`.
    pub backend: String,
    /// Discrete, integrated, virtual, or a CPU that plays one.
    pub kind: &'static str,
    /// Driver with its version.
    pub driver: String,
    /// Largest buffer.
    pub max_buffer_bytes: u64,
    /// Largest part of a buffer that a kernel can see at once.
    pub max_binding_bytes: u64,
    /// Most invocations of a workgroup in x, y and z.
    pub max_workgroup: [u32; 3],
    /// Most invocations of a workgroup in all.
    pub max_invocations: u32,
    /// Memory that a workgroup shares.
    pub workgroup_bytes: u32,
    /// Smallest and largest subgroup, where kernels can use subgroups.
    pub subgroups: Option<(u32, u32)>,
    /// Whether it can say when a pass began and ended.
    pub timestamps: bool,
    /// Whether kernels can compute in half precision.
    pub f16: bool,
}

/// All adapters, in the order of the system; empty where there is none.
pub fn adapters() -> Vec<AdapterInfo> {
    found().iter().map(describe).collect()
}

fn found() -> Vec<wgpu::Adapter> {
    if Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.enumerate_adapters(Backends::all()))
}

/// The adapter whose name contains `wanted` (letter case aside); without a wish, the strongest kind there is.
///
/// # Errors
/// [`Error::NoGpu`] where there is none, or none of this name; the message lists those that there are.
pub(super) fn choose(wanted: Option<&str>) -> Result<(wgpu::Adapter, AdapterInfo)> {
    let mut all: Vec<_> = found().into_iter().map(|adapter| (describe(&adapter), adapter)).collect();
    let rank =
        |kind| ["discrete GPU", "integrated GPU", "virtual GPU", "other"].iter().position(|&k| k == kind);
    all.sort_by_key(|(info, _)| rank(info.kind).unwrap_or(usize::MAX));
    let names: Vec<_> = all.iter().map(|(info, _)| info.name.clone()).collect();
    let fits = |info: &AdapterInfo| {
        wanted.is_none_or(|wanted| info.name.to_lowercase().contains(&wanted.to_lowercase()))
    };
    let chosen = all.into_iter().find(|(info, _)| fits(info)).map(|(info, adapter)| (adapter, info));
    chosen.ok_or_else(|| match (wanted, names.as_slice()) {
        (Some(wanted), [_, ..]) => Error::NoGpu(format!(
            "no adapter's name contains {}; there are: {}",
            shorten(wanted),
            names.join(", ")
        )),
        _ => Error::NoGpu("wgpu finds no adapter on this machine; Mesa's software Vulkan is one (apt-get install mesa-vulkan-drivers)".into()),
    })
}

fn describe(adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let subgroups = features.contains(Features::SUBGROUP);
    AdapterInfo {
        backend: info.backend.to_string(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            wgpu::DeviceType::Cpu => "CPU",
            wgpu::DeviceType::Other => "other",
        },
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_workgroup: [
            limits.max_compute_workgroup_size_x,
            limits.max_compute_workgroup_size_y,
            limits.max_compute_workgroup_size_z,
        ],
        max_invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        subgroups: subgroups.then_some((info.subgroup_min_size, info.subgroup_max_size)),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
        f16: features.contains(Features::SHADER_F16),
        name: info.name,
    }
}
