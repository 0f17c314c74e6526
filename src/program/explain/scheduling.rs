//! CPU and memory of the process: scheduler, I/O priority, affinity, memory policy.

use nix::errno::Errno;

use super::{Failed, Sentence, plain, unknown};
use crate::init::step::Step;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { program, step, errno, .. } = failed;
    match step {
        Step::MemoryPolicy { mode, .. } => Sentence {
            hint: (errno == Errno::EINVAL)
                .then_some("a memory node does not exist on this host, or the flags conflict"),
            ..plain(format!("set memory policy {mode:#x}"))
        },
        // The wording that runc's callers look for.
        Step::Scheduler(_) if errno == Errno::EPERM && program.has_cpu_list => Sentence {
            hint: Some("remove /linux/resources/cpu/cpus or the scheduler"),
            ..plain("process scheduler can't be used together with AllowedCPUs".into())
        },
        Step::Scheduler(_) => Sentence {
            hint: match errno {
                Errno::EPERM => Some("requires CAP_SYS_NICE in the initial user namespace"),
                Errno::EBUSY => Some("not enough SCHED_DEADLINE bandwidth is left on these CPUs"),
                Errno::EINVAL => Some("this kernel does not support the policy or one of the flags"),
                _ => None,
            },
            ..plain("set the scheduler".into())
        },
        Step::IoPriority { .. } => Sentence {
            hint: (errno == Errno::EPERM).then_some("IOPRIO_CLASS_RT requires CAP_SYS_NICE or CAP_SYS_ADMIN"),
            ..plain("set the I/O priority".into())
        },
        Step::Affinity { .. } => Sentence {
            hint: (errno == Errno::EINVAL)
                .then_some("the container is not allowed to run on any of these CPUs"),
            ..plain("set the CPU affinity".into())
        },
        Step::ResetAffinity => plain("reset the CPU affinity".into()),
        _ => unknown(),
    }
}
