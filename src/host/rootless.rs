//! Whether the runtime lacks privileges outside of a user namespace, by the same rules as runc.

use std::ffi::OsStr;
use std::fs;

use rustix::process::geteuid;

/// The initial user namespace: `PROC_USER_INIT_INO`, linux/proc_ns.h.
const INITIAL: &str = "user:[4026531837]";

/// `--rootless`: whether to tolerate that this process cannot create cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootless {
    True,
    False,
    /// If this process is not root, or is root only in a user namespace, which may or may not own cgroups.
    Auto,
}

impl Rootless {
    pub fn is_enabled(self) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Auto => !geteuid().is_root() || !is_initial(),
        }
    }
}

/// Whether to use the user's runtime directory: if this process is not root, or if it is root of a user
/// namespace and `user`, the variable `USER`, is not `root`, as it is in a complete system in a container.
pub fn has_runtime_directory(user: Option<&OsStr>) -> bool {
    !geteuid().is_root() || !is_initial() && user != Some(OsStr::new("root"))
}

/// Whether this process is in the initial user namespace; also true if /proc cannot be read.
pub fn is_initial() -> bool {
    fs::read_link("/proc/self/ns/user").map_or(true, |link| link.as_os_str() == INITIAL)
}
