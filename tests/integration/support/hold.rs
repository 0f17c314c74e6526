//! Threads that cannot exit.
#![allow(unsafe_code, reason = "ptrace(2) has no safe form")]

use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::{io, ptr};

/// A thread of another process that exits no sooner than this is dropped.
#[derive(Debug)]
pub struct Held {
    release: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Held {
    /// The thread stops when it is about to exit (`PTRACE_O_TRACEEXIT`, ptrace(2)) and goes on when its
    /// tracer, a thread of ours, has ended.
    pub fn at_exit(thread: i32) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let tracer = thread::spawn(move || {
            // SAFETY: PTRACE_SEIZE takes no pointers: the address must be null, and the data are the options.
            let result = unsafe {
                libc::ptrace(
                    libc::PTRACE_SEIZE,
                    thread,
                    ptr::null_mut::<libc::c_void>(),
                    ptr::without_provenance_mut::<libc::c_void>(libc::PTRACE_O_TRACEEXIT.try_into().unwrap()),
                )
            };
            let result = if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
            ready.send(result).unwrap();
            // An error, for nothing is ever sent.
            let _ = released.recv();
        });
        is_ready.recv().unwrap().unwrap_or_else(|error| panic!("trace {thread}: {error}"));
        Self { release: Some(release), tracer: Some(tracer) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}
