//! The commands, one file each: its arguments and what it does.

#[cfg(test)]
pub mod conformance;
pub mod create;
mod create_args;
pub mod delete;
pub mod dispatch;
pub mod events;
pub mod exec;
pub mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod help;
pub mod history;
pub mod kill;
pub mod list;
mod matching;
pub mod pause;
pub mod ps;
pub mod registry;
pub mod resume;
pub mod rollback;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod stats;
mod table;
pub mod top;
pub mod update;

use std::cell::RefCell;
use std::ffi::OsString;

use crate::cli::global::CgroupManager;
use crate::container::Root;
use crate::host::log::Log;
use crate::host::rootless::Rootless;
use crate::host::self_exe::Guard;

/// What every command gets from the global options and the environment.
#[derive(Debug)]
pub struct Context<'a> {
    pub log: &'a Log,
    /// The command and its arguments, as they were given.
    pub words: &'a [OsString],
    pub root: Root,
    pub cgroup_manager: CgroupManager,
    pub rootless: Rootless,
    /// Of a command that enters a container.
    pub executable: RefCell<Guard>,
}
