//! The options that `create` and `run` share.

use crate::host::environment::Environment;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Context;
use crate::bundle::Bundle;
use crate::cli::global::CgroupManager;
use crate::container::ContainerId;
use crate::host::signals::Signals;
use crate::launch::create::{Cgroups, Keyring, Request, Start, Switch};

#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Path to the bundle directory [default: current directory]
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// Use FILE instead of config.json in the bundle
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// UNIX socket that receives the terminal (pty master)
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// UNIX socket that receives a pidfd of the container process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Write the PID of the container process to FILE
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Use MS_MOVE and chroot instead of pivot_root, e.g. if the host's root is a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// Do not create a new session keyring for the container
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass N additional file descriptors (3 and up, after LISTEN_FDS) to the container
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

impl CreateArgs {
    /// Opens the bundle at `path`. Signals are not blocked yet and can end this process: the configuration
    /// may come through a pipe.
    pub fn open(&self, path: &Path) -> Result<Bundle> {
        Bundle::open(path, self.config.as_deref())
    }

    /// Builds the request for `create`. Signals are blocked: one that asks this process to end undoes what
    /// was made.
    pub fn request<'a>(
        &'a self,
        id: &'a ContainerId,
        program: Start,
        signals: &'a Signals,
        context: &'a Context,
    ) -> Request<'a> {
        let cgroups = match context.cgroup_manager {
            CgroupManager::Cgroupfs => Cgroups::Own,
            CgroupManager::Disabled => Cgroups::Disabled,
            CgroupManager::Systemd => Cgroups::Systemd,
        };
        Request {
            id,
            root: &context.root,
            program,
            pid_file: self.pid_file.as_deref(),
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            switch: if self.no_pivot { Switch::Move } else { Switch::Pivot },
            keyring: if self.no_new_keyring { Keyring::Inherited } else { Keyring::New },
            cgroups,
            rootless: context.rootless,
            preserve_fds: self.preserve_fds,
            environment: Environment::own(),
            signals,
            log: &context.log,
            executable: RefCell::new(context.executable.take()),
        }
    }
}
