//! The commands, one file each: arguments and implementation.

pub mod call;
#[cfg(test)]
pub mod conformance;
mod create;
mod create_args;
mod delete;
mod events;
mod exec;
mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod help;
mod history;
mod kill;
mod list;
mod matching;
mod pause;
mod ps;
mod registry;
mod resume;
mod rollback;
mod run;
mod spec;
mod start;
mod state;
mod stats;
mod table;
mod top;
mod update;

use std::cell::RefCell;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::global::CgroupManager;
use crate::container::Root;
use crate::host::log::Log;
use crate::host::rootless::Rootless;
use crate::host::self_exe::Guard;

/// What every command gets from the global options and the environment.
#[derive(Debug)]
pub struct Context {
    pub log: Log,
    /// The command and its arguments as given.
    pub words: Vec<OsString>,
    pub root: Root,
    pub cgroup_manager: CgroupManager,
    pub rootless: Rootless,
    /// The protected copy of the program, for commands that enter a container.
    pub executable: RefCell<Guard>,
}

/// A command with its arguments.
pub trait Action {
    /// Runs the command; returns the exit status.
    fn run(&self, context: &Context) -> Result<ExitCode>;
}
