//! Processes that a container lost during a change of limits. Lowering `memory.max` below the usage kills
//! processes at once. That cannot be undone, so it is reported whether or not the change succeeds.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::cgroup;
use crate::cgroup::{OomCounts, OomReport};
use crate::container::Container;

/// A phrase to put after the container's name; also the context of an error.
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

    /// When it is no longer known which limit was hit.
    pub(super) fn of_somebody() -> Self {
        Self("a process was OOM-killed".to_owned())
    }

    pub(super) fn of_all() -> Self {
        Self("container exited".to_owned())
    }
}

/// The state of a container before its limits are changed.
#[derive(Debug)]
pub(super) struct Before {
    /// `None` if it has exited.
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

    /// Returns what it has lost since, under the limits now in force.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.shortage().map(|shortage| Loss::of_process(&shortage)).or_else(|| self.end())
    }

    /// The same, when those limits have been undone.
    pub(super) fn loss_meanwhile(&self) -> Option<Loss> {
        self.shortage().map(|_| Loss::of_somebody()).or_else(|| self.end())
    }

    /// To be checked first, because a kill may be why the container exited. systemd may have removed the
    /// counters by then.
    fn shortage(&self) -> Option<OomReport> {
        cgroup::shortage(self.cgroup.as_deref()?, self.ooms?)
    }

    fn end(&self) -> Option<Loss> {
        let mut waiting = [PollFd::new(self.init.as_ref()?, PollFlags::IN)];
        let has_ended = retry_on_intr(|| poll(&mut waiting, Some(&Timespec::default()))).is_ok_and(|n| n > 0);
        has_ended.then(Loss::of_all)
    }
}
