//! The program `runtime`: its memory, its rights, its stack, and the one place that reports an error.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use runtime::sys::alloc::Arena;
use runtime::sys::weakened;
use runtime::{Failure, caller, dispatch};

#[global_allocator]
static MEMORY: Arena = Arena::new();

fn main() -> ExitCode {
    let ended = caller::check_rights().and_then(|()| caller::with_enough_stack(perform));
    match ended.map_err(Failure::from).and_then(|ended| ended) {
        Ok(status) => status,
        Err(Failure { text, status }) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
            ExitCode::from(status)
        }
    }
}

fn perform() -> Result<ExitCode, Failure> {
    // Before there is an init process that asks.
    weakened::is_off("");
    dispatch(&std::env::args_os().collect::<Vec<OsString>>())
}
