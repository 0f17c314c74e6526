//! Changing the limits of a cgroup that is in use: all of a change is in force in the end, or nothing of it.
//!
//! A change is a part of `linux.resources`. What it means, beside what is in force already, is decided by `merge.rs` and by the
//! same plan as that of a new cgroup; `journal.rs` reads what each control file holds before it is written, so that a write
//! that the kernel refuses takes the earlier ones back. Device rules are left alone, as in runc: others, such as the plugins of
//! graphics cards, may have added their own.

mod journal;
mod merge;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::value::{RawValue, to_raw_value};

use self::journal::Journal;
use super::resources::{self, Limits, WhenRefused};
use super::{apply, control_file, controllers, fs};
use crate::document;
use crate::error::{Fault, Pointer};

/// Where the values of a change come from, for messages.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A document of this name.
    Document(&'static str),
    /// Options, each by the pointer of the value that it gives.
    Options(&'static [(&'static str, &'static str)]),
}

/// A change that is in force, and is taken back on drop, unless kept.
#[derive(Debug)]
pub struct Update {
    cgroup: OwnedFd,
    journal: Journal,
    in_force: Box<RawValue>,
}

impl Update {
    /// Applies `change`, the text of a `linux.resources` object, to the cgroup at `path` whose resources are those of `in_force`.
    ///
    /// # Errors
    /// A value that makes no sense, that contradicts what is in force, or that the kernel refuses, each by the place that it
    /// comes from. Then everything is as it was.
    pub fn apply(path: &Path, in_force: Option<&RawValue>, change: &[u8], source: Source) -> Result<Self> {
        let cgroup =
            control_file::open_dir(path).with_context(|| format!("open cgroup {}", path.display()))?;
        let at = source.root();
        let mut change = document::resources(change, &at)?;
        change.set_devices(None);
        let in_force = in_force.map_or("{}", RawValue::get);
        let old = serde_json::from_str(in_force).context("decode the resources in force")?;
        let cpu_max = control_file::read(cgroup.as_fd(), "cpu.max").ok();
        let added = Added(merge::complete(&mut change, &old, cpu_max.as_deref()));

        let mut limits = resources::plan(&change, &at).map_err(|error| added.explain(error, source))?;
        let in_force = merge::merge(serde_json::from_str(in_force)?, &change, files(&limits))
            .and_then(|merged| to_raw_value(&merged))
            .context("encode the resources in force")?;
        for at in limits.places() {
            *at = added.origin(at, source);
        }
        let mut update = Self { cgroup, journal: Journal::default(), in_force };
        update.write(path, &limits)?;
        Ok(update)
    }

    /// The resources that are in force now, a `linux.resources` object.
    pub fn in_force(&self) -> &RawValue {
        &self.in_force
    }

    pub fn keep(mut self) {
        self.journal.forget();
    }

    fn write(&mut self, path: &Path, limits: &Limits) -> Result<()> {
        let Self { cgroup, journal, .. } = self;
        let cgroup = cgroup.as_fd();
        for write in &limits.writes {
            if !journal::can_restore(cgroup, &write.file, &write.value) {
                let message = format_args!(
                    "{} does not tell what it holds, so that it could not be put back",
                    write.file
                );
                return Err(write.at.error(message));
            }
        }
        let mount = fs::Mount::find()?;
        let enabled = controllers::Enabled::of(cgroup, path)?;
        let target = apply::Target { dir: cgroup, path, fresh: false };
        let written = apply::limits(limits, &target, &mount, &enabled, |file, value| {
            journal.write(cgroup, file, value)
        });
        written.map_err(|mut error| {
            let lost = journal.undo(cgroup);
            if let (false, Some(fault)) = (lost.is_empty(), error.downcast_mut::<Fault>()) {
                fault.message.push_str(&format!(" (and {} could not be put back)", lost.join(", ")));
            }
            error
        })
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        // An error here must not hide the one that led here.
        let _ = self.journal.undo(self.cgroup.as_fd());
    }
}

/// The files that are written, but for those that `unified` names.
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

    /// The value at `path`.
    fn place(self, path: &str) -> Pointer {
        let option = match self {
            Self::Options(options) => options.iter().find(|(pointer, _)| *pointer == path),
            Self::Document(_) => None,
        };
        let document = option.map_or_else(|| self.root().document(), |(_, option)| option);
        Pointer::in_document(document, path)
    }
}

/// The pointers of values that were in force and that a change means together with its own, each with that of its own.
struct Added(Vec<(&'static str, &'static str)>);

impl Added {
    fn find(&self, at: &Pointer) -> Option<&'static str> {
        let path = at.to_string();
        self.0.iter().find(|(added, _)| *added == path).map(|(_, own)| *own)
    }

    /// The place in the change that makes what is at `at` be written.
    fn origin(&self, at: &Pointer, source: Source) -> Pointer {
        source.place(self.find(at).unwrap_or(&at.to_string()))
    }

    /// The error with the place that its value comes from.
    fn explain(&self, mut error: anyhow::Error, source: Source) -> anyhow::Error {
        if let Some(fault) = error.downcast_mut::<Fault>() {
            let path = fault.pointer.to_string();
            fault.pointer = match self.find(&fault.pointer) {
                Some(_) => Pointer::in_document("in force", &path),
                None => source.place(&path),
            };
        }
        error
    }
}
