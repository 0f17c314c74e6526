//! What the init process can be asked to do: one kernel request per step, with its arguments in kernel form.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::mount::MountAttrFlags;

use crate::sys::cred::Sets;
use crate::sys::mount::{Attributes, Recursion};
use crate::sys::process::Argv;
use crate::sys::scheduling::Scheduler;
use crate::sys::seccomp::Instruction;

/// One step of the init process. `program/` decides on the steps and their order.
#[derive(Debug)]
pub enum Step {
    /// Closes the descriptors in these inclusive ranges: the parent's own, which lead to the host.
    CloseOthers { ranges: Vec<(u32, u32)> },
    /// Clones a child of this process's parent in new namespaces of `kinds` (`CLONE_NEW*`), sends its pidfd
    /// to the parent, and exits. The child continues with the steps when the parent says so.
    Successor { kinds: i32 },
    /// setns(2) into a namespace of `kind` (`CLONE_NEW*`).
    JoinNamespace { namespace: OwnedFd, kind: i32 },
    /// setns(2) into the namespaces of `kinds` (`CLONE_NEW*`) of a process, all at once; `process` is its
    /// pidfd.
    JoinNamespacesOf { process: OwnedFd, kinds: i32 },
    /// Sets the dumpable flag: if set, this process's files in /proc belong to its user, who can then write
    /// the ID maps of its user namespace and inspect it while it waits; if not, they belong to root.
    Dumpable { yes: bool },
    /// Switches to `uid` and `gid` of the user namespace, where this process has no mapped user yet, and
    /// drops the host's supplementary groups if that is allowed there.
    SwitchIds { uid: u32, gid: u32 },
    /// unshare(2) into new namespaces of `kinds` (`CLONE_NEW*`). The root of a new cgroup namespace is the
    /// cgroup that the process was cloned into.
    NewNamespaces { kinds: i32 },
    /// Brings `lo` up.
    Loopback,
    /// Sets the clocks of the new time namespace (one line `CLOCK SECONDS NANOSECONDS` each) and enters it.
    TimeOffsets { offsets: CString },
    /// Joins a new session keyring of the container, created with this SELinux label, and adds `permissions`
    /// to the default ones; keyrings(7).
    JoinSessionKeyring { name: CString, permissions: u32, label: Option<CString> },
    /// setsid(2).
    NewSession,
    /// Joins the network namespace that the parent has made in parallel.
    JoinNewNetwork,
    /// Changes the propagation (`MS_*`) of the mount at host path `path` and, with `Recursion::WholeTree`, of
    /// all mounts below it.
    HostPropagation { path: CString, propagation: u64, reach: Recursion },
    /// Detaches the host's mount at `path`, or covers it if that is not permitted, before `MS_MOVE` moves `/`
    /// away.
    HideHostMount { path: CString },
    /// Makes the rootfs, a host path, a mount of its own and holds it: from now on, all paths are resolved
    /// from it. `tree` is a clone of the rootfs that the parent has made for a user namespace; it is used if
    /// this process cannot reach the path. A rootfs that is not pivoted to is attached to the root itself.
    /// With `is_private`, later mounts by the host on the rootfs do not propagate here.
    OpenRootfs { path: CString, tree: Option<OwnedFd>, is_pivoted_to: bool, is_private: bool },
    /// Attaches the file system in which the parent has made device nodes where it goes away with the host's
    /// root.
    HoldNodes { nodes: OwnedFd },
    /// Makes new procfs mounts show this pid namespace. The process itself is not in it; its successor will
    /// be.
    HoldPidNamespace { namespace: OwnedFd },
    /// Opens the rootfs without making it a mount, for a container without a mount namespace.
    HoldRootfs { path: CString },
    /// Mounts a new file system in the rootfs.
    Mount(Mount),
    /// Bind-mounts a part of the host's tree in the rootfs.
    Bind(Bind),
    /// Changes an existing mount.
    Remount(Remount),
    /// Makes device nodes and links in one directory of the rootfs, creating the directory if necessary.
    Populate { directory: CString, entries: Vec<Entry> },
    /// pivot_root(2) into the rootfs and detaches the old root. `cut_off` is for a tree that shares its
    /// mounts with the host: then the old root is made a slave first, so that detaching it does not propagate
    /// to the host.
    PivotRoot { cut_off: bool },
    /// Moves the rootfs onto `/` and enters it with chroot(2), for hosts whose root does not support
    /// pivot_root(2).
    MoveRoot,
    /// chroot(2) into the rootfs, without a mount namespace.
    ChangeRoot,
    /// Sets the propagation (`MS_*`) of `/`.
    RootPropagation { propagation: u64, reach: Recursion },
    /// Makes a directory and its missing parents.
    MakeDirectory { path: CString },
    /// Opens a pty in the container's devpts, sends its master through `socket` with `/dev/pts/N` as the
    /// text, and makes the other end the controlling terminal, the standard streams and, with `mount`,
    /// `/dev/console`.
    Console { socket: Option<OwnedFd>, size: Option<(u16, u16)>, mount: bool },
    /// Replaces standard streams that are the host's null device, or another device that every container has,
    /// by the container's own.
    OwnStreams,
    /// Sets attributes (`MOUNT_ATTR_*`) of a mount made by an earlier step or, without one, of the mount at a
    /// path of the rootfs.
    Seal { path: CString, mount: Option<Held>, attributes: Attributes },
    /// sethostname(2).
    Hostname { name: CString },
    /// setdomainname(2).
    Domainname { name: CString },
    /// Writes kernel parameters, each a path below /proc/sys and a value, through a detached procfs that no
    /// other process can reach.
    Sysctl { settings: Vec<(CString, CString)> },
    /// Makes a path read-only; does nothing if it does not exist.
    ReadOnlyPath { path: CString },
    /// Masks paths: directories with one empty read-only tmpfs, with `label` as the mount parameter for its
    /// SELinux label, anything else with /dev/null. Missing paths are skipped.
    MaskPaths { paths: Vec<CString>, label: Option<(CString, CString)> },
    /// setrlimit(2): `RLIMIT_*`, soft, hard.
    Rlimit { resource: u32, soft: u64, hard: u64 },
    /// personality(2).
    Personality { domain: u32 },
    /// set_mempolicy(2): `MPOL_*` with its flags, and a node mask.
    MemoryPolicy { mode: u32, nodes: Vec<usize> },
    /// sched_setattr(2).
    Scheduler(Scheduler),
    /// ioprio_set(2): class and level in one number.
    IoPriority { priority: u16 },
    /// sched_setaffinity(2).
    Affinity { mask: Vec<usize> },
    /// Allows every CPU of the cgroup, whatever the affinity of the runtime.
    ResetAffinity,
    /// Sets the AppArmor profile of the program; `command` is `exec PROFILE`, for example.
    ApparmorProfile { command: CString },
    /// Sets the SELinux label of the program.
    SelinuxLabel { label: CString },
    /// Sets no_new_privs; prctl(2).
    NoNewPrivileges,
    /// chdir(2) to a path of the container, which must be inside it. Before the last try, a refused access is
    /// not an error; after a success, this does nothing.
    ChangeDirectory { path: CString, last_try: bool },
    /// Switches to the user: bounding set, groups, IDs, capabilities, umask.
    Identity(Identity),
    /// Chooses the first candidate that the user may execute.
    FindProgram { candidates: Vec<CString> },
    /// Tells the parent that this point is reached, and waits for its byte.
    Meet { point: Point },
    /// Runs a hook to its end.
    RunHook(RunHook),
    /// Looks up the user's home directory in the container's /etc/passwd, if the bundle does not set `HOME`.
    FindHome { uid: u32 },
    /// From now on until execve, HUP, INT, QUIT and TERM end the process even if it is the first of its pid
    /// namespace.
    EndOnSignals,
    /// Waits until the parent has recorded the container; fails if the parent is gone.
    AwaitParent,
    /// Tells the parent that only the start of the program is left.
    Ready,
    /// Waits for the byte that `start` writes.
    AwaitStart { fifo: OwnedFd },
    /// Sets close-on-exec on all descriptors from `from` on.
    CloseOnExec { from: u32 },
    /// Loads a seccomp filter; seccomp(2). If it `listens`, sends the number of the listener to the parent
    /// and waits until the parent has passed it on.
    LoadFilter { filter: Filter, listens: bool },
    /// execve(2) of the program found; `envp` has room for `HOME`.
    Execute { argv: Argv, envp: Argv },
}

/// A mount that a later step changes. It is kept by descriptor because another container that shares a volume
/// may have put another mount at the path by then (GHSA-3q8j-pf29-vwv8).
pub type Held = Rc<OnceCell<OwnedFd>>;

/// A new file system.
#[derive(Debug)]
pub struct Mount {
    pub fstype: CString,
    pub source: Option<CString>,
    /// File system parameters: a flag, or a key and a value; fsconfig(2).
    pub parameters: Vec<Parameter>,
    pub attributes: MountAttrFlags,
    pub propagation: Option<(u64, Recursion)>,
    pub target: MountTarget,
    /// Use mount(2) instead, because a parameter is too long for fsconfig(2).
    pub old_style: Option<OldStyle>,
    /// A host path to clone if the kernel refuses such a file system in this user namespace: cgroup2, if the
    /// cgroup namespace belongs to another one.
    pub stand_in: Option<CString>,
    /// The SELinux label of its root.
    pub label: Option<CString>,
    /// For a tmpfs: use the mode of the directory that it covers, if that exists.
    pub inherit_mode: bool,
    /// For a tmpfs: start with a copy of what it covers.
    pub copy_up: bool,
    /// Where the mount is kept for [`Step::Seal`].
    pub held: Option<Held>,
}

/// All parameters of a file system in the form of mount(2).
#[derive(Debug)]
pub struct OldStyle {
    pub data: CString,
    /// `MS_*`.
    pub flags: u64,
}

#[derive(Debug)]
pub struct Parameter {
    pub key: CString,
    pub value: Option<CString>,
    /// The index of the mount option it comes from, from 0.
    pub option: u16,
}

impl Parameter {
    /// The index for a parameter that does not come from a mount option: the largest that fits into a
    /// message.
    pub const NOT_AN_OPTION: u16 = 0x7fff;
}

/// A bind mount from the host's tree.
#[derive(Debug)]
pub struct Bind {
    /// A host path.
    pub source: CString,
    /// The source, cloned by the parent for a user namespace that may be unable to reach it.
    pub tree: Option<OwnedFd>,
    /// Whether the tree is ID-mapped, so that it must be used in any case.
    pub maps_ids: bool,
    pub follow_source: bool,
    /// If the source is a symbolic link, copies the link instead of mounting.
    pub copy_symlink: bool,
    pub recursive: bool,
    pub this_mount: Attributes,
    /// The attributes to set if some attributes of the source are locked.
    pub beside_locked: Attributes,
    pub whole_tree: Attributes,
    pub target: MountTarget,
}

#[derive(Debug)]
pub struct Remount {
    pub parameters: Vec<Parameter>,
    pub this_mount: Attributes,
    pub whole_tree: Attributes,
    pub target: MountTarget,
}

/// A mount target in the rootfs.
#[derive(Debug)]
pub struct MountTarget {
    /// An absolute path of the container, without `..`.
    pub path: CString,
    pub rule: TargetRule,
}

/// Which targets are acceptable. All are resolved inside the rootfs, without magic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRule {
    /// Symbolic links are followed inside the rootfs. The target must not be on procfs, whose files tell
    /// programs, security modules among them, about the kernel.
    Usual,
    /// Like `Usual`, but a symbolic link as the last component is covered itself.
    NoFollow,
    /// One of the files on procfs that may be covered.
    ListedProcFile,
    /// /proc or /sys itself: a directory, without symbolic links on the way.
    KernelDirectory,
    /// /proc, covered by a part of the host's procfs.
    ProcFromHost,
}

/// What [`Step::Populate`] makes.
#[derive(Debug)]
pub enum Entry {
    /// mknod(2) or, where that is not permitted, a bind mount of the host's node of the same path. An
    /// existing node with the same type and number is kept. `ready` is the name of a node that the parent has
    /// made in the file system of [`Step::HoldNodes`].
    Node { name: CString, mode: u32, device: u64, uid: u32, gid: u32, ready: Option<CString> },
    /// symlink(2); an existing file of that name is kept.
    Link { name: CString, target: CString },
    /// symlink(2); an existing file of that name is replaced.
    ReplacingLink { name: CString, target: CString },
}

/// The identity that the program runs with.
#[derive(Debug)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<rustix::process::Gid>,
    /// Whether the standard streams are the container's own terminal.
    pub has_terminal: bool,
    pub umask: u32,
    pub bounding: u64,
    pub sets: Sets,
    pub ambient: u64,
}

/// A hook: a program to run at a certain point in the life of a container.
#[derive(Debug)]
pub struct Hook {
    pub path: CString,
    pub argv: Argv,
    pub envp: Argv,
    /// The time limit in seconds, at least 1.
    pub timeout: Option<i64>,
}

/// A seccomp filter and its `SECCOMP_FILTER_FLAG_*`; seccomp(2).
#[derive(Clone, Debug)]
pub struct Filter {
    pub program: Rc<[Instruction]>,
    pub flags: u32,
}

/// A hook that the init process runs.
#[derive(Debug)]
pub struct RunHook {
    pub hook: Hook,
    /// A filter for the hook itself, not for the process that runs it.
    pub filter: Option<Filter>,
    /// The state for its standard input, up to the pid. The init process appends its pid, as seen inside, and
    /// `}`.
    pub state: Rc<[u8]>,
    pub outputs: Rc<Outputs>,
    pub within: Within,
    /// The prefix of an error message: its place in config.json and its name.
    pub complaint: CString,
}

/// Where hooks write their output, instead of to the pipe that is read by the process running them.
#[derive(Debug, Default)]
pub struct Outputs {
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Where the init process runs a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// In the host's tree as seen in the container's mount namespace: in the future root directory, with the
    /// usual umask.
    Rootfs,
    /// In the container, as the program's user and in its directory.
    Container,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(u8),
    /// By this signal.
    Killed(u8),
    /// Killed because its time limit was exceeded.
    TimedOut,
    /// Killed because the process that runs it was asked to end. Init processes never report this: they are
    /// not interrupted.
    Interrupted,
}

/// Where the init process waits until the parent has done its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Nothing has been done yet; the parent knows the pid.
    Born,
    /// All namespaces exist.
    InNamespaces,
    /// All mounts are made; the root is still the host's.
    Mounted,
}

impl Point {
    pub fn number(self) -> u32 {
        match self {
            Self::Born => 0,
            Self::Mounted => 1,
            Self::InNamespaces => 2,
        }
    }

    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Born, Self::InNamespaces, Self::Mounted].into_iter().find(|point| point.number() == number)
    }
}

/// The part of a step that failed, from which the parent makes the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    Source,
    Target,
    /// The target is on procfs and may not be covered.
    OnProc,
    /// The index of the option, node, path or setting of the step, from 0.
    Item(u16),
    /// The hook was started and ended like this; the errno has no meaning.
    Hook(Ended),
}

/// Why a step failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub errno: crate::sys::Errno,
    pub part: Part,
}

impl From<crate::sys::Errno> for Failure {
    fn from(errno: crate::sys::Errno) -> Self {
        Self { errno, part: Part::Whole }
    }
}

/// Adds the part of the step to an errno.
pub trait Of<T> {
    fn of(self, part: Part) -> Result<T, Failure>;
}

impl<T> Of<T> for Result<T, crate::sys::Errno> {
    fn of(self, part: Part) -> Result<T, Failure> {
        self.map_err(|errno| Failure { errno, part })
    }
}

/// `Part::Item` of an index.
pub fn item(index: usize) -> Part {
    // A message has room for 15 bits; see protocol.rs.
    Part::Item(u16::try_from(index).unwrap_or(u16::MAX).min(0x7fff))
}
