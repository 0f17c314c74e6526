//! A short-lived process that keeps something alive: a user namespace to ask the kernel about, or a cgroup
//! that must not be empty.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail};

use crate::host::process::{Process, is_single_threaded, socket_pair};
use crate::init;
use crate::init::protocol;
use crate::sys::Errno;
use crate::sys::process::{Cloned, all_but, clone3};

/// The process is killed when this is dropped, and exits when this process exits.
#[derive(Debug)]
pub struct Placeholder {
    process: Process,
    socket: OwnedFd,
}

impl Placeholder {
    /// Starts one in `new` namespaces (`CLONE_NEW*`) or in the existing user namespace `join`.
    pub fn start(new: i32, join: Option<BorrowedFd<'_>>) -> Result<Self> {
        let (ours, theirs) = socket_pair()?;
        let mut used = vec![theirs.as_raw_fd().unsigned_abs()];
        used.extend(join.map(|namespace| namespace.as_raw_fd().unsigned_abs()));
        let unused = all_but(used, 3);
        debug_assert!(is_single_threaded(), "a lock that another thread holds would stay held in the child");
        let cloned = clone3(u64::from(new.unsigned_abs()), None).context("clone")?;
        let Cloned::Parent { pid, pidfd } = cloned else { init::hold(&unused, join, theirs.as_fd()) };
        drop(theirs);
        let holder = Self { process: Process { pid, pidfd, keep: false }, socket: ours };
        let mut answer = [0; protocol::SIZE];
        let (length, _) =
            protocol::receive(holder.socket.as_fd(), &mut answer).context("receive from a helper process")?;
        match (length, answer.first_chunk()) {
            (4, Some(errno)) => match i32::from_ne_bytes(*errno) {
                0 => Ok(holder),
                errno => Err(Errno::from_raw_os_error(errno)).context("join the user namespace"),
            },
            _ => bail!("helper process exited prematurely"),
        }
    }

    pub fn pid(&self) -> i32 {
        self.process.pid
    }
}
