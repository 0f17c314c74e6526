//! An update that is killed in its midst (SIGKILL, which nobody can put off) leaves limits in force that nobody has recorded, and no
//! way back. So what it is about to replace is noted in the state directory before, and whoever makes the next revision puts that
//! back first.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::History;
use super::decided::Decided;
use crate::change::Change;
use crate::container::{Container, Lock};
use crate::error::{Hint, Pointer};

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
        let text = serde_json::to_vec(&note).context("encode the note of the update")?;
        // Where this cannot be written, the record cannot be either, and all is taken back.
        let _ = lock.write_note(&text);
        Ok(Some(Self(lock)))
    }

    pub(super) fn forget(self) {
        // One that stays says what is so in any case.
        let _ = self.0.remove_note();
    }
}

/// Puts back what an update that was killed has replaced, if there was one.
pub(super) fn take_back(lock: &Lock, container: &Container, history: &History) -> Result<()> {
    let Some(text) = lock.note()? else { return Ok(()) };
    // One that is not whole was killed before it had replaced anything.
    let note = serde_json::from_slice(&text).ok();
    if let Some(Note { changes, .. }) = note.filter(|note: &Note| note.revision == history.current()) {
        let changes: Vec<_> = changes.iter().map(|change| (change, &*change.from)).collect();
        let in_force = container.state.resources.clone();
        let put_back = || {
            let at = Pointer::of("unfinished update");
            let decided = Decided::return_to(container, &changes, in_force, &at)?;
            lock.check()?;
            decided.apply()?.keep();
            anyhow::Ok(())
        };
        put_back().with_context(|| {
            let hint = format!("remove {} to leave it as it is", lock.note_path().display());
            Hint("put back what an update that was killed has replaced".to_owned(), hint)
        })?;
    }
    lock.remove_note()
}
