//! The global options.
//!
//! A command's definition is built only when it is needed: building all of them takes longer than making a
//! network namespace.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};

use super::fast_path::{self, Known, Usual};
use super::go_flags;
use super::usage::UsageError;
use crate::host::log::{Format, Level};
use crate::host::rootless::Rootless;

/// The version of the runtime specification that this runtime implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// The commit that this program was built from.
pub const COMMIT: &str = match option_env!("RUNTIME_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Runs OCI bundles (directories with config.json and a root file system) as containers:
///
///     # runtime run BUNDLE
///
/// creates a container, starts its program, waits for it to exit and cleans up. Container engines use create,
/// start, state, kill and delete to do the same in separate steps.
#[derive(Debug, Parser)]
#[command(name = "runtime", args_override_self = true, verbatim_doc_comment)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Words>,
}

/// The word that ends the global options, and those behind it.
#[derive(Debug, clap::Subcommand)]
pub enum Words {
    #[command(external_subcommand)]
    Named(Vec<OsString>),
}

#[derive(Debug, PartialEq, Args)]
pub struct Global {
    /// Enable debug logging; the same as --log-level debug
    #[arg(long)]
    pub debug: bool,
    /// Append the log to FILE, or send it to journald:ID or syslog:ID [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub log: Option<OsString>,
    /// Log format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Log level: error, warning or debug
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    pub log_level: Level,
    /// Root directory for container state [default: /run/runtime, or $XDG_RUNTIME_DIR/runtime if rootless]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Manage cgroups through systemd; the same as --cgroup-manager systemd
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Cgroup manager for new containers: cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    pub cgroup_manager: CgroupManager,
    /// Ignore cgroup permission errors: true, false or auto (true unless run as root on the host)
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    pub rootless: Rootless,
    /// Print the version
    #[arg(short, long, short_alias = 'V')]
    pub version: bool,
}

impl Global {
    /// The log level from both options.
    pub fn level(&self) -> Level {
        if self.debug { Level::Debug } else { self.log_level }
    }

    /// The cgroup manager from both options.
    pub fn manager(&self) -> CgroupManager {
        if self.systemd_cgroup { CgroupManager::Systemd } else { self.cgroup_manager }
    }
}

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

impl FromStr for Rootless {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match go_flags::truth(text.as_ref()) {
            Some(true) => Ok(Self::True),
            Some(false) => Ok(Self::False),
            None if text.eq_ignore_ascii_case("auto") => Ok(Self::Auto),
            None => bail!("invalid value {text:?} (must be true, false or auto)"),
        }
    }
}

/// The global options known to the fast path.
const GLOBAL: [Known; 9] = [
    ("debug", None, false),
    ("log", None, true),
    ("log-format", None, true),
    ("log-level", None, true),
    ("root", None, true),
    ("systemd-cgroup", None, false),
    ("cgroup-manager", None, true),
    ("rootless", None, true),
    ("version", Some('v'), false),
];

impl Global {
    /// Parses the global options of a common command line without clap; also returns the remaining words.
    pub fn usual(arguments: &[OsString]) -> Option<(Self, &[OsString])> {
        let Usual { options, rest } = fast_path::read(arguments, &GLOBAL)?;
        let mut global = Self {
            debug: false,
            log: None,
            log_format: Format::default(),
            log_level: Level::Warning,
            root: None,
            systemd_cgroup: false,
            cgroup_manager: CgroupManager::Cgroupfs,
            rootless: Rootless::Auto,
            version: false,
        };
        for (name, value) in options {
            match name {
                "debug" => global.debug = true,
                "log" => global.log = Some(value.to_owned()),
                "log-format" => global.log_format = value.to_str()?.parse().ok()?,
                "log-level" => global.log_level = value.to_str()?.parse().ok()?,
                "root" => global.root = Some(value.into()),
                "systemd-cgroup" => global.systemd_cgroup = true,
                _ => return None,
            }
        }
        Some((global, rest))
    }
}

/// Parses the global options in `arguments` and splits off the command.
///
/// # Errors
/// [`UsageError`], or [`HelpWanted`](super::usage::HelpWanted).
pub fn parse(arguments: &[OsString]) -> Result<Cli> {
    match Global::usual(arguments) {
        Some((global, command @ [_, ..])) => {
            Ok(Cli { global, command: Some(Words::Named(command.to_vec())) })
        }
        _ => parse_with_clap(arguments),
    }
}

/// Like [`parse`], but always with clap.
pub fn parse_with_clap(arguments: &[OsString]) -> Result<Cli> {
    let definition = Cli::command();
    // The first word that is no option is the command's name.
    let words = go_flags::normal(arguments.iter().cloned(), &definition, |_| true)?;
    // clap expects the program's name first.
    let matches = definition.try_get_matches_from([OsString::new()].into_iter().chain(words));
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| UsageError::new(None, &error).into())
}

/// clap's definition of the global options.
#[cfg(test)]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Returns the name under which the program was called if callers know it as a runtime's: they parse the
/// first line.
pub fn program_name(argument: Option<&OsStr>) -> String {
    let name = argument.map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    name.filter(|name| matches!(*name, "runc" | "crun")).unwrap_or("runtime").to_owned()
}

/// The output of `--version`.
pub fn version(name: &str) -> String {
    format!("{name} version {}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_global_options_mean_the_same_without_clap() {
        let lines = [
            "state id",
            "--root /r --log /l --log-format json state id",
            "--root=/r --root=/s --systemd-cgroup --systemd-cgroup create --bundle b id",
            "--debug --log-format text --log-level debug -root /r exec -t id sh",
            "-log=journald:x --log-level=error --log-format=json delete --force id",
        ];
        fast_path::assert_alike(
            &Cli::command(),
            &GLOBAL,
            &lines,
            |arguments| Global::usual(arguments).map(|(global, rest)| (global, rest.to_vec())),
            |arguments| match parse_with_clap(arguments).unwrap() {
                Cli { global, command: Some(Words::Named(words)) } => (global, words),
                Cli { command: None, .. } => panic!("no command"),
            },
        );
    }

    #[test]
    fn unusual_global_options_are_left_to_clap() {
        for line in [
            "--version",
            "--rootless auto x",
            "--cgroup-manager x y",
            "--log-format xml x",
            "--debug=1 x",
            "--root",
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(Global::usual(&words).is_none(), "{line}");
        }
    }
}
