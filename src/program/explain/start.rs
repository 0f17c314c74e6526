//! The last steps: the program is found, parent and `start` are waited for, execve.

use nix::errno::Errno;

use super::{Failed, Sentence, plain, unknown};
use crate::init::step::Step;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { program, step, errno, .. } = failed;
    match step {
        // The words of Go's os/exec, which engines look for.
        Step::FindProgram { .. } if errno == Errno::ENOENT && !program.name.contains('/') => Sentence {
            is_whole_message: true,
            ..plain(format!("exec {:?}: executable file not found in $PATH", program.name))
        },
        Step::FindProgram { .. } => plain(format!("exec {:?}", program.name)),
        // As the init process itself says it when nobody listens any more.
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
