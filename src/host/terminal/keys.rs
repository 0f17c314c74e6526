//! Decodes what terminals send for keys; console_codes(4), xterm's control sequences, "PC-Style Function
//! Keys".

/// A key that has a function in `top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Letter(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Backspace,
    Escape,
}

const ESCAPE: u8 = 0x1b;

/// Decodes the first key of `bytes` and returns how many bytes it took. `None` if more bytes are needed to
/// tell. Unused keys take their bytes, too, and are returned as no key.
pub fn first(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let key = match bytes {
        [] => return None,
        [ESCAPE, b'[' | b'O', rest @ ..] => return sequence(rest).map(|(key, length)| (key, length + 2)),
        [ESCAPE] => return None,
        [ESCAPE, ..] => Some(Key::Escape),
        [b'\r' | b'\n', ..] => Some(Key::Enter),
        [0x08 | 0x7f, ..] => Some(Key::Backspace),
        [byte @ b' '..=b'~', ..] => Some(Key::Letter(char::from(*byte))),
        _ => None,
    };
    Some((key, 1))
}

/// The key for an incomplete sequence after which nothing more arrives.
pub fn alone(bytes: &[u8]) -> Option<Key> {
    (bytes == [ESCAPE]).then_some(Key::Escape)
}

/// Decodes parameters (digits and semicolons) and a final letter or tilde.
fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let end = bytes.iter().position(|byte| (0x40..=0x7e).contains(byte));
    let Some(end) = end else {
        // Longer than any sequence: discard it.
        return (bytes.len() > 16).then_some((None, bytes.len()));
    };
    let key = match (bytes.get(end), bytes.get(..end)) {
        (Some(b'A'), _) => Some(Key::Up),
        (Some(b'B'), _) => Some(Key::Down),
        (Some(b'H'), _) | (Some(b'~'), Some(b"1" | b"7")) => Some(Key::Home),
        (Some(b'F'), _) | (Some(b'~'), Some(b"4" | b"8")) => Some(Key::End),
        (Some(b'~'), Some(b"5")) => Some(Key::PageUp),
        (Some(b'~'), Some(b"6")) => Some(Key::PageDown),
        _ => None,
    };
    Some((key, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(mut bytes: &[u8]) -> (Vec<Key>, &[u8]) {
        let mut keys = Vec::new();
        while let Some((key, length)) = first(bytes) {
            keys.extend(key);
            bytes = &bytes[length..];
        }
        (keys, bytes)
    }

    #[test]
    fn keys_are_known_by_what_they_send() {
        use Key::*;
        let cases: [(&[u8], &[Key]); 9] = [
            (b"q?", &[Letter('q'), Letter('?')]),
            (b"\x1b[A\x1bOB", &[Up, Down]),
            (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", &[PageUp, PageDown, Home, End]),
            (b"\r\n\x7f", &[Enter, Enter, Backspace]),
            // Terminals send Alt and a letter as Escape and the letter.
            (b"\x1bq", &[Escape, Letter('q')]),
            (b"\x1b\x1b[A", &[Escape, Up]),
            // With modifiers; an unknown key; a control character.
            (b"\x1b[1;5A\x1b[15~\x01c", &[Up, Letter('c')]),
            ("ä".as_bytes(), &[]),
            (b"\x1b[0123456789012345678", &[]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(keys(bytes), (expected.to_vec(), &b""[..]), "{bytes:?}");
        }
    }

    #[test]
    fn a_beginning_waits_for_the_rest() {
        for beginning in [&b"\x1b"[..], b"\x1b[", b"\x1b[1;"] {
            assert_eq!(keys(beginning), (Vec::new(), beginning));
        }
        assert_eq!((alone(b"\x1b"), alone(b"\x1b[")), (Some(Key::Escape), None));
    }
}
