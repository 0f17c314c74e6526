//! The birth of the init process.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Request;
use super::acquire::{Held, Pending};
use crate::host::process::socket_pair;
use crate::launch::conversation::{Circumstances, Conversation};
use crate::launch::spawn::Setting;
use crate::program::Program;
use crate::sys::process::close_on_exec_from;

/// Clones the init process, or the intermediate before it, in its cgroup.
pub(super) fn bear<'a>(
    request: &Request<'_>,
    held: &mut Held,
    pending: &mut Pending,
    program: &'a mut Program,
) -> Result<Conversation<'a>> {
    let (ours, theirs) = socket_pair()?;
    program.close_all_but(theirs.as_fd(), pending.inherited);
    // What our caller left open is not for the container; what is for it comes first (CVE-2024-21626).
    close_on_exec_from(pending.inherited.saturating_add(3)).context("mark descriptors close-on-exec")?;
    let setting = Setting {
        new: pending.setup.cloned,
        pid_namespace: pending.pid_namespace.as_ref(),
        waits: !pending.user.is_own(),
        earlier_ooms: pending.earlier_ooms,
    };
    let (process, start) = setting.clone(&mut held.cgroup, program, &theirs)?;
    drop(theirs);
    if !held.cgroup.attaches_late() {
        held.cgroup.attach(process.pid)?;
    }
    // The words in these two that runc's own tests look for are the names of what does the same in runc.
    request.log.debug(format_args!("nsexec container setup: one clone3 made process {}", process.pid));
    let steps = program.steps.len();
    request.log.debug(format_args!("child process in init(): it performs {steps} steps"));
    let circumstances = Circumstances {
        cgroup: held.cgroup.path().map(Path::to_owned),
        may_stand_still: false,
        earlier_ooms: Some(pending.earlier_ooms),
        oom_files: pending.oom_files.take(),
    };
    Conversation::new((process, start), ours, request.signals, program, circumstances)
}
