//! The program `runtime`: checks what the caller gave it, dispatches the command, and reports errors. Nothing
//! else prints an error.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use runtime::sys::alloc::Arena;
use runtime::sys::weakened;
use runtime::{Call, Failure, Parsed, caller};

#[global_allocator]
static MEMORY: Arena = Arena::new();

fn main() -> ExitCode {
    perform().unwrap_or_else(report)
}

fn perform() -> Result<ExitCode, Failure> {
    caller::check_rights()?;
    match caller::has_enough_stack() {
        true => dispatch(),
        false => caller::on_larger_stack(dispatch)?,
    }
}

fn dispatch() -> Result<ExitCode, Failure> {
    // Runs before any init process can call it.
    weakened::is_off("");
    match Call::read(&std::env::args_os().collect::<Vec<OsString>>())? {
        Parsed::Text(text) => print(&text),
        Parsed::Command(call) => call.action.run(&call.context).map_err(|error| call.failure(error)),
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map(|()| ExitCode::SUCCESS).map_err(Failure::of_output)
}

fn report(Failure { help, text, status }: Failure) -> ExitCode {
    let unprinted = help.and_then(|help| print(&help).err()).map(|failure| failure.text + "\n");
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{}{text}", unprinted.unwrap_or_default());
    ExitCode::from(status)
}
