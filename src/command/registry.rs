//! The table of commands: names, options, and what they do.

use std::ffi::OsString;

use anyhow::Result;
use clap::{ArgMatches, Args, FromArgMatches};

use super::Action;
use crate::cli::go_flags;
use crate::cli::usage::UsageError;
use crate::command;

/// One command.
pub struct Command {
    pub name: &'static str,
    define: fn(&'static str) -> clap::Command,
    /// Parses the command line, whose first word is the command's name.
    pub parse: fn(&[OsString]) -> Result<Box<dyn Action>>,
    /// The exit status on failure, except for a wrong command line.
    pub on_failure: u8,
}

/// An entry for `command/MODULE.rs`: its arguments type, which is an [`Action`].
macro_rules! command {
    ($module:ident :: $arguments:ident) => {
        Command {
            name: stringify!($module),
            define: define::<command::$module::$arguments>,
            parse: |words| {
                let arguments: command::$module::$arguments = parse(stringify!($module), words)?;
                Ok(Box::new(arguments))
            },
            on_failure: 1,
        }
    };
    // An entry whose common command lines are parsed without clap.
    (usual $module:ident :: $arguments:ident) => {
        Command {
            parse: |words| {
                let usual = command::$module::$arguments::usual(words.get(1..).unwrap_or_default());
                Ok(Box::new(usual.map_or_else(|| parse(stringify!($module), words), Ok)?))
            },
            ..command!($module::$arguments)
        }
    };
}

/// In the order of the help.
pub const COMMANDS: &[Command] = &[
    command!(create::Create),
    command!(delete::Delete),
    command!(events::Events),
    // 255 lets runc's callers tell a failure of the runtime from one of the program.
    Command { on_failure: 255, ..command!(usual exec::Exec) },
    command!(features::Features),
    command!(history::History),
    command!(kill::Kill),
    command!(list::List),
    command!(pause::Pause),
    command!(ps::Ps),
    command!(resume::Resume),
    command!(rollback::Rollback),
    command!(run::Run),
    command!(spec::Spec),
    command!(start::Start),
    command!(usual state::State),
    command!(stats::Stats),
    command!(top::Top),
    command!(update::Update),
];

pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

impl Command {
    pub fn definition(&self) -> clap::Command {
        (self.define)(self.name)
    }
}

fn define<T: Args>(name: &'static str) -> clap::Command {
    // If an option is given twice, the last value wins: conmon-rs gives some twice.
    T::augment_args(clap::Command::new(name).args_override_self(true))
}

fn parse<T: Args + FromArgMatches>(name: &'static str, words: &[OsString]) -> Result<T> {
    let matches = matches(name, define::<T>(name), words)?;
    T::from_arg_matches(&matches).map_err(|error| UsageError::new(Some(name), &error).into())
}

pub fn matches(name: &'static str, definition: clap::Command, words: &[OsString]) -> Result<ArgMatches> {
    let (first, words) = words.split_at(words.len().min(1));
    let words = go_flags::normal(words.iter().cloned(), &definition, |_| false)?;
    definition
        .try_get_matches_from(first.iter().cloned().chain(words))
        .map_err(|error| UsageError::new(Some(name), &error).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fast_path::{Known, assert_alike};

    fn by_clap<T: Args + FromArgMatches>(name: &'static str, words: &[OsString]) -> T {
        let words: Vec<_> = [name.into()].into_iter().chain(words.iter().cloned()).collect();
        parse(name, &words).unwrap()
    }

    #[test]
    fn usual_command_lines_mean_the_same_without_clap() {
        use command::exec::{Exec, OPTIONS};
        use command::state::State;

        let exec = [
            "id true",
            "--process p.json --console-socket s --pidfd-socket q --detach --pid-file f id",
            "-p p.json -d --pid-file=f id",
            "-e A=b --env=C=d=e -t -u 1000:5 -g 1 --additional-gids 2 --cwd /x id sh -c exit",
            "-c CAP_KILL --cap=CHOWN --no-new-privs --apparmor a --process-label l id sh -t -- --env",
            "--preserve-fds 3 --cgroup a --cgroup b:c --ignore-paused --no-subreaper -tty --tty id -- ls -l",
            "--cwd /a --cwd /b -user 7 id true",
            "id",
        ];
        let known: &[Known] = &OPTIONS;
        assert_alike(&define::<Exec>("exec"), known, &exec, Exec::usual, |words| by_clap("exec", words));
        assert_alike(&define::<State>("state"), &[], &["id"], State::usual, |words| by_clap("state", words));
    }

    #[test]
    fn unusual_command_lines_are_left_to_clap() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in
            ["--preserve-fds x id true", "--tty=false id true", "--cwd", "--frob id", "-td id true", "--tty"]
        {
            assert!(command::exec::Exec::usual(&words(line)).is_none(), "{line}");
        }
        for line in ["--help", "id id", "a/b", "-- id"] {
            assert!(command::state::State::usual(&words(line)).is_none(), "{line}");
        }
    }
}
