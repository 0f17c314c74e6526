//! The only unsafe code: system calls that neither nix nor rustix wraps safely, one file for each family.
//!
//! A wrapper is one system call: safe signature, `Result<_, Errno>`, no policy, no context.
#![allow(unsafe_code, reason = "this folder is where unsafe code lives; every block says why it is sound")]

pub mod bpf;
