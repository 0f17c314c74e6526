#![no_main]

runtime_fuzz::target!("mount_options");
