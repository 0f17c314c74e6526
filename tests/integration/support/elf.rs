//! Programs of a few instructions, which make one system call and nothing else that a filter would have to allow.

/// How the program reaches the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// As programs of the machine's own architecture do.
    Own,
    /// As programs for i386 do on x86_64: `int 0x80`.
    I386,
}

/// Where the program lies in memory, its headers first.
pub const BASE: u64 = 0x40_0000;

/// A static program for x86_64: makes system call `number`, then exits (by exit(2)) with the errno, or with the negated
/// result if there was none.
pub fn calling(gate: Gate, number: u32, arguments: [u64; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    match gate {
        Gate::Own => {
            // mov rdi, …; mov rsi, …; mov rdx, …; mov eax, …; syscall
            for (register, argument) in [0xbf_u8, 0xbe, 0xba].into_iter().zip(arguments) {
                code.extend([0x48, register]);
                code.extend(argument.to_le_bytes());
            }
            code.push(0xb8);
            code.extend(number.to_le_bytes());
            code.extend([0x0f, 0x05]);
        }
        Gate::I386 => {
            // mov ebx, …; mov ecx, …; mov edx, …; mov eax, …; int 0x80
            for (register, argument) in [0xbb_u8, 0xb9, 0xba].into_iter().zip(arguments) {
                code.push(register);
                code.extend(u32::try_from(argument).unwrap().to_le_bytes());
            }
            code.push(0xb8);
            code.extend(number.to_le_bytes());
            code.extend([0xcd, 0x80]);
        }
    }
    // neg eax; mov edi, eax; mov eax, 60; syscall
    code.extend([0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    program(&code)
}

/// An ELF file with one segment: both headers and the code behind them; elf(5).
fn program(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, EV_CURRENT
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    // No flags; sizes and numbers of the headers.
    for half in [0_u16, 0, 64, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = HEADERS + u64::try_from(code.len()).unwrap();
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Whether such a program runs on this machine.
pub const fn runs_here() -> bool {
    cfg!(target_arch = "x86_64")
}
