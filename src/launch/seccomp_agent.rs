//! What a seccomp agent is given: the descriptor on which the calls of `SCMP_ACT_NOTIFY` arrive, and whose calls they are;
//! config-linux.md § The Container Process State, seccomp_unotify(2).

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use rustix::net::SocketType;
use rustix::process::PidfdGetfdFlags;
use serde::Serialize;

use crate::error::{Fault, Pointer};
use crate::host::unix_socket;
use crate::init::protocol;
use crate::plan::linux::seccomp::{Filter, Listener};
use crate::sys::{Errno, seccomp};

/// A connection to the agent, for the one message that there is.
#[derive(Debug)]
pub struct Agent {
    socket: OwnedFd,
    listener: Listener,
}

/// The container, for the agent.
#[derive(Debug)]
pub struct Container<'a> {
    pub oci_version: &'a str,
    /// runtime.md § State, as JSON.
    pub state: Vec<u8>,
}

/// The container process state without the state of the container, in the order of the specification's example.
#[derive(Debug, Serialize)]
struct Process<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    /// What the descriptors are that come along.
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
}

/// Sees to it, before anything is made, that `filter` can be loaded, and connects to its agent if it has one.
///
/// # Errors
/// If the kernel has no filters, or not all that the flags ask for; if nobody listens where the agent should.
pub fn prepare(filter: &Filter) -> Result<Option<Agent>> {
    let at = Pointer::root().field("linux").field("seccomp");
    if !seccomp::knows(0) {
        return Err(at.error_with_hint(
            "this kernel does not support seccomp filters",
            "it must be built with CONFIG_SECCOMP_FILTER",
        ));
    }
    if !seccomp::knows(seccomp::with_listener(filter.flags, filter.listener.is_some())) {
        return Err(at.field("flags").error_with_hint(
            "this kernel does not support all of these flags",
            "see seccomp(2) for the required kernel versions",
        ));
    }
    filter.listener.as_ref().map(Agent::connect).transpose()
}

impl Agent {
    /// Connects to the agent before anything is made.
    ///
    /// # Errors
    /// In the words of runc, if nobody listens there.
    pub fn connect(listener: &Listener) -> Result<Self> {
        let socket = unix_socket::connect(&listener.path, SocketType::STREAM)
            .with_context(|| fault("failed to connect with seccomp agent"))?;
        Ok(Self { socket, listener: listener.clone() })
    }

    /// Takes descriptor `number` from the process that `pidfd` is of, whose number is `pid`, and passes it on.
    pub fn pass_on(
        self,
        pidfd: BorrowedFd<'_>,
        pid: i32,
        number: i32,
        container: &Container<'_>,
    ) -> Result<()> {
        // By the parent's hand, because a profile may have sendmsg(2) ask the agent, which does not listen yet.
        let descriptor = rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty());
        let descriptor = descriptor.map_err(|errno| {
            let hint = (errno == Errno::PERM).then(|| "requires CAP_SYS_PTRACE".to_owned());
            anyhow!(errno).context(Fault { hint, ..fault("get the listener from the process") })
        })?;
        let metadata = self.listener.metadata.as_deref();
        let process = Process { oci_version: container.oci_version, fds: ["seccompFd"], pid, metadata };
        let mut text = serde_json::to_vec(&process).context("encode the container process state")?;
        text.pop();
        text.extend(b",\"state\":");
        text.extend(&container.state);
        text.push(b'}');
        protocol::send_descriptor(self.socket.as_fd(), &text, descriptor.as_fd())
            .with_context(|| fault("send the listener to the seccomp agent"))
    }
}

fn fault(message: &str) -> Fault {
    Fault {
        pointer: Pointer::root().field("linux").field("seccomp").field("listenerPath"),
        message: message.to_owned(),
        hint: None,
    }
}
