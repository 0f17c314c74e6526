//! Plans a process that `exec` adds to a container.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::Process;

use crate::bundle::document;
use crate::error::Pointer;
use crate::host::path;
use crate::plan::linux::memory_policy;
use crate::plan::linux::memory_policy::MemoryPolicy;
use crate::plan::process;
use crate::plan::process::{ProcessPlan, capabilities};
use crate::sys::cred::Sets;
use crate::sys::weakened;

/// The plan of a process to add.
#[derive(Debug)]
pub struct ExecPlan {
    pub process: ProcessPlan,
    pub personality: Option<u32>,
    pub memory_policy: Option<MemoryPolicy>,
    /// Capability names that this runtime does not know.
    pub unknown_capabilities: Vec<String>,
    /// Where the process is described; errors point there.
    pub at: Pointer,
    pub source: Source,
}

/// Where the values of the process come from, for error messages.
#[derive(Debug, Default)]
pub struct Source {
    /// A process.json rather than `/process` of config.json.
    pub is_file: bool,
    /// Pointers into config.json of the values from elsewhere: from options or, with a process.json, from the
    /// container.
    pub exceptions: Vec<&'static str>,
}

/// The process that is requested.
#[derive(Debug)]
pub enum Wanted {
    /// The container's own process, changed by options.
    Like(Box<Changes>),
    /// The text of a `process.json`. As in runc, what it leaves out is taken from the container:
    /// capabilities, limits, labels, umask, scheduling.
    File(Vec<u8>),
}

/// The changes made by options of `exec`.
#[derive(Debug, Default)]
pub struct Changes {
    /// The program and its arguments.
    pub args: Vec<OsString>,
    pub cwd: Option<PathBuf>,
    /// `NAME=value`, added after the container's own.
    pub env: Vec<OsString>,
    pub terminal: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Added after the container's own.
    pub groups: Vec<u32>,
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
}

impl ExecPlan {
    /// Plans `wanted` in a container whose `excerpt` of config.json was kept ([`document::Excerpt`]). `own`
    /// are the runtime's capabilities, if they limit those of the process.
    pub fn new(excerpt: &[u8], wanted: Wanted, own: Option<Sets>) -> Result<Self> {
        let (excerpt, mut unknown_capabilities) = document::excerpt(excerpt)?;
        let at = Pointer::root().field("linux");
        let personality = excerpt.linux.personality.as_ref();
        let personality = personality
            .map(|wanted| super::fields::personality(wanted, &at.field("personality")))
            .transpose()?;
        let memory_policy = excerpt.linux.memory_policy.as_ref();
        let memory_policy =
            memory_policy.map(|wanted| memory_policy::plan(wanted, &at.field("memoryPolicy"))).transpose()?;
        let (at, (mut process, source)) = match wanted {
            Wanted::Like(changes) => (Pointer::root().field("process"), changed(excerpt.process, *changes)?),
            Wanted::File(text) => {
                let (process, unknown) = document::process(&text)?;
                unknown_capabilities = unknown;
                (Pointer::of(document::PROCESS), complemented(process, &excerpt.process)?)
            }
        };
        if let Some(own) = own {
            process.capabilities.limit_to(own);
        }
        Ok(Self { process, personality, memory_policy, unknown_capabilities, at, source })
    }
}

fn changed(mut own: Process, changes: Changes) -> Result<(ProcessPlan, Source)> {
    // The added process gets a terminal only if one is requested, whatever the container's own process has.
    own.set_terminal(Some(changes.terminal));
    let mut source = Source { is_file: false, exceptions: vec!["/process/args/0", "/process/terminal"] };
    if let Some(profile) = changes.apparmor_profile {
        own.set_apparmor_profile(Some(profile));
        source.exceptions.push("/process/apparmorProfile");
    }
    if let Some(label) = changes.selinux_label {
        own.set_selinux_label(Some(label));
        source.exceptions.push("/process/selinuxLabel");
    }
    let keeps_inheritable = own.capabilities().as_ref().is_some_and(|sets| sets.inheritable().is_some());
    let mut plan = process::plan(&own, &Pointer::root().field("process"))?;
    if let Some(cwd) = changes.cwd {
        if !cwd.is_absolute() {
            bail!("--cwd {cwd:?}: Cwd must be an absolute path");
        }
        plan.cwd = path::inside(&cwd, &Pointer::root())?;
        source.exceptions.push("/process/cwd");
    }
    for variable in changes.env {
        plan.env.push(variable_of(variable)?);
    }
    plan.env = process::last_of_each(plan.env);
    plan.args =
        changes.args.into_iter().map(|word| Ok(CString::new(word.into_vec())?)).collect::<Result<_>>()?;
    let program = plan.args.first().filter(|program| !program.is_empty());
    plan.candidates = process::candidates(program.context("exec args cannot be empty")?, &plan.env);
    if let Some(uid) = changes.uid {
        plan.uid = uid;
        source.exceptions.push("/process/user");
    }
    plan.gid = changes.gid.unwrap_or(plan.gid);
    plan.groups.extend(changes.groups);
    plan.no_new_privileges |= changes.no_new_privileges;
    for name in &changes.capabilities {
        let bit = capabilities::bit(name).with_context(|| format!("--cap {name}: unknown capability"))?;
        add_capability(&mut plan.capabilities, bit, keeps_inheritable);
    }
    Ok((plan, source))
}

/// Adds a capability, but never to the inheritable set: with inheritable capabilities of the program file it
/// would give more than requested (CVE-2022-29162). It is added to the ambient set only if it is inheritable
/// in the container, as in runc.
fn add_capability(sets: &mut capabilities::CapabilityPlan, bit: u64, keeps_inheritable: bool) {
    sets.bounding |= bit;
    sets.sets.effective |= bit;
    sets.sets.permitted |= bit;
    if weakened::is_off_for(&["CVE-2022-29162", "CVE-2025-27612"]) {
        sets.sets.inheritable |= bit;
    }
    if keeps_inheritable {
        sets.ambient |= bit & sets.sets.inheritable;
    }
}

fn variable_of(entry: OsString) -> Result<CString> {
    let variable = CString::new(entry.into_vec())?;
    match process::variable_name(&variable) {
        Some(_) => Ok(variable),
        None => bail!("--env {variable:?}: expected NAME=VALUE"),
    }
}

/// Completes `process` with the container's values.
fn complemented(mut process: Process, own: &Process) -> Result<(ProcessPlan, Source)> {
    let mut source = Source { is_file: true, exceptions: Vec::new() };
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(own.rlimits().clone());
        source.exceptions.push("/process/rlimits");
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(own.user().umask());
    }
    if process.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
        source.exceptions.push("/process/apparmorProfile");
    }
    if process.selinux_label().as_ref().is_none_or(String::is_empty) {
        process.set_selinux_label(own.selinux_label().clone());
        source.exceptions.push("/process/selinuxLabel");
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
        source.exceptions.push("/process/scheduler");
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
        source.exceptions.push("/process/ioPriority");
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
        source.exceptions.push("/process/execCPUAffinity/final");
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    Ok((process::plan(&process, &Pointer::of(document::PROCESS))?, source))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn container(changes: Value) -> Vec<u8> {
        let mut process = json!({
            "terminal": true, "user": {"uid": 1, "gid": 2, "umask": 3, "additionalGids": [4]}, "args": ["init"],
            "env": ["PATH=/bin", "A=1"], "cwd": "/own", "noNewPrivileges": true,
            "consoleSize": {"height": 24, "width": 80},
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 5, "hard": 5}], "oomScoreAdj": 6,
            "capabilities": {"bounding": ["CAP_KILL"]}
        });
        let Value::Object(changes) = changes else { panic!("an object") };
        for (key, value) in changes {
            process[key] = value;
        }
        json!({"process": process, "linux": {"personality": {"domain": "LINUX32"}}}).to_string().into_bytes()
    }

    fn like(changes: Changes) -> Result<ExecPlan> {
        let args = if changes.args.is_empty() { vec!["sh".into()] } else { changes.args.clone() };
        ExecPlan::new(&container(json!({})), Wanted::Like(Box::new(Changes { args, ..changes })), None)
    }

    fn file(text: &Value) -> Result<ExecPlan> {
        ExecPlan::new(&container(json!({})), Wanted::File(text.to_string().into_bytes()), None)
    }

    #[test]
    fn without_options_only_program_and_terminal_differ_from_the_containers_process() {
        let plan = like(Changes::default()).unwrap();
        let process = plan.process;
        assert_eq!((process.uid, process.gid, process.umask, &process.groups[..]), (1, 2, 3, &[4][..]));
        assert_eq!((process.args, process.candidates), (vec![c"sh".into()], vec![c"/bin/sh".into()]));
        assert_eq!((process.terminal, process.cwd.as_c_str()), (false, c"/own"));
        assert!(process.no_new_privileges);
        assert_eq!(process.rlimits.len(), 1);
        assert_eq!((process.oom_score_adj, plan.personality), (Some(6), Some(8)));
    }

    #[test]
    fn options_count_more_than_the_containers_process() {
        let plan = like(Changes {
            cwd: Some("/tmp/../x".into()),
            env: vec!["A=2".into(), "PATH=/x".into()],
            terminal: true,
            uid: Some(7),
            groups: vec![9],
            ..Changes::default()
        });
        let process = plan.unwrap().process;
        assert_eq!((process.uid, process.gid, &process.groups[..]), (7, 2, &[4, 9][..]));
        assert_eq!(process.env, [CString::from(c"A=2"), c"PATH=/x".into()]);
        assert_eq!((process.candidates, process.cwd), (vec![c"/x/sh".into()], c"/x".into()));
        assert_eq!(process.console_size, Some((24, 80)));
    }

    #[test]
    fn wrong_options_are_named() {
        let refused = |changes| line(&like(changes).unwrap_err());
        assert_eq!(
            refused(Changes { cwd: Some("tmp".into()), ..Changes::default() }),
            "--cwd \"tmp\": Cwd must be an absolute path"
        );
        assert_eq!(
            refused(Changes { env: vec!["A".into()], ..Changes::default() }),
            "--env \"A\": expected NAME=VALUE"
        );
        assert_eq!(
            refused(Changes { capabilities: vec!["FLY".into()], ..Changes::default() }),
            "--cap FLY: unknown capability"
        );
        assert_eq!(
            refused(Changes { args: vec!["".into()], ..Changes::default() }),
            "exec args cannot be empty"
        );
    }

    #[test]
    fn an_added_capability_is_never_inheritable() {
        let plan = |sets: Value| {
            let changes =
                Changes { args: vec!["sh".into()], capabilities: vec!["KILL".into()], ..Changes::default() };
            let container = container(json!({"capabilities": sets}));
            ExecPlan::new(&container, Wanted::Like(Box::new(changes)), None).unwrap().process.capabilities
        };
        let kill = 1 << 5;
        for sets in
            [json!(null), json!({}), json!({"inheritable": []}), json!({"inheritable": ["CAP_CHOWN"]})]
        {
            let planned = plan(sets.clone());
            assert_eq!(
                (planned.bounding, planned.sets.permitted, planned.sets.effective),
                (kill, kill, kill)
            );
            assert_eq!((planned.sets.inheritable & kill, planned.ambient), (0, 0), "{sets}");
        }
        assert_eq!(plan(json!({"inheritable": ["CAP_KILL"]})).ambient, kill);
    }

    #[test]
    fn a_document_replaces_the_process_but_for_what_it_says_nothing_about() {
        let process =
            file(&json!({"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}})).unwrap().process;
        assert_eq!((process.uid, process.gid, process.groups.len(), process.umask), (0, 0, 0, 3));
        assert!(process.env.is_empty() && !process.no_new_privileges && !process.terminal);
        assert_eq!((process.capabilities.bounding, process.rlimits.len()), (1 << 5, 1));
        let text = json!({"args": ["true"], "cwd": "/", "user": {"umask": 0o77}, "capabilities": {},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5}, {"type": "RLIMIT_CORE"}]});
        let process = file(&text).unwrap().process;
        assert_eq!((process.umask, process.capabilities.bounding, process.rlimits.len()), (0o77, 0, 2));
    }

    #[test]
    fn a_fault_is_named_by_its_document() {
        let error = file(&json!({"args": ["true"], "cwd": "x", "user": {}})).unwrap_err();
        assert!(line(&error).starts_with("process.json: /cwd: path \"x\" must be absolute"));
    }
}
