#![no_main]
radialsim_fuzz::target!("llama2c");
