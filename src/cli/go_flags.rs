//! Translates Go-style command lines for clap.
//!
//! runc's options follow Go's flag package, and its callers rely on that:
//!
//! * a long option may have a single dash: go-runc writes `-no-subreaper`;
//! * a flag may have a value: `--detach=false` unsets it, including an earlier `--detach`;
//! * the word after an option that takes a value is its value, even if it begins with a dash: `--pids-limit
//!   -1`;
//! * an option with an empty value counts as not given: `--console-socket ""`. The exception is
//!   [`NEVER_EMPTY`].
//!
//! Help is requested with `--help`, `-h`, or crun's `-?` and `--usage`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::{Arg, ArgAction};

use super::usage::HelpWanted;

/// The `--to` of `rollback`, where an empty value is an error. Go's programs do not have the option, and an
/// unset shell variable must not select another revision.
const NEVER_EMPTY: &str = "to";

/// Rewrites `words` for clap, up to `--` or the first word for which `ends` is true or, where another
/// program's options may follow, the first word that is no option.
///
/// # Errors
/// If help is requested.
/// If help is asked for.
pub fn normal(
    words: impl Iterator<Item = OsString>,
    definition: &clap::Command,
    ends: impl Fn(&str) -> bool,
) -> Result<Vec<OsString>, HelpWanted> {
    let ends_at_first = ends_at_first(definition);
    let mut words = words.peekable();
    // Each with its option's id, so that it can be unset later.
    let mut normal: Vec<(Option<&str>, OsString)> = Vec::new();
    while let Some(word) = words.next() {
        let Some((name, value)) = option(&word) else {
            let is_last = word == "--" || ends_at_first || word.to_str().is_some_and(&ends);
            normal.push((None, word));
            if is_last {
                break;
            }
            continue;
        };
        let found = definition.get_arguments().find(|argument| is_called(argument, name));
        let Some(argument) = found else {
            if matches!(name, "help" | "h" | "?" | "usage") {
                return Err(HelpWanted);
            }
            normal.push((None, word));
            continue;
        };
        let id = argument.get_id().as_str();
        let takes_value = takes_value(argument);
        let value = value.map(OsStr::to_owned);
        let value = if takes_value { value.or_else(|| words.next()) } else { value };
        let is_off = match &value {
            Some(value) if takes_value => value.is_empty() && id != NEVER_EMPTY,
            Some(value) => truth(value) == Some(false),
            None => false,
        };
        let option = match argument.get_long() {
            Some(long) => format!("--{long}"),
            None => format!("-{name}"),
        };
        match value {
            _ if is_off && matches!(argument.get_action(), ArgAction::Append) => {}
            _ if is_off => normal.retain(|(other, _)| *other != Some(id)),
            Some(value) if takes_value || truth(&value).is_none() => {
                let joined = [option.as_bytes(), b"=", value.as_bytes()].concat();
                normal.push((Some(id), OsString::from_vec(joined)));
            }
            _ => normal.push((Some(id), option.into())),
        }
    }
    Ok(normal.into_iter().map(|(_, word)| word).chain(words).collect())
}

/// Moves one option that only `global` knows to before the command. The last `count` words are the command
/// and its arguments. Returns `None` if there is no such option.
pub fn with_global_first(
    words: &[OsString],
    count: usize,
    own: &clap::Command,
    global: &clap::Command,
) -> Option<Vec<OsString>> {
    let (before, behind) = words.split_at(words.len().checked_sub(count)?);
    let knows = |definition: &clap::Command, name: &str| {
        let found = definition.get_arguments().find(|argument| is_called(argument, name));
        found.map(takes_value)
    };
    let mut place = 1;
    while let Some(word) = behind.get(place) {
        let length = |takes_value, value: Option<&OsStr>| if takes_value && value.is_none() { 2 } else { 1 };
        match option(word) {
            None if word == "--" || ends_at_first(own) => return None,
            None => place += 1,
            Some((name, value)) => match (knows(own, name), knows(global, name)) {
                (None, Some(takes_value)) => {
                    let end = place + length(takes_value, value);
                    let moved = behind.get(place..end)?;
                    let rest = [behind.get(..place)?, behind.get(end..)?].concat();
                    return Some([before, moved, &rest].concat());
                }
                (takes_value, _) => place += length(takes_value == Some(true), value),
            },
        }
    }
    None
}

/// Splits an option into its name and the value after an equals sign; `None` if `word` is no option.
pub fn option(word: &OsStr) -> Option<(&str, Option<&OsStr>)> {
    let bytes = word.as_bytes();
    let name = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
    let (name, value) = match name.iter().position(|&byte| byte == b'=') {
        Some(end) => (name.get(..end)?, name.get(end + 1..)),
        None => (name, None),
    };
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some((name, value.map(OsStr::from_bytes)))
}

/// Whether another program's options may follow the first word that is no option.
fn ends_at_first(definition: &clap::Command) -> bool {
    definition.get_positionals().any(Arg::is_trailing_var_arg_set)
}

fn takes_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
}

fn is_called(argument: &Arg, name: &str) -> bool {
    let mut letters = name.chars();
    argument.get_long() == Some(name)
        || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        || letters.next().is_some_and(|letter| argument.get_short() == Some(letter))
            && letters.next().is_none()
}

/// Parses Go's boolean words.
pub fn truth(word: &OsStr) -> Option<bool> {
    match word.to_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(trailing: bool) -> clap::Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        clap::Command::new("x")
            .arg(flag("all").short('a'))
            .arg(flag("detach").short('d'))
            .arg(Arg::new("bundle").long("bundle").short('b'))
            .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
            .arg(Arg::new("rest").num_args(0..).trailing_var_arg(trailing))
    }

    fn normal_of(line: &str, trailing: bool) -> String {
        // `_` stands for an empty word.
        let words = line.split(' ').map(|word| OsString::from(if word == "_" { "" } else { word }));
        let words = normal(words, &definition(trailing), |word| word == "END").unwrap();
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[track_caller]
    fn turns_into(line: &str, expected: &str) {
        assert_eq!(normal_of(line, false), expected);
    }

    #[test]
    fn a_long_option_may_have_one_dash() {
        turns_into("-all -bundle x y", "--all --bundle=x y");
        turns_into("-bundle=x -a", "--bundle=x --all");
    }

    #[test]
    fn a_flag_may_have_a_value_and_the_last_one_counts() {
        turns_into("--all=true -d=1", "--all --detach");
        turns_into("--all --detach -a --all=false", "--detach");
        turns_into("--all=F --all", "--all");
        turns_into("--all=perhaps", "--all=perhaps");
    }

    #[test]
    fn what_follows_an_option_is_its_value() {
        turns_into("--bundle --all -b -1", "--bundle=--all --bundle=-1");
        turns_into("-e -all --env -- -a", "--env=-all --env=-- --all");
        turns_into("-b", "--bundle");
    }

    #[test]
    fn an_empty_value_takes_the_option_back() {
        turns_into("--bundle x --bundle _ y", "y");
        turns_into("--bundle= --bundle=x", "--bundle=x");
        turns_into("--env A=B --env _", "--env=A=B");
    }

    #[test]
    fn the_words_of_another_program_are_left_alone() {
        turns_into("-all -- -all", "--all -- -all");
        turns_into("-all END -all", "--all END -all");
        turns_into("x -all", "x --all");
        assert_eq!(normal_of("-all x -all -?", true), "--all x -all -?");
    }

    #[test]
    fn a_global_option_behind_the_command_goes_before_it() {
        let global = clap::Command::new("global")
            .arg(Arg::new("debug").long("debug").action(ArgAction::SetTrue))
            .arg(Arg::new("root").long("root"));
        let moved = |line: &str, count, trailing| {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let words = with_global_first(&words, count, &definition(trailing), &global)?;
            Some(words.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(moved("--root x list --debug y", 3, false).unwrap(), "--root x --debug list y");
        assert_eq!(moved("list -a -root x y", 5, false).unwrap(), "-root x list -a y");
        assert_eq!(moved("list --root=x", 2, true).unwrap(), "--root=x list");
        for line in ["list -a --bundle --debug y", "list x -- --debug", "list --unknown x", "list"] {
            assert_eq!(moved(line, line.split(' ').count(), false), None, "{line}");
        }
        assert_eq!(moved("exec id sh --debug", 4, true), None);
        assert_eq!(moved("list --root", 2, false), None);
    }

    #[test]
    fn help_may_be_asked_for_in_several_ways_among_the_options() {
        turns_into("-x --frob=1 -ad -", "-x --frob=1 -ad -");
        for line in ["--usage", "-?", "-x -h", "a -help", "--bundle x --help"] {
            let words = line.split(' ').map(OsString::from);
            assert!(normal(words, &definition(false), |_| false).is_err(), "{line}");
        }
        turns_into("--bundle --help", "--bundle=--help");
    }
}
