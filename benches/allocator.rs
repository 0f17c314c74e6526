//! What the allocator of src/sys/alloc.rs saves: starts commands with it and with the system's, in turns.
//!
//! `cargo bench --bench allocator --target x86_64-unknown-linux-musl -- [TIMES]`; releases are built for musl. This program is the
//! runtime, too: called `arena` or `system`, it does what the command line says with that allocator.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "an allocator is unsafe; this one only chooses"
)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runtime::sys::alloc::Arena;
use runtime::{Call, Failure, Parsed};
use serde_json::{Value, json};

static ARENA: Arena = Arena::new();
static USE_ARENA: AtomicBool = AtomicBool::new(false);

struct Chosen;

unsafe impl GlobalAlloc for Chosen {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match USE_ARENA.load(Ordering::Relaxed) {
            true => unsafe { ARENA.alloc(layout) },
            false => unsafe { System.alloc(layout) },
        }
    }

    // The arena knows what is not its own.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match USE_ARENA.load(Ordering::Relaxed) {
            true => unsafe { ARENA.dealloc(pointer, layout) },
            false => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match USE_ARENA.load(Ordering::Relaxed) {
            true => unsafe { ARENA.realloc(pointer, layout, size) },
            false => unsafe { System.realloc(pointer, layout, size) },
        }
    }
}

#[global_allocator]
static MEMORY: Chosen = Chosen;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    USE_ARENA.store(called == "arena", Ordering::Relaxed);
    if called == "arena" || called == "system" {
        let words: Vec<OsString> = std::env::args_os().collect();
        return perform(&words).unwrap_or_else(|failure| {
            let _ = writeln!(std::io::stderr(), "{}", failure.text);
            ExitCode::from(failure.status)
        });
    }
    compare();
    ExitCode::SUCCESS
}

/// As main.rs does.
fn perform(words: &[OsString]) -> Result<ExitCode, Failure> {
    match Call::read(words)? {
        Parsed::Text(text) => {
            let written = std::io::stdout().write_all(text.as_bytes());
            written.map(|()| ExitCode::SUCCESS).map_err(Failure::of_output)
        }
        Parsed::Command(call) => call.action.run(&call.context).map_err(|error| call.failure(error)),
    }
}

fn compare() {
    let times = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1000);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    record_a_container(directory);
    make_a_bundle(directory);
    let root = ["--root", directory.to_str().unwrap()];
    println!("medians of {times} starts each, in turns");
    println!("{:34} {:>10} {:>10} {:>8}", "", "arena", "system", "saved");
    for (name, words, says) in [
        ("--version", &["--version"][..], "runtime"),
        ("state", &[&root[..], &["state", "c"]].concat(), "\"stopped\""),
        ("list", &[&root[..], &["list"]].concat(), "stopped"),
        // All of preflight: config.json is read and planned, and then there is no such namespace.
        (
            "run, up to the plan",
            &[&root[..], &["run", "-b", directory.to_str().unwrap(), "new"]].concat(),
            "/none",
        ),
    ] {
        for allocator in ["arena", "system"] {
            let output = command(allocator, words).output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(said.contains(says), "{words:?}: {said}");
        }
        let mut took = [Vec::new(), Vec::new()];
        for turn in 0..2 * times {
            // The one that comes first changes.
            let which = usize::from(turn % 2 == turn / 2 % 2);
            let mut command = command(["arena", "system"][which], words);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let start = Instant::now();
            command.status().unwrap();
            took[which].push(start.elapsed());
        }
        let [arena, system] = took.map(|mut took: Vec<Duration>| {
            took.sort();
            took[took.len() / 2].as_secs_f64() * 1e6
        });
        println!("{name:34} {arena:7.0} µs {system:7.0} µs {:6.1} %", (1.0 - arena / system) * 100.0);
    }
}

fn command(allocator: &str, words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(allocator).args(words);
    command
}

/// One that has stopped.
fn record_a_container(root: &Path) {
    let state = json!({
        "id": "c", "init_process_pid": 0, "init_process_start": 1, "created": "2026-01-01T00:00:00Z", "ociVersion": "1.3.0",
        "bundle": "/b", "rootfs": "/b/rootfs", "annotations": {"org.example": "value"}, "owner": 0, "rootless": false,
        "cgroup_manager": "cgroupfs", "cgroup_paths": {"": "/sys/fs/cgroup/none"}, "namespace_paths": {},
        "private_pid_namespace": true, "config": {"rootfs": "/b/rootfs", "labels": ["bundle=/b"]},
    });
    fs::create_dir(root.join("c")).unwrap();
    fs::write(root.join("c/state.json"), state.to_string()).unwrap();
}

/// Podman's, but for a rootfs that is there, and a network namespace that is not.
fn make_a_bundle(bundle: &Path) {
    let fixture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clients/podman-run-ro-tmpfs-vol-config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(fixture).unwrap()).unwrap();
    config["root"]["path"] = "rootfs".into();
    config["hooks"] = Value::Null;
    for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = "/none".into();
        }
    }
    fs::create_dir(bundle.join("rootfs")).unwrap();
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
}
