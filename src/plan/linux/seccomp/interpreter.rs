//! An interpreter for classic BPF programs, for tests and fuzz targets.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests and fuzz targets fail by panicking")]

use super::bpf::{AND, ANSWER, EQUAL, GREATER, GREATER_OR_EQUAL, JUMP, LOAD};
use crate::sys::seccomp::Instruction;

/// `BPF_JSET`, which libseccomp does not use but runc does.
const ANY_BIT: u16 = 0x45;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub number: u32,
    pub architecture: u32,
    pub arguments: [u64; 6],
}

/// Returns the answer and the number of instructions executed.
pub fn run(program: &[Instruction], question: &Question) -> (u32, usize) {
    let (mut loaded, mut place, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, yes, no, number } = program[place];
        steps += 1;
        let skip = |holds: bool| usize::from(if holds { yes } else { no });
        place += 1 + match code {
            LOAD => {
                loaded = word(question, number);
                0
            }
            AND => {
                loaded &= number;
                0
            }
            JUMP => usize::try_from(number).unwrap(),
            EQUAL => skip(loaded == number),
            GREATER => skip(loaded > number),
            GREATER_OR_EQUAL => skip(loaded >= number),
            ANY_BIT => skip(loaded & number != 0),
            ANSWER => return (number, steps),
            _ => panic!("operation {code:#x}"),
        };
    }
}

fn word(question: &Question, offset: u32) -> u32 {
    let half = |whole: u64, which: u32| u32::try_from(whole >> (32 * which) & 0xffff_ffff).unwrap();
    match offset {
        0 => question.number,
        4 => question.architecture,
        // The instruction pointer, which profiles cannot test.
        8 | 12 => 0,
        _ => half(question.arguments[usize::try_from((offset - 16) / 8).unwrap()], offset / 4 % 2),
    }
}

/// The kernel's checks of a program: `bpf_check_classic`, `seccomp_check_filter`.
pub fn is_acceptable(program: &[Instruction]) -> bool {
    let ahead = |place: usize, skip: usize| place + skip + 1 < program.len();
    let is_fine = |(place, instruction): (usize, &Instruction)| match instruction.code {
        LOAD => instruction.number % 4 == 0 && instruction.number < 64,
        AND | ANSWER => true,
        JUMP => ahead(place, usize::try_from(instruction.number).unwrap()),
        EQUAL | GREATER | GREATER_OR_EQUAL | ANY_BIT => {
            ahead(place, instruction.yes.into()) && ahead(place, instruction.no.into())
        }
        _ => false,
    };
    (1..=4096).contains(&program.len())
        && program.last().is_some_and(|last| last.code == ANSWER)
        && program.iter().enumerate().all(is_fine)
}
