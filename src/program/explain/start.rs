//! The last steps: finding the program, waiting for the parent and for `start`, execve.

use nix::errno::Errno;

use super::{Failed, Sentence, plain, unknown};
use crate::init::step::Step;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { program, step, errno, .. } = failed;
    match step {
        // The wording of Go's os/exec, which engines look for.
        Step::FindProgram { .. } if errno == Errno::ENOENT && !program.name.contains('/') => Sentence {
            is_whole_message: true,
            ..plain(format!("exec {:?}: executable file not found in $PATH", program.name))
        },
        Step::FindProgram { .. } => plain(format!("exec {:?}", program.name)),
        // The same words as the init process prints when the parent no longer listens.
        Step::Execute { .. } => Sentence {
            hint: match errno {
                Errno::ENOEXEC => Some("neither an executable for this machine nor a script with a #! line"),
                Errno::EPERM | Errno::ENOSYS if program.has_filter() => {
                    Some("the seccomp profile may not allow execve")
                }
                _ => None,
            },
            ..plain(format!("exec {}", program.name))
        },
        Step::EndOnSignals => plain("set up signal handling".into()),
        Step::Meet { .. } | Step::AwaitParent | Step::Ready => plain("wait for the runtime".into()),
        Step::AwaitStart { .. } => plain("wait for start".into()),
        Step::CloseOnExec { .. } => plain("mark descriptors close-on-exec".into()),
        _ => unknown(),
    }
}
