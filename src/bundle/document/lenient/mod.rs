//! The lenient decoder, for documents that the strict one refuses: accepts what Go programs write and accept
//! although the types do not, and finds the path of what is still wrong.
//!
//! Accepted are: `null`, which is the zero value everywhere, as in encoding/json; a process without a user,
//! who is root; unknown capabilities, which are set aside; scheduler flags, which the types name differently
//! than the specification; spaces in CPU lists; limits that need an unsigned 64-bit number; and anything in
//! the sections of other platforms.

use std::cell::RefCell;
use std::fmt;

use oci_spec::runtime::Capability;
use serde::Deserialize as _;
use serde::de::value::{StrDeserializer, StringDeserializer, UnitDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// Members that the types require but Go does not, with their type.
const MAY_BE_MISSING: [(&str, &str); 2] = [("Process", "user"), ("LinuxMemoryPolicy", "mode")];

/// Top-level members that mean nothing on Linux, whatever they contain.
const OTHER_PLATFORMS: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// Names that the types spell differently than the specification.
const ALIASES: [(&str, &str, &str); 2] = [
    ("LinuxSchedulerFlag", "SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("LinuxSchedulerFlag", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// How runc's message about an unknown name begins, where callers match it.
const COMPLAINTS: [(&str, &str); 2] = [
    ("MemoryPolicyModeType", "invalid memory policy mode"),
    ("MemoryPolicyFlagType", "invalid memory policy flag"),
];

/// A step on the path to a value.
#[derive(Clone, Debug)]
pub enum Segment {
    Member(String),
    Element(usize),
}

/// What was found while decoding.
#[derive(Debug, Default)]
pub struct Findings {
    /// The path to the value being decoded; after a failure, to the one that failed.
    pub path: Vec<Segment>,
    /// Unknown capabilities, which were left out.
    pub unknown_capabilities: Vec<String>,
}

/// Decodes `text`; also returns what was found while decoding.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> (Result<T, serde_json::Error>, Findings) {
    let findings = RefCell::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    let decoded = T::deserialize(Lenient { inner: &mut json, findings: &findings, place: ValueKind::Usual });
    let decoded = decoded.and_then(|decoded| json.end().map(|()| decoded));
    (decoded, findings.into_inner())
}

/// Kinds of values that need special treatment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Usual,
    /// A member of the object with the capability sets.
    Capabilities,
    /// A CPU list.
    Processors,
    /// An unsigned number for which the types use a signed one.
    Unsigned,
}

impl ValueKind {
    fn inside(owner: &str, member: &str) -> Self {
        match (owner, member) {
            ("LinuxCapabilities", _) => Self::Capabilities,
            ("ExecCPUAffinity", _) => Self::Processors,
            ("LinuxHugepageLimit", "limit") => Self::Unsigned,
            _ => Self::Usual,
        }
    }
}

struct Lenient<'a, D> {
    inner: D,
    findings: &'a RefCell<Findings>,
    place: ValueKind,
}

/// Decodes a value of this type, with `null` as the empty value.
macro_rules! or_empty {
    ($($method:ident => $empty:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            struct Value<V>(V);
            impl<'de, V: Visitor<'de>> Visitor<'de> for Value<V> {
                type Value = V::Value;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.expecting(f)
                }
                fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
                    let empty: fn(V) -> Result<V::Value, E> = $empty;
                    empty(self.0)
                }
                fn visit_some<D: Deserializer<'de>>(self, full: D) -> Result<V::Value, D::Error> {
                    full.$method(self.0)
                }
            }
            self.inner.deserialize_option(Value(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<'_, D> {
    type Error = D::Error;

    or_empty! {
        deserialize_bool => |visitor| visitor.visit_bool(false);
        deserialize_u8 => |visitor| visitor.visit_u64(0);
        deserialize_u16 => |visitor| visitor.visit_u64(0);
        deserialize_u32 => |visitor| visitor.visit_u64(0);
        deserialize_u64 => |visitor| visitor.visit_u64(0);
        deserialize_i8 => |visitor| visitor.visit_u64(0);
        deserialize_i16 => |visitor| visitor.visit_u64(0);
        deserialize_i32 => |visitor| visitor.visit_u64(0);
        deserialize_str => |visitor| visitor.visit_str("");
        deserialize_string => |visitor| visitor.visit_str("");
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Signed { visitor, place: self.place })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, findings, place } = self;
        if place == ValueKind::Processors {
            return match Option::<String>::deserialize(inner)?.map(tidy_list) {
                Some(list) if !list.is_empty() => visitor.visit_some(StringDeserializer::new(list)),
                _ => visitor.visit_none(),
            };
        }
        inner.deserialize_option(Around { visitor, findings, place, owner: "" })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, findings, place } = self;
        inner.deserialize_option(List(Around { visitor, findings, place, owner: "" }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        owner: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let Self { inner, findings, place } = self;
        inner.deserialize_option(Object(Around { visitor, findings, place, owner }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        // Through `deserialize_str`, so that null is the empty string.
        self.deserialize_str(Word { name, known, visitor })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct identifier
    }
}

fn tidy_list(list: String) -> String {
    let elements: Vec<_> = list.split(',').map(str::trim).filter(|element| !element.is_empty()).collect();
    // A list without elements is left for others to refuse.
    if elements.is_empty() { list } else { elements.join(",") }
}

/// A number that may exceed `i64`; the largest `i64` then has the same effect.
struct Signed<V> {
    visitor: V,
    place: ValueKind,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Signed<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_i64(0)
    }

    fn visit_some<D: Deserializer<'de>>(self, full: D) -> Result<V::Value, D::Error> {
        full.deserialize_i64(self)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(number)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<V::Value, E> {
        match (i64::try_from(number), self.place) {
            (Err(_), ValueKind::Unsigned) => self.visitor.visit_i64(i64::MAX),
            _ => self.visitor.visit_u64(number),
        }
    }
}

/// A name from a fixed set.
struct Word<V> {
    name: &'static str,
    known: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Word<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<V::Value, E> {
        let alias = ALIASES.iter().find(|(name, alias, _)| *name == self.name && *alias == word);
        let word = alias.map_or(word, |(_, _, word)| word);
        let complaint = COMPLAINTS.iter().find(|(name, _)| *name == self.name);
        match complaint {
            Some((_, complaint)) if !self.known.contains(&word) => Err(E::custom(format_args!(
                "{complaint} {word:?}, expected one of {}",
                self.known.join(", ")
            ))),
            _ => self.visitor.visit_enum(StrDeserializer::new(word)),
        }
    }
}

/// A visitor of a value that contains other values.
struct Around<'a, V> {
    visitor: V,
    findings: &'a RefCell<Findings>,
    place: ValueKind,
    owner: &'static str,
}

impl<'a, V> Around<'a, V> {
    fn lenient<D>(&self, inner: D) -> Lenient<'a, D> {
        Lenient { inner, findings: self.findings, place: self.place }
    }
}

/// For optional values.
impl<'de, V: Visitor<'de>> Visitor<'de> for Around<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, full: D) -> Result<V::Value, D::Error> {
        let full = self.lenient(full);
        self.visitor.visit_some(full)
    }
}

struct List<'a, V>(Around<'a, V>);

impl<'de, V: Visitor<'de>> Visitor<'de> for List<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.visitor.expecting(f)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visitor.visit_seq(serde::de::value::SeqDeserializer::new(std::iter::empty::<()>()))
    }

    fn visit_some<D: Deserializer<'de>>(self, full: D) -> Result<V::Value, D::Error> {
        full.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Around { visitor, findings, place, .. } = self.0;
        visitor.visit_seq(Elements { inner, findings, place, next: 0 })
    }
}

struct Elements<'a, A> {
    inner: A,
    findings: &'a RefCell<Findings>,
    place: ValueKind,
    next: usize,
}

impl<'de, A: SeqAccess<'de>> Elements<'_, A> {
    /// Decodes the next element with `get`. If that fails, its path is kept.
    fn element<T>(&mut self, get: impl FnOnce(&mut A) -> Result<T, A::Error>) -> Result<T, A::Error> {
        self.findings.borrow_mut().path.push(Segment::Element(self.next));
        self.next += 1;
        let element = get(&mut self.inner)?;
        self.findings.borrow_mut().path.pop();
        Ok(element)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let (findings, place) = (self.findings, self.place);
        if place != ValueKind::Capabilities {
            return self.element(|inner| inner.next_element_seed(Seed { seed, findings, place }));
        }
        loop {
            let Some(name) = self.element(|inner| inner.next_element::<String>())? else { return Ok(None) };
            if Capability::deserialize(StrDeserializer::<A::Error>::new(&name)).is_ok() {
                return seed.deserialize(StrDeserializer::new(&name)).map(Some);
            }
            findings.borrow_mut().unknown_capabilities.push(name);
        }
    }
}

struct Object<'a, V>(Around<'a, V>);

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.visitor.expecting(f)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        let nothing = std::iter::empty::<((), ())>();
        self.visit_map(serde::de::value::MapDeserializer::new(nothing))
    }

    fn visit_some<D: Deserializer<'de>>(self, full: D) -> Result<V::Value, D::Error> {
        match self.0.owner {
            "" => full.deserialize_map(self),
            owner => full.deserialize_struct(owner, &[], self),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Around { visitor, findings, owner, .. } = self.0;
        let missing = MAY_BE_MISSING.iter().find(|(name, _)| *name == owner).map(|(_, member)| *member);
        visitor.visit_map(Members { inner, findings, owner, missing, member: None })
    }
}

struct Members<'a, A> {
    inner: A,
    findings: &'a RefCell<Findings>,
    owner: &'static str,
    /// A required member, to be added at the end if the document lacks it.
    missing: Option<&'static str>,
    /// The member whose value comes next; `None` for the missing one.
    member: Option<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.inner.next_key::<String>()? {
            if self.owner == "Spec" && OTHER_PLATFORMS.contains(&name.as_str()) {
                self.inner.next_value::<IgnoredAny>()?;
                continue;
            }
            self.missing = self.missing.filter(|missing| *missing != name);
            let key = seed.deserialize(StrDeserializer::new(&name))?;
            self.member = Some(name);
            return Ok(Some(key));
        }
        self.member = None;
        self.missing.map(|missing| seed.deserialize(StrDeserializer::new(missing))).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let findings = self.findings;
        let value = match self.member.take() {
            Some(member) => {
                let place = ValueKind::inside(self.owner, &member);
                findings.borrow_mut().path.push(Segment::Member(member));
                self.inner.next_value_seed(Seed { seed, findings, place })?
            }
            None => {
                let missing =
                    self.missing.take().ok_or_else(|| A::Error::custom("a value without a name"))?;
                findings.borrow_mut().path.push(Segment::Member(missing.to_owned()));
                let inner = UnitDeserializer::new();
                seed.deserialize(Lenient { inner, findings, place: ValueKind::Usual })?
            }
        };
        findings.borrow_mut().path.pop();
        Ok(value)
    }
}

/// Makes the decoding of a nested value lenient as well.
struct Seed<'a, S> {
    seed: S,
    findings: &'a RefCell<Findings>,
    place: ValueKind,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Lenient { inner, findings: self.findings, place: self.place })
    }
}

#[cfg(test)]
mod tests;
