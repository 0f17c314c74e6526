#![no_main]

runtime_fuzz::target!("command_line");
