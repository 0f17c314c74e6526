//! What the init process can be asked to do: one kernel request each, with its arguments in kernel form.

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

/// One thing for the init process to do. `program/` decides which and in what order.
#[derive(Debug)]
pub enum Step {
    /// Closes the descriptors in these ranges, first and last: what the parent works with, which leads to the host.
    CloseOthers { ranges: Vec<(u32, u32)> },
    /// Clones a child of this process's parent, born in new namespaces of `kinds` (`CLONE_NEW*`), that goes on in its place when
    /// the parent says so, hands a descriptor of it to the parent, and ends.
    Successor { kinds: i32 },
    /// setns(2) into a namespace of `kind` (`CLONE_NEW*`).
    JoinNamespace { namespace: OwnedFd, kind: i32 },
    /// setns(2) into those namespaces of a process whose kinds (`CLONE_NEW*`) are named, all at once; `process` is its pidfd.
    JoinNamespacesOf { process: OwnedFd, kinds: i32 },
    /// Lets the files of this process in /proc be its user's, who writes the maps of its user namespace and looks at it while it
    /// waits, or root's again.
    Dumpable { yes: bool },
    /// Becomes `uid` and `gid` of the user namespace, in which this process so far is nobody, and gives up the groups of the
    /// host if that is allowed there.
    TakeIds { uid: u32, gid: u32 },
    /// unshare(2) into new namespaces of `kinds` (`CLONE_NEW*`). The root of one for cgroups is the cgroup that the process was
    /// cloned into.
    NewNamespaces { kinds: i32 },
    /// Brings `lo` up.
    Loopback,
    /// Sets the clocks of the time namespace that this process has made (`CLOCK SECONDS NANOSECONDS`, a line for each), and enters
    /// it.
    TimeOffsets { offsets: CString },
    /// Joins a session keyring of the container's own, made with this SELinux label, and allows `permissions` on it besides what
    /// is usual; keyrings(7).
    JoinSessionKeyring { name: CString, permissions: u32, label: Option<CString> },
    /// setsid(2).
    NewSession,
    /// Joins the network namespace that the parent has made meanwhile.
    JoinNewNetwork,
    /// Changes the propagation (`MS_*`) of the mount at `path` of the host and, with `Recursion::WholeTree`, of all below.
    HostPropagation { path: CString, propagation: u64, reach: Recursion },
    /// Detaches the host's mount at `path`, or covers it when that is not permitted, before `MS_MOVE` moves `/` away.
    HideHostMount { path: CString },
    /// Makes the rootfs, a host path, a mount of its own and holds it: from here on it is the root of every path.
    /// With `tree`, which the parent has cloned for a user namespace, it is that tree if this process cannot reach the path;
    /// what is not pivoted to is attached to the root itself.
    /// With `is_private`, nothing that the host mounts later on the rootfs comes to be mounted on it here.
    OpenRootfs { path: CString, tree: Option<OwnedFd>, is_pivoted_to: bool, is_private: bool },
    /// Attaches, where it goes with the host's root, the file system in which the parent has made device nodes.
    HoldNodes { nodes: OwnedFd },
    /// A new procfs shows this pid namespace, which the process is not in, until it has a successor there.
    HoldPidNamespace { namespace: OwnedFd },
    /// Opens the rootfs without making it a mount; for a container without a mount namespace.
    HoldRootfs { path: CString },
    /// Mounts a new file system in the rootfs.
    Mount(Mount),
    /// Mounts a part of the host's tree in the rootfs.
    Bind(Bind),
    /// Changes a mount that is already there.
    Remount(Remount),
    /// Makes device nodes and links in one directory of the rootfs, which is made if it is missing.
    Populate { directory: CString, entries: Vec<Entry> },
    /// pivot_root(2) into the rootfs and detaches the old root; with `cut_off`, for a tree that shares its mounts with the
    /// host, without detaching the host's.
    PivotRoot { cut_off: bool },
    /// Moves the rootfs onto `/` and enters it with chroot(2); for hosts whose root cannot be pivoted away.
    MoveRoot,
    /// chroot(2) into the rootfs, without a mount namespace.
    ChangeRoot,
    /// Sets the propagation (`MS_*`) of `/`.
    RootPropagation { propagation: u64, reach: Recursion },
    /// Makes a directory and those above it.
    MakeDirectory { path: CString },
    /// Opens a pty in the container's devpts, sends its master through `socket` with `/dev/pts/N` as the text, and makes
    /// its other end the controlling terminal, the standard streams and `/dev/console`.
    Console { socket: Option<OwnedFd>, size: Option<(u16, u16)>, mount: bool },
    /// Has standard streams that are the host's null device, or another that every container has, be the container's own.
    OwnStreams,
    /// Sets attributes (`MOUNT_ATTR_*`) of a mount made before or, without one, of that at a path of the rootfs.
    Seal { path: CString, mount: Option<Held>, attributes: Attributes },
    /// sethostname(2).
    Hostname { name: CString },
    /// setdomainname(2).
    Domainname { name: CString },
    /// Writes kernel parameters, each a path below /proc/sys and a value, through a procfs nobody else can reach.
    Sysctl { settings: Vec<(CString, CString)> },
    /// Makes a path read-only; nothing happens if it does not exist.
    ReadOnlyPath { path: CString },
    /// Covers paths: directories with one empty read-only tmpfs, with this parameter for its SELinux label, all else with
    /// /dev/null. What does not exist is skipped.
    MaskPaths { paths: Vec<CString>, label: Option<(CString, CString)> },
    /// setrlimit(2): `RLIMIT_*`, soft, hard.
    Rlimit { resource: u32, soft: u64, hard: u64 },
    /// personality(2).
    Personality { domain: u32 },
    /// set_mempolicy(2): `MPOL_*` with its flags, a mask of nodes.
    MemoryPolicy { mode: u32, nodes: Vec<usize> },
    /// sched_setattr(2).
    Scheduler(Scheduler),
    /// ioprio_set(2): class and level in one number.
    IoPriority { priority: u16 },
    /// sched_setaffinity(2).
    Affinity { mask: Vec<usize> },
    /// The same for every processor that the cgroup allows, whatever the runtime was allowed itself.
    ResetAffinity,
    /// Tells AppArmor, as `exec PROFILE`, what the program is to be confined by.
    ApparmorProfile { command: CString },
    /// Tells SELinux what the program is to run as.
    SelinuxLabel { label: CString },
    /// Sets no_new_privs; prctl(2).
    NoNewPrivileges,
    /// chdir(2) to a path of the container, which must be inside it. Before the last try, being refused is no failure; after
    /// a success, there is nothing to do.
    ChangeDirectory { path: CString, last_try: bool },
    /// Becomes the user: bounding set, ids, groups, file mode mask, capabilities.
    Identity(Identity),
    /// Chooses the first candidate that the user may execute.
    FindProgram { candidates: Vec<CString> },
    /// Tells the parent that this point is reached, and waits for its byte.
    Meet { point: Point },
    /// Runs a hook to its end.
    RunHook(RunHook),
    /// Looks the user's home directory up in the container's /etc/passwd, for a `HOME` that the bundle does not set.
    FindHome { uid: u32 },
    /// From here on HUP, INT, QUIT and TERM end the process even if it is the first of its pid namespace, until it has
    /// become the program.
    EndOnSignals,
    /// Waits until the parent has recorded the container; ends if the parent has gone.
    AwaitParent,
    /// Tells the parent that all but the program's start is done.
    Ready,
    /// Waits for the byte that `start` writes.
    AwaitStart { fifo: OwnedFd },
    /// Has descriptors from `from` on closed by execve(2).
    CloseOnExec { from: u32 },
    /// Has a filter decide about every system call from here on; seccomp(2). If it `listens`, tells the parent on which
    /// descriptor, and waits until the parent has passed that on.
    LoadFilter { filter: Filter, listens: bool },
    /// execve(2) of the program found; `envp` has room for `HOME`.
    Execute { argv: Argv, envp: Argv },
}

/// A mount that a later step changes: what has its path by then may be another, if another container shares the volume that the
/// path is in (GHSA-3q8j-pf29-vwv8).
pub type Held = Rc<OnceCell<OwnedFd>>;

/// A new file system.
#[derive(Debug)]
pub struct Mount {
    pub fstype: CString,
    pub source: Option<CString>,
    /// Options of the file system: a flag, or a key and a value; fsconfig(2).
    pub parameters: Vec<Parameter>,
    pub attributes: MountAttrFlags,
    pub propagation: Option<(u64, Recursion)>,
    pub target: MountTarget,
    /// For mount(2), where a parameter is too long for fsconfig(2).
    pub old_style: Option<OldStyle>,
    /// A part of the host's tree that stands in where the kernel makes no such file system in this user namespace: cgroup2, for the
    /// cgroups of another one.
    pub stand_in: Option<CString>,
    /// An SELinux label for its root.
    pub label: Option<CString>,
    /// For a tmpfs: takes over the mode of the directory that it covers, if it is there already.
    pub inherit_mode: bool,
    /// For a tmpfs: starts with a copy of what it covers.
    pub copy_up: bool,
    /// Where it is kept for [`Step::Seal`].
    pub held: Option<Held>,
}

/// All parameters of a file system as mount(2) takes them.
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
    /// Which of the mount's options this was, from 0.
    pub option: u16,
}

impl Parameter {
    /// The place of one that comes from elsewhere: the last that there is room for in a message.
    pub const NOT_AN_OPTION: u16 = 0x7fff;
}

/// A part of the host's tree.
#[derive(Debug)]
pub struct Bind {
    /// A path of the host.
    pub source: CString,
    /// The source, cloned by the parent for a user namespace that may be unable to reach it.
    pub tree: Option<OwnedFd>,
    /// Whether that tree shows other ids than the source: then it is what is mounted.
    pub maps_ids: bool,
    pub follow_source: bool,
    /// If the source is a symbolic link, makes the same link instead of a mount.
    pub copy_symlink: bool,
    pub recursive: bool,
    pub this_mount: Attributes,
    /// What is asked for instead if the source's attributes are locked.
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

/// Where in the rootfs something is mounted.
#[derive(Debug)]
pub struct MountTarget {
    /// An absolute path of the container, without `..`.
    pub path: CString,
    pub rule: TargetRule,
}

/// Which targets are acceptable; all are resolved inside the rootfs without magic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRule {
    /// Symbolic links are followed inside the rootfs; what is found must not be on procfs, whose files tell programs
    /// (security modules among them) about the kernel.
    Usual,
    /// Like `Usual`, but a symbolic link as the last component is itself covered.
    NoFollow,
    /// One of the files of procfs that may be covered.
    ListedProcFile,
    /// /proc or /sys themselves: an ordinary directory, and no symbolic link on the way.
    KernelDirectory,
    /// /proc, covered by a part of the host's procfs.
    ProcFromHost,
}

/// What [`Step::Populate`] makes.
#[derive(Debug)]
pub enum Entry {
    /// mknod(2), or where that is not permitted the host's node of the same path; an existing node with the same type and number
    /// is left as it is. `ready`: its name in the file system of [`Step::HoldNodes`], if the parent has made it there.
    Node { name: CString, mode: u32, device: u64, uid: u32, gid: u32, ready: Option<CString> },
    /// symlink(2); an existing file of that name stays.
    Link { name: CString, target: CString },
    /// symlink(2), in the place of whatever has that name.
    ReplacingLink { name: CString, target: CString },
}

/// Who the program runs as.
#[derive(Debug)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<rustix::process::Gid>,
    /// Whether the standard streams are a terminal of the container's own.
    pub has_terminal: bool,
    pub umask: u32,
    pub bounding: u64,
    pub sets: Sets,
    pub ambient: u64,
}

/// A program that is called at a moment in the life of a container.
#[derive(Debug)]
pub struct Hook {
    pub path: CString,
    pub argv: Argv,
    pub envp: Argv,
    /// How many seconds it may take, from 1.
    pub timeout: Option<i64>,
}

/// A filter of system calls, and `SECCOMP_FILTER_FLAG_*`; seccomp(2).
#[derive(Clone, Debug)]
pub struct Filter {
    pub program: Rc<[Instruction]>,
    pub flags: u32,
}

/// A hook that the init process runs.
#[derive(Debug)]
pub struct RunHook {
    pub hook: Hook,
    /// Decides about the hook's system calls, but not about those of its runner.
    pub filter: Option<Filter>,
    /// The state for its standard input, up to the pid, which only the init process knows as it is seen inside; `}` ends it.
    pub state: Rc<[u8]>,
    pub outputs: Rc<Outputs>,
    pub within: Within,
    /// What a complaint about it begins with: its place in config.json and its name.
    pub complaint: CString,
}

/// What hooks have for their output instead of what their runner keeps of it.
#[derive(Debug, Default)]
pub struct Outputs {
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// As part of what the init process runs a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// The host's tree as the container's mount namespace has it: in the directory that will be `/`, with the usual mask for
    /// new files.
    Rootfs,
    /// The container, where the program will be and as its user.
    Container,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exited(u8),
    /// By a signal.
    Killed(u8),
    /// By its runner, because its time was up.
    TimedOut,
    /// By its runner, which somebody wants to end. Not what an init process says: nobody interrupts it.
    Interrupted,
}

/// Where the init process waits until the parent has done its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Nothing is done yet; the parent knows its pid.
    Born,
    /// All namespaces are there.
    InNamespaces,
    /// All mounts are made, and the root is still the host's.
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

/// The part of a step that failed, for the sentence that the parent makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    Source,
    Target,
    /// The target is on procfs and may not be covered.
    OnProc,
    /// Which option, node, path or setting of the step, from 0.
    Item(u16),
    /// The hook began, and ended like this; the errno means nothing.
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

/// Says which part of the step an errno belongs to.
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
    // 15 bits is what a message has room for; see protocol.rs.
    Part::Item(u16::try_from(index).unwrap_or(u16::MAX).min(0x7fff))
}
