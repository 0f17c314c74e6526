//! Parses common command lines without clap, because building clap's definitions takes a fifth of the time of
//! `state`. Anything unusual or wrong is left to clap, which words the error; a test compares the two.

use std::ffi::{OsStr, OsString};

use super::go_flags::option;

/// An option: long name, short name, and whether it takes a value.
pub type Known = (&'static str, Option<char>, bool);

/// The options before the first word that is no option.
#[derive(Debug)]
pub struct Usual<'a> {
    /// Their names and values, in order. A flag's value is empty.
    pub options: Vec<(&'static str, &'a OsStr)>,
    /// The remaining words.
    pub rest: &'a [OsString],
}

/// Parses `words`; returns `None` if an option is unknown, if a flag has a value, if a value is missing or
/// empty, or at `--`.
pub fn read<'a>(words: &'a [OsString], known: &[Known]) -> Option<Usual<'a>> {
    let mut options = Vec::new();
    let mut rest = words;
    while let [word, others @ ..] = rest {
        if word == "--" {
            return None;
        }
        let Some((name, value)) = option(word) else { break };
        let is_called = |known: &&Known| {
            let mut letters = name.chars();
            known.0 == name || letters.next() == known.1 && letters.next().is_none()
        };
        let (name, _, takes_value) = known.iter().find(is_called)?;
        rest = others;
        let value = match (takes_value, value) {
            (false, None) => OsStr::new(""),
            (false, Some(_)) => return None,
            (true, Some(value)) => value,
            (true, None) => {
                let (value, others) = rest.split_first()?;
                rest = others;
                value
            }
        };
        if *takes_value && value.is_empty() {
            return None;
        }
        options.push((*name, value));
    }
    Some(Usual { options, rest })
}

/// Asserts that both parsers agree on `lines` and that `known` agrees with `definition`.
#[cfg(test)]
pub fn assert_alike<T: PartialEq + std::fmt::Debug>(
    definition: &clap::Command,
    known: &[Known],
    lines: &[&str],
    usual: impl Fn(&[OsString]) -> Option<T>,
    clap: impl Fn(&[OsString]) -> T,
) {
    let defined: Vec<Known> = definition
        .get_arguments()
        .filter(|argument| !argument.is_positional())
        .filter_map(|argument| {
            let takes_value = argument.get_action().takes_values();
            Some((&*argument.get_long()?.to_owned().leak(), argument.get_short(), takes_value))
        })
        .collect();
    assert_eq!(defined, known);
    for line in lines {
        let words: Vec<OsString> =
            line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect();
        assert_eq!(usual(&words).as_ref(), Some(&clap(&words)), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known; 3] = [("all", Some('a'), false), ("bundle", Some('b'), true), ("log", None, true)];

    fn usual(line: &str) -> Option<(Vec<(&'static str, String)>, usize)> {
        // `_` stands for an empty word.
        let words: Vec<_> =
            line.split(' ').map(|word| OsString::from(if word == "_" { "" } else { word })).collect();
        let Usual { options, rest } = read(&words, &KNOWN)?;
        let text = |value: &OsStr| value.to_str().unwrap().to_owned();
        Some((options.into_iter().map(|(name, value)| (name, text(value))).collect(), rest.len()))
    }

    #[test]
    fn options_end_at_the_first_other_word() {
        let all = ("all", String::new());
        let bundle = |value: &str| ("bundle", value.to_owned());
        assert_eq!(usual("-a --bundle x id -a"), Some((vec![all.clone(), bundle("x")], 2)));
        assert_eq!(usual("-bundle=-a - --all"), Some((vec![bundle("-a")], 2)));
        assert_eq!(usual("--bundle --all -all"), Some((vec![bundle("--all"), all], 0)));
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        for line in
            ["--frob id", "--all=true id", "--bundle= id", "--bundle _ id", "--bundle", "-a -- id", "-ab x"]
        {
            assert_eq!(usual(line), None, "{line}");
        }
    }
}
