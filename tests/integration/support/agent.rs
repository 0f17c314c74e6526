//! A seccomp agent: receives the listener from the runtime and answers its notifications; seccomp_unotify(2).
#![allow(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::ioctl::{self, Updater, opcode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use super::wait::wait_to_read;

/// `struct seccomp_notif`; linux/seccomp.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    id: u64,
    pub pid: u32,
    flags: u32,
    pub number: i32,
    arch: u32,
    instruction: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// What the agent says to a call.
#[derive(Clone, Copy, Debug)]
pub enum Say {
    /// The kernel shall do it.
    Continue,
    Errno(i32),
}

const RECEIVE: ioctl::Opcode = opcode::read_write::<Call>(b'!', 0);
const SEND: ioctl::Opcode = opcode::read_write::<Answer>(b'!', 1);

/// An agent that waits for runtimes.
#[derive(Debug)]
pub struct Agent {
    listener: UnixListener,
    pub path: PathBuf,
}

/// What came over one connection.
#[derive(Debug)]
pub struct Met {
    pub state: Value,
    calls: OwnedFd,
    connection: UnixStream,
}

impl Agent {
    pub fn at(path: &Path) -> Self {
        Self { listener: UnixListener::bind(path).unwrap(), path: path.to_path_buf() }
    }

    /// Waits for a runtime's message: text and one descriptor, and nothing after it.
    pub fn meet(&self) -> Met {
        wait_to_read("the runtime connects to the agent", &self.listener);
        let (connection, _) = self.listener.accept().unwrap();
        wait_to_read("the runtime says whose calls come", &connection);
        let mut text = vec![0; 1 << 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&connection, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let length = received.unwrap().bytes;
        let mut descriptors: Vec<_> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(descriptors.len(), 1, "exactly one descriptor");
        let state = serde_json::from_slice(&text[..length]).unwrap();
        Met { state, calls: descriptors.remove(0), connection }
    }
}

impl Met {
    /// Whether the runtime has closed the connection, as it must.
    pub fn connection_is_over(&self) -> bool {
        wait_to_read("the runtime closes the connection", &self.connection);
        rustix::io::read(&self.connection, &mut [0; 1]) == Ok(0)
    }

    /// Answers every call so, in a thread of its own, until there is nobody left who could call. What it has been asked is in
    /// the list.
    pub fn answer(self, say: impl Fn(&Call) -> Say + Send + 'static) -> Arc<Mutex<Vec<Call>>> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        thread::spawn(move || {
            while let Some(call) = next(&self.calls) {
                list.lock().unwrap().push(call);
                reply(&self.calls, &call, say(&call));
            }
        });
        asked
    }
}

fn next(calls: &OwnedFd) -> Option<Call> {
    loop {
        let mut ready = [PollFd::new(calls, PollFlags::IN)];
        poll(&mut ready, None::<&Timespec>).unwrap();
        if !ready[0].revents().contains(PollFlags::IN) {
            return None;
        }
        let mut call = Call::default();
        // SAFETY: `Call` is the structure that this ioctl is defined with.
        let receive = unsafe { Updater::<RECEIVE, Call>::new(&mut call) };
        // SAFETY: the kernel fills the structure, which is borrowed mutably across the call, and keeps nothing.
        match unsafe { ioctl::ioctl(calls, receive) } {
            Ok(()) => return Some(call),
            // The caller was killed before it could be looked at.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::INTR) => {}
            Err(error) => panic!("receive a call: {error}"),
        }
    }
}

fn reply(calls: &OwnedFd, call: &Call, say: Say) {
    let mut answer = match say {
        // SECCOMP_USER_NOTIF_FLAG_CONTINUE
        Say::Continue => Answer { id: call.id, flags: 1, ..Answer::default() },
        Say::Errno(errno) => Answer { id: call.id, error: -errno, ..Answer::default() },
    };
    // SAFETY: as above, with `Answer`.
    let send = unsafe { Updater::<SEND, Answer>::new(&mut answer) };
    // SAFETY: as above.
    match unsafe { ioctl::ioctl(calls, send) } {
        // The second: the caller has been killed meanwhile.
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => panic!("answer a call: {error}"),
    }
}
