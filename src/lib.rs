//! A container runtime for Linux and cgroup v2; ARCHITECTURE.md is the map.
//!
//! Everything but `main` is here, so that tests, fuzz targets and benchmarks link the same code as the
//! program.

mod bundle;
mod cgroup;
mod cli;
mod command;
mod container;
mod error;
mod host;
pub mod init;
mod launch;
mod monitor;
mod plan;
mod program;
mod revision;
pub mod sys;

pub use command::call::{Call, Failure, Parsed};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use command::fuzzing;
pub use host::caller;
