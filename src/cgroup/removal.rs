//! Killing the processes of a cgroup and removing it, innermost directories first.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, Dir, FileType, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::control_file;
use super::events::Events;
use crate::host::process::{ProcessStat, process_stat};
use crate::init;

/// How long processes may take to die after SIGKILL. Those in uninterruptible sleep, e.g. on a dead network
/// file system, take longer, and no runtime can help that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many rounds of killing to try where processes must be killed one by one and may fork meanwhile.
const ROUNDS: u32 = 8;
/// How long a threaded cgroup may take to freeze.
const FREEZING: Duration = Duration::from_secs(1);
/// How often to wait [`SETTLING`] for a busy cgroup before taking it to be in use by someone else.
const SETTLINGS: u32 = 10;
/// How long an init process may take to exit after its parent has died.
const NOTICING: Duration = Duration::from_secs(2);
/// How long to wait for a cgroup that reports no processes but cannot be removed yet.
const SETTLING: Duration = Duration::from_millis(10);

/// Kills every process in the cgroup and below it. Does nothing if the cgroup is gone.
pub fn kill(path: &Path) -> Result<()> {
    for _ in 0..ROUNDS {
        kill_by_main_threads(path)?;
        // They may have forked meanwhile: the next round kills the children.
        if !kill_without_main_threads(path)? {
            break;
        }
    }
    Ok(())
}

/// Kills through `cgroup.kill`, which sends SIGKILL to main threads.
fn kill_by_main_threads(path: &Path) -> Result<()> {
    let result = control_file::open_dir(path).and_then(|dir| {
        match control_file::write(dir.as_fd(), "cgroup.kill", "1") {
            // A threaded cgroup: its threads belong to processes that may have others elsewhere.
            Err(Errno::OPNOTSUPP) => kill_one_by_one(path, &dir),
            result => result,
        }
    });
    match result {
        // ENODEV: the cgroup was removed after it was opened.
        Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("write \"1\" to {}/cgroup.kill", path.display())),
    }
}

/// Kills the processes whose main thread has ended while others go on. `cgroup.kill` misses them: it sends
/// SIGKILL to main threads, and a thread that has ended takes no signal (seen on Linux 6.18). Returns whether
/// there were any.
fn kill_without_main_threads(path: &Path) -> Result<bool> {
    kill_those(path, |pid, stat| stat.outlives_main_thread(pid))
}

/// Kills the processes in the cgroup for which `is_meant` is true, each by its pidfd. Returns whether there
/// were any.
fn kill_those(path: &Path, is_meant: impl Fn(i32, &ProcessStat) -> Result<bool>) -> Result<bool> {
    let mut found = Vec::new();
    for pid in tasks(path) {
        let number = pid.as_raw_pid();
        let Some(stat) = process_stat(number)? else { continue };
        // pidfd_open(2) fails for a process that has ended, and for a thread of a threaded cgroup.
        if is_meant(number, &stat)? {
            if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
                found.push((pid, process));
            }
        }
    }
    if found.is_empty() {
        return Ok(false);
    }
    // Between listing and opening, a pid may have been reused by a process elsewhere. While the pidfd's
    // process lives, it cannot be reused again, so a pid that is still listed is that process; if the process
    // has died, the signal goes nowhere.
    let listed = tasks(path);
    for (pid, process) in found.iter().filter(|(pid, _)| listed.contains(pid)) {
        match pidfd_send_signal(process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("kill process {}", pid.as_raw_pid())),
        }
    }
    Ok(true)
}

/// Kills while frozen, so that nothing can fork meanwhile; SIGKILL reaches frozen processes.
fn kill_one_by_one(path: &Path, dir: &OwnedFd) -> Result<(), Errno> {
    control_file::write(dir.as_fd(), "cgroup.freeze", "1")?;
    // A process stuck in the kernel, which does not freeze, cannot fork either.
    if let Some(events) = Events::open(path)? {
        events.wait_until("frozen", "1", Instant::now() + FREEZING)?;
    }
    for task in tasks(path) {
        // It may have exited by itself.
        let _ = kill_process(task, Signal::KILL);
    }
    control_file::write(dir.as_fd(), "cgroup.freeze", "0")
}

/// Kills everything in the cgroup, waits, and removes it. Does nothing if it is gone.
///
/// # Errors
/// Processes that do not die within ten seconds.
pub fn remove(path: &Path) -> Result<()> {
    let remove = || unlinkat(CWD, path, AtFlags::REMOVEDIR);
    let context = || format!("remove cgroup {}", path.display());
    // Usually nothing is left in it.
    match remove() {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY) => {}
        Err(errno) => return Err(errno).with_context(context),
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        kill(path)?;
        let Some(events) = Events::open(path).with_context(context)? else { return Ok(()) };
        if !events.wait_until("populated", "0", deadline).with_context(context)? {
            bail!("{}: {} process(es) still alive {PATIENCE:?} after SIGKILL", context(), tasks(path).len());
        }
        remove_below(path).with_context(context)?;
        match remove() {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Someone made a new cgroup in it, or the kernel is still cleaning up the last process.
            Err(Errno::BUSY) if Instant::now() < deadline => events.wait(SETTLING).with_context(context)?,
            Err(errno) => return Err(errno).with_context(context),
        }
    }
}

/// Removes the cgroup of a container whose processes have all ended. If others have moved in since, e.g.
/// those of a second container with the same cgroup, it is left to them.
pub fn remove_unless_used(path: &Path) -> Result<()> {
    let context = || format!("remove cgroup {}", path.display());
    for _ in 0..SETTLINGS {
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno).with_context(context),
        }
        // The kernel is still cleaning up the last process, or there are cgroups below.
        let Some(events) = Events::open(path).with_context(context)? else { return Ok(()) };
        if events.wait_until("populated", "0", Instant::now() + SETTLING).with_context(context)? {
            remove_below(path).with_context(context)?;
        }
    }
    Ok(())
}

/// Removes the cgroup of a container whose creation was interrupted, as [`remove_unless_used`] does.
///
/// If the runtime that was creating it has just been killed, the init process notices and exits. One that
/// does not, because it is stopped or frozen, is killed. Its name, and the fact that it has never executed a
/// program, tell it from the processes of another container in the same cgroup.
pub fn remove_abandoned(path: &Path) -> Result<()> {
    let context = || format!("remove cgroup {}", path.display());
    if let Some(events) = Events::open(path).with_context(context)? {
        let is_emptied =
            || events.wait_until("populated", "0", Instant::now() + NOTICING).with_context(context);
        if !is_emptied()? && kill_those(path, |pid, stat| Ok(stat.never_executed && is_named_init(pid)))? {
            is_emptied()?;
        }
    }
    remove_unless_used(path)
}

fn is_named_init(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).next() == Some(init::NAME.to_bytes()))
}

/// Whether there are processes in the cgroup or below it. Waits up to 100 ms for the kernel to clean up the
/// last one.
pub fn is_used(path: &Path) -> Result<bool> {
    let context = || format!("stat cgroup {}", path.display());
    let Some(events) = Events::open(path).with_context(context)? else { return Ok(false) };
    let deadline = Instant::now() + SETTLING * SETTLINGS;
    Ok(!events.wait_until("populated", "0", deadline).with_context(context)?)
}

/// Whether there are processes in the cgroup or below it right now, including those in pid namespaces that
/// the runtime cannot see. `false` if the cgroup is gone.
pub fn is_populated(path: &Path) -> bool {
    let events = |dir: OwnedFd| control_file::read(dir.as_fd(), "cgroup.events");
    match control_file::open_dir(path).and_then(events) {
        Ok(text) => control_file::value(&text, "populated") != Some("0"),
        Err(errno) => !matches!(errno, Errno::NOENT | Errno::NODEV),
    }
}

/// Returns the processes in a cgroup and below it that the runtime can see; the threads, if it is threaded.
pub(super) fn tasks(path: &Path) -> Vec<Pid> {
    let mut tasks = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(dir) = control_file::open_dir(&path) else { continue };
        let list = control_file::read(dir.as_fd(), "cgroup.procs")
            .or_else(|_| control_file::read(dir.as_fd(), "cgroup.threads"))
            .unwrap_or_default();
        // Processes in other pid namespaces are listed as 0.
        tasks.extend(list.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
        open.extend(children(&dir).unwrap_or_default().into_iter().map(|name| path.join(name)));
    }
    tasks
}

/// Removes the cgroups below an empty one, as far as possible.
///
/// The container may have created them, so the tree may be deeper than a path or the stack can hold: a single
/// descriptor walks down and up again.
fn remove_below(path: &Path) -> Result<(), Errno> {
    let mut dir = match control_file::open_dir(path) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    // The children still to be removed, for each directory on the way down.
    let mut levels = vec![children(&dir)?];
    while let Some(names) = levels.last_mut() {
        let Some(name) = names.last() else {
            levels.pop();
            if levels.is_empty() {
                break;
            }
            dir = control_file::open_dir_at(dir.as_fd(), Path::new(".."))?;
            // Now empty, so it can go; if it cannot, the caller fails to remove its own cgroup and reports
            // that.
            if let Some(name) = levels.last_mut().and_then(Vec::pop) {
                let _ = unlinkat(&dir, &name, AtFlags::REMOVEDIR);
            }
            continue;
        };
        match unlinkat(&dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY) => match control_file::open_dir_at(dir.as_fd(), name) {
                Ok(child) => {
                    levels.push(children(&child)?);
                    dir = child;
                }
                Err(_) => drop(names.pop()),
            },
            _ => drop(names.pop()),
        }
    }
    Ok(())
}

/// Returns the names of the cgroups directly below.
fn children(dir: &OwnedFd) -> Result<Vec<PathBuf>, Errno> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && !matches!(name, b"." | b"..") {
            names.push(std::ffi::OsStr::from_bytes(name).into());
        }
    }
    Ok(names)
}
