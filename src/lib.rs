//! A container runtime for Linux and cgroup v2; ARCHITECTURE.md is the map.
//!
//! Everything but the process itself is here, so that tests, fuzz targets and benchmarks link the code that
//! the program is made of.

mod bundle;
mod bytes;
mod caller;
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
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod holder;
mod hooks;
pub mod init;
mod input;
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
mod printable;
mod process;
mod process_stat;
mod program;
mod revision;
mod seccomp;
mod signals;
mod state;
mod supervise;
pub mod sync;
pub mod sys;
mod sysctl;
mod terminal;
mod time_namespace;
mod unix_socket;
mod usage;
mod user_namespace;
mod weakened;

pub use cli::main;
