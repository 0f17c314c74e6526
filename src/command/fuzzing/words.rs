//! Single words: signals, durations, memory sizes, CPU lists, container names, keys.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::cli::bytes;
use crate::cli::duration::Duration;
use crate::container::ContainerId;
use crate::host::signals::Signal;
use crate::host::terminal::keys;
use crate::monitor::text::{Charset, cut, harmless, width};
use crate::plan::hooks;
use crate::plan::process::cpu_list::Mask;

/// Each line is a word; every decoder gets it.
pub(super) fn words(input: &[u8]) {
    for line in input.split(|byte| *byte == b'\n') {
        let word = &*String::from_utf8_lossy(line);
        is_stable::<Signal>(word, Signal::to_string);
        is_stable::<ContainerId>(word, |id| id.as_str().to_owned());
        if let Ok(Duration(length)) = word.parse::<Duration>() {
            let again = format!("{}ns", length.as_nanos()).parse::<Duration>();
            assert_eq!(again.unwrap().0, length, "{word:?}");
        }
        if let Some(amount) = bytes::parse(word) {
            assert_eq!(bytes::parse(&amount.to_string()), Some(amount), "{word:?}");
        }
        mask(word);
        for charset in [Charset::Utf8, Charset::Ascii] {
            let shown = harmless(line, charset);
            assert!(!shown.chars().any(char::is_control), "{line:?} is shown as {shown:?}");
            assert!(width(&cut(&shown, 7, charset)) <= 7, "{shown:?}");
        }
        if let Some(said) = hooks::last_words(line) {
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
    let mut rest = input;
    while let Some((_, length)) = keys::first(rest) {
        assert!(length > 0, "a key that takes no byte of {rest:?}");
        rest = rest.get(length..).unwrap_or_else(|| panic!("a key longer than {rest:?}"));
    }
}

/// Asserts that an accepted value is accepted again in its displayed form, and that errors are printable.
fn is_stable<T: FromStr<Err: std::fmt::Display> + PartialEq + std::fmt::Debug>(
    word: &str,
    show: impl Fn(&T) -> String,
) {
    match word.parse::<T>() {
        Ok(value) => assert_eq!(show(&value).parse().ok(), Some(value), "{word:?}"),
        Err(error) => {
            let error = error.to_string();
            assert!(!error.chars().any(char::is_control), "{error:?}");
        }
    }
}

/// Asserts that a CPU list gives the same set as reading it element by element.
fn mask(text: &str) {
    match Mask::parse(text) {
        Ok(None) => assert_eq!(text, ""),
        Ok(Some(mask)) => {
            let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
            let ends = elements.map(|element| element.split_once('-').unwrap_or((element, element)));
            let ranges: Vec<_> =
                ends.map(|(first, last)| first.parse::<usize>().unwrap()..=last.parse().unwrap()).collect();
            // The comparison visits each number.
            if ranges.iter().map(|range| range.end() - range.start()).sum::<usize>() > 1_000 {
                return;
            }
            let numbers: BTreeSet<usize> = ranges.into_iter().flatten().collect();
            assert_eq!(usize::try_from(mask.count()).unwrap(), numbers.len(), "{text:?}");
            let words = mask.into_words();
            let has = |number: &usize| words[number / 64] & 1 << (number % 64) != 0;
            assert!(numbers.iter().all(has), "{text:?} has not all its numbers");
            assert_ne!(words.last(), Some(&0), "{text:?}: a word that says nothing");
        }
        Err(error) => assert!(!error.chars().any(char::is_control), "{error:?}"),
    }
}
