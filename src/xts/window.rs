//! Memory that other programs read and write at any time, such as the memory of a guest.
//!
//! There is never a reference to such memory, and no other value of Rust refers to its bytes. It is
//! read and written only here and by the kernels, with instructions that the compiler can neither
//! repeat nor omit. So each byte of a request is read once. If a guest changes its memory
//! meanwhile, either the old or the new byte is used, but never both.

#![allow(unsafe_code)] // loads and stores through a pointer

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

/// A part of memory that others may read and write at any time.
pub struct Window<'a> {
    pub(super) start: *mut u8,
    pub(super) len: usize,
    lost: Option<&'a AtomicBool>,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `Window` is an address, and its memory is not tied to a thread.
unsafe impl Send for Window<'_> {}

impl<'a> Window<'a> {
    /// The `len` bytes at `start`. They need no alignment, and windows may overlap.
    ///
    /// # Safety
    /// During the lifetime of the window these bytes stay mapped and readable, and writable if
    /// something is read into the window. This program has no reference in Rust to them. Guests,
    /// other processes, code in other languages, and threads that have other windows of them, may
    /// access them at any time.
    pub unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self {
            start,
            len,
            lost: None,
            memory: PhantomData,
        }
    }

    /// This window, whose owner can take the memory away. Then `lost` becomes true, before any byte
    /// is read there that the owner has not written. Such bytes never reach a volume.
    #[must_use]
    pub fn until_lost(self, lost: &'a AtomicBool) -> Self {
        Self {
            lost: Some(lost),
            ..self
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The memory of the slice, which nothing else uses while it is borrowed.
impl<'a> From<&'a mut [u8]> for Window<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self {
            start: bytes.as_mut_ptr(),
            len: bytes.len(),
            lost: None,
            memory: PhantomData,
        }
    }
}

impl fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({} bytes)", self.len)
    }
}

/// The bytes of several windows in a row, or a part of them: the memory of one request.
#[derive(Clone, Copy)]
pub struct Windows<'a> {
    pub(super) list: &'a [Window<'a>],
    /// The bytes of the first window that do not belong to it.
    pub(super) skipped: usize,
    len: usize,
}

impl<'a> Windows<'a> {
    /// All bytes of `list`, in this order.
    pub fn new(list: &'a [Window<'a>]) -> Self {
        let lens = list.iter().map(|window| window.len);
        Self {
            list,
            skipped: 0,
            len: lens.fold(0, usize::saturating_add),
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the owner has taken memory away. Then the bytes that were read may not be the
    /// owner's.
    pub fn are_lost(&self) -> bool {
        let mut flags = self.list.iter().filter_map(|window| window.lost);
        flags.any(|lost| lost.load(Ordering::Acquire))
    }

    /// Removes the first `len` bytes, and returns them. If there are fewer, returns all.
    #[must_use]
    pub fn take(&mut self, len: usize) -> Self {
        let taken = Self {
            len: len.min(self.len),
            ..*self
        };
        self.len -= taken.len;
        self.skipped += taken.len;
        while let Some((first, rest)) = self.list.split_first()
            && self.skipped >= first.len
        {
            self.skipped -= first.len;
            self.list = rest;
        }
        taken
    }

    /// The number of sectors before the first one that does not lie in one window.
    pub(super) fn whole_sectors(self, sector_size: usize) -> usize {
        let mut count = 0;
        for (_, len) in self.pieces() {
            count += len / sector_size;
            if !len.is_multiple_of(sector_size) {
                break;
            }
        }
        count
    }

    /// The first byte of each window and the number of bytes in it.
    fn pieces(self) -> impl Iterator<Item = (*mut u8, usize)> + use<'a> {
        let (mut skipped, mut left) = (self.skipped, self.len);
        self.list.iter().map_while(move |window| {
            let start = window.start.wrapping_add(skipped);
            let len = (window.len - skipped).min(left);
            (skipped, left) = (0, left - len);
            (left > 0 || len > 0).then_some((start, len))
        })
    }

    /// Copies the bytes to `into`, which has the same length.
    pub fn copy_to(self, into: &mut [u8]) {
        assert_eq!(self.len, into.len());
        let mut into = into;
        for (start, len) in self.pieces() {
            let (now, later) = into.split_at_mut(len);
            // SAFETY: the window has `len` bytes at `start`, and `now` is as long.
            unsafe { copy(start, now.as_mut_ptr(), len) };
            into = later;
        }
    }

    /// Copies `from`, which has the same length, to the windows.
    pub fn copy_from(self, from: &[u8]) {
        assert_eq!(self.len, from.len());
        let mut from = from;
        for (start, len) in self.pieces() {
            let (now, later) = from.split_at(len);
            // SAFETY: as in `copy_to`.
            unsafe { copy(now.as_ptr(), start, len) };
            from = later;
        }
    }

    /// Writes zeroes to the windows.
    pub fn fill_zero(self) {
        for (start, len) in self.pieces() {
            // SAFETY: the window has `len` bytes at `start`.
            unsafe { zero(start, len) };
        }
    }
}

impl fmt::Debug for Windows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Windows({} bytes)", self.len)
    }
}

/// Copies `len` bytes, each of which is read once and written once.
///
/// # Safety
/// There are `len` readable bytes at `from`, and `len` other writable bytes at `to`.
#[cfg(target_arch = "x86_64")]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the instruction reads and writes the bytes of which the caller states that it may.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Zeroes `len` bytes.
///
/// # Safety
/// There are `len` writable bytes at `start`.
#[cfg(target_arch = "x86_64")]
unsafe fn zero(start: *mut u8, len: usize) {
    // SAFETY: the instruction writes the bytes of which the caller states that it may.
    unsafe {
        std::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") start => _,
            in("al") 0_u8,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies `len` bytes, each of which is read once and written once.
///
/// # Safety
/// There are `len` readable bytes at `from`, and `len` other writable bytes at `to`.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    for n in 0..len {
        // SAFETY: the caller states that the byte may be read.
        let byte = unsafe { from.wrapping_add(n).read_volatile() };
        // SAFETY: the caller states that the byte may be written.
        unsafe { to.wrapping_add(n).write_volatile(byte) };
    }
}

/// Zeroes `len` bytes.
///
/// # Safety
/// There are `len` writable bytes at `start`.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn zero(start: *mut u8, len: usize) {
    for n in 0..len {
        // SAFETY: the caller states that the byte may be written.
        unsafe { start.wrapping_add(n).write_volatile(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_taken_in_order() {
        let (mut one, mut two, mut three) = ([1, 2, 3], [4], [5, 6, 7, 8]);
        let list = [&mut one[..], &mut two, &mut [], &mut three].map(Window::from);
        let mut rest = Windows::new(&list);
        let mut found = Vec::new();
        for (asked, given) in [(0, 0), (2, 2), (0, 0), (3, 3), (1, 1), (9, 2), (1, 0)] {
            let part = rest.take(asked);
            assert_eq!(part.len(), given);
            let start = found.len();
            found.resize(start + given, 0);
            part.copy_to(&mut found[start..]);
        }
        assert_eq!(found, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(rest.is_empty());
    }

    #[test]
    fn only_the_taken_bytes_change() {
        let (mut one, mut two) = ([9; 3], [9; 4]);
        let list = [&mut one[..], &mut two].map(Window::from);
        let mut rest = Windows::new(&list);
        let _ = rest.take(1);
        rest.take(3).copy_from(&[5, 6, 7]);
        rest.take(2).fill_zero();
        assert_eq!((one, two), ([9, 5, 6], [7, 0, 0, 9]));
    }

    #[test]
    fn sectors_are_counted_until_one_straddles() {
        for (lens, skip, count) in [
            (&[48][..], 0, 3),
            (&[32, 16, 64], 0, 7),
            (&[32, 0, 16], 0, 3),
            (&[40, 24], 0, 2),
            (&[8, 56], 0, 0),
            (&[8, 56], 8, 3),
            (&[16, 24, 24], 16, 1),
            (&[], 0, 0),
        ] {
            let mut memory: Vec<_> = lens.iter().map(|len| vec![0; *len]).collect();
            let list: Vec<_> = memory
                .iter_mut()
                .map(|part| Window::from(&mut part[..]))
                .collect();
            let mut windows = Windows::new(&list);
            let _ = windows.take(skip);
            assert_eq!(windows.whole_sectors(16), count, "{lens:?}");
        }
        // Only what is taken counts.
        let mut memory = [0; 64];
        let list = [Window::from(&mut memory[..])];
        assert_eq!(Windows::new(&list).take(40).whole_sectors(16), 2);
    }
}
