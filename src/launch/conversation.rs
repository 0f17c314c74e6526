//! The conversation between parent and child, from clone to execve. Nothing else listens to a child.
//!
//! The caller says which turns its child takes, in order, and implements the parent's part of each
//! ([`Parent`]). A child that fails sends its failure instead of its next message. Any other message is an
//! error.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SendFlags;

use crate::cgroup;
use crate::cgroup::{OomCounts, OomFiles};
use crate::host::process::{Process, pid_of};
use crate::host::signals::{SignalQueue, Signals};
use crate::init::protocol;
use crate::init::protocol::Message;
use crate::init::step::Point;
use crate::program::Program;
use crate::sys::Errno;

/// The next message expected of the child, and how the parent handles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has been cloned and waits: [`Parent::born`], then it continues.
    Born(WaitReason),
    /// Another process takes its place in the conversation.
    Successor,
    /// It has made its namespaces and waits: [`Parent::in_namespaces`], then it continues.
    InNamespaces,
    /// Its mounts are made, `/` is still the host's, and it waits: [`Parent::mounted`], then it continues.
    Mounted,
    /// It has a terminal: [`Parent::terminal`]. It does not wait.
    Terminal,
    /// Only the start of the program is left, and it waits. The caller lets it continue with
    /// [`Conversation::go_on`].
    Ready,
    /// Its seccomp filter notifies an agent, and it waits: [`Parent::listening`], then it continues.
    Listening,
    /// It has executed the program.
    Started,
}

/// Why a child waits after it has been cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// To be moved into its cgroup.
    Attach,
    /// For its user namespace to be set up.
    SetUp,
}

/// The parent's part in each turn. Turns that the caller did not list never occur.
pub(super) trait Parent {
    fn born(&mut self, _child: &Conversation<'_>, _duty: WaitReason) -> Result<()> {
        Ok(())
    }
    fn in_namespaces(&mut self, _child: &Conversation<'_>) -> Result<()> {
        Ok(())
    }
    fn mounted(&mut self, _child: &Conversation<'_>) -> Result<()> {
        Ok(())
    }
    /// Receives the terminal's master.
    fn terminal(&mut self, _master: OwnedFd) -> Result<()> {
        Ok(())
    }
    /// Receives the number of the seccomp notify descriptor in the child.
    fn listening(&mut self, _child: &Conversation<'_>, _number: i32) -> Result<()> {
        Ok(())
    }
}

/// What the child can say, apart from failures.
enum ChildEvent {
    Master(OwnedFd),
    Successor(OwnedFd),
    Reached(Point),
    Listening(i32),
    Ready,
    /// The socket is closed: the child has executed the program, or has been killed.
    Ended,
}

/// The child as the parent sees it until it becomes the program.
pub(super) struct Conversation<'a> {
    /// Killed on drop, unless kept.
    pub(super) process: Process,
    /// Signals that ask this process to end; until the container is complete they undo it.
    pub(super) interrupts: SignalQueue,
    socket: OwnedFd,
    pub(super) program: &'a Program,
    pub(super) context: FailureContext,
}

/// What helps to explain the failure of a child.
#[derive(Default)]
pub(super) struct FailureContext {
    /// The container's cgroup, if it has one of its own.
    pub(super) cgroup: Option<PathBuf>,
    /// Whether the cgroup may stay frozen for any length of time, and the child with it.
    pub(super) may_stay_frozen: bool,
    /// The cgroup's OOM counters before the child was cloned; `None` if they were not read.
    pub(super) earlier_ooms: Option<OomCounts>,
    /// The cgroup's open OOM counters, if the cgroup may be removed as soon as the child has ended.
    pub(super) oom_files: Option<OomFiles>,
}

/// How long the child may be silent before the parent checks whether it is frozen.
const SILENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl<'a> Conversation<'a> {
    /// Starts a conversation with `process`, which has the other end of `socket`.
    pub(super) fn new(
        process: Process,
        socket: OwnedFd,
        signals: &Signals,
        program: &'a Program,
        context: FailureContext,
    ) -> Result<Self> {
        let interrupts = signals.interrupts()?;
        Ok(Self { process, interrupts, socket, program, context })
    }

    /// Listens until the child has taken all of `turns`, in order, and has `parent` handle each.
    ///
    /// # Errors
    /// If the child fails (its failure as a sentence) or ends, if a signal asks this process to end, or if
    /// `parent` fails.
    pub(super) fn serve(
        &mut self,
        turns: impl IntoIterator<Item = Turn>,
        parent: &mut impl Parent,
    ) -> Result<()> {
        for turn in turns {
            match (turn, self.listen()?) {
                (Turn::Born(duty), ChildEvent::Reached(Point::Born)) => {
                    parent.born(self, duty)?;
                    self.go_on()?;
                }
                (Turn::Successor, ChildEvent::Successor(pidfd)) => self.succeed(pidfd)?,
                (Turn::InNamespaces, ChildEvent::Reached(Point::InNamespaces)) => {
                    parent.in_namespaces(self)?;
                    self.go_on()?;
                }
                (Turn::Mounted, ChildEvent::Reached(Point::Mounted)) => {
                    parent.mounted(self)?;
                    self.go_on()?;
                }
                (Turn::Terminal, ChildEvent::Master(master)) => parent.terminal(master)?,
                (Turn::Ready, ChildEvent::Ready) | (Turn::Started, ChildEvent::Ended) => {}
                (Turn::Listening, ChildEvent::Listening(number)) => {
                    parent.listening(self, number)?;
                    self.go_on()?;
                }
                (Turn::Terminal, ChildEvent::Ended) => {
                    return Err(self.ended_before("setting up its terminal"));
                }
                (Turn::Ready, ChildEvent::Ended) => return Err(self.ended_before("it could be started")),
                (_, ChildEvent::Ended) => return Err(self.ended_before("it was ready")),
                _ => bail!("unexpected message from {}", self.who()),
            }
        }
        Ok(())
    }

    /// Lets the waiting child continue. A child that has failed meanwhile says so in its next message.
    ///
    /// # Errors
    /// If it cannot be told: child and parent would wait for each other for ever.
    pub(super) fn go_on(&self) -> Result<()> {
        let send = || rustix::net::send(&self.socket, b"g", SendFlags::NOSIGNAL);
        match rustix::io::retry_on_intr(send) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(errno).context("resume the init process"),
        }
    }

    /// Sends the child a network namespace. A child that has failed meanwhile says so in its next message.
    pub(super) fn hand_network(&self, network: &OwnedFd) -> Result<()> {
        match protocol::send_descriptor(self.socket.as_fd(), b"n", network.as_fd()) {
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            sent => sent.context("pass the network namespace to the init process"),
        }
    }

    /// Continues with the process that `pidfd` refers to. Its predecessor ends, if it has not yet.
    fn succeed(&mut self, pidfd: OwnedFd) -> Result<()> {
        let pid = pid_of(pidfd.as_fd()).context("inspect the init process")?;
        self.go_on()?;
        self.process = Process { pid, pidfd, keep: false };
        Ok(())
    }

    /// Waits for the child's next message.
    fn listen(&self) -> Result<ChildEvent> {
        let mut said = Vec::new();
        loop {
            self.wait()?;
            let mut bytes = [0; protocol::LONGEST];
            let (length, descriptor) = protocol::receive(self.socket.as_fd(), &mut bytes)
                .context("receive from the init process")?;
            let text = bytes.get(..length).unwrap_or_default();
            // Checked before other messages: it is a path and can be as long as a message.
            match descriptor {
                Some(successor) if text == protocol::SUCCESSOR => {
                    return Ok(ChildEvent::Successor(successor));
                }
                Some(master) => return Ok(ChildEvent::Master(master)),
                None => {}
            }
            if let Some(words) = protocol::said(text) {
                said = words.to_vec();
                continue;
            }
            return match <[u8; protocol::SIZE]>::try_from(text).ok().and_then(Message::from_bytes) {
                Some(Message::Ready) => Ok(ChildEvent::Ready),
                Some(Message::Reached(point)) => Ok(ChildEvent::Reached(point)),
                Some(Message::Listening(number)) => {
                    Ok(ChildEvent::Listening(i32::try_from(number).context("receive from the init process")?))
                }
                Some(Message::Failed { step, errno, part }) => {
                    Err(self.program.explain(step, errno, part, &said))
                }
                None if length > 0 => bail!("unexpected message from {}", self.who()),
                None => self.ended_early().map(|()| ChildEvent::Ended),
            };
        }
    }

    /// Waits until the socket can be read.
    fn wait(&self) -> Result<()> {
        loop {
            let signal = self.interrupts.as_fd();
            let mut waiting = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&signal, PollFlags::IN)];
            let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, Some(&SILENCE)))
                .context("wait for the init process")?;
            let [news, interrupt] = &waiting;
            if !news.revents().is_empty() {
                return Ok(());
            }
            if !interrupt.revents().is_empty() {
                if let Some(signal) = self.interrupts.take()? {
                    bail!("interrupted by {signal} before the container was started");
                }
            }
            // A cgroup above may be frozen, and then the child never runs.
            if ready == 0 && !self.context.may_stay_frozen {
                if let Some(path) = self.context.cgroup.as_deref() {
                    if cgroup::is_effectively_frozen(path) {
                        bail!("container's cgroup unexpectedly frozen: {}", path.display());
                    }
                }
            }
        }
    }
}
