//! Making untrusted text (values of a bundle, file names, output of programs) safe for a terminal and a log.
//!
//! Control characters can move the cursor, change colours or forge a log line. Characters that change the
//! direction of text (UAX 9) can make it look like something else.

use std::borrow::Cow;

/// Whether a terminal or a log reader would interpret this character instead of showing it.
pub fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes all harmful characters of `text` as Rust does in strings, e.g. `\n` and `\u{1b}`. Text that is
/// already escaped does not change.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_harmful(letter) {
            escaped.extend(letter.escape_debug());
        } else {
            escaped.push(letter);
        }
    }
    escaped.into()
}

/// Makes JSON safe to show without changing its meaning: encoders escape only the control characters that
/// JSON forbids, up to U+001F. The other harmful characters can only occur in strings. Newlines between
/// values stay.
pub fn json(text: String) -> String {
    let is_foreign = |letter: char| letter > '\u{1f}' && is_harmful(letter);
    if !text.contains(is_foreign) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_foreign(letter) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARMFUL: &str = "a\0b\nc\rd\u{1b}[2Je\u{7f}f\u{9b}31mg\u{202e}h\u{2066}i\u{2029}";

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_all_else_is_unchanged() {
        assert_eq!(
            escape(HARMFUL),
            "a\\0b\\nc\\rd\\u{1b}[2Je\\u{7f}f\\u{9b}31mg\\u{202e}h\\u{2066}i\\u{2029}"
        );
        for text in ["", "/a b/\"ä\" \\n \u{fffd} 日本 👩‍🚀", "exec: \"x\": no such file or directory (ENOENT)"]
        {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
        assert_eq!(escape(&escape(HARMFUL)), escape(HARMFUL));
    }

    #[test]
    fn json_says_the_same_without_characters_that_control_a_terminal() {
        let text = serde_json::to_string(&[HARMFUL]).unwrap() + "\n";
        let shown = json(text.clone());
        assert!(!shown.trim_end().contains(is_harmful), "{shown}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [HARMFUL]);
        assert!(shown.ends_with("]\n"));
        assert_eq!(json("[\"ä\"]\n".to_owned()), "[\"ä\"]\n");
    }
}
