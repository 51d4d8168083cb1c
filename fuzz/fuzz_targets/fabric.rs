#![no_main]
radialsim_fuzz::target!("fabric");
