//! Encodes and decodes messages, in this machine's byte order, which the other end shares because it is on
//! the same machine.
//!
//! Of a received message, the header fields are decoded and, on request, the values of the body up to the
//! first container other than a variant: no reply that is used here contains one.

use anyhow::{Context as _, Result, ensure};

use super::BusObject;
use super::value::{Value, alignment, signature_of};

/// The byte order mark for this machine, the first byte of a message.
const ORDER: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };
const VERSION: u8 = 1;

/// The size of the fixed part of a message, which gives its length.
pub const HEADER: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageKind {
    Call,
    Answer,
    Error,
    Signal,
    /// An unknown type, to be ignored.
    #[default]
    Other,
}

/// Codes of header fields.
mod field {
    pub const OBJECT: u8 = 1;
    pub const INTERFACE: u8 = 2;
    pub const MEMBER: u8 = 3;
    pub const ERROR: u8 = 4;
    pub const ANSWERS: u8 = 5;
    pub const DESTINATION: u8 = 6;
    pub const SENDER: u8 = 7;
    pub const SIGNATURE: u8 = 8;
}

/// A received message.
#[derive(Debug, Default)]
pub struct Message {
    pub kind: MessageKind,
    /// The serial of the call that this is a reply to.
    pub answers: Option<u32>,
    pub error: Option<String>,
    /// The sender according to the bus; `None` without a bus.
    pub sender: Option<String>,
    object: Option<String>,
    interface: Option<String>,
    member: Option<String>,
    signature: String,
    body: Vec<u8>,
}

/// Encodes a method call.
///
/// # Errors
/// If a string contains a NUL or is longer than the specification allows.
pub fn call(serial: u32, place: BusObject<'_>, member: &str, arguments: &[Value]) -> Result<Vec<u8>> {
    let fields = [
        (field::OBJECT, Value::Object(place.object.to_owned())),
        (field::INTERFACE, Value::text(place.interface)),
        (field::MEMBER, Value::text(member)),
        (field::DESTINATION, Value::text(place.program)),
    ];
    encode(1, serial, fields.into(), arguments)
}

fn encode(kind: u8, serial: u32, mut fields: Vec<(u8, Value)>, body: &[Value]) -> Result<Vec<u8>> {
    let mut encoded = Encoder::default();
    body.iter().try_for_each(|value| encoded.value(value))?;
    let body_length = u32::try_from(encoded.0.len())?;
    if !body.is_empty() {
        fields.push((field::SIGNATURE, Value::Signature(signature_of(body))));
    }
    let fields = fields
        .into_iter()
        .map(|(number, value)| Value::Struct(vec![Value::Byte(number), Value::Variant(Box::new(value))]));
    let mut message = Encoder(vec![ORDER, kind, 0, VERSION]);
    message.value(&Value::Uint32(body_length))?;
    message.value(&Value::Uint32(serial))?;
    message.value(&Value::Array("(yv)".into(), fields.collect()))?;
    message.align(8);
    message.0.extend(encoded.0);
    Ok(message.0)
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) -> Result<()> {
        ensure!(!text.contains('\0'), "{text:?} contains a NUL byte, which D-Bus does not allow");
        self.0.extend(text.bytes());
        self.0.push(0);
        Ok(())
    }

    fn signature(&mut self, signature: &str) -> Result<()> {
        let length = u8::try_from(signature.len()).context("type signature too long for D-Bus")?;
        self.0.push(length);
        self.text(signature)
    }

    fn value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(truth) => self.number(&u32::from(*truth).to_ne_bytes()),
            Value::Int16(number) => self.number(&number.to_ne_bytes()),
            Value::Uint16(number) => self.number(&number.to_ne_bytes()),
            Value::Int32(number) => self.number(&number.to_ne_bytes()),
            Value::Uint32(number) => self.number(&number.to_ne_bytes()),
            Value::Int64(number) => self.number(&number.to_ne_bytes()),
            Value::Uint64(number) => self.number(&number.to_ne_bytes()),
            Value::Double(number) => self.number(&number.to_ne_bytes()),
            Value::Text(text) | Value::Object(text) => {
                self.number(&u32::try_from(text.len())?.to_ne_bytes());
                self.text(text)?;
            }
            Value::Signature(signature) => self.signature(signature)?,
            Value::Array(element, values) => {
                let mut elements = Self::default();
                // Elements are aligned as if they were outside of the array.
                self.number(&[0; 4]);
                let length = self.0.len().wrapping_sub(4);
                self.align(alignment(element));
                elements.0.resize(self.0.len() % 8, 0);
                let before = elements.0.len();
                values.iter().try_for_each(|value| elements.value(value))?;
                let bytes = elements.0.get(before..).unwrap_or_default();
                let count = u32::try_from(bytes.len())?.to_ne_bytes();
                self.0.extend(bytes);
                if let Some(place) = self.0.get_mut(length..).and_then(|rest| rest.first_chunk_mut()) {
                    *place = count;
                }
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().try_for_each(|field| self.value(field))?;
            }
            Value::Variant(value) => {
                self.signature(&value.signature())?;
                self.value(value)?;
            }
        }
        Ok(())
    }
}

/// The fixed part of a message.
#[derive(Debug)]
pub struct Header {
    kind: u8,
    body: usize,
    fields: usize,
}

impl Header {
    /// Whether it is a reply or an error.
    pub fn answers(&self) -> bool {
        matches!(self.kind, 2 | 3)
    }

    pub fn decode(start: &[u8; HEADER]) -> Result<Self> {
        let mut decoder = Decoder { bytes: start, at: 0 };
        let [order, kind, _, version] = decoder.chunk()?;
        ensure!(order == ORDER && version == VERSION, "unsupported byte order or protocol version");
        let body = decoder.number()?;
        decoder.number()?;
        Ok(Self { kind, body, fields: decoder.number()? })
    }

    /// The number of bytes that follow; `None` on overflow.
    pub fn length(&self) -> Option<usize> {
        self.fields.checked_next_multiple_of(8)?.checked_add(self.body)
    }
}

impl Message {
    /// Decodes a message; `rest` is what follows the fixed part.
    pub fn decode(header: &Header, rest: &[u8]) -> Result<Self> {
        let kind = match header.kind {
            1 => MessageKind::Call,
            2 => MessageKind::Answer,
            3 => MessageKind::Error,
            4 => MessageKind::Signal,
            _ => MessageKind::Other,
        };
        let fields = rest.get(..header.fields).context("truncated header")?;
        let body = rest.get(header.fields.next_multiple_of(8)..).context("truncated header")?;
        let mut message = Self { kind, body: body.to_vec(), ..Self::default() };
        let mut decoder = Decoder { bytes: fields, at: 0 };
        while decoder.at < fields.len() {
            decoder.align(8)?;
            let [number] = decoder.chunk()?;
            match (number, decoder.variant()?) {
                (field::OBJECT, Value::Object(text)) => message.object = Some(text),
                (field::SENDER, Value::Text(text)) => message.sender = Some(text),
                (field::INTERFACE, Value::Text(text)) => message.interface = Some(text),
                (field::MEMBER, Value::Text(text)) => message.member = Some(text),
                (field::ERROR, Value::Text(text)) => message.error = Some(text),
                (field::ANSWERS, Value::Uint32(serial)) => message.answers = Some(serial),
                (field::SIGNATURE, Value::Signature(text)) => message.signature = text,
                _ => {}
            }
        }
        Ok(message)
    }

    /// Decodes the body up to the first container.
    pub fn values(&self) -> Result<Vec<Value>> {
        let mut decoder = Decoder { bytes: &self.body, at: 0 };
        let mut values = Vec::new();
        for kind in self.signature.bytes() {
            match decoder.basic(kind)? {
                Some(value) => values.push(value),
                None => break,
            }
        }
        Ok(values)
    }

    /// The size of the body in bytes.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    #[cfg(test)]
    pub fn into_call(self) -> super::fake::Call {
        let [object, member] = [self.object, self.member].map(Option::unwrap_or_default);
        super::fake::Call { object, member, body: self.body }
    }

    pub fn is_signal(&self, place: BusObject<'_>, member: &str) -> bool {
        self.kind == MessageKind::Signal
            && self.object.as_deref() == Some(place.object)
            && self.interface.as_deref() == Some(place.interface)
            && self.member.as_deref() == Some(member)
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).context("truncated message")?;
        self.at = self.at.saturating_add(length);
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        self.take(self.at.next_multiple_of(to).saturating_sub(self.at)).map(drop)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn aligned<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N)?;
        self.chunk()
    }

    fn number(&mut self) -> Result<usize> {
        Ok(usize::try_from(u32::from_ne_bytes(self.aligned()?))?)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec())?;
        ensure!(self.chunk()? == [0], "unterminated string");
        Ok(text)
    }

    fn signature(&mut self) -> Result<String> {
        let [length] = self.chunk()?;
        self.text(length.into())
    }

    fn variant(&mut self) -> Result<Value> {
        let signature = self.signature()?;
        match signature.as_bytes() {
            // A variant in a variant is refused, because it could nest endlessly.
            [kind] if *kind != b'v' => self.basic(*kind)?,
            [b'a', kind] if *kind != b'v' => self.array(*kind)?,
            _ => None,
        }
        .with_context(|| format!("unexpected value of type {signature:?}"))
    }

    /// Decodes an array; `None` if its elements are containers.
    fn array(&mut self, kind: u8) -> Result<Option<Value>> {
        let length = self.number()?;
        let element = char::from(kind).to_string();
        self.align(alignment(&element))?;
        let end = self.at.checked_add(length).context("truncated message")?;
        let mut values = Vec::new();
        while self.at < end {
            match self.basic(kind)? {
                Some(value) => values.push(value),
                None => return Ok(None),
            }
        }
        Ok(Some(Value::Array(element.into(), values)))
    }

    /// Decodes a value; `None` for a container. A variant is accepted if it holds a basic value or an array
    /// of them.
    fn basic(&mut self, kind: u8) -> Result<Option<Value>> {
        Ok(Some(match kind {
            b'y' => {
                let [byte] = self.chunk()?;
                Value::Byte(byte)
            }
            b'b' => Value::Bool(u32::from_ne_bytes(self.aligned()?) != 0),
            b'n' => Value::Int16(i16::from_ne_bytes(self.aligned()?)),
            b'q' => Value::Uint16(u16::from_ne_bytes(self.aligned()?)),
            b'i' => Value::Int32(i32::from_ne_bytes(self.aligned()?)),
            b'u' => Value::Uint32(u32::from_ne_bytes(self.aligned()?)),
            b'x' => Value::Int64(i64::from_ne_bytes(self.aligned()?)),
            b't' => Value::Uint64(u64::from_ne_bytes(self.aligned()?)),
            b'd' => Value::Double(f64::from_ne_bytes(self.aligned()?)),
            b's' | b'o' => {
                let length = self.number()?;
                let text = self.text(length)?;
                if kind == b's' { Value::Text(text) } else { Value::Object(text) }
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => Value::Variant(Box::new(self.variant()?)),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn answer(to: u32, body: &[Value]) -> Vec<u8> {
        encode(2, 5, vec![(field::ANSWERS, Value::Uint32(to))], body).unwrap()
    }

    pub fn refusal(of: u32, name: &str, text: &str) -> Vec<u8> {
        let fields = vec![(field::ERROR, Value::text(name)), (field::ANSWERS, Value::Uint32(of))];
        encode(3, 5, fields, &[Value::text(text)]).unwrap()
    }

    pub fn signal(place: BusObject<'_>, member: &str, body: &[Value]) -> Vec<u8> {
        signal_from(None, place, member, body)
    }

    /// A signal as passed on by a bus, with its sender.
    pub fn signal_from(sender: Option<&str>, place: BusObject<'_>, member: &str, body: &[Value]) -> Vec<u8> {
        let mut fields = vec![
            (field::OBJECT, Value::Object(place.object.to_owned())),
            (field::INTERFACE, Value::text(place.interface)),
            (field::MEMBER, Value::text(member)),
        ];
        fields.extend(sender.map(|sender| (field::SENDER, Value::text(sender))));
        encode(4, 6, fields, body).unwrap()
    }

    /// A message of an unknown type.
    pub fn other() -> Vec<u8> {
        encode(9, 6, Vec::new(), &[Value::Byte(1)]).unwrap()
    }

    fn decoded(bytes: &[u8]) -> Result<Message> {
        let (start, rest) = bytes.split_first_chunk().context("short")?;
        let header = Header::decode(start)?;
        ensure!(header.length() == Some(rest.len()), "length");
        Message::decode(&header, rest)
    }

    /// The specification's example of padding in an array, and a variant.
    #[test]
    #[cfg(target_endian = "little")]
    fn values_stand_where_the_specification_says() {
        let encoded = |value: &Value| {
            let mut encoder = Encoder::default();
            encoder.value(value).unwrap();
            encoder.0
        };
        let longs = Value::Array("x".into(), vec![Value::Int64(5)]);
        assert_eq!(encoded(&longs), [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(&Value::Array("x".into(), Vec::new())), [0; 8]);
        let variant = Value::Variant(Box::new(Value::Uint32(2)));
        assert_eq!(encoded(&variant), [1, b'u', 0, 0, 2, 0, 0, 0]);
        let pairs = Value::Array(
            "(sy)".into(),
            vec![
                Value::Struct(vec![Value::text("a"), Value::Byte(1)]),
                Value::Struct(vec![Value::text(""), Value::Byte(2)]),
            ],
        );
        let expected = [
            14, 0, 0, 0, 0, 0, 0, 0, // the length, without the padding before the first element
            1, 0, 0, 0, b'a', 0, 1, 0, // padded up to the second element
            0, 0, 0, 0, 0, 2,
        ];
        assert_eq!(encoded(&pairs), expected);
        assert_eq!(pairs.signature(), "a(sy)");
    }

    #[test]
    fn a_call_says_where_and_what() {
        let place = BusObject { program: "a.b", object: "/a", interface: "a.c" };
        let arguments = [Value::text("x"), Value::Bool(true)];
        let bytes = call(3, place, "Do", &arguments).unwrap();
        let message = decoded(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_deref()), (MessageKind::Call, Some("Do")));
        assert_eq!(message.values().unwrap(), arguments);
        assert!(call(3, place, "Do", &[Value::text("x\0y")]).is_err());
    }

    #[test]
    fn a_body_is_read_up_to_its_first_container() {
        let body = [Value::Uint64(7), Value::Array("s".into(), vec![Value::text("x")]), Value::Byte(1)];
        assert_eq!(decoded(&answer(1, &body)).unwrap().values().unwrap(), [Value::Uint64(7)]);
    }

    #[test]
    fn a_variant_is_read_with_an_array_in_it_but_not_with_more() {
        let variant = |value: &Value| Value::Variant(Box::new(value.clone()));
        for value in
            [Value::bytes(&[1, 2]), Value::bytes(&[]), Value::Array("t".into(), vec![Value::Uint64(9)])]
        {
            let body = [Value::Byte(0), variant(&value), Value::text("behind")];
            assert_eq!(decoded(&answer(1, &body)).unwrap().values().unwrap(), body);
        }
        for value in [variant(&Value::Byte(1)), Value::Struct(vec![Value::Byte(1)])] {
            assert!(decoded(&answer(1, &[variant(&value)])).unwrap().values().is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error_and_no_panic() {
        let place = BusObject { program: "", object: "/a", interface: "a.c" };
        let body = [Value::Uint32(1), Value::Object("/b".into()), Value::text("u"), Value::text("done")];
        let whole = signal(place, "JobRemoved", &body);
        assert_eq!(decoded(&whole).unwrap().values().unwrap(), body);
        for length in 0..whole.len() {
            assert!(decoded(whole.get(..length).unwrap()).is_err(), "{length}");
        }
        // With any value for any byte, it is decoded or refused.
        for index in 0..whole.len() {
            for byte in [0, 1, 7, 0x7f, 0xff] {
                let mut broken = whole.clone();
                *broken.get_mut(index).unwrap() = byte;
                let _ = decoded(&broken).map(|message| message.values());
            }
        }
    }
}
