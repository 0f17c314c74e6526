//! Who has asked for a change: what this process knows of it by itself, and nothing that a caller could not tell anyway.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

/// The longest text of a command line that is kept, in characters.
const LONGEST: usize = 200;

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asker {
    /// The user whose process this was.
    pub uid: u32,
    /// Who became that user, if sudo(8) says so. It says it in the environment, where others may have written, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_uid: Option<u32>,
    /// The process that called this program, and the name of its program: an engine's, a shell's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The command and its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Asker {
    /// Of this process, whose command and arguments are `words`.
    pub fn of_this_process(words: &[OsString], sudo_uid: Option<u32>) -> Self {
        // None for a process in another pid namespace, as that of the shell outside.
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

/// As a shell would read it, but for words that it would not leave alone, which are quoted as Rust's are: no control character
/// gets to a terminal.
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
