//! Helpers of the integration tests.

pub mod agent;
pub mod bundle;
#[cfg(target_arch = "x86_64")]
pub mod calls;
pub mod container;
pub mod elf;
pub mod hold;
pub mod host;
#[cfg(target_arch = "x86_64")]
pub mod injector;
pub mod leftovers;
pub mod process;
pub mod pty;
pub mod rootfs;
pub mod subreaper;
pub mod suite;
pub mod trace;
pub mod user;
pub mod wait;
pub mod weakened;
pub mod workspace;

pub use bundle::Bundle;
pub use container::Container;
pub use host::Outcome;
pub use process::{Invocation, Output};
pub use pty::Pty;
pub use wait::wait_until;
