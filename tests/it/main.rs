//! One integration binary: a folder for each part, a module for what can go wrong.
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

mod calib;
mod cli;
mod cost;
#[cfg(feature = "gpu")]
mod gpu;
mod house;
mod model;
mod report;
mod sim;
mod study;
mod support;
mod trace;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "gpu")]
mod weights;
mod workload;

// By their own names: `crate::lab`.
use support::{cost_support, lab, sweep_support, trace_support};
#[cfg(feature = "gpu")]
use support::{family_list, family_models, gguf_support, small_models, twin_support};

/// Where the real data lies, or `None` (said on standard error) where it is absent.
/// `RADIALSIM_REQUIRE_DATA` turns absence into failure.
#[allow(dead_code, reason = "used by the modules that read real data")]
pub fn data(path: &str) -> Option<std::path::PathBuf> {
    let root = std::env::var_os("RADIALSIM_DATA").unwrap_or_else(|| "../shared/data".into());
    let full = std::path::Path::new(&root).join(path);
    if full.exists() {
        return Some(full);
    }
    assert!(
        std::env::var_os("RADIALSIM_REQUIRE_DATA").is_none(),
        "{} is required and absent",
        full.display()
    );
    eprintln!("SKIPPED: {} is absent", full.display());
    None
}

/// The GGUF file of SmolLM2-135M-Instruct that `scripts/fetch-model` brings, or `None` (said) where it is absent.
/// `RADIALSIM_REQUIRE_MODEL` turns absence into failure.
#[cfg(feature = "gpu")]
pub fn smollm2() -> Option<std::path::PathBuf> {
    let var = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let cache = || var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")));
    let folder = var("RADIALSIM_MODELS").or_else(|| Some(cache()?.join("radialsim")));
    let full = folder.unwrap_or_default().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if full.exists() {
        return Some(full);
    }
    assert!(
        std::env::var_os("RADIALSIM_REQUIRE_MODEL").is_none(),
        "{} is required and absent: run scripts/fetch-model",
        full.display()
    );
    eprintln!("SKIPPED: {} is absent: run scripts/fetch-model", full.display());
    None
}

/// The GPU, or `None` (said) where the machine has none. `RADIALSIM_REQUIRE_GPU` turns absence into failure.
/// `RADIALSIM_ADAPTER` names another than the strongest.
#[cfg(feature = "gpu")]
pub fn gpu() -> Option<radialsim::gpu::Gpu> {
    let wanted = std::env::var("RADIALSIM_ADAPTER").ok();
    match radialsim::gpu::Gpu::open(wanted.as_deref()) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            assert!(std::env::var_os("RADIALSIM_REQUIRE_GPU").is_none(), "a GPU is required: {error}");
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}
