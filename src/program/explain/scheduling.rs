//! When, where and with which memory the process runs: scheduler, I/O priority, affinity, memory policy.

use nix::errno::Errno;

use super::{Failed, Sentence, plain, unknown};
use crate::init::step::Step;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { program, step, errno, .. } = failed;
    match step {
        Step::MemoryPolicy { mode, .. } => Sentence {
            hint: (errno == Errno::EINVAL)
                .then_some("this machine has no such memory node, or the flags do not go together"),
            ..plain(format!("set memory policy {mode:#x}"))
        },
        // The words that runc's callers look for.
        Step::Scheduler(_) if errno == Errno::EPERM && program.has_cpu_list => Sentence {
            hint: Some("give up /linux/resources/cpu/cpus or the scheduler"),
            ..plain("process scheduler can't be used together with AllowedCPUs".into())
        },
        Step::Scheduler(_) => Sentence {
            hint: match errno {
                Errno::EPERM => Some("it needs CAP_SYS_NICE, and not of a user namespace"),
                Errno::EBUSY => Some("the processors are promised to other SCHED_DEADLINE processes"),
                Errno::EINVAL => Some("this kernel lacks the policy or one of the flags"),
                _ => None,
            },
            ..plain("set the scheduler".into())
        },
        Step::IoPriority { .. } => Sentence {
            hint: (errno == Errno::EPERM).then_some("IOPRIO_CLASS_RT needs CAP_SYS_NICE or CAP_SYS_ADMIN"),
            ..plain("set the I/O priority".into())
        },
        Step::Affinity { .. } => Sentence {
            hint: (errno == Errno::EINVAL).then_some("the container may run on none of these processors"),
            ..plain("set the CPU affinity".into())
        },
        Step::ResetAffinity => plain("reset the CPU affinity".into()),
        _ => unknown(),
    }
}
