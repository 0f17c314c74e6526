//! Runs the hooks that belong to the runtime's own namespaces.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use rustix::event::{PollFlags, epoll};
use rustix::fs::OFlags;

use crate::container::state::{State, Status};
use crate::error::line;
use crate::host::signals::{SignalQueue, Signals};
use crate::init::hook::{Around, HookOutput, run};
use crate::init::step::{Ended, Outputs};
use crate::plan::hooks::{Hook, HookKind, OUTPUT_ANNOTATIONS, failure, label};
use crate::plan::process::inherited_environment;

/// What all hooks run at the same point share.
pub struct Runner<'a> {
    state: Vec<u8>,
    outputs: Outputs,
    env: Vec<CString>,
    /// The working directory of hooks, as in crun: the bundle, if it still exists.
    bundle: Option<OwnedFd>,
    /// A signal that asks this process to end kills the running hook.
    interrupts: &'a SignalQueue,
    /// Readable when such a signal is pending, or when the init process of the container being created has
    /// exited.
    interrupt: OwnedFd,
}

impl<'a> Runner<'a> {
    /// Prepares to run hooks whose `state` has this `status` and the pid of the init process, unless stopped.
    /// With `init`, hooks are aborted when that process exits.
    pub fn new(
        state: &State,
        status: Status,
        interrupts: &'a SignalQueue,
        init: Option<BorrowedFd<'_>>,
    ) -> Result<Self> {
        let interrupt = epoll::create(epoll::CreateFlags::CLOEXEC).context("prepare to run hooks")?;
        for source in init.into_iter().chain([interrupts.as_fd()]) {
            epoll::add(&interrupt, source, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
                .context("prepare to run hooks")?;
        }
        Ok(Self {
            state: state.text(status)?,
            outputs: open_outputs(&state.annotations)?,
            env: inherited_environment(),
            bundle: File::open(&state.bundle).ok().map(OwnedFd::from),
            interrupts,
            interrupt,
        })
    }

    /// Runs `hooks` of this `kind`, one after the other.
    ///
    /// # Errors
    /// The first hook that fails, with the end of its output; a signal that asks this process to end; the
    /// exit of the init process.
    pub fn run(&self, kind: HookKind, hooks: &[Hook]) -> Result<()> {
        hooks.iter().enumerate().try_for_each(|(index, hook)| self.run_one(kind, index, hook))
    }

    fn run_one(&self, kind: HookKind, index: usize, hook: &Hook) -> Result<()> {
        let around = Around {
            state: [&self.state, b"", b""],
            outputs: &self.outputs,
            directory: self.bundle.as_ref().map(|bundle| bundle.as_fd()),
            mask: None,
            variable: None,
            filter: None,
            interrupt: Some((self.interrupt.as_fd(), PollFlags::IN)),
        };
        let mut said = HookOutput::nothing();
        let ended = run(&hook.ready(&self.env)?, &around, &mut said);
        match ended {
            Ok(Ended::Exited(0)) => Ok(()),
            Ok(Ended::Interrupted) => {
                let name = kind.name();
                match self.interrupts.take()? {
                    Some(signal) => bail!("interrupted by {signal} during {name} hook #{index}"),
                    None => {
                        bail!("the init process exited during {name} hook #{index}")
                    }
                }
            }
            ended => {
                let ended = ended.map_err(|errno| Errno::from_raw(errno.raw_os_error()));
                Err(failure(kind.at(index), &label(kind, index, hook), ended, said.last()))
            }
        }
    }
}

/// Runs the poststart hooks of a container whose program has started.
///
/// # Errors
/// As [`Runner::run`]. The caller must then stop the container; runtime.md § Lifecycle, step 9.
pub fn poststart(state: &State, interrupts: &SignalQueue) -> Result<()> {
    match state.hooks.poststart.as_slice() {
        [] => Ok(()),
        hooks => Runner::new(state, Status::Running, interrupts, None)?.run(HookKind::Poststart, hooks),
    }
}

/// Runs the poststop hooks of a container that has been removed except for this `state`. A failure is
/// reported through `warn`, and the remaining hooks still run; a signal ends them all.
pub fn poststop(state: &State, mut warn: impl FnMut(&str)) {
    let hooks = &state.hooks.poststop;
    if hooks.is_empty() {
        return;
    }
    let mut run_all = || -> Result<()> {
        let interrupts = Signals::block()?.interrupts()?;
        let runner = Runner::new(state, Status::Stopped, &interrupts, None)?;
        for (index, hook) in hooks.iter().enumerate() {
            match runner.run_one(HookKind::Poststop, index, hook) {
                Err(error) if error.downcast_ref::<crate::error::Fault>().is_none() => return Err(error),
                Err(error) => warn(&line(&error)),
                Ok(()) => {}
            }
        }
        Ok(())
    };
    if let Err(error) = run_all() {
        warn(&line(&error.context("run the poststop hooks")));
    }
}

/// Opens the files for hook output that are named by crun's annotations.
pub fn open_outputs(annotations: &BTreeMap<String, String>) -> Result<Outputs> {
    let open = |stream: &str| {
        let name = format!("{OUTPUT_ANNOTATIONS}{stream}");
        let Some(path) = annotations.get(&name) else { return Ok(None) };
        // O_NONBLOCK: do not wait for a reader of a fifo. O_NOCTTY: do not acquire a controlling terminal.
        // O_NONBLOCK is cleared again for the hook.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path);
        let set = |file: File| rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map(|()| file.into());
        let opened = file.and_then(|file| Ok(set(file)?));
        opened.map(Some).with_context(|| format!("open {path:?} from annotation {name}"))
    };
    Ok(Outputs { stdout: open("stdout")?, stderr: open("stderr")? })
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_pipe_for_the_output_that_nobody_reads_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let annotations =
            BTreeMap::from([(format!("{OUTPUT_ANNOTATIONS}stdout"), path.to_str().unwrap().to_owned())]);
        let error = line(&open_outputs(&annotations).unwrap_err());
        assert!(error.ends_with("no such device or address (ENXIO)"), "{error}");
        let _reader = rustix::fs::open(&path, OFlags::RDONLY | OFlags::NONBLOCK, rustix::fs::Mode::empty());
        let stdout = open_outputs(&annotations).unwrap().stdout.unwrap();
        assert!(!rustix::fs::fcntl_getfl(&stdout).unwrap().contains(OFlags::NONBLOCK));
    }
}
