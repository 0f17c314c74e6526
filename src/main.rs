//! The program `runtime`: the command line of the library beside it.

use std::process::ExitCode;

use runtime::sys::alloc::Arena;

#[global_allocator]
static MEMORY: Arena = Arena::new();

fn main() -> ExitCode {
    runtime::main()
}
