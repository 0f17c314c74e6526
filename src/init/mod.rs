//! The init process between clone and execve. It performs a prepared list of steps and decides nothing.
//!
//! Nothing here allocates, panics, formats, reads the environment or uses a C library function with hidden
//! state, so that the process works within a memory limit of a few pages and never waits for a lock that its
//! parent held at clone. Strings arrive as `&CStr`; a failure is reported in twelve bytes. `clippy.toml` and
//! the lints below enforce this; see also `tests/init_allocates_nothing.rs`.
//!
//! Every page that the process writes to counts against that limit, and a call may touch the whole stack
//! frame of the function. So rare work with large buffers is in functions of its own, marked `inline(never)`.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_macros,
    clippy::disallowed_methods
)]

mod console;
mod copy_up;
mod detached;
mod devices;
mod hold;
pub(crate) mod home;
pub mod hook;
mod identity;
mod kernel_trees;
mod label;
mod mount;
mod path;
mod procfs;
pub mod protocol;
pub mod step;
mod streams;
mod sysctl;
mod time;

// Used by the parent, which does some of the work for an unprivileged init process.
pub use self::detached::{clone_source, clone_tree, detached};
pub use self::hold::hold;
pub use self::path::open_inside;
pub use self::streams::is_null_device;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use self::kernel_trees::KernelTrees;
use self::protocol::{Message, SIZE};
use self::step::{Bind, Failure, Filter, Held, Mount, Of as _, Part, Point, Step};
use crate::error::printable::is_harmful;
use crate::sys::mount::{Attributes, Recursion, set_attributes};
use crate::sys::{keyring, net, process, scheduling, seccomp, signal, weakened};

/// The permissions of a new session keyring (`KEYCTL_JOIN_SESSION_KEYRING`); keyrings(7).
const KEYRING_PERMISSIONS: u32 = 0x3f13_0000;

/// The command line between clone and execve, as with runc; proc_pid_cmdline(5).
pub const NAME: &CStr = c"runtime init";

const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Performs `steps` in order; the last one executes the program. If a step fails, reports it to `parent` and
/// exits with status 1.
pub fn perform(steps: &[Step], parent: BorrowedFd<'_>) -> ! {
    // Processes in a namespace that we join must not inspect us: our memory and descriptors refer to the host
    // (CVE-2016-9962). execve(2) makes the process dumpable again.
    if !weakened::is_off("CVE-2016-9962") {
        let _ = process::set_dumpable(false);
    }
    // A process with CAP_SYS_PTRACE in the container can still read our command line and environment, which
    // contain host paths and the variables of the runtime's caller.
    process::clear_arguments(NAME.to_bytes());
    // The caller may ignore signals (nohup, `&` in a script, posix_spawn(3) of glibc), the Rust runtime
    // ignores SIGPIPE, and the parent blocks the signals that it forwards. The program must not inherit any
    // of that.
    take_no_signals();
    let mut init = Init {
        parent,
        root: None,
        trees: KernelTrees::default(),
        nodes: None,
        pid_namespace: None,
        program: None,
        home: home::Home::default(),
        is_in_directory: false,
        start: None,
    };
    // Steps specify complete modes. The program's own umask is set together with its user.
    rustix::process::umask(rustix::fs::Mode::empty());
    for (number, step) in (0..).zip(steps) {
        if let Err(Failure { errno, part }) = init.step(step) {
            let told = init.tell(Message::Failed { step: number, errno, part });
            // After `start`, nobody reads the socket; with the filter loaded, writing to it may be forbidden.
            // So report to the user directly.
            match (told, step, init.program) {
                (Err(_), Step::LoadFilter { .. }, _) => {
                    init.complain(&[b"load the seccomp filter: ", reason(errno)], b"");
                }
                (Err(_), Step::Execute { .. }, Some(program)) => {
                    init.complain(&[b"exec ", program.to_bytes(), b": ", reason(errno)], b"");
                }
                _ => {}
            }
            break;
        }
    }
    process::exit_now(1)
}

/// What steps leave for later ones.
struct Init<'a> {
    parent: BorrowedFd<'a>,
    root: Option<OwnedFd>,
    trees: KernelTrees,
    nodes: Option<BorrowedFd<'a>>,
    pid_namespace: Option<BorrowedFd<'a>>,
    program: Option<&'a CString>,
    home: home::Home,
    is_in_directory: bool,
    /// The fifo of `start`, which reads error messages from it while it waits for execve.
    start: Option<BorrowedFd<'a>>,
}

impl<'a> Init<'a> {
    fn step(&mut self, step: &'a Step) -> Result<(), Failure> {
        match step {
            Step::CloseOthers { ranges } => Ok(close_others(ranges)?),
            Step::Successor { kinds } => Ok(self.clone_successor(*kinds)?),
            Step::JoinNamespace { namespace, kind } => Ok(process::setns(namespace.as_fd(), *kind)?),
            Step::JoinNamespacesOf { process, kinds } => Ok(process::setns(process.as_fd(), *kinds)?),
            Step::NewNamespaces { kinds } => Ok(process::unshare(*kinds)?),
            Step::Dumpable { yes } => Ok(process::set_dumpable(*yes)?),
            Step::SwitchIds { uid, gid } => identity::take(*uid, *gid),
            Step::Loopback => Ok(bring_loopback_up()?),
            Step::JoinSessionKeyring { name, permissions, label } => {
                join_session_keyring(name, *permissions, label.as_deref())
            }
            Step::TimeOffsets { offsets } => time::enter(offsets),
            Step::NewSession => Ok(rustix::process::setsid().map(drop)?),
            Step::JoinNewNetwork => Ok(self.join_new_network()?),
            Step::HostPropagation { path, propagation, reach } => {
                Ok(mount::host_propagation(path, *propagation, *reach)?)
            }
            Step::HideHostMount { path } => Ok(mount::hide_host_mount(path)?),
            Step::OpenRootfs { path, tree, is_pivoted_to, is_private } => {
                self.open_rootfs(path, tree.as_ref(), *is_pivoted_to, *is_private)
            }
            Step::HoldNodes { nodes } => Ok(self.hold_nodes(nodes.as_fd())?),
            Step::HoldPidNamespace { namespace } => self.hold_pid_namespace(namespace.as_fd()),
            Step::HoldRootfs { path } => Ok(self.hold_rootfs(path)?),
            Step::Mount(what) => self.mount(what),
            Step::Bind(what) => self.bind(what),
            Step::Remount(what) => mount::remount(self.root()?, what),
            Step::Populate { directory, entries } => {
                devices::populate(self.root()?, directory, entries, self.nodes)
            }
            Step::PivotRoot { cut_off } => Ok(self.pivot_root(*cut_off)?),
            Step::MoveRoot => Ok(self.move_root()?),
            Step::ChangeRoot => Ok(self.change_root()?),
            Step::RootPropagation { propagation, reach } => Ok(self.set_propagation(*propagation, *reach)?),
            Step::MakeDirectory { path } => Ok(path::directory(self.root()?, path).map(drop)?),
            Step::Console { socket, size, mount } => self.open_console(socket.as_ref(), *size, *mount),
            Step::OwnStreams => Ok(streams::own(self.root()?)?),
            Step::Seal { path, mount, attributes } => self.seal(path, mount.as_ref(), *attributes),
            Step::Hostname { name } => Ok(rustix::system::sethostname(name.to_bytes())?),
            Step::Domainname { name } => Ok(rustix::system::setdomainname(name.to_bytes())?),
            Step::Sysctl { settings } => sysctl::write(settings),
            Step::ReadOnlyPath { path } => Ok(mount::read_only_path(self.root()?, &self.trees, path)?),
            Step::MaskPaths { paths, label } => mount::mask(self.root()?, &self.trees, paths, label.as_ref()),
            Step::Rlimit { resource, soft, hard } => Ok(self.set_rlimit(*resource, *soft, *hard)?),
            Step::Personality { domain } => Ok(process::set_personality(*domain)?),
            Step::MemoryPolicy { mode, nodes } => Ok(scheduling::set_memory_policy(*mode, nodes)?),
            Step::Scheduler(attributes) => Ok(scheduling::set_scheduler(*attributes)?),
            Step::IoPriority { priority } => Ok(scheduling::set_io_priority(*priority)?),
            Step::Affinity { mask } => Ok(scheduling::set_affinity(mask)?),
            Step::ResetAffinity => reset_affinity(),
            Step::ApparmorProfile { command } => label::apparmor(command),
            Step::SelinuxLabel { label } => label::selinux(label),
            Step::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
            Step::ChangeDirectory { path, last_try } => Ok(self.change_directory(path, *last_try)?),
            Step::Identity(who) => identity::assume(who),
            Step::FindProgram { candidates } => self.find_program(candidates),
            Step::FindHome { uid } => Ok(self.home.find(*uid)?),
            Step::Meet { point } => Ok(self.meet(*point)?),
            Step::EndOnSignals => Ok(signal::end_on_interrupts()?),
            Step::AwaitParent => Ok(self.await_parent()?),
            Step::Ready => Ok(self.tell(Message::Ready)?),
            Step::AwaitStart { fifo } => Ok(self.await_start(fifo.as_fd())?),
            Step::RunHook(what) => self.run_hook(what),
            Step::CloseOnExec { from } => Ok(process::close_on_exec_from(*from)?),
            Step::LoadFilter { filter, listens: false } => Ok(seccomp::load(&filter.program, filter.flags)?),
            Step::LoadFilter { filter, listens: true } => self.load_and_listen(filter),
            Step::Execute { argv, envp } => self.execute(argv, envp),
        }
    }

    fn open_rootfs(
        &mut self,
        path: &CStr,
        tree: Option<&OwnedFd>,
        is_pivoted_to: bool,
        is_private: bool,
    ) -> Result<(), Failure> {
        let tree = tree.map(|tree| tree.as_fd());
        self.root = Some(mount::open_rootfs(path, tree, is_pivoted_to, is_private)?);
        Ok(())
    }

    fn hold_nodes(&mut self, nodes: BorrowedFd<'a>) -> Result<(), Errno> {
        mount::attach_to_root(nodes)?;
        self.nodes = Some(nodes);
        Ok(())
    }

    fn hold_pid_namespace(&mut self, namespace: BorrowedFd<'a>) -> Result<(), Failure> {
        self.pid_namespace = Some(namespace);
        Ok(())
    }

    fn hold_rootfs(&mut self, path: &CStr) -> Result<(), Errno> {
        self.root = Some(rustix::fs::open(path, HOLD, rustix::fs::Mode::empty())?);
        Ok(())
    }

    fn mount(&mut self, what: &Mount) -> Result<(), Failure> {
        let mounted = mount::mount(self.root()?, what, self.pid_namespace)?;
        if let Some(held) = &what.held {
            // A step is performed only once, so the cell is empty.
            let _ = held.set(rustix::io::fcntl_dupfd_cloexec(&mounted, 0)?);
        }
        self.trees.hold(&what.target.path, mounted);
        Ok(())
    }

    fn bind(&mut self, what: &Bind) -> Result<(), Failure> {
        if let Some(mounted) = mount::bind(self.root()?, what)? {
            self.trees.hold(&what.target.path, mounted);
        }
        Ok(())
    }

    /// Sets the propagation of the container's root.
    fn set_propagation(&self, propagation: u64, reach: Recursion) -> Result<(), Errno> {
        set_attributes(self.root()?, reach, Attributes { propagation, ..Attributes::default() })
    }

    fn open_console(
        &self,
        socket: Option<&OwnedFd>,
        size: Option<(u16, u16)>,
        mount: bool,
    ) -> Result<(), Failure> {
        let socket = socket.map_or(self.parent, |socket| socket.as_fd());
        console::open(self.root()?, socket, size, mount)
    }

    fn seal(&self, path: &CStr, mount: Option<&Held>, attributes: Attributes) -> Result<(), Failure> {
        mount::seal(self.root()?, path, mount.and_then(|held| held.get()), attributes)
    }

    fn set_rlimit(&mut self, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
        // Descriptors that are no longer needed must not count against RLIMIT_NOFILE.
        self.trees = KernelTrees::default();
        process::set_rlimit(0, resource, soft, hard)
    }

    fn find_program(&mut self, candidates: &'a [CString]) -> Result<(), Failure> {
        self.program = candidates.get(identity::find_program(candidates)?);
        Ok(())
    }

    fn meet(&self, point: Point) -> Result<(), Errno> {
        self.tell(Message::Reached(point))?;
        await_byte(self.parent)
    }

    fn await_parent(&mut self) -> Result<(), Errno> {
        // No path of the container is opened after this.
        self.root = None;
        self.trees = KernelTrees::default();
        await_byte(self.parent)
    }

    fn await_start(&mut self, fifo: BorrowedFd<'a>) -> Result<(), Errno> {
        self.start = Some(fifo);
        await_byte(fifo)
    }

    /// Clones a successor and exits; returns only in the successor, or on failure.
    fn clone_successor(&self, kinds: i32) -> Result<(), Errno> {
        let flags = u64::from((kinds | libc::CLONE_PARENT).unsigned_abs());
        let process::Cloned::Parent { pidfd, .. } = process::clone3(flags, None)? else {
            // The successor must not send anything before the parent knows of it.
            return await_byte(self.parent);
        };
        let told = protocol::send_descriptor(self.parent, protocol::SUCCESSOR, pidfd.as_fd());
        // If sending failed, the parent is gone, and the successor will exit, too.
        process::exit_now(i32::from(told.is_err()))
    }

    fn join_new_network(&self) -> Result<(), Errno> {
        let (_, namespace) = protocol::receive(self.parent, &mut [0; SIZE])?;
        process::setns(namespace.ok_or(Errno::PIPE)?.as_fd(), libc::CLONE_NEWNET)
    }

    /// Records what is mounted on top of /proc and /sys, after the last hook that can mount something.
    fn look_above(&mut self) -> Result<(), Errno> {
        let root = self.root.as_ref().ok_or(Errno::BADF)?;
        self.trees.look_above(root.as_fd());
        Ok(())
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.root.as_ref().map(|root| root.as_fd()).ok_or(Errno::BADF)
    }

    fn tell(&self, message: Message) -> Result<(), Errno> {
        rustix::net::send(self.parent, &message.to_bytes(), SendFlags::NOSIGNAL).map(drop)
    }

    /// Makes the rootfs the root: stacks the old root on top of it at `/`, then detaches the old root;
    /// pivot_root(2).
    fn pivot_root(&mut self, cut_off: bool) -> Result<(), Errno> {
        self.look_above()?;
        let old_root =
            if cut_off { Some(rustix::fs::open(c"/", HOLD, rustix::fs::Mode::empty())?) } else { None };
        rustix::process::fchdir(self.root()?)?;
        rustix::process::pivot_root(c".", c".")?;
        if let Some(old_root) = old_root {
            let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
            set_attributes(old_root.as_fd(), Recursion::WholeTree, slave)?;
        }
        rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }

    fn move_root(&mut self) -> Result<(), Errno> {
        rustix::process::fchdir(self.root()?)?;
        rustix::mount::mount_move(c".", c"/")?;
        self.change_root()
    }

    fn change_root(&mut self) -> Result<(), Errno> {
        self.look_above()?;
        rustix::process::fchdir(self.root()?)?;
        rustix::process::chroot(c".")?;
        rustix::process::chdir(c"/")
    }

    fn change_directory(&mut self, path: &CStr, last_try: bool) -> Result<(), Errno> {
        if self.is_in_directory {
            return Ok(());
        }
        match identity::change_directory(self.root()?, path) {
            Err(Errno::ACCESS | Errno::PERM) if !last_try => return Ok(()),
            result => result?,
        }
        self.is_in_directory = true;
        Ok(())
    }

    /// Loads a filter that notifies an agent. The agent does not receive notifications before the parent has
    /// passed on the listener, and for that the parent must be told its number. So one call must work without
    /// the agent: write(2), which profiles are not allowed to notify about.
    fn load_and_listen(&self, filter: &Filter) -> Result<(), Failure> {
        // Left to execve(2) to close: close(2) would be one more call that the profile must allow.
        let number = seccomp::load_with_listener(&filter.program, filter.flags)?.into_raw_fd();
        let message = Message::Listening(number.unsigned_abs());
        rustix::io::write(self.parent, &message.to_bytes()).of(Part::Source)?;
        await_byte(self.parent).of(Part::Source)
    }

    fn execute(&self, argv: &process::Argv, envp: &process::Argv) -> Result<(), Failure> {
        let program = self.program.ok_or(Errno::NOENT)?;
        Err(process::execve(program, argv, envp, self.home.variable()).into())
    }

    /// Writes a line to the program's standard error and, if `start` waits, to its fifo, for failures that
    /// the parent no longer reads. `last_words` is the last output of a hook, if any, and follows the line.
    fn complain(&self, line: &[&[u8]], last_words: &[u8]) {
        // A name must neither start a new line nor control the terminal.
        line.iter().for_each(|part| self.say(part, is_harmful));
        self.say(b"\n", |_| false);
        if !last_words.is_empty() {
            self.say(last_words, |letter| is_harmful(letter) && !matches!(letter, '\n' | '\t'));
            self.say(b"\n", |_| false);
        }
    }

    /// Writes `text` with invalid UTF-8 and each character that `is_replaced` replaced by a question mark.
    fn say(&self, text: &[u8], is_replaced: impl Fn(char) -> bool) {
        let say = |text: &str| {
            let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            let _ = self.start.map(|start| rustix::io::write(start, text.as_bytes()));
        };
        for chunk in text.utf8_chunks() {
            for piece in chunk.valid().split_inclusive(&is_replaced) {
                match piece.strip_suffix(&is_replaced) {
                    Some(before) => {
                        say(before);
                        say("?");
                    }
                    None => say(piece),
                }
            }
            if !chunk.invalid().is_empty() {
                say("?");
            }
        }
    }
}

fn reason(errno: Errno) -> &'static [u8] {
    nix::errno::Errno::from_raw(errno.raw_os_error()).desc().as_bytes()
}

/// Resets every signal to its default action and unblocks all. The errors for SIGKILL and SIGSTOP are
/// expected.
fn take_no_signals() {
    for signal in 1..=64 {
        let _ = process::default_signal(signal);
    }
    let _ = process::unblock_all_signals();
}

fn close_others(ranges: &[(u32, u32)]) -> Result<(), Errno> {
    if weakened::is_off("CVE-2024-21626") {
        return Ok(());
    }
    ranges.iter().try_for_each(|(first, last)| process::close_range(*first, *last))
}

/// Allows all CPUs of the cgroup: the kernel intersects the mask with them. Never fails: a process that keeps
/// the runtime's affinity still works.
fn reset_affinity() -> Result<(), Failure> {
    // 65536 CPUs.
    static ALL: [usize; 1024] = [usize::MAX; 1024];
    let _ = scheduling::set_affinity(&ALL);
    Ok(())
}

fn bring_loopback_up() -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    net::bring_loopback_up(socket.as_fd())
}

fn join_session_keyring(name: &CStr, permissions: u32, label: Option<&CStr>) -> Result<(), Failure> {
    if let Some(label) = label {
        label::of_keys(label)?;
    }
    match keyring::join_session(name) {
        // The kernel has no keyrings, or a seccomp filter around the runtime hides them.
        Err(Errno::NOSYS) => return Ok(()),
        serial => keyring::set_permissions(serial?, KEYRING_PERMISSIONS | permissions)?,
    }
    if label.is_some() {
        label::of_keys(c"")?;
    }
    Ok(())
}

/// Waits for one byte.
///
/// # Errors
/// `EPIPE` if the other end was closed.
fn await_byte(from: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut byte = [0; SIZE];
    loop {
        match rustix::io::read(from, &mut byte) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(Errno::PIPE),
            result => return result.map(drop),
        }
    }
}
