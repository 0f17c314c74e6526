//! Errors of the command line, in runc's words where callers look for them.

use std::num::{IntErrorKind, ParseIntError};
use std::{error, fmt};

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Help was requested.
#[derive(Debug)]
pub struct HelpWanted;

impl fmt::Display for HelpWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("help requested")
    }
}

impl error::Error for HelpWanted {}

/// A wrong command line.
#[derive(Debug)]
pub struct UsageError {
    sentence: String,
    /// Whether to print the help: not if only an argument's value is wrong.
    pub calls_for_help: bool,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl error::Error for UsageError {}

impl UsageError {
    /// Words clap's error about the arguments of `command`, or about the global options.
    pub fn new(command: Option<&str>, error: &clap::Error) -> Self {
        let calls_for_help = match error.kind() {
            ErrorKind::InvalidValue => value(error).is_empty(),
            kind => kind != ErrorKind::ValueValidation,
        };
        Self { sentence: sentence(command, error), calls_for_help }
    }
}

fn sentence(command: Option<&str>, error: &clap::Error) -> String {
    let argument = named(error, ContextKind::InvalidArg);
    let value = value(error);
    // `--bundle` of `--bundle <DIR>`, `SIGNAL` of `[SIGNAL]`.
    let option = argument.split(' ').next().unwrap_or_default().trim_matches(['[', ']', '<', '>']);
    let whose = command.map(|name| format!("{name:?} ")).unwrap_or_default();
    match error.kind() {
        // Two messages of Go's flag package, which callers look for.
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            format!("flag provided but not defined: {argument}")
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("flag needs an argument: {option}"),
        ErrorKind::UnknownArgument => format!("{whose}has too many arguments: unexpected {argument:?}"),
        ErrorKind::MissingRequiredArgument => {
            format!("{whose}requires an argument: {}", option.trim_end_matches(['>', '.']))
        }
        ErrorKind::TooManyValues => format!("{option}: takes no value, but got {value:?}"),
        ErrorKind::InvalidValue => format!("{option}: invalid value {value:?}{}", known(error)),
        _ => match error::Error::source(error).map(reason) {
            Some(cause) if cause.contains(value) => format!("{option}: {cause}"),
            Some(cause) => format!("{option}: {value:?}: {cause}"),
            None => format!("{option}: invalid value {value:?}"),
        },
    }
}

/// Why a value is invalid, in the words of its type, except for numbers.
fn reason(cause: &(dyn error::Error + 'static)) -> String {
    match cause.downcast_ref::<ParseIntError>().map(ParseIntError::kind) {
        Some(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => "out of range".to_owned(),
        Some(IntErrorKind::Zero) => "must be greater than 0".to_owned(),
        Some(_) => "not a whole number".to_owned(),
        None => cause.to_string(),
    }
}

fn value(error: &clap::Error) -> &str {
    named(error, ContextKind::InvalidValue)
}

fn named(error: &clap::Error, kind: ContextKind) -> &str {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text,
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str).unwrap_or_default(),
        _ => "",
    }
}

/// Lists the possible values, if there are any.
fn known(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => {
            format!(" (must be one of: {})", values.join(", "))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn wrong(line: &str) -> (String, bool) {
        let number = Arg::new("number").long("number").short('n').value_parser(clap::value_parser!(u32));
        let definition = clap::Command::new("x")
            .arg(number)
            .arg(Arg::new("way").long("way").value_parser(["in", "out"]))
            .arg(Arg::new("all").long("all").action(ArgAction::SetTrue))
            .arg(Arg::new("ID").required(true));
        let error = definition.try_get_matches_from(line.split(' ')).unwrap_err();
        let wrong = UsageError::new(Some("x"), &error);
        (wrong.to_string(), wrong.calls_for_help)
    }

    #[test]
    fn a_wrong_form_calls_for_help() {
        let cases = [
            ("x --frob id", "flag provided but not defined: --frob"),
            ("x id --number", "flag needs an argument: --number"),
            ("x id -n", "flag needs an argument: --number"),
            ("x --all=maybe id", "--all: takes no value, but got \"maybe\""),
            ("x", "\"x\" requires an argument: ID"),
            ("x a b", "\"x\" has too many arguments: unexpected \"b\""),
        ];
        for (line, sentence) in cases {
            assert_eq!(wrong(line), (sentence.to_owned(), true), "{line}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_wrong_about_it() {
        let cases = [
            ("x --number=1a id", "--number: \"1a\": not a whole number"),
            ("x --number=99999999999999999999 id", "--number: \"99999999999999999999\": out of range"),
            ("x --way=up id", "--way: invalid value \"up\" (must be one of: in, out)"),
        ];
        for (line, sentence) in cases {
            assert_eq!(wrong(line), (sentence.to_owned(), false), "{line}");
        }
    }
}
