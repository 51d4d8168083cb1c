//! One integration binary; each module is named after what can go wrong.
#![allow(clippy::print_stderr, reason = "tests say what they skip")]

#[cfg(feature = "gpu")]
mod actions;
mod adapter;
mod apart;
mod arrivals;
mod axes;
mod bad_trace;
mod brief;
mod caps;
#[cfg(feature = "gpu")]
mod chat_templates;
mod cli;
#[cfg(feature = "gpu")]
mod cli_execute;
mod cli_json;
mod cli_trace;
#[cfg(feature = "train")]
mod cli_train;
mod clusters;
mod collectives;
mod contributions;
mod cost;
mod cost_support;
mod data_parallel;
mod edges;
mod engine;
mod engine_naive;
mod error_bar;
mod examples;
mod expert_layers;
mod experts_by_token;
mod fabric_fit;
mod fabrics;
#[cfg(feature = "gpu")]
mod families;
#[cfg(feature = "gpu")]
mod family_list;
#[cfg(feature = "gpu")]
mod family_models;
mod fidelity;
mod fit;
mod formats;
mod frontier;
mod fuzzed;
#[cfg(feature = "gpu")]
mod gguf_blocks;
#[cfg(feature = "gpu")]
mod gguf_keys;
#[cfg(feature = "gpu")]
mod gguf_support;
#[cfg(feature = "gpu")]
mod gguf_words;
#[cfg(feature = "gpu")]
mod golden;
#[cfg(feature = "gpu")]
mod gpu_failures;
#[cfg(feature = "gpu")]
mod hops;
mod instructions;
mod kineto;
mod kv;
mod lab;
mod latent;
mod launches;
mod laws;
mod layers;
mod layerskip;
mod load;
mod lockstep;
mod measured;
mod meter;
mod model_counts;
mod model_files;
mod models;
mod more_layers;
mod operators;
mod oracles;
mod page_browser;
mod parallel;
#[cfg(feature = "gpu")]
mod perplexity;
mod pipeline;
mod placed_runs;
mod placement;
mod prefixes;
mod profiles;
mod quality;
mod queued;
mod queueing;
mod queueing_whole;
mod quick;
#[cfg(feature = "gpu")]
mod radial;
mod replicas;
mod report_page;
mod requests;
mod requests_bad;
mod requests_scenario;
mod requests_sessions;
mod requests_tools;
mod requests_written;
mod route_ids;
#[cfg(feature = "gpu")]
mod routed;
#[cfg(feature = "gpu")]
mod router_files;
mod saved;
#[cfg(feature = "train")]
mod scratch;
#[cfg(feature = "train")]
mod scratch_runs;
mod searches;
mod series;
mod served;
mod serving;
mod serving_metrics;
#[cfg(feature = "gpu")]
mod shaders;
#[cfg(feature = "gpu")]
mod shapes;
mod sizes;
#[cfg(feature = "gpu")]
mod skips;
#[cfg(feature = "gpu")]
mod small_models;
mod steady;
mod stretch;
mod sweep;
mod sweep_bad;
mod sweep_support;
mod synth;
mod tidy;
mod tidy_rules;
mod tiers;
mod timeline;
mod trace_format;
mod trace_join;
#[cfg(feature = "parquet")]
mod trace_parquet;
mod trace_support;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod train_ways;
#[cfg(feature = "train")]
mod train_whole;
#[cfg(feature = "gpu")]
mod twin_attention;
#[cfg(feature = "gpu")]
mod twin_choices;
#[cfg(feature = "gpu")]
mod twin_products;
#[cfg(feature = "gpu")]
mod twin_rows;
#[cfg(feature = "gpu")]
mod twin_support;
mod uncertainty;
mod uneven;
#[cfg(feature = "gpu")]
mod validated;
#[cfg(feature = "gpu")]
mod weights;
#[cfg(feature = "gpu")]
mod weights_bad;
mod windows;
mod work;

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
