//! See Cargo.toml.

pub use regex_lite::*;
