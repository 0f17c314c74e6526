//! The form of command lines: global options, what Go's programs take for an option, values, what is wrong with them.

pub mod bytes;
pub mod duration;
pub mod fast_path;
pub mod global;
pub mod go_flags;
pub mod runc;
pub mod usage;
