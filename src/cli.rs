//! The command line: global options, which command, and the one place that reports an error.
//!
//! The definition of a command is built only when it is the one that was asked for: all of them together take longer than
//! making a network namespace.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, FromArgMatches, Parser};

use crate::container::Root;
use crate::create::Environment;
use crate::error::line;
use crate::log::{Format, Level, Log};
use crate::{command, guard};

/// The version of the runtime specification whose fields this runtime knows.
const SPEC_VERSION: &str = "1.3.0";

/// A container runtime for Linux and cgroup v2
///
/// Runs OCI bundles: directories with config.json and a root file system.
#[derive(Debug, Parser)]
#[command(
    name = "runtime",
    disable_help_flag = true,
    disable_help_subcommand = true,
    args_override_self = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(external_subcommand)]
    Named(Vec<OsString>),
}

#[derive(Debug, Args)]
struct Global {
    /// Log what happens, too, not only errors
    #[arg(long)]
    debug: bool,
    /// Append the log to this file instead of writing it to standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// Directory of the containers' state [default: /run/runtime, for ordinary users $XDG_RUNTIME_DIR/runtime]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Let systemd make the cgroups (refused: this version makes them itself)
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes the cgroups: cgroupfs; systemd and disabled are refused where it matters
    #[arg(long, value_name = "MANAGER", default_value = "cgroupfs")]
    cgroup_manager: CgroupManager,
    /// true, false or auto; true is refused where it matters
    #[arg(long, value_name = "BOOL", default_value = "auto", hide = true)]
    rootless: Rootless,
    /// Print the version
    #[arg(short, long)]
    version: bool,
    /// Print help
    #[arg(short, long)]
    help: bool,
}

/// Who makes the cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

/// Whether containers are to be made without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rootless {
    True,
    False,
    Auto,
}

/// Where the global options end.
const COMMANDS: [&str; 9] = ["create", "delete", "help", "kill", "list", "run", "spec", "start", "state"];

/// What every command gets from the global options and the environment.
#[derive(Debug)]
pub struct Context<'a> {
    pub log: &'a Log,
    pub root: Root,
    pub cgroup_manager: CgroupManager,
    pub rootless: Rootless,
    pub environment: Environment,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = program_name(arguments.next().as_deref());
    // Before anything else, because it begins anew. The word may be another option's value: then it was for nothing.
    let mut words = std::env::args_os().skip(1);
    let may_create = words.any(|word| word == "create" || word == "run");
    let protected = if may_create { guard::protect_executable() } else { Ok(()) };
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    if cli.global.version {
        return print(&version(&name));
    }
    let command = match cli.command {
        Some(Command::Named(words)) if !cli.global.help => words,
        _ => return print(&whole_help().to_string()),
    };
    let level = if cli.global.debug { Level::Debug } else { Level::Error };
    let log = match Log::open(cli.global.log.as_deref(), cli.global.log_format, level) {
        Ok(log) => log,
        Err(error) => return report(&error),
    };
    match dispatch(&command, &cli.global, &log, protected) {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => {
                log_usage_error(&log, &usage);
                usage_error(&usage)
            }
            Err(error) => {
                log.error(&error);
                report(&error)
            }
        },
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    // The first word stands for the program's name, which usage messages take from the definition.
    let definition = Cli::command();
    let words = with_two_dashes(arguments, &definition, &COMMANDS);
    let matches = definition.try_get_matches_from([OsString::from("runtime")].into_iter().chain(words))?;
    Cli::from_arg_matches(&matches)
}

/// Go's programs take `-root` for `--root`, and containerd's go-runc writes one option so. Up to the first of
/// `ends`.
fn with_two_dashes(
    words: impl Iterator<Item = OsString>,
    definition: &clap::Command,
    ends: &[&str],
) -> Vec<OsString> {
    let mut options_go_on = true;
    let one = |word: OsString| {
        let text = word.to_str().unwrap_or_default();
        options_go_on &= text != "--" && !ends.contains(&text);
        let Some(name) = text.strip_prefix('-').filter(|name| name.len() > 1 && options_go_on) else {
            return word;
        };
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        let is_long = definition.get_arguments().any(|argument| argument.get_long() == Some(name));
        if is_long { OsString::from(format!("-{text}")) } else { word }
    };
    words.map(one).collect()
}

fn dispatch(words: &[OsString], global: &Global, log: &Log, protected: Result<()>) -> Result<ExitCode> {
    let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    if matches!(name.as_ref(), "create" | "run") {
        protected?;
    }
    log.debug(format_args!("command {words:?}"));
    let context = || -> Result<Context<'_>> {
        Ok(Context {
            log,
            root: root(global.root.as_deref())?,
            cgroup_manager: if global.systemd_cgroup {
                CgroupManager::Systemd
            } else {
                global.cgroup_manager
            },
            rootless: global.rootless,
            environment: environment(),
        })
    };
    match name.as_ref() {
        "create" => {
            command::create::run(&arguments("create", words)?, &context()?).map(|()| ExitCode::SUCCESS)
        }
        "delete" => {
            command::delete::run(&arguments("delete", words)?, &context()?).map(|()| ExitCode::SUCCESS)
        }
        "kill" => command::kill::run(&arguments("kill", words)?, &context()?).map(|()| ExitCode::SUCCESS),
        "list" => command::list::run(&arguments("list", words)?, &context()?).map(|()| ExitCode::SUCCESS),
        "run" => command::run::run(&arguments("run", words)?, &context()?).map(ExitCode::from),
        "spec" => command::spec::run(&arguments("spec", words)?).map(|()| ExitCode::SUCCESS),
        "start" => command::start::run(&arguments("start", words)?, &context()?).map(|()| ExitCode::SUCCESS),
        "state" => command::state::run(&arguments("state", words)?, &context()?).map(|()| ExitCode::SUCCESS),
        "help" => Ok(help(words.get(1).map(OsString::as_os_str))),
        _ => {
            let message = format!("there is no command '{name}'; `runtime --help` lists them\n");
            Err(clap::Error::raw(clap::error::ErrorKind::InvalidSubcommand, message).into())
        }
    }
}

/// Parses the words of a command, of which the first is its name.
fn arguments<T: Args + FromArgMatches>(name: &'static str, words: &[OsString]) -> Result<T> {
    let definition = definition::<T>(name);
    let (name, words) = words.split_at(words.len().min(1));
    let words = with_two_dashes(words.iter().cloned(), &definition, &[]);
    let matches = definition.try_get_matches_from(name.iter().cloned().chain(words))?;
    Ok(T::from_arg_matches(&matches)?)
}

fn definition<T: Args>(name: &'static str) -> clap::Command {
    // Of an option given twice the last value counts: conmon-rs gives some twice.
    let command = clap::Command::new(name).bin_name(format!("runtime {name}"));
    T::augment_args(command.args_override_self(true))
}

fn definitions() -> [clap::Command; 8] {
    [
        definition::<command::create::Create>("create"),
        definition::<command::delete::Delete>("delete"),
        definition::<command::kill::Kill>("kill"),
        definition::<command::list::List>("list"),
        definition::<command::run::Run>("run"),
        definition::<command::spec::Spec>("spec"),
        definition::<command::start::Start>("start"),
        definition::<command::state::State>("state"),
    ]
}

fn whole_help() -> clap::builder::StyledStr {
    let mut command = Cli::command().allow_external_subcommands(false).subcommands(definitions());
    command.render_help()
}

fn help(topic: Option<&OsStr>) -> ExitCode {
    let Some(topic) = topic else { return print(&whole_help().to_string()) };
    match definitions().into_iter().find(|command| command.get_name() == topic) {
        Some(mut command) => print(&command.render_long_help().to_string()),
        None => {
            let _ = writeln!(io::stderr().lock(), "No help topic for '{}'", topic.display());
            ExitCode::FAILURE
        }
    }
}

/// The name under which we were called, if it is one that callers take for a runtime's: they parse the first line.
fn program_name(argument: Option<&OsStr>) -> String {
    let name = argument.map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    name.filter(|name| matches!(*name, "runc" | "crun")).unwrap_or("runtime").to_owned()
}

fn version(name: &str) -> String {
    let commit = option_env!("RUNTIME_COMMIT").unwrap_or("unknown");
    format!("{name} version {}\ncommit: {commit}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

fn root(explicit: Option<&Path>) -> Result<Root> {
    match explicit {
        Some(path) => Root::explicit(path),
        None => {
            let user = rustix::process::geteuid().as_raw();
            Ok(Root::default_for(user, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)))
        }
    }
}

fn environment() -> Environment {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let is_ours = number("LISTEN_PID") == Some(std::process::id());
    Environment {
        notify_socket: std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
        listen_fds: number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0),
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

/// The programs above us read the log, not standard error: what is wrong goes there, in their form, without the advice.
fn log_usage_error(log: &Log, error: &clap::Error) {
    if error.use_stderr() {
        let text = error.render().to_string();
        let words: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        let sentence = words.join(" ");
        log.error(&anyhow::Error::msg(sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned()));
    }
}

fn usage_error(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return print(&text);
    }
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::FAILURE
}
