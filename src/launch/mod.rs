//! What the parent does to make a container, or to add a process to one.

pub mod child;
pub mod create;
pub mod exec;
mod net_devices;
mod netns;
pub mod seccomp_agent;
pub mod supervise;
mod user_namespace;
