//! Who asked for a change: what this process can find out itself, which any caller could forge anyway.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// The maximum length of a recorded command line, in characters.
const LONGEST: usize = 200;

/// Who asked for a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// The user id of this process.
    pub uid: u32,
    /// The user who ran sudo(8), according to the environment, which others can set, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_uid: Option<u32>,
    /// The parent process and the name of its program, such as an engine or a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The command with its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Requester {
    /// Describes this process, whose command and arguments are `words`.
    pub fn of_this_process(words: &[OsString], sudo_uid: Option<u32>) -> Self {
        // `None` if the parent is in another pid namespace, e.g. a shell outside.
        let caller_pid = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
        let name = caller_pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        Self {
            uid: rustix::process::getuid().as_raw(),
            sudo_uid,
            caller_pid,
            caller: name.map(|name| name.trim_end_matches('\n').to_owned()),
            command: Some(command_line(words)),
        }
    }
}

/// Formats a command line for a shell. Words with special characters are quoted like Rust strings, so that no
/// control character reaches a terminal.
fn command_line(words: &[OsString]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_+=./:,@%".contains(c);
    let words = words.iter().map(|word| {
        let word = word.to_string_lossy();
        if !word.is_empty() && word.chars().all(is_plain) { word.into_owned() } else { format!("{word:?}") }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_short_and_harmless() {
        let line = |words: &[&str]| command_line(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(line(&["update", "--memory=64M", "web"]), "update --memory=64M web");
        assert_eq!(line(&["update", "-r", "a b", "\u{1b}[2J", ""]), r#"update -r "a b" "\u{1b}[2J" """#);
        let long = line(&["update", &"x".repeat(1000)]);
        assert_eq!((long.chars().count(), long.ends_with("x...")), (LONGEST + 3, true));
    }
}
