//! The filter in the state directory, for `exec`.
//!
//! The file `seccomp` holds, in the machine's byte order: a mark, the flags and how many instructions follow as 32-bit words;
//! then the instructions as the kernel takes them; then, if there is an agent, its path, a zero byte, and what it is told.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use super::{Filter, Listener};
use crate::input;
use crate::sys::seccomp::Instruction;

/// The name of the file.
const FILE: &str = "seccomp";
/// Of this form of the file.
const MARK: u32 = 0x5ec_c0a1;

impl Filter {
    /// Keeps it in `directory`, which has none yet.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.and_then(|mut file| file.write_all(&self.to_bytes()))
            .with_context(|| format!("write {}", path.display()))
    }

    /// The filter that is kept in `directory`, if there is one.
    pub fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match input::record(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
            Ok(bytes) => Self::from_bytes(&bytes)
                .map(Some)
                .ok_or_else(|| anyhow!("{} does not contain a seccomp filter", path.display())),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.program.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(12 + 8 * self.program.len());
        bytes.extend([MARK, self.flags, count].into_iter().flat_map(u32::to_ne_bytes));
        for Instruction { code, yes, no, number } in self.program.iter() {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([*yes, *no]);
            bytes.extend(number.to_ne_bytes());
        }
        if let Some(Listener { path, metadata }) = &self.listener {
            bytes.extend(path.as_os_str().as_bytes());
            bytes.push(0);
            bytes.extend(metadata.iter().flat_map(|metadata| metadata.bytes()));
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).ok();
        let (head, rest) = bytes.split_at_checked(12)?;
        let [mark, flags, count] = [word(head.get(..4)?)?, word(head.get(4..8)?)?, word(head.get(8..)?)?];
        if mark != MARK {
            return None;
        }
        let length = usize::try_from(count).ok()?.checked_mul(8)?;
        let (program, rest) = rest.split_at_checked(length)?;
        let instruction = |bytes: &[u8]| match *bytes {
            [a, b, yes, no, e, f, g, h] => Some(Instruction {
                code: u16::from_ne_bytes([a, b]),
                yes,
                no,
                number: u32::from_ne_bytes([e, f, g, h]),
            }),
            _ => None,
        };
        let program = program.chunks(8).map(instruction).collect::<Option<_>>()?;
        let listener = match rest.iter().position(|byte| *byte == 0) {
            None => None,
            Some(end) => {
                let metadata = String::from_utf8(rest.get(end + 1..)?.to_vec()).ok()?;
                let path = OsStr::from_bytes(rest.get(..end)?).into();
                Some(Listener { path, metadata: Some(metadata).filter(|metadata| !metadata.is_empty()) })
            }
        };
        Some(Self { program, flags, listener, unknown: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
            filter.save(directory.path()).unwrap();
            assert_eq!(Filter::load(directory.path()).unwrap(), Some(filter));
        }
    }

    #[test]
    fn without_a_file_there_is_no_filter_and_a_broken_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Filter::load(directory.path()).unwrap(), None);
        let filter = Filter {
            program: [Instruction { code: 6, yes: 0, no: 0, number: 0 }].into(),
            flags: 0,
            listener: None,
            unknown: Vec::new(),
        };
        let whole = filter.to_bytes();
        for broken in [&[][..], &whole[..11], &whole[..19], &[&[9], &whole[1..]].concat()] {
            fs::write(directory.path().join(FILE), broken).unwrap();
            let error = Filter::load(directory.path()).unwrap_err().to_string();
            assert!(error.ends_with("/seccomp does not contain a seccomp filter"), "{error}");
        }
    }
}
