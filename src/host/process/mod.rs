//! Processes cloned by this one, and what /proc says about any process.

mod stat;

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

pub use self::stat::*;
use crate::error::{Fault, Pointer};
use crate::host::signals::Signal;
use crate::init::protocol;

/// A cloned process; killed and reaped on drop, unless `keep` is set.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub keep: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.keep {
            let _ = Signal::KILL.send(self.pidfd.as_fd());
            let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

impl Process {
    /// Sends its pidfd to the socket `to`, if any; `what` is `standard` or `setns`, as in runc.
    pub fn send_pidfd(&self, to: Option<OwnedFd>, what: &[u8]) -> Result<()> {
        let Some(socket) = to else { return Ok(()) };
        protocol::send_descriptor(socket.as_fd(), what, self.pidfd.as_fd())
            .context("send to the pidfd socket")
    }

    /// Writes the `oom_score_adj` requested at `at`.
    pub fn adjust_oom_score(&self, score: i32, at: Pointer) -> Result<()> {
        let path = format!("/proc/{}/oom_score_adj", self.pid);
        fs::write(&path, score.to_string()).with_context(|| Fault {
            pointer: at,
            message: format!("write {score} to {path}"),
            hint: (score < 0).then(|| "lowering it requires CAP_SYS_RESOURCE".to_owned()),
        })
    }
}

/// The start time of process `pid`; 0 if it does not exist.
pub fn start(pid: i32) -> Result<u64> {
    Ok(process_stat(pid)?.map_or(0, |stat| stat.start))
}

/// Whether this process has one thread: /proc/self/task has a link count of 2 plus one per thread;
/// proc_pid_task(5).
pub fn is_single_threaded() -> bool {
    // If it cannot be read, assume so.
    fs::metadata("/proc/self/task").map_or(true, |tasks| tasks.nlink() == 3)
}

/// The pid of a pidfd; proc_pid_fdinfo(5).
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let number =
        text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim).and_then(|n| n.parse().ok());
    number.filter(|pid| *pid > 0).with_context(|| format!("no process in {path}"))
}

pub fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .context("create a socket pair")
}
