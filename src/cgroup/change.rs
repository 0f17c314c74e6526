//! One changed value of a control file: before and after.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The name of a control file, such as `memory.max` (its path, in a preview), or `schemata` for a resctrl
    /// class of service.
    pub file: String,
    /// The line of the file, where it has one per device, controller or resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// What to write to restore the old value, and the new value in the same form; both without a newline.
    pub from: String,
    pub to: String,
}

impl Change {
    /// Whether `file` is a plain name, not a path.
    pub fn is_there(&self) -> bool {
        !self.file.contains('/')
    }

    /// Returns file and line.
    pub fn place(&self) -> (&str, &str) {
        (&self.file, &self.of)
    }
}

/// Such as `memory.max max -> 67108864`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.file, shown(&self.from), shown(&self.to))
    }
}

/// Formats a value for display: an empty one is shown as quotes.
pub fn shown(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}
