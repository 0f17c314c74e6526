//! Fuzz targets: one function for each decoder of external input. It takes any bytes and panics if a promise
//! is broken.
//!
//! The promises: nothing panics; an error names its document and the place in it, and contains no control
//! characters, wherever its text comes from; what was accepted and written out is read back unchanged;
//! planning twice gives the same plan.
//!
//! `fuzz/` runs them under libFuzzer, and `tests/fuzz.rs` runs them in every test run with inputs made by
//! [`mutation`]. `fuzz/README.md` explains how to run and to add one. The feature `fuzzing` is for tests and
//! not part of a release.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a fuzz target fails by panicking"
)]

mod command_line;
mod documents;
mod kernel;
mod messages;
pub mod mutation;
mod words;

pub(crate) use crate::error::promised;
pub use crate::host::dice::{Bytes, Dice, Xorshift};

/// What `tests/seccomp_oracle.rs` needs of the filter compiler.
pub mod seccomp {
    pub use crate::plan::linux::seccomp::interpreter::{Question, is_acceptable, run};
    pub use crate::plan::linux::seccomp::model::{
        NAMES, OPERATORS, VALUES, all_calls, any_action, any_condition, compiled,
    };
}

/// The kind of input, which decides how it is mutated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// Lines of words.
    Text,
    /// Any bytes; some targets read numbers from them.
    Bytes,
}

/// A decoder and its inputs.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// The name of its file in `fuzz/fuzz_targets` and of its directory in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    pub form: Form,
    /// The suffix of the files in `tests/fixtures/clients` that are inputs as well.
    pub clients: Option<&'static str>,
}

/// All fuzz targets.
pub const TARGETS: [FuzzTarget; 16] = [
    FuzzTarget { clients: Some("-config.json"), ..json("config", documents::config) },
    FuzzTarget { clients: Some("-process.json"), ..json("process", documents::process) },
    FuzzTarget { clients: Some("-config.json"), ..json("excerpt", documents::excerpt) },
    FuzzTarget { clients: Some("-resources.json"), ..json("resources", crate::cgroup::fuzzing::resources) },
    json("state", documents::state),
    text("mount_options", documents::mount_options),
    text("command_line", command_line::command_line),
    text("kernel_files", kernel::files),
    text("control_files", crate::cgroup::fuzzing::control_files),
    text("words", words::words),
    text("gvariant", messages::gvariant),
    bytes("dbus", messages::dbus),
    bytes("netlink", messages::netlink),
    bytes("sync", messages::sync),
    bytes("seccomp", messages::seccomp),
    bytes("device_rules", crate::cgroup::fuzzing::device_rules),
];

const fn json(name: &'static str, run: fn(&[u8])) -> FuzzTarget {
    FuzzTarget { name, run, form: Form::Json, clients: None }
}

const fn text(name: &'static str, run: fn(&[u8])) -> FuzzTarget {
    FuzzTarget { name, run, form: Form::Text, clients: None }
}

const fn bytes(name: &'static str, run: fn(&[u8])) -> FuzzTarget {
    FuzzTarget { name, run, form: Form::Bytes, clients: None }
}

/// Returns the target called `name`.
pub fn target(name: &str) -> FuzzTarget {
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"))
}
