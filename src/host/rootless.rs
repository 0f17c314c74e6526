//! Who counts as having no privileges outside of a user namespace, as runc decides it.

use std::ffi::OsStr;
use std::fs;

use rustix::process::geteuid;

/// Of the initial user namespace: `PROC_USER_INIT_INO`, linux/proc_ns.h.
const INITIAL: &str = "user:[4026531837]";

/// `--rootless`: whether it is excused that this process may not make cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootless {
    True,
    False,
    /// If this process is not root, or only of a user namespace, to whom cgroups may belong or not.
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

/// Whether the directory for files of this user's session is used: by users other than root, and by root of a user namespace,
/// unless they say by `user`, the variable `USER`, that they are root of a whole system.
pub fn has_runtime_directory(user: Option<&OsStr>) -> bool {
    !geteuid().is_root() || !is_initial() && user != Some(OsStr::new("root"))
}

/// Whether this process is in the user namespace that the kernel began with. Without /proc there is no telling, and it is.
pub fn is_initial() -> bool {
    fs::read_link("/proc/self/ns/user").map_or(true, |link| link.as_os_str() == INITIAL)
}
