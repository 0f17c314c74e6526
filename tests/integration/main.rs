//! Integration tests: run the runtime as a user would, on the real kernel.
//!
//! `RUNTIME` is the runtime under test (default: the one cargo has just built), so that the expectations can
//! be validated with runc and crun; `BUSYBOX` is a static busybox for the root file systems. A test that
//! requires what the host lacks returns [`support::host::Skip`] and is reported as ignored, with the reason.
//! In a virtual machine (`VM_KIND`) the suite runs directly, otherwise through `scripts/cgroup2`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    unreachable_pub,
    reason = "a test fails by panicking, nobody imports it, and json!(...) reads best as an argument"
)]

mod broken;
mod cgroup;
mod cgroup_mount;
mod cgroup_tree;
mod cli;
mod clients;
mod descriptors;
mod devices;
mod document;
mod enforcement;
mod events;
mod exec;
mod exec_cgroup;
mod exec_namespaces;
mod exec_process;
#[cfg(target_arch = "x86_64")]
mod faults;
#[cfg(not(target_arch = "x86_64"))]
mod faults {
    use crate::support::Outcome;
    use crate::support::host::need;
    use crate::support::suite::suite;

    suite![each_command];

    fn each_command() -> Outcome {
        need(false, "a machine whose registers support/injector.rs knows: x86_64")
    }
}
mod features;
mod guard;
mod hooks;
mod hostile_input;
mod id_mapped_mounts;
mod identity;
mod intel_rdt;
mod lifecycle;
mod liveness;
mod lsm;
mod matching;
mod mounts;
mod namespaces;
mod net_devices;
mod oom;
mod pause;
mod priorities;
mod process;
mod revisions;
mod rolling;
mod rootfs;
mod rootless;
mod run;
mod scheduling;
mod seccomp;
#[path = "../security/mod.rs"]
mod security;
mod signals;
mod stats;
mod streams;
mod support;
mod systemd;
mod terminal;
mod time_namespaces;
mod top;
mod traps;
mod turns;
mod update;
mod update_faults;
mod update_kills;
mod user_namespace_joins;
mod user_namespace_mounts;
mod user_namespaces;
mod without_cgroup;

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use libtest_mimic::Arguments;
use support::suite::Test;
use support::{host, workspace};

fn tests() -> Vec<Test> {
    [
        run::tests(),
        lifecycle::tests(),
        liveness::tests(),
        exec::tests(),
        exec_process::tests(),
        exec_namespaces::tests(),
        exec_cgroup::tests(),
        cli::tests(),
        process::tests(),
        document::tests(),
        scheduling::tests(),
        time_namespaces::tests(),
        lsm::tests(),
        descriptors::tests(),
        terminal::tests(),
        signals::tests(),
        streams::tests(),
        namespaces::tests(),
        mounts::tests(),
        rootfs::tests(),
        devices::tests(),
        cgroup::tests(),
        cgroup_mount::tests(),
        cgroup_tree::tests(),
        without_cgroup::tests(),
        systemd::tests(),
        enforcement::tests(),
        priorities::tests(),
        features::tests(),
        traps::tests(),
        oom::tests(),
        pause::tests(),
        update::tests(),
        revisions::tests(),
        update_faults::tests(),
        update_kills::tests(),
        faults::tests(),
        rolling::tests(),
        events::tests(),
        stats::tests(),
        top::tests(),
        turns::tests(),
        identity::tests(),
        matching::tests(),
        security::tests(),
        guard::tests(),
        seccomp::tests(),
        broken::tests(),
        hostile_input::tests(),
        clients::tests(),
        user_namespaces::tests(),
        rootless::tests(),
        id_mapped_mounts::tests(),
        user_namespace_joins::tests(),
        hooks::tests(),
        net_devices::tests(),
        intel_rdt::tests(),
        user_namespace_mounts::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    if let Some(status) = support::subreaper::main() {
        return status;
    }
    if env::args().nth(1).is_some_and(|word| word == "--count-bpf-programs") {
        println!("{}", support::host::bpf_programs());
        return ExitCode::SUCCESS;
    }
    // libtest accepts several filters, libtest-mimic only one.
    let (options, filters): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let arguments = Arguments::from_iter(env::args().take(1).chain(options));

    if !arguments.list && !host::is_prepared() {
        let error =
            Command::new("scripts/cgroup2").arg(env::current_exe().unwrap()).args(env::args().skip(1)).exec();
        panic!("run scripts/cgroup2: {error}");
    }
    support::suite::remember_panics();
    let trials = tests()
        .into_iter()
        .filter(|test| filters.is_empty() || filters.iter().any(|filter| test.name().contains(filter)))
        .map(Test::into_trial)
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    workspace::remove();
    conclusion.exit_code()
}
