//! Text for terminals: its width, and which characters are safe to write.
//!
//! Containers choose the names of their processes, so these must not be able to move the cursor or imitate
//! other parts of the screen. Only characters known to be one or two columns wide are written; any other
//! becomes `?`.

use unicode_width::UnicodeWidthChar as _;

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

/// Returns the width of a character in columns; 0 if it differs between terminals or depends on the characters
/// beside it.
///
/// It is never less than a terminal uses, because a line too long for the screen would scroll it. So of the narrow
/// characters only letters, digits and some marks in common use are allowed, not those that may be shown wide (emoji
/// that are text by default, regional indicators, unassigned code points). Right-to-left scripts are not allowed
/// either: some terminals reorder them together with the text beside them.
fn columns_of(letter: char) -> usize {
    match letter {
        ' '..='~' => 1,
        // What Unicode keeps for letters from right to left: DerivedBidiClass.txt.
        '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' => 0,
        '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}' => 0,
        // Blanks.
        '\u{115f}' | '\u{3000}' => 0,
        // Letters in frames, and colours of skins.
        '\u{1f100}'..='\u{1f1ff}' | '\u{1f3fb}'..='\u{1f3ff}' => 0,
        '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{bf}' | '×' | '÷' => 1,
        // Dashes, quotation marks, dots; currencies; bars and blocks.
        '\u{2010}'..='\u{2027}' | '\u{20a0}'..='\u{20c0}' | '\u{2580}'..='\u{259f}' => 1,
        letter => match letter.width() {
            Some(2) => 2,
            Some(1) if letter.is_alphanumeric() => 1,
            _ => 0,
        },
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
        for (text, shown) in [
            // Blanks that are none or end a line, a soft hyphen, fillers of Hangul.
            ("a\u{a0}b\u{2028}c\u{2029}d\u{3000}e\u{ad}f\u{115f}\u{1160}\u{3164}", "a?b?c?d?e?f???"),
            // Marks above, below and around letters.
            ("e\u{301}\u{323} क\u{94d}ष ก\u{e34} ㄱ\u{20dd}", "e?? क?ष ก? ㄱ?"),
            // Changes of the direction, and letters from right to left.
            ("\u{200e}\u{200f}\u{61c}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}", "????????"),
            ("\u{2066}\u{2067}\u{2068}\u{2069} אב עק ١٢", "???? ?? ?? ??"),
            // Joined, coloured, of a country, chosen by a selector.
            ("👩\u{200d}🚀 👍\u{1f3fd} 🇩🇪 ❤\u{fe0f} 1\u{fe0f}\u{20e3}", "👩?🚀 👍? ?? ?? 1??"),
            ("\u{fe00}\u{e0100}\u{e0041}\u{180b}", "????"),
            // Private, not assigned, not a character.
            ("\u{e0b0}\u{f0000}\u{378}\u{ffff}\u{fffd}", "?????"),
            ("Ελλάδα Київ Երևան ქართ ไทย 日本 한국 ﾊﾝ", "Ελλάδα Київ Երևան ქართ ไทย 日本 한국 ﾊﾝ"),
        ] {
            assert_eq!(harmless(text.as_bytes(), Charset::Utf8), shown, "{text:?}");
        }
    }

    #[test]
    fn letters_take_no_more_columns_than_they_are_counted_for() {
        use unicode_width::UnicodeWidthStr;

        assert_eq!(["日本", "ｱ", "Ａ", "한", "👩?🚀", "café", "▁█…€"].map(width), [4, 1, 2, 2, 5, 4, 4]);
        let shown: Vec<char> = ('\0'..=char::MAX).filter(|letter| columns_of(*letter) > 0).collect();
        assert!(
            shown.iter().all(|letter| !letter.is_control() && (*letter == ' ' || !letter.is_whitespace()))
        );
        // Each beside itself and beside those that letters are joined by most often.
        for letter in shown {
            for other in ['a', '日', '👩', '한', 'न', letter] {
                let pair: String = [letter, other].iter().collect();
                assert!(UnicodeWidthStr::width(&*pair) <= width(&pair), "{pair:?}");
            }
        }
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
