//! Waits for a condition with a deadline.

use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::host;

/// Waits until `condition` holds; panics, naming `what`, when the host's patience is over.
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(host::patience(), condition), "not within {:?}: {what}", host::patience());
}

/// Whether `condition` comes to hold before `limit` has passed.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    let mut pause = 500_000;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: pause }));
        pause = (pause * 2).min(20_000_000);
    }
    true
}

/// The status with which `child` ends within `limit`.
pub fn ends_within(limit: Duration, child: &mut Child) -> Option<ExitStatus> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let limit =
        Timespec { tv_sec: limit.as_secs().try_into().unwrap(), tv_nsec: limit.subsec_nanos().into() };
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
    (ready > 0).then(|| child.wait().unwrap())
}

/// Waits until reading from this does not block: there is something, or the other end is closed.
#[track_caller]
pub fn wait_to_read(what: &str, file: impl AsFd) {
    let seconds = host::patience().as_secs().try_into().unwrap();
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&limit)).unwrap();
    assert!(ready > 0, "not within {:?}: {what}", host::patience());
}
