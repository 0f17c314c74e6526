//! The help, laid out as runc's is: scripts and runc's own tests look for its headings and its first lines.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use super::commands::COMMANDS;

/// What every runtime of this kind calls itself.
const NAME: &str = "Open Container Initiative runtime";

/// Of the whole program: `definition` is that of the global options.
pub fn whole(program: &str, definition: &clap::Command) -> String {
    let mut text = format!("NAME:\n   {program} - {NAME}\n");
    if let Some(about) = about(definition) {
        let _ = write!(text, "\n{about}\n");
    }
    let _ = write!(
        text,
        "\nUSAGE:\n   {program} [global options] command [command options] [arguments...]\n\
         \nVERSION:\n   {}\n\nCOMMANDS:\n",
        env!("CARGO_PKG_VERSION")
    );
    let commands = COMMANDS.iter().map(|command| {
        let about = command.definition().get_about().map(ToString::to_string);
        (command.name.to_owned(), about.unwrap_or_default())
    });
    let help = ("help, h".to_owned(), "Show this list, or help for a command".to_owned());
    columns(&mut text, commands.chain([help]).collect());
    text.push_str("\nGLOBAL OPTIONS:\n");
    columns(&mut text, options(definition));
    text
}

/// Of one command.
pub fn of(program: &str, definition: &clap::Command) -> String {
    let name = definition.get_name();
    let mut text = format!("NAME:\n   {program} {name}");
    let about = about(definition).unwrap_or_default();
    let (about, description) = about.split_once("\n\n").unwrap_or((&about, ""));
    let _ = write!(text, " - {about}\n\nUSAGE:\n   {program} {name} [options]");
    for positional in definition.get_positionals() {
        let _ = write!(text, " {}", usage(positional));
    }
    text.push('\n');
    if !description.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        for line in description.lines() {
            let _ = writeln!(text, "{}{line}", if line.is_empty() { "" } else { "   " });
        }
    }
    let arguments: Vec<_> = definition.get_positionals().filter(|argument| !argument.is_hide_set()).collect();
    if !arguments.is_empty() {
        text.push_str("\nARGUMENTS:\n");
        columns(
            &mut text,
            arguments.into_iter().map(|argument| (value_name(argument), says(argument))).collect(),
        );
    }
    text.push_str("\nOPTIONS:\n");
    columns(&mut text, options(definition));
    text
}

fn about(definition: &clap::Command) -> Option<String> {
    definition.get_long_about().or_else(|| definition.get_about()).map(ToString::to_string)
}

/// `<ID>`, or `[SIGNAL]` if it may be absent.
fn usage(positional: &Arg) -> String {
    let name = value_name(positional);
    let takes_several = positional.get_num_args().is_some_and(|count| count.max_values() > 1);
    let several = if positional.is_trailing_var_arg_set() || takes_several { "..." } else { "" };
    if positional.is_required_set() { format!("<{name}>{several}") } else { format!("[{name}{several}]") }
}

fn value_name(argument: &Arg) -> String {
    let named = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    named.unwrap_or_else(|| argument.get_id().to_string())
}

/// What each of the options that are not hidden is for, in runc's form: `--bundle DIR, -b DIR`.
fn options(definition: &clap::Command) -> Vec<(String, String)> {
    let is_shown = |argument: &&Arg| !argument.is_positional() && !argument.is_hide_set();
    let row = |argument: &Arg| {
        let value = match argument.get_action() {
            ArgAction::Set | ArgAction::Append => format!(" {}", value_name(argument)),
            _ => String::new(),
        };
        let long = argument.get_long().map(|name| format!("--{name}{value}"));
        let short = argument.get_short().map(|letter| format!("-{letter}{value}"));
        (long.into_iter().chain(short).collect::<Vec<_>>().join(", "), says(argument))
    };
    let help = ("--help, -h".to_owned(), "Show this help".to_owned());
    definition.get_arguments().filter(is_shown).map(row).chain([help]).collect()
}

fn says(argument: &Arg) -> String {
    let mut text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let default = argument.get_default_values().first().filter(|_| takes_value);
    if let Some(default) = default {
        let _ = write!(text, " [default: {}]", default.display());
    }
    text
}

fn columns(text: &mut String, rows: Vec<(String, String)>) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0) + 2;
    for (left, right) in rows {
        let _ = writeln!(text, "   {left:<width$}{right}");
    }
}
