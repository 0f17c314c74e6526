//! The revisions of a container's limits: each `update` that changes something makes one, and so does each
//! `rollback`, similar to kubectl's `rollout`.
//!
//! [`History`] is pure: it knows the revisions, and what control files contained at each. It is stored in the
//! state file, so that limits and history are recorded together or not at all. A container that was never
//! updated has no history: its only revision, the first, follows from its state.
//!
//! `make.rs` makes a revision, for every command; `unfinished.rs` reverts an update that was killed;
//! `loss.rs` detects processes killed by a change; `roll.rs` updates several containers, and `watch.rs`
//! watches them afterwards.

mod asker;
mod decided;
mod loss;
mod make;
mod roll;
mod unfinished;
mod watch;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

pub use self::asker::Requester;
pub use self::loss::Loss;
pub use self::make::{ContainerRef, Made, Wanted, make, preview};
pub use self::roll::{Event, Plan as Roll, roll};
pub use self::unfinished::unfinished;
use crate::cgroup::change::Change;
use crate::container::state::State;
use crate::error::Hint;

/// How many revisions are kept, as by kubectl. The first one always is.
pub const KEPT: usize = 10;

/// A revision of a container's limits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Counts from 1, the limits that the container was created with.
    pub revision: u64,
    /// RFC 3339 with nanoseconds, in UTC.
    pub time: String,
    pub by: Requester,
    /// The revision whose limits were restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
    /// The reason, if the revision was made automatically.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What differs from the revision before.
    pub changes: Vec<Change>,
    /// `linux.resources` without the device rules; absent for the current revision, whose resources are in
    /// the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
}

/// The revisions of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// The first one, then the most recent ones; the last one is in force.
    revisions: Vec<Revision>,
    /// The changes of the revisions between them, which are no longer kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    forgotten: Vec<Change>,
}

/// What is recorded of a new revision.
#[derive(Debug)]
pub struct New {
    pub time: String,
    pub by: Requester,
    pub rollback_to: Option<u64>,
    pub reason: Option<String>,
    pub changes: Vec<Change>,
}

/// Places that have changed since, each with its old value.
pub type Old<'a> = Vec<(&'a Change, &'a str)>;

impl History {
    pub fn of(state: &State) -> Result<Self> {
        if let Some(text) = &state.history {
            return Self::decoded(text.get()).with_context(|| {
                let way_out =
                    "removing \"history\" from it makes the current limits the container's first revision"
                        .to_owned();
                Hint("decode the history in the state file".to_owned(), way_out)
            });
        }
        let first = Revision {
            revision: 1,
            time: state.created.clone(),
            by: Requester { uid: state.owner, ..Requester::default() },
            rollback_to: None,
            reason: None,
            changes: Vec::new(),
            resources: None,
        };
        Ok(Self { revisions: vec![first], forgotten: Vec::new() })
    }

    /// Decodes and validates a history.
    ///
    /// # Errors
    /// A history that this program never writes: others can write to the state file.
    fn decoded(text: &str) -> Result<Self> {
        let history: Self = serde_json::from_str(text)?;
        let numbers: Vec<_> = history.revisions.iter().map(|revision| revision.revision).collect();
        let is_whole = numbers.first() == Some(&1) && numbers.is_sorted_by(|a, b| a < b);
        if !is_whole || history.current() == u64::MAX {
            bail!("invalid revision numbers {numbers:?}");
        }
        let changes = history.revisions.iter().flat_map(|revision| &revision.changes);
        if let Some(change) = changes.chain(&history.forgotten).find(|change| !change.is_there()) {
            bail!("{:?} is not a control file", change.file);
        }
        Ok(history)
    }

    /// Returns the revisions, oldest first.
    pub fn revisions(&self) -> &[Revision] {
        &self.revisions
    }

    /// Returns the number of the revision in force.
    pub fn current(&self) -> u64 {
        self.revisions.last().map_or(1, |revision| revision.revision)
    }

    /// Returns the number of the revision before the current one.
    pub fn previous(&self) -> Option<u64> {
        Some(self.revisions.iter().rev().nth(1)?.revision)
    }

    /// Adds a new current revision and returns its number; `resources` are those in force until now.
    pub fn record(&mut self, new: New, resources: Option<&RawValue>) -> Result<u64> {
        let number = self.current() + 1;
        if let Some(last) = self.revisions.last_mut() {
            last.resources = resources.map(without_devices).transpose()?;
        }
        let New { time, by, rollback_to, reason, changes } = new;
        self.revisions.push(Revision {
            revision: number,
            time,
            by,
            rollback_to,
            reason,
            changes,
            resources: None,
        });
        while self.revisions.len() > KEPT {
            for change in self.revisions.remove(1).changes {
                match self.forgotten.iter_mut().find(|old| old.place() == change.place()) {
                    Some(old) => old.to = change.to,
                    None => self.forgotten.push(change),
                }
            }
        }
        Ok(number)
    }

    /// Returns what was in force at revision `number`: the places that have changed since, each with its
    /// value then, and the resources, with the device rules of `current`, since no update changes those.
    ///
    /// The value is the one set by the last revision up to `number`. Only if none of these changed the place,
    /// it is the value that the first later revision found there. Others, such as the container, write to
    /// control files, too; what they write between two revisions belongs to neither.
    ///
    /// # Errors
    /// The revision is not kept.
    pub fn at(&self, number: u64, current: Option<&RawValue>) -> Result<(Old<'_>, Option<Box<RawValue>>)> {
        let Some(revision) = self.revisions.iter().find(|revision| revision.revision == number) else {
            let kept: Vec<_> = self.revisions.iter().map(|kept| kept.revision.to_string()).collect();
            bail!("revision {number} does not exist (available: {})", kept.join(", "));
        };
        let forgotten = self.forgotten.iter().filter(|_| number == 1);
        let later = self.revisions.iter().filter(|later| later.revision > number);
        let made = |change: &Change| {
            let earlier = self.revisions.iter().filter(|earlier| earlier.revision <= number);
            let mut earlier = earlier.rev().flat_map(|earlier| earlier.changes.iter().rev());
            let is_there = |earlier: &&Change| earlier.place() == change.place();
            let forgotten = self.forgotten.iter().filter(|_| number != 1);
            let made = earlier.find(is_there).or_else(|| forgotten.rev().find(is_there))?;
            // An idle cgroup has no weight; which one it gets afterwards is up to the kernel.
            (change.file != "cpu.weight" || made.to != "0").then_some(&*made.to)
        };
        let mut since: Old<'_> = Vec::new();
        for change in forgotten.chain(later.flat_map(|later| &later.changes)) {
            if since.iter().all(|(earlier, _)| earlier.place() != change.place()) {
                since.push((change, made(change).unwrap_or(&change.from)));
            }
        }
        let resources = match (&revision.resources, current) {
            (Some(old), Some(current)) => Some(with_devices(old.clone(), current)?),
            (Some(old), None) => Some(to_raw_value(old).context("encode the resources")?),
            (None, _) => None,
        };
        Ok((since, resources))
    }

    pub fn encoded(&self) -> Result<Box<RawValue>> {
        to_raw_value(self).context("encode the history")
    }
}

fn without_devices(resources: &RawValue) -> Result<Value> {
    let mut resources: Value = serde_json::from_str(resources.get()).context("decode the resources")?;
    if let Some(resources) = resources.as_object_mut() {
        resources.remove("devices");
    }
    Ok(resources)
}

fn with_devices(mut resources: Value, current: &RawValue) -> Result<Box<RawValue>> {
    let mut current: Value = serde_json::from_str(current.get()).context("decode the resources")?;
    let devices = current.as_object_mut().and_then(|current| current.remove("devices"));
    if let (Some(devices), Some(resources)) = (devices, resources.as_object_mut()) {
        resources.insert("devices".to_owned(), devices);
    }
    to_raw_value(&resources).context("encode the resources")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(file: &str, from: &str, to: &str) -> Change {
        Change { file: file.into(), of: String::new(), from: from.into(), to: to.into() }
    }

    fn history() -> History {
        let first = Revision {
            revision: 1,
            time: "then".into(),
            by: Requester::default(),
            rollback_to: None,
            reason: None,
            changes: Vec::new(),
            resources: None,
        };
        History { revisions: vec![first], forgotten: Vec::new() }
    }

    fn record(history: &mut History, resources: &str, changes: Vec<Change>) -> u64 {
        let resources: Box<RawValue> = serde_json::from_str(resources).unwrap();
        let (time, by) = ("now".into(), Requester::default());
        history.record(New { time, by, rollback_to: None, reason: None, changes }, Some(&resources)).unwrap()
    }

    fn at(history: &History, number: u64) -> Vec<String> {
        let (since, _) = history.at(number, None).unwrap();
        since.iter().map(|(change, value)| format!("{}={value}", change.file)).collect()
    }

    #[test]
    fn what_was_in_force_is_the_oldest_value_since_then() {
        let mut history = history();
        assert_eq!((history.current(), history.previous()), (1, None));
        record(&mut history, "{}", vec![change("memory.max", "max", "5"), change("pids.max", "max", "7")]);
        record(&mut history, "{}", vec![change("memory.max", "5", "9"), change("cpu.max", "a", "b")]);
        assert_eq!((history.current(), history.previous()), (3, Some(2)));
        assert_eq!(at(&history, 1), ["memory.max=max", "pids.max=max", "cpu.max=a"]);
        assert_eq!(at(&history, 2), ["memory.max=5", "cpu.max=a"]);
        assert_eq!(at(&history, 3), [""; 0]);
        let error = history.at(4, None).unwrap_err().to_string();
        assert_eq!(error, "revision 4 does not exist (available: 1, 2, 3)");
    }

    #[test]
    fn what_others_wrote_between_two_revisions_is_of_none() {
        let mut history = history();
        record(&mut history, "{}", vec![change("memory.max", "max", "5"), change("cpu.weight", "100", "0")]);
        record(&mut history, "{}", vec![change("pids.max", "7", "9")]);
        record(&mut history, "{}", vec![change("memory.max", "max", "3"), change("cpu.weight", "100", "17")]);
        assert_eq!(at(&history, 1), ["memory.max=max", "cpu.weight=100", "pids.max=7"]);
        assert_eq!(at(&history, 2), ["pids.max=7", "memory.max=5", "cpu.weight=100"]);
        assert_eq!(at(&history, 3), ["memory.max=5", "cpu.weight=100"]);
        for value in 4..=20_u32 {
            record(&mut history, "{}", vec![change("io.latency", "a", &value.to_string())]);
        }
        record(&mut history, "{}", vec![change("memory.max", "9", "8"), change("pids.max", "1", "2")]);
        assert_eq!(at(&history, 21), ["memory.max=3", "pids.max=9"]);
    }

    #[test]
    fn lines_of_one_file_are_different_things() {
        let line = |of: &str, from: &str| Change { of: of.into(), ..change("io.max", from, "x") };
        let mut history = history();
        record(&mut history, "{}", vec![line("8:0", "8:0 a")]);
        record(&mut history, "{}", vec![line("8:16", "8:16 b"), line("8:0", "8:0 c")]);
        assert_eq!(at(&history, 1), ["io.max=8:0 a", "io.max=8:16 b"]);
    }

    #[test]
    fn resources_come_back_with_the_devices_of_now() {
        let mut history = history();
        record(&mut history, r#"{"pids":{"limit":5},"devices":[1]}"#, Vec::new());
        let current: Box<RawValue> = serde_json::from_str(r#"{"pids":{"limit":7},"devices":[2]}"#).unwrap();
        let (_, resources) = history.at(1, Some(&current)).unwrap();
        assert_eq!(resources.unwrap().get(), r#"{"devices":[2],"pids":{"limit":5}}"#);
    }

    #[test]
    fn what_is_no_history_is_refused() {
        let mut whole = history();
        record(&mut whole, "{}", vec![change("memory.max", "max", "5")]);
        let text = whole.encoded().unwrap().get().to_owned();
        assert_eq!(History::decoded(&text).unwrap().current(), 2);
        for second in ["1", "0", "18446744073709551615"] {
            let text = text.replace("\"revision\":2", &format!("\"revision\":{second}"));
            let error = History::decoded(&text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid revision numbers [1, {second}]"));
        }
        assert!(History::decoded(r#"{"revisions":[]}"#).is_err());
        let error = History::decoded(&text.replace("memory.max", "../memory.max")).unwrap_err().to_string();
        assert_eq!(error, "\"../memory.max\" is not a control file");
    }

    #[test]
    fn the_first_and_the_newest_revisions_are_kept() {
        let mut history = history();
        for number in 1..=30_u32 {
            let (from, to) = (number.to_string(), (number + 1).to_string());
            let mut changes = vec![change("pids.max", &from, &to)];
            if number == 3 {
                changes.push(change("cpu.max", "first", "later"));
            }
            record(&mut history, "{}", changes);
        }
        let kept: Vec<u64> = history.revisions().iter().map(|revision| revision.revision).collect();
        assert_eq!(kept, [1, 23, 24, 25, 26, 27, 28, 29, 30, 31]);
        // Including the changes of revisions that are no longer kept.
        assert_eq!(at(&history, 1), ["pids.max=1", "cpu.max=first"]);
        assert_eq!(at(&history, 23), ["pids.max=23"]);
        assert!(history.at(2, None).is_err());
        let text = history.encoded().unwrap();
        let read: History = serde_json::from_str(text.get()).unwrap();
        assert_eq!(read.encoded().unwrap().get(), text.get());
    }
}
