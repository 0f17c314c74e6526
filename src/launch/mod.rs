//! What the parent does to make a container, or to add a process to one.
//!
//! `create/` and `exec/` are the two; both clone by `spawn`, and `conversation` is how they talk with what they have cloned.

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
