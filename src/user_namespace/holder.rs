//! A short-lived process that is in a user namespace, so that the kernel can be asked about it or told its maps.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, bail};

use super::{IdMaps, Unwritten, Writer};
use crate::child::{Init, is_single_threaded, socket_pair};
use crate::error::Pointer;
use crate::sys::Errno;
use crate::sys::process::{Cloned, all_but, clone3};
use crate::{init, sync};

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Holder {
    process: Init,
    socket: OwnedFd,
}

impl Holder {
    /// A process in an existing user namespace.
    pub fn joined(namespace: BorrowedFd<'_>) -> Result<Self> {
        Self::start(0, Some(namespace))
    }

    /// A process in a new user namespace, which maps `maps`; what is wrong with them stands at `at`.
    pub fn with(maps: &IdMaps, writer: Writer, at: &Pointer) -> Result<Self> {
        let holder = Self::start(libc::CLONE_NEWUSER, None)?;
        Unwritten::by(writer, maps.clone()).write(holder.pid(), at)?;
        Ok(holder)
    }

    /// Its user namespace, which outlives it.
    pub fn namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/user", self.pid());
        Ok(File::open(&path).with_context(|| format!("open {path}"))?.into())
    }

    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    fn start(new: i32, join: Option<BorrowedFd<'_>>) -> Result<Self> {
        let (ours, theirs) = socket_pair()?;
        let mut used = vec![theirs.as_raw_fd().unsigned_abs()];
        used.extend(join.map(|namespace| namespace.as_raw_fd().unsigned_abs()));
        let unused = all_but(used, 3);
        debug_assert!(is_single_threaded(), "a lock that another thread holds would stay held in the child");
        let cloned = clone3(u64::from(new.unsigned_abs()), None).context("clone")?;
        let Cloned::Parent { pid, pidfd } = cloned else { init::hold(&unused, join, theirs.as_fd()) };
        drop(theirs);
        let holder = Self { process: Init { pid, pidfd, keep: false }, socket: ours };
        let mut answer = [0; sync::SIZE];
        let (length, _) = sync::receive(holder.socket.as_fd(), &mut answer).context("hear from a process")?;
        match (length, answer.first_chunk()) {
            (4, Some(errno)) => match i32::from_ne_bytes(*errno) {
                0 => Ok(holder),
                errno => Err(Errno::from_raw_os_error(errno)).context("join the user namespace"),
            },
            _ => bail!("a process ended before it was in the user namespace"),
        }
    }
}
