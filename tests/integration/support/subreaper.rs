//! A process that orphans are reparented to and that never reaps them, like `sleep infinity` as process 1 of
//! a CI container. It is the test program itself, run with [`OPTION`] as its first argument.

use std::process::{Command, ExitCode};
use std::{env, thread};

use super::Invocation;
use super::process::Running;

const OPTION: &str = "--idle-subreaper";

/// Runs `call` as a child of such a process; it must succeed. Returns the subreaper.
#[track_caller]
pub fn run_under_idle_subreaper(call: &Invocation) -> Running {
    let subreaper = Invocation::new(env::current_exe().unwrap()).arg(OPTION).args(call.words()).spawn();
    subreaper.wait_for_stdout("succeeded");
    subreaper
}

/// The subreaper, if this process is to be it.
#[allow(clippy::print_stdout, reason = "it speaks to the test")]
pub fn main() -> Option<ExitCode> {
    let mut words = env::args().skip(1);
    if words.next()? != OPTION {
        return None;
    }
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
    let status = Command::new(words.next()?).args(words).status().unwrap();
    if !status.success() {
        return Some(ExitCode::FAILURE);
    }
    println!("succeeded");
    loop {
        thread::park();
    }
}
