//! The conversation of parent and child, from birth to execve. This is the only place that listens to a child.
//!
//! Whoever makes one says which turns it is to take, in order, and does at each what is the parent's part ([`Parent`]). A child
//! that fails says so instead of what it was to say next; anything else that it may not say is an error.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SendFlags;

use crate::cgroup;
use crate::cgroup::{OomCounts, OomFiles};
use crate::host::process::{self, Process, pid_of};
use crate::host::signals::{SignalQueue, Signals};
use crate::init::protocol;
use crate::init::protocol::Message;
use crate::init::step::Point;
use crate::program::Program;
use crate::sys::Errno;

/// What the child says next, and what the parent does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has been born and waits: [`Parent::born`], then it goes on.
    Born(Duty),
    /// Another process goes on in its place, and with it the conversation.
    Successor,
    /// It has made its namespaces and waits: [`Parent::in_namespaces`], then it goes on.
    InNamespaces,
    /// The mounts are made, `/` is still the host's, and it waits: [`Parent::mounted`], then it goes on.
    Mounted,
    /// It has a terminal: [`Parent::terminal`]. It does not wait.
    Terminal,
    /// Nothing is left but the program's start, and it waits. Whoever listens says when it goes on ([`Conversation::go_on`]).
    Ready,
    /// Its filter hands calls over, and it waits: [`Parent::listening`], then it goes on.
    Listening,
    /// It has become the program.
    Started,
}

/// Why a child waits at its birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// To be put into its cgroup.
    Attach,
    /// For its user namespace to be set up.
    SetUp,
}

/// The parent's part in each turn. A turn that a parent does not ask for never comes to it.
pub(super) trait Parent {
    fn born(&mut self, _child: &Conversation<'_>, _duty: Duty) -> Result<()> {
        Ok(())
    }
    fn in_namespaces(&mut self, _child: &Conversation<'_>) -> Result<()> {
        Ok(())
    }
    fn mounted(&mut self, _child: &Conversation<'_>) -> Result<()> {
        Ok(())
    }
    /// Gets the terminal's end for the parent.
    fn terminal(&mut self, _master: OwnedFd) -> Result<()> {
        Ok(())
    }
    /// Gets the number that the descriptor for the filter's calls has in the child.
    fn listening(&mut self, _child: &Conversation<'_>, _number: i32) -> Result<()> {
        Ok(())
    }
}

/// What the child can say, besides that it failed.
enum ChildEvent {
    Master(OwnedFd),
    Successor(OwnedFd),
    Reached(Point),
    Listening(i32),
    Ready,
    /// It has become the program, or something killed it after it had.
    Ended,
}

/// The child as its parent sees it until it is the program.
pub(super) struct Conversation<'a> {
    /// Killed on drop, unless kept.
    pub(super) process: Process,
    /// When it started, in clock ticks since the boot.
    pub(super) start: u64,
    /// Signals that ask this process to end: it is not yet responsible for a container.
    pub(super) interrupts: SignalQueue,
    socket: OwnedFd,
    pub(super) program: &'a Program,
    pub(super) circumstances: Circumstances,
}

/// What there is to know about a child that does not come to be.
#[derive(Default)]
pub(super) struct Circumstances {
    /// The container's cgroup, if it has one of its own.
    pub(super) cgroup: Option<PathBuf>,
    /// Whether it may be frozen for as long as somebody likes, and the child with it.
    pub(super) may_stand_still: bool,
    /// What the kernel had counted there before the child was born; `None` if nobody has looked.
    pub(super) earlier_ooms: Option<OomCounts>,
    /// What is counted there, if that may be gone as soon as the child is.
    pub(super) oom_files: Option<OomFiles>,
}

/// How long the child may be silent before somebody asks why.
const SILENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl<'a> Conversation<'a> {
    /// With `process`, which started at `start` and speaks on the other end of `socket`.
    pub(super) fn new(
        (process, start): (Process, u64),
        socket: OwnedFd,
        signals: &Signals,
        program: &'a Program,
        circumstances: Circumstances,
    ) -> Result<Self> {
        let interrupts = signals.interrupts()?;
        Ok(Self { process, start, interrupts, socket, program, circumstances })
    }

    /// Listens until the child has taken all of `turns`, in their order, and has `parent` do its part at each.
    ///
    /// # Errors
    /// The child's failure as a sentence; its end; a signal that asks this process to end; what `parent` fails at.
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

    /// Lets the child go on from where it waits. If it has failed meanwhile, it says so to whoever listens next.
    ///
    /// # Errors
    /// If it cannot be told: it would wait for ever, and whoever listens to it as well.
    pub(super) fn go_on(&self) -> Result<()> {
        let send = || rustix::net::send(&self.socket, b"g", SendFlags::NOSIGNAL);
        match rustix::io::retry_on_intr(send) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(errno).context("resume the init process"),
        }
    }

    /// Hands the child a network namespace. If it has failed meanwhile, it says so to whoever listens next.
    pub(super) fn hand_network(&self, network: &OwnedFd) -> Result<()> {
        match protocol::send_descriptor(self.socket.as_fd(), b"n", network.as_fd()) {
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            sent => sent.context("pass the network namespace to the init process"),
        }
    }

    /// Goes on with the process that `pidfd` is of. The one before ends, if it has not yet.
    fn succeed(&mut self, pidfd: OwnedFd) -> Result<()> {
        let pid = pid_of(pidfd.as_fd()).context("inspect the init process")?;
        self.go_on()?;
        self.process = Process { pid, pidfd, keep: false };
        self.start = process::start(pid)?;
        Ok(())
    }

    /// Waits for what the child says next.
    fn listen(&self) -> Result<ChildEvent> {
        let mut said = Vec::new();
        loop {
            self.wait()?;
            let mut bytes = [0; protocol::LONGEST];
            let (length, descriptor) = protocol::receive(self.socket.as_fd(), &mut bytes)
                .context("receive from the init process")?;
            let text = bytes.get(..length).unwrap_or_default();
            // Before any other text is looked at: it is a path and can be as long as a message.
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

    /// Waits until there is something to hear.
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
            if !interrupt.revents().is_empty()
                && let Some(signal) = self.interrupts.take()?
            {
                bail!("interrupted by {signal} before the container was started");
            }
            // A cgroup above it can be frozen, and then the child never runs.
            if ready == 0
                && !self.circumstances.may_stand_still
                && let Some(path) = self.circumstances.cgroup.as_deref()
                && cgroup::stands_still(path)
            {
                bail!("container's cgroup unexpectedly frozen: {}", path.display());
            }
        }
    }
}
