//! Consoles: `terminal: true`, console sockets, window sizes.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, openpt, ptsname};
use serde_json::{Value, json};

use crate::support::bundle::bind;
use crate::support::container::NO_OPTIONS;
use crate::support::host::{is_own, need, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::wait::wait_to_read;
use crate::support::{Container, Invocation, Outcome};

suite![
    a_terminal_session_under_script_looks_like_a_terminal,
    a_terminal_session_gives_back_the_exit_status,
    a_terminal_session_relays_what_is_typed,
    a_terminal_session_takes_the_size_of_the_window,
    a_descriptor_of_the_process_goes_to_the_pidfd_socket,
    the_console_goes_to_the_console_socket,
    the_console_of_create_and_start_works_both_ways,
    the_console_size_of_the_config_is_set,
    the_console_belongs_to_the_user,
    the_console_is_the_users_in_a_user_namespace_too,
    dev_console_is_the_terminal,
    the_process_controls_its_terminal,
    a_terminal_without_a_console_socket_is_refused_when_detached,
    a_console_socket_without_a_terminal_is_refused,
    a_console_socket_that_is_not_there_fails,
    an_interrupt_typed_at_the_terminal_reaches_the_process,
    the_output_of_a_terminal_session_has_no_carriage_returns,
    a_program_finds_the_size_of_the_window_when_it_begins,
    a_terminal_with_a_long_number_works,
];

fn with_terminal(script: &str) -> Container {
    Container::with_script(script).edit(|spec| spec["process"]["terminal"] = json!(true))
}

/// `run` of the container under script(1), with this on its standard input; returns status and output.
fn under_script(container: &Container, input: &str, size: &str) -> (i32, String) {
    let words: Vec<_> = container.run_with(NO_OPTIONS).words();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let typed = container.beside("typed");
    fs::write(&typed, input).unwrap();
    let output = Invocation::new("script")
        .args(["--quiet", "--return", "--echo", "never", "--command"])
        .arg(format!("{size}{}", quoted.join(" ")))
        .arg(container.beside("typescript"))
        .stdin(File::open(typed).unwrap())
        .output();
    (output.code(), output.stdout.replace('\r', ""))
}

/// A console socket that waits for its one message.
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: std::path::PathBuf,
}

impl ConsoleSocket {
    pub fn beside(container: &Container) -> Self {
        let path = container.beside("console.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    /// The terminal, and the name that came with it.
    pub fn receive(&self) -> (File, String) {
        let (terminal, name) = receive_descriptor(&self.listener);
        (File::from(terminal), name)
    }
}

/// The one descriptor that comes through this socket, and the text beside it.
pub fn receive_descriptor(listener: &UnixListener) -> (OwnedFd, String) {
    wait_to_read("the runtime connects to the socket", listener);
    let (connection, _) = listener.accept().unwrap();
    wait_to_read("a descriptor comes through the socket", &connection);
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(&connection, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .unwrap();
    let mut received: Vec<_> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(received.len(), 1, "exactly one descriptor");
    (received.remove(0), String::from_utf8_lossy(&text[..message.bytes]).into_owned())
}

/// Reads until the other end of the terminal is closed, which the master sees as EIO.
pub fn read_all(terminal: &File) -> String {
    read_until(terminal, |_| false)
}

/// Reads until this holds for what has been read, or the other end is closed.
fn read_until(mut terminal: &File, is_enough: impl Fn(&str) -> bool) -> String {
    let mut said = String::new();
    let mut buffer = [0; 1024];
    while !is_enough(&said) {
        wait_to_read("something comes from the terminal, or its end", terminal);
        match terminal.read(&mut buffer) {
            Ok(length) if length > 0 => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
            _ => break,
        }
    }
    said.replace('\r', "")
}

fn a_terminal_session_under_script_looks_like_a_terminal() -> Outcome {
    need_program("script")?;
    let container = with_terminal("tty; test -t 0 && test -t 1 && test -t 2 && echo all three");
    let (code, said) = under_script(&container, "", "");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("/dev/pts/0") || said.contains("/dev/console"), "{said:?}");
    assert!(said.contains("all three"), "{said:?}");
    container.leaves_nothing();
    Ok(())
}

fn a_terminal_session_gives_back_the_exit_status() -> Outcome {
    need_program("script")?;
    let container = with_terminal("exit 7");
    let (code, said) = under_script(&container, "", "");
    assert_eq!(code, 7, "{said}");
    container.leaves_nothing();
    Ok(())
}

fn a_terminal_session_relays_what_is_typed() -> Outcome {
    need_program("script")?;
    let container = with_terminal("read line; echo \"it was: $line\"");
    let (code, said) = under_script(&container, "hello\n", "");
    assert!(said.contains("it was: hello"), "{code} {said:?}");
    Ok(())
}

fn a_terminal_session_takes_the_size_of_the_window() -> Outcome {
    need_other_than("crun", "waits until it changes")?;
    need_program("script")?;
    need_program("stty")?;
    // The size arrives with the first signal at the latest: wait for it.
    let container = with_terminal(
        "for i in $(seq 100); do [ \"$(stty size)\" = '33 77' ] && break; sleep 0.02; done; stty size",
    );
    let (code, said) = under_script(&container, "", "stty rows 33 cols 77; ");
    // The echo of what `script` types at the end can come after it.
    assert!(code == 0 && said.lines().any(|line| line.ends_with("33 77")), "{code} {said:?}");
    Ok(())
}

/// The same protocol with another descriptor.
fn a_descriptor_of_the_process_goes_to_the_pidfd_socket() -> Outcome {
    let help = Invocation::of_the_runtime().args(["create", "--help"]).output().stdout;
    need(is_own() || help.contains("--pidfd-socket"), "the option --pidfd-socket")?;
    let container = Container::idle();
    let socket = ConsoleSocket::beside(&container);
    container.create_with(["--pidfd-socket", socket.path.to_str().unwrap()]).succeeds();
    let (pidfd, text) = socket.receive();
    assert_eq!(text, "standard");
    let details = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
    let pid = details.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim();
    assert_eq!(pid, container.pid().to_string());
    container.delete_by_force();
    let nobody = Container::idle();
    let missing = nobody.beside("nobody.sock");
    nobody.create_with(["--pidfd-socket", missing.to_str().unwrap()]).fails_with("");
    if is_own() {
        nobody.leaves_nothing();
    }
    Ok(())
}

fn the_console_goes_to_the_console_socket() {
    let container = with_terminal("test -t 1 && echo hello");
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    let (terminal, name) = socket.receive();
    if need_other_than("crun", "sends a blank").is_ok() {
        assert!(name.starts_with("/dev/pt"), "{name:?}");
    }
    assert_eq!(read_all(&terminal), "hello\n");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
}

fn the_console_of_create_and_start_works_both_ways() {
    let container = with_terminal("stty -echo; echo ready; read line; echo \"got $line\"");
    let socket = ConsoleSocket::beside(&container);
    container.create_with(["--console-socket", socket.path.to_str().unwrap()]).succeeds();
    let (terminal, _) = socket.receive();
    container.start();
    (&terminal).write_all(b"typed\n").unwrap();
    let said = read_all(&terminal);
    assert!(said.contains("got typed"), "{said:?}");
}

fn the_console_size_of_the_config_is_set() {
    let container = with_terminal("stty size")
        .edit(|spec| spec["process"]["consoleSize"] = json!({ "height": 21, "width": 43 }));
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0).trim(), "21 43");
}

fn the_console_belongs_to_the_user() {
    let container = with_terminal("stat -c %u \"$(readlink /proc/self/fd/0)\"")
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0).trim(), "1000");
}

fn dev_console_is_the_terminal() {
    let container = with_terminal("test -c /dev/console && echo written >/dev/console");
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0), "written\n");
}

fn the_process_controls_its_terminal() {
    let container = with_terminal("echo by name >/dev/tty");
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0), "by name\n");
}

fn the_console_is_the_users_in_a_user_namespace_too() {
    let container = with_terminal(
        "stat -c %u \"$(readlink /proc/self/fd/0)\"; echo console >/dev/console; echo by name >/dev/tty",
    )
    .in_user_namespace()
    .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0), "1000\nconsole\nby name\n");
}

fn a_terminal_without_a_console_socket_is_refused_when_detached() -> Outcome {
    let container = with_terminal("true");
    for invocation in [container.run_with(["--detach"]), container.create_with(NO_OPTIONS)] {
        let output = invocation.output();
        assert_ne!(output.code(), 0, "{output:#?}");
        container.leaves_nothing();
        if need_other_than("crun", "has another text").is_ok() {
            let text = "cannot allocate tty if runc will detach without setting console socket";
            let text = if need_own().is_ok() { text.replace("runc", "runtime") } else { text.to_owned() };
            let either = output.stderr.contains(&text) || output.stderr.contains("console socket");
            assert!(either, "{output:#?}");
        }
    }
    Ok(())
}

fn a_console_socket_without_a_terminal_is_refused() -> Outcome {
    need_other_than("crun", "ignores it")?;
    let container = Container::new();
    let socket = ConsoleSocket::beside(&container);
    let run = container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]);
    run.fails_with("console socket");
    container.leaves_nothing();
    Ok(())
}

fn a_console_socket_that_is_not_there_fails() {
    let container = with_terminal("true");
    let missing = container.beside("missing.sock");
    let run = container.run_with(["--detach", "--console-socket", missing.to_str().unwrap()]);
    run.fails_with_any_case("no such file or directory");
    container.leaves_nothing();
}

fn an_interrupt_typed_at_the_terminal_reaches_the_process() {
    let container =
        with_terminal("trap 'echo interrupted; exit 0' INT; echo ready; while :; do sleep 0.02; done");
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    let (mut terminal, _) = socket.receive();
    assert!(read_until(&terminal, |said| said.contains("ready")).contains("ready"));
    terminal.write_all(b"\x03").unwrap();
    assert!(read_all(&terminal).contains("interrupted"));
}

/// The terminal is set up before the program begins: nothing it writes first is changed on the way.
fn the_output_of_a_terminal_session_has_no_carriage_returns() -> Outcome {
    need_own()?;
    let container = with_terminal("echo one; echo two");
    for _ in 0..30 {
        assert_eq!(container.run_with(NO_OPTIONS).succeeds().stdout, "one\ntwo\n");
    }
    container.leaves_nothing();
    Ok(())
}

fn a_program_finds_the_size_of_the_window_when_it_begins() -> Outcome {
    need_own()?;
    need_program("script")?;
    need_program("stty")?;
    let container = with_terminal("stty size");
    for _ in 0..15 {
        let (code, said) = under_script(&container, "", "stty rows 33 cols 77; ");
        // script's own input has ended, which it types as a NUL.
        assert_eq!((code, said.replace("^@", "").trim()), (0, "33 77"), "{said:?}");
    }
    container.leaves_nothing();
    Ok(())
}

/// The name of such a terminal is as long as a message of the init process, which it once was taken for.
fn a_terminal_with_a_long_number_works() -> Outcome {
    // The others want a terminal of the caller as well.
    need_own()?;
    let with_terminals_of_the_host = |script: &str| {
        with_terminal(script).edit(|spec| {
            let pts = |mount: &&mut Value| mount["destination"] == "/dev/pts";
            let pts = spec["mounts"].as_array_mut().unwrap().iter_mut().find(pts).unwrap();
            *pts = bind("/dev/pts".as_ref(), "/dev/pts", &["rbind"]);
        })
    };
    let mut taken = Vec::new();
    let is_long =
        |master: &OwnedFd| ptsname(master, Vec::new()).unwrap().as_bytes().len() >= "/dev/pts/100".len();
    while !taken.last().is_some_and(is_long) {
        taken.push(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    }

    let container = with_terminals_of_the_host("test -t 0 && echo hello");
    let output = container.run();
    assert_eq!((output.code(), output.stdout.trim_end()), (0, "hello"), "{output:#?}");
    container.leaves_nothing();

    let container = with_terminals_of_the_host("test -t 0 && echo hello");
    let socket = ConsoleSocket::beside(&container);
    container.run_with(["--detach", "--console-socket", socket.path.to_str().unwrap()]).succeeds();
    assert_eq!(read_all(&socket.receive().0), "hello\n");
    container.wait_for("stopped");
    container.delete();
    container.leaves_nothing();
    Ok(())
}
