//! The command line: global options, which command, and the one place that reports an error.
//!
//! The definition of a command is built only when it is the one that was asked for: all of them together take longer than
//! making a network namespace.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};

use crate::container::Root;
use crate::create::Environment;
use crate::error::line;
use crate::guard;
use crate::log::{Format, Level, Log};

mod commands;
mod words;

use commands::{COMMANDS, Command};

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
    command: Option<Words>,
}

/// The word that ends the global options, and those behind it.
#[derive(Debug, clap::Subcommand)]
enum Words {
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
    /// Who makes the cgroups: cgroupfs, or disabled for none; systemd is refused where it matters
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
        Some(Words::Named(words)) if !cli.global.help => words,
        _ => return print(&whole_help().to_string()),
    };
    let level = if cli.global.debug { Level::Debug } else { Level::Error };
    let log = match Log::open(cli.global.log.as_deref(), cli.global.log_format, level) {
        Ok(log) => log,
        Err(error) => return report(&error),
    };
    let name = command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let found = commands::find(&name);
    match dispatch(found, &command, &cli.global, &log, protected) {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => {
                log_usage_error(&log, &usage);
                usage_error(&usage)
            }
            Err(error) => {
                log.error(&error);
                report(&error);
                found.map_or(ExitCode::FAILURE, |command| ExitCode::from(command.on_failure))
            }
        },
    }
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    // The first word stands for the program's name, which usage messages take from the definition.
    let definition = Cli::command();
    let words =
        words::normal(arguments, &definition, |word| word == "help" || commands::find(word).is_some());
    let matches = definition.try_get_matches_from([OsString::from("runtime")].into_iter().chain(words))?;
    Cli::from_arg_matches(&matches)
}

fn dispatch(
    command: Option<&Command>,
    words: &[OsString],
    global: &Global,
    log: &Log,
    protected: Result<()>,
) -> Result<ExitCode> {
    let Some(command) = command else {
        if words.first().is_some_and(|word| word == "help") {
            return Ok(help(words.get(1).map(OsString::as_os_str)));
        }
        let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        let message = format!("there is no command '{name}'; `runtime --help` lists them\n");
        return Err(clap::Error::raw(clap::error::ErrorKind::InvalidSubcommand, message).into());
    };
    if matches!(command.name, "create" | "run") {
        protected?;
    }
    log.debug(format_args!("command {words:?}"));
    (command.run)(words, &|| {
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
    })
}

fn whole_help() -> clap::builder::StyledStr {
    let mut command = Cli::command()
        .allow_external_subcommands(false)
        .subcommands(COMMANDS.iter().map(Command::definition));
    command.render_help()
}

fn help(topic: Option<&OsStr>) -> ExitCode {
    let Some(topic) = topic else { return print(&whole_help().to_string()) };
    match topic.to_str().and_then(commands::find) {
        Some(command) => print(&command.definition().render_long_help().to_string()),
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
