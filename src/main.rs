//! A container runtime for Linux and cgroup v2; ARCHITECTURE.md is the map.

mod cgroup;
mod clock;
mod command;
mod error;
mod init;
mod log;
mod notify;
mod signals;
mod supervise;
mod sync;
mod sys;
mod terminal;
mod unix_socket;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
