//! What a command line asks for, and what is to be said of a failure.

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

/// The commands whose child enters a container while it still is this program; see `host/self_exe.rs`.
const ENTERING: [&str; 3] = ["create", "exec", "run"];

/// What is to be said of a failure, and the exit status.
#[derive(Debug)]
pub struct Failure {
    /// For standard output, before the text: for whoever has forgotten, as with runc.
    pub help: Option<String>,
    /// For standard error.
    pub text: String,
    pub status: u8,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { help: None, text: in_a_line(&error), status: 1 }
    }
}

impl Failure {
    /// Of a text that could not be printed.
    pub fn of_output(error: std::io::Error) -> Self {
        anyhow::Error::from(error).context("write to standard output").into()
    }

    /// Of a command line; `help` tells how to do it better, unless it is the value of an argument that is wrong.
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
pub enum Asked {
    /// This text: the help, or the version.
    Text(String),
    Command(Call),
}

/// A command to be performed.
pub struct Call {
    pub action: Box<dyn Action>,
    pub context: Context,
    command: &'static Command,
    /// The name that this program goes by.
    program: String,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("command", &self.command.name).finish_non_exhaustive()
    }
}

impl Call {
    /// Understands a command line, whose first word is this program's name.
    ///
    /// For a command whose child enters a container, this process begins anew in a copy of its executable.
    ///
    /// # Errors
    /// What is wrong with it; what is to be known of this process and cannot.
    pub fn read(words: &[OsString]) -> Result<Asked, Failure> {
        let (program, arguments) = words.split_at(words.len().min(1));
        let program = global::program_name(program.first().map(OsString::as_os_str));
        // Before anything else, because it begins anew. The word may be another option's value: then it was for nothing.
        let may_enter = arguments.iter().any(|word| ENTERING.iter().any(|name| word == *name));
        let protected = if may_enter { self_exe::protect_executable() } else { Ok(Guard::default()) };
        Self::understand(&program, arguments, protected)
    }

    fn understand(program: &str, arguments: &[OsString], protected: Result<Guard>) -> Result<Asked, Failure> {
        let whole_help = || help::whole(program, &Cli::command());
        let cli = match global::parse(arguments) {
            Ok(cli) => cli,
            Err(error) if error.is::<HelpWanted>() => return Ok(Asked::Text(whole_help())),
            Err(error) => return Err(Failure::of_words(error, whole_help)),
        };
        if cli.global.version {
            return Ok(Asked::Text(global::version(program)));
        }
        let Some(Words::Named(words)) = cli.command else { return Ok(Asked::Text(whole_help())) };
        let log = Log::open(cli.global.log.as_deref(), cli.global.log_format, cli.global.level())?;
        let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        let Some(command) = registry::find(&name) else {
            return no_command(program, &name, &words, &log);
        };
        match (command.parse)(&words) {
            Ok(action) => {
                let context = context(program, command, words, &cli.global, log, protected);
                let call = |context| Self { action, context, command, program: program.to_owned() };
                context.map(|context| Asked::Command(call(context)))
            }
            Err(error) if error.is::<HelpWanted>() => {
                Ok(Asked::Text(help::of(program, &command.definition())))
            }
            Err(error) => {
                let own = command.definition();
                // runc takes the global options behind the command, too.
                if error.is::<UsageError>()
                    && let Some(moved) =
                        go_flags::with_global_first(arguments, words.len(), &own, &Cli::command())
                {
                    return Self::understand(program, &moved, protected);
                }
                log.error(&error);
                Err(Failure::of_words(error, || help::of(program, &own)))
            }
        }
    }

    /// What is to be said of a failure of the command.
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
            // Other commands call hooks and have programs begin, too, and must not hold it meanwhile.
            protected.unwrap_or_default().release();
            Ok(Guard::default())
        }
    };
    // Engines read the features together with standard error.
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

/// There is no command of this `name`: it may ask for help.
fn no_command(program: &str, name: &str, words: &[OsString], log: &Log) -> Result<Asked, Failure> {
    let topic = words.get(1).map(|word| word.to_string_lossy());
    match (name, topic) {
        ("help" | "h", None) => Ok(Asked::Text(help::whole(program, &Cli::command()))),
        ("help" | "h", Some(topic)) => match registry::find(&topic) {
            Some(command) => Ok(Asked::Text(help::of(program, &command.definition()))),
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

/// For fuzz targets: understands a command line as [`Call::read`] does, up to where its command would begin; the error, if it is wrong.
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
    if error.is::<UsageError>()
        && let Some(moved) = go_flags::with_global_first(arguments, words.len(), &own, &Cli::command())
    {
        assert_eq!(moved.len(), arguments.len(), "a word is lost of {arguments:?}");
        return check(&moved);
    }
    let _ = help::of("runtime", &own);
    Some(error)
}

/// runc's commands that there are not; by `checkpoint --help` engines find out.
const ABSENT: [&str; 2] = ["checkpoint", "restore"];

fn unknown(name: &str, words: &[OsString], log: &Log) -> Failure {
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
    error.into()
}
