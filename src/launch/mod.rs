//! What the parent does to make a container, or to add a process to one.
//!
//! `create/` and `exec/` are the two; both clone through `spawn` and talk to the child through
//! `conversation`.

mod conversation;
pub mod create;
pub mod exec;
mod inherited;
mod net_devices;
mod netns;
mod post_mortem;
mod seccomp_agent;
mod spawn;
pub mod supervise;
mod user_namespace;
