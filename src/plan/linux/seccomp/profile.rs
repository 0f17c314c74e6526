//! Parses and checks `/linux/seccomp`: resolves names to numbers and reports errors.

use std::path::PathBuf;

use anyhow::Result;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::arch::Arch;
use super::rules::{Action, Condition, Operator, Rule};
use super::syscalls::Call;
use super::{Listener, Unknown, syscalls};
use crate::error::Pointer;

/// A checked profile.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    pub(super) default: Action,
    /// Begins with the native one.
    pub(super) architectures: Vec<Arch>,
    pub(super) blocks: Vec<Block<'a>>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: u32,
    pub(super) listener: Option<Listener>,
    /// Names that are no system call on any architecture.
    pub(super) unknown: Vec<&'a str>,
}

/// An element of `/linux/seccomp/syscalls`.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) calls: Vec<(&'a str, &'static Call)>,
    /// Rules for each of the calls; none if the action is the default one.
    pub(super) rules: Vec<Rule>,
}

/// Parses the object at `at` (`/linux/seccomp`) for a kernel of architecture `native`.
pub(super) fn read<'a>(
    seccomp: &'a LinuxSeccomp,
    native: Arch,
    unknown: Unknown,
    at: &Pointer,
) -> Result<Profile<'a>> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret(), at, "defaultErrnoRet")?;
    if default == Action::NOTIFY {
        return Err(at.field("defaultAction").error("SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let mut profile = Profile {
        default,
        architectures: Arch::of_profile(seccomp.architectures().as_deref().unwrap_or_default(), native),
        blocks: Vec::new(),
        flags: 0,
        listener: None,
        unknown: Vec::new(),
    };
    let mut notifies = false;
    for (index, block) in seccomp.syscalls().iter().flatten().enumerate() {
        let at = at.field("syscalls").index(index);
        let rules = rules(block, default, &at)?;
        let is_notify = block.action() == LinuxSeccompAction::ScmpActNotify;
        let mut calls = Vec::with_capacity(block.names().len());
        for (index, name) in block.names().iter().enumerate() {
            let wrong = |message: &str| at.field("names").index(index).error(message);
            match syscalls::find(name) {
                // The process uses write to tell the parent which descriptor to pass to the agent.
                Some(_) if is_notify && name == "write" => {
                    return Err(wrong("SCMP_ACT_NOTIFY cannot be used for the write syscall"));
                }
                Some(call) => calls.push((name.as_str(), call)),
                None if name.is_empty() => return Err(wrong("name must not be empty")),
                None if unknown == Unknown::Refuse => {
                    return Err(wrong(&format!("unknown system call {name:?}")));
                }
                None => profile.unknown.push(name),
            }
        }
        notifies |= is_notify;
        profile.blocks.push(Block { calls, rules });
    }
    profile.flags = flags(seccomp.flags().as_deref(), notifies, &at.field("flags"))?;
    profile.listener = listener(seccomp, notifies, at)?;
    Ok(profile)
}

/// Errors if an errno is given for an action that takes none, as config-linux.md requires.
fn action(action: LinuxSeccompAction, errno: Option<u32>, at: &Pointer, field: &str) -> Result<Action> {
    use LinuxSeccompAction as A;
    /// The kernel's limit (`MAX_ERRNO`); with 0 the call is skipped and returns success.
    const ERRNOS: u16 = 4095;
    let number = |most: u16| {
        let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
        u16::try_from(errno)
            .ok()
            .filter(|number| *number <= most)
            .ok_or_else(|| at.field(field).error(format_args!("{errno} is out of range (0 to {most})")))
    };
    let plain = match action {
        A::ScmpActErrno => return number(ERRNOS).map(Action::errno),
        A::ScmpActTrace => return number(u16::MAX).map(Action::trace),
        A::ScmpActKill | A::ScmpActKillThread => Action::KILL_THREAD,
        A::ScmpActKillProcess => Action::KILL_PROCESS,
        A::ScmpActTrap => Action::TRAP,
        A::ScmpActNotify => Action::NOTIFY,
        A::ScmpActLog => Action::LOG,
        A::ScmpActAllow => Action::ALLOW,
    };
    match errno {
        Some(errno) => Err(at.field(field).error_with_hint(
            format_args!("errno {errno} is not supported by this action"),
            "only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take an errno",
        )),
        None => Ok(plain),
    }
}

fn rules(block: &LinuxSyscall, default: Action, at: &Pointer) -> Result<Vec<Rule>> {
    let action = action(block.action(), block.errno_ret(), at, "errnoRet")?;
    let args = block.args().as_deref().unwrap_or_default();
    let mut conditions = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        conditions.push(condition(arg, &at.field("args").index(index))?);
    }
    if action == default {
        return Ok(Vec::new());
    }
    // A stable sort, which makes equal arguments neighbours.
    conditions.sort_by_key(|condition| condition.argument);
    if conditions.windows(2).any(|pair| matches!(pair, [a, b] if a.argument == b.argument)) {
        // One rule for each condition, as in runc, which did so before rules could have several conditions.
        let alone = conditions.into_iter().map(|condition| Rule { action, conditions: vec![condition] });
        return Ok(alone.collect());
    }
    Ok(vec![Rule { action, conditions }])
}

fn condition(arg: &LinuxSeccompArg, at: &Pointer) -> Result<Condition> {
    use LinuxSeccompOperator as O;
    let Some(argument) = u8::try_from(arg.index()).ok().filter(|index| *index < 6) else {
        return Err(at.field("index").error(format_args!("{} is out of range (0 to 5)", arg.index())));
    };
    let operator = match arg.op() {
        O::ScmpCmpNe => Operator::NotEqual,
        O::ScmpCmpLt => Operator::Less,
        O::ScmpCmpLe => Operator::LessOrEqual,
        O::ScmpCmpEq => Operator::Equal,
        O::ScmpCmpGe => Operator::GreaterOrEqual,
        O::ScmpCmpGt => Operator::Greater,
        O::ScmpCmpMaskedEq => {
            return Ok(Condition::masked(argument, arg.value(), arg.value_two().unwrap_or(0)));
        }
    };
    Ok(Condition::whole(argument, operator, arg.value()))
}

/// `SECCOMP_FILTER_FLAG_*`; linux/seccomp.h.
pub(super) const FLAGS: [(LinuxSeccompFilterFlag, u32); 4] = [
    // Applies the filter to all threads; there is only one.
    (LinuxSeccompFilterFlag::SeccompFilterFlagTsync, 0),
    (LinuxSeccompFilterFlag::SeccompFilterFlagLog, 1 << 1),
    (LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow, SPEC_ALLOW),
    (LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv, 1 << 5),
];
const SPEC_ALLOW: u32 = 1 << 2;

fn flags(named: Option<&[LinuxSeccompFilterFlag]>, notifies: bool, at: &Pointer) -> Result<u32> {
    // The default of runc and crun, which spares the program the cost of a mitigation. An empty list turns it
    // off.
    let Some(named) = named else { return Ok(SPEC_ALLOW) };
    let mut flags = 0;
    for (index, flag) in named.iter().enumerate() {
        if *flag == LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv && !notifies {
            return Err(at
                .index(index)
                .error(format_args!("{:?} requires a rule with SCMP_ACT_NOTIFY", flag.to_string())));
        }
        flags |= FLAGS.iter().find(|(known, _)| known == flag).map_or(0, |(_, bit)| *bit);
    }
    Ok(flags)
}

fn listener(seccomp: &LinuxSeccomp, notifies: bool, at: &Pointer) -> Result<Option<Listener>> {
    let path = seccomp.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata().as_ref().filter(|metadata| !metadata.is_empty());
    match (path, metadata) {
        (None, Some(_)) => Err(at.field("listenerMetadata").error("requires listenerPath to be set")),
        (None, None) if notifies => Err(at.field("listenerPath").error_with_hint(
            "seccomp listenerPath is not set",
            "SCMP_ACT_NOTIFY requires an agent: set listenerPath to the UNIX socket it listens on",
        )),
        (Some(path), _) if notifies && path.is_relative() => {
            Err(at.field("listenerPath").error(format_args!("path {path:?} must be absolute")))
        }
        (Some(path), metadata) if notifies => {
            Ok(Some(Listener { path: PathBuf::from(path), metadata: metadata.cloned() }))
        }
        // No rule notifies an agent.
        _ => Ok(None),
    }
}
