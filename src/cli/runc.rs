//! Messages that are printed only when this program is called `runc`.
//!
//! Users, scripts and runc's own tests look for these words. Under its own name the program prints only place
//! and cause.

use crate::error::{Stage, describe, errno, fault};

/// Prepends runc's prefix for a failure of `command`.
pub fn with_prefix(command: &str, error: anyhow::Error) -> anyhow::Error {
    let prefix = match command {
        "create" => "runc create failed",
        "run" => "runc run failed",
        "exec" => "exec failed",
        _ => return error,
    };
    let stage = match error.downcast_ref() {
        Some(Stage::Cgroup) => ": unable to start container process: unable to apply cgroup configuration",
        Some(Stage::Alive) => ": unable to start container process",
        Some(Stage::Init | Stage::Program) => {
            ": unable to start container process: error during container init"
        }
        Some(Stage::Mount) => {
            ": unable to start container process: error during container init: error mounting"
        }
        None => "",
    };
    error.context(format!("{prefix}{stage}"))
}

/// The whole message for a program that cannot be executed, as runc's init process prints it.
pub fn last_words(error: &anyhow::Error) -> Option<String> {
    let is_execve = error.downcast_ref() == Some(&Stage::Program);
    let (fault, errno) = (fault(error)?, errno(error)?);
    let cause = describe(errno);
    let cause = cause.rsplit_once(" (").map_or(cause.as_str(), |(cause, _)| cause);
    is_execve.then(|| format!("{}: {cause}", fault.message))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use nix::errno::Errno;

    use super::*;
    use crate::error::{Pointer, line};

    #[test]
    fn a_failure_of_the_init_process_is_said_to_be_one() {
        let error = anyhow!(Errno::EPERM).context("set hostname \"a\"").context(Stage::Init);
        assert_eq!(
            line(&with_prefix("run", error)),
            "runc run failed: unable to start container process: error during container init: set hostname \"a\": \
             operation not permitted (EPERM)"
        );
        let error = anyhow!(Errno::EPERM).context("mount \"proc\" on /proc").context(Stage::Mount);
        assert_eq!(
            line(&with_prefix("run", error)),
            "runc run failed: unable to start container process: error during container init: error mounting: mount \
             \"proc\" on /proc: operation not permitted (EPERM)"
        );
        let error = anyhow!(Errno::EACCES).context("make cgroup /x").context(Stage::Cgroup);
        assert_eq!(
            line(&with_prefix("create", error)),
            "runc create failed: unable to start container process: unable to apply cgroup configuration: make cgroup \
             /x: permission denied (EACCES)"
        );
        let error = anyhow!("out of memory").context("container init was OOM-killed").context(Stage::Alive);
        assert_eq!(
            line(&with_prefix("create", error)),
            "runc create failed: unable to start container process: container init was OOM-killed: out of memory"
        );
        let plain = with_prefix("exec", anyhow!("container \"a\" does not exist"));
        assert_eq!(line(&plain), "exec failed: container \"a\" does not exist");
        assert_eq!(line(&with_prefix("kill", anyhow!("no"))), "no");
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_all_that_is_said() {
        let fault =
            crate::error::Fault { pointer: Pointer::root(), message: "exec /run.sh".into(), hint: None };
        let error = anyhow!(Errno::ENOENT).context(fault).context(Stage::Program);
        let error = with_prefix("run", error);
        assert_eq!(last_words(&error).unwrap(), "exec /run.sh: no such file or directory");
        assert_eq!(last_words(&anyhow!("no")), None);
    }
}
