//! Command lines, up to the point where a command would do something.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// Each line is an argument; the program's name is not included.
pub(super) fn command_line(input: &[u8]) {
    let words: Vec<_> =
        input.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    if let Some(error) = crate::command::call::check(&words) {
        super::promised(&error, &[]);
    }
}
