//! A container runtime for Linux and cgroup v2; ARCHITECTURE.md is the map.

mod bundle;
mod bytes;
mod capabilities;
mod cgroup;
mod change;
mod child;
mod cli;
mod clock;
mod command;
#[cfg(test)]
mod conformance;
mod container;
mod create;
mod dbus;
mod devices;
mod document;
mod duration;
mod error;
mod exec;
mod guard;
mod holder;
mod hooks;
mod init;
mod intel_rdt;
mod log;
mod lsm;
mod mask;
mod memory_policy;
mod mountinfo;
mod mounts;
mod namespaces;
mod net_devices;
mod network;
mod notify;
mod path;
mod plan;
mod process;
mod program;
mod revision;
mod seccomp;
mod signals;
mod state;
mod supervise;
mod sync;
mod sys;
mod sysctl;
mod terminal;
mod time_namespace;
mod unix_socket;
mod usage;
mod user_namespace;

use std::process::ExitCode;

#[global_allocator]
static MEMORY: sys::alloc::Arena = sys::alloc::Arena::new();

fn main() -> ExitCode {
    cli::main()
}
