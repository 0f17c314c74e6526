#![no_main]

runtime_fuzz::target!("resources");
