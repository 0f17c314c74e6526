//! sd_notify(3) for containers. The container gets a socket of its own; only its readiness is forwarded to
//! the runtime's `NOTIFY_SOCKET`, with the pid of the process that the service manager should watch.
//!
//! ```text
//! create   make_directory   ROOT/ID/notify, bind-mounted at /run/notify; NOTIFY_SOCKET is set inside
//! start    bind, relay      notify.sock in it; waits until the container is ready or has exited
//! run      both; detached: relay; in the foreground: supervise calls forward
//! ```
//! As in runc, including the names inside the container.

use std::ffi::{CStr, OsStr};
use std::fs::{self, DirBuilder, Permissions};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
};

use crate::host::unix_socket;
use crate::sys::Errno;

/// The mount point in the container, mounted read-only, nosuid, nodev and noexec.
pub const MOUNT_POINT: &CStr = c"/run/notify";
/// The environment variable for the container's program.
pub const ENVIRONMENT: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// How many messages to read at a time.
const MESSAGES: u32 = 64;
const SOCKET_NAME: &str = "notify.sock";
/// How long to wait for the service manager to confirm that it has read everything; runc's limit.
const BARRIER: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The directory to mount in the container with state directory `state_dir`.
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("notify")
}

/// Creates [`directory`] with mode 0755, whatever the umask.
pub fn make_directory(state_dir: &Path) -> Result<()> {
    let path = directory(state_dir);
    DirBuilder::new()
        .mode(0o755)
        .create(&path)
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
        .with_context(|| format!("create {}", path.display()))
}

/// The container's socket and the connection to the host's.
#[derive(Debug)]
pub struct NotifySocket {
    container: OwnedFd,
    host: OwnedFd,
}

impl NotifySocket {
    /// Creates the socket in the directory of `state_dir` and connects to `host`, the value of the runtime's
    /// own `NOTIFY_SOCKET`: a path, or an abstract name prefixed with `@`.
    pub fn bind(state_dir: &Path, host: &OsStr) -> Result<Self> {
        let host = match host.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name)
                .and_then(|address| unix_socket::connect_to(&address, SocketType::DGRAM))
                .with_context(|| format!("connect to {}", Path::new(host).display())),
            None => unix_socket::connect(Path::new(host), SocketType::DGRAM),
        };
        Ok(Self {
            host: host.context("connect to NOTIFY_SOCKET")?,
            container: unix_socket::bind(&directory(state_dir), SOCKET_NAME, SocketType::DGRAM)?,
        })
    }

    /// Waits until the container reports that it is ready, then tells the host, with `main_pid` as the
    /// process to watch; or until the container's init process, `pidfd`, has exited.
    ///
    /// After a notification, waits up to 30 seconds for the host to read it: if the sender is gone by then,
    /// the service manager cannot attribute the message; sd_notify_barrier(3).
    pub fn relay(&self, pidfd: BorrowedFd<'_>, main_pid: i32) -> Result<()> {
        loop {
            let ended = {
                let mut waiting =
                    [PollFd::new(&self.container, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, None))
                    .context("wait for the container's readiness notification")?;
                let [_, init] = &waiting;
                !init.revents().is_empty()
            };
            // Even if it has exited, its last message may be the notification.
            if self.forward(main_pid)? {
                return self.wait_until_read();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Reads the container's messages without blocking. If it reports that it is ready, tells the host and
    /// returns true.
    pub fn forward(&self, main_pid: i32) -> Result<bool> {
        let mut message = [0; 4096];
        let mut was_ready = false;
        // Bounded, so that a flood of messages does not delay signals.
        for _ in 0..MESSAGES {
            match rustix::net::recv(&self.container, &mut message, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    if let Some(line) = ready_line(message.get(..length).unwrap_or_default()) {
                        self.tell_host(&[line, b"\n"].concat())?;
                        self.tell_host(format!("MAINPID={main_pid}\n").as_bytes())?;
                        was_ready = true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(was_ready),
                Err(errno) => return Err(errno).context("receive the container's notification"),
            }
        }
        Ok(was_ready)
    }

    fn tell_host(&self, message: &[u8]) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.host, message, SendFlags::NOSIGNAL))
            .map(drop)
            .context("send to NOTIFY_SOCKET")
    }

    /// Sends `BARRIER=1` with a pipe; the manager closes its end when it has read everything sent before.
    fn wait_until_read(&self) -> Result<()> {
        let (ours, theirs) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("create the barrier pipe")?;
        {
            let descriptors = [theirs.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            let text = [IoSlice::new(b"BARRIER=1")];
            rustix::net::sendmsg(&self.host, &text, &mut control, SendFlags::NOSIGNAL)
                .context("send to NOTIFY_SOCKET")?;
        }
        drop(theirs);
        // It is no error if the manager does not support barriers or closes the pipe late: the notification
        // has been delivered.
        let mut closed = [PollFd::new(&ours, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut closed, Some(&BARRIER)))
            .map(drop)
            .context("wait for the service manager")
    }

    /// Readable when there is something to [`NotifySocket::forward`].
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

/// Finds the line of `message` that reports readiness.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    struct Fixture {
        directory: tempfile::TempDir,
        host: UnixDatagram,
        proxy: NotifySocket,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let host_path = directory.path().join("host.sock");
        let host = UnixDatagram::bind(&host_path).unwrap();
        make_directory(directory.path()).unwrap();
        let proxy = NotifySocket::bind(directory.path(), host_path.as_os_str()).unwrap();
        Fixture { directory, host, proxy }
    }

    impl Fixture {
        fn container_says(&self, message: &[u8]) {
            let path = directory(self.directory.path()).join(SOCKET_NAME);
            UnixDatagram::unbound().unwrap().send_to(message, path).unwrap();
        }

        fn host_hears(&self) -> Vec<u8> {
            let mut message = [0; 128];
            let length = self.host.recv(&mut message).unwrap();
            message[..length].to_vec()
        }
    }

    #[test]
    fn only_the_news_of_being_ready_goes_on() {
        let fixture = fixture();
        fixture.container_says(b"STATUS=loading");
        assert!(!fixture.proxy.forward(7).unwrap());
        fixture.container_says(b"STATUS=up\nREADY=1\nMAINPID=1");
        assert!(fixture.proxy.forward(7).unwrap());
        assert_eq!(fixture.host_hears(), b"READY=1\n");
        assert_eq!(fixture.host_hears(), b"MAINPID=7\n");
    }

    #[test]
    fn waiting_ends_when_the_host_has_read_the_barrier_away() {
        let fixture = fixture();
        fixture.container_says(b"READY=1");
        let us = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        std::thread::scope(|scope| {
            // The kernel drops a descriptor if the message is read without asking for it.
            let host = scope.spawn(|| [fixture.host_hears(), fixture.host_hears(), fixture.host_hears()]);
            fixture.proxy.relay(us.as_fd(), 7).unwrap();
            assert_eq!(host.join().unwrap()[2], b"BARRIER=1");
        });
    }

    #[test]
    fn waiting_ends_when_the_container_does() {
        let fixture = fixture();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&ended), PidfdFlags::empty()).unwrap();
        fixture.proxy.relay(pidfd.as_fd(), 7).unwrap();
        ended.wait().unwrap();
    }

    #[test]
    fn the_host_may_have_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("runtime-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _host = UnixDatagram::bind_addr(&address).unwrap();
        let directory = tempfile::tempdir().unwrap();
        make_directory(directory.path()).unwrap();
        NotifySocket::bind(directory.path(), OsStr::new(&format!("@{name}"))).unwrap();
    }
}
