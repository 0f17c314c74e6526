//! Text for a terminal: how many columns it takes, and what of it may be written there.
//!
//! What containers call their processes is theirs to choose: nothing of it may move the cursor or stand in the place of the
//! rest of the screen. So letters are written of which it is known that they take one column or two, and `?` for all else.

/// Which characters a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    Utf8,
    Ascii,
}

impl Charset {
    /// What standard output can show, as far as the environment says: `None` if it is no terminal, or `TERM` names none that can be
    /// painted on; term(7).
    pub fn of_stdout() -> Option<Self> {
        if !rustix::termios::isatty(rustix::stdio::stdout()) {
            return None;
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if variable("TERM").is_none_or(|terminal| terminal == "dumb") {
            return None;
        }
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
        Some(Self::of_locale(&locale.to_string_lossy()))
    }

    /// Of this locale, the first of LC_ALL, LC_CTYPE and LANG that is set; locale(7).
    pub fn of_locale(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.contains("utf-8") || name.contains("utf8") {
            true => Self::Utf8,
            false => Self::Ascii,
        }
    }

    /// What stands for a text that was cut off there.
    fn ellipsis(self) -> char {
        match self {
            Self::Utf8 => '…',
            Self::Ascii => '~',
        }
    }
}

/// Scripts whose letters take one column: Latin, Greek, Cyrillic, Armenian, and what is used between them.
const NARROW: [(char, char); 9] = [
    ('\u{20}', '\u{7e}'),
    ('\u{a1}', '\u{ac}'),
    ('\u{ae}', '\u{2ff}'),
    ('\u{370}', '\u{377}'),
    ('\u{37a}', '\u{37f}'),
    ('\u{384}', '\u{482}'),
    ('\u{48a}', '\u{52f}'),
    ('\u{2010}', '\u{2027}'),
    ('\u{2580}', '\u{259f}'),
];
/// Those whose letters take two: Japanese, Chinese, Korean; UAX 11, "East Asian Width".
const WIDE: [(char, char); 5] = [
    ('\u{3041}', '\u{3096}'),
    ('\u{30a1}', '\u{30ff}'),
    ('\u{3400}', '\u{4dbf}'),
    ('\u{4e00}', '\u{9fff}'),
    ('\u{ac00}', '\u{d7a3}'),
];

fn columns_of(letter: char) -> usize {
    let is_in =
        |ranges: &[(char, char)]| ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter));
    if is_in(&NARROW) {
        1
    } else if is_in(&WIDE) {
        2
    } else {
        0
    }
}

/// How many columns `text` takes, all of which may be written.
pub fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// What may be written of a text that anybody could have chosen.
pub fn harmless(text: &[u8], charset: Charset) -> String {
    let shows = |letter: char| letter.is_ascii() || charset == Charset::Utf8;
    let letters = String::from_utf8_lossy(text);
    letters.chars().map(|letter| if shows(letter) && columns_of(letter) > 0 { letter } else { '?' }).collect()
}

/// As much of `text` as takes at most `columns`, with a sign where the rest was.
pub fn cut(text: &str, columns: usize, charset: Charset) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let mut kept = String::new();
    let mut taken = 0;
    for letter in text.chars() {
        taken += columns_of(letter);
        if taken > room {
            break;
        }
        kept.push(letter);
    }
    kept.push(charset.ellipsis());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_where_a_sign_says_so() {
        for (text, columns, expected) in [
            ("container", 9, "container"),
            ("container", 8, "contain…"),
            ("container", 1, "…"),
            ("container", 0, ""),
            ("größer", 4, "grö…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
        ] {
            let cut = cut(text, columns, Charset::Utf8);
            assert_eq!(cut, expected);
            assert!(width(&cut) <= columns);
        }
        assert_eq!(super::cut("container", 4, Charset::Ascii), "con~");
    }

    #[test]
    fn nothing_that_a_process_calls_itself_controls_the_terminal() {
        assert_eq!(harmless(b"a\x1b[2Jb\r\n\x07", Charset::Utf8), "a?[2Jb???");
        // The 8-bit form of the same, a mark that joins the letter before, a change of the direction, half a letter.
        assert_eq!(harmless("\u{9b}e\u{301}\u{202e}".as_bytes(), Charset::Utf8), "?e??");
        assert_eq!(harmless(b"\xe6\x97", Charset::Utf8), "?");
        assert_eq!(harmless("größer 日本".as_bytes(), Charset::Utf8), "größer 日本");
        assert_eq!(harmless("größer".as_bytes(), Charset::Ascii), "gr??er");
    }

    #[test]
    fn a_locale_says_what_a_terminal_shows() {
        for (name, charset) in [
            ("de_DE.UTF-8", Charset::Utf8),
            ("C.utf8", Charset::Utf8),
            ("C", Charset::Ascii),
            ("de_DE.ISO-8859-1", Charset::Ascii),
            ("", Charset::Ascii),
        ] {
            assert_eq!(Charset::of_locale(name), charset, "{name}");
        }
    }
}
