//! The process before it runs its program: descriptors, session, keyring, limits and working directory.

use nix::errno::Errno;

use super::{Failed, Sentence, plain, unknown};
use crate::init::step::Step;

pub(super) fn sentence(failed: Failed<'_>) -> Sentence {
    let Failed { step, errno, .. } = failed;
    match step {
        Step::CloseOthers { .. } => plain("close the parent's descriptors".into()),
        Step::Dumpable { .. } => plain("make the init process dumpable".into()),
        Step::JoinSessionKeyring { name, label: Some(label), .. } => Sentence {
            hint: Some("use --no-new-keyring to run without one"),
            ..plain(format!(
                "join session keyring {name:?} with SELinux label {label:?} (`/proc/thread-self/attr/keycreate`)"
            ))
        },
        Step::JoinSessionKeyring { name, label: None, .. } => Sentence {
            hint: Some("use --no-new-keyring to run without one"),
            ..plain(format!("join session keyring {name:?}"))
        },
        Step::NewSession => plain("start a new session".into()),
        Step::Rlimit { soft, hard, .. } => Sentence {
            hint: (errno == Errno::EPERM).then_some("raising a hard limit requires CAP_SYS_RESOURCE"),
            ..plain(format!("set rlimit to {soft}:{hard}"))
        },
        Step::Personality { domain } => plain(format!("set personality {domain:#x}")),
        Step::ChangeDirectory { path, .. } => plain(format!("change to directory {path:?}")),
        Step::FindHome { .. } => plain("look up the user's home directory".into()),
        _ => unknown(),
    }
}
