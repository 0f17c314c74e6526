//! Text that others chose - values of a bundle, names of files, what programs say - made fit for a terminal
//! and a log.
//!
//! Control characters move the cursor, colour what follows or begin a line that nobody wrote; the characters
//! that change the direction of text (UAX 9) make it look as if it said something else.

use std::borrow::Cow;

/// Whether a terminal or a reader of lines would act on it instead of showing it.
pub fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with all that is harmful written as Rust writes it in a string, such as `\n` and `\u{1b}`. What is
/// escaped already stays as it is.
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

/// JSON that says the same and can be shown: an encoder escapes only the control characters that JSON
/// forbids, up to U+001F. The others can stand in strings alone. Newlines between values stay.
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
