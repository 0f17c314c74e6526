//! Freezing and thawing cgroups: `cgroup.freeze`; cgroup-v2.rst § Core Interface Files.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use super::control_file;
use super::events::Events;
use super::removal::tasks;
use crate::error::Hint;

/// How long processes may take to freeze; runc's limit. One in uninterruptible sleep, e.g. on a device or a
/// dead network file system, does not freeze before it wakes up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to check whether another process has thawed the cgroup. `cgroup.events` changes then only if all
/// processes had been frozen.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The result of [`freeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freezing {
    /// All processes are frozen.
    Done,
    /// Another process has thawed the cgroup.
    PoststopState,
}

/// Freezes the cgroup and those below it. Returns when all their processes are frozen, or another process has
/// thawed the cgroup.
///
/// # Errors
/// Not all processes were frozen within ten seconds. The cgroup has been thawed then.
pub fn freeze(path: &Path) -> Result<Freezing> {
    let context = || format!("freeze cgroup {}", path.display());
    let events = Events::open(path).with_context(context)?.ok_or(Errno::NOENT).with_context(context)?;
    write(path, "1")?;
    let frozen = wait(&events, path).with_context(context);
    let problem = match frozen {
        Ok(Some(result)) => return Ok(result),
        Ok(None) => anyhow::Error::new(Hint(
            format!(
                "{}: not all of its {} process(es) stopped within {PATIENCE:?}",
                context(),
                tasks(path).len()
            ),
            "a process blocked on a device or a network file system cannot be frozen; the cgroup was thawed"
                .to_owned(),
        )),
        Err(error) => error,
    };
    match write(path, "0") {
        Ok(()) => Err(problem),
        Err(error) => Err(error.context(problem)),
    }
}

/// Waits for the cgroup to freeze; `None` on timeout.
fn wait(events: &Events, path: &Path) -> Result<Option<Freezing>, Errno> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let next = Instant::now() + BETWEEN_LOOKS;
        if events.wait_until("frozen", "1", next.min(deadline))? {
            return Ok(Some(Freezing::Done));
        }
        if !super::is_frozen(path) {
            return Ok(Some(Freezing::PoststopState));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
    }
}

/// Thaws the cgroup. Processes below a descendant that is itself frozen stay frozen.
pub fn thaw(path: &Path) -> Result<()> {
    write(path, "0")
}

fn write(path: &Path, value: &str) -> Result<()> {
    control_file::open_dir(path)
        .and_then(|dir| control_file::write(dir.as_fd(), "cgroup.freeze", value))
        .with_context(|| format!("write {value:?} to {}/cgroup.freeze", path.display()))
}
