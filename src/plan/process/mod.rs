//! The process in the container: program, user, limits and privileges; config.md § Process.

pub mod capabilities;
pub mod cpu_list;
mod rlimits;
mod scheduling;

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use anyhow::Result;
use oci_spec::runtime;

use self::capabilities::CapabilityPlan;
pub use self::rlimits::Rlimit;
pub use self::scheduling::Affinity;
use crate::error::Pointer;
use crate::host::{lsm, path};
use crate::init::step::Identity;
use crate::sys::scheduling::Scheduler;

/// The umask if `/process/user/umask` is not set.
const DEFAULT_UMASK: u32 = 0o022;

/// The container's first process, or one that `exec` adds.
#[derive(Debug)]
pub struct ProcessPlan {
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// The paths to try for `args[0]`, in order.
    pub candidates: Vec<CString>,
    pub cwd: CString,
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub capabilities: CapabilityPlan,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<CString>,
    pub selinux_label: Option<CString>,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    /// Class and level in one number; ioprio_set(2).
    pub io_priority: Option<u16>,
    /// Only for a process that `exec` adds.
    pub affinity: Affinity,
}

/// Plans the process from the object at `at` (`/process`).
///
/// # Errors
/// Names the first value that is invalid.
pub fn plan(process: &runtime::Process, at: &Pointer) -> Result<ProcessPlan> {
    let empty = Vec::new();
    let args = c_strings(process.args().as_ref().unwrap_or(&empty), &at.field("args"))?;
    let Some(program) = args.first().filter(|program| !program.is_empty()) else {
        return Err(at.field("args").error("no program to run"));
    };
    let env = environment(process.env().as_ref().unwrap_or(&empty), &at.field("env"))?;
    let cwd = process.cwd();
    require_absolute(cwd, &at.field("cwd"))?;
    let user = process.user();
    check_user(user, &at.field("user"))?;
    let terminal = process.terminal().unwrap_or(false);
    Ok(ProcessPlan {
        candidates: candidates(program, &env),
        args,
        env,
        cwd: path::inside(cwd, &at.field("cwd"))?,
        terminal,
        console_size: process
            .console_size()
            .filter(|_| terminal)
            .map(|size| console_size(size, at))
            .transpose()?,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(DEFAULT_UMASK),
        capabilities: capabilities::plan(process.capabilities().as_ref(), &at.field("capabilities"))?,
        rlimits: rlimits::plan(process.rlimits().as_deref().unwrap_or(&[]), &at.field("rlimits"))?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        apparmor_profile: label(process.apparmor_profile().as_ref(), &at.field("apparmorProfile"))?,
        selinux_label: label(process.selinux_label().as_ref(), &at.field("selinuxLabel"))?,
        oom_score_adj: process.oom_score_adj().map(|score| oom_score_adj(score, at)).transpose()?,
        scheduler: process
            .scheduler()
            .as_ref()
            .map(|wanted| scheduling::scheduler(wanted, &at.field("scheduler")))
            .transpose()?,
        io_priority: process
            .io_priority()
            .as_ref()
            .map(|wanted| scheduling::io_priority(wanted, &at.field("ioPriority")))
            .transpose()?,
        affinity: process
            .exec_cpu_affinity()
            .as_ref()
            .map(|wanted| scheduling::affinity(wanted, &at.field("execCPUAffinity")))
            .transpose()?
            .unwrap_or_default(),
    })
}

impl ProcessPlan {
    /// The LSM labels that the bundle asks for.
    pub fn labels(&self) -> lsm::Wanted<'_> {
        lsm::Wanted {
            apparmor_profile: self.apparmor_profile.as_ref(),
            selinux_label: self.selinux_label.as_ref(),
            no_new_privileges: self.no_new_privileges,
        }
    }

    pub fn identity(&self) -> Identity {
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.iter().map(|gid| crate::sys::cred::gid(*gid)).collect(),
            has_terminal: self.terminal,
            umask: self.umask,
            bounding: self.capabilities.bounding,
            sets: self.capabilities.sets,
            ambient: self.capabilities.ambient,
        }
    }
}

fn require_absolute(cwd: &Path, at: &Pointer) -> Result<()> {
    if cwd.is_absolute() {
        return Ok(());
    }
    Err(at.error_with_hint(format_args!("path {cwd:?} must be absolute"), "use \"/\" if unsure"))
}

fn check_user(user: &runtime::User, at: &Pointer) -> Result<()> {
    if let Some(umask) = user.umask() {
        if umask > 0o777 {
            return Err(at.field("umask").error(format_args!("umask {umask} exceeds 511 (octal 0777)")));
        }
    }
    refuse_no_change(user, at)
}

/// Refuses the largest number: the kernel takes it as "leave the id unchanged", which would keep the
/// runtime's own; setresuid(2).
fn refuse_no_change(user: &runtime::User, at: &Pointer) -> Result<()> {
    let groups = user.additional_gids().iter().flatten().enumerate();
    let groups = groups.map(|(index, gid)| (*gid, at.field("additionalGids").index(index)));
    let mut ids = [(user.uid(), at.field("uid")), (user.gid(), at.field("gid"))].into_iter().chain(groups);
    match ids.find(|(id, _)| *id == u32::MAX) {
        Some((id, at)) => Err(at.error(format_args!("invalid id {id}"))),
        None => Ok(()),
    }
}

fn label(text: Option<&String>, at: &Pointer) -> Result<Option<CString>> {
    text.filter(|text| !text.is_empty()).map(|text| path::c_string(Path::new(text), at)).transpose()
}

/// The paths to try for `program`, in order: itself if it has a slash, else one in each directory of the
/// container's `PATH`. None without a `PATH`, as with runc.
pub fn candidates(program: &CString, env: &[CString]) -> Vec<CString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.clone()];
    }
    let Some(path) = env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")) else {
        return Vec::new();
    };
    path.split(|&byte| byte == b':')
        .filter_map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", program.as_bytes()].concat()).ok()
        })
        .collect()
}

/// The runtime's own environment.
pub fn inherited_environment() -> Vec<CString> {
    let variables = std::env::vars_os().map(|(name, value)| [name, value].join("=".as_ref()));
    // Environment variables contain no NUL.
    variables.filter_map(|variable| CString::new(variable.into_vec()).ok()).collect()
}

fn environment(env: &[String], at: &Pointer) -> Result<Vec<CString>> {
    let entries = c_strings(env, at)?;
    if let Some((index, entry)) = entries.iter().enumerate().find(|(_, entry)| variable_name(entry).is_none())
    {
        let wrong = format!("invalid environment variable {entry:?}");
        return Err(at.index(index).error_with_hint(wrong, "expected NAME=VALUE"));
    }
    Ok(last_of_each(entries))
}

/// `NAME` of `NAME=value`.
pub fn variable_name(entry: &CStr) -> Option<&[u8]> {
    let end = entry.to_bytes().iter().position(|&byte| byte == b'=').filter(|end| *end > 0);
    entry.to_bytes().get(..end?)
}

/// Keeps the last value of a variable that is set twice, in its place, as runc does.
pub fn last_of_each(env: Vec<CString>) -> Vec<CString> {
    let mut seen = HashSet::with_capacity(env.len());
    let is_last = |entry: &'_ CString| variable_name(entry).is_none_or(|name| seen.insert(name.to_owned()));
    let is_last: Vec<bool> = env.iter().rev().map(is_last).collect();
    env.into_iter()
        .zip(is_last.into_iter().rev())
        .filter(|(_, is_last)| *is_last)
        .map(|(entry, _)| entry)
        .collect()
}

fn c_strings(texts: &[String], at: &Pointer) -> Result<Vec<CString>> {
    let one = |(index, text): (usize, &String)| {
        CString::new(text.as_bytes())
            .map_err(|_| at.index(index).error(format_args!("{text:?} contains a NUL byte")))
    };
    texts.iter().enumerate().map(one).collect()
}

fn console_size(size: runtime::Box, at: &Pointer) -> Result<(u16, u16)> {
    let at = at.field("consoleSize");
    let number = |value: u64, field: &str| {
        u16::try_from(value).map_err(|_| at.field(field).error(format_args!("{value} exceeds 65535")))
    };
    Ok((number(size.height(), "height")?, number(size.width(), "width")?))
}

fn oom_score_adj(score: i32, at: &Pointer) -> Result<i32> {
    if (-1000..=1000).contains(&score) {
        return Ok(score);
    }
    Err(at.field("oomScoreAdj").error(format_args!("{score} is out of range (-1000 to 1000)")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::line;

    fn planned(changes: Value) -> Result<ProcessPlan> {
        let mut process = json!({
            "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": ["PATH=/bin::/usr/bin"], "cwd": "/"
        });
        let Value::Object(changes) = changes else { panic!("an object") };
        for (key, value) in changes {
            process[key] = value;
        }
        let process: runtime::Process = serde_json::from_value(process).unwrap();
        plan(&process, &Pointer::root().field("process"))
    }

    fn refused(changes: Value) -> String {
        line(&planned(changes).unwrap_err())
    }

    #[test]
    fn a_name_without_a_slash_is_looked_for_in_the_path() {
        let plan = planned(json!({})).unwrap();
        assert_eq!(plan.candidates, [c"/bin/sh".into(), c"./sh".into(), CString::from(c"/usr/bin/sh")]);
        assert_eq!(planned(json!({"args": ["./a"]})).unwrap().candidates, [CString::from(c"./a")]);
        assert!(planned(json!({"env": []})).unwrap().candidates.is_empty());
    }

    #[test]
    fn the_last_value_of_a_variable_stays() {
        let plan = planned(json!({"env": ["A=1", "AB=2", "A=3"]})).unwrap();
        assert_eq!(plan.env, [CString::from(c"AB=2"), CString::from(c"A=3")]);
    }

    #[test]
    fn many_variables_are_as_few_ones() {
        let (names, times) = (50_000, 2);
        let env: Vec<_> = (0..names * times).map(|i| format!("V{}={i}", i % names)).collect();
        let plan = planned(json!({"env": env})).unwrap();
        let last = (names..names * times).map(|i| CString::new(format!("V{}={i}", i % names)).unwrap());
        assert!(plan.env == last.collect::<Vec<_>>());
    }

    #[test]
    fn a_process_says_what_is_wrong_with_it() {
        assert_eq!(refused(json!({"args": []})), "config.json: /process/args: no program to run");
        assert_eq!(
            refused(json!({"cwd": "tmp"})),
            "config.json: /process/cwd: path \"tmp\" must be absolute (use \"/\" if unsure)"
        );
        assert_eq!(
            refused(json!({"env": ["A"]})),
            "config.json: /process/env/0: invalid environment variable \"A\" (expected NAME=VALUE)"
        );
        assert_eq!(
            refused(json!({"oomScoreAdj": -1001})),
            "config.json: /process/oomScoreAdj: -1001 is out of range (-1000 to 1000)"
        );
        assert_eq!(
            refused(json!({"apparmorProfile": "a\0b"})),
            "config.json: /process/apparmorProfile: \"a\\0b\" contains a NUL byte"
        );
    }

    #[test]
    fn the_number_that_means_no_change_is_no_id() {
        let most = u32::MAX;
        assert_eq!(
            refused(json!({"user": {"uid": most, "gid": 0}})),
            "config.json: /process/user/uid: invalid id 4294967295"
        );
        assert_eq!(
            refused(json!({"user": {"uid": 0, "gid": 0, "additionalGids": [1, most]}})),
            "config.json: /process/user/additionalGids/1: invalid id 4294967295"
        );
    }

    #[test]
    fn the_console_size_counts_only_with_a_terminal() {
        let size = json!({"height": 24, "width": 80});
        assert_eq!(planned(json!({"consoleSize": size})).unwrap().console_size, None);
        let plan = planned(json!({"consoleSize": size, "terminal": true})).unwrap();
        assert_eq!(plan.console_size, Some((24, 80)));
    }
}
