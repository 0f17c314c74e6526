//! Recovering from an update that was killed (SIGKILL cannot be blocked), which leaves limits in force that
//! are recorded nowhere. So the update first notes in the state directory what it is about to replace, and
//! the next one restores that before it does anything else.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::History;
use super::decided::PlannedChange;
use crate::cgroup::change::Change;
use crate::container::{Container, ContainerId, Lock, Root};
use crate::error::Pointer;

/// What to restore, unless a newer revision is in force: then the update was completed, and only the note was
/// left.
#[derive(Serialize, Deserialize)]
struct Note {
    revision: u64,
    changes: Vec<Change>,
}

/// An update in progress. Its note is to be removed once the change has been recorded or undone; otherwise
/// the next update restores what it replaced.
#[derive(Debug)]
pub(super) struct UpdateNote<'a>(&'a Lock);

impl<'a> UpdateNote<'a> {
    /// Writes the note about `changes`, if there are any.
    pub(super) fn note(lock: &'a Lock, history: &History, changes: Vec<Change>) -> Result<Option<Self>> {
        if changes.is_empty() {
            return Ok(None);
        }
        let note = Note { revision: history.current(), changes };
        let text = serde_json::to_vec(&note).context("encode the update journal")?;
        // If this fails, so will writing the state, and the change will be undone.
        let _ = lock.write_note(&text);
        Ok(Some(Self(lock)))
    }

    pub(super) fn forget(self) {
        // A note that stays does no harm: it agrees with what is in force.
        let _ = self.0.remove_note();
    }
}

/// Returns what a killed update has replaced, i.e. what to restore.
fn noted(text: Option<Vec<u8>>, history: &History) -> Result<Vec<Change>> {
    // An incomplete note means that the update was killed before it replaced anything.
    let note: Option<Note> = text.and_then(|text| serde_json::from_slice(&text).ok());
    let changes = note.filter(|note| note.revision == history.current()).map(|note| note.changes);
    let changes = changes.unwrap_or_default();
    match changes.iter().find(|change| !change.is_there()) {
        Some(change) => bail!("{:?} is not a control file", change.file),
        None => Ok(changes),
    }
}

fn doing(lock: &Lock) -> String {
    let note = lock.note_path();
    format!("revert an interrupted update (remove {} to skip this)", note.display())
}

fn back<'a>(container: &Container, changes: &'a [Change]) -> Result<PlannedChange<'a>> {
    let old: Vec<_> = changes.iter().map(|change| (change, &*change.from)).collect();
    let in_force = container.state.resources.clone();
    PlannedChange::return_to(container, &old, in_force, &Pointer::of("unfinished update"))
}

/// Restores what a killed update has replaced, if there was one; returns what has changed.
pub(super) fn take_back(lock: &Lock, container: &Container, history: &History) -> Result<Vec<Change>> {
    let Some(text) = lock.note()? else { return Ok(Vec::new()) };
    let put_back = || {
        let changes = noted(Some(text), history)?;
        if changes.is_empty() {
            return Ok(changes);
        }
        let decided = back(container, &changes)?;
        lock.check()?;
        let applied = decided.apply()?;
        let changes = applied.changes()?;
        applied.keep();
        anyhow::Ok(changes)
    };
    let changes = put_back().with_context(|| doing(lock))?;
    lock.remove_note()?;
    Ok(changes)
}

/// Returns what [`take_back`] would write.
pub(super) fn preview(lock: &Lock, container: &Container, history: &History) -> Result<Vec<Change>> {
    let preview = || {
        let changes = noted(lock.note()?, history)?;
        if changes.is_empty() { Ok(changes) } else { back(container, &changes)?.preview() }
    };
    preview().with_context(|| doing(lock))
}

/// Returns what an update has replaced or is about to replace that was killed or is still running, if there
/// is one.
pub fn unfinished(root: &Root, id: &ContainerId, history: &History) -> Result<Vec<Change>> {
    noted(root.note(id)?, history).context("decode the journal of an unfinished update")
}
