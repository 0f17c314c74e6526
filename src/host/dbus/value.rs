//! The values in messages.

use std::borrow::Cow;

/// A typed value. Dictionaries and descriptors are not supported.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    /// An object path.
    Object(String),
    Signature(String),
    /// The type of the elements, and the elements.
    Array(Cow<'static, str>, Vec<Value>),
    Struct(Vec<Value>),
    /// A value of any type, sent together with its type.
    Variant(Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array("y".into(), bytes.iter().map(|byte| Self::Byte(*byte)).collect())
    }

    /// Its type signature.
    pub fn signature(&self) -> Cow<'static, str> {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::Object(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}").into(),
            Self::Struct(fields) => format!("({})", signature_of(fields)).into(),
            Self::Variant(_) => "v".into(),
        }
    }

    /// The contents of a string or object path.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Object(text) => Some(text),
            Self::Variant(value) => value.into_text(),
            _ => None,
        }
    }
}

/// The type signature of several values.
pub fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// The alignment of values of this type, in bytes.
pub fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}
