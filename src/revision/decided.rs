//! New limits that have been planned but not applied: those of the cgroup and those of the RDT class of
//! service.

use anyhow::{Result, bail};
use serde_json::value::RawValue;

use crate::cgroup;
use crate::cgroup::change::Change;
use crate::cgroup::intel_rdt::{OpenClass, SCHEMATA};
use crate::cgroup::{Planned, Source, intel_rdt};
use crate::container::Container;
use crate::error::{NotRestored, Pointer};

/// A class of service and its new limits, each with its origin.
type OfClass<'a> = (OpenClass, Vec<(&'a str, &'a str)>);

/// A planned change.
#[derive(Debug)]
pub(super) struct PlannedChange<'a> {
    limits: Planned,
    rdt: Option<OfClass<'a>>,
}

impl<'a> PlannedChange<'a> {
    /// Plans a change. `resources` is the text of a `linux.resources` object, `schemata` are limits of the
    /// class of service, each with its option.
    pub(super) fn change(
        container: &Container,
        resources: &[u8],
        source: Source,
        schemata: &[(&'static str, &'a str)],
    ) -> Result<Self> {
        let (unit, in_force) = (container.state.systemd.as_ref(), container.state.resources.as_deref());
        let limits = Planned::change(container.cgroup()?, unit, in_force, resources, source)?;
        Ok(Self { limits, rdt: of_class(container, schemata.to_vec())? })
    }

    /// Plans restoring old values, the last of `old` first. `resources` are in force afterwards; `at` says
    /// where the values come from.
    pub(super) fn return_to(
        container: &Container,
        old: &[(&'a Change, &'a str)],
        resources: Option<Box<RawValue>>,
        at: &Pointer,
    ) -> Result<Self> {
        let (schemata, files): (Vec<_>, Vec<_>) = old
            .iter()
            .map(|(change, value)| (&*change.file, *value))
            .partition(|(file, _)| *file == SCHEMATA);
        let unit = container.state.systemd.as_ref();
        let limits = Planned::return_to(container.cgroup()?, unit, &files, resources, at)?;
        let schemata = schemata.iter().map(|(_, value)| (at.document(), *value));
        Ok(Self { limits, rdt: of_class(container, schemata.collect())? })
    }

    /// Returns what would be written, without writing it.
    pub(super) fn preview(&self) -> Result<Vec<Change>> {
        let mut changes = self.limits.preview()?;
        if let Some((class, schemata)) = &self.rdt {
            changes.extend(intel_rdt::preview(class, schemata)?);
        }
        Ok(changes)
    }

    /// Returns what would be replaced, each place once.
    pub(super) fn replaced(&self) -> Result<Vec<Change>> {
        let mut changes = self.limits.replaced()?;
        if let Some((class, schemata)) = &self.rdt {
            let schemata = intel_rdt::preview(class, schemata)?;
            let schemata = schemata.into_iter().filter(|change| !change.from.is_empty());
            changes.extend(schemata.map(|change| Change { file: SCHEMATA.to_owned(), ..change }));
        }
        let mut once: Vec<Change> = Vec::new();
        for change in changes {
            if once.iter().all(|earlier| earlier.place() != change.place()) {
                once.push(change);
            }
        }
        Ok(once)
    }

    /// Applies the change, all or nothing.
    pub(super) fn apply(self) -> Result<Applied> {
        // First, because unlike memory.max it kills nothing: if it is refused, nothing is lost.
        let rdt = self.rdt.map(|(class, schemata)| intel_rdt::Update::apply(class, &schemata)).transpose()?;
        match self.limits.apply() {
            Ok(limits) => Ok(Applied { rdt, limits }),
            Err(error) => {
                let lost = rdt.map(intel_rdt::Update::take_back).unwrap_or_default();
                Err(NotRestored::after(error, lost))
            }
        }
    }
}

/// Opens the container's class of service.
///
/// # Errors
/// There are `schemata`, but the container has no class.
fn of_class<'a>(container: &Container, schemata: Vec<(&'a str, &'a str)>) -> Result<Option<OfClass<'a>>> {
    match (container.state.intel_rdt(), schemata.first()) {
        (_, None) => Ok(None),
        (Some(member), _) => Ok(Some((OpenClass::of(&member)?, schemata))),
        (None, Some((from, _))) => {
            bail!("{from}: updating a non-existent Intel RDT configuration is not supported")
        }
    }
}

/// A change that has been applied. Dropping it undoes it, unless kept.
#[derive(Debug)]
pub(super) struct Applied {
    rdt: Option<intel_rdt::Update>,
    limits: cgroup::Update,
}

impl Applied {
    /// Returns what differs from before.
    pub(super) fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = self.limits.changes();
        if let Some(rdt) = &self.rdt {
            changes.extend(rdt.changes()?);
        }
        Ok(changes)
    }

    /// Returns the resources that are now in force, a `linux.resources` object.
    pub(super) fn in_force(&self) -> Option<&RawValue> {
        self.limits.in_force()
    }

    /// Undoes everything; returns what could not be restored.
    pub(super) fn take_back(self) -> Vec<String> {
        let mut lost = self.rdt.map(intel_rdt::Update::take_back).unwrap_or_default();
        lost.extend(self.limits.take_back());
        lost
    }

    pub(super) fn keep(self) {
        self.limits.keep();
        if let Some(rdt) = self.rdt {
            rdt.keep();
        }
    }
}
