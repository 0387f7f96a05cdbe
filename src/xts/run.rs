//! Where a kernel reads and writes the sectors of one call.
//!
//! A kernel works in place, or reads one side from or writes it to the memory of others. It gets
//! pointers in both cases, so it has one loop for them, and that memory never has a reference.

use std::marker::PhantomData;

use super::window::{Window, Windows};

/// The sectors of one call.
pub(super) struct Run<'a> {
    from: Walk<'a>,
    to: Walk<'a>,
    sector_size: usize,
    /// The number of sectors that are not yet taken. Each lies in one piece of `from` and of `to`.
    left: usize,
}

impl<'a> Run<'a> {
    /// The sectors of `data`, which are replaced.
    pub(super) fn in_place(data: &'a mut [u8], sector_size: usize) -> Self {
        let start = data.as_mut_ptr();
        Self {
            from: Walk::piece(start, data.len()),
            to: Walk::piece(start, data.len()),
            sector_size,
            left: data.len() / sector_size,
        }
    }

    /// The sectors of `from` and their places in `into`, until one of them straddles windows.
    pub(super) fn into_windows(from: &'a [u8], into: Windows<'a>, sector_size: usize) -> Self {
        Self {
            // Nothing is written to `from`.
            from: Walk::piece(from.as_ptr().cast_mut(), from.len()),
            to: Walk::windows(into),
            sector_size,
            left: into
                .whole_sectors(sector_size)
                .min(from.len() / sector_size),
        }
    }

    /// The sectors of `from` and their places in `into`, until one of them straddles windows.
    pub(super) fn from_windows(from: Windows<'a>, into: &'a mut [u8], sector_size: usize) -> Self {
        Self {
            left: from
                .whole_sectors(sector_size)
                .min(into.len() / sector_size),
            from: Walk::windows(from),
            to: Walk::piece(into.as_mut_ptr(), into.len()),
            sector_size,
        }
    }

    /// The number of sectors that are left.
    pub(super) fn sectors(&self) -> usize {
        self.left
    }

    /// Takes the next sector: its steps of `N` bytes, and the last step apart.
    ///
    /// Returns `None` if no sector is left, or if a sector is shorter than a step.
    #[inline(always)]
    pub(super) fn next<const N: usize>(&mut self) -> Option<(Steps<'a, N>, Step<'a, N>)> {
        let steps = self.sector_size / N;
        if self.left == 0 || steps == 0 {
            return None;
        }
        self.left -= 1;
        let first = Step {
            from: self.from.next(self.sector_size),
            to: self.to.next(self.sector_size),
            memory: PhantomData,
        };
        let last = first.after((steps - 1) * N);
        let left = steps - 1;
        Some((Steps { next: first, left }, last))
    }
}

/// Pieces of memory, of which sectors are taken.
struct Walk<'a> {
    next: *mut u8,
    left: usize,
    skipped: usize,
    rest: &'a [Window<'a>],
}

impl<'a> Walk<'a> {
    fn piece(start: *mut u8, len: usize) -> Self {
        Self {
            next: start,
            left: len,
            skipped: 0,
            rest: &[],
        }
    }

    fn windows(windows: Windows<'a>) -> Self {
        Self {
            next: std::ptr::null_mut(),
            left: 0,
            skipped: windows.skipped,
            rest: windows.list,
        }
    }

    /// Takes `len` bytes, which the next piece has if this one does not.
    #[inline(always)]
    fn next(&mut self, len: usize) -> *mut u8 {
        while self.left < len
            && let Some((window, rest)) = self.rest.split_first()
        {
            self.next = window.start.wrapping_add(self.skipped);
            self.left = window.len - self.skipped;
            (self.skipped, self.rest) = (0, rest);
        }
        let next = self.next;
        self.next = next.wrapping_add(len);
        self.left -= len;
        next
    }
}

/// `N` bytes that are read, and `N` bytes that are written. Both are the same in place. Only
/// [`Run`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Step<'a, const N: usize> {
    from: *const u8,
    to: *mut u8,
    memory: PhantomData<&'a mut [u8]>,
}

impl<const N: usize> Step<'_, N> {
    /// The start of `N` bytes that may be read once.
    #[inline(always)]
    pub(super) fn from(self) -> *const u8 {
        self.from
    }

    /// The start of `N` bytes that may be written.
    #[inline(always)]
    pub(super) fn to(self) -> *mut u8 {
        self.to
    }

    #[inline(always)]
    fn after(self, bytes: usize) -> Self {
        Self {
            from: self.from.wrapping_add(bytes),
            to: self.to.wrapping_add(bytes),
            memory: PhantomData,
        }
    }
}

/// The steps of a sector but the last.
pub(super) struct Steps<'a, const N: usize> {
    next: Step<'a, N>,
    left: usize,
}

impl<'a, const N: usize> Iterator for Steps<'a, N> {
    type Item = Step<'a, N>;

    #[inline(always)]
    fn next(&mut self) -> Option<Step<'a, N>> {
        self.left = self.left.checked_sub(1)?;
        let step = self.next;
        self.next = step.after(N);
        Some(step)
    }
}
