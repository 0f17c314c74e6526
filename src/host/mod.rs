//! Facts and services of the host, used by the parent: what any kind of runtime would need from Linux.

pub mod caller;
pub mod clock;
pub mod dbus;
#[cfg(any(test, feature = "fuzzing"))]
pub mod dice;
pub mod environment;
pub mod log;
pub mod lsm;
pub mod mountinfo;
pub mod netlink;
pub mod notify;
pub mod path;
pub mod placeholder;
pub mod process;
pub mod rootless;
pub mod self_exe;
pub mod signals;
pub mod terminal;
pub mod unix_socket;
