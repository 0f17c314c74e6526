//! What a container has lost while its limits were changed: whoever lowers `memory.max` below what is in use has processes killed at
//! once. Nothing brings them back, whatever becomes of the change, so it is told in any case.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::cgroup;
use crate::cgroup::{OomCounts, OomReport};
use crate::container::Container;

/// In words that follow on the container's name; also the context of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss(String);

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Loss {
    pub(super) fn of_process(shortage: &OomReport) -> Self {
        let shortage = shortage.to_string();
        Self(format!("a process was OOM-killed: {}", shortage.trim_start_matches("out of memory: ")))
    }

    /// Where nobody knows any more which limit it was.
    pub(super) fn of_somebody() -> Self {
        Self("a process was OOM-killed".to_owned())
    }

    pub(super) fn of_all() -> Self {
        Self("container exited".to_owned())
    }
}

/// A container before its limits are changed.
#[derive(Debug)]
pub(super) struct Before {
    /// `None` if it has ended.
    init: Option<OwnedFd>,
    cgroup: Option<PathBuf>,
    /// `None` without the memory controller.
    ooms: Option<OomCounts>,
}

impl Before {
    pub(super) fn of(container: &Container) -> Self {
        let cgroup = container.cgroup().ok().map(ToOwned::to_owned);
        let ooms = cgroup.as_deref().and_then(cgroup::oom_counts);
        Self { init: container.init().ok().flatten(), cgroup, ooms }
    }

    /// What it has lost since, under the limits that are in force now.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.shortage().map(|shortage| Loss::of_process(&shortage)).or_else(|| self.end())
    }

    /// The same under limits that are in force no more.
    pub(super) fn loss_meanwhile(&self) -> Option<Loss> {
        self.shortage().map(|_| Loss::of_somebody()).or_else(|| self.end())
    }

    /// First, for it may be the reason of the end; systemd may have taken the counts away by then.
    fn shortage(&self) -> Option<OomReport> {
        cgroup::shortage(self.cgroup.as_deref()?, self.ooms?)
    }

    fn end(&self) -> Option<Loss> {
        let mut waiting = [PollFd::new(self.init.as_ref()?, PollFlags::IN)];
        let has_ended = retry_on_intr(|| poll(&mut waiting, Some(&Timespec::default()))).is_ok_and(|n| n > 0);
        has_ended.then(Loss::of_all)
    }
}
