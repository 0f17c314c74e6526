#![no_main]

runtime_fuzz::target!("control_files");
