//! Checks what this process inherits from its caller: its privileges and its stack limit.

use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, anyhow, bail};
use rustix::process::{getegid, geteuid, getgid, getuid};

use crate::error::Hint;
use crate::sys::cred;
use crate::sys::cred::Sets;
use crate::sys::process::{RLIMIT_STACK, is_secure_execution, rlimit};
use crate::sys::stack::on_stack_of;

/// The stack size that must be available, far more than the most demanding command needs in a debug build.
const STACK: usize = 1 << 20;

/// `S_ISUID` and `S_ISGID`; inode(7).
const SET_ID: u32 = 0o6000;

/// Refuses to run with privileges gained from the executable file.
///
/// # Errors
/// If the file is set-user-ID or set-group-ID, or has capabilities, so that callers would gain privileges by
/// executing it.
pub fn check_rights() -> Result<()> {
    let ids = [(getuid().as_raw(), geteuid().as_raw()), (getgid().as_raw(), getegid().as_raw())];
    let capabilities = || cred::capabilities().unwrap_or_default();
    // Without these bits, the IDs were changed by the caller, with setpriv(1) for example.
    let is_set_id = || std::fs::metadata("/proc/self/exe").is_ok_and(|file| file.mode() & SET_ID != 0);
    if is_elevated(ids, is_set_id, is_secure_execution(), capabilities) {
        let message = "refusing to run with the setuid or setgid bit or with file capabilities: any user \
                       would gain the owner's privileges";
        let hint = "remove them with `chmod ug-s` or `setcap -r`; rootless containers do not need them";
        bail!(Hint(message.into(), hint.into()));
    }
    Ok(())
}

/// Whether the stack limit is enough for any command.
pub fn has_enough_stack() -> bool {
    !matches!(rlimit(RLIMIT_STACK), Ok((soft, _)) if soft < STACK as u64)
}

/// Calls `function` on a stack that is large enough. The stack limit is not changed, because the container
/// inherits it: a low one is set on purpose for programs with many threads. Without this, the runtime would
/// die of SIGSEGV there.
///
/// # Errors
/// If there is not enough memory for another stack.
pub fn on_larger_stack<R>(function: fn() -> R) -> Result<R> {
    let failed = || {
        let soft = rlimit(RLIMIT_STACK).map_or(0, |(soft, _)| soft);
        let message =
            format!("stack limit of {} KiB is too low, and a larger stack cannot be allocated", soft >> 10);
        Hint(message, format!("raise it, for example with `ulimit -s {}`", STACK >> 10))
    };
    on_stack_of(STACK, function).map_err(|errno| anyhow!(errno).context(failed()))
}

/// Whether executing the file gave more privileges than its caller had. AT_SECURE alone is not enough to
/// tell: security modules set it, too, when they change the label, as SELinux does where engines execute
/// runtimes, but then no capability is gained.
fn is_elevated(
    ids: [(u32, u32); 2],
    is_set_id: impl FnOnce() -> bool,
    is_secure: bool,
    capabilities: impl FnOnce() -> Sets,
) -> bool {
    let [(_, effective_user), _] = ids;
    ids.iter().any(|(real, effective)| real != effective) && is_set_id()
        || is_secure && effective_user != 0 && {
            let Sets { permitted, inheritable, .. } = capabilities();
            // Ambient capabilities, which come from the caller, are also inheritable.
            permitted & !inheritable != 0
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gains_rights_by_executing_the_file_is_elevated() {
        let sets = |permitted, inheritable| move || Sets { permitted, inheritable, effective: permitted };
        let user = [(1000, 1000), (1000, 1000)];
        // sudo(8), and root of a user namespace.
        assert!(!is_elevated([(0, 0), (0, 0)], || true, false, sets(u64::MAX, 0)));
        assert!(!is_elevated([(0, 0), (0, 0)], || true, true, sets(u64::MAX, 0)));
        assert!(is_elevated([(1000, 0), (1000, 1000)], || true, true, sets(u64::MAX, 0)));
        assert!(is_elevated([(1000, 1000), (1000, 0)], || true, true, sets(0, 0)));
        // Changed by another program.
        assert!(!is_elevated([(1000, 0), (1000, 1000)], || false, true, sets(u64::MAX, 0)));
        assert!(!is_elevated([(0, 0), (0, 5)], || false, true, sets(u64::MAX, 0)));
        // File capabilities; a changed label, without and with ambient capabilities.
        assert!(is_elevated(user, || false, true, sets(1 << 21, 0)));
        assert!(!is_elevated(user, || false, true, sets(0, 0)));
        assert!(!is_elevated(user, || false, true, sets(1 << 21, 1 << 21)));
        assert!(!is_elevated(user, || false, false, sets(1 << 21, 0)));
    }
}
