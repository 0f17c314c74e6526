//! The messages between parent and child, over a SOCK_SEQPACKET pair that execve(2) closes.
//!
//! ```text
//! child                          parent
//!   successor        ────────▶   with a pidfd: of an intermediate, or born late, after the mounts
//!                    ◀────────   one byte: continues with the successor
//!   Reached(point)   ────────▶   does what the point is for
//!                    ◀────────   one byte
//!   the steps …                  meanwhile makes the network namespace
//!                    ◀────────   its descriptor, if there is a new one
//!   the steps …                  prepares the state file, adjusts the process
//!   Ready            ────────▶   only the program's start is left: publishes the state file; not with `exec`
//!                    ◀────────   one byte: the container is recorded
//!   hook output      ────────▶   the last output of a hook that has failed
//!   Listening(fd)    ────────▶   with a seccomp agent: passes the descriptor to it
//!                    ◀────────   one byte: it has been passed on
//!   end of file      ────────▶   the program has started
//! ```
//! The parent replies in the order in which the program asks; points that are not in the program are never
//! reached. The output of a failed hook, if any, comes just before the failure. `Failed(step, errno, part)`
//! can replace any message of the child and is its last. If the parent relays the terminal, the pty master
//! arrives as a separate message, `/dev/pts/N` with the descriptor attached.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::init::step::{Ended, Part, Point};
use crate::sys::Errno;

/// The text of the message that carries the pidfd of a successor.
pub const SUCCESSOR: &[u8] = b"successor";

/// Sends `text` with a descriptor attached; unix(7).
pub fn send_descriptor(socket: BorrowedFd<'_>, text: &[u8], descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Receives a message into `text`. Returns the length of its text and the descriptor attached to it.
pub fn receive(socket: BorrowedFd<'_>, text: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(text)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = match received {
            // CONNRESET: the other end exited without reading what we sent. The next call returns its last
            // messages; unix(7).
            Err(Errno::INTR | Errno::CONNRESET) => continue,
            received => received?,
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        return Ok((received.bytes, descriptor));
    }
}

/// The size of a message of the child.
pub const SIZE: usize = 12;

/// The first bytes of a message with the last output of a hook; see [`send_said`].
const SAID: [u8; 4] = 4_u32.to_ne_bytes();

/// The longest message: the last output of a hook, or the path of a terminal.
pub const LONGEST: usize = SAID.len() + SAID_MOST;

/// How much of a hook's last output is passed on, in bytes.
pub const SAID_MOST: usize = 4096;

/// Sends the last output of a hook.
pub fn send_said(socket: BorrowedFd<'_>, text: &[u8]) -> Result<(), Errno> {
    let mut control = SendAncillaryBuffer::default();
    let parts = [IoSlice::new(&SAID), IoSlice::new(text)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Returns the last output of a hook, if the message is of that kind.
pub fn said(message: &[u8]) -> Option<&[u8]> {
    message.strip_prefix(&SAID)
}

/// A message of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Ready,
    /// The child waits for a byte.
    Reached(Point),
    /// The number of the seccomp listener in the child, which waits for a byte.
    Listening(u32),
    Failed {
        step: u32,
        errno: Errno,
        part: Part,
    },
}

impl Message {
    /// Encodes it as kind and part, step, errno: three 32-bit numbers.
    pub fn to_bytes(self) -> [u8; SIZE] {
        let (kind, step, errno) = match self {
            Self::Ready => (0, 0, 0),
            Self::Reached(point) => (2, point.number(), 0),
            Self::Listening(number) => (6, number, 0),
            Self::Failed { step, errno, part } => {
                let part = match part {
                    Part::Whole => 0,
                    Part::Source => 1,
                    Part::Target => 2,
                    Part::OnProc => 3,
                    Part::Hook(Ended::Exited(status)) => 4 | u32::from(status) << 16,
                    Part::Hook(Ended::Killed(signal)) => 5 | u32::from(signal) << 16,
                    Part::Hook(Ended::TimedOut | Ended::Interrupted) => 6,
                    Part::Item(index) => 0x100 | u32::from(index) << 16,
                };
                (1 | part << 1, step, errno.raw_os_error())
            }
        };
        let mut bytes = [0; SIZE];
        let words = kind.to_ne_bytes().into_iter().chain(step.to_ne_bytes()).chain(errno.to_ne_bytes());
        for (to, from) in bytes.iter_mut().zip(words) {
            *to = from;
        }
        bytes
    }

    /// Decodes a message; `None` if it is not one that the child can send.
    pub fn from_bytes(bytes: [u8; SIZE]) -> Option<Self> {
        let [k0, k1, k2, k3, s0, s1, s2, s3, e0, e1, e2, e3] = bytes;
        let kind = u32::from_ne_bytes([k0, k1, k2, k3]);
        let number = u32::from_ne_bytes([s0, s1, s2, s3]);
        match kind {
            0 => return Some(Self::Ready),
            2 => return Point::from_number(number).map(Self::Reached),
            6 => return Some(Self::Listening(number)),
            kind if kind & 1 == 0 => return None,
            _ => {}
        }
        // The kernel's range of errors. `Errno` does not accept others.
        let errno = i32::from_ne_bytes([e0, e1, e2, e3]);
        if !(1..4096).contains(&errno) {
            return None;
        }
        let part = match kind >> 1 & 0x1ff {
            0 => Part::Whole,
            1 => Part::Source,
            2 => Part::Target,
            3 => Part::OnProc,
            4 => Part::Hook(Ended::Exited(status(kind)?)),
            5 => Part::Hook(Ended::Killed(status(kind)?)),
            6 => Part::Hook(Ended::TimedOut),
            _ => Part::Item(u16::try_from(kind >> 17).unwrap_or(u16::MAX)),
        };
        Some(Self::Failed { step: number, errno: Errno::from_raw_os_error(errno), part })
    }
}

fn status(kind: u32) -> Option<u8> {
    u8::try_from(kind >> 17).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let hooks = [Ended::Exited(255), Ended::Killed(9), Ended::TimedOut].map(Part::Hook);
        let parts =
            [Part::Whole, Part::Source, Part::Target, Part::OnProc, Part::Item(0), Part::Item(32_767)];
        let parts = parts.into_iter().chain(hooks);
        for part in parts {
            let message = Message::Failed { step: 70_000, errno: Errno::PERM, part };
            assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
        }
        let points = [Point::Born, Point::InNamespaces, Point::Mounted].map(Message::Reached);
        for message in points.into_iter().chain([Message::Ready, Message::Listening(7)]) {
            assert_eq!(Message::from_bytes(message.to_bytes()), Some(message));
        }
        assert_eq!(Message::from_bytes(*b"/dev/pts/100"), None);
        assert_eq!(said(&Message::Ready.to_bytes()), None);
        assert_eq!(said(&Message::Listening(0).to_bytes()), None);
    }
}
