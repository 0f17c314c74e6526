#![no_main]

runtime_fuzz::target!("kernel_files");
