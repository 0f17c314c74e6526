//! Decoding untrusted documents: `config.json`, the `process.json` given to `exec` and the resources given to
//! `update`.
//!
//! A document is decoded strictly by the types first. Only if that fails, it is decoded again leniently, to
//! accept what can be tolerated and to find the place of what cannot.

mod lenient;
mod strict;

use anyhow::{Context as _, Result};
use oci_spec::runtime::{LinuxMemoryPolicy, LinuxPersonality, LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::lenient::{Findings, Segment};
use crate::error::Pointer;

/// The name in messages of the document given to `exec --process`.
pub const PROCESS: &str = "process.json";

/// Decodes a `config.json`; also returns its unknown capabilities, which are left out.
///
/// # Errors
/// Invalid JSON or a value of the wrong type, with line, column and pointer.
pub fn spec(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    decode(text, &Pointer::root())
}

/// Decodes a `process.json`, as [`spec`]. Without a user, it is root, as in runc.
pub fn process(text: &[u8]) -> Result<(Process, Vec<String>)> {
    decode(text, &Pointer::of(PROCESS))
}

/// Decodes a `linux.resources` object, whose pointer is `at`.
///
/// # Errors
/// As [`spec`].
pub fn resources(text: &[u8], at: &Pointer) -> Result<LinuxResources> {
    decode(text, at).map(|(resources, _)| resources)
}

/// The part of `config.json` that `exec` needs. It is stored with the container, because later changes of the
/// file must not affect the container; runtime.md § Lifecycle. A complete `config.json` decodes as one, too.
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

/// Encodes the excerpt of `spec`.
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

/// Decodes an excerpt.
pub fn excerpt(text: &[u8]) -> Result<(Excerpt, Vec<String>)> {
    decode(text, &Pointer::root())
}

/// Decodes strictly, then leniently.
///
/// # Errors
/// Those of the lenient decoder, which have the place of the value.
fn decode<T: DeserializeOwned>(text: &[u8], document: &Pointer) -> Result<(T, Vec<String>)> {
    if let Ok(decoded) = strict::decode(text) {
        return Ok((decoded, Vec::new()));
    }
    let (decoded, Findings { path, mut unknown_capabilities }) = lenient::decode(text);
    let error = match decoded {
        Ok(decoded) => {
            unknown_capabilities.sort();
            unknown_capabilities.dedup();
            return Ok((decoded, unknown_capabilities));
        }
        Err(error) => error,
    };
    let pointer = path.iter().fold(document.clone(), |pointer, segment| match segment {
        Segment::Member(name) => pointer.field(name),
        Segment::Element(index) => pointer.index(*index),
    });
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let message = message.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&message);
    Err(DecodeError { line, column, pointer, message: message.to_owned() }.into())
}

/// A document that is not JSON, or has a value of the wrong type.
#[derive(Debug)]
struct DecodeError {
    line: usize,
    column: usize,
    pointer: Pointer,
    message: String,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, column, pointer, message } = self;
        write!(f, "{}:{line}:{column}: {pointer}: {message}", pointer.document())
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_line_column_and_pointer() {
        let text = b"{\n \"ociVersion\": \"1.0.2\",\n \"process\": {\"cwd\": \"/\", \"user\": {\"uid\": 0, \"gid\": 0},\n  \"args\": [5]}\n}";
        assert_eq!(
            spec(text).unwrap_err().to_string(),
            "config.json:4:12: /process/args/0: invalid type: integer `5`, expected a string"
        );
    }

    #[test]
    fn an_array_is_no_object() {
        let with = |members: &str| {
            let text = format!("{{\"ociVersion\": \"1.0.2\", {members}}}");
            spec(text.as_bytes()).map_err(|error| error.to_string())
        };
        for (members, place) in [
            (r#""process": {"cwd": "/", "user": [1000, 1000]}"#, "/process/user"),
            (r#""root": ["rootfs", true]"#, "/root"),
            (r#""root": []"#, "/root"),
            (r#""hooks": [], "domainname": null"#, "/hooks"),
            (r#""mounts": [["/a", "tmpfs"]]"#, "/mounts/0"),
            (r#""linux": {"namespaces": [["pid"]]}"#, "/linux/namespaces/0"),
            (r#""linux": {"resources": {"memory": [1]}}"#, "/linux/resources/memory"),
            (r#""annotations": []"#, "/annotations"),
        ] {
            let error = with(members).unwrap_err();
            assert!(
                error.contains(&format!(": {place}: invalid type: sequence, expected")),
                "{members}: {error}"
            );
        }
        assert!(resources(b"[[]]", &Pointer::of("resources.json")).is_err());
        assert!(process(br#"[false, null, [0, 0], ["true"], null, null, "/"]"#).is_err());
        assert!(spec(b"[\"1.0.2\"]").is_err());
        assert!(with(r#""root": {"path": "rootfs"}, "mounts": [{"destination": "/a"}]"#).is_ok());
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
        let error = spec(b"{\n  nonsense\n}").unwrap_err().to_string();
        assert!(error.starts_with("config.json:2:3: /: key must be a string"), "{error}");
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
