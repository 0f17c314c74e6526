//! The command line: global options, which command, and the one place that reports an error.
//!
//! The definition of a command is built only when it is the one that was asked for: all of them together take longer than
//! making a network namespace.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};

use crate::caller;
use crate::cgroup::Buses;
use crate::container::Root;
use crate::create::Environment;
use crate::error::line;
use crate::guard::{self, Guard};
use crate::log::{Format, Level, Log};
use crate::printable;
use crate::usage::text::Charset;
use crate::user_namespace::{Rootless, has_runtime_directory};
use crate::weakened;

pub mod commands;
mod help;
mod runc;
mod usage;
pub mod usual;
mod words;

use commands::Command;
use usage::{HelpWanted, Wrong};
use usual::{Known, Usual};

/// The version of the runtime specification whose fields this runtime knows.
pub const SPEC_VERSION: &str = "1.3.0";

/// What this program was built from.
pub const COMMIT: &str = match option_env!("RUNTIME_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The commands whose child enters a container while it still is this program; see `guard.rs`.
const ENTERING: [&str; 3] = ["create", "exec", "run"];

/// Runs OCI bundles (directories with config.json and a root file system) as containers:
///
///     # runtime run BUNDLE
///
/// creates a container, starts its program, waits for it to exit and cleans up. Container engines use create,
/// start, state, kill and delete to do the same in separate steps.
#[derive(Debug, Parser)]
#[command(name = "runtime", args_override_self = true, verbatim_doc_comment)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Words>,
}

/// The word that ends the global options, and those behind it.
#[derive(Debug, clap::Subcommand)]
enum Words {
    #[command(external_subcommand)]
    Named(Vec<OsString>),
}

#[derive(Debug, PartialEq, Args)]
struct Global {
    /// Enable debug logging; the same as --log-level debug
    #[arg(long)]
    debug: bool,
    /// Append the log to FILE, or send it to journald:ID or syslog:ID [default: standard error]
    #[arg(long, value_name = "FILE")]
    log: Option<OsString>,
    /// Log format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// Log level: error, warning or debug
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    log_level: Level,
    /// Root directory for container state [default: /run/runtime, or $XDG_RUNTIME_DIR/runtime if rootless]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Manage cgroups through systemd; the same as --cgroup-manager systemd
    #[arg(long)]
    systemd_cgroup: bool,
    /// Cgroup manager for new containers: cgroupfs, systemd or disabled
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    cgroup_manager: CgroupManager,
    /// Ignore cgroup permission errors: true, false or auto (true unless run as root on the host)
    #[arg(long, value_name = "BOOL", default_value = "auto")]
    rootless: Rootless,
    /// Print the version
    #[arg(short, long, short_alias = 'V')]
    version: bool,
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
        match words::truth(text.as_ref()) {
            Some(true) => Ok(Self::True),
            Some(false) => Ok(Self::False),
            None if text.eq_ignore_ascii_case("auto") => Ok(Self::Auto),
            None => bail!("invalid value {text:?} (must be true, false or auto)"),
        }
    }
}

/// What every command gets from the global options and the environment.
#[derive(Debug)]
pub struct Context<'a> {
    pub log: &'a Log,
    /// The command and its arguments, as they were given.
    pub words: &'a [OsString],
    pub root: Root,
    pub cgroup_manager: CgroupManager,
    pub rootless: Rootless,
    /// Of a command that enters a container.
    pub executable: RefCell<Guard>,
}

/// What standard output can show, as far as the environment says: `None` if it is no terminal, or `TERM` names none that can be
/// painted on; term(7).
pub fn charset() -> Option<Charset> {
    if !rustix::termios::isatty(rustix::stdio::stdout()) {
        return None;
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if variable("TERM").is_none_or(|terminal| terminal == "dumb") {
        return None;
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
    Some(Charset::of_locale(&locale.to_string_lossy()))
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let ended = caller::check_rights().and_then(|()| caller::with_enough_stack(begin));
    ended.unwrap_or_else(|error| report(&error))
}

fn begin() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = program_name(arguments.next().as_deref());
    // Before there is an init process that asks.
    weakened::is_off("");
    // Before anything else, because it begins anew. The word may be another option's value: then it was for nothing.
    let mut words = std::env::args_os().skip(1);
    let may_enter = words.any(|word| ENTERING.iter().any(|name| word == *name));
    let protected = if may_enter { guard::protect_executable() } else { Ok(Guard::default()) };
    run(&program, &arguments.collect::<Vec<_>>(), &RefCell::new(protected))
}

/// The global options, for command lines of the usual form.
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
    /// The global options of a command line of the usual form, and what follows them.
    fn usual(arguments: &[OsString]) -> Option<(Self, &[OsString])> {
        let Usual { options, rest } = usual::read(arguments, &GLOBAL)?;
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

fn run(program: &str, arguments: &[OsString], protected: &RefCell<Result<Guard>>) -> ExitCode {
    let whole_help = || help::whole(program, &Cli::command());
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) if error.is::<HelpWanted>() => return print(&whole_help()),
        Err(error) => {
            print_help_for(&error, whole_help);
            return report(&error);
        }
    };
    if cli.global.version {
        return print(&version(program));
    }
    let Some(Words::Named(words)) = cli.command else { return print(&whole_help()) };
    let level = if cli.global.debug { Level::Debug } else { cli.global.log_level };
    let log = match Log::open(cli.global.log.as_deref(), cli.global.log_format, level) {
        Ok(log) => log,
        Err(error) => return report(&error),
    };
    let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let Some(command) = commands::find(&name) else {
        let topic = words.get(1).map(|word| word.to_string_lossy());
        return match (name.as_ref(), topic) {
            ("help" | "h", None) => print(&whole_help()),
            ("help" | "h", Some(topic)) => match commands::find(&topic) {
                Some(command) => print(&help::of(program, &command.definition())),
                None => unknown(&topic, &words, &log),
            },
            _ => unknown(&name, &words, &log),
        };
    };
    match dispatch(command, &words, &cli.global, &log, protected) {
        Ok(code) => code,
        Err(error) if error.is::<HelpWanted>() => print(&help::of(program, &command.definition())),
        Err(error) if error.is::<Wrong>() => {
            let own = command.definition();
            // runc takes the global options behind the command, too.
            if let Some(arguments) = words::with_global_first(arguments, words.len(), &own, &Cli::command()) {
                return run(program, &arguments, protected);
            }
            log.error(&error);
            print_help_for(&error, || help::of(program, &own));
            report(&error)
        }
        Err(error) => {
            let error = if program == "runc" { runc::with_prefix(command.name, error) } else { error };
            log.error(&error);
            match runc::last_words(&error).filter(|_| program == "runc") {
                Some(words) => drop(writeln!(io::stderr().lock(), "{}", printable::escape(&words))),
                None => drop(report(&error)),
            }
            ExitCode::from(command.on_failure)
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli> {
    match Global::usual(arguments) {
        Some((global, command @ [_, ..])) => {
            Ok(Cli { global, command: Some(Words::Named(command.to_vec())) })
        }
        _ => parse_with_clap(arguments),
    }
}

fn parse_with_clap(arguments: &[OsString]) -> Result<Cli> {
    let definition = Cli::command();
    // The first that is no option is the command's name.
    let words = words::normal(arguments.iter().cloned(), &definition, |_| true)?;
    // The first word stands for the program's name.
    let matches = definition.try_get_matches_from([OsString::new()].into_iter().chain(words));
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| Wrong::new(None, &error).into())
}

fn dispatch(
    command: &Command,
    words: &[OsString],
    global: &Global,
    log: &Log,
    protected: &RefCell<Result<Guard>>,
) -> Result<ExitCode> {
    if !ENTERING.contains(&command.name) {
        // Other commands call hooks and have programs begin, too, and must not hold it meanwhile.
        protected.replace(Ok(Guard::default())).unwrap_or_default().release();
    }
    (command.run)(words, &|| {
        // Engines read the features together with standard error.
        if command.name != "features" {
            log.debug(format_args!("command {words:?}"));
        }
        Ok(Context {
            log,
            words,
            root: root(global.root.as_deref())?,
            cgroup_manager: if global.systemd_cgroup {
                CgroupManager::Systemd
            } else {
                global.cgroup_manager
            },
            rootless: global.rootless,
            // Not before the command line has been understood: whoever reads it once more needs it, too.
            executable: RefCell::new(protected.replace(Ok(Guard::default()))?),
        })
    })
}

/// For fuzz targets: understands a command line as [`run`] does, up to where its command would begin; the error, if it is wrong.
#[cfg(any(test, feature = "fuzzing"))]
pub fn check(arguments: &[OsString]) -> Option<anyhow::Error> {
    let usual = Global::usual(arguments).filter(|(_, rest)| !rest.is_empty());
    let by_clap = parse_with_clap(arguments);
    if let (Some((global, rest)), Ok(cli)) = (&usual, &by_clap) {
        let Some(Words::Named(words)) = &cli.command else { return Some(anyhow!("{rest:?} is lost")) };
        assert_eq!((global, *rest), (&cli.global, &**words), "without clap, and with it");
    }
    let known =
        usual.filter(|(_, rest)| rest.first().and_then(|word| commands::find(word.to_str()?)).is_some());
    assert!(known.is_none() || by_clap.is_ok(), "only clap finds fault: {:?}", by_clap.err());
    let cli = match by_clap {
        Ok(cli) => cli,
        Err(error) => return Some(error),
    };
    let Some(Words::Named(words)) = cli.command else { return None };
    let command = commands::find(&words.first()?.to_string_lossy())?;
    let own = command.definition();
    let error = commands::matches(command.name, own.clone(), &words).err()?;
    if error.is::<Wrong>()
        && let Some(moved) = words::with_global_first(arguments, words.len(), &own, &Cli::command())
    {
        assert_eq!(moved.len(), arguments.len(), "a word is lost of {arguments:?}");
        return check(&moved);
    }
    let _ = help::of("runtime", &own);
    Some(error)
}

/// runc's commands that there are not; by `checkpoint --help` engines find out.
const ABSENT: [&str; 2] = ["checkpoint", "restore"];

fn unknown(name: &str, words: &[OsString], log: &Log) -> ExitCode {
    let option = words.last().and_then(|word| word.to_str()).unwrap_or_default();
    let error = match name {
        // Engines ask so whether the option is known, and look for the first four words.
        "restore" if option.trim_start_matches('-') == "lsm-mount-context" => {
            anyhow!("flag needs an argument: {option} (restore is not supported)")
        }
        // The first words are runc's.
        _ if ABSENT.contains(&name) => {
            anyhow!("No help topic for '{name}': checkpoint and restore are not supported")
        }
        _ => anyhow!("No help topic for '{name}': no such command (`runtime help` lists the commands)"),
    };
    log.error(&error);
    report(&error)
}

/// The global options.
#[cfg(test)]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The name under which we were called, if it is one that callers take for a runtime's: they parse the first line.
fn program_name(argument: Option<&OsStr>) -> String {
    let name = argument.map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    name.filter(|name| matches!(*name, "runc" | "crun")).unwrap_or("runtime").to_owned()
}

fn version(name: &str) -> String {
    format!("{name} version {}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

fn root(explicit: Option<&Path>) -> Result<Root> {
    match explicit {
        Some(path) => Root::explicit(path),
        None => {
            let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
            let directory = directory.filter(|_| has_runtime_directory(std::env::var_os("USER").as_deref()));
            Root::default_in(directory.as_deref().map(Path::new))
        }
    }
}

/// A number in the environment.
fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

/// Who became the user that this process is of, if sudo(8) says so.
pub fn sudo_uid() -> Option<u32> {
    number("SUDO_UID")
}

/// What concerns those who make and start containers.
pub fn environment() -> Environment {
    let is_ours = number("LISTEN_PID") == Some(std::process::id());
    Environment {
        notify_socket: std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
        listen_fds: number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0),
        buses: Buses {
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            session: std::env::var_os("DBUS_SESSION_BUS_ADDRESS"),
            system: std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS"),
        },
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()).context("write to standard output") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr().lock(), "error: {}", line(error));
    ExitCode::FAILURE
}

/// As runc: the help on standard output, for whoever has forgotten; what is wrong goes to standard error.
fn print_help_for(error: &anyhow::Error, help: impl FnOnce() -> String) {
    if error.downcast_ref::<Wrong>().is_some_and(|wrong| wrong.calls_for_help) {
        print(&help());
    }
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
        usual::assert_alike(
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
