//! Command-line syntax: global options, Go-style flags, values, usage errors.

pub mod bytes;
pub mod duration;
pub mod fast_path;
pub mod global;
pub mod go_flags;
pub mod runc;
pub mod usage;
