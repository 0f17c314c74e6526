//! Starts the program of a created container through the fifo that its init process reads.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Container;
use super::files::FIFO;
use crate::container::state;
use crate::error::Refusal;
use crate::host::signals::SignalQueue;
use crate::plan::hooks::last_words;

impl Container {
    /// Starts the program of a created container.
    pub fn start(&self) -> Result<()> {
        let path = self.directory().join(FIFO);
        let mut fifo = self.open_fifo(&path)?;
        self.tell(&mut fifo, &path)?;
        self.remove_fifo(&path)
    }

    /// Starts the program of a created container and waits until it has started, that is, until the init
    /// process, the only remaining writer of the fifo, closes it by execve(2).
    ///
    /// # Errors
    /// What the init process reports if it fails; a signal that asks this process to end.
    pub fn start_and_watch(&self, interrupts: &SignalQueue) -> Result<()> {
        let path = self.directory().join(FIFO);
        let mut fifo = self.open_fifo(&path)?;
        let news = self.directory.open_file(FIFO, OFlags::RDONLY | OFlags::NONBLOCK);
        let mut news = news.with_context(|| format!("open {}", path.display()))?;
        self.tell(&mut fifo, &path)?;
        drop(fifo);
        self.remove_fifo(&path)?;
        loop {
            let signal = interrupts.as_fd();
            // POLLHUP alone: data in the fifo is what the init process has yet to read, or its report, and is
            // read after it closes the fifo.
            let mut waiting = [PollFd::new(&news, PollFlags::empty()), PollFd::new(&signal, PollFlags::IN)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, None))
                .context("wait for the init process")?;
            let [closed, interrupt] = &waiting;
            if !closed.revents().is_empty() {
                break;
            }
            if !interrupt.revents().is_empty() {
                if let Some(signal) = interrupts.take()? {
                    bail!("interrupted by {signal} before the container's program started");
                }
            }
        }
        let mut said = Vec::new();
        news.read_to_end(&mut said).with_context(|| format!("read {}", path.display()))?;
        self.has_begun(said.trim_ascii_start().strip_prefix(b"0").unwrap_or(&said))
    }

    /// Checks that the program has started; `said` is what the init process reported.
    fn has_begun(&self, said: &[u8]) -> Result<()> {
        if let Some(end) = said.iter().position(|&byte| byte == b'\n') {
            let (complaint, output) = said.split_at(end);
            let complaint = String::from_utf8_lossy(complaint).replace(char::is_control, "?");
            bail!(
                "{complaint}{}",
                last_words(output).map(|words| format!(", output: {words}")).unwrap_or_default()
            );
        }
        let stat = crate::host::process::process_stat(self.state.init_process_pid)?;
        if stat.is_some_and(|stat| stat.never_executed && stat.start == self.state.init_process_start) {
            let why = || anyhow!("the init process exited before the container's program started");
            return Err(self.shortage().map_or_else(why, |shortage| shortage.of_init()));
        }
        Ok(())
    }

    /// The error for starting a stopped container, with the OOM report if it was OOM-killed before it was
    /// started.
    pub fn stopped(&self) -> anyhow::Error {
        let doing = format!("cannot start a container that has stopped: {:?}", self.state.id);
        let was_started = !self.directory.exists(FIFO);
        match self.shortage().filter(|_| !was_started) {
            Some(shortage) => shortage.of_init().context(doing),
            None => anyhow!(doing),
        }
    }

    /// Removes the fifo once it has been written to; it is not needed any more. A `start` killed before this
    /// leaves it, which the status allows for.
    fn remove_fifo(&self, path: &Path) -> Result<()> {
        match self.directory.unlink(FIFO) {
            // Another `start` has removed it.
            Err(Errno::NOENT) => Err(self.not_to_start()),
            removed => removed.with_context(|| format!("remove {}", path.display())),
        }
    }

    /// Why there is no fifo: another process has started the container, or has deleted it.
    fn not_to_start(&self) -> anyhow::Error {
        let id = self.state.id.clone();
        let is_there = self.directory.exists(state::FILE);
        if is_there { Refusal::AlreadyRunning(id) } else { Refusal::NoSuchContainer(id) }.into()
    }

    /// Writes the byte that the init process waits for. It may have exited since the fifo was opened.
    fn tell(&self, fifo: &mut File, path: &Path) -> Result<()> {
        match fifo.write_all(b"0") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(self.stopped()),
            written => written.with_context(|| format!("write to {}", path.display())),
        }
    }

    /// Opens the writing end of the fifo.
    fn open_fifo(&self, path: &Path) -> Result<File> {
        let fifo = self.directory.open_file(FIFO, OFlags::WRONLY | OFlags::NONBLOCK);
        match fifo {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.not_to_start()),
            // ENXIO, no reader: the init process has exited, or it has executed the program after a `start`
            // that was killed.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => match self.is_alive()? {
                true => Err(self.not_to_start()),
                false => Err(self.stopped()),
            },
            fifo => fifo.with_context(|| format!("open {}", path.display())),
        }
    }
}
