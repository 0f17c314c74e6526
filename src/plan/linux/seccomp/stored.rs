//! The binary form of a filter, kept in the state directory for `exec`.
//!
//! In native byte order: a magic number, the flags and the number of instructions as 32-bit words; the
//! instructions as the kernel takes them; then, if there is an agent, its path, a zero byte and its metadata.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::{Filter, Listener};
use crate::sys::seccomp::Instruction;

/// The magic number of this version.
const MARK: u32 = 0x5ec_c0a1;

impl Filter {
    /// Encodes the filter for [`Filter::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
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

    /// Decodes what [`Filter::to_bytes`] has encoded; `None` if `bytes` is anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
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
