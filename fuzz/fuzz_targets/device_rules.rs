#![no_main]

runtime_fuzz::target!("device_rules");
