//! Stopping the processes of a cgroup and letting them go on: `cgroup.freeze`; cgroup-v2.rst § Core Interface Files.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use super::control_file;
use super::events::Events;
use super::removal::tasks;
use crate::error::Hint;

/// How long processes may take to stop; runc's limit. One that waits for a device or a dead network file system stops only
/// after that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops every process in the cgroup and in those below it, and returns when none of them runs any more.
///
/// # Errors
/// If they have not all stopped within ten seconds; those that have go on then.
pub fn freeze(path: &Path) -> Result<()> {
    let context = || format!("freeze cgroup {}", path.display());
    let events = Events::open(path).with_context(context)?.ok_or(Errno::NOENT).with_context(context)?;
    write(path, "1")?;
    let frozen = events.wait_until("frozen", "1", Instant::now() + PATIENCE).with_context(context);
    let problem = match frozen {
        Ok(true) => return Ok(()),
        Ok(false) => anyhow::Error::new(Hint(
            format!(
                "{}: not all of its {} process(es) have stopped within {PATIENCE:?}",
                context(),
                tasks(path).len()
            ),
            "one that waits for a device or a network file system cannot be stopped; they all go on"
                .to_owned(),
        )),
        Err(error) => error,
    };
    match write(path, "0") {
        Ok(()) => Err(problem),
        Err(error) => Err(error.context(problem)),
    }
}

/// Lets the processes go on. Those below a cgroup that is still frozen do not.
pub fn thaw(path: &Path) -> Result<()> {
    write(path, "0")
}

fn write(path: &Path, value: &str) -> Result<()> {
    control_file::open_dir(path)
        .and_then(|dir| control_file::write(dir.as_fd(), "cgroup.freeze", value))
        .with_context(|| format!("write {value:?} to {}/cgroup.freeze", path.display()))
}
