//! Fuzz targets: one function for each decoder of what comes from outside, which takes any bytes and panics
//! where a promise is broken.
//!
//! The promises: nothing panics; an error names its document and what in it is wrong, and holds no control
//! characters, wherever its words come from; what is taken and written again is taken as the same; deciding
//! twice decides the same.
//!
//! `fuzz/` runs them under libFuzzer, `tests/fuzz.rs` with inputs of [`mutation`]'s making in every test run;
//! `fuzz/README.md` tells how to run and to add one. The feature `fuzzing` is for tests: nothing of this is
//! in a release.
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

/// What `tests/seccomp_oracle.rs` needs of the compiler of filters.
pub mod seccomp {
    pub use crate::plan::linux::seccomp::interpreter::{Question, is_acceptable, run};
    pub use crate::plan::linux::seccomp::model::{
        NAMES, OPERATORS, VALUES, all_calls, any_action, any_condition, compiled,
    };
}

/// What an input is like, for whoever changes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// Lines of words.
    Text,
    /// Anything; of some targets the numbers by which they pick.
    Bytes,
}

/// A decoder, and how it is fed.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// That of its file in `fuzz/fuzz_targets` and of its directory in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    pub form: Form,
    /// How the names of those files of `tests/fixtures/clients` end that are inputs, too.
    pub clients: Option<&'static str>,
}

/// All of them.
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

/// The target of this name.
pub fn target(name: &str) -> FuzzTarget {
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"))
}
