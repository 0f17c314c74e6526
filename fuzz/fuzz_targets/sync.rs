#![no_main]

runtime_fuzz::target!("sync");
