//! Hooks; config.md § POSIX-platform Hooks, runtime.md § Lifecycle.
//!
//! | Kind | When | Where |
//! |---|---|---|
//! | prestart, createRuntime | `create`: the mounts are made, `/` is still the host's | the runtime's namespaces |
//! | createContainer | right after them | the container's namespaces, in the directory that becomes `/` |
//! | startContainer | `start`: only execve is left | the container, as the program's user |
//! | poststart | `start`: the program has started | the runtime's namespaces |
//! | poststop | `delete`: the container has been removed | the runtime's namespaces |
//!
//! The init process runs those in the container, as steps; `container/hooks.rs` runs the others. Both run a
//! hook as implemented in `init/hook.rs`.

use std::ffi::CString;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use oci_spec::runtime;
use serde::{Deserialize, Serialize};

use crate::error::{Fault, Pointer};
use crate::host::signals::Signal;
use crate::init::step;
use crate::init::step::{Ended, Outputs, RunHook, Within};
use crate::sys::process::Argv;

/// The kinds of hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// The common prefix of crun's annotations that name files for the output of hooks.
pub const OUTPUT_ANNOTATIONS: &str = "run.oci.hooks.";

/// The names of the kinds, in the order in which they run.
pub fn known() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name())
}

const KINDS: [HookKind; 6] = [
    HookKind::Prestart,
    HookKind::CreateRuntime,
    HookKind::CreateContainer,
    HookKind::StartContainer,
    HookKind::Poststart,
    HookKind::Poststop,
];

impl HookKind {
    /// The pointer into `config.json`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Prestart => "/hooks/prestart",
            Self::CreateRuntime => "/hooks/createRuntime",
            Self::CreateContainer => "/hooks/createContainer",
            Self::StartContainer => "/hooks/startContainer",
            Self::Poststart => "/hooks/poststart",
            Self::Poststop => "/hooks/poststop",
        }
    }

    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }

    pub fn at(self, index: usize) -> Pointer {
        Pointer::root().field("hooks").field(self.name()).index(index)
    }
}

/// A hook, as planned and as recorded; its strings contain no NUL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// Begins with the program's name; never empty.
    pub args: Vec<String>,
    /// `None`: the environment of the process that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// In seconds, at least 1; `None`: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// All hooks of a container, each list in the order in which it runs.
#[derive(Clone, Debug, Default)]
pub struct HookPlan {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// What later commands must know about the hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedHooks {
    /// Whether the init process runs hooks on `start`.
    #[serde(default)]
    pub start_container: bool,
    #[serde(default)]
    pub poststart: Vec<Hook>,
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

impl RecordedHooks {
    pub fn is_empty(&self) -> bool {
        !self.start_container && self.poststart.is_empty() && self.poststop.is_empty()
    }
}

/// Plans the object at `at` (`/hooks`).
pub fn plan(hooks: Option<&runtime::Hooks>, at: &Pointer) -> Result<HookPlan> {
    let Some(hooks) = hooks else { return Ok(HookPlan::default()) };
    let list = |hooks: &Option<Vec<runtime::Hook>>, kind: HookKind| -> Result<Vec<Hook>> {
        let at = at.field(kind.name());
        let hooks = hooks.iter().flatten().enumerate();
        hooks.map(|(index, hook)| one(hook, &at.index(index))).collect()
    };
    Ok(HookPlan {
        #[allow(deprecated, reason = "the specification keeps it, and BuildKit uses it")]
        prestart: list(hooks.prestart(), HookKind::Prestart)?,
        create_runtime: list(hooks.create_runtime(), HookKind::CreateRuntime)?,
        create_container: list(hooks.create_container(), HookKind::CreateContainer)?,
        start_container: list(hooks.start_container(), HookKind::StartContainer)?,
        poststart: list(hooks.poststart(), HookKind::Poststart)?,
        poststop: list(hooks.poststop(), HookKind::Poststop)?,
    })
}

fn one(hook: &runtime::Hook, at: &Pointer) -> Result<Hook> {
    let path = hook.path().to_string_lossy().into_owned();
    if !hook.path().is_absolute() {
        return Err(at.field("path").error(format_args!("path {path:?} must be absolute")));
    }
    if let Some(timeout) = hook.timeout() {
        if timeout <= 0 {
            return Err(at.field("timeout").error_with_hint(
                format_args!("timeout {timeout} must be greater than zero"),
                "omit it for a hook without a time limit",
            ));
        }
    }
    let args = hook.args().clone().unwrap_or_default();
    without_nul(std::slice::from_ref(&path), |_| at.field("path"))?;
    without_nul(&args, |index| at.field("args").index(index))?;
    without_nul(hook.env().as_deref().unwrap_or_default(), |index| at.field("env").index(index))?;
    Ok(Hook {
        args: if args.is_empty() { vec![path.clone()] } else { args },
        path,
        env: hook.env().clone(),
        timeout: hook.timeout(),
    })
}

fn without_nul(texts: &[String], at: impl Fn(usize) -> Pointer) -> Result<()> {
    match texts.iter().position(|text| text.contains('\0')) {
        Some(index) => Err(at(index).error("contains a NUL byte")),
        None => Ok(()),
    }
}

impl HookPlan {
    /// Whether the parent runs hooks between the mounts and the root switch.
    pub fn meets(&self) -> bool {
        !self.prestart.is_empty() || !self.create_runtime.is_empty()
    }

    /// Whether any hooks run before the root switch; they need all namespaces.
    pub fn precede_the_switch(&self) -> bool {
        self.meets() || !self.create_container.is_empty()
    }

    pub fn later(&self) -> RecordedHooks {
        RecordedHooks {
            start_container: !self.start_container.is_empty(),
            poststart: self.poststart.clone(),
            poststop: self.poststop.clone(),
        }
    }
}

impl Hook {
    /// Converts the hook into kernel form; `env` is used if it has no environment of its own.
    pub fn ready(&self, env: &[CString]) -> Result<step::Hook> {
        let strings = |texts: &[String]| -> Result<Vec<CString>> {
            texts.iter().map(|text| CString::new(text.as_str()).context("contains a NUL byte")).collect()
        };
        Ok(step::Hook {
            path: CString::new(self.path.as_str()).context("contains a NUL byte")?,
            argv: Argv::new(strings(&self.args)?),
            envp: match &self.env {
                Some(own) => Argv::new(strings(own)?),
                None => Argv::with_room(env.to_vec()),
            },
            timeout: self.timeout,
        })
    }
}

/// What the init process's hooks have in common.
#[derive(Debug)]
pub struct HookInputs {
    /// The state up to the pid, as createContainer and startContainer hooks get it.
    pub creating: Rc<[u8]>,
    pub created: Rc<[u8]>,
    pub outputs: Rc<Outputs>,
    /// The runtime's own environment.
    pub env: Vec<CString>,
}

/// Returns the init process's steps for createContainer hooks.
pub fn create_container(hooks: &[Hook], shared: &HookInputs) -> Result<Vec<RunHook>> {
    let (kind, within) = (HookKind::CreateContainer, Within::Rootfs);
    steps(kind, hooks, &shared.env, |hook, complaint| RunHook {
        hook,
        filter: None,
        state: shared.creating.clone(),
        outputs: shared.outputs.clone(),
        within,
        complaint,
    })
}

/// Returns the init process's steps for startContainer hooks. `env` is the program's environment, which runc
/// passes to a hook whose own is missing or empty.
pub fn start_container(hooks: &[Hook], shared: &HookInputs, env: &[CString]) -> Result<Vec<RunHook>> {
    let (kind, within) = (HookKind::StartContainer, Within::Container);
    let with_own = |hook: &Hook| Hook { env: hook.env.clone().filter(|env| !env.is_empty()), ..hook.clone() };
    let hooks: Vec<_> = hooks.iter().map(with_own).collect();
    steps(kind, &hooks, env, |hook, complaint| RunHook {
        hook,
        filter: None,
        state: shared.created.clone(),
        outputs: shared.outputs.clone(),
        within,
        complaint,
    })
}

fn steps(
    kind: HookKind,
    hooks: &[Hook],
    env: &[CString],
    step: impl Fn(step::Hook, CString) -> RunHook,
) -> Result<Vec<RunHook>> {
    let one = |(index, hook): (usize, &Hook)| {
        let complaint = format!("config.json: {}: {}", kind.at(index), label(kind, index, hook));
        Ok(step(hook.ready(env)?, CString::new(complaint).context("contains a NUL byte")?))
    };
    hooks.iter().enumerate().map(one).collect()
}

/// Names a hook in runc's wording, which its tests look for; counted from 0.
pub fn label(kind: HookKind, index: usize, hook: &Hook) -> String {
    format!("error running {} hook #{index}: {:?}", kind.name(), hook.path)
}

/// The error for a failed hook of the init process.
pub fn failure_of_step(
    pointer: Pointer,
    step: &RunHook,
    ended: std::result::Result<Ended, Errno>,
    said: &[u8],
) -> anyhow::Error {
    let complaint = step.complaint.to_string_lossy();
    let label = complaint.strip_prefix(&format!("config.json: {pointer}: ")).unwrap_or(&complaint);
    failure(pointer, label, ended, said)
}

/// The error for a hook that failed or could not be started.
pub fn failure(
    pointer: Pointer,
    label: &str,
    ended: std::result::Result<Ended, Errno>,
    said: &[u8],
) -> anyhow::Error {
    let ended = match ended {
        Ok(ended) => ended,
        Err(errno) => {
            let fault = Fault { pointer, message: format!("{label}: exec"), hint: hint(errno) };
            return anyhow!(errno).context(fault);
        }
    };
    let mut message = format!("{label}: {}", reason(ended));
    if let Some(words) = last_words(said) {
        message.push_str(&format!(", output: {words}"));
    }
    Fault { pointer, message, hint: None }.into()
}

fn hint(errno: Errno) -> Option<String> {
    let hint = match errno {
        Errno::ENOEXEC => "neither an executable for this machine nor a script with a #! line",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn reason(ended: Ended) -> String {
    match ended {
        Ended::Exited(status) => format!("exit status {status}"),
        // The wording of Go's os/exec, which runc's own tests look for.
        Ended::Killed(signal) if i32::from(signal) == libc::SIGSYS => {
            "killed by SIGSYS: bad system call".into()
        }
        Ended::Killed(signal) => match Signal::from_number(signal.into()) {
            Some(signal) => format!("killed by {signal}"),
            None => format!("killed by signal {signal}"),
        },
        Ended::TimedOut => "timed out and was killed".into(),
        Ended::Interrupted => "interrupted".into(),
    }
}

/// The end of a hook's output, on one line and without control characters.
pub fn last_words(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said.trim_ascii());
    (!text.is_empty()).then(|| format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(hooks: Value) -> Result<HookPlan> {
        let hooks: runtime::Hooks = serde_json::from_value(hooks).unwrap();
        plan(Some(&hooks), &Pointer::root().field("hooks"))
    }

    fn refused(hooks: Value) -> String {
        line(&planned(hooks).unwrap_err())
    }

    #[test]
    fn the_program_is_named_by_its_path_unless_its_arguments_say_otherwise() {
        let plan = planned(json!({"prestart": [
            {"path": "/bin/a"}, {"path": "/bin/a", "args": []}, {"path": "/bin/a", "args": ["b", "c"]}
        ]}))
        .unwrap();
        let args: Vec<_> = plan.prestart.iter().map(|hook| hook.args.join(" ")).collect();
        assert_eq!(args, ["/bin/a", "/bin/a", "b c"]);
    }

    #[test]
    fn no_environment_is_another_thing_than_an_empty_one() {
        let plan =
            planned(json!({"poststop": [{"path": "/a"}, {"path": "/a", "env": []}]})).unwrap().poststop;
        assert_eq!((plan[0].env.as_ref(), plan[1].env.as_ref()), (None, Some(&Vec::new())));
        let later = RecordedHooks { poststop: plan, ..RecordedHooks::default() };
        let text = serde_json::to_string(&later).unwrap();
        assert_eq!(serde_json::from_str::<RecordedHooks>(&text).unwrap(), later);
    }

    #[test]
    fn a_hook_says_what_is_wrong_with_it() {
        assert_eq!(
            refused(json!({"createRuntime": [{"path": "/a"}, {"path": "b"}]})),
            "config.json: /hooks/createRuntime/1/path: path \"b\" must be absolute"
        );
        assert_eq!(
            refused(json!({"poststart": [{"path": "/a", "timeout": 0}]})),
            "config.json: /hooks/poststart/0/timeout: timeout 0 must be greater than zero (omit it for a \
             hook without a time limit)"
        );
        assert_eq!(
            refused(json!({"startContainer": [{"path": "/a", "args": ["a", "b\0"]}]})),
            "config.json: /hooks/startContainer/0/args/1: contains a NUL byte"
        );
    }

    #[test]
    fn a_failure_names_kind_place_reason_and_last_words() {
        let hook = &planned(json!({"prestart": [{"path": "/a b"}]})).unwrap().prestart[0];
        let label = label(HookKind::Prestart, 0, hook);
        let said = |ended, said: &[u8]| line(&failure(HookKind::Prestart.at(0), &label, ended, said));
        assert_eq!(
            said(Ok(Ended::Exited(3)), b"one\ntwo\x1b[2J\n"),
            "config.json: /hooks/prestart/0: error running prestart hook #0: \"/a b\": exit status 3, \
             output: \"one\\ntwo\\u{1b}[2J\""
        );
        assert_eq!(
            said(Ok(Ended::Killed(9)), b" \n"),
            "config.json: /hooks/prestart/0: error running prestart hook #0: \"/a b\": killed by SIGKILL"
        );
        assert_eq!(
            said(Err(Errno::ENOENT), b""),
            "config.json: /hooks/prestart/0: error running prestart hook #0: \"/a b\": exec: \
             no such file or directory (ENOENT)"
        );
    }
}
