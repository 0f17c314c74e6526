//! Changing the limits of a running container's class of service.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, open, openat};

use super::resctrl::{Member, SCHEMATA};
use crate::cgroup::change::Change;
use crate::error::NotRestored;

/// A class of service, held open so that reads and writes reach it even if its name is reused.
#[derive(Debug)]
pub struct OpenClass {
    directory: OwnedFd,
    /// The path of its `schemata`, for messages.
    file: PathBuf,
}

impl OpenClass {
    pub fn of(member: &Member) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(&member.class, flags, Mode::empty())
            .with_context(|| format!("open {}", member.class.display()))?;
        Ok(Self { directory, file: member.class.join(SCHEMATA) })
    }

    fn read(&self) -> Result<String> {
        let read = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let mut text = String::new();
            File::from(openat(&self.directory, SCHEMATA, flags, Mode::empty())?).read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        };
        read().with_context(|| format!("read {}", self.file.display()))
    }

    /// Writes one line in one write.
    fn write(&self, line: &str) -> std::io::Result<()> {
        let file = openat(&self.directory, SCHEMATA, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(format!("{}\n", line.trim()).as_bytes())
    }
}

/// New limits in force; dropping this restores the old ones, unless kept.
#[derive(Debug)]
pub struct Update {
    class: OpenClass,
    before: String,
    is_kept: bool,
}

impl Update {
    /// Writes `schemata`, all of them or none; each is a pair of its origin (for messages) and its text.
    pub fn apply(class: OpenClass, schemata: &[(&str, &str)]) -> Result<Self> {
        let before = class.read()?;
        // From here on, drop restores the old limits.
        let update = Self { class, before, is_kept: false };
        for (from, text) in schemata {
            if let Err(error) = text.lines().try_for_each(|line| update.class.write(line)) {
                let doing = format!("{from}: write {text:?} to {}", update.class.file.display());
                return Err(NotRestored::after(anyhow::Error::new(error).context(doing), update.take_back()));
            }
        }
        Ok(update)
    }

    /// Returns the limits that differ from before.
    pub fn changes(&self) -> Result<Vec<Change>> {
        let now = self.class.read()?;
        let line =
            |text: &str| text.trim().split_once(':').map(|(of, _)| (of.to_owned(), text.trim().to_owned()));
        let now: Vec<_> = now.lines().filter_map(line).collect();
        let before = self.before.lines().filter_map(line);
        let change = |(of, from): (String, String)| {
            let to = now.iter().find(|(other, _)| *other == of).map(|(_, to)| to.clone())?;
            (to != from).then(|| Change { file: SCHEMATA.to_owned(), of, from, to })
        };
        Ok(before.filter_map(change).collect())
    }

    pub fn keep(mut self) {
        self.is_kept = true;
    }

    /// Restores the old limits; returns the files that could not be restored.
    pub fn take_back(mut self) -> Vec<String> {
        self.is_kept = true;
        self.undo().err().map(|_| SCHEMATA.to_owned()).into_iter().collect()
    }

    fn undo(&self) -> std::io::Result<()> {
        self.before.lines().try_for_each(|line| self.class.write(line))
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = self.undo();
        }
    }
}

/// Returns what [`Update::apply`] would write.
pub fn preview(class: &OpenClass, schemata: &[(&str, &str)]) -> Result<Vec<Change>> {
    let before = class.read()?;
    let change = |text: &str| {
        let of = text.trim().split(':').next().unwrap_or_default();
        let has = |line: &&str| line.trim().split(':').next() == Some(of);
        let from = before.lines().find(has).unwrap_or_default().trim().to_owned();
        Change { file: class.file.display().to_string(), of: of.to_owned(), from, to: text.trim().to_owned() }
    };
    Ok(schemata.iter().flat_map(|(_, text)| text.lines()).map(change).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_update_is_all_or_nothing() {
        let class = tempfile::tempdir().unwrap();
        let file = class.path().join(SCHEMATA);
        fs::write(&file, "L3:0=f\n").unwrap();
        let member = Member { class: class.path().to_owned(), ..Member::default() };
        let open = || OpenClass::of(&member).unwrap();
        let schemata = || fs::read_to_string(&file).unwrap();
        let update = Update::apply(open(), &[("--l3-cache-schema", "L3:0=3")]).unwrap();
        assert_eq!(schemata(), "L3:0=3\n");
        let (name, of) = (SCHEMATA.to_owned(), "L3".to_owned());
        let change = Change { file: name, of, from: "L3:0=f".into(), to: "L3:0=3".into() };
        assert_eq!(update.changes().unwrap(), [change]);
        // As if the change could not be recorded.
        drop(update);
        assert_eq!(schemata(), "L3:0=f\n");
        Update::apply(open(), &[("--l3-cache-schema", "L3:0=3")]).unwrap().keep();
        assert_eq!(schemata(), "L3:0=3\n");
        fs::remove_file(&file).unwrap();
        assert!(Update::apply(open(), &[("--l3-cache-schema", "L3:0=7")]).is_err());
    }

    #[test]
    fn each_line_is_a_change_of_its_own() {
        let class = tempfile::tempdir().unwrap();
        fs::write(class.path().join(SCHEMATA), "    L3:0=f\n    MB:0=100\n").unwrap();
        let member = Member { class: class.path().to_owned(), ..Member::default() };
        let changes =
            preview(&OpenClass::of(&member).unwrap(), &[("--l3-cache-schema", "L3:0=3\nMB:0=20")]).unwrap();
        let changes: Vec<_> = changes.iter().map(|change| [&*change.of, &change.from, &change.to]).collect();
        assert_eq!(changes, [["L3", "L3:0=f", "L3:0=3"], ["MB", "MB:0=100", "MB:0=20"]]);
    }

    #[test]
    fn what_cannot_be_taken_back_is_told() {
        let class = tempfile::tempdir().unwrap();
        let file = class.path().join(SCHEMATA);
        fs::write(&file, "L3:0=f\n").unwrap();
        let member = Member { class: class.path().to_owned(), ..Member::default() };
        let update = || Update::apply(OpenClass::of(&member).unwrap(), &[("--l3-cache-schema", "L3:0=3")]);
        assert_eq!(update().unwrap().take_back(), [""; 0]);
        let update = update().unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(update.take_back(), [SCHEMATA]);
    }

    #[test]
    fn a_later_class_of_the_same_name_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let member = Member { class: root.path().join("a"), ..Member::default() };
        let make = || {
            fs::create_dir(&member.class).unwrap();
            fs::write(member.class.join(SCHEMATA), "L3:0=f\n").unwrap();
        };
        make();
        let class = OpenClass::of(&member).unwrap();
        fs::remove_dir_all(&member.class).unwrap();
        make();
        assert!(Update::apply(class, &[("--l3-cache-schema", "L3:0=3")]).is_err());
        assert_eq!(fs::read_to_string(member.class.join(SCHEMATA)).unwrap(), "L3:0=f\n");
    }
}
