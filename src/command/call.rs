//! Parses a command line into a call of a command, and words its failure.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use anyhow::{Result, anyhow};
use clap::CommandFactory as _;

use super::registry::{self, Command};
use super::{Action, Context, help};
use crate::cli::global::{self, Cli, Global, Words};
use crate::cli::usage::{HelpWanted, UsageError};
use crate::cli::{go_flags, runc};
use crate::container::Root;
use crate::error::{line, printable};
use crate::host::log::Log;
use crate::host::rootless::has_runtime_directory;
use crate::host::self_exe::{self, Guard};

/// The commands whose child enters a container while it still runs this program; see `host/self_exe.rs`.
const ENTERING: [&str; 3] = ["create", "exec", "run"];

/// What is printed on failure, and the exit status.
#[derive(Debug)]
pub struct Failure {
    /// The help, printed to standard output before the text if the command line was incomplete or wrong, as
    /// in runc.
    pub help: Option<String>,
    /// Printed to standard error.
    pub text: String,
    pub status: u8,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { help: None, text: in_a_line(&error), status: 1 }
    }
}

impl Failure {
    /// Output could not be printed.
    pub fn of_output(error: std::io::Error) -> Self {
        anyhow::Error::from(error).context("write to standard output").into()
    }

    /// The command line is wrong; `help` is printed unless only an argument's value is wrong.
    fn of_words(error: anyhow::Error, help: impl FnOnce() -> String) -> Self {
        let calls_for_help = error.downcast_ref::<UsageError>().is_some_and(|wrong| wrong.calls_for_help);
        Self { help: calls_for_help.then(help), ..Self::from(error) }
    }
}

fn in_a_line(error: &anyhow::Error) -> String {
    format!("error: {}", line(error))
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Print this text: the help or the version.
    Text(String),
    Command(Call),
}

/// A command to be performed.
pub struct Call {
    pub action: Box<dyn Action>,
    pub context: Context,
    command: &'static Command,
    /// The name under which this program was called.
    program: String,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("command", &self.command.name).finish_non_exhaustive()
    }
}

impl Call {
    /// Parses a command line, whose first word is this program's name.
    ///
    /// For a command whose child enters a container, this process re-executes a protected copy of the
    /// program.
    ///
    /// # Errors
    /// If the command line is wrong, or this process cannot be protected.
    pub fn read(words: &[OsString]) -> Result<Parsed, Failure> {
        let (program, arguments) = words.split_at(words.len().min(1));
        let program = global::program_name(program.first().map(OsString::as_os_str));
        // First of all, because it re-executes the program. The word may be an option's value; then it was
        // done needlessly.
        let may_enter = arguments.iter().any(|word| ENTERING.iter().any(|name| word == *name));
        let protected = if may_enter { self_exe::protect_executable() } else { Ok(Guard::default()) };
        Self::understand(&program, arguments, protected)
    }

    fn understand(
        program: &str,
        arguments: &[OsString],
        protected: Result<Guard>,
    ) -> Result<Parsed, Failure> {
        let whole_help = || help::whole(program, &Cli::command());
        let cli = match global::parse(arguments) {
            Ok(cli) => cli,
            Err(error) if error.is::<HelpWanted>() => return Ok(Parsed::Text(whole_help())),
            Err(error) => return Err(Failure::of_words(error, whole_help)),
        };
        if cli.global.version {
            return Ok(Parsed::Text(global::version(program)));
        }
        let Some(Words::Named(words)) = cli.command else { return Ok(Parsed::Text(whole_help())) };
        let log = Log::open(cli.global.log.as_deref(), cli.global.log_format, cli.global.level())?;
        let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        let Some(command) = registry::find(&name) else {
            return no_command(program, &name, &words, &log);
        };
        match (command.parse)(&words) {
            Ok(action) => {
                let context = context(program, command, words, &cli.global, log, protected);
                let call = |context| Self { action, context, command, program: program.to_owned() };
                context.map(|context| Parsed::Command(call(context)))
            }
            Err(error) if error.is::<HelpWanted>() => {
                Ok(Parsed::Text(help::of(program, &command.definition())))
            }
            Err(error) => {
                let own = command.definition();
                // runc accepts the global options after the command, too.
                if error.is::<UsageError>() {
                    if let Some(moved) =
                        go_flags::with_global_first(arguments, words.len(), &own, &Cli::command())
                    {
                        return Self::understand(program, &moved, protected);
                    }
                }
                log.error(&error);
                Err(Failure::of_words(error, || help::of(program, &own)))
            }
        }
    }

    /// Words a failure of the command.
    pub fn failure(&self, error: anyhow::Error) -> Failure {
        failure(&self.program, self.command, &self.context.log, error)
    }
}

fn failure(program: &str, command: &Command, log: &Log, error: anyhow::Error) -> Failure {
    let is_runc = program == "runc";
    let error = if is_runc { runc::with_prefix(command.name, error) } else { error };
    log.error(&error);
    let words = runc::last_words(&error).filter(|_| is_runc);
    let text = words.map_or_else(|| in_a_line(&error), |words| printable::escape(&words).into_owned());
    Failure { help: None, text, status: command.on_failure }
}

fn context(
    program: &str,
    command: &Command,
    words: Vec<OsString>,
    global: &Global,
    log: Log,
    protected: Result<Guard>,
) -> Result<Context, Failure> {
    let protected = match ENTERING.contains(&command.name) {
        true => protected,
        false => {
            // Other commands run hooks and start programs too, which must not have the copy open meanwhile.
            protected.unwrap_or_default().release();
            Ok(Guard::default())
        }
    };
    // Engines read the output of `features` together with standard error.
    if command.name != "features" {
        log.debug(format_args!("command {words:?}"));
    }
    let made = root(global.root.as_deref()).and_then(|root| Ok((root, protected?)));
    match made {
        Ok((root, executable)) => Ok(Context {
            log,
            words,
            root,
            cgroup_manager: global.manager(),
            rootless: global.rootless,
            executable: RefCell::new(executable),
        }),
        Err(error) => Err(failure(program, command, &log, error)),
    }
}

/// Handles a word that is no command: `help`, or an error.
fn no_command(program: &str, name: &str, words: &[OsString], log: &Log) -> Result<Parsed, Failure> {
    let topic = words.get(1).map(|word| word.to_string_lossy());
    match (name, topic) {
        ("help" | "h", None) => Ok(Parsed::Text(help::whole(program, &Cli::command()))),
        ("help" | "h", Some(topic)) => match registry::find(&topic) {
            Some(command) => Ok(Parsed::Text(help::of(program, &command.definition()))),
            None => Err(unknown(&topic, words, log)),
        },
        _ => Err(unknown(name, words, log)),
    }
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

/// For fuzz targets: parses a command line as [`Call::read`] does without running the command; returns the
/// error, if any.
#[cfg(any(test, feature = "fuzzing"))]
pub fn check(arguments: &[OsString]) -> Option<anyhow::Error> {
    let usual = Global::usual(arguments).filter(|(_, rest)| !rest.is_empty());
    let by_clap = global::parse_with_clap(arguments);
    if let (Some((global, rest)), Ok(cli)) = (&usual, &by_clap) {
        let Some(Words::Named(words)) = &cli.command else { return Some(anyhow!("{rest:?} is lost")) };
        assert_eq!((global, *rest), (&cli.global, &**words), "without clap, and with it");
    }
    let known =
        usual.filter(|(_, rest)| rest.first().and_then(|word| registry::find(word.to_str()?)).is_some());
    assert!(known.is_none() || by_clap.is_ok(), "only clap finds fault: {:?}", by_clap.err());
    let cli = match by_clap {
        Ok(cli) => cli,
        Err(error) => return Some(error),
    };
    let Some(Words::Named(words)) = cli.command else { return None };
    let command = registry::find(&words.first()?.to_string_lossy())?;
    let own = command.definition();
    let error = registry::matches(command.name, own.clone(), &words).err()?;
    if error.is::<UsageError>() {
        if let Some(moved) = go_flags::with_global_first(arguments, words.len(), &own, &Cli::command()) {
            assert_eq!(moved.len(), arguments.len(), "a word is lost of {arguments:?}");
            return check(&moved);
        }
    }
    let _ = help::of("runtime", &own);
    Some(error)
}

/// runc's commands that this program lacks; engines find out with `checkpoint --help`.
const UNSUPPORTED: [&str; 2] = ["checkpoint", "restore"];

fn unknown(name: &str, words: &[OsString], log: &Log) -> Failure {
    let option = words.last().and_then(|word| word.to_str()).unwrap_or_default();
    let error = match name {
        // Engines test for the option in this way and look for the first four words.
        "restore" if option.trim_start_matches('-') == "lsm-mount-context" => {
            anyhow!("flag needs an argument: {option} (restore is not supported)")
        }
        // The first words are runc's.
        _ if UNSUPPORTED.contains(&name) => {
            anyhow!("No help topic for '{name}': checkpoint and restore are not supported")
        }
        _ => anyhow!("No help topic for '{name}': no such command (`runtime help` lists the commands)"),
    };
    log.error(&error);
    error.into()
}
