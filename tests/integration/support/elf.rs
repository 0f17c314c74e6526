//! Minimal ELF programs: one system call and nothing else that a filter would have to allow, or a few
//! threads, which no program in the root file system has.

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
        Gate::Own => code.extend(call(number, arguments)),
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

/// Makes a system call; its result is in eax.
fn call(number: u32, arguments: [u64; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    // mov rdi, …; mov rsi, …; mov rdx, …; mov eax, …; syscall
    for (register, argument) in [0xbf_u8, 0xbe, 0xba].into_iter().zip(arguments) {
        code.extend([0x48, register]);
        code.extend(argument.to_le_bytes());
    }
    code.push(0xb8);
    code.extend(number.to_le_bytes());
    code.extend([0x0f, 0x05]);
    code
}

/// Starts a thread with this code, which must not run past its end. Both threads have the same stack, which
/// none of this code uses.
fn thread(code: &[u8]) -> Vec<u8> {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    let mut both = call(56, [flags.try_into().unwrap(), 0, 0]);
    // test eax, eax; jnz …
    both.extend([0x85, 0xc0, 0x0f, 0x85]);
    both.extend(u32::try_from(code.len()).unwrap().to_le_bytes());
    both.extend(code);
    both
}

/// pause(2), again and again.
fn forever() -> Vec<u8> {
    let mut code = call(34, [0; 3]);
    // jmp …
    code.push(0xe9);
    code.extend((-i32::try_from(code.len() + 4).unwrap()).to_le_bytes());
    code
}

/// A static program for x86_64 whose main thread ends (by exit(2)) while another goes on.
pub fn that_outlives_its_main_thread() -> Vec<u8> {
    program(&[thread(&forever()), call(60, [0; 3])].concat())
}

/// The name of the thread of [`that_executes_in_a_thread`] that executes a program.
pub const EXECUTOR: &str = "executor";

/// A static program for x86_64 with three threads: [`EXECUTOR`] opens the fifo `/tmp/go` for reading and then
/// executes `sleep 1000`; the others do nothing.
pub fn that_executes_in_a_thread() -> Vec<u8> {
    let mut data = Vec::<u8>::new();
    let mut place = |bytes: &[u8]| {
        // Behind the jump over the data.
        let address = BASE + HEADERS + 5 + u64::try_from(data.len()).unwrap();
        data.extend(bytes);
        address
    };
    let name = place(format!("{EXECUTOR}\0").as_bytes());
    let fifo = place(b"/tmp/go\0");
    let path = place(b"/bin/sleep\0");
    let (sleep, time) = (place(b"sleep\0"), place(b"1000\0"));
    let words = place(&[sleep, time, 0].map(u64::to_le_bytes).concat());
    // prctl(PR_SET_NAME), open(O_RDONLY), execve, exit
    let execute =
        [call(157, [15, name, 0]), call(2, [fifo, 0, 0]), call(59, [path, words, 0]), call(60, [0; 3])];
    // jmp …
    let mut code = vec![0xe9];
    code.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    code.extend(data);
    code.extend([thread(&forever()), thread(&execute.concat()), forever()].concat());
    program(&code)
}

/// The length of both headers of a program.
const HEADERS: u64 = 64 + 56;

/// An ELF file with one segment: both headers and the code behind them; elf(5).
fn program(code: &[u8]) -> Vec<u8> {
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
