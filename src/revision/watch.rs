//! Watching a container after a change of limits: it must not exit, nothing in it may be OOM-killed, and it
//! must not stall.
//!
//! The first two are events (a pidfd, `memory.events`). For the third, the kernel measures the share of time
//! in which no process of the cgroup could make progress: `full avg10` of `memory.pressure` and
//! `io.pressure`, where supported (the kernel's accounting/psi.rst). There is no event for crossing a
//! threshold, so it is polled at the interval of the kernel's updates. CPU pressure is ignored: with a quota,
//! waiting is intended.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use super::loss::Loss;
use crate::cgroup;
use crate::cgroup::{OomCounts, OomWatch};
use crate::container::Container;
use crate::error::Refusal;
use crate::host::signals::{Signal, SignalQueue};

/// The interval at which the kernel updates the averages.
const PRESSURE_PERIOD: Duration = Duration::from_secs(2);
const PRESSURES: [&str; 2] = ["memory.pressure", "io.pressure"];

/// A container that is being watched.
#[derive(Debug)]
pub struct Watch {
    init: OwnedFd,
    oom: OomWatch,
    earlier_ooms: OomCounts,
    cgroup: PathBuf,
    /// The values before the change, for each of [`PRESSURES`]: pressure that has not risen since is not due
    /// to the update.
    pressure: [Option<f64>; 2],
}

/// The outcome.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing happened for the whole time.
    Settled,
    /// The index of the container that failed, and why.
    Failed(usize, String),
    Interrupted(Signal),
}

impl Watch {
    /// Starts watching.
    pub fn begin(container: &Container) -> Result<Self> {
        let Some(init) = container.init()? else {
            return Err(Refusal::NotRunning(container.state.id.clone()).into());
        };
        let cgroup = container.cgroup()?.to_owned();
        let earlier_ooms = cgroup::oom_counts(&cgroup).unwrap_or_default();
        let oom = OomWatch::new(&cgroup)?;
        let pressure = PRESSURES.map(|name| pressure(&cgroup.join(name)));
        Ok(Self { init, oom, earlier_ooms, cgroup, pressure })
    }

    /// Returns what has happened, if anything; `has_ended` says whether the init process has exited. `most`
    /// is the percentage of time that may be lost.
    fn problem(&mut self, has_ended: bool, most: f64) -> Result<Option<String>> {
        // First, because it may be why the container exited.
        if self.oom.has_killed()? {
            return Ok(Some(
                match cgroup::shortage(&self.cgroup, self.earlier_ooms) {
                    Some(shortage) => Loss::of_process(&shortage),
                    // The cgroup is gone by now.
                    None => Loss::of_somebody(),
                }
                .to_string(),
            ));
        }
        if has_ended {
            return Ok(Some(Loss::of_all().to_string()));
        }
        for (name, before) in PRESSURES.iter().zip(self.pressure) {
            let now = pressure(&self.cgroup.join(name));
            if let Some(now) = now.filter(|now| *now > most && *now > before.unwrap_or(0.0)) {
                return Ok(Some(format!(
                    "stalled: {name} (full avg10) {now} % exceeds --max-pressure {most} %"
                )));
            }
        }
        Ok(None)
    }
}

/// Watches the containers for this long, or until one fails or a signal asks this process to terminate.
pub fn settle(watches: &mut [Watch], signals: &SignalQueue, settle: Duration, most: f64) -> Result<Verdict> {
    let deadline = Instant::now() + settle;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = wait(watches, signals, left.min(PRESSURE_PERIOD))?;
        if let Some(signal) = signals.take()? {
            return Ok(Verdict::Interrupted(signal));
        }
        for (index, (watch, has_ended)) in watches.iter_mut().zip(ended).enumerate() {
            if let Some(problem) = watch.problem(has_ended, most)? {
                return Ok(Verdict::Failed(index, problem));
            }
        }
        if Instant::now() >= deadline {
            return Ok(Verdict::Settled);
        }
    }
}

/// Waits at most this long for an event; returns which init processes have exited.
fn wait(watches: &[Watch], signals: &SignalQueue, at_most: Duration) -> Result<Vec<bool>> {
    let timeout = Timespec::try_from(at_most).context("wait for the containers")?;
    let mut waiting: Vec<_> = watches.iter().map(|watch| PollFd::new(&watch.init, PollFlags::IN)).collect();
    let oom = watches.iter().flat_map(|watch| watch.oom.fds());
    waiting.extend(oom.map(|oom| PollFd::from_borrowed_fd(oom, PollFlags::PRI)));
    waiting.push(PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN));
    retry_on_intr(|| poll(&mut waiting, Some(&timeout))).context("wait for the containers")?;
    Ok(waiting.iter().take(watches.len()).map(|init| !init.revents().is_empty()).collect())
}

/// Reads `full avg10`, in percent; `None` where it is not measured.
fn pressure(file: &std::path::Path) -> Option<f64> {
    cgroup::avg10(&fs::read_to_string(file).ok()?, "full")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_share_of_time_in_which_nothing_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("memory.pressure");
        assert_eq!(pressure(&file), None);
        let text = "some avg10=71.00 avg60=1.00 avg300=0.00 total=9\nfull avg10=20.37 avg60=0.50 avg300=0.00 total=7\n";
        fs::write(&file, text).unwrap();
        assert_eq!(pressure(&file), Some(20.37));
        // As in cpu.pressure before Linux 5.13.
        fs::write(&file, "some avg10=71.00 avg60=1.00 avg300=0.00 total=9\n").unwrap();
        assert_eq!(pressure(&file), None);
    }
}
