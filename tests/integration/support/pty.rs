//! Runs a program on a terminal of its own, reads its output and types input.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::{Invocation, host, wait};

/// The signals that end what a terminal shows, with the exit codes that tell of them.
pub const ENDING_SIGNALS: [(Signal, i32); 4] =
    [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131)];

/// A terminal with a program on it, whose session's it is.
pub struct Pty {
    master: File,
    /// Keeps the terminal there when the program has ended.
    slave: File,
    child: Child,
    /// All that was written to it.
    pub written: String,
    pub shown: Shown,
    /// The modes before the program began.
    before: Termios,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Pty {
    /// Calls it; with this locale.
    pub fn spawn(call: &Invocation, columns: u16, rows: u16, locale: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        tcsetwinsize(&slave, size(columns, rows)).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let before = tcgetattr(&slave).unwrap();
        // It becomes what it calls, and does not fork first.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(call.words())
            .env("LC_ALL", locale)
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let shown = Shown::new(columns.into(), rows.into());
        Self { master: File::from(master), slave, child, written: String::new(), shown, before }
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Types this.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.shown = Shown::new(columns.into(), rows.into());
        tcsetwinsize(&self.slave, size(columns, rows)).unwrap();
    }

    /// Waits until this holds for what the terminal shows.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&Shown) -> bool) {
        let holds = wait::holds_within(host::patience(), || {
            self.read();
            condition(&self.shown)
        });
        assert!(
            holds,
            "not within {:?}: {what}:\n{}\n{:?}",
            host::patience(),
            self.shown.text(),
            self.written
        );
    }

    /// Waits until this is to be seen.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.wait_until(&format!("{text:?} is there"), |shown| shown.text().contains(text));
    }

    /// The end of what was written, for a test that fails.
    fn last_words(&self) -> String {
        let start = self.written.char_indices().rev().nth(2000).map_or(0, |(start, _)| start);
        format!("{:?}", &self.written[start..])
    }

    /// Takes in what has been written so far.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        let is_ready = || {
            let mut polled = [rustix::event::PollFd::new(&self.master, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
                .unwrap()
                > 0
        };
        while is_ready() {
            let Ok(length @ 1..) = (&self.master).read(&mut buffer) else { break };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.shown.take(&text);
            self.written.push_str(&text);
        }
    }

    /// The end of the program, which must have left the terminal as it was.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        wait::holds_within(host::patience(), || {
            self.read();
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.read();
        let Some(status) = status else {
            panic!("does not end: {}\n{}", self.shown.text(), self.last_words())
        };
        let modes = |modes: &Termios| (modes.local_modes, modes.input_modes, modes.output_modes);
        assert_eq!(modes(&tcgetattr(&self.slave).unwrap()), modes(&self.before), "the modes are as before");
        assert!(!self.shown.cursor_is_hidden, "the cursor is there again: {}", self.last_words());
        assert!(!self.shown.is_alternate, "the usual screen is there again: {}", self.last_words());
        status
    }

    /// Waits until nothing comes any more, which is that of what was stopped.
    #[track_caller]
    pub fn wait_until_silent(&mut self) {
        let mut quiet = 0;
        let is_silent = wait::holds_within(host::patience(), || {
            let before = self.written.len();
            self.read();
            quiet = if self.written.len() == before { quiet + 1 } else { 0 };
            quiet > 10
        });
        assert!(is_silent, "it goes on: {}", self.last_words());
    }

    /// The end of a program whose last words did not come.
    #[track_caller]
    pub fn ends_unseen(&mut self) -> ExitStatus {
        let status = wait::ends_within(host::patience(), &mut self.child);
        status.unwrap_or_else(|| panic!("does not end: {}", self.last_words()))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a terminal shows: as much of xterm's control sequences as is used, and no other.
pub struct Shown {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The beginning of a sequence.
    sequence: String,
    pub cursor_is_hidden: bool,
    pub is_alternate: bool,
}

impl Shown {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows: vec![Vec::new(); rows],
            row: 0,
            column: 0,
            sequence: String::new(),
            cursor_is_hidden: false,
            is_alternate: false,
        }
    }

    /// Without blanks at the ends of lines.
    pub fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The first line with this in it.
    pub fn line(&self, text: &str) -> Option<String> {
        self.lines().into_iter().find(|line| line.contains(text))
    }

    fn take(&mut self, text: &str) {
        for letter in text.chars() {
            if !self.sequence.is_empty() {
                self.sequence.push(letter);
                if self.sequence.len() > 2 && ('@'..='~').contains(&letter) {
                    let sequence = std::mem::take(&mut self.sequence);
                    self.control(&sequence);
                }
                continue;
            }
            match letter {
                '\u{1b}' => self.sequence.push(letter),
                '\r' => self.column = 0,
                '\n' => self.next_row(),
                letter => {
                    assert!(!letter.is_control(), "{letter:?}");
                    if self.column == self.columns {
                        self.column = 0;
                        self.next_row();
                    }
                    let row = &mut self.rows[self.row];
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = letter;
                    self.column += 1;
                }
            }
        }
    }

    fn next_row(&mut self) {
        if self.row + 1 == self.rows.len() {
            self.rows.remove(0);
            self.rows.push(Vec::new());
        } else {
            self.row += 1;
        }
    }

    fn control(&mut self, sequence: &str) {
        match sequence {
            "\u{1b}[H" => (self.row, self.column) = (0, 0),
            "\u{1b}[2K" => self.rows[self.row].clear(),
            "\u{1b}[J" => {
                self.rows[self.row].truncate(self.column);
                let below = self.row + 1;
                self.rows.iter_mut().skip(below).for_each(Vec::clear);
            }
            "\u{1b}[m" | "\u{1b}[1m" | "\u{1b}[7m" => {}
            "\u{1b}[?25l" => self.cursor_is_hidden = true,
            "\u{1b}[?25h" => self.cursor_is_hidden = false,
            "\u{1b}[?1049h" => {
                self.is_alternate = true;
                self.rows.iter_mut().for_each(Vec::clear);
            }
            "\u{1b}[?1049l" => self.is_alternate = false,
            other => panic!("{other:?} is no sequence that this knows"),
        }
    }
}
