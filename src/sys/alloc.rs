//! A bump allocator for a process that lives for a millisecond: it hands out pieces of one arena and rarely
//! reuses them.
//!
//! musl's allocator maps and unmaps pages all the time, measured at about sixty times per `run`, a tenth of
//! its run time; benches/allocator.rs compares the two. When the arena is used up, e.g. in a `run` that relays a
//! terminal for days, the system allocator takes over, which does free memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Takes no memory until it is touched; a large config.json needs a quarter of it.
const SIZE: usize = 1 << 20;

/// The global allocator.
#[derive(Debug)]
pub struct Arena {
    space: Space,
    /// The offset of the next piece.
    next: AtomicUsize,
}

#[repr(align(4096))]
#[derive(Debug)]
struct Space(UnsafeCell<[u8; SIZE]>);

// SAFETY: the bytes are handed out in pieces that do not overlap, each to one owner; nothing accesses the
// array as a whole.
unsafe impl Sync for Space {}

impl Arena {
    #[allow(clippy::new_without_default, reason = "it is for a static, and Default cannot make one")]
    pub const fn new() -> Self {
        Self { space: Space(UnsafeCell::new([0; SIZE])), next: AtomicUsize::new(0) }
    }

    fn base(&self) -> *mut u8 {
        self.space.0.get().cast()
    }

    /// Returns the offset of `pointer` in the arena, if it is in there.
    fn place(&self, pointer: *mut u8) -> Option<usize> {
        (pointer as usize).checked_sub(self.base() as usize).filter(|place| *place < SIZE)
    }

    fn cut(&self, layout: Layout) -> Option<usize> {
        // The arena is page-aligned, so alignments up to a page are possible.
        let mask = layout.align().checked_sub(1).filter(|mask| *mask < 4096)?;
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let start = next.checked_add(mask)? & !mask;
            let end = start.checked_add(layout.size()).filter(|end| *end <= SIZE)?;
            match self.next.compare_exchange_weak(next, end, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(start),
                Err(now) => next = now,
            }
        }
    }

    /// Moves the end of the last piece from `end` to `new_end`; returns false if another piece has been added
    /// after it.
    fn move_end(&self, end: usize, new_end: usize) -> bool {
        new_end <= SIZE
            && self.next.compare_exchange(end, new_end, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: a piece has the requested size and alignment, and is handed out once until it is freed as the last
// one; everything else comes from the system allocator.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.cut(layout) {
            // SAFETY: `start` is inside the arena.
            Some(start) => unsafe { self.base().add(start) },
            // SAFETY: the caller guarantees a valid `layout`.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.place(pointer) {
            Some(start) => drop(self.move_end(start + layout.size(), start)),
            // SAFETY: it is not in the arena, so it comes from the system allocator, with this layout.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(start) = self.place(pointer) else {
            // SAFETY: it is not in the arena, so it comes from the system allocator, with this layout.
            return unsafe { System.realloc(pointer, layout, new_size) };
        };
        if let Some(new_end) = start.checked_add(new_size) {
            if self.move_end(start + layout.size(), new_end) || new_size <= layout.size() {
                return pointer;
            }
        }
        // SAFETY: the caller guarantees that the new size does not overflow when rounded up to the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: `new_layout` has the caller's alignment and new size.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both are valid for the smaller of the two sizes, and a new piece does not overlap an
            // old one.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, layout.size().min(new_size)) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_apart_and_the_last_one_is_taken_back() {
        static ARENA: Arena = Arena::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        let a = ARENA.cut(layout(3, 1)).unwrap();
        let b = ARENA.cut(layout(8, 64)).unwrap();
        assert_eq!((a, b % 64), (0, 0));
        assert!(ARENA.move_end(b + 8, b));
        assert_eq!(ARENA.cut(layout(1, 1)), Some(b));
        assert!(!ARENA.move_end(a + 3, a));
    }

    #[test]
    fn what_does_not_fit_is_the_systems() {
        static ARENA: Arena = Arena::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        assert_eq!(ARENA.cut(layout(SIZE + 1)), None);
        assert_eq!(ARENA.cut(layout(SIZE)), Some(0));
        assert_eq!(ARENA.cut(layout(1)), None);
    }

    /// An allocation of the test: its address, and the byte it is filled with.
    struct Piece {
        start: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Piece {
        fn fill(&self) {
            // SAFETY: the piece is `layout.size()` bytes long, and owned by this test.
            unsafe { self.start.write_bytes(self.byte, self.layout.size()) };
        }

        /// Checks the first `length` bytes, at both ends, where other pieces would overlap.
        fn check(&self, length: usize) {
            assert!(!self.start.is_null() && self.start.addr() % self.layout.align() == 0);
            for place in [0, length / 2, length - 1] {
                // SAFETY: `place` is in the piece, as `length` is at most its size.
                let at = unsafe { self.start.add(place) };
                // SAFETY: `fill` has initialised it.
                assert_eq!(unsafe { at.read() }, self.byte);
            }
        }
    }

    /// Also past the end of the arena, where the system allocator takes over. Runs under Miri, too, which
    /// detects more than the assertions do.
    #[test]
    fn a_piece_keeps_what_is_written_to_it_until_it_is_given_back() {
        use crate::command::fuzzing::{Dice as _, Xorshift};

        static ARENA: Arena = Arena::new();
        let mut dice = Xorshift(0x9e37_79b9_7f4a_7c15);
        let mut pieces: Vec<Piece> = Vec::new();
        for turn in 0..if cfg!(miri) { 600 } else { 20_000 } {
            let size = dice.pick(&[1, 2, 7, 24, 100, 1000, 9000, if turn % 20 == 0 { SIZE / 9 } else { 3 }]);
            let byte = u8::try_from(turn % 251).unwrap();
            match dice.roll(if pieces.len() > 60 { 6 } else { 3 }) {
                0 | 1 if pieces.len() <= 60 => {
                    let layout =
                        Layout::from_size_align(size, dice.pick(&[1, 2, 8, 64, 4096, 8192])).unwrap();
                    // SAFETY: the size is not 0.
                    let start = unsafe { ARENA.alloc(layout) };
                    pieces.push(Piece { start, layout, byte });
                    pieces[pieces.len() - 1].fill();
                }
                2 if !pieces.is_empty() => {
                    let place = dice.index(pieces.len());
                    let piece = &mut pieces[place];
                    let kept = piece.layout.size().min(size);
                    // SAFETY: it is from this arena, with this layout, and the new size is not 0.
                    piece.start = unsafe { ARENA.realloc(piece.start, piece.layout, size) };
                    piece.layout = Layout::from_size_align(size, piece.layout.align()).unwrap();
                    piece.check(kept);
                    piece.byte = byte;
                    piece.fill();
                }
                _ if !pieces.is_empty() => {
                    let piece = pieces.swap_remove(dice.index(pieces.len()));
                    piece.check(piece.layout.size());
                    // SAFETY: it is from this arena, with this layout, and no longer used.
                    unsafe { ARENA.dealloc(piece.start, piece.layout) };
                }
                _ => {}
            }
        }
        for piece in pieces {
            piece.check(piece.layout.size());
            // SAFETY: as above.
            unsafe { ARENA.dealloc(piece.start, piece.layout) };
        }
    }
}
