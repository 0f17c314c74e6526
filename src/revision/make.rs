//! Making a revision: a change is applied and recorded, or neither.

use std::time::SystemTime;

use anyhow::{Result, bail};
use serde_json::value::RawValue;

use super::decided::{Applied, PlannedChange};
use super::loss::{Before, Loss};
use super::unfinished::UpdateNote;
use super::{History, New, Requester, unfinished};
use crate::cgroup::Source;
use crate::cgroup::change::Change;
use crate::container::state::{Identity, Status};
use crate::container::{Container, ContainerId, Lock, Root};
use crate::error::{NotRestored, Pointer, Refusal};
use crate::host::clock;
use crate::host::signals::{SignalQueue, Signals};

/// What to change.
#[derive(Clone, Debug)]
pub enum Wanted<'a> {
    Limits {
        /// A `linux.resources` object.
        resources: &'a [u8],
        source: Source,
        /// Limits of the class of service, each with its option.
        schemata: &'a [(&'static str, &'a str)],
    },
    /// Go back to earlier limits.
    Rollback {
        /// To this revision; `None` for the one before the current one.
        to: Option<u64>,
        /// Only if this revision is still in force.
        from: Option<u64>,
        reason: Option<&'a str>,
    },
}

impl Wanted<'_> {
    /// Whether this undoes the last change, whichever that was, including one that was interrupted.
    fn undoes_last_change(&self) -> bool {
        matches!(self, Self::Rollback { to: None, from: None, .. })
    }
}

/// A container to change.
#[derive(Clone, Copy, Debug)]
pub struct ContainerRef<'a> {
    pub root: &'a Root,
    pub id: &'a ContainerId,
    /// If set, the container must still be this one, not a later one of the same name.
    pub only: Option<&'a Identity>,
    /// Signals that abort waiting for the lock, if this process handles them.
    pub signals: Option<&'a SignalQueue>,
}

/// The result of [`make`].
#[derive(Debug)]
pub struct Made {
    /// The new revision; `None` if nothing had to be changed.
    pub revision: Option<u64>,
    /// The revision that was in force before.
    pub before: u64,
    /// The revision whose limits are in force again.
    pub rollback_to: Option<u64>,
    pub changes: Vec<Change>,
    /// What was restored first, because an earlier update had been interrupted.
    pub put_back: Vec<Change>,
    /// What the container has lost by the change.
    pub loss: Option<Loss>,
}

/// Another revision is in force than the one to be undone.
#[derive(Debug)]
pub struct RevisionChanged(pub u64);

impl std::fmt::Display for RevisionChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "revision {} was created meanwhile by another update", self.0)
    }
}

impl std::error::Error for RevisionChanged {}

/// The name now belongs to another container.
#[derive(Debug)]
pub struct Replaced;

impl std::fmt::Display for Replaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the container was deleted and another one created with the same name")
    }
}

impl std::error::Error for Replaced {}

impl<'a> ContainerRef<'a> {
    /// The container that currently has this name.
    pub fn named(root: &'a Root, id: &'a ContainerId) -> Self {
        Self { root, id, only: None, signals: None }
    }
}

/// Changes the limits of a container that has not exited, and records the revision. Once it holds the lock,
/// it blocks signals, so that an interrupt cannot leave the change half applied.
///
/// # Errors
/// The old limits have been restored. If the kernel has killed processes meanwhile, the error has a [`Loss`]
/// as context.
pub fn make(target: &ContainerRef<'_>, wanted: &Wanted<'_>, by: &Requester) -> Result<Made> {
    // Two updates at a time would each record only their own changes.
    let lock = target.root.lock(target.id, target.signals)?;
    let mut container = load(target, &lock)?;
    Signals::block()?;
    let before = Before::of(&container);
    let made = apply_and_record(&mut container, &lock, wanted, by);
    match made {
        Ok(made) => Ok(Made { loss: before.loss(), ..made }),
        // If the container was deleted meanwhile, that is the reason for any error.
        Err(error) => Err(match (lock.check(), before.loss_meanwhile()) {
            (Err(deleted), _) => deleted,
            (Ok(()), Some(loss)) => error.context(loss),
            (Ok(()), None) => error,
        }),
    }
}

fn apply_and_record(
    container: &mut Container,
    lock: &Lock,
    wanted: &Wanted<'_>,
    by: &Requester,
) -> Result<Made> {
    let history = History::of(&container.state)?;
    let put_back = unfinished::take_back(lock, container, &history)?;
    if wanted.undoes_last_change() && !put_back.is_empty() {
        let before = history.current();
        return Ok(Made {
            revision: None,
            before,
            rollback_to: Some(before),
            changes: Vec::new(),
            put_back,
            loss: None,
        });
    }
    let Decision { decided, rollback_to, reason } = decide(container, &history, wanted)?;
    // The cgroup was opened by its path, which is the container's only if it still exists.
    lock.check()?;
    let begun = UpdateNote::note(lock, &history, decided.replaced()?)?;
    let new = |changes| New {
        time: clock::rfc3339_nanos(SystemTime::now()),
        by: by.clone(),
        rollback_to,
        reason: reason.map(str::to_owned),
        changes,
    };
    let made =
        decided.apply().and_then(|applied| match record(container, lock, history.clone(), &applied, new) {
            Ok(made) => {
                applied.keep();
                Ok(made)
            }
            Err(error) => Err(NotRestored::after(error, applied.take_back())),
        });
    let is_lost = made.as_ref().is_err_and(|error| error.is::<NotRestored>());
    if let (Some(begun), false) = (begun, is_lost) {
        begun.forget();
    }
    made.map(|made| Made { put_back, ..made })
}

/// Records the limits in force, if they have changed, as the revision that `new` makes of the changes.
fn record(
    container: &mut Container,
    lock: &Lock,
    mut history: History,
    applied: &Applied,
    new: impl FnOnce(Vec<Change>) -> New,
) -> Result<Made> {
    let new = new(applied.changes()?);
    let (before, rollback_to, changes) = (history.current(), new.rollback_to, new.changes.clone());
    let mut made = Made { revision: None, before, rollback_to, changes, put_back: Vec::new(), loss: None };
    let old = container.state.resources.take();
    container.state.resources = applied.in_force().map(ToOwned::to_owned);
    if !made.changes.is_empty() {
        made.revision = Some(history.record(new, old.as_deref())?);
        container.state.history = Some(history.encoded()?);
    }
    let text = |resources: &Option<Box<RawValue>>| resources.as_ref().map(|text| text.get().to_owned());
    if made.revision.is_some() || text(&old) != text(&container.state.resources) {
        lock.save(&container.state)?;
    }
    Ok(made)
}

/// Returns what [`make`] would write, without writing it: the container, and old and new value for each file,
/// by its path.
///
/// # Errors
/// As [`make`], except those that only the kernel knows.
pub fn preview(target: &ContainerRef<'_>, wanted: &Wanted<'_>) -> Result<(Identity, Vec<Change>)> {
    let lock = target.root.lock(target.id, target.signals)?;
    let container = load(target, &lock)?;
    let history = History::of(&container.state)?;
    let changes = unfinished::preview(&lock, &container, &history).and_then(|mut changes| {
        if wanted.undoes_last_change() && !changes.is_empty() {
            return Ok(changes);
        }
        let mut wanted = decide(&container, &history, wanted)?.decided.preview()?;
        for change in &mut wanted {
            if let Some(back) = changes.iter().find(|back| back.place() == change.place()) {
                change.from.clone_from(&back.to);
            }
        }
        changes.extend(wanted);
        Ok(changes)
    });
    // If the container was deleted, it may have been another's cgroup.
    lock.check()?;
    Ok((container.state.identity(), changes?))
}

fn load(target: &ContainerRef<'_>, lock: &Lock) -> Result<Container> {
    let container = lock.container()?;
    if target.only.is_some_and(|only| *only != container.state.identity()) {
        return Err(Replaced.into());
    }
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => Ok(container),
        // Its record is not complete yet, and the change would be lost.
        Status::Creating => {
            bail!("container {:?} is still being created: container not running", container.state.id)
        }
        Status::Stopped => Err(Refusal::NotRunning(container.state.id).into()),
    }
}

/// The planned change, and what to record about it.
struct Decision<'a> {
    decided: PlannedChange<'a>,
    rollback_to: Option<u64>,
    reason: Option<&'a str>,
}

fn decide<'a>(container: &Container, history: &'a History, wanted: &'a Wanted<'a>) -> Result<Decision<'a>> {
    match *wanted {
        Wanted::Limits { resources, source, schemata } => {
            let decided = PlannedChange::change(container, resources, source, schemata)?;
            Ok(Decision { decided, rollback_to: None, reason: None })
        }
        Wanted::Rollback { to, from, reason } => {
            let current = history.current();
            if from.is_some_and(|from| from != current) {
                return Err(RevisionChanged(current).into());
            }
            let Some(to) = to.or_else(|| history.previous()) else {
                bail!("container {:?} is at revision 1: no earlier revision", container.state.id)
            };
            let in_force = container.state.resources.as_deref();
            let (since, resources) = match to == current {
                true => (Vec::new(), in_force.map(ToOwned::to_owned)),
                false => history.at(to, in_force)?,
            };
            let at = Pointer::of("history").field(&to.to_string());
            let decided = PlannedChange::return_to(container, &since, resources, &at)?;
            Ok(Decision { decided, rollback_to: Some(to), reason })
        }
    }
}
