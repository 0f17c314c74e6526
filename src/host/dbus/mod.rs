//! A minimal D-Bus client: one connection over a UNIX socket, method calls with replies, and signals.
//!
//! Every call has a deadline. Nothing here starts a thread or keeps state between calls, except the sender of
//! the last reply and expected signals that arrived before a reply.
//!
//! Source: the D-Bus Specification, § Message Protocol, Authentication Protocol, Server Addresses.

mod address;
#[cfg(test)]
pub mod fake;
pub mod message;
mod text;
mod value;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{error, fmt, io};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketType;

pub use self::address::Address;
use self::message::{HEADER, Header, Message, MessageKind};
pub use self::text::parse;
pub use self::value::Value;
use crate::error::errno;
use crate::host::unix_socket;

/// The longest message accepted, in bytes; real ones are far shorter.
const LONGEST: usize = 16 << 20;

/// How many signals are queued, and how many bytes each may have: on a bus, anyone may send them.
const SIGNALS: usize = 1024;
const LONGEST_SIGNAL: usize = 4096;

/// The maximum number of lines in an authentication dialogue.
const GREETINGS: usize = 8;

/// The object and interface of a method or signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusObject<'a> {
    /// The bus name of the program.
    pub program: &'a str,
    pub object: &'a str,
    pub interface: &'a str,
}

/// The bus itself.
const BUS: BusObject<'static> = BusObject {
    program: "org.freedesktop.DBus",
    object: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// An error reply.
#[derive(Debug)]
pub struct Refused {
    /// The name of the error: `org.freedesktop.DBus.Error.AccessDenied`.
    pub name: String,
    /// A message for humans; may be empty.
    pub text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.text {
            "" => f.write_str(&self.name),
            text => write!(f, "{}: {text}", self.name),
        }
    }
}

impl error::Error for Refused {}

/// The deadline has passed without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out waiting for a reply")
    }
}

impl error::Error for TimedOut {}

/// The `interrupt` descriptor became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl error::Error for Interrupted {}

/// A connection to a bus, or directly to a single program.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Ends a wait when it becomes readable.
    interrupt: Option<OwnedFd>,
    serial: u32,
    /// The sender of the last reply, if there is a bus.
    answered_by: Option<String>,
    /// The signal that [`Self::signal`] returns.
    expected: Option<(BusObject<'static>, &'static str)>,
    /// Expected signals that arrived while waiting for something else, oldest first.
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects directly to the program at `address`. Waits end when `interrupt` becomes readable.
    pub fn direct(address: &Address, interrupt: Option<OwnedFd>, deadline: Instant) -> Result<Self> {
        let socket = unix_socket::connect_within(&address.socket()?, SocketType::STREAM, left(deadline)?);
        let socket = socket.map_err(|error| match errno(&error) {
            // Its backlog is full.
            Some(nix::errno::Errno::EAGAIN) => TimedOut.into(),
            _ => error,
        });
        let mut connection = Self {
            stream: socket?.into(),
            interrupt,
            serial: 0,
            answered_by: None,
            expected: None,
            signals: VecDeque::new(),
        };
        connection.authenticate(deadline)?;
        Ok(connection)
    }

    /// Connects to the bus at `address`, on which `program` must own its name.
    pub fn bus(
        address: &Address,
        program: &str,
        interrupt: Option<OwnedFd>,
        deadline: Instant,
    ) -> Result<Self> {
        let mut connection = Self::direct(address, interrupt, deadline)?;
        connection.call(BUS, "Hello", &[], deadline)?;
        connection.call(BUS, "GetNameOwner", &[Value::text(program)], deadline)?;
        Ok(connection)
    }

    /// From now on, only deadlines end a wait.
    pub fn ignore_interrupts(&mut self) {
        self.interrupt = None;
    }

    /// From now on, queues the signals `member` of `place` for [`Self::signal`], and no others.
    pub fn expect(&mut self, place: BusObject<'static>, member: &'static str) {
        self.expected = Some((place, member));
    }

    /// Asks the bus to pass on the signals `member` of `place`.
    pub fn subscribe(&mut self, place: BusObject<'_>, member: &str, deadline: Instant) -> Result<()> {
        let BusObject { program, object, interface } = place;
        let rule = format!(
            "type='signal',sender='{program}',path='{object}',interface='{interface}',member='{member}'"
        );
        self.call(BUS, "AddMatch", &[Value::Text(rule)], deadline).map(drop)
    }

    /// Calls a method and waits for the reply.
    ///
    /// # Errors
    /// [`Refused`], [`TimedOut`], [`Interrupted`], or an error of the socket.
    pub fn call(
        &mut self,
        place: BusObject<'_>,
        member: &str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Result<Vec<Value>> {
        let bytes = self.encode(place, member, arguments)?;
        self.send(&bytes, deadline)?;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                MessageKind::Answer if message.answers == Some(self.serial) => {
                    let values = message.values().context("decode a reply")?;
                    self.answered_by = message.sender;
                    return Ok(values);
                }
                MessageKind::Error if message.answers == Some(self.serial) => {
                    let text =
                        message.values().ok().and_then(|values| values.into_iter().next()?.into_text());
                    let [name, text] = [message.error, text].map(Option::unwrap_or_default);
                    return Err(Refused { name, text }.into());
                }
                MessageKind::Signal => self.keep(message),
                // A reply to no call of ours, or a method call, which we do not serve.
                _ => {}
            }
        }
    }

    fn encode(&mut self, place: BusObject<'_>, member: &str, arguments: &[Value]) -> Result<Vec<u8>> {
        // 0 is not a valid serial.
        self.serial = self.serial.wrapping_add(1).max(1);
        message::call(self.serial, place, member, arguments)
    }

    fn keep(&mut self, signal: Message) {
        let is_expected = self.expected.is_some_and(|(place, member)| signal.is_signal(place, member));
        if !is_expected || signal.size() > LONGEST_SIGNAL {
            return;
        }
        if self.signals.len() >= SIGNALS {
            self.signals.pop_front();
        }
        self.signals.push_back(signal);
    }

    /// Waits for the next expected signal from the sender of the last reply and returns its values. All
    /// others are dropped: on a bus, anyone may send a signal that looks the same.
    pub fn signal(&mut self, deadline: Instant) -> Result<Vec<Value>> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline)?,
            };
            let is_expected = self.expected.is_some_and(|(place, member)| message.is_signal(place, member));
            if is_expected && message.sender == self.answered_by {
                return message.values().context("decode a signal");
            }
        }
    }

    /// Authenticates by the peer credentials of the socket. Sends no user ID, because it could be a different
    /// one on the other side of a user namespace.
    fn authenticate(&mut self, deadline: Instant) -> Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", deadline)?;
        for _ in 0..GREETINGS {
            let line = self.line(deadline)?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => return Ok(()),
                _ => bail!("authentication rejected: {line:?}"),
            }
        }
        bail!("authentication incomplete")
    }

    /// Reads a line byte by byte: the last one is followed by messages.
    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 4096 {
                bail!("unterminated authentication reply");
            }
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let mut start = [0; HEADER];
        self.read(&mut start, deadline)?;
        let header = Header::decode(&start).context("decode a message")?;
        let length = header.length().filter(|length| *length <= LONGEST);
        let mut rest = vec![0; length.context("decode a message: too long")?];
        self.read(&mut rest, deadline)?;
        match Message::decode(&header, &rest) {
            // An undecodable message that is not a reply is ignored.
            Err(_) if !header.answers() => Ok(Message::default()),
            message => message.context("decode a message"),
        }
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<()> {
        let mut rest = buffer;
        while !rest.is_empty() {
            self.await_answer(deadline)?;
            match self.stream.read(rest) {
                Ok(0) => return Err(io::Error::from(Errno::CONNRESET)).context("read a reply"),
                Ok(length) => rest = rest.get_mut(length..).unwrap_or_default(),
                Err(error) => again(error).context("read a reply")?,
            }
        }
        Ok(())
    }

    fn await_answer(&self, deadline: Instant) -> Result<()> {
        loop {
            let mut waiting = vec![PollFd::new(&self.stream, PollFlags::IN)];
            waiting.extend(self.interrupt.as_ref().map(|interrupt| PollFd::new(interrupt, PollFlags::IN)));
            let left = Timespec::try_from(left(deadline)?).ok();
            match rustix::event::poll(&mut waiting, left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for a reply"),
            }
            let mut ready = waiting.iter().map(|place| !place.revents().is_empty());
            match (ready.next(), ready.next()) {
                (Some(true), _) => return Ok(()),
                (_, Some(true)) => return Err(Interrupted.into()),
                _ => {}
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match self.stream.write(rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) => again(error).context("send a request")?,
            }
        }
        Ok(())
    }
}

/// Whether to retry after `error`.
///
/// # Errors
/// The error, unless it is an interruption or a timeout; [`left`] detects an expired deadline.
fn again(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        _ => Err(error),
    }
}

/// The time left until `deadline`, more than zero.
///
/// # Errors
/// [`TimedOut`].
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const PLACE: BusObject<'static> = BusObject { program: "a.b", object: "/a/b", interface: "a.b.C" };

    /// Calls `m` of a program that authenticates the client and then sends `bytes`.
    fn called(bytes: Vec<u8>) -> Result<(Vec<Value>, Connection)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let program = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
            stream.write_all(&bytes).unwrap();
            // Keep the socket open until the client closes it, which may happen before it has read
            // everything.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let address = Address::of(&path);
        let deadline = Instant::now() + Duration::from_millis(300);
        let answer = Connection::direct(&address, None, deadline).and_then(|mut connection| {
            connection.expect(PLACE, "done");
            Ok((connection.call(PLACE, "m", &[], deadline)?, connection))
        });
        let answer = answer.map(|(body, connection)| {
            let again = connection.stream.try_clone().unwrap();
            again.shutdown(std::net::Shutdown::Write).unwrap();
            (body, connection)
        });
        if answer.is_ok() {
            program.join().unwrap()
        }
        answer
    }

    #[test]
    fn signals_that_come_before_the_answer_wait_for_who_asks() {
        let mut bytes = message::tests::signal(PLACE, "other", &[]);
        bytes.extend(message::tests::signal(PLACE, "done", &[Value::Uint32(7)]));
        bytes.extend(message::tests::answer(99, &[]));
        bytes.extend(message::tests::answer(1, &[Value::Text("yes".into())]));
        let (body, mut connection) = called(bytes).unwrap();
        assert_eq!(body, [Value::Text("yes".into())]);
        let deadline = Instant::now() + Duration::from_millis(100);
        assert_eq!(connection.signal(deadline).unwrap(), [Value::Uint32(7)]);
        // Nothing more arrives, and the other end is closed.
        assert!(connection.signal(deadline).is_err());
    }

    #[test]
    fn what_nobody_waits_for_may_be_anything() {
        // Of an unknown type; with invalid fields; with a body that does not match its signature.
        let mut bytes = message::tests::other();
        let mut broken = message::tests::signal(PLACE, "done", &[Value::Byte(1)]);
        broken.get_mut(16..24).unwrap().fill(0xff);
        bytes.extend(broken);
        let nested = Value::Variant(Box::new(Value::Struct(vec![Value::Byte(1)])));
        bytes.extend(message::tests::signal(PLACE, "other", &[nested]));
        bytes.extend(message::tests::answer(1, &[Value::Uint32(3)]));
        assert_eq!(called(bytes).unwrap().0, [Value::Uint32(3)]);
    }

    #[test]
    fn a_signal_of_somebody_else_is_not_the_one() {
        let elsewhere = BusObject { object: "/a/c", ..PLACE };
        let mut bytes = message::tests::signal_from(Some(":1.66"), PLACE, "done", &[Value::Uint32(1)]);
        bytes.extend(message::tests::signal(elsewhere, "done", &[Value::Uint32(2)]));
        bytes.extend(message::tests::answer(1, &[]));
        bytes.extend(message::tests::signal_from(Some(":1.66"), PLACE, "done", &[Value::Uint32(3)]));
        bytes.extend(message::tests::signal(PLACE, "done", &[Value::Uint32(4)]));
        let (_, mut connection) = called(bytes).unwrap();
        let deadline = Instant::now() + Duration::from_millis(100);
        assert_eq!(connection.signal(deadline).unwrap(), [Value::Uint32(4)]);
    }

    #[test]
    fn no_more_signals_are_kept_than_one_can_wait_for() {
        let mut bytes = Vec::new();
        for number in 0..1100 {
            bytes.extend(message::tests::signal(PLACE, "done", &[Value::Uint32(number)]));
            bytes.extend(message::tests::signal(PLACE, "other", &[]));
        }
        bytes.extend(message::tests::signal(PLACE, "done", &[Value::Text("x".repeat(10_000))]));
        bytes.extend(message::tests::answer(1, &[]));
        let (_, connection) = called(bytes).unwrap();
        assert_eq!(connection.signals.len(), SIGNALS);
    }

    #[test]
    fn a_refusal_says_its_kind_and_its_text() {
        let error = called(message::tests::refusal(1, "a.b.No", "not today")).unwrap_err();
        assert_eq!(error.to_string(), "a.b.No: not today");
        assert_eq!(error.downcast_ref::<Refused>().unwrap().name, "a.b.No");
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for_longer_than_the_deadline() {
        let error = called(Vec::new()).unwrap_err();
        assert!(error.is::<TimedOut>(), "{error:?}");
    }

    #[test]
    fn who_has_something_else_to_do_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let (interrupt, other) = UnixStream::pair().unwrap();
        (&other).write_all(b"x").unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let error = Connection::direct(&Address::of(&path), Some(interrupt.into()), deadline).unwrap_err();
        assert!(error.is::<Interrupted>(), "{error:?}");
    }

    #[test]
    fn a_message_that_makes_no_sense_is_an_error() {
        for bytes in [
            vec![0; 64],
            vec![0xff; 64],
            b"l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00".to_vec(),
        ] {
            let error = called(bytes).unwrap_err();
            assert!(error.to_string().starts_with("decode a message"), "{error:?}");
        }
    }
}
