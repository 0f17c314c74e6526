//! Running a function on a larger stack: the initial one cannot grow beyond RLIMIT_STACK.

use std::ptr;

use rustix::io::Errno;

/// The function to call, and its result.
struct Call<R> {
    function: fn() -> R,
    result: Option<R>,
}

extern "C" fn enter<R>(call: *mut Call<R>) {
    // SAFETY: `on_stack_of` passes the address of its own variable, which lives until this returns and is not
    // used by anything else meanwhile.
    let call = unsafe { &mut *call };
    call.result = Some((call.function)());
}

/// Calls `function` on a stack of `size` bytes, a multiple of 64 KiB, which is never freed. Changes no
/// resource limit.
///
/// # Errors
/// `ENOMEM`; `ENOSYS` on unsupported architectures.
pub fn on_stack_of<R>(size: usize, function: fn() -> R) -> Result<R, Errno> {
    /// The inaccessible guard area below the stack, as large as the largest page size.
    const GUARD: usize = 64 << 10;
    // SAFETY: a new mapping at an address chosen by the kernel replaces nothing.
    let bottom = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size + GUARD,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if bottom == libc::MAP_FAILED {
        return Err(Errno::NOMEM);
    }
    let usable = bottom.wrapping_byte_add(GUARD);
    // SAFETY: these are the upper `size` bytes of the new mapping, which nothing uses yet.
    if unsafe { libc::mprotect(usable, size, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
        return Err(Errno::NOMEM);
    }
    let mut call = Call { function, result: None };
    switch(usable.wrapping_byte_add(size).cast(), enter::<R>, &raw mut call)?;
    call.result.ok_or(Errno::NOSYS)
}

#[cfg(target_arch = "x86_64")]
fn switch<T>(top: *mut u8, function: extern "C" fn(*mut T), argument: *mut T) -> Result<(), Errno> {
    // SAFETY: `top` is the end of mapped memory that contains nothing else, and is aligned to 16 bytes, as
    // the System V ABI requires before a call. The function preserves r12, which holds the old stack pointer
    // meanwhile, and may clobber what a C function may. It does not unwind: a panic aborts the process at an
    // `extern "C"` function.
    unsafe {
        std::arch::asm!(
            "xchg rsp, r12",
            "call {function}",
            "mov rsp, r12",
            function = in(reg) function,
            inout("r12") top => _,
            in("rdi") argument,
            clobber_abi("C"),
        );
    }
    Ok(())
}

#[cfg(target_arch = "aarch64")]
fn switch<T>(top: *mut u8, function: extern "C" fn(*mut T), argument: *mut T) -> Result<(), Errno> {
    // SAFETY: as above; AAPCS64 requires 16 bytes, too, and the function preserves x21.
    unsafe {
        std::arch::asm!(
            "mov x21, sp",
            "mov sp, x20",
            "blr {function}",
            "mov sp, x21",
            function = in(reg) function,
            in("x20") top,
            out("x21") _,
            in("x0") argument,
            clobber_abi("C"),
        );
    }
    Ok(())
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn switch<T>(_: *mut u8, _: extern "C" fn(*mut T), _: *mut T) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses somewhat more than `depth` KiB of stack.
    fn sum(depth: u64) -> u64 {
        let filled = std::hint::black_box([depth; 128]);
        if depth == 0 { 0 } else { filled.iter().rev().take(1).sum::<u64>() + sum(depth - 1) }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows neither PROT_NONE nor assembly")]
    fn a_function_has_as_much_stack_as_was_asked_for() {
        let outcome = on_stack_of(16 << 20, || sum(5_000).to_string());
        assert_eq!(outcome.unwrap(), (5_000_u64 * 5_001 / 2).to_string());
    }
}
