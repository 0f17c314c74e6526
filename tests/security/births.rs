//! What a process that is being born in a container shows to those who may look into it there:
//! CAP_SYS_PTRACE.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use crate::support::bundle::{capabilities, join_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::need_own;
use crate::support::suite::suite;
use crate::support::trace::{Stop, Trace, descriptors, memory};
use crate::support::{Container, Invocation, Outcome};

suite![
    the_environment_of_the_caller_is_not_in_a_process_that_is_born,
    cve_2016_9962_a_process_born_into_a_joined_pid_namespace_has_nothing_of_the_host,
];

/// Who has CAP_SYS_PTRACE in the container may look into whatever is born there. Neither an environment of
/// one line nor one of many pages stays, nor the command line with its paths of the host.
fn the_environment_of_the_caller_is_not_in_a_process_that_is_born() -> Outcome {
    need_own()?;
    Trace::need()?;
    for length in [1, 60_000] {
        let secret = "SECRET_OF_THE_CALLER".repeat(length / 20 + 1);
        let container = Container::idle();
        let created = container.create_with(NO_OPTIONS).env("SECRET", &secret).succeeds();
        let of_init = |file: &str| fs::read(format!("/proc/{}/{file}", container.pid())).unwrap();
        assert!(of_init("environ").iter().all(|byte| *byte == 0), "{created:#?}");
        assert_eq!(String::from_utf8(of_init("cmdline")).unwrap().trim_end_matches('\0'), "runtime init");
    }
    let container = Container::idle().edit(|spec| capabilities(spec, &["CAP_KILL", "CAP_SYS_PTRACE"]));
    container.launch();
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", container.pid())).unwrap();
    let mut trace = Trace::of(container.exec(["true"]).env("SECRET", "SECRET_OF_THE_CALLER"));
    let (mut seen, mut began) = (0, false);
    while let Some((pid, stop)) = trace.next() {
        began |= stop == Stop::Executed && pid != trace.first();
        let is_inside = fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own == namespace);
        if is_inside && !began {
            seen += 1;
            for file in ["environ", "cmdline"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
                let text = String::from_utf8_lossy(&text);
                assert!(!text.contains("SECRET") && !text.contains(&container.id), "{file}: {text:?}");
            }
        }
    }
    assert!(seen > 10, "the process was seen {seen} times");
    trace.finish().code();
    Ok(())
}

/// Whoever has CAP_SYS_PTRACE in a pid namespace that a container joins can follow the links in /proc of the
/// process that is born there. By then they lead to the container's own root, and to nothing else.
fn cve_2016_9962_a_process_born_into_a_joined_pid_namespace_has_nothing_of_the_host() -> Outcome {
    need_own()?;
    Trace::need()?;
    let first = Container::idling();
    let namespace = format!("/proc/{}/ns/pid", first.pid());
    let script = "test -d /proc/self/fd && test $$ -gt 1 && test -d /proc/1 && echo well";
    for knows_pidns in [true, false] {
        let container = Container::with_script(script).edit(|spec| join_namespace(spec, "pid", &namespace));
        let seen = assert_born_late(&container, container.run_with(NO_OPTIONS), &namespace, knows_pidns);
        // Before Linux 6.18 another one asks there for a procfs.
        assert!(knows_pidns || seen == 2, "{seen} processes were born");
        container.leaves_nothing();
    }
    // Without that capability itself, for there is somebody else.
    let container = Container::idle().edit(|spec| join_namespace(spec, "pid", &namespace));
    container.launch();
    assert_born_late(&container, container.exec(["echo", "well"]), &namespace, true);
    Ok(())
}

/// Follows a call that says `well`, and looks at what it brings into the pid namespace until it is the
/// container's program; how many processes these are.
#[track_caller]
fn assert_born_late(container: &Container, call: Invocation, namespace: &str, knows_pidns: bool) -> usize {
    let joined = fs::read_link(namespace).unwrap();
    let rootfs = fs::metadata(container.bundle.rootfs()).unwrap();
    let is_rootfs =
        |path: &str| fs::metadata(path).is_ok_and(|at| (at.dev(), at.ino()) == (rootfs.dev(), rootfs.ino()));
    let mut trace = Trace::of(call);
    let mut seen = BTreeSet::new();
    while let Some((pid, stop)) = trace.next() {
        if stop == Stop::Executed && pid != trace.first() {
            break;
        }
        if !knows_pidns {
            forget_pidns(pid, &stop);
        }
        if fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own != joined) {
            continue;
        }
        seen.insert(pid);
        for link in ["root", "cwd"] {
            assert!(is_rootfs(&format!("/proc/{pid}/{link}")), "{link} of {pid} is the host's");
        }
        assert_eq!(descriptors(pid, |_, path| leads_outside(pid, path)), [""; 0], "lead to the host");
    }
    let output = trace.finish();
    assert_eq!(output.stdout, "well\n", "{output:#?}");
    assert!(!seen.is_empty(), "no process was seen in the namespace");
    seen.len()
}

/// Whether a descriptor of `pid` is of a directory on a file system of the host, and of none of the mounts
/// that `pid` sees.
fn leads_outside(pid: i32, path: &str) -> bool {
    let Ok(at) = fs::metadata(path) else { return false };
    let is_hosts = |mount: &str| {
        let (major, minor) = mount.split(' ').nth(2).and_then(|device| device.split_once(':')).unwrap();
        rustix::fs::makedev(major.parse().unwrap(), minor.parse().unwrap()) == at.dev()
    };
    let info = fs::read_to_string(path.replace("/fd/", "/fdinfo/")).unwrap_or_default();
    let mount =
        info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim().to_owned();
    let seen = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let is_seen = seen.lines().any(|line| line.split(' ').next() == Some(&mount));
    let hosts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    at.is_dir() && !is_seen && hosts.lines().any(is_hosts)
}

/// Makes the kernel one before 6.18, which knows no such parameter of procfs.
fn forget_pidns(pid: i32, stop: &Stop) {
    const FSCONFIG_SET_FD: u64 = 5;
    let Stop::Call { number: libc::SYS_fsconfig, arguments } = stop else { return };
    if arguments[1] == FSCONFIG_SET_FD && memory(pid, arguments[2], 5) == b"pidns" {
        let mem = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).unwrap();
        mem.write_all_at(b"never", arguments[2]).unwrap();
    }
}
