//! Passes the descriptor for `SCMP_ACT_NOTIFY` to the seccomp agent, with the container process state;
//! config-linux.md § The Container Process State, seccomp_unotify(2).

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use rustix::net::SocketType;
use rustix::process::PidfdGetfdFlags;
use serde::Serialize;

use crate::container::state::{State, Status};
use crate::error::{Fault, Pointer};
use crate::host::{process, unix_socket};
use crate::init::protocol;
use crate::plan::linux::seccomp::{Filter, Listener};
use crate::sys::{Errno, seccomp};

/// A connection to the agent, for the one message that is sent.
#[derive(Debug)]
pub struct Agent {
    socket: OwnedFd,
    listener: Listener,
}

/// The container process state without the container's state, in the order of the specification's example.
#[derive(Debug, Serialize)]
struct Process<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    /// The names of the descriptors that are sent along.
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
}

/// Checks that `filter` can be loaded and connects to its agent, if it has one, before anything is made.
///
/// # Errors
/// If the kernel lacks seccomp filters or one of the flags, or if nothing listens at the agent's socket.
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
    /// Connects to the agent.
    ///
    /// # Errors
    /// If nothing listens at its socket, in runc's wording.
    pub fn connect(listener: &Listener) -> Result<Self> {
        let socket = unix_socket::connect(&listener.path, SocketType::STREAM)
            .with_context(|| fault("failed to connect with seccomp agent"))?;
        Ok(Self { socket, listener: listener.clone() })
    }

    /// Duplicates descriptor `number` of `process` and sends it to the agent, with the `state` of the container
    /// in this `status`.
    pub fn pass_on(
        self,
        process: &process::Process,
        number: i32,
        state: &State,
        status: Status,
    ) -> Result<()> {
        let container = state.text(status)?;
        // The parent sends it because the profile may make sendmsg(2) itself wait for the agent, which does
        // not listen yet.
        let descriptor =
            rustix::process::pidfd_getfd(process.pidfd.as_fd(), number, PidfdGetfdFlags::empty());
        let descriptor = descriptor.map_err(|errno| {
            let hint = (errno == Errno::PERM).then(|| "requires CAP_SYS_PTRACE".to_owned());
            anyhow!(errno).context(Fault { hint, ..fault("get the listener from the process") })
        })?;
        let metadata = self.listener.metadata.as_deref();
        let (oci_version, pid) = (&*state.oci_version, process.pid);
        let described = Process { oci_version, fds: ["seccompFd"], pid, metadata };
        let mut text = serde_json::to_vec(&described).context("encode the container process state")?;
        text.pop();
        text.extend(b",\"state\":");
        text.extend(&container);
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
