//! A fake peer for tests: it answers calls as told, or not at all.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use super::message::tests::{answer, refusal, signal};
use super::message::{HEADER, Header, Message};
use super::{Address, BusObject, Value};

/// A call received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub object: String,
    pub member: String,
    /// The encoded arguments.
    pub body: Vec<u8>,
}

/// What to send after a call.
#[derive(Debug)]
pub enum Reply {
    Answer(Vec<Value>),
    /// The error's name and text.
    Refusal(String, String),
    Signal(BusObject<'static>, &'static str, Vec<Value>),
}

/// A server that listens until it is dropped.
#[derive(Debug)]
pub struct Fake {
    pub address: Address,
    calls: Arc<Mutex<Vec<Call>>>,
    _directory: tempfile::TempDir,
}

impl Fake {
    /// Listens at a path that ends in `path`. If `replies` returns nothing for the pseudo-call `greeting`,
    /// clients are not authenticated.
    pub fn start(path: &str, mut replies: impl FnMut(&Call) -> Vec<Reply> + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&calls);
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                // Fails when the client disconnects.
                let _ = serve(&stream.unwrap(), &heard, &mut replies);
            }
        });
        Self { address: Address::of(&path), calls, _directory: directory }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub fn members(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.member).collect()
    }
}

fn serve(
    mut stream: &UnixStream,
    heard: &Mutex<Vec<Call>>,
    replies: &mut impl FnMut(&Call) -> Vec<Reply>,
) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "BEGIN\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let greeting = Call { object: String::new(), member: "greeting".into(), body: Vec::new() };
    if !replies(&greeting).is_empty() {
        stream.write_all(b"DATA\r\nOK 0123\r\n")?;
    }
    loop {
        let mut start = [0; HEADER];
        reader.read_exact(&mut start)?;
        let header = Header::decode(&start)?;
        let mut rest = vec![0; header.length().unwrap()];
        reader.read_exact(&mut rest)?;
        let [.., a, b, c, d, _, _, _, _] = start;
        let serial = u32::from_ne_bytes([a, b, c, d]);
        let call = Message::decode(&header, &rest)?.into_call();
        heard.lock().unwrap().push(call.clone());
        for reply in replies(&call) {
            stream.write_all(&match reply {
                Reply::Answer(values) => answer(serial, &values),
                Reply::Refusal(kind, text) => refusal(serial, &kind, &text),
                Reply::Signal(place, member, values) => signal(place, member, &values),
            })?;
        }
    }
}
