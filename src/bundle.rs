//! A bundle: a directory with `config.json`, not yet believed; bundle.md.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use oci_spec::runtime::{Capability, Spec};
use serde::Deserialize as _;

use crate::error::{Fault, Hint, Pointer};

/// The name of the configuration in a bundle.
pub const CONFIG: &str = "config.json";

/// An open bundle: what it says, unchecked.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute, as the caller named it.
    pub path: PathBuf,
    pub spec: Spec,
    /// Names that no capability known here has; they are not in `spec`.
    pub unknown_capabilities: Vec<String>,
}

impl Bundle {
    /// Reads the bundle at `path`; with `config`, a file that takes the place of its `config.json`.
    ///
    /// # Errors
    /// Wrong JSON or a value of the wrong type, with line, column and the pointer of the value.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("find bundle {}", path.display()))?;
        let file = config.map_or_else(|| path.join(CONFIG), Path::to_path_buf);
        let text = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound && config.is_none() => {
                let hint = if path.is_dir() {
                    "a bundle is a directory with config.json in it; `runtime spec` writes one".to_owned()
                } else {
                    "there is no such directory".to_owned()
                };
                return Err(error).context(Hint(format!("open bundle {}: {CONFIG}", path.display()), hint));
            }
            result => result.with_context(|| format!("read {}", file.display()))?,
        };
        match serde_json::from_slice(&text) {
            Ok(spec) => Ok(Self { path, spec, unknown_capabilities: Vec::new() }),
            Err(_) => {
                let (spec, unknown_capabilities) = without_unknown_capabilities(&text)?;
                Ok(Self { path, spec, unknown_capabilities })
            }
        }
    }

    /// The directory that becomes `/`: absolute, without symbolic links.
    ///
    /// # Errors
    /// If there is none, or if it is no directory.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let at = Pointer::root().field("root");
        let Some(root) = self.spec.root() else {
            return Err(at.error_with_hint("is missing", "add {\"path\": \"rootfs\"}"));
        };
        let at = at.field("path");
        if root.path().as_os_str().is_empty() {
            return Err(at.error("the path is empty"));
        }
        let named = self.path.join(root.path());
        let found = fs::canonicalize(&named).with_context(|| Fault {
            pointer: at.clone(),
            message: format!("open rootfs {}", named.display()),
            hint: None,
        })?;
        if found.is_dir() {
            Ok(found)
        } else {
            Err(at.error(format_args!("{} is no directory", named.display())))
        }
    }
}

/// A capability that is newer than this program is worth a warning, not a failure (config.md § Linux Process), but has no place
/// in the types.
///
/// # Errors
/// What else is wrong: the names are excused, and nothing beside them.
fn without_unknown_capabilities(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(text) else { return Err(explain(text)) };
    let unknown = take_unknown_capabilities(&mut value);
    // The same text with names that are known: what is still wrong with it would be lost in a value, such as a key that is
    // there twice.
    let mut known = String::from_utf8_lossy(text).into_owned();
    for name in &unknown {
        known = known.replace(&format!("{name:?}"), "\"CAP_KILL\"");
    }
    let known = known.as_bytes();
    if unknown.is_empty() || serde_json::from_slice::<Spec>(known).is_err() {
        return Err(explain(known));
    }
    let spec = serde_json::from_value(value).map_err(|_| explain(known))?;
    Ok((spec, unknown))
}

fn take_unknown_capabilities(spec: &mut serde_json::Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let sets = spec.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut);
    for set in
        sets.into_iter().flat_map(serde_json::Map::values_mut).filter_map(serde_json::Value::as_array_mut)
    {
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

/// Decodes again, this time keeping track of where: twice the work, which only a failure has to pay.
fn explain(text: &[u8]) -> anyhow::Error {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let mut track = serde_path_to_error::Track::new();
    let result = Spec::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    let error = match result.and_then(|_| deserializer.end()) {
        Err(error) => error,
        Ok(()) => return anyhow::anyhow!("{CONFIG}: cannot be decoded"),
    };
    let mut pointer = Pointer::root();
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

/// A `config.json` that is not JSON, or in which a value has the wrong type.
#[derive(Debug)]
struct Misshapen {
    line: usize,
    column: usize,
    pointer: Pointer,
    message: String,
}

impl std::fmt::Display for Misshapen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{CONFIG}:{}:{}: {}: {}", self.line, self.column, self.pointer, self.message)
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
            explain(text).to_string(),
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
        let (spec, unknown) = without_unknown_capabilities(text(names, "").as_bytes()).unwrap();
        assert_eq!(unknown, ["CAP_FLY"]);
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert!(without_unknown_capabilities(text("[5]", "").as_bytes()).is_err());
        let twice = text(names, "\"hostname\": \"a\", \"hostname\": \"b\", ");
        let error = without_unknown_capabilities(twice.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("duplicate field `hostname`"), "{error}");
    }

    #[test]
    fn text_that_is_not_json_is_named_by_line_and_column() {
        assert!(
            explain(b"{\n  nonsense\n}").to_string().starts_with("config.json:2:3: /: key must be a string")
        );
    }
}
