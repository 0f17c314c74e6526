//! Changing the limits of a cgroup in use. Updates are atomic: every limit is applied, or none is.
//!
//! A change is part of a `linux.resources` object, or a set of old control file values. [`Planned`] is a
//! change that has been decided: `merge.rs` merges it with the limits in force, and the same planning as for
//! a new cgroup turns it into control files. [`Planned::apply`] is the only place that applies a change.
//! `journal.rs` reads each control file before it is written, so that earlier writes can be undone when the
//! kernel refuses one. Device rules are left alone, as in runc: others, such as GPU plugins, may have added
//! their own.

pub(super) mod journal;
pub(super) mod merge;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use serde_json::value::{RawValue, to_raw_value};

use self::journal::Journal;
use super::resources::{Limits, WhenRefused, Write};
use super::systemd::UnitChange;
use super::{Unit, apply, control_file, controllers, fs, resources, systemd};
use crate::bundle::document;
use crate::cgroup::change::Change;
use crate::error::{Fault, NotRestored, Pointer, line};

/// Where the values of a change come from, for messages.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A document with this name.
    Document(&'static str),
    /// Options: pairs of the pointer of a value and the option that sets it.
    Options(&'static [(&'static str, &'static str)]),
}

/// A change that has been planned, but not applied.
#[derive(Debug)]
pub struct Planned {
    cgroup: OwnedFd,
    path: PathBuf,
    /// The cgroup's systemd unit, if it has one.
    unit: Option<Unit>,
    limits: Limits,
    /// Whether this restores old values, so that an empty list stands for the parent's ([`journal::meant`]).
    is_return: bool,
    in_force: Option<Box<RawValue>>,
}

impl Planned {
    /// Plans `change`, the text of a `linux.resources` object, for the cgroup at `path`, whose current
    /// resources are `in_force`.
    ///
    /// # Errors
    /// A value that is invalid or conflicts with the limits in force, with its origin.
    pub fn change(
        path: &Path,
        unit: Option<&Unit>,
        in_force: Option<&RawValue>,
        change: &[u8],
        source: Source,
    ) -> Result<Self> {
        let cgroup = open(path)?;
        let at = source.root();
        let mut change = document::resources(change, &at)?;
        change.set_devices(None);
        let in_force = in_force.map_or("{}", RawValue::get);
        let old = serde_json::from_str(in_force).context("decode the current resources")?;
        let cpu_max = control_file::read(cgroup.as_fd(), "cpu.max").ok();
        let added = Added(merge::complete(&mut change, &old, cpu_max.as_deref()));

        let mut limits = resources::plan(&change, &at).map_err(|error| added.explain(error, source))?;
        if unit.is_some() {
            systemd::round(&mut limits);
        }
        let in_force = merge::merge(serde_json::from_str(in_force)?, &change, files(&limits))
            .and_then(|merged| to_raw_value(&merged))
            .context("encode the current resources")?;
        limits.order_kills_last();
        for at in limits.places() {
            *at = added.origin(at, source);
        }
        let (path, unit) = (path.to_owned(), unit.cloned());
        Ok(Self { cgroup, path, unit, limits, is_return: false, in_force: Some(in_force) })
    }

    /// Plans restoring old values of the cgroup at `path`: `old` are control files with their values,
    /// restored last first. `in_force` are the resources afterwards; `at` says where the values come from.
    pub fn return_to(
        path: &Path,
        unit: Option<&Unit>,
        old: &[(&str, &str)],
        in_force: Option<Box<RawValue>>,
        at: &Pointer,
    ) -> Result<Self> {
        let cgroup = open(path)?;
        let becomes_idle = old.contains(&("cpu.idle", "1"));
        let mut writes = Vec::new();
        for &(file, from) in old.iter().rev() {
            // An idle cgroup has no weight.
            let is_no_weight = file == "cpu.weight" && (becomes_idle || from == "0");
            let value = if from.is_empty() { journal::NOTHING } else { from };
            let holds = journal::would_replace(cgroup.as_fd(), file, from);
            let is_so = |held: String| held == from || held == journal::meant(cgroup.as_fd(), file, value);
            if is_no_weight || holds.is_ok_and(is_so) {
                continue;
            }
            writes.push(Write {
                at: at.field(file),
                file: file.to_owned().into(),
                value: value.to_owned(),
                // The old burst may exceed the current quota.
                refused: WhenRefused::Again,
            });
        }
        // It cannot be set while the cgroup is idle.
        writes.sort_by_key(|write| write.file == "cpu.weight");
        let mut limits = Limits { writes, ..Limits::default() };
        limits.order_kills_last();
        Ok(Self { cgroup, path: path.to_owned(), unit: unit.cloned(), limits, is_return: true, in_force })
    }

    /// Returns what would be written, without writing it: old and new value for each file, by its path.
    ///
    /// # Errors
    /// As [`Self::apply`], except that whether the kernel would accept the values is unknown.
    pub fn preview(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.perform(|file, value| {
            let from = journal::would_replace(self.cgroup.as_fd(), file, value)?;
            let of = journal::line_of(file, value).to_owned();
            let [file, to] = [self.path.join(file).display().to_string(), value.trim().to_owned()];
            changes.push(Change { file, of, from, to });
            Ok(())
        })?;
        Ok(changes)
    }

    /// Returns what [`Self::apply`] would replace in control files, in order.
    ///
    /// # Errors
    /// As [`Self::preview`].
    pub fn replaced(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.perform(|file, value| {
            journal::would_change(self.cgroup.as_fd(), file, value).map(|change| changes.extend(change))
        })?;
        Ok(changes)
    }

    /// Applies the change.
    ///
    /// # Errors
    /// A value that the kernel refuses, or a controller that the cgroup lacks, with the origin of the value.
    /// Then everything has been restored.
    pub fn apply(mut self) -> Result<Update> {
        let mut journal = Journal::default();
        let cgroup = self.cgroup.as_fd();
        // Left to systemd, which may still refuse the change. What can kill is written after everything that
        // can fail.
        let waits = |file: &str| self.unit.is_some() && resources::can_kill(file);
        let written = self.perform(|file, value| match waits(file) {
            true => journal.note(cgroup, file, value),
            false => journal.write(cgroup, file, value),
        });
        if let Err(error) = written {
            return Err(NotRestored::after(error, journal.undo(cgroup)));
        }
        for write in self.limits.writes.iter_mut().filter(|_| self.is_return) {
            write.value = journal::meant(cgroup, &write.file, &write.value).into_owned();
        }
        match self.unit.as_ref().map(|unit| self.tell(unit)).transpose() {
            Ok(told) => Ok(Update { journal, told, cgroup: self.cgroup, in_force: self.in_force }),
            Err(error) => Err(NotRestored::after(error, journal.undo(cgroup))),
        }
    }

    /// Passes the change to systemd and writes everything again, because systemd does not write all that was
    /// asked for.
    fn tell(&self, unit: &Unit) -> Result<UnitChange> {
        let mut told = UnitChange::apply(unit, &self.limits)?;
        let again = self.perform(|file, value| control_file::write(self.cgroup.as_fd(), file, value));
        match again {
            Ok(()) => Ok(told),
            Err(error) => Err(NotRestored::after(error, untold(&mut told))),
        }
    }

    fn perform(&self, mut write_file: impl FnMut(&str, &str) -> Result<(), Errno>) -> Result<()> {
        let (cgroup, path) = (self.cgroup.as_fd(), &*self.path);
        for write in &self.limits.writes {
            if !journal::can_restore(cgroup, &write.file, &write.value) {
                let message =
                    format!("{} cannot be read back, so the change could not be reverted", write.file);
                return Err(write.at.error(message));
            }
        }
        let mount = fs::Mount::find()?;
        let enabled = controllers::Enabled::of(cgroup, path)?;
        let target = apply::CgroupDir { dir: cgroup, path, fresh: false };
        apply::limits(&self.limits, &target, &mount, &enabled, |file, value| match self.is_return {
            // Evaluated only now: earlier writes may change what the parent has.
            true => write_file(file, &journal::meant(cgroup, file, value)),
            false => write_file(file, value),
        })
    }
}

/// Restores the unit's properties; returns what may not have been restored.
fn untold(told: &mut UnitChange) -> Vec<String> {
    let lost = |error| format!("the properties of the systemd unit ({})", line(&error));
    told.undo().err().map(lost).into_iter().collect()
}

fn open(path: &Path) -> Result<OwnedFd> {
    control_file::open_dir(path).with_context(|| format!("open cgroup {}", path.display()))
}

/// A change that has been applied. Dropping it undoes it, as [`Self::take_back`] does, but failures to
/// restore go unreported.
#[derive(Debug)]
pub struct Update {
    cgroup: OwnedFd,
    journal: Journal,
    /// The change of the unit's properties, with the systemd driver.
    told: Option<UnitChange>,
    in_force: Option<Box<RawValue>>,
}

impl Update {
    /// Returns the resources that are now in force, a `linux.resources` object.
    pub fn in_force(&self) -> Option<&RawValue> {
        self.in_force.as_deref()
    }

    /// Returns what differs from before.
    pub fn changes(&self) -> Vec<Change> {
        self.journal.changes(self.cgroup.as_fd())
    }

    pub fn keep(mut self) {
        self.journal.forget();
        self.told.iter_mut().for_each(UnitChange::forget);
    }

    /// Undoes the change; returns what could not be restored.
    pub fn take_back(mut self) -> Vec<String> {
        self.undo()
    }

    fn undo(&mut self) -> Vec<String> {
        let mut lost = self.told.take().map(|mut told| untold(&mut told)).unwrap_or_default();
        lost.extend(self.journal.undo(self.cgroup.as_fd()));
        lost
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        self.undo();
    }
}

/// Returns the files that are written, except those set by `unified`.
fn files(limits: &Limits) -> impl Iterator<Item = &str> {
    let own = limits.writes.iter().filter(|write| !write.at.to_string().starts_with("/unified/"));
    own.flat_map(|write| {
        let instead = match &write.refused {
            WhenRefused::Instead { file, .. } => Some(*file),
            _ => None,
        };
        [&*write.file].into_iter().chain(instead)
    })
}

impl Source {
    fn root(self) -> Pointer {
        Pointer::of(match self {
            Self::Document(name) => name,
            Self::Options(_) => "command line",
        })
    }

    /// The pointer of the value at `path`.
    fn place(self, path: &str) -> Pointer {
        let option = match self {
            Self::Options(options) => options.iter().find(|(pointer, _)| *pointer == path),
            Self::Document(_) => None,
        };
        let document = option.map_or_else(|| self.root().document(), |(_, option)| option);
        Pointer::in_document(document, path)
    }
}

/// Values in force that were added to a change: pairs of their pointer and that of the changed value that
/// required it.
struct Added(Vec<(&'static str, &'static str)>);

impl Added {
    fn find(&self, at: &Pointer) -> Option<&'static str> {
        let path = at.to_string();
        self.0.iter().find(|(added, _)| *added == path).map(|(_, own)| *own)
    }

    /// The place in the change because of which the value at `at` is written.
    fn origin(&self, at: &Pointer, source: Source) -> Pointer {
        source.place(self.find(at).unwrap_or(&at.to_string()))
    }

    /// Changes the pointer of the error to where the value comes from.
    fn explain(&self, mut error: anyhow::Error, source: Source) -> anyhow::Error {
        if let Some(fault) = error.downcast_mut::<Fault>() {
            let path = fault.pointer.to_string();
            fault.pointer = match self.find(&fault.pointer) {
                Some(_) => Pointer::in_document("current limits", &path),
                None => source.place(&path),
            };
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is written to restore `old` when the control files contain `files`.
    fn way_back(files: &[(&str, &str)], old: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), format!("{text}\n")).unwrap();
        }
        let at = Pointer::of("history").index(1);
        let planned = Planned::return_to(directory.path(), None, old, None, &at).unwrap();
        planned
            .limits
            .writes
            .iter()
            .map(|write| format!("{} {}={}", write.at, write.file, write.value))
            .collect()
    }

    #[test]
    fn what_is_so_already_is_not_written_again() {
        let back = way_back(
            &[("pids.max", "20"), ("memory.max", "max"), ("cpuset.cpus", "1")],
            &[("pids.max", "max"), ("memory.max", "max"), ("cpuset.cpus", "")],
        );
        assert_eq!(back, ["/1/cpuset.cpus cpuset.cpus=\n", "/1/pids.max pids.max=max"]);
    }

    #[test]
    fn the_way_back_is_the_way_in_reverse() {
        let files =
            [("cpuset.cpus", "0"), ("cpuset.cpus.partition", "root"), ("cpu.weight", "1"), ("cpu.idle", "0")];
        let changes = [
            ("cpuset.cpus", ""),
            ("cpu.idle", "0"),
            ("cpu.weight", "7"),
            ("cpuset.cpus.partition", "member"),
        ];
        let back = way_back(&files, &changes);
        let expected = [
            "/1/cpuset.cpus.partition cpuset.cpus.partition=member",
            "/1/cpuset.cpus cpuset.cpus=\n",
            "/1/cpu.weight cpu.weight=7",
        ];
        assert_eq!(back, expected);
    }

    #[test]
    fn an_idle_cgroup_is_given_no_weight() {
        let files = [("cpu.idle", "0"), ("cpu.weight", "17")];
        let back = way_back(&files, &[("cpu.idle", "1"), ("cpu.weight", "100")]);
        assert_eq!(back, ["/1/cpu.idle cpu.idle=1"]);
        assert_eq!(way_back(&files, &[("cpu.weight", "0")]), [""; 0]);
        let files = [("cpu.idle", "1"), ("cpu.weight", "0")];
        let back = way_back(&files, &[("cpu.idle", "0"), ("cpu.weight", "174")]);
        assert_eq!(back, ["/1/cpu.idle cpu.idle=0", "/1/cpu.weight cpu.weight=174"]);
    }
}
