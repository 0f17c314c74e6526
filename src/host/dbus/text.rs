//! Parses values in the text format of GVariant, as used in annotations.
//!
//! `true`, `5`, `uint64 5`, `1.5`, `'text'`, `['a', 'b']`, `('/dev/null', 'rw')`, `<5>`, `@as []`. A number
//! without a type is an int32. Dictionaries, bytestrings and maybes are refused; no property of a scope needs
//! them.

use anyhow::{Context as _, Result, bail, ensure};

use super::value::Value;

/// The type keywords.
const WORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

/// The maximum nesting depth of containers in D-Bus.
const DEEPEST: usize = 32;

/// Parses `text`.
///
/// # Errors
/// Names the place where the text becomes invalid.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text.trim(), depth: 0 };
    let value =
        parser.value(None).with_context(|| format!("{text:?} is not a value in GVariant text format"))?;
    ensure!(parser.rest.is_empty(), "{text:?} has trailing characters {:?}", parser.rest);
    Ok(value)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// Parses a value; `kind` is the type that it must have, if known.
    fn value(&mut self, kind: Option<&str>) -> Result<Value> {
        self.depth = self.depth.saturating_add(1);
        ensure!(self.depth <= DEEPEST, "nested too deeply");
        let value = self.any(kind)?;
        self.depth = self.depth.saturating_sub(1);
        self.rest = self.rest.trim_start();
        if let Some(kind) = kind {
            ensure!(
                value.signature() == kind,
                "value of type {:?} where {kind:?} is expected",
                value.signature()
            );
        }
        Ok(value)
    }

    fn any(&mut self, kind: Option<&str>) -> Result<Value> {
        match self.rest.chars().next() {
            Some('[') => self.array(kind),
            Some('(') => self.tuple(kind),
            Some('<') => {
                self.skip(1);
                let value = self.value(None)?;
                self.expect('>')?;
                Ok(Value::Variant(Box::new(value)))
            }
            Some('\'' | '"') => {
                let text = self.quoted()?;
                Ok(match kind {
                    Some("o") => Value::Object(text),
                    Some("g") => Value::Signature(text),
                    _ => Value::Text(text),
                })
            }
            Some('@') => {
                self.skip(1);
                let signature = self.word(|c| c.is_ascii_alphabetic() || matches!(c, '(' | ')'));
                ensure!(is_type(signature), "invalid type {signature:?}");
                self.rest = self.rest.trim_start();
                self.value(Some(signature))
            }
            Some('{') => bail!("dictionaries are not supported"),
            Some(_) => self.simple(kind),
            None => bail!("missing value"),
        }
    }

    fn array(&mut self, kind: Option<&str>) -> Result<Value> {
        self.open('[');
        let mut element = match kind {
            Some(kind) => Some(kind.strip_prefix('a').context("unexpected array")?.to_owned()),
            None => None,
        };
        let mut values = Vec::new();
        while !self.rest.starts_with(']') {
            if !values.is_empty() {
                self.expect(',')?;
            }
            let value = self.value(element.as_deref())?;
            element.get_or_insert_with(|| value.signature().into_owned());
            values.push(value);
        }
        self.skip(1);
        let element = element.context("empty array without a type (use \"@as []\" for strings)")?;
        Ok(Value::Array(element.into(), values))
    }

    fn tuple(&mut self, kind: Option<&str>) -> Result<Value> {
        self.open('(');
        let mut kinds = match kind {
            Some(kind) => {
                let inner = kind.strip_prefix('(').and_then(|kind| kind.strip_suffix(')'));
                Some(inner.context("unexpected tuple")?)
            }
            None => None,
        };
        let mut values = Vec::new();
        while !self.rest.starts_with(')') {
            if !values.is_empty() {
                self.expect(',')?;
                // A tuple with one member ends with a comma.
                if self.rest.starts_with(')') {
                    break;
                }
            }
            let next = match kinds {
                Some(all) => {
                    let (first, others) = split(all).context("too many tuple members")?;
                    kinds = Some(others);
                    Some(first)
                }
                None => None,
            };
            values.push(self.value(next)?);
        }
        self.skip(1);
        ensure!(!values.is_empty(), "empty tuples are not supported by D-Bus");
        Ok(Value::Struct(values))
    }

    /// Parses a number or a boolean, or any value after a type keyword.
    fn simple(&mut self, kind: Option<&str>) -> Result<Value> {
        let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_'));
        if let Some((_, signature)) = WORDS.iter().find(|(name, _)| *name == word) {
            self.rest = self.rest.trim_start();
            return self.value(Some(signature));
        }
        Ok(match (word, kind) {
            ("true", _) => Value::Bool(true),
            ("false", _) => Value::Bool(false),
            (_, Some("d")) => Value::Double(word.parse().with_context(|| not(word))?),
            (_, Some("y")) => Value::Byte(integer(word)?),
            (_, Some("n")) => Value::Int16(integer(word)?),
            (_, Some("q")) => Value::Uint16(integer(word)?),
            (_, Some("u")) => Value::Uint32(integer(word)?),
            (_, Some("x")) => Value::Int64(integer(word)?),
            (_, Some("t")) => Value::Uint64(integer(word)?),
            _ if word.contains('.') => Value::Double(word.parse().with_context(|| not(word))?),
            _ => Value::Int32(integer(word)?),
        })
    }

    fn quoted(&mut self) -> Result<String> {
        let mut characters = self.rest.chars();
        let quote = characters.next();
        let mut text = String::new();
        loop {
            match characters.next().context("unterminated string")? {
                end if Some(end) == quote => break,
                '\\' => text.push(match characters.next().context("unterminated string")? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'u' => {
                        let digits: String = characters.by_ref().take(4).collect();
                        u32::from_str_radix(&digits, 16)
                            .ok()
                            .and_then(char::from_u32)
                            .context("invalid \\u escape")?
                    }
                    other => other,
                }),
                other => text.push(other),
            }
        }
        self.rest = characters.as_str();
        Ok(text)
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let (word, rest) = self.rest.split_at(self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn open(&mut self, bracket: char) {
        self.rest = self.rest.strip_prefix(bracket).unwrap_or(self.rest).trim_start();
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn expect(&mut self, character: char) -> Result<()> {
        let rest = self.rest.strip_prefix(character);
        self.rest = rest.with_context(|| format!("missing {character:?}"))?.trim_start();
        Ok(())
    }
}

fn not(word: &str) -> String {
    format!("invalid number {word:?}")
}

/// Parses an integer as in C: hexadecimal with `0x`, octal with a leading 0.
fn integer<N: TryFrom<i128>>(word: &str) -> Result<N> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (base, digits) = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        (Some(digits), _) => (16, digits),
        (_, Some(digits)) if !digits.is_empty() => (8, digits),
        _ => (10, digits),
    };
    ensure!(digits.starts_with(|c: char| c.is_ascii_hexdigit()), not(word));
    let number = i64::from_str_radix(digits, base)
        .map(i128::from)
        .or_else(|_| u64::from_str_radix(digits, base).map(i128::from));
    let number = number.ok().with_context(|| not(word))?.checked_mul(sign).with_context(|| not(word))?;
    number.try_into().ok().with_context(|| format!("{word} is out of range for its type"))
}

/// Whether `signature` is one complete type.
fn is_type(signature: &str) -> bool {
    split(signature).is_some_and(|(_, rest)| rest.is_empty())
}

/// Splits off the first complete type.
fn split(signature: &str) -> Option<(&str, &str)> {
    let end = end_of_type(signature, 0)?;
    signature.split_at_checked(end)
}

fn end_of_type(signature: &str, depth: usize) -> Option<usize> {
    let inside = signature.get(1..)?;
    let deeper = (depth < DEEPEST).then(|| depth.saturating_add(1));
    match signature.chars().next()? {
        'b' | 'y' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'o' | 'g' | 'v' => Some(1),
        'a' => end_of_type(inside, deeper?)?.checked_add(1),
        '(' => {
            let mut at = 0_usize;
            while !inside.get(at..)?.starts_with(')') {
                at = at.checked_add(end_of_type(inside.get(at..)?, deeper?)?)?;
            }
            if at == 0 { None } else { at.checked_add(2) }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::line;

    fn text(text: &str) -> Value {
        Value::text(text)
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let values = [
            ("true", Value::Bool(true)),
            ("  boolean false ", Value::Bool(false)),
            ("15", Value::Int32(15)),
            ("-0x10", Value::Int32(-16)),
            ("010", Value::Int32(8)),
            ("0", Value::Int32(0)),
            ("byte 234", Value::Byte(234)),
            ("int16 -3", Value::Int16(-3)),
            ("uint16 3", Value::Uint16(3)),
            ("uint32 4294967295", Value::Uint32(u32::MAX)),
            ("int64 -9223372036854775808", Value::Int64(i64::MIN)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("@t 5", Value::Uint64(5)),
            ("234.5", Value::Double(234.5)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it's \"\u00e4\"\n""#, text("it's \"ä\"\n")),
            ("objectpath '/a'", Value::Object("/a".into())),
            ("<uint32 1>", Value::Variant(Box::new(Value::Uint32(1)))),
            ("['a', 'b']", Value::Array("s".into(), vec![text("a"), text("b")])),
            ("[uint64 1,2]", Value::Array("t".into(), vec![Value::Uint64(1), Value::Uint64(2)])),
            ("@as []", Value::Array("s".into(), Vec::new())),
            ("@ay [1, 0xff]", Value::bytes(&[1, 255])),
            (
                "[['a'], []]",
                Value::Array(
                    "as".into(),
                    vec![Value::Array("s".into(), vec![text("a")]), Value::Array("s".into(), Vec::new())],
                ),
            ),
            ("('/dev/null', uint64 5)", Value::Struct(vec![text("/dev/null"), Value::Uint64(5)])),
            ("(1,)", Value::Struct(vec![Value::Int32(1)])),
            (
                "@a(st) [('/dev/sda', 5)]",
                Value::Array("(st)".into(), vec![Value::Struct(vec![text("/dev/sda"), Value::Uint64(5)])]),
            ),
        ];
        for (written, expected) in values {
            assert_eq!(parse(written).unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn what_is_no_value_says_why() {
        let refusals = [
            (
                "invalid-value",
                "\"invalid-value\" is not a value in GVariant text format: invalid number \"invalid-value\"",
            ),
            ("", "\"\" is not a value in GVariant text format: missing value"),
            ("'a", "\"'a\" is not a value in GVariant text format: unterminated string"),
            ("1 2", "\"1 2\" has trailing characters \"2\""),
            (
                "[]",
                "\"[]\" is not a value in GVariant text format: empty array without a type (use \"@as \
                 []\" for strings)",
            ),
            (
                "byte 256",
                "\"byte 256\" is not a value in GVariant text format: 256 is out of range for its type",
            ),
            (
                "[1, 'a']",
                "\"[1, 'a']\" is not a value in GVariant text format: value of type \"s\" where \"i\" is expected",
            ),
            (
                "{'a': 1}",
                "\"{'a': 1}\" is not a value in GVariant text format: dictionaries are not supported",
            ),
            ("@a 1", "\"@a 1\" is not a value in GVariant text format: invalid type \"a\""),
            (
                "5000000000",
                "\"5000000000\" is not a value in GVariant text format: 5000000000 is out of range for its type",
            ),
        ];
        for (written, message) in refusals {
            assert_eq!(line(&parse(written).unwrap_err()), message);
        }
    }

    #[test]
    fn nothing_that_anybody_writes_goes_too_deep_or_panics() {
        for open in ["[", "(", "<", "@", "@a", "['", "uint64 ", "@(", "\\", "-", "0x", "'\\u12"] {
            assert!(parse(&open.repeat(10_000)).is_err(), "{open}");
        }
        assert!(parse("ä").is_err());
        assert!(parse("[ä").is_err());
    }
}
