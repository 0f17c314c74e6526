//! Decoding the documents that come from outside: `config.json`, and the `process.json` that `exec` is given.
//!
//! A document is decoded plainly, and only one that cannot be decoded so is looked at again: for what is excused, and for the
//! place of what is not.

use anyhow::{Context as _, Result};
use oci_spec::runtime::{Capability, LinuxMemoryPolicy, LinuxPersonality, Process, Spec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Pointer;

/// The name of the process of `exec --process` in messages.
pub const PROCESS: &str = "process.json";

/// A `config.json`, and the names in it that no capability known here has; they are not in what was decoded.
///
/// # Errors
/// Wrong JSON or a value of the wrong type, with line, column and the pointer of the value.
pub fn spec(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    serde_json::from_slice(text)
        .map(|spec| (spec, Vec::new()))
        .or_else(|_| excused(text, "/process", &Pointer::root()))
}

/// A `process.json`, as [`spec`]. Without a user it is root's, as for runc.
pub fn process(text: &[u8]) -> Result<(Process, Vec<String>)> {
    serde_json::from_slice(text)
        .map(|process| (process, Vec::new()))
        .or_else(|_| excused(&with_user(text), "", &Pointer::of(PROCESS)))
}

/// What `exec` needs of a container's `config.json`, which is kept with the container: what is written to the file later must
/// not affect it; runtime.md § Lifecycle. A whole `config.json` can be read as one.
#[derive(Debug, Deserialize)]
pub struct Excerpt {
    pub process: Process,
    #[serde(default)]
    pub linux: LinuxExcerpt<Option<LinuxPersonality>, Option<LinuxMemoryPolicy>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxExcerpt<P, M> {
    pub personality: P,
    pub memory_policy: M,
}

/// The text of the excerpt of `spec`.
pub fn keep(spec: &Spec) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Kept<'a> {
        process: &'a Option<Process>,
        linux: LinuxExcerpt<Option<&'a LinuxPersonality>, Option<&'a LinuxMemoryPolicy>>,
    }
    let linux = spec.linux().as_ref();
    let kept = Kept {
        process: spec.process(),
        linux: LinuxExcerpt {
            personality: linux.and_then(|linux| linux.personality().as_ref()),
            memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()),
        },
    };
    serde_json::to_vec(&kept).context("encode the process of config.json")
}

/// The other way round.
pub fn excerpt(text: &[u8]) -> Result<(Excerpt, Vec<String>)> {
    serde_json::from_slice(text)
        .map(|excerpt| (excerpt, Vec::new()))
        .or_else(|_| excused(text, "/process", &Pointer::root()))
}

/// The same text with a user. At its end, so that places in it stay where they are.
fn with_user(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    if let Ok(Value::Object(process)) = serde_json::from_slice(&text)
        && !process.is_empty()
        && !process.contains_key("user")
        && let Some(end) = text.iter().rposition(|&byte| byte == b'}')
    {
        text.splice(end..end, *b", \"user\": {}");
    }
    text
}

/// What the types do not have a place for, though nothing is wrong with it. A capability that is newer than this program is worth
/// a warning, not a failure (config.md § Linux Process); some flags of the scheduler are called otherwise in the types.
///
/// # Errors
/// What else is wrong: the names are excused, and nothing beside them.
fn excused<T: DeserializeOwned>(text: &[u8], process: &str, document: &Pointer) -> Result<(T, Vec<String>)> {
    let explain = |text| explain::<T>(text, document);
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return Err(explain(text)) };
    let unknown = take_unknown_capabilities(&mut value, process);
    // The same text with names that are known: what is still wrong with it would be lost in a value, such as a key that is
    // there twice.
    let mut known = String::from_utf8_lossy(text).into_owned();
    let renamed = rename_flags(&mut value, process);
    for (name, instead) in unknown.iter().map(|name| (name.as_str(), "CAP_KILL")).chain(renamed) {
        known = known.replace(&format!("{name:?}"), &format!("{instead:?}"));
    }
    let known = known.as_bytes();
    if serde_json::from_slice::<T>(known).is_err() {
        return Err(explain(known));
    }
    let decoded = serde_json::from_value(value).map_err(|_| explain(known))?;
    Ok((decoded, unknown))
}

fn take_unknown_capabilities(document: &mut Value, process: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    let sets = document.pointer_mut(&format!("{process}/capabilities")).and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(serde_json::Map::values_mut).filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let is_unknown = name.is_string() && Capability::deserialize(name).is_err();
            if is_unknown {
                unknown.extend(name.as_str().map(str::to_owned));
            }
            !is_unknown
        });
    }
    unknown.sort();
    unknown.dedup();
    unknown
}

/// What the specification calls them and what the types do.
const FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Gives the flags of the scheduler the names of the types; returns those it found.
fn rename_flags(document: &mut Value, process: &str) -> Vec<(&'static str, &'static str)> {
    let flags = document.pointer_mut(&format!("{process}/scheduler/flags")).and_then(Value::as_array_mut);
    let rename = |flag: &mut Value| {
        let found = FLAGS.iter().find(|(name, _)| flag == name)?;
        *flag = found.1.into();
        Some(*found)
    };
    flags.into_iter().flatten().filter_map(rename).collect()
}

/// Decodes again, this time keeping track of where: twice the work, which only a failure has to pay.
fn explain<T: DeserializeOwned>(text: &[u8], document: &Pointer) -> anyhow::Error {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let result = T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    let error = match result.and_then(|_| deserializer.end()) {
        Err(error) => error,
        Ok(()) => return anyhow::anyhow!("{}: cannot be decoded", document.document()),
    };
    let mut pointer = document.clone();
    for segment in track.path().iter() {
        use serde_path_to_error::Segment;
        pointer = match segment {
            Segment::Seq { index } => pointer.index(*index),
            Segment::Map { key } => pointer.field(key),
            Segment::Enum { variant } => pointer.field(variant),
            Segment::Unknown => pointer,
        };
    }
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
    Misshapen { line, column, pointer, message: message.to_owned() }.into()
}

/// A document that is not JSON, or in which a value has the wrong type.
#[derive(Debug)]
struct Misshapen {
    line: usize,
    column: usize,
    pointer: Pointer,
    message: String,
}

impl std::fmt::Display for Misshapen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, column, pointer, message } = self;
        write!(f, "{}:{line}:{column}: {pointer}: {message}", pointer.document())
    }
}

impl std::error::Error for Misshapen {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_line_column_and_pointer() {
        let text = b"{\n \"ociVersion\": \"1.0.2\",\n \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0},\n  \"args\": [5]}\n}";
        assert_eq!(
            explain::<Spec>(text, &Pointer::root()).to_string(),
            "config.json:4:12: /process/args/0: invalid type: integer `5`, expected a string"
        );
    }

    #[test]
    fn unknown_capabilities_are_set_aside_but_excuse_nothing_else() {
        let text = |set: &str, more: &str| {
            format!(
                "{{\"ociVersion\": \"1.0.2\", {more}\"process\": {{\"cwd\": \"/\", \"user\": {{\"uid\": 0, \"gid\": 0}}, \
                 \"capabilities\": {{\"bounding\": {set}}}}}}}"
            )
        };
        let names = "[\"CAP_FLY\", \"CAP_KILL\", \"CAP_FLY\"]";
        let (decoded, unknown) = spec(text(names, "").as_bytes()).unwrap();
        assert_eq!(unknown, ["CAP_FLY"]);
        let process = decoded.process().as_ref().unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert!(spec(text("[5]", "").as_bytes()).is_err());
        let twice = text(names, "\"hostname\": \"a\", \"hostname\": \"b\", ");
        let error = spec(twice.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("duplicate field `hostname`"), "{error}");
    }

    #[test]
    fn text_that_is_not_json_is_named_by_line_and_column() {
        assert!(
            explain::<Spec>(b"{\n  nonsense\n}", &Pointer::root())
                .to_string()
                .starts_with("config.json:2:3: /: key must be a string")
        );
    }

    #[test]
    fn a_process_without_a_user_is_roots_and_its_faults_are_named_by_its_document() {
        let (decoded, unknown) =
            process(br#"{"args": ["true"], "cwd": "/", "capabilities": {"effective": ["CAP_FLY"]}}"#)
                .unwrap();
        assert_eq!((decoded.user().uid(), decoded.user().gid()), (0, 0));
        assert_eq!(unknown, ["CAP_FLY"]);
        let refused = |text: &[u8]| process(text).unwrap_err().to_string();
        assert_eq!(
            refused(b"{\"cwd\": \"/\",\n\"args\": [5]}"),
            "process.json:2:10: /args/0: invalid type: integer `5`, expected a string"
        );
        assert!(refused(br#"{"args": []}"#).contains("missing field `cwd`"));
        assert!(refused(b"{}").starts_with("process.json:1:"));
    }
}
