//! An update that is killed in its midst (SIGKILL, which nobody can put off) leaves limits in force that nobody has recorded, and no
//! way back. So what it is about to replace is noted in the state directory before, and whoever makes the next revision puts that
//! back first.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::History;
use super::decided::Decided;
use crate::cgroup::change::Change;
use crate::container::{Container, ContainerId, Lock, Root};
use crate::error::Pointer;

/// What is to be put back unless another revision is in force by now: then it was finished, and only not forgotten.
#[derive(Serialize, Deserialize)]
struct Note {
    revision: u64,
    changes: Vec<Change>,
}

/// An update that has begun, and is to be forgotten when it is in force and recorded or has been taken back. Otherwise whoever comes
/// next puts back what it has replaced.
#[derive(Debug)]
pub(super) struct Begun<'a>(&'a Lock);

impl<'a> Begun<'a> {
    /// Notes what `changes` would replace, if there are any.
    pub(super) fn note(lock: &'a Lock, history: &History, changes: Vec<Change>) -> Result<Option<Self>> {
        if changes.is_empty() {
            return Ok(None);
        }
        let note = Note { revision: history.current(), changes };
        let text = serde_json::to_vec(&note).context("encode the update journal")?;
        // Where this cannot be written, the record cannot be either, and all is taken back.
        let _ = lock.write_note(&text);
        Ok(Some(Self(lock)))
    }

    pub(super) fn forget(self) {
        // One that stays says what is so in any case.
        let _ = self.0.remove_note();
    }
}

/// What an update that was killed has replaced, if there was one: what is to be put back.
fn noted(text: Option<Vec<u8>>, history: &History) -> Result<Vec<Change>> {
    // One that is not whole was killed before it had replaced anything.
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

fn back<'a>(container: &Container, changes: &'a [Change]) -> Result<Decided<'a>> {
    let old: Vec<_> = changes.iter().map(|change| (change, &*change.from)).collect();
    let in_force = container.state.resources.clone();
    Decided::return_to(container, &old, in_force, &Pointer::of("unfinished update"))
}

/// Puts back what an update that was killed has replaced, if there was one; gives what is other now.
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

/// What [`take_back`] would write.
pub(super) fn preview(lock: &Lock, container: &Container, history: &History) -> Result<Vec<Change>> {
    let preview = || {
        let changes = noted(lock.note()?, history)?;
        if changes.is_empty() { Ok(changes) } else { back(container, &changes)?.preview() }
    };
    preview().with_context(|| doing(lock))
}

/// What an update has replaced, or is about to, that was killed or has not ended, if there is one.
pub fn unfinished(root: &Root, id: &ContainerId, history: &History) -> Result<Vec<Change>> {
    noted(root.note(id)?, history).context("decode the journal of an unfinished update")
}
