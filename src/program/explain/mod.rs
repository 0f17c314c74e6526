//! Sentences about steps that failed.

mod hints;

use anyhow::anyhow;
use nix::errno::Errno;

use super::{Origin, Program};
use crate::bundle::document;
use crate::error::{Fault, Hint, Pointer, Stage};
use crate::init::step::{Bind, Entry, Identity, Parameter, Part, Step};
use crate::plan::hooks;
use crate::plan::linux::namespaces;
use crate::plan::linux::namespaces::word;

/// A failure in words: what was being done, and what would make it right.
struct Sentence {
    doing: String,
    hint: Option<&'static str>,
    /// Added to the origin's pointer, as `/options/2`.
    field: Option<(&'static str, Option<usize>)>,
}

impl Program {
    /// The error that step number `step`, from 0, failed with. `said` is what a hook has said last.
    pub fn explain(&self, step: u32, errno: crate::sys::Errno, part: Part, said: &[u8]) -> anyhow::Error {
        let index = usize::try_from(step).unwrap_or(usize::MAX);
        let errno = Errno::from_raw(errno.raw_os_error());
        let (Some(step), Some(origin)) = (self.steps.get(index), self.origins.get(index)) else {
            return anyhow!(errno).context("start the container");
        };
        let stage = match step {
            Step::Mount(_) | Step::Bind(_) | Step::Remount(_) | Step::Seal { .. } => Stage::Mount,
            Step::Execute { .. } => Stage::Program,
            _ => Stage::Init,
        };
        self.fault(step, origin, errno, part, said).context(stage)
    }

    fn fault(&self, step: &Step, origin: &Origin, errno: Errno, part: Part, said: &[u8]) -> anyhow::Error {
        if let Step::RunHook(hook) = step {
            let pointer = self.pointer(origin, Part::Whole).unwrap_or_else(Pointer::root);
            let ended = match part {
                Part::Hook(ended) => Ok(ended),
                _ => Err(errno),
            };
            return hooks::failure_of_step(pointer, hook, ended, said);
        }
        let mut sentence = self.sentence(step, origin, errno, part);
        let origin = match step {
            Step::Identity(who) if part == Part::Source => capabilities(who, errno),
            _ => origin,
        };
        if self.is_in_user_namespace {
            sentence.hint = sentence.hint.or_else(|| hints::in_user_namespace(step, errno, part));
        }
        // Texts that engines look for and that are the whole sentence.
        let says_it_all = match step {
            Step::FindProgram { .. } => errno == Errno::ENOENT && !self.name.contains('/'),
            Step::JoinNamespacesOf { .. } => errno == Errno::ESRCH,
            _ => false,
        };
        let Some(mut pointer) = self.pointer(origin, part) else {
            let error = anyhow!(errno);
            return match sentence.hint {
                _ if says_it_all => anyhow!(sentence.doing),
                Some(hint) => error.context(Hint(sentence.doing, hint.to_owned())),
                None => error.context(sentence.doing),
            };
        };
        if let Some((field, place)) = sentence.field {
            pointer = pointer.field(field);
            if let Some(place) = place {
                pointer = pointer.index(place);
            }
        }
        let fault = Fault { pointer, message: sentence.doing, hint: sentence.hint.map(str::to_owned) };
        if says_it_all { fault.into() } else { anyhow!(errno).context(fault) }
    }

    fn sentence(&self, step: &Step, origin: &Origin, errno: Errno, part: Part) -> Sentence {
        let plain = |doing: String| Sentence { doing, hint: None, field: None };
        match step {
            Step::CloseOthers { .. } => plain("close the parent's descriptors".into()),
            Step::JoinNamespace { kind, .. } => Sentence {
                doing: match origin {
                    Origin::Namespace(_, path) => format!("join the {} namespace {path:?}", word(*kind)),
                    _ => format!("join a {} namespace", word(*kind)),
                },
                hint: (errno == Errno::EINVAL).then_some("the path may not be a namespace of that type"),
                field: Some(("path", None)),
            },
            Step::JoinNamespacesOf { .. } if errno == Errno::ESRCH => {
                plain("cannot exec in a stopped container".into())
            }
            Step::JoinNamespacesOf { .. } => plain("join the container's namespaces".into()),
            Step::HoldPidNamespace { .. } => plain("open the pid namespace".into()),
            Step::Successor { kinds: 0 } => plain("clone the process in the pid namespace".into()),
            Step::Successor { kinds } => {
                plain(format!("clone the init process in the new {} namespace", namespaces::words(*kinds)))
            }
            Step::Dumpable { .. } => plain("make the init process dumpable".into()),
            Step::TakeIds { uid, gid } => plain(format!("become user {uid}:{gid} of the user namespace")),
            Step::Loopback => plain("bring up interface lo".into()),
            Step::NewNamespaces { kinds } => {
                plain(format!("create the {} namespace", namespaces::words(*kinds)))
            }
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
            Step::TimeOffsets { .. } => Sentence {
                hint: match errno {
                    Errno::ERANGE => Some("the offset would make the clock negative or too large"),
                    Errno::EPERM | Errno::EACCES => Some("requires CAP_SYS_TIME"),
                    _ => None,
                },
                ..plain("set the clocks of the time namespace".into())
            },
            Step::NewSession => plain("start a new session".into()),
            Step::JoinNewNetwork => plain("join the new network namespace".into()),
            Step::HostPropagation { path, .. } => plain(format!("change the propagation of {path:?}")),
            Step::HideHostMount { path } => plain(format!("hide the host's mount {path:?}")),
            Step::HoldNodes { .. } => plain("open the devices".into()),
            Step::OpenRootfs { path, .. } | Step::HoldRootfs { path } => {
                plain(format!("open rootfs {path:?}"))
            }
            Step::Mount(_) | Step::Bind(_) | Step::Remount(_) | Step::Seal { .. } => mount(step, errno, part),
            Step::Populate { directory, entries } => match (part, entries.get(place(part))) {
                (Part::Item(_), Some(Entry::Node { name, .. })) => {
                    let hint = match errno {
                        Errno::ENOENT => Some(
                            "in a user namespace, the host's device node of that path is used, which does not exist",
                        ),
                        Errno::ENODEV => Some(
                            "in a user namespace, the host's device node of that path is used, which is a \
                             different device",
                        ),
                        _ => None,
                    };
                    Sentence { hint, ..plain(format!("create device {}/{}", text(directory), text(name))) }
                }
                (Part::Item(_), Some(Entry::Link { name, .. } | Entry::ReplacingLink { name, .. })) => {
                    plain(format!("create link {}/{}", text(directory), text(name)))
                }
                _ => plain(format!("open {} in the rootfs", text(directory))),
            },
            Step::PivotRoot { .. } => Sentence {
                hint: (errno == Errno::EINVAL)
                    .then_some("pivot_root does not work if the host's root is a ramdisk: use --no-pivot"),
                ..plain("pivot_root to the rootfs".into())
            },
            Step::MoveRoot => plain("move the rootfs onto /".into()),
            Step::ChangeRoot => plain("chroot to the rootfs".into()),
            Step::RootPropagation { .. } => plain("change the propagation of /".into()),
            Step::MakeDirectory { path } => plain(format!("create directory {path:?}")),
            Step::Console { .. } => match part {
                Part::Source => Sentence {
                    hint: Some("a terminal requires devpts mounted on /dev/pts"),
                    ..plain("open a pty".into())
                },
                Part::Target => plain("mount the pty on /dev/console".into()),
                Part::OnProc => Sentence {
                    hint: Some("a symbolic link in the image points there"),
                    ..plain("/dev/console cannot be mounted because it is inside /proc".into())
                },
                _ => plain("set up the terminal".into()),
            },
            Step::OwnStreams => plain("reopen standard streams that are host devices".into()),
            Step::Hostname { name } => plain(format!("set hostname {name:?}")),
            Step::Domainname { name } => plain(format!("set domain name {name:?}")),
            Step::Sysctl { settings } => match settings.get(place(part)) {
                Some((path, value)) if part != Part::Whole => Sentence {
                    hint: (errno == Errno::ENOENT).then_some("this kernel has no such parameter"),
                    ..plain(format!("write {value:?} to /proc/sys/{}", text(path)))
                },
                _ => plain("open procfs".into()),
            },
            Step::ReadOnlyPath { path } => Sentence {
                hint: (errno == Errno::EINVAL).then_some(TAKEN_AWAY),
                ..plain(format!("make {path:?} read-only"))
            },
            Step::MaskPaths { paths, .. } => {
                let path = paths.get(place(part)).map(|path| text(path)).unwrap_or_default();
                Sentence {
                    hint: match errno {
                        Errno::ENODEV => Some("the container's /dev/null is not the null device"),
                        Errno::EBUSY => {
                            Some("the path resolves to the container's root, which cannot be masked")
                        }
                        Errno::EINVAL => Some(TAKEN_AWAY),
                        _ => None,
                    },
                    ..plain(format!("mask {path:?}"))
                }
            }
            Step::Rlimit { soft, hard, .. } => Sentence {
                hint: (errno == Errno::EPERM).then_some("raising a hard limit requires CAP_SYS_RESOURCE"),
                ..plain(format!("set rlimit to {soft}:{hard}"))
            },
            Step::Personality { domain } => plain(format!("set personality {domain:#x}")),
            Step::MemoryPolicy { mode, .. } => Sentence {
                hint: (errno == Errno::EINVAL)
                    .then_some("a memory node does not exist on this host, or the flags conflict"),
                ..plain(format!("set memory policy {mode:#x}"))
            },
            // The words that runc's callers look for.
            Step::Scheduler(_) if errno == Errno::EPERM && self.has_cpu_list => Sentence {
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
                hint: (errno == Errno::EPERM)
                    .then_some("IOPRIO_CLASS_RT requires CAP_SYS_NICE or CAP_SYS_ADMIN"),
                ..plain("set the I/O priority".into())
            },
            Step::Affinity { .. } => Sentence {
                hint: (errno == Errno::EINVAL)
                    .then_some("the container is not allowed to run on any of these CPUs"),
                ..plain("set the CPU affinity".into())
            },
            Step::ResetAffinity => plain("reset the CPU affinity".into()),
            // Podman looks for the path in these quotes.
            Step::ApparmorProfile { command } => Sentence {
                hint: match (part, errno) {
                    (Part::Whole, Errno::ENOENT) => {
                        Some("the profile may not be loaded; apparmor_status(8) lists loaded profiles")
                    }
                    (Part::Whole, Errno::EPERM) => {
                        Some("the runtime's own profile must allow the transition")
                    }
                    _ => None,
                },
                ..plain(label(part, command, "/proc/thread-self/attr/apparmor/exec"))
            },
            Step::SelinuxLabel { label: wanted } => Sentence {
                hint: match (part, errno) {
                    (Part::Whole, Errno::EINVAL) => Some("the label is not valid in the loaded policy"),
                    (Part::Whole, Errno::EACCES) => Some("the loaded policy denies the transition"),
                    _ => None,
                },
                ..plain(label(part, wanted, "/proc/thread-self/attr/exec"))
            },
            Step::NoNewPrivileges => plain("set no_new_privs".into()),
            Step::ChangeDirectory { path, .. } => plain(format!("change to directory {path:?}")),
            Step::Identity(who) => match part {
                Part::Source => Sentence {
                    hint: Some(match is_beyond_bounding(who) {
                        true => "inheritable capabilities must also be in the bounding set",
                        false => "the runtime cannot grant capabilities it does not have",
                    }),
                    ..plain("set the capabilities".into())
                },
                // The words of runc.
                Part::Item(0) if errno == Errno::EINVAL => Sentence {
                    field: Some(("uid", None)),
                    ..plain(format!("cannot setuid to unmapped uid {} in user namespace", who.uid))
                },
                Part::Item(_) if errno == Errno::EINVAL => Sentence {
                    field: Some(("gid", None)),
                    ..plain(format!("cannot setgid to unmapped gid {} in user namespace", who.gid))
                },
                Part::Target if !who.groups.is_empty() => Sentence {
                    hint: match errno {
                        Errno::EPERM => Some("setgroups is denied in this user namespace"),
                        Errno::EINVAL => Some("not all of them are mapped in the user namespace"),
                        _ => None,
                    },
                    field: Some(("additionalGids", None)),
                    ..plain("set the groups".into())
                },
                _ => plain(format!("become user {}:{}", who.uid, who.gid)),
            },
            // The words of Go's os/exec, which engines look for.
            Step::FindProgram { .. } if errno == Errno::ENOENT && !self.name.contains('/') => {
                plain(format!("exec {:?}: executable file not found in $PATH", self.name))
            }
            Step::FindProgram { .. } => plain(format!("exec {:?}", self.name)),
            // As the init process itself says it when nobody listens any more.
            Step::Execute { .. } => Sentence {
                hint: match errno {
                    Errno::ENOEXEC => {
                        Some("neither an executable for this machine nor a script with a #! line")
                    }
                    Errno::EPERM | Errno::ENOSYS if self.has_filter() => {
                        Some("the seccomp profile may not allow execve")
                    }
                    _ => None,
                },
                ..plain(format!("exec {}", self.name))
            },
            Step::EndOnSignals => plain("set up signal handling".into()),
            Step::FindHome { .. } => plain("look up the user's home directory".into()),
            Step::Meet { .. } | Step::AwaitParent | Step::Ready => plain("wait for the runtime".into()),
            Step::AwaitStart { .. } => plain("wait for start".into()),
            Step::RunHook(hook) => plain(text(&hook.complaint)),
            Step::CloseOnExec { .. } => plain("mark descriptors close-on-exec".into()),
            Step::LoadFilter { .. } if part == Part::Source => Sentence {
                hint: Some("the seccomp profile must allow write and read until the agent is listening"),
                ..plain("pass the listener to the seccomp agent".into())
            },
            Step::LoadFilter { .. } => Sentence {
                hint: match errno {
                    Errno::EINVAL => Some(
                        "this kernel does not support seccomp filters, or a flag or action of this filter",
                    ),
                    Errno::EACCES => Some("requires noNewPrivileges, or CAP_SYS_ADMIN in the user namespace"),
                    Errno::EBUSY => {
                        Some("the runtime is already supervised by a seccomp agent, and only one is possible")
                    }
                    _ => None,
                },
                ..plain("load the seccomp filter".into())
            },
        }
    }
}

/// Where the capabilities come from that could not be set.
fn capabilities(who: &Identity, errno: Errno) -> &'static Origin {
    match is_beyond_bounding(who) && errno == Errno::EPERM {
        true => &Origin::Field("/process/capabilities/inheritable"),
        false => &Origin::Field("/process/capabilities"),
    }
}

/// The kernel takes no such inheritable capability that the process has not inherited itself; capabilities(7).
fn is_beyond_bounding(who: &Identity) -> bool {
    who.sets.inheritable & !who.bounding != 0
}

/// A mount that is in no mount namespace any more, or of which there may be no clone; move_mount(2), open_tree(2).
const TAKEN_AWAY: &str = "the mount is unbindable, or was unmounted by another process sharing the rootfs";

fn label(part: Part, wanted: &std::ffi::CStr, path: &str) -> String {
    match part {
        Part::Source => "open procfs".into(),
        Part::Target => format!("open `{path}`"),
        _ => format!("write {wanted:?} to `{path}`"),
    }
}

/// What a bind does.
pub fn describe_bind(bind: &Bind) -> String {
    format!("bind {:?} on {}", text(&bind.source), text(&bind.target.path))
}

fn mount(step: &Step, errno: Errno, part: Part) -> Sentence {
    let (doing, target, parameters) = match step {
        Step::Mount(mount) => (
            format!("mount {:?} on {}", text(&mount.fstype), text(&mount.target.path)),
            &mount.target.path,
            &mount.parameters[..],
        ),
        Step::Bind(bind) => (describe_bind(bind), &bind.target.path, &[][..]),
        Step::Remount(remount) => {
            (format!("remount {}", text(&remount.target.path)), &remount.target.path, &remount.parameters[..])
        }
        Step::Seal { path, .. } => (format!("make {} read-only", text(path)), path, &[][..]),
        _ => return Sentence { doing: String::new(), hint: None, field: None },
    };
    let sentence = Sentence { doing, hint: None, field: None };
    match part {
        Part::Whole if errno == Errno::ENODEV => Sentence {
            hint: Some("this kernel does not support that file system type"),
            field: Some(("type", None)),
            ..sentence
        },
        Part::Whole => sentence,
        Part::Source => Sentence { field: Some(("source", None)), ..sentence },
        Part::Target if matches!(errno, Errno::ELOOP | Errno::ENOTDIR) && matches!(step, Step::Mount(_)) => {
            Sentence {
                doing: format!("{}: must be mounted on ordinary directory", sentence.doing),
                field: Some(("destination", None)),
                ..sentence
            }
        }
        Part::Target => Sentence {
            hint: match errno {
                Errno::ENOTDIR => Some("source and destination must both be directories, or neither"),
                Errno::EBUSY => Some("the path resolves to the container's root: set /root/path instead"),
                _ => None,
            },
            field: Some(("destination", None)),
            ..sentence
        },
        Part::OnProc => Sentence {
            doing: format!("{:?} cannot be mounted because it is inside /proc", text(target)),
            hint: None,
            field: Some(("destination", None)),
        },
        Part::Hook(_) => sentence,
        // Of the parameters that are no options only a label can be refused.
        Part::Item(Parameter::NOT_AN_OPTION) => Sentence {
            doing: format!("{}: set its SELinux label", sentence.doing),
            hint: Some("the label is from /linux/mountLabel"),
            field: None,
        },
        Part::Item(index) => {
            let option =
                parameters.iter().find(|parameter| parameter.option == index).map(
                    |parameter| match &parameter.value {
                        Some(value) => format!("{}={}", text(&parameter.key), text(value)),
                        None => text(&parameter.key),
                    },
                );
            Sentence {
                doing: format!(
                    "{}: unknown mount option or invalid value {:?}",
                    sentence.doing,
                    option.unwrap_or_default()
                ),
                field: Some(("options", Some(usize::from(index)))),
                ..sentence
            }
        }
    }
}

impl Program {
    /// Where the step comes from; `None` if the runtime itself wants it, or the caller of `exec` by an option.
    fn pointer(&self, origin: &Origin, part: Part) -> Option<Pointer> {
        match origin {
            Origin::Runtime => None,
            Origin::Masked(places) => {
                let at = self.written("/linux/maskedPaths")?;
                Some(places.get(place(part)).map_or_else(|| at.clone(), |index| at.index(*index)))
            }
            Origin::Field(path) => self.written(path),
            Origin::Namespace(index, _) => Some(self.written("/linux/namespaces")?.index(*index)),
            Origin::Item(path, index) => Some(self.written(path)?.index(*index)),
            Origin::Devices(places) => {
                let index = places.get(place(part)).copied().flatten()?;
                Some(self.written("/linux/devices")?.index(index))
            }
            Origin::Sysctl(keys) => {
                let at = self.written("/linux/sysctl")?;
                Some(keys.get(place(part)).map_or_else(|| at.clone(), |key| at.field(key)))
            }
        }
    }

    /// A pointer into `config.json` that is written out, or the place in the process's own document.
    fn written(&self, path: &str) -> Option<Pointer> {
        let is_exception = self.source.exceptions.contains(&path);
        let below = |root: Pointer, path: &str| path.split('/').skip(1).fold(root, |at, name| at.field(name));
        match path.strip_prefix("/process") {
            Some(path) if self.source.is_file && !is_exception => {
                Some(below(Pointer::of(document::PROCESS), path))
            }
            Some(_) if is_exception && !self.source.is_file => None,
            _ => Some(below(Pointer::root(), path)),
        }
    }
}

fn place(part: Part) -> usize {
    match part {
        Part::Item(index) => usize::from(index),
        _ => 0,
    }
}

fn text(string: &std::ffi::CStr) -> String {
    string.to_string_lossy().into_owned()
}
