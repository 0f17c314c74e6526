//! Text for terminals: its width, and which characters are safe to write.
//!
//! Containers choose the names of their processes, so these must not be able to move the cursor or imitate
//! other parts of the screen. Only characters known to be one or two columns wide are written; any other
//! becomes `?`.

/// The characters that a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    Utf8,
    Ascii,
}

impl Charset {
    /// The character set of standard output according to the environment. `None` if it is not a terminal, or
    /// if `TERM` is unset or `dumb`; term(7).
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

    /// The character set of a locale: the first of LC_ALL, LC_CTYPE and LANG that is set; locale(7).
    pub fn of_locale(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.contains("utf-8") || name.contains("utf8") {
            true => Self::Utf8,
            false => Self::Ascii,
        }
    }

    /// Marks the end of a text that was cut.
    fn ellipsis(self) -> char {
        match self {
            Self::Utf8 => '…',
            Self::Ascii => '~',
        }
    }
}

/// Characters one column wide: Latin, Greek, Cyrillic, Armenian, and punctuation and block elements.
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
/// Characters two columns wide: Japanese, Chinese, Korean; UAX 11, "East Asian Width".
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

/// The width of `text` in columns, if all its characters are safe.
pub fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Replaces unsafe characters of an untrusted text.
pub fn harmless(text: &[u8], charset: Charset) -> String {
    let shows = |letter: char| letter.is_ascii() || charset == Charset::Utf8;
    let letters = String::from_utf8_lossy(text);
    letters.chars().map(|letter| if shows(letter) && columns_of(letter) > 0 { letter } else { '?' }).collect()
}

/// Cuts `text` to at most `columns`, with an ellipsis if something was cut.
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
        // The 8-bit form of the same, a combining mark, a change of direction, an incomplete character.
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
