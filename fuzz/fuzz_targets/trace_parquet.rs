#![no_main]
radialsim_fuzz::target!("trace_parquet");
