//! Runs each fuzz target of the library over the inputs in the repository, and over so many made from them;
//! `fuzz/README.md`.
//!
//! The inputs are the same every time, and no clock is looked at. `FUZZ_COUNT` is how many are made for each
//! target, `FUZZ_SEED` a number that makes others. An input that breaks a promise is left in
//! `target/fuzz/TARGET`, and its test fails.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, panic};

use libtest_mimic::{Arguments, Failed, Trial};
use runtime::fuzzing::{Dice as _, Form, FuzzTarget, TARGETS, Xorshift, mutation};

/// How many inputs are made for each target: ten seconds of work for all of them, in a debug build. JSON
/// takes longest.
const COUNT: u64 = 4_000;
const COUNT_OF_JSON: u64 = 500;

fn main() -> ExitCode {
    // What a panic says is the report of its test.
    panic::set_hook(Box::new(|_| {}));
    let trials = TARGETS
        .iter()
        .map(|target| Trial::test(format!("{}_keeps_its_promises", target.name), move || fuzz(target)));
    let packaged = Trial::test("each_target_has_its_file", each_target_has_its_file);
    libtest_mimic::run(&Arguments::from_args(), trials.chain([packaged]).collect()).exit_code()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

/// Those files whose names end so, sorted.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_str().is_some_and(|name| name.ends_with(ending)));
    files.sort();
    files
}

fn fuzz(target: &FuzzTarget) -> Result<(), Failed> {
    let own = files(&format!("fuzz/corpus/{}", target.name), "");
    let clients = target.clients.map(|ending| files("tests/fixtures/clients", ending)).unwrap_or_default();
    let inputs: Vec<_> = own.iter().chain(&clients).map(|file| fs::read(file).unwrap()).collect();
    if inputs.is_empty() {
        return Err(format!("fuzz/corpus/{} has no inputs", target.name).into());
    }
    for (input, file) in inputs.iter().zip(own.iter().chain(&clients)) {
        run(target, input).map_err(|why| Failed::from(format!("{}: {why}", file.display())))?;
    }
    // Not 0, from which nothing else comes; and another row of numbers for each target.
    let seed = number("FUZZ_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15);
    let mut dice =
        Xorshift(target.name.bytes().fold(seed, |seed, byte| seed.rotate_left(7) ^ u64::from(byte)).max(1));
    let usual = if target.form == Form::Json { COUNT_OF_JSON } else { COUNT };
    for _ in 0..number("FUZZ_COUNT").unwrap_or(usual) {
        let [one, other] = [(); 2].map(|()| &inputs[dice.index(inputs.len())]);
        let input = mutation::mutated(one, other, target.form, &mut dice);
        run(target, &input).map_err(|why| {
            let kept = keep(target, &input);
            Failed::from(format!("{}: {why}", kept.display()))
        })?;
    }
    Ok(())
}

fn run(target: &FuzzTarget, input: &[u8]) -> Result<(), String> {
    panic::catch_unwind(|| (target.run)(input)).map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic", |text| text).to_owned(),
    })
}

/// Leaves `input` where it can be looked at, and copied into the corpus.
fn keep(target: &FuzzTarget, input: &[u8]) -> PathBuf {
    let directory = Path::new("target/fuzz").join(target.name);
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("broken-promise");
    fs::write(&file, input).unwrap();
    file
}

/// What cargo-fuzz is given is what this program runs.
fn each_target_has_its_file() -> Result<(), Failed> {
    let mut names: Vec<_> = TARGETS.iter().map(|target| format!("{}.rs", target.name)).collect();
    names.sort();
    let files = files("fuzz/fuzz_targets", ".rs");
    let found: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(found, names);
    let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
    for FuzzTarget { name, .. } in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
    }
    Ok(())
}
