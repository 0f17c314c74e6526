//! One value that was changed: what a file of the kernel held before and what it holds now.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A change of one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The name, or in a preview the path, of a control file, such as `memory.max`, or `schemata` for the class of service in
    /// the resctrl file system.
    pub file: String,
    /// Which line of it, if there is one for each of several things: a device, a controller, a resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// What to write for the old value to be back, and the new one in the same form, both without a newline.
    pub from: String,
    pub to: String,
}

impl Change {
    /// Whether it is about a file in the directory where one looks for it, and in no other.
    pub fn is_there(&self) -> bool {
        !self.file.contains('/')
    }

    /// What it is about.
    pub fn place(&self) -> (&str, &str) {
        (&self.file, &self.of)
    }
}

/// As `memory.max max -> 67108864`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.file, shown(&self.from), shown(&self.to))
    }
}

/// A value for people: quoted if it is empty.
pub fn shown(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}
