//! `/linux` of `config.json`.

pub mod devices;
pub mod id_maps;
pub mod memory_policy;
pub mod namespaces;
pub mod net_devices;
pub mod seccomp;
pub mod sysctl;
pub mod time_offsets;
