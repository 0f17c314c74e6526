//! A container runtime for Linux and cgroup v2; ARCHITECTURE.md is the map.

mod cgroup;
mod error;
mod init;
mod signals;
mod supervise;
mod sync;
mod sys;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
