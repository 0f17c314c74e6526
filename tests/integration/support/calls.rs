//! The runtime's system calls into which faults are injected: how each can fail, and what it refers to.

use nix::errno::Errno::{self, *};

use super::injector::Kind;

pub const CLONE3: u64 = number(libc::SYS_clone3);
pub const SIGALTSTACK: u64 = number(libc::SYS_sigaltstack);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    Nothing,
    /// The path that is its argument of this number.
    Path(usize),
    /// The file that its first argument is a descriptor of.
    File,
}

/// One system call.
#[derive(Debug)]
pub struct Call {
    number: u64,
    pub name: &'static str,
    errnos: &'static [Errno],
    pub shows: Shows,
}

const fn number(number: libc::c_long) -> u64 {
    u64::from_ne_bytes(number.to_ne_bytes())
}

impl Call {
    /// What can happen there.
    pub fn kinds(&self, arguments: &[u64; 5]) -> Vec<Kind> {
        let creates =
            self.name == "openat" && arguments[2] & u64::from(rustix::fs::OFlags::CREATE.bits()) != 0;
        let full = creates.then_some(ENOSPC);
        let errnos = self.errnos.iter().copied().chain(full);
        [Kind::Kill].into_iter().chain(errnos.map(Kind::Fail)).collect()
    }
}

/// The call of this number with these arguments. `None`: it changes nothing, and nobody would notice if it failed, or it cannot.
pub fn find(number: u64, arguments: &[u64; 5]) -> Option<&'static Call> {
    let call = CALLS.iter().find(|call| call.number == number)?;
    let is_dup = i32::try_from(arguments[1]) == Ok(libc::F_DUPFD_CLOEXEC);
    // The other requests look at flags, or set them; and a limit that is asked for is not set.
    let counts = match call.name {
        "fcntl" => is_dup,
        "prlimit64" => arguments[2] != 0,
        _ => true,
    };
    counts.then_some(call)
}

pub fn errno(name: &str) -> Option<Errno> {
    let known = [EIO, ENOMEM, EMFILE, ENOSPC, EINTR, EAGAIN, ENOLCK, EPERM, EBUSY];
    known.into_iter().find(|errno| format!("{errno:?}") == name)
}

macro_rules! calls {
    ($($name:literal $number:ident $shows:expr, [$($errno:ident)*];)*) => {
        &[$(Call { number: number(libc::$number), name: $name, errnos: &[$($errno),*], shows: $shows }),*]
    };
}

use Shows::{File, Nothing, Path};

const CALLS: &[Call] = calls![
    "open" SYS_open Path(0), [EIO EMFILE];
    "openat" SYS_openat Path(1), [EIO EMFILE ENOMEM];
    "openat2" SYS_openat2 Path(1), [EIO EMFILE];
    "read" SYS_read File, [EIO EINTR];
    "write" SYS_write File, [EIO ENOSPC EINTR];
    "close" SYS_close File, [];
    "getdents64" SYS_getdents64 File, [EIO];
    "stat" SYS_stat Path(0), [EIO];
    "lstat" SYS_lstat Path(0), [EIO];
    "fstat" SYS_fstat File, [EIO];
    "newfstatat" SYS_newfstatat Path(1), [EIO];
    "statx" SYS_statx Path(1), [EIO];
    "statfs" SYS_statfs Path(0), [EIO];
    "fstatfs" SYS_fstatfs File, [EIO];
    "readlink" SYS_readlink Path(0), [EIO];
    "readlinkat" SYS_readlinkat Path(1), [EIO];
    "access" SYS_access Path(0), [EIO];
    "faccessat" SYS_faccessat Path(1), [EIO];
    "faccessat2" SYS_faccessat2 Path(1), [EIO];
    "mkdir" SYS_mkdir Path(0), [EIO ENOSPC];
    "mkdirat" SYS_mkdirat Path(1), [EIO ENOSPC];
    "mknod" SYS_mknod Path(0), [EIO ENOSPC];
    "mknodat" SYS_mknodat Path(1), [EIO ENOSPC];
    "symlink" SYS_symlink Path(1), [EIO ENOSPC];
    "symlinkat" SYS_symlinkat Path(2), [EIO ENOSPC];
    "link" SYS_link Path(1), [EIO ENOSPC];
    "linkat" SYS_linkat Path(3), [EIO ENOSPC];
    "rename" SYS_rename Path(1), [EIO ENOSPC];
    "renameat" SYS_renameat Path(3), [EIO ENOSPC];
    "renameat2" SYS_renameat2 Path(3), [EIO ENOSPC];
    "unlink" SYS_unlink Path(0), [EIO];
    "unlinkat" SYS_unlinkat Path(1), [EIO EBUSY];
    "rmdir" SYS_rmdir Path(0), [EIO EBUSY];
    "chmod" SYS_chmod Path(0), [EIO];
    "fchmod" SYS_fchmod File, [EIO];
    "fchmodat" SYS_fchmodat Path(1), [EIO];
    "chown" SYS_chown Path(0), [EIO];
    "fchown" SYS_fchown File, [EIO];
    "fchownat" SYS_fchownat Path(1), [EIO];
    "flock" SYS_flock File, [EINTR ENOLCK];
    "fsync" SYS_fsync File, [EIO ENOSPC];
    "ftruncate" SYS_ftruncate File, [EIO];
    "fcntl" SYS_fcntl File, [EMFILE];
    "dup" SYS_dup File, [EMFILE];
    "dup2" SYS_dup2 File, [EMFILE];
    "dup3" SYS_dup3 File, [EMFILE];
    "pipe2" SYS_pipe2 Nothing, [EMFILE];
    "socket" SYS_socket Nothing, [EMFILE];
    "socketpair" SYS_socketpair Nothing, [EMFILE];
    "connect" SYS_connect Nothing, [ENOMEM];
    "bind" SYS_bind Nothing, [ENOMEM];
    "sendto" SYS_sendto Nothing, [ENOMEM EINTR];
    "sendmsg" SYS_sendmsg Nothing, [ENOMEM EINTR];
    "recvfrom" SYS_recvfrom Nothing, [ENOMEM EINTR];
    "recvmsg" SYS_recvmsg Nothing, [ENOMEM EINTR];
    "poll" SYS_poll Nothing, [ENOMEM EINTR];
    "ppoll" SYS_ppoll Nothing, [ENOMEM EINTR];
    "clone" SYS_clone Nothing, [EAGAIN ENOMEM];
    "clone3" SYS_clone3 Nothing, [EAGAIN ENOMEM];
    "fork" SYS_fork Nothing, [EAGAIN];
    "vfork" SYS_vfork Nothing, [EAGAIN];
    "execve" SYS_execve Path(0), [EIO ENOMEM];
    "execveat" SYS_execveat Path(1), [EIO ENOMEM];
    "wait4" SYS_wait4 Nothing, [EINTR];
    "waitid" SYS_waitid Nothing, [EINTR];
    "pidfd_open" SYS_pidfd_open Nothing, [EMFILE];
    "pidfd_send_signal" SYS_pidfd_send_signal Nothing, [EPERM];
    "pidfd_getfd" SYS_pidfd_getfd Nothing, [EMFILE];
    "kill" SYS_kill Nothing, [EPERM];
    "signalfd4" SYS_signalfd4 Nothing, [EMFILE];
    "rt_sigtimedwait" SYS_rt_sigtimedwait Nothing, [EINTR];
    "timerfd_create" SYS_timerfd_create Nothing, [EMFILE];
    "timerfd_settime" SYS_timerfd_settime Nothing, [ENOMEM];
    "inotify_init1" SYS_inotify_init1 Nothing, [EMFILE];
    "inotify_add_watch" SYS_inotify_add_watch Path(1), [ENOSPC];
    "setns" SYS_setns File, [ENOMEM];
    "unshare" SYS_unshare Nothing, [ENOMEM ENOSPC];
    "mount" SYS_mount Path(1), [EIO ENOMEM];
    "umount2" SYS_umount2 Path(0), [EIO EBUSY];
    "pivot_root" SYS_pivot_root Nothing, [ENOMEM EBUSY];
    "open_tree" SYS_open_tree Path(1), [EMFILE ENOMEM];
    "move_mount" SYS_move_mount Nothing, [ENOMEM ENOSPC];
    "mount_setattr" SYS_mount_setattr File, [EIO ENOMEM];
    "fsopen" SYS_fsopen Path(0), [EMFILE ENOMEM];
    "fsconfig" SYS_fsconfig Nothing, [ENOMEM EIO];
    "fsmount" SYS_fsmount Nothing, [EMFILE ENOMEM ENOSPC];
    "chdir" SYS_chdir Path(0), [EIO ENOMEM];
    "fchdir" SYS_fchdir File, [EIO];
    "chroot" SYS_chroot Path(0), [EIO];
    "bpf" SYS_bpf Nothing, [ENOMEM EPERM];
    "keyctl" SYS_keyctl Nothing, [ENOMEM];
    "seccomp" SYS_seccomp Nothing, [ENOMEM];
    "prctl" SYS_prctl Nothing, [EPERM];
    "capget" SYS_capget Nothing, [EPERM];
    "capset" SYS_capset Nothing, [EPERM];
    "setgroups" SYS_setgroups Nothing, [ENOMEM EPERM];
    "setresuid" SYS_setresuid Nothing, [EAGAIN EPERM];
    "setresgid" SYS_setresgid Nothing, [EPERM];
    "setsid" SYS_setsid Nothing, [EPERM];
    "sethostname" SYS_sethostname Nothing, [EIO];
    "setdomainname" SYS_setdomainname Nothing, [EIO];
    "prlimit64" SYS_prlimit64 Nothing, [EPERM];
    "sched_setaffinity" SYS_sched_setaffinity Nothing, [ENOMEM];
    "close_range" SYS_close_range Nothing, [ENOMEM];
    "ioctl" SYS_ioctl File, [EIO];
    "memfd_create" SYS_memfd_create Nothing, [EMFILE ENOMEM];
    "sendfile" SYS_sendfile File, [EIO];
    "copy_file_range" SYS_copy_file_range File, [EIO];
    "set_mempolicy" SYS_set_mempolicy Nothing, [ENOMEM];
];
