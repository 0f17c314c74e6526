//! CVE-2019-5736: no process in a container gets hold of a copy of the runtime's executable that can be made
//! writable.
//!
//! The copy is a detached read-only mount. As long as a descriptor of open_tree(2) is open, anyone with a
//! user namespace of his own can change the mount; so these tests trace the runtime and check its descriptors
//! at the critical points, independent of timing.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use serde_json::json;

use crate::seccomp::{continue_all, with_agent};
use crate::support::bundle::{add_mount, bind, capabilities, join_namespace, remove_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{self, need_own};
use crate::support::suite::suite;
use crate::support::trace::{Stop, Trace, clear_read_only, descriptors, memory};
use crate::support::weakened::{need_weakened, without};
use crate::support::{Container, Invocation, Outcome};
use crate::terminal::ConsoleSocket;

suite![
    exec_holds_no_copy_when_its_process_is_born,
    run_holds_no_copy_when_its_program_may_begin,
    create_and_start_hold_no_copy_when_the_program_may_begin,
    with_hooks_no_copy_is_held_when_a_process_is_born,
    in_a_joined_namespace_no_copy_is_held_when_a_process_is_born,
    with_an_agent_no_copy_is_held_when_the_program_may_begin,
    a_command_with_the_name_of_another_as_a_word_holds_no_copy,
    the_copy_cannot_be_made_writable_once_a_container_sees_it,
    a_copy_whose_descriptor_stays_open_can_be_made_writable,
    a_descriptor_of_the_runtimes_own_is_not_the_callers_with_global_options_at_the_end,
];

/// When nothing may be held any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    /// As soon as there is a second process.
    Birth,
    /// As soon as the init process may go on to its program.
    Beginning,
}

/// Whether the descriptor is one of a detached mount of the runtime's executable.
fn is_copy(link: &str, path: &str) -> bool {
    let own = fs::metadata(host::runtime()).unwrap();
    link == "/" && fs::metadata(path).is_ok_and(|of| (of.dev(), of.ino()) == (own.dev(), own.ino()))
}

fn is_birth(number: i64) -> bool {
    [libc::SYS_clone3, libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork].contains(&number)
}

/// Whether a call is the one byte with which the runtime lets its child go on.
fn is_go_on(pid: i32, number: i64, arguments: &[u64; 6]) -> bool {
    number == libc::SYS_sendto && arguments[2] == 1 && memory(pid, arguments[1], 1) == b"g"
}

/// Follows the call, and looks at all of its processes where it matters.
#[track_caller]
fn assert_releases(what: &str, call: Invocation, since: Since) {
    let mut trace = Trace::of(call);
    let (mut begun, mut may_go_on) = (false, None);
    while let Some((pid, stop)) = trace.next() {
        let held =
            || -> Vec<_> { trace.processes.iter().flat_map(|pid| descriptors(*pid, is_copy)).collect() };
        match stop {
            Stop::Call { number, .. } if is_birth(number) => {
                begun = true;
                if since == Since::Birth {
                    assert_eq!(held(), [""; 0], "{what}: when a process is cloned");
                }
            }
            Stop::Call { number, ref arguments } if is_go_on(pid, number, arguments) => {
                may_go_on = Some(held());
            }
            // The first is the runtime, which begins anew.
            Stop::Executed if begun => {
                assert_eq!(held(), [""; 0], "{what}: when another program begins");
            }
            _ => {}
        }
    }
    assert!(begun, "{what}: no process was cloned");
    // The last time: nothing comes between that and the program.
    assert!(may_go_on.is_none_or(|held| held.is_empty()), "{what}: when the init process may go on");
    let output = trace.finish();
    assert!(output.code() == 0, "{what}: {output:#?}");
}

fn exec_holds_no_copy_when_its_process_is_born() -> Outcome {
    need_own()?;
    Trace::need()?;
    let tracer = || Container::idle().edit(|spec| capabilities(spec, &["CAP_KILL", "CAP_SYS_PTRACE"]));
    for (what, container) in [
        ("exec", Container::idle()),
        ("exec where others may trace", tracer()),
        ("exec in a user namespace", Container::idle().in_user_namespace()),
    ] {
        container.launch();
        assert_releases(what, container.exec(["true"]), Since::Birth);
        let socket = ConsoleSocket::beside(&container);
        let options = ["--detach", "--tty", "--console-socket", socket.path.to_str().unwrap()];
        assert_releases(what, container.exec_with(options, ["true"]), Since::Birth);
        socket.receive();
    }
    Ok(())
}

fn run_holds_no_copy_when_its_program_may_begin() -> Outcome {
    need_own()?;
    Trace::need()?;
    for (what, container) in [
        ("run", Container::new()),
        ("run in a user namespace", Container::new().in_user_namespace()),
        ("run with a hook in the container", with_hook(Container::new(), "startContainer")),
    ] {
        assert_releases(what, container.run_with(NO_OPTIONS), Since::Beginning);
    }
    let container = Container::new().edit(|spec| spec["process"]["terminal"] = json!(true));
    let socket = ConsoleSocket::beside(&container);
    let options = ["--detach", "--console-socket", socket.path.to_str().unwrap()];
    assert_releases("run with a terminal", container.run_with(options), Since::Beginning);
    socket.receive();
    Ok(())
}

fn create_and_start_hold_no_copy_when_the_program_may_begin() -> Outcome {
    need_own()?;
    Trace::need()?;
    for container in [Container::idle(), Container::idle().in_user_namespace()] {
        assert_releases("create", container.create_with(NO_OPTIONS), Since::Beginning);
        // Its executable is a mount of its own, should it have one.
        let mut start = Trace::of(container.on_id("start"));
        while start.next().is_some() {
            assert_eq!(descriptors(start.first(), is_copy), [""; 0]);
        }
        start.finish();
    }
    Ok(())
}

fn with_hook(container: Container, kind: &str) -> Container {
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "exit 0"] });
    container.edit(|spec| spec["hooks"] = json!({ kind: [hook] }))
}

fn with_hooks_no_copy_is_held_when_a_process_is_born() -> Outcome {
    need_own()?;
    Trace::need()?;
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let container = with_hook(Container::new(), kind);
        assert_releases(&format!("run with {kind}"), container.run_with(NO_OPTIONS), Since::Birth);
        let container = with_hook(Container::new(), kind);
        assert_releases(&format!("create with {kind}"), container.create_with(NO_OPTIONS), Since::Birth);
    }
    Ok(())
}

fn in_a_joined_namespace_no_copy_is_held_when_a_process_is_born() -> Outcome {
    need_own()?;
    Trace::need()?;
    let first = Container::idling();
    let joins = |container: Container, of: &Container, kinds: &[&str]| {
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", of.pid());
        container.edit(|spec| kinds.iter().for_each(|kind| join_namespace(spec, kind, path(kind))))
    };
    let container = joins(Container::new(), &first, &["pid"]);
    assert_releases("run in a joined pid namespace", container.run_with(NO_OPTIONS), Since::Birth);
    let container = joins(Container::new(), &first, &["pid"]);
    assert_releases("create in a joined pid namespace", container.create_with(NO_OPTIONS), Since::Birth);
    let container = Container::new().edit(|spec| remove_namespace(spec, "pid"));
    assert_releases("run in the host's pid namespace", container.run_with(NO_OPTIONS), Since::Birth);

    let first = Container::idle().in_user_namespace();
    first.launch();
    for kinds in [&["user"][..], &["user", "pid"]] {
        let container = joins(Container::new().in_user_namespace(), &first, kinds);
        assert_releases(&format!("run with {kinds:?} joined"), container.run_with(NO_OPTIONS), Since::Birth);
    }
    Ok(())
}

fn with_an_agent_no_copy_is_held_when_the_program_may_begin() -> Outcome {
    need_own()?;
    Trace::need()?;
    let (container, agent) = with_agent("mkdir /tmp/a; trap 'exit 0' TERM; sleep 1000 & wait", &["mkdir"]);
    let answers = thread::spawn(move || [continue_all(agent.meet()), continue_all(agent.meet())]);
    assert_releases("run with an agent", container.run_with(["--detach"]), Since::Beginning);
    assert_releases("exec with an agent", container.exec(["true"]), Since::Birth);
    answers.join().unwrap();
    Ok(())
}

/// Such a word is enough for the runtime to make a copy, before it knows the command.
fn a_command_with_the_name_of_another_as_a_word_holds_no_copy() -> Outcome {
    need_own()?;
    Trace::need()?;
    let mut container = with_hook(Container::idle(), "poststart");
    container.id = "exec".to_owned();
    container.create();
    assert_releases("create: its start calls a hook", container.on_id("start"), Since::Birth);
    Ok(())
}

/// Opens its executable as soon as the program has become what the container says, while the runtime stands
/// still where it has just let it go on, and tries to have it writable from another user namespace; the errno
/// of that, or 0.
#[track_caller]
fn attack(call: Invocation, copy: &Path) -> i32 {
    let mut trace = Trace::of(call);
    let mut may_go_on = false;
    let seen = loop {
        let Some((pid, stop)) = trace.next() else { panic!("{:#?}", trace.finish()) };
        let is_first = pid == trace.first();
        match stop {
            Stop::Call { number, ref arguments } if is_first => {
                may_go_on = is_go_on(pid, number, arguments);
            }
            Stop::Return if is_first && may_go_on => trace.hold(),
            Stop::Executed if !is_first => break pid,
            _ => {}
        }
    };
    let exe = format!("/proc/{seen}/exe");
    let (expected, actual) = (fs::metadata(copy).unwrap(), fs::metadata(&exe).unwrap());
    assert_eq!(actual.ino(), expected.ino(), "the program is the runtime itself");
    let opened = File::options().read(true).custom_flags(libc::O_PATH).open(&exe).unwrap();
    let opened = OwnedFd::from(opened);
    let errno = clear_read_only(&opened);
    assert!(errno == 0 || fstatvfs(&opened).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY));
    trace.finish();
    errno
}

/// With a program `evil` that is the runtime itself.
fn evil(container: Container) -> Container {
    let container = container.with_file("bin/evil", 0o755, "#!/proc/self/exe --version\n");
    container.edit(|spec| {
        // What a runtime that is not static needs.
        for libraries in
            ["/lib", "/lib64", "/usr/lib"].map(Path::new).into_iter().filter(|path| path.exists())
        {
            add_mount(spec, bind(libraries, libraries.to_str().unwrap(), &["ro"]));
        }
    })
}

fn the_copy_cannot_be_made_writable_once_a_container_sees_it() -> Outcome {
    need_own()?;
    Trace::need()?;
    let container = evil(Container::idle());
    container.launch();
    assert_eq!(attack(container.exec(["evil"]), host::runtime()), libc::EINVAL);
    let container = evil(Container::with_args(["evil"]));
    assert_eq!(attack(container.run_with(NO_OPTIONS), host::runtime()), libc::EINVAL);
    Ok(())
}

/// Or the test above would prove nothing.
fn a_copy_whose_descriptor_stays_open_can_be_made_writable() -> Outcome {
    need_weakened()?;
    Trace::need()?;
    let container = evil(Container::idle());
    container.launch();
    without("CVE-2019-5736", || {
        assert_eq!(attack(container.exec(["evil"]), host::runtime()), 0);
        let container = evil(Container::with_args(["evil"]));
        assert_eq!(attack(container.run_with(NO_OPTIONS), host::runtime()), 0);
    });
    Ok(())
}

/// The descriptor of the copy is one, and when the command line is read a second time, others come to have
/// its number.
fn a_descriptor_of_the_runtimes_own_is_not_the_callers_with_global_options_at_the_end() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let root = container.root();
    for count in 1..6 {
        let call = Invocation::of_the_runtime().arg("exec").arg(format!("--preserve-fds={count}"));
        let call = call.arg("--root").arg(&root).arg(&container.id).args(["ls", "-l", "/proc/self/fd"]);
        call.fails_with("is not open");
    }
    Ok(())
}
