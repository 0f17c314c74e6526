// Lets User Mode Linux run on processors with AMX. Loaded into it with LD_PRELOAD by vm-quick.
//
// User Mode Linux, up to 6.12 at least, keeps the floating point state of a guest process in a buffer of 2696 bytes:
// all there was up to AVX-512 and protection keys. AMX makes the state four times as large, and PTRACE_SETREGSET takes
// a state whole or not at all, so the guest would die of its first return to user space. Nothing in the guest can use
// AMX (its kernel does not hand out the permission): what is missing from the buffer is in its initial state, which an
// XSAVE area expresses by a clear bit in its header.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

enum { HEADER = 512 /* where XSTATE_BV is */, LARGEST = 16384 };
static const uint64_t AMX_TILES = UINT64_C(3) << 17;

// Callers are on kernel stacks of a few KiB, too small for `whole` and for the dynamic linker. One thread is enough:
// the guest has one processor.
static char whole[LARGEST] __attribute__((aligned(64)));
static long (*next)(int, ...);

__attribute__((constructor)) static void find_next(void) { next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace"); }

long ptrace(enum __ptrace_request request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *pid = va_arg(arguments, void *); // the kernel's own width: the callers' types differ
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    const struct iovec *given = data;
    if (request != PTRACE_SETREGSET || address != (void *)NT_X86_XSTATE || given->iov_len < HEADER + sizeof(uint64_t)
        || given->iov_len > LARGEST)
        return next(request, pid, address, data);

    // The kernel cuts a longer buffer to the size of its own. What follows the copy is zero from the start: User Mode
    // Linux has but one size.
    memcpy(whole, given->iov_base, given->iov_len);
    uint64_t in_use;
    memcpy(&in_use, whole + HEADER, sizeof in_use);
    in_use &= ~AMX_TILES;
    memcpy(whole + HEADER, &in_use, sizeof in_use);
    struct iovec enlarged = {.iov_base = whole, .iov_len = sizeof whole};
    return next(request, pid, address, &enlarged);
}
