//! The help, laid out like runc's: scripts and runc's own tests look for its headings and first lines.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use super::registry::COMMANDS;

/// The name that all OCI runtimes give themselves here.
const NAME: &str = "Open Container Initiative runtime";

/// The help of the whole program; `definition` is that of the global options.
pub fn whole(program: &str, definition: &clap::Command) -> String {
    let width = width();
    let mut text = format!("NAME:\n   {program} - {NAME}\n");
    if let Some(about) = about(definition) {
        text.push('\n');
        paragraphs(&mut text, &about, "", width);
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
    columns(&mut text, commands.chain([help]).collect(), width);
    text.push_str("\nGLOBAL OPTIONS:\n");
    columns(&mut text, options(definition), width);
    text
}

/// The help of one command.
pub fn of(program: &str, definition: &clap::Command) -> String {
    let width = width();
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
        paragraphs(&mut text, description, INDENT, width);
    }
    let arguments: Vec<_> = definition.get_positionals().filter(|argument| !argument.is_hide_set()).collect();
    if !arguments.is_empty() {
        text.push_str("\nARGUMENTS:\n");
        columns(
            &mut text,
            arguments.into_iter().map(|argument| (value_name(argument), says(argument))).collect(),
            width,
        );
    }
    text.push_str("\nOPTIONS:\n");
    columns(&mut text, options(definition), width);
    text
}

fn about(definition: &clap::Command) -> Option<String> {
    definition.get_long_about().or_else(|| definition.get_about()).map(ToString::to_string)
}

/// Returns `ID`, or `[SIGNAL]` for an optional argument. A value name of several words contains its own
/// brackets.
fn usage(positional: &Arg) -> String {
    let name = value_name(positional);
    if name.contains(' ') {
        return name;
    }
    let takes_several = positional.get_num_args().is_some_and(|count| count.max_values() > 1);
    let several = if positional.is_trailing_var_arg_set() || takes_several { "..." } else { "" };
    if positional.is_required_set() { format!("{name}{several}") } else { format!("[{name}{several}]") }
}

fn value_name(argument: &Arg) -> String {
    let named = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string);
    named.unwrap_or_else(|| argument.get_id().to_string())
}

/// The visible options with their descriptions, in runc's form: `--bundle DIR, -b DIR`.
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
        let _ = write!(text, " [default: {}]", default.to_string_lossy());
    }
    text
}

/// Indentation of each line below a heading.
const INDENT: &str = "   ";
/// Indentation of a description that does not fit beside its option.
const BELOW: &str = "      ";
/// Minimum width, in columns, of a description beside its option.
const NARROWEST: usize = 24;

/// The width of the terminal on standard output, within limits.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok();
    match size.map_or(0, |size| usize::from(size.ws_col)) {
        0 => 80,
        columns => columns.max(40),
    }
}

/// Appends `rows` in two columns, in lines of at most `width` unless a word is longer.
fn columns(text: &mut String, rows: Vec<(String, String)>, width: usize) {
    let left_width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0) + 2;
    let hanging = INDENT.len() + left_width;
    let is_beside = width >= hanging + NARROWEST;
    for (left, right) in rows {
        let indent = if is_beside { " ".repeat(hanging) } else { BELOW.to_owned() };
        let mut lines = wrapped(&right, width.saturating_sub(indent.len())).into_iter();
        if is_beside {
            let first = lines.next().unwrap_or_default();
            let _ = writeln!(text, "{}", format!("{INDENT}{left:<left_width$}{first}").trim_end());
        } else {
            let _ = writeln!(text, "{INDENT}{left}");
        }
        for line in lines {
            let _ = writeln!(text, "{indent}{line}");
        }
    }
}

/// Appends the paragraphs of `source`, each line indented by `indent`. Lines that begin with a blank are not
/// wrapped.
fn paragraphs(text: &mut String, source: &str, indent: &str, width: usize) {
    let mut paragraph = String::new();
    let flush = |paragraph: &mut String, text: &mut String| {
        for line in wrapped(paragraph, width.saturating_sub(indent.len())) {
            let _ = writeln!(text, "{indent}{line}");
        }
        paragraph.clear();
    };
    for line in source.lines() {
        if line.is_empty() || line.starts_with(' ') {
            flush(&mut paragraph, text);
            let _ = writeln!(text, "{}", format!("{indent}{line}").trim_end());
        } else {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    flush(&mut paragraph, text);
}

/// Wraps `text` into lines of at most `width` unless a word is longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(String, String)> {
        let row = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        vec![row("--bundle DIR, -b DIR", "Path to the bundle directory"), row("--help, -h", "Show this help")]
    }

    #[test]
    fn the_second_column_hangs() {
        let mut text = String::new();
        columns(&mut text, rows(), 50);
        let expected = "   --bundle DIR, -b DIR  Path to the bundle\n                         directory\n   \
                        --help, -h            Show this help\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn where_there_is_no_room_beside_it_the_explanation_stands_below() {
        let mut text = String::new();
        columns(&mut text, rows(), 40);
        let expected = "   --bundle DIR, -b DIR\n      Path to the bundle directory\n   --help, -h\n      Show \
                        this help\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_option_without_explanation_ends_its_line() {
        let mut text = String::new();
        columns(&mut text, vec![("--all".to_owned(), String::new())], 80);
        assert_eq!(text, "   --all\n");
    }

    #[test]
    fn paragraphs_are_filled_and_examples_stay() {
        let mut text = String::new();
        paragraphs(&mut text, "one two\nthree four:\n\n    # an example that is long\n\nfive", INDENT, 16);
        assert_eq!(text, "   one two three\n   four:\n\n       # an example that is long\n\n   five\n");
    }

    #[test]
    fn a_word_is_never_broken() {
        assert_eq!(wrapped("a $XDG_RUNTIME_DIR/runtime b", 10), ["a", "$XDG_RUNTIME_DIR/runtime", "b"]);
        assert_eq!(wrapped("", 10), [""; 0]);
    }

    #[test]
    fn no_help_is_wider_than_the_terminal() {
        for command in COMMANDS {
            let text = of("runtime", &command.definition());
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width()), "{text}");
        }
    }

    #[test]
    fn the_usage_reads_as_it_is_typed() {
        let line = |name: &str| {
            let command = COMMANDS.iter().find(|command| command.name == name).unwrap();
            let text = of("runtime", &command.definition());
            text.lines().skip_while(|line| *line != "USAGE:").nth(1).unwrap().trim().to_owned()
        };
        assert_eq!(line("exec"), "runtime exec [options] ID [PROGRAM [ARGUMENT...]]");
        assert_eq!(line("ps"), "runtime ps [options] ID [PS_OPTION...]");
        assert_eq!(line("kill"), "runtime kill [options] ID [SIGNAL]");
        assert_eq!(line("update"), "runtime update [options] ID...");
        assert_eq!(line("stats"), "runtime stats [options] [ID...]");
        assert_eq!(line("list"), "runtime list [options]");
    }
}
