//! Applying limits and the device filter to a cgroup.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;

use super::controllers::Enabled;
use super::filter::Filter;
use super::fs::Mount;
use super::resources::{Limits, WhenRefused, Write};
use super::{control_file, controllers, resources};
use crate::error::Fault;
use crate::sys::bpf;

/// The licence given to the kernel, which only requires that there is one.
const LICENSE: &CStr = c"Apache-2.0";

/// The cgroup to act on.
#[derive(Debug)]
pub(super) struct CgroupDir<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) path: &'a Path,
    /// Whether it was just created, so that it has no old usage or filters.
    pub(super) fresh: bool,
}

/// Writes every limit with `write_file`; stops at the first error.
pub(super) fn limits(
    limits: &Limits,
    target: &CgroupDir<'_>,
    mount: &Mount,
    enabled: &Enabled,
    mut write_file: impl FnMut(&str, &str) -> Result<(), Errno>,
) -> Result<()> {
    if !target.fresh {
        check_ceilings(limits, target)?;
    }
    let lacks = |write: &Write| !control_file::lists(&enabled.controllers, write.controller());
    let mut again = Vec::new();
    for write in &limits.writes {
        // Everything that can be refused comes before it.
        if resources::can_kill(&write.file) {
            once_more(&mut again, target, &mut write_file)?;
        }
        let mut tried = (&*write.file, &write.value);
        let mut outcome = write_file(tried.0, tried.1);
        if let (Err(Errno::NOENT), WhenRefused::Instead { file, value }) = (outcome, &write.refused) {
            tried = (file, value);
            outcome = write_file(tried.0, tried.1);
        }
        match (outcome, &write.refused) {
            (Ok(()), _) | (Err(Errno::NOENT), WhenRefused::Unneeded) => {}
            (Err(Errno::INVAL), WhenRefused::Again) => again.push(write),
            // The files of a controller exist only if it is enabled.
            (Err(Errno::NOENT), _) if write.needs_controller() && lacks(write) => {
                return Err(controllers::missing(write, mount, enabled));
            }
            (Err(errno), _) => return Err(not_taken(write, tried, target, errno)),
        }
    }
    once_more(&mut again, target, &mut write_file)
}

fn once_more(
    again: &mut Vec<&Write>,
    target: &CgroupDir<'_>,
    write_file: &mut impl FnMut(&str, &str) -> Result<(), Errno>,
) -> Result<()> {
    again.drain(..).try_for_each(|write| {
        write_file(&write.file, &write.value)
            .map_err(|errno| not_taken(write, (&*write.file, &write.value), target, errno))
    })
}

fn not_taken(
    write: &Write,
    (file, value): (&str, &String),
    target: &CgroupDir<'_>,
    errno: Errno,
) -> anyhow::Error {
    let message = format!("write {value:?} to {}", target.path.join(file).display());
    let hint = match errno {
        Errno::NOENT => Some("this kernel has no such control file"),
        Errno::NOSPC if value.trim().is_empty() => {
            Some("a list in use cannot be emptied: specify the wanted CPUs or memory nodes")
        }
        Errno::RANGE if file.starts_with("cpuset.") => Some(
            "a number is too high; the CPUs and memory nodes of this host are listed in /sys/devices/system",
        ),
        Errno::NODEV if file == "rdma.max" => {
            Some("no such device; the RDMA devices of this host are listed in /sys/class/infiniband")
        }
        Errno::INVAL if file == "misc.max" => {
            Some("misc.capacity in the root cgroup lists the known resources and their capacity")
        }
        _ => None,
    };
    let hint = hint.map(str::to_owned);
    anyhow::Error::new(errno).context(Fault { pointer: write.at.clone(), message, hint })
}

/// Refuses limits below the current usage, where the specification asks for that check.
fn check_ceilings(limits: &Limits, target: &CgroupDir<'_>) -> Result<()> {
    for ceiling in &limits.ceilings {
        // If the usage cannot be read, the limit cannot be written either, and that error is more helpful.
        let usage =
            control_file::read(target.dir, "memory.current").ok().and_then(|text| text.trim().parse().ok());
        if let Some(usage) = usage.filter(|usage: &u64| ceiling.bytes <= *usage) {
            let (what, bytes) = (ceiling.what, ceiling.bytes);
            return Err(ceiling.at.error(format_args!("rejecting {what} limit {bytes} <= usage {usage}")));
        }
    }
    Ok(())
}

/// Attaches the device filter, and detaches old ones; `None` allows every device.
pub(super) fn filter(filter: Option<&Filter>, target: &CgroupDir<'_>) -> Result<()> {
    let cgroup = target.path.display();
    let before = if target.fresh { Vec::new() } else { attached(target.dir)? };
    if let Some(filter) = filter {
        let program = load(filter)?;
        bpf::prog_attach(target.dir, program.as_fd(), bpf::CGROUP_DEVICE, bpf::ALLOW_MULTI)
            .with_context(|| format!("attach the device filter to {cgroup}"))?;
    }
    // Only after the new filter is attached: all filters of a cgroup must allow an access, so at no time is
    // more allowed.
    for program in before {
        bpf::prog_detach(target.dir, program.as_fd(), bpf::CGROUP_DEVICE)
            .with_context(|| format!("detach an old device filter from {cgroup}"))?;
    }
    Ok(())
}

fn load(filter: &Filter) -> Result<OwnedFd> {
    let load = |log: &mut [u8]| {
        // The verifier returns EAGAIN when a signal is pending.
        let mut tries =
            (0..30).map(|_| bpf::prog_load(bpf::PROG_CGROUP_DEVICE, filter.instructions(), LICENSE, log));
        tries.find(|result| !matches!(result, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))
    };
    load(&mut []).or_else(|errno| {
        let mut log = vec![0; 1 << 20];
        match load(&mut log) {
            Ok(program) => Ok(program),
            Err(_) => Err(errno).with_context(|| match end_of(&log) {
                Some(end) => format!("load the device filter ({end})"),
                None => "load the device filter".to_owned(),
            }),
        }
    })
}

/// Returns the last lines of the verifier's log, which contain the reason.
fn end_of(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log.split(|byte| *byte == 0).next()?);
    let mut lines: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(4).collect();
    lines.reverse();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Opens the device filters that are attached to a cgroup.
fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    // The kernel attaches at most 64 to a cgroup.
    let mut ids = [0; 64];
    let count =
        bpf::prog_query(cgroup, bpf::CGROUP_DEVICE, &mut ids).context("query attached device filters")?;
    let mut programs = Vec::new();
    for id in ids.iter().take(count) {
        match bpf::prog_by_id(*id) {
            Ok(program) => programs.push(program),
            // Blocked by an LSM, or gone: it is left attached, and can only forbid more.
            Err(Errno::ACCESS | Errno::PERM | Errno::NOENT) => {}
            Err(errno) => return Err(errno).context("open an attached device filter"),
        }
    }
    Ok(programs)
}
