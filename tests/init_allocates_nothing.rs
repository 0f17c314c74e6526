//! Runs real programs of steps under an allocator that ends the process when it is used, and a control that
//! must be ended. A process between clone and execve must not allocate: it works within the container's
//! memory limit, and a lock that its parent held would never be released.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "an allocator is unsafe; this one only watches"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why it cannot run"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use runtime::init::protocol;
use runtime::init::protocol::Message;
use runtime::init::step::{
    Bind, Ended, Entry, Filter, Held, Hook, Identity, Mount, MountTarget, OldStyle, Outputs, Parameter, Part,
    Point, RunHook, Step, TargetRule, Within,
};
use runtime::sys::mount::{Attributes, Recursion};
use runtime::sys::process::{Argv, Cloned, clone3, exit_now};
use runtime::sys::seccomp::Instruction;
use runtime::{init, sys};
use rustix::fs::{FileType, Mode};
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};

/// What a process that allocated when it must not exits with.
const CAUGHT: i32 = 99;

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

struct Watch;

unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FORBIDDEN.load(Ordering::Relaxed) {
            exit_now(CAUGHT);
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if FORBIDDEN.load(Ordering::Relaxed) {
            exit_now(CAUGHT);
        }
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static WATCH: Watch = Watch;

/// The child's exit status and last message.
struct End {
    /// -1 if a signal killed it.
    status: i32,
    said: Option<Message>,
    /// The last output of a hook.
    hook_said: Vec<u8>,
}

/// Clones a child that runs `child` and must not allocate while it does.
fn in_a_child(namespaces: i32, child: impl FnOnce(BorrowedFd<'_>)) -> End {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    match clone3(u64::from(namespaces.unsigned_abs()), None).unwrap() {
        Cloned::Child => {
            FORBIDDEN.store(true, Ordering::Relaxed);
            child(theirs.as_fd());
            exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            if namespaces & libc::CLONE_NEWUSER != 0 {
                for map in ["uid_map", "gid_map"] {
                    fs::write(format!("/proc/{pid}/{map}"), "0 0 65536").unwrap();
                }
                let _ = rustix::net::send(&ours, b"g", SendFlags::NOSIGNAL);
            } else {
                let network = fs::File::open("/proc/self/ns/net").unwrap();
                let _ = protocol::send_descriptor(ours.as_fd(), b"n", network.as_fd());
            }
            for _ in 0..2 {
                // It may have failed already.
                let _ = rustix::net::send(&ours, b"g", SendFlags::NOSIGNAL);
            }
            let wait =
                |pidfd: BorrowedFd<'_>| rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
            let mut status = wait(pidfd.as_fd());
            let mut hook_said = Vec::new();
            let said = loop {
                let mut bytes = [0; protocol::LONGEST];
                let (count, successor) = protocol::receive(ours.as_fd(), &mut bytes).unwrap_or((0, None));
                if let Some(successor) = successor {
                    assert_eq!(&bytes[..count], protocol::SUCCESSOR);
                    status = wait(successor.as_fd());
                    continue;
                }
                match protocol::said(&bytes[..count]) {
                    Some(words) => hook_said = words.to_vec(),
                    None => match bytes[..count].try_into().ok().and_then(Message::from_bytes) {
                        Some(Message::Reached(Point::Born) | Message::Listening(_)) => {}
                        said => break said,
                    },
                }
            };
            End { hook_said, status: status.unwrap().unwrap().exit_status().unwrap_or(-1), said }
        }
    }
}

fn is_privileged() -> bool {
    let admin = sys::cred::capabilities().is_ok_and(|sets| sets.effective >> 21 & 1 == 1);
    if !admin {
        eprintln!("skip: needs CAP_SYS_ADMIN");
    }
    admin
}

fn c(text: impl AsRef<[u8]>) -> CString {
    CString::new(text.as_ref()).unwrap()
}

fn at(path: &str) -> MountTarget {
    MountTarget { path: c(path), rule: TargetRule::Usual }
}

fn tmpfs(path: &str, copy_up: bool) -> Step {
    Step::Mount(Mount {
        fstype: c("tmpfs"),
        source: Some(c("tmpfs")),
        parameters: vec![Parameter { key: c("size"), value: Some(c("1m")), option: 0 }],
        attributes: MountAttrFlags::MOUNT_ATTR_NOSUID,
        propagation: Some((libc::MS_PRIVATE, Recursion::ThisMount)),
        target: at(path),
        old_style: None,
        stand_in: None,
        label: None,
        inherit_mode: true,
        held: None,
        copy_up,
    })
}

fn old_style_tmpfs(path: &str) -> Step {
    match tmpfs(path, false) {
        Step::Mount(mount) => Step::Mount(Mount {
            old_style: Some(OldStyle { data: c("size=1m"), flags: 0 }),
            inherit_mode: false,
            ..mount
        }),
        other => other,
    }
}

fn held_tmpfs(path: &str, held: &Held) -> Step {
    match tmpfs(path, false) {
        Step::Mount(mount) => Step::Mount(Mount { held: Some(held.clone()), ..mount }),
        other => other,
    }
}

fn bind(path: &str) -> Step {
    Step::Bind(Bind {
        source: c(path),
        tree: None,
        maps_ids: false,
        follow_source: true,
        copy_symlink: false,
        recursive: true,
        this_mount: Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() },
        beside_locked: Attributes::default(),
        whole_tree: Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() },
        target: at(path),
    })
}

/// A hook of the init process that runs `script`; its state is larger than a pipe's buffer. `timeout` is in
/// seconds.
fn hook(within: Within, script: &str, timeout: Option<i64>) -> Step {
    Step::RunHook(RunHook {
        hook: Hook {
            path: c("/bin/sh"),
            argv: Argv::new(vec![c("sh"), c("-c"), c(script)]),
            envp: Argv::with_room(vec![c("PATH=/bin:/usr/bin")]),
            timeout,
        },
        filter: Some(filter(0)),
        state: vec![b'x'; 100 << 10].into(),
        outputs: Outputs::default().into(),
        within,
        complaint: c("hook"),
    })
}

/// Steps that nearly every container has, and steps that only some have. The program is `name`.
fn program(rootfs: &Path, name: &str) -> Vec<Step> {
    let held = Held::default();
    let mut steps = in_namespaces(rootfs);
    steps.extend(mounts(&held));
    steps.extend(switch_the_root(held));
    steps.extend(become_the_process(name));
    steps
}

/// Up to the rootfs.
fn in_namespaces(rootfs: &Path) -> Vec<Step> {
    vec![
        Step::CloseOthers { ranges: vec![(100, 200)] },
        Step::NewNamespaces { kinds: libc::CLONE_NEWCGROUP | libc::CLONE_NEWNET },
        Step::Loopback,
        Step::JoinSessionKeyring { name: c("_ses.test"), permissions: 8, label: None },
        Step::NewNamespaces { kinds: sys::process::CLONE_NEWTIME },
        Step::TimeOffsets { offsets: c("boottime 5 0\n") },
        Step::NewSession,
        Step::JoinNewNetwork,
        Step::HostPropagation { path: c("/"), propagation: libc::MS_SLAVE, reach: Recursion::WholeTree },
        Step::OpenRootfs {
            path: c(rootfs.as_os_str().as_encoded_bytes()),
            tree: None,
            is_pivoted_to: true,
            is_private: true,
        },
    ]
}

/// What is in the rootfs before it is the root; one tmpfs is `held` for a later step.
fn mounts(held: &Held) -> Vec<Step> {
    let existing =
        ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|path| Path::new(path).exists()).map(bind);
    let made = [
        tmpfs("/link/below/it", false),
        tmpfs("/full", true),
        procfs(),
        tmpfs("/dev", false),
        old_style_tmpfs("/old/style"),
        held_tmpfs("/held", held),
        nodes_and_links(),
        hook(Within::Rootfs, "cat; i=0; while [ $i -lt 999 ]; do echo many words; i=$((i+1)); done", None),
        hook(Within::Rootfs, "exec <&-; sleep 1000 & exit 0", Some(60)),
    ];
    existing.chain(made).collect()
}

fn procfs() -> Step {
    Step::Mount(Mount {
        fstype: c("proc"),
        source: Some(c("proc")),
        parameters: Vec::new(),
        attributes: MountAttrFlags::empty(),
        propagation: None,
        target: MountTarget { path: c("/proc"), rule: TargetRule::KernelDirectory },
        old_style: None,
        stand_in: None,
        label: None,
        inherit_mode: false,
        held: None,
        copy_up: false,
    })
}

fn nodes_and_links() -> Step {
    Step::Populate {
        directory: c("/dev"),
        entries: vec![
            Entry::Node {
                name: c("null"),
                mode: libc::S_IFCHR | 0o666,
                device: libc::makedev(1, 3),
                uid: 1,
                gid: 1,
                ready: None,
            },
            Entry::Link { name: c("fd"), target: c("/proc/self/fd") },
            Entry::ReplacingLink { name: c("fd"), target: c("/proc/self/fd") },
        ],
    }
}

/// The switch, and what is changed of the root after it.
fn switch_the_root(held: Held) -> Vec<Step> {
    let read_only = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    vec![
        Step::PivotRoot { cut_off: true },
        Step::RootPropagation { propagation: libc::MS_PRIVATE, reach: Recursion::WholeTree },
        Step::MakeDirectory { path: c("/made/on/the/way") },
        Step::Seal { path: c("/full"), mount: None, attributes: read_only },
        Step::Seal { path: c("/held"), mount: Some(held), attributes: read_only },
        Step::Hostname { name: c("inside") },
        Step::Domainname { name: c("inside") },
        Step::Sysctl { settings: vec![(c("kernel/shm_rmid_forced"), c("1"))] },
        Step::ReadOnlyPath { path: c("/proc/sys") },
        Step::ReadOnlyPath { path: c("/not/there") },
        Step::MaskPaths {
            paths: vec![c("/proc/bus"), c("/proc/keys"), c("/proc/fs"), c("/not/there")],
            label: None,
        },
    ]
}

fn become_the_process(name: &str) -> Vec<Step> {
    vec![
        Step::OwnStreams,
        Step::Rlimit { resource: 7, soft: 64, hard: 64 },
        Step::Personality { domain: 0 },
        Step::MemoryPolicy { mode: 2, nodes: vec![1] },
        Step::Affinity { mask: vec![usize::MAX] },
        Step::ResetAffinity,
        // The nicest value, because the test may run with a raised one, and lowering it takes privileges.
        Step::Scheduler(sys::scheduling::Scheduler { policy: 3, nice: 19, ..Default::default() }),
        Step::IoPriority { priority: 2 << 13 | 7 },
        Step::NoNewPrivileges,
        Step::EndOnSignals,
        Step::ChangeDirectory { path: c("/made/on/the"), last_try: false },
        Step::Identity(Identity {
            uid: 12_345,
            gid: 54_321,
            groups: vec![sys::cred::gid(7)],
            has_terminal: false,
            umask: 0o22,
            bounding: 1,
            sets: sys::cred::Sets { effective: 1, permitted: 1, inheritable: 1 },
            ambient: 1,
        }),
        Step::FindProgram { candidates: vec![c("/not/there"), c(name)] },
        Step::FindHome { uid: 12_345 },
        Step::AwaitParent,
        hook(Within::Container, "test $HOME = /home/me", Some(60)),
        Step::CloseOnExec { from: 3 },
        Step::LoadFilter { filter: filter(4), listens: false },
        Step::LoadFilter { filter: filter(0), listens: true },
        Step::Execute { argv: Argv::new(vec![c(name)]), envp: Argv::with_room(Vec::new()) },
    ]
}

/// One instruction: return SECCOMP_RET_ALLOW. `flags` are `SECCOMP_FILTER_FLAG_*`.
fn filter(flags: u32) -> Filter {
    Filter { program: [Instruction { code: 6, yes: 0, no: 0, number: 0x7fff_0000 }].into(), flags }
}

fn rootfs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let inside = |path: &str| directory.path().join(path);
    fs::create_dir_all(inside("full/of/things")).unwrap();
    fs::write(inside("full/of/things/file"), "text").unwrap();
    std::os::unix::fs::symlink("things", inside("full/of/link")).unwrap();
    std::os::unix::fs::symlink("/dangling", inside("link")).unwrap();
    fs::create_dir(inside("etc")).unwrap();
    fs::write(inside("etc/passwd"), "root:x:0:0::/root:\nme:x:12345:1::/home/me:\n").unwrap();
    directory
}

const ALL: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;

/// The same steps for a process that is cloned into a new user namespace.
fn in_a_user_namespace(mut steps: Vec<Step>) -> Vec<Step> {
    steps.retain(|step| !matches!(step, Step::JoinNewNetwork));
    let first = [
        Step::Dumpable { yes: true },
        Step::Meet { point: Point::Born },
        Step::Dumpable { yes: false },
        Step::SwitchIds { uid: 0, gid: 0 },
    ];
    let nodes = runtime::init::detached(c"tmpfs", &[], MountAttrFlags::empty()).unwrap();
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(&nodes, "7", kind, mode, libc::makedev(1, 5)).unwrap();
    for step in &mut steps {
        match step {
            Step::OpenRootfs { path, tree, .. } => {
                *tree = Some(runtime::init::clone_tree(path, true).unwrap())
            }
            Step::Bind(bind) => bind.tree = Some(runtime::init::clone_source(bind).unwrap()),
            Step::Populate { entries, .. } => entries.push(Entry::Node {
                name: c("zero"),
                mode: libc::S_IFCHR,
                device: libc::makedev(1, 5),
                uid: 0,
                gid: 0,
                ready: Some(c("7")),
            }),
            // It would close what the parent has opened.
            Step::CloseOthers { ranges } => ranges.clear(),
            _ => {}
        }
    }
    steps.splice(1..1, first);
    steps.insert(5, Step::HoldNodes { nodes });
    steps
}

/// One test, because the allocator's switch is global.
#[test]
fn the_init_process_allocates_nothing_whether_it_succeeds_or_fails() {
    let control = in_a_child(0, |_| drop(std::hint::black_box(vec![1_u8])));
    assert_eq!(control.status, CAUGHT, "the control was not caught");
    if !is_privileged() {
        return;
    }
    // Only in a user namespace does the container have such a device of its own.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/zero").unwrap()).unwrap();
    let directory = rootfs();
    let rootfs = directory.path();
    it_executes_the_program(rootfs);
    it_is_born_late(rootfs);
    a_step_fails(rootfs);
    a_hook_fails(rootfs);
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null").unwrap()).unwrap();
    it_joins_the_namespaces_of_a_process(rootfs);
    there_is_no_program(rootfs);
}

/// Performs `steps` in new namespaces of these kinds (`CLONE_NEW*`).
fn performed(namespaces: i32, steps: &[Step]) -> End {
    in_a_child(namespaces, |socket| init::perform(steps, socket))
}

fn assert_succeeds(namespaces: i32, steps: &[Step], which: &str) {
    let end = performed(namespaces, steps);
    assert_eq!((end.status, end.said), (0, None), "of {} steps{which}", steps.len());
}

fn it_executes_the_program(rootfs: &Path) {
    assert_succeeds(ALL, &program(rootfs, "/bin/true"), "");

    let steps = in_a_user_namespace(program(rootfs, "/bin/true"));
    assert_succeeds(ALL | libc::CLONE_NEWUSER, &steps, " in a user namespace");

    let mut steps = program(rootfs, "/bin/true");
    steps.insert(1, Step::Successor { kinds: ALL });
    // The message that it would wait for lets the successor go on.
    steps.retain(|step| !matches!(step, Step::JoinNewNetwork));
    assert_succeeds(0, &steps, " of a successor");
}

/// Into a pid namespace that is joined: this one, and one that nobody comes into from below.
fn it_is_born_late(rootfs: &Path) {
    let (steps, _) = born_late(rootfs);
    assert_succeeds(ALL & !libc::CLONE_NEWPID, &steps, " of one born late");
    let (steps, mounts) = born_late(rootfs);
    let end = performed(ALL, &steps);
    let errno = rustix::io::Errno::INVAL;
    assert_eq!(end.said, Some(Message::Failed { step: mounts, errno, part: Part::Whole }));
}

/// The steps, and the number of the one that mounts a procfs of the pid namespace.
fn born_late(rootfs: &Path) -> (Vec<Step>, u32) {
    let joined = || fs::File::open("/proc/self/ns/pid").unwrap().into();
    let mut steps = program(rootfs, "/bin/true");
    steps.retain(|step| !matches!(step, Step::JoinNewNetwork | Step::Meet { .. }));
    let switch = steps.iter().position(|step| matches!(step, Step::PivotRoot { .. })).unwrap();
    let join = Step::JoinNamespace { namespace: joined(), kind: libc::CLONE_NEWPID };
    let birth = [join, Step::Successor { kinds: 0 }, Step::NewSession];
    steps.splice(switch + 1..switch + 1, birth);
    let procfs = match tmpfs("/proc-of-another", false) {
        Step::Mount(mount) => {
            Step::Mount(Mount { fstype: c("proc"), parameters: Vec::new(), inherit_mode: false, ..mount })
        }
        other => other,
    };
    steps.splice(switch..switch, [Step::HoldPidNamespace { namespace: joined() }, procfs]);
    (steps, u32::try_from(switch + 1).unwrap())
}

fn a_step_fails(rootfs: &Path) {
    let wrong = Step::Rlimit { resource: 7, soft: 2, hard: 1 };
    // On a host with AppArmor the profile does not exist, on any other the file.
    let unlabelled = Step::ApparmorProfile { command: c("exec no-such-profile") };
    for step in [wrong, unlabelled] {
        let mut failing = program(rootfs, "/bin/true");
        failing.insert(failing.len() - 10, step);
        let end = performed(ALL, &failing);
        assert_eq!(end.status, 1);
        assert!(matches!(end.said, Some(Message::Failed { .. })), "{:?}", end.said);
    }
}

fn a_hook_fails(rootfs: &Path) {
    let late = Some(1);
    for (script, timeout, ended) in [
        ("echo wrong; exit 3", None, Ended::Exited(3)),
        ("echo wrong; kill -9 $$", None, Ended::Killed(9)),
        ("echo wrong; sleep 1000", late, Ended::TimedOut),
    ] {
        let mut failing = program(rootfs, "/bin/true");
        let last = failing.len() - 1;
        failing.insert(last, hook(Within::Container, script, timeout));
        let end = performed(ALL, &failing);
        assert_eq!((end.status, &*end.hook_said), (1, b"wrong\n".as_slice()), "{script}");
        assert!(
            matches!(end.said, Some(Message::Failed { part, .. }) if part == Part::Hook(ended)),
            "{script}: {:?}",
            end.said
        );
    }
}

/// As `exec` does.
fn it_joins_the_namespaces_of_a_process(rootfs: &Path) {
    let kinds = libc::CLONE_NEWIPC | libc::CLONE_NEWNET | libc::CLONE_NEWNS;
    let end = performed(0, &joining(rootfs, kinds));
    assert_eq!((end.status, end.said), (0, None));
    // No kind of namespace has that number.
    let end = performed(0, &joining(rootfs, 1));
    assert!(matches!(end.said, Some(Message::Failed { step: 1, .. })), "{:?}", end.said);
}

fn joining(rootfs: &Path, kinds: i32) -> Vec<Step> {
    let pid = rustix::process::getpid();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut steps = program(rootfs, "/bin/true");
    let tail = steps.split_off(steps.len() - 9);
    let mut steps = vec![
        Step::CloseOthers { ranges: vec![(100, 200)] },
        Step::JoinNamespacesOf { process, kinds },
        Step::NewSession,
        Step::HoldRootfs { path: c("/") },
        Step::OwnStreams,
        Step::ChangeDirectory { path: c("/"), last_try: true },
        Step::NoNewPrivileges,
    ];
    // The hooks look for an /etc/passwd that is not the host's.
    let is_not_of_exec = |step: &Step| matches!(step, Step::ChangeDirectory { .. } | Step::RunHook(_));
    steps.extend(tail.into_iter().filter(|step| !is_not_of_exec(step)));
    steps
}

fn there_is_no_program(rootfs: &Path) {
    let missing = program(rootfs, "/bin/no-such-program");
    let end = performed(ALL, &missing);
    assert_eq!(end.status, 1);
    let errno = match end.said {
        Some(Message::Failed { errno, .. }) => Some(errno),
        _ => None,
    };
    assert_eq!(errno, Some(rustix::io::Errno::NOENT));
}
