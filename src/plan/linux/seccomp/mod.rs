//! Seccomp filters; config-linux.md § Seccomp, seccomp(2).
//!
//! A profile becomes rules (`profile.rs`, `rules.rs`), these become ranges of call numbers for each
//! architecture (`ranges.rs`), and those a classic BPF program (`bpf.rs`), all before anything is made. The
//! program gives the same answers as libseccomp's; `tests/seccomp_oracle.rs` compares them. Why not
//! libseccomp: its programs are longer and take longer to load, it is wrong about some profiles (see
//! `rules.rs`), and it is a C library.

mod arch;
mod bpf;
#[cfg(any(test, feature = "fuzzing"))]
pub mod interpreter;
mod known;
#[cfg(any(test, feature = "fuzzing"))]
pub mod model;
mod profile;
mod ranges;
mod rules;
mod stored;
mod syscalls;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;
use oci_spec::runtime::LinuxSeccomp;

use self::arch::Arch;
pub use self::known::{actions, architectures, flags, operators};
use crate::error::Pointer;
use crate::init::step;
use crate::sys::seccomp;
use crate::sys::seccomp::Instruction;

/// `BPF_MAXINSNS`; linux/bpf_common.h.
const LONGEST: usize = 4096;

/// A compiled seccomp filter.
///
/// `create` saves it in the state directory (`container/filter.rs`), so that `exec` loads the same filter
/// without reading `config.json`, which may have changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub program: Rc<[Instruction]>,
    /// `SECCOMP_FILTER_FLAG_*` without `NEW_LISTENER`, which is added if there is a listener.
    pub flags: u32,
    /// The agent that decides about calls with `SCMP_ACT_NOTIFY`.
    pub listener: Option<Listener>,
    /// Names in the profile that are no system call. Not saved.
    pub unknown: Vec<String>,
}

/// A seccomp agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The absolute path of its UNIX socket.
    pub path: PathBuf,
    /// The metadata that it receives besides the container's state.
    pub metadata: Option<String>,
}

/// How unknown system calls in the profile are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Ignored as in runc: if they are newer than this runtime, an older kernel lacks them anyway.
    Ignore,
    /// Refused, as in crun on request.
    Refuse,
}

/// Plans the object at `at` (`/linux/seccomp`).
pub fn plan(seccomp: &LinuxSeccomp, unknown: Unknown, at: &Pointer) -> Result<Filter> {
    let Some(native) = Arch::native() else {
        return Err(at.error("this program makes filters on x86_64 and aarch64 only"));
    };
    plan_for(native, seccomp, unknown, at)
}

fn plan_for(native: Arch, seccomp: &LinuxSeccomp, unknown: Unknown, at: &Pointer) -> Result<Filter> {
    let profile = profile::read(seccomp, native, unknown, at)?;
    let program = bpf::compile(&ranges::sections(&profile), profile.default);
    if program.len() > LONGEST {
        let message =
            format!("filter has {} instructions, more than the kernel's limit of {LONGEST}", program.len());
        return Err(at.field("syscalls").error_with_hint(message, "use fewer rules or conditions"));
    }
    let unknown = profile.unknown.into_iter().map(str::to_owned).collect();
    Ok(Filter { program: program.into(), flags: profile.flags, listener: profile.listener, unknown })
}

impl Filter {
    /// Returns the filter in the form that the init process loads.
    pub fn step(&self) -> step::Filter {
        step::Filter { program: self.program.clone(), flags: self.flags }
    }

    /// Debug messages about the filter, in runc's wording.
    pub fn notes(&self) -> Vec<String> {
        let unknown = self.unknown.iter().map(|name| format!("unknown seccomp syscall {name:?} ignored"));
        let flags = seccomp::with_listener(self.flags, self.listener.is_some());
        unknown.chain([format!("seccomp filter flags: {flags}")]).collect()
    }
}
