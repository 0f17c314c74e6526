use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes};

use super::*;

/// A terminal between two pipes, with its other end.
struct Fixture {
    terminal: Terminal,
    keys: File,
    screen: File,
    inside: File,
}

const PEER: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY).union(OpenptFlags::CLOEXEC);

fn fixture() -> Fixture {
    let master = rustix::pty::openpt(PEER).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let inside = rustix::pty::ioctl_tiocgptpeer(&master, PEER).unwrap();
    let (input, keys) = rustix::pipe::pipe().unwrap();
    let (screen, output) = rustix::pipe::pipe().unwrap();
    let terminal = Terminal::between(master, input, output, Newlines::Outside).unwrap();
    Fixture { terminal, keys: keys.into(), screen: screen.into(), inside: inside.into() }
}

impl Fixture {
    /// Relays bytes until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let (sides, mut polled): (Vec<_>, Vec<_>) = self.terminal.polled().unzip();
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            if rustix::event::poll(&mut polled, Some(&now)).unwrap() == 0 {
                return;
            }
            let ready: Vec<_> =
                sources_ready(&sides, &polled.iter().map(PollFd::revents).collect::<Vec<_>>());
            for side in ready {
                self.terminal.advance(side).unwrap();
            }
        }
    }

    fn shown(&mut self) -> String {
        self.settle();
        let mut bytes = vec![0; 1 << 16];
        let length = self.screen.read(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn typed(&mut self) -> String {
        self.settle();
        let mut bytes = [0; 64];
        let length = self.inside.read(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn silence_echo(&self) {
        let mut modes = rustix::termios::tcgetattr(&self.inside).unwrap();
        modes.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(&self.inside, OptionalActions::Now, &modes).unwrap();
    }
}

fn sources_ready(sides: &[Side], events: &[PollFlags]) -> Vec<Side> {
    sides.iter().zip(events).filter(|(_, events)| !events.is_empty()).map(|(side, _)| *side).collect()
}

#[test]
fn what_is_typed_arrives_inside_and_its_echo_outside() {
    let mut fixture = fixture();
    fixture.keys.write_all(b"ls\n").unwrap();
    assert_eq!(fixture.typed(), "ls\n");
    assert_eq!(fixture.shown(), "ls\n");
}

#[test]
fn redirected_output_has_plain_line_feeds() {
    let mut fixture = fixture();
    fixture.inside.write_all(b"a\nb\n").unwrap();
    assert_eq!(fixture.shown(), "a\nb\n");
    let modes = rustix::termios::tcgetattr(&fixture.inside).unwrap();
    assert!(!modes.output_modes.contains(OutputModes::ONLCR));
}

#[test]
fn the_end_of_the_input_is_an_end_of_file_inside() {
    let mut fixture = fixture();
    fixture.silence_echo();
    fixture.keys.write_all(b"last\n").unwrap();
    assert_eq!(fixture.typed(), "last\n");
    fixture.keys = File::open("/dev/null").unwrap();
    assert_eq!(fixture.typed(), "");
}

#[test]
fn the_end_of_the_input_inside_a_line_is_an_end_of_file_after_it() {
    let mut fixture = fixture();
    fixture.silence_echo();
    fixture.keys.write_all(b"exit 3").unwrap();
    fixture.keys = File::open("/dev/null").unwrap();
    assert_eq!(fixture.typed(), "exit 3");
    assert_eq!(fixture.typed(), "");
}

#[test]
fn a_terminal_that_is_closed_and_opened_again_goes_on() {
    let mut fixture = fixture();
    let master = fixture.terminal.pty.polled(PollFlags::IN).0.try_clone_to_owned().unwrap();
    for text in ["one\n", "two\n", "three\n"] {
        fixture.inside.write_all(text.as_bytes()).unwrap();
        fixture.inside = File::open("/dev/null").unwrap();
        assert_eq!(fixture.shown(), text);
        fixture.settle();
        assert!(fixture.terminal.pty.is_hung_up());
        fixture.inside = rustix::pty::ioctl_tiocgptpeer(&master, PEER).unwrap().into();
    }
}

#[test]
fn output_left_behind_is_pulled_to_the_last_byte() {
    let mut fixture = fixture();
    // As much as the kernel accepts without a reader.
    let flags = rustix::fs::fcntl_getfl(&fixture.inside).unwrap();
    rustix::fs::fcntl_setfl(&fixture.inside, flags | OFlags::NONBLOCK).unwrap();
    let mut written = 0;
    while let Ok(length) = fixture.inside.write(&[b'x'; 1000]) {
        written += length;
    }
    fixture.inside = File::open("/dev/null").unwrap();
    let mut pulled = 0;
    while fixture.terminal.pull() {
        while fixture.terminal.has_output() {
            fixture.terminal.advance(Side::Output).unwrap();
            let mut bytes = [0; 8192];
            pulled += fixture.screen.read(&mut bytes).unwrap();
        }
    }
    assert!(written > 4096, "{written}");
    assert_eq!(pulled, written);
}

#[test]
fn a_slow_reader_of_the_output_stops_nothing_else() {
    let mut fixture = fixture();
    fixture.silence_echo();
    let flags = rustix::fs::fcntl_getfl(&fixture.inside).unwrap();
    rustix::fs::fcntl_setfl(&fixture.inside, flags | OFlags::NONBLOCK).unwrap();
    // More than the pipe and the terminal can hold.
    let mut refusals = 0;
    while refusals < 3 {
        refusals += i32::from(fixture.inside.write(&[b'x'; 4096]).is_err());
        fixture.settle();
    }
    rustix::fs::fcntl_setfl(&fixture.inside, flags).unwrap();
    fixture.keys.write_all(b"stop\n").unwrap();
    assert_eq!(fixture.typed(), "stop\n");
}

#[test]
fn a_closed_output_is_an_error() {
    let mut fixture = fixture();
    fixture.screen = File::open("/dev/null").unwrap();
    fixture.inside.write_all(b"x").unwrap();
    fixture.terminal.advance(Side::Pty).unwrap();
    assert_eq!(fixture.terminal.advance(Side::Output), Err(Errno::PIPE));
}

#[test]
fn the_users_streams_keep_their_modes() {
    let (input, keys) = rustix::pipe::pipe().unwrap();
    let own = stream::own(input.as_fd(), OFlags::RDONLY).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&own).unwrap().contains(OFlags::NONBLOCK));
    drop(keys);

    let master = rustix::pty::openpt(PEER).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let user = rustix::pty::ioctl_tiocgptpeer(&master, PEER).unwrap();
    let own = stream::own(user.as_fd(), OFlags::WRONLY).unwrap();
    assert!(rustix::fs::fcntl_getfl(&own).unwrap().contains(OFlags::NONBLOCK));
    assert!(!rustix::fs::fcntl_getfl(&user).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn a_raw_keyboard_is_restored_when_dropped() {
    let master = rustix::pty::openpt(PEER).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let user = rustix::pty::ioctl_tiocgptpeer(&master, PEER).unwrap();
    let local_modes = || rustix::termios::tcgetattr(&user).unwrap().local_modes;
    let before = local_modes();
    let raw = RawMode::enter(user.as_fd(), Newlines::Inside).unwrap();
    assert_ne!(local_modes(), before);
    drop(raw);
    assert_eq!(local_modes(), before);
}
