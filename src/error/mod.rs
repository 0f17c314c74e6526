//! Errors with a place in `config.json` and a hint.
//!
//! Errors are [`anyhow::Error`]s; each layer adds what only it knows. Types that code looks for again are
//! defined here, above all [`Fault`], whose parts the JSON log carries as separate keys, and [`Refusal`],
//! which commands branch on.

pub mod printable;

use std::{error, fmt, io};

use nix::errno::Errno;

/// A place in `config.json` or another document, as a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    document: &'static str,
    path: String,
}

impl Pointer {
    /// All of `config.json`.
    pub const fn root() -> Self {
        Self::of("config.json")
    }

    /// All of another document; `document` is its name in messages.
    pub const fn of(document: &'static str) -> Self {
        Self { document, path: String::new() }
    }

    /// The place `path` in `document`, as [`Display`](fmt::Display) formats it. Instead of a document it can
    /// be an option, such as `--memory`, that set the value.
    pub fn in_document(document: &'static str, path: &str) -> Self {
        Self { document, path: path.to_owned() }
    }

    pub fn document(&self) -> &'static str {
        self.document
    }

    /// Whether this is the whole document.
    pub fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    /// The member `name` of the object at this place.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.below(&name.replace('~', "~0").replace('/', "~1"))
    }

    /// The element `index`, from 0, of the array at this place.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.below(&index.to_string())
    }

    fn below(&self, token: &str) -> Self {
        Self { document: self.document, path: format!("{}/{token}", self.path) }
    }

    /// Returns an error about the value at this place.
    pub fn error(&self, message: impl fmt::Display) -> anyhow::Error {
        self.fault(message).into()
    }

    /// Like [`Pointer::error`], with a hint for the author of the value.
    pub fn error_with_hint(&self, message: impl fmt::Display, hint: impl fmt::Display) -> anyhow::Error {
        Fault { hint: Some(hint.to_string()), ..self.fault(message) }.into()
    }

    fn fault(&self, message: impl fmt::Display) -> Fault {
        Fault { pointer: self.clone(), message: message.to_string(), hint: None }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.path.is_empty() { "/" } else { &self.path })
    }
}

/// Something wrong with a value of `config.json` or another document.
#[derive(Debug)]
pub struct Fault {
    pub pointer: Pointer,
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pointer.document {
            option if option.starts_with("--") => write!(f, "{option}: {}", self.message),
            document => write!(f, "{document}: {}: {}", self.pointer, self.message),
        }
    }
}

impl error::Error for Fault {}

/// A refusal that other programs recognise by its text, or that a command treats as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no state directory with this name.
    NoSuchContainer(String),
    /// The container has no process that could receive a signal.
    NotRunning(String),
    /// The container has been started already.
    AlreadyRunning(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // containerd, CRI-O and conmon match these texts.
            Self::NoSuchContainer(id) => write!(f, "container {id:?} does not exist"),
            Self::NotRunning(id) => write!(f, "container {id:?} has exited: container not running"),
            Self::AlreadyRunning(id) => write!(f, "cannot start an already running container: {id:?}"),
        }
    }
}

impl error::Error for Refusal {}

/// An error context that says how far the creation of a container had got. It displays as nothing, because
/// other contexts have place and cause, but `cli/runc.rs` turns it into the words that runc's callers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The cgroup was being created.
    Cgroup,
    /// The init process was running.
    Alive,
    /// The init process was setting up the container.
    Init,
    /// The init process was mounting.
    Mount,
    /// The init process was executing the program.
    Program,
}

impl fmt::Display for Stage {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl error::Error for Stage {}

/// An error context that lists what a failed change could not restore. It displays as nothing, because other
/// contexts come first: [`line()`] appends the list.
#[derive(Debug)]
pub struct NotRestored(Vec<String>);

impl NotRestored {
    /// Returns `error` with `lost`, which may be empty, as what could not be restored.
    pub fn after(mut error: anyhow::Error, lost: Vec<String>) -> anyhow::Error {
        if let Some(Self(earlier)) = error.downcast_mut() {
            earlier.extend(lost);
            return error;
        }
        if lost.is_empty() { error } else { error.context(Self(lost)) }
    }
}

impl fmt::Display for NotRestored {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl error::Error for NotRestored {}

/// Formats an error as one line: the whole chain, outermost first, with the name of every errno, and the
/// hint. Untrusted text in it can neither add a line nor control a terminal.
pub fn line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let words = errno_of(cause).map_or_else(|| cause.to_string(), describe);
        if !text.is_empty() && !words.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&words);
    }
    if let Some(NotRestored(lost)) = error.downcast_ref() {
        text.push_str(&format!(" (and {} could not be restored)", lost.join(", ")));
    }
    if let Some(hint) = hint(error) {
        text.push_str(&format!(" ({hint})"));
    }
    printable::escape(&text).into_owned()
}

/// Returns the fault, if the error is about a value of a document.
pub fn fault(error: &anyhow::Error) -> Option<&Fault> {
    error.downcast_ref()
}

/// Returns how to fix the error, if known.
pub fn hint(error: &anyhow::Error) -> Option<&str> {
    fault(error).and_then(|fault| fault.hint.as_deref()).or_else(|| Some(&error.downcast_ref::<Hint>()?.1))
}

/// A context with a hint, for errors that are not about a value of `config.json`: message, hint.
#[derive(Debug)]
pub struct Hint(pub String, pub String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Hint {}

/// Returns the errno in the chain, if the error came from the kernel.
pub fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(errno_of)
}

/// Formats an errno as `no such file or directory (ENOENT)`; in lower case as Go does, because runc's callers
/// match these words.
pub fn describe(errno: Errno) -> String {
    format!("{} ({errno:?})", lowercase_first(errno.desc()))
}

/// Puts the first letter into lower case, unless the text begins with an abbreviation, such as `I/O error`.
fn lowercase_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

fn errno_of(cause: &(dyn error::Error + 'static)) -> Option<Errno> {
    cause
        .downcast_ref::<Errno>()
        .copied()
        .or_else(|| cause.downcast_ref::<rustix::io::Errno>().map(|e| Errno::from_raw(e.raw_os_error())))
        .or_else(|| cause.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw))
}

/// Asserts that an error is fit to be printed, and begins with one of `documents`; returns its line.
#[cfg(any(test, feature = "fuzzing"))]
pub fn promised(error: &anyhow::Error, documents: &[&str]) -> String {
    let line = line(error);
    assert!(!line.is_empty(), "an error without a word");
    assert!(!line.chars().any(char::is_control), "an error with control characters: {line:?}");
    assert!(
        documents.is_empty() || documents.iter().any(|document| line.starts_with(document)),
        "an error that does not begin with one of {documents:?}: {line:?}"
    );
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_pointer_escapes_as_rfc_6901_says() {
        let pointer = Pointer::root().field("linux").field("unified").field("a/b~c").index(3);
        assert_eq!(pointer.to_string(), "/linux/unified/a~1b~0c/3");
        assert_eq!(Pointer::root().to_string(), "/");
    }

    #[test]
    fn a_line_names_the_errno_once() {
        let failed: anyhow::Result<()> = Err(Errno::EPERM).context("mount \"proc\" on /proc");
        assert_eq!(line(&failed.unwrap_err()), "mount \"proc\" on /proc: operation not permitted (EPERM)");
    }

    #[test]
    fn a_stage_adds_no_words() {
        let error = anyhow::Error::from(Errno::EPERM).context("open x").context(Stage::Init);
        assert_eq!(line(&error), "open x: operation not permitted (EPERM)");
        assert_eq!(error.downcast_ref(), Some(&Stage::Init));
        let error =
            Pointer::root().field("hostname").error_with_hint("is wrong", "right it").context(Stage::Init);
        assert_eq!(line(&error), "config.json: /hostname: is wrong (right it)");
    }

    #[test]
    fn a_line_is_one_line_whatever_it_tells_of() {
        let pointer = Pointer::root().field("linux").field("sysctl").field("a\u{1b}[2J\nlevel=info");
        let error = pointer.error_with_hint("is \u{202e}wrong", "see /\r\u{9b}");
        assert_eq!(
            line(&error),
            "config.json: /linux/sysctl/a\\u{1b}[2J\\nlevel=info: is \\u{202e}wrong (see /\\r\\u{9b})"
        );
    }

    #[test]
    fn a_fault_says_where_what_and_the_way_out() {
        let error = Pointer::root().field("hostname").error_with_hint("needs a uts namespace", "add one");
        assert_eq!(line(&error), "config.json: /hostname: needs a uts namespace (add one)");
    }
}
