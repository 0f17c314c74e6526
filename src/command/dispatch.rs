//! Which command is called, with what, and what comes of it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use clap::CommandFactory as _;

use super::registry::{self, Command};
use super::{Context, help};
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

/// What is to be said of a failure on standard error, and the exit status.
#[derive(Debug)]
pub struct Failure {
    pub text: String,
    pub status: u8,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { text: in_a_line(&error), status: 1 }
    }
}

fn in_a_line(error: &anyhow::Error) -> String {
    format!("error: {}", line(error))
}

/// Performs the command line `arguments`, whose first word is this program's name.
///
/// # Errors
/// What has to be reported, once, by whoever calls this.
pub fn dispatch(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let (program, arguments) = arguments.split_at(arguments.len().min(1));
    let program = global::program_name(program.first().map(OsString::as_os_str));
    // Before anything else, because it begins anew. The word may be another option's value: then it was for nothing.
    let may_enter = arguments.iter().any(|word| ENTERING.iter().any(|name| word == *name));
    let protected = if may_enter { self_exe::protect_executable() } else { Ok(Guard::default()) };
    run(&program, arguments, &RefCell::new(protected))
}

fn run(
    program: &str,
    arguments: &[OsString],
    protected: &RefCell<Result<Guard>>,
) -> Result<ExitCode, Failure> {
    let whole_help = || help::whole(program, &Cli::command());
    let cli = match global::parse(arguments) {
        Ok(cli) => cli,
        Err(error) if error.is::<HelpWanted>() => return print(&whole_help()),
        Err(error) => {
            print_help_for(&error, whole_help)?;
            return Err(error.into());
        }
    };
    if cli.global.version {
        return print(&global::version(program));
    }
    let Some(Words::Named(words)) = cli.command else { return print(&whole_help()) };
    let log = Log::open(cli.global.log.as_deref(), cli.global.log_format, cli.global.level())?;
    let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let Some(command) = registry::find(&name) else {
        let topic = words.get(1).map(|word| word.to_string_lossy());
        return match (name.as_ref(), topic) {
            ("help" | "h", None) => print(&whole_help()),
            ("help" | "h", Some(topic)) => match registry::find(&topic) {
                Some(command) => print(&help::of(program, &command.definition())),
                None => unknown(&topic, &words, &log),
            },
            _ => unknown(&name, &words, &log),
        };
    };
    match perform(command, &words, &cli.global, &log, protected) {
        Ok(code) => Ok(code),
        Err(error) if error.is::<HelpWanted>() => print(&help::of(program, &command.definition())),
        Err(error) if error.is::<UsageError>() => {
            let own = command.definition();
            // runc takes the global options behind the command, too.
            if let Some(arguments) =
                go_flags::with_global_first(arguments, words.len(), &own, &Cli::command())
            {
                return run(program, &arguments, protected);
            }
            log.error(&error);
            print_help_for(&error, || help::of(program, &own))?;
            Err(error.into())
        }
        Err(error) => {
            let error = if program == "runc" { runc::with_prefix(command.name, error) } else { error };
            log.error(&error);
            let words = runc::last_words(&error).filter(|_| program == "runc");
            let text =
                words.map_or_else(|| in_a_line(&error), |words| printable::escape(&words).into_owned());
            Err(Failure { text, status: command.on_failure })
        }
    }
}

fn perform(
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
            cgroup_manager: global.manager(),
            rootless: global.rootless,
            // Not before the command line has been understood: whoever reads it once more needs it, too.
            executable: RefCell::new(protected.replace(Ok(Guard::default()))?),
        })
    })
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

/// For fuzz targets: understands a command line as [`run`] does, up to where its command would begin; the error, if it is wrong.
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

fn unknown(name: &str, words: &[OsString], log: &Log) -> Result<ExitCode, Failure> {
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
    Err(error.into())
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// As runc: the help on standard output, for whoever has forgotten; what is wrong goes to standard error.
fn print_help_for(error: &anyhow::Error, help: impl FnOnce() -> String) -> Result<(), Failure> {
    if error.downcast_ref::<UsageError>().is_some_and(|wrong| wrong.calls_for_help) {
        print(&help())?;
    }
    Ok(())
}
