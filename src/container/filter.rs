//! The seccomp filter kept in the state directory for `exec`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::files::SECCOMP;
use crate::bundle::input;
use crate::plan::linux::seccomp::Filter;

/// Writes `filter` to a new file in `directory`; fails if there already is one.
pub fn save(filter: &Filter, directory: &Path) -> Result<()> {
    let path = directory.join(SECCOMP);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    made.and_then(|mut file| file.write_all(&filter.to_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

/// Reads the filter from `directory`; `None` if the container has none.
pub fn load(directory: &Path) -> Result<Option<Filter>> {
    let path = directory.join(SECCOMP);
    match input::record(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        Ok(bytes) => Filter::from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| anyhow!("{} does not contain a seccomp filter", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plan::linux::seccomp::Listener;
    use crate::sys::seccomp::Instruction;

    #[test]
    fn a_filter_is_loaded_as_it_was_saved() {
        let instruction = |number| Instruction { code: 0x15, yes: 1, no: 255, number };
        let listener = |metadata: Option<&str>| {
            Some(Listener { path: "/run/agent.sock".into(), metadata: metadata.map(str::to_owned) })
        };
        for listener in [None, listener(None), listener(Some("a b\nc"))] {
            let program = (0..300).map(instruction).collect();
            let filter = Filter { program, flags: 4, listener, unknown: Vec::new() };
            let directory = tempfile::tempdir().unwrap();
            save(&filter, directory.path()).unwrap();
            assert_eq!(load(directory.path()).unwrap(), Some(filter));
        }
    }

    #[test]
    fn without_a_file_there_is_no_filter_and_a_broken_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()).unwrap(), None);
        let filter = Filter {
            program: [Instruction { code: 6, yes: 0, no: 0, number: 0 }].into(),
            flags: 0,
            listener: None,
            unknown: Vec::new(),
        };
        let whole = filter.to_bytes();
        for broken in [&[][..], &whole[..11], &whole[..19], &[&[9], &whole[1..]].concat()] {
            fs::write(directory.path().join(SECCOMP), broken).unwrap();
            let error = load(directory.path()).unwrap_err().to_string();
            assert!(error.ends_with("/seccomp does not contain a seccomp filter"), "{error}");
        }
    }
}
