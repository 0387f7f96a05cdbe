//! Owned pages of anonymous memory, for the locked memory of secrets and for argon2's blocks.
//!
//! A [`Mapping`] overwrites its pages before it returns them to the kernel.

#![allow(unsafe_code)] // mmap and related calls take raw addresses

use core::ffi::c_void;
use core::ptr::NonNull;
use core::slice;

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};

/// Private anonymous pages. They are zero at first, and are wiped and unmapped on drop.
pub(crate) struct Mapping {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is owned by this value, and is not tied to the thread that mapped it.
unsafe impl Send for Mapping {}
// SAFETY: shared references only read. Writing needs `&mut`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `len` bytes, rounded up to whole pages.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let len = len
            .max(1)
            .checked_next_multiple_of(page)
            .ok_or(io::Errno::NOMEM)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address that the kernel chooses changes no other
        // memory.
        let start =
            unsafe { mmap_anonymous(core::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }?;
        let address = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
        Ok(Self { address, len })
    }

    /// Keeps the pages in RAM, never in swap, and out of core files.
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        // SAFETY: the range is this mapping, which `self` owns. Locking does not change its
        // content.
        unsafe { mlock(self.start(), self.len) }?;
        self.keep_out_of_dumps()
    }

    /// Keeps the pages out of core files.
    pub(crate) fn keep_out_of_dumps(&mut self) -> io::Result<()> {
        self.advise(Advice::LinuxDontDump)
    }

    /// Asks for huge pages, since the TLB limits random access to a gigabyte of small pages. A
    /// kernel without huge pages may refuse.
    pub(crate) fn prefer_huge_pages(&mut self) -> io::Result<()> {
        self.advise(Advice::LinuxHugepage)
    }

    /// The length in bytes, a whole number of pages.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is readable and initialised for `len` bytes, as long as `self` lives.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable and initialised for `len` bytes, as long as
        // `self` lives. `&mut self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }

    /// The mapping as blocks of argon2, of 1 KiB each.
    pub(crate) fn as_mut_blocks(&mut self) -> &mut [argon2::Block] {
        let blocks = self.len / argon2::Block::SIZE;
        // SAFETY: as in `as_mut_slice`. A block is 1 KiB of integers, and a page is aligned for it.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr().cast(), blocks) }
    }

    /// The address of the first byte, which is aligned to a page.
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }

    fn start(&self) -> *mut c_void {
        self.address.as_ptr().cast()
    }

    fn advise(&mut self, advice: Advice) -> io::Result<()> {
        // SAFETY: neither of the two kinds of advice that are used changes the content of the
        // pages.
        unsafe { madvise(self.start(), self.len, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        wipe(self.as_mut_slice());
        // SAFETY: the range is exactly what mmap returned, and no reference to it is left.
        let unmapped = unsafe { munmap(self.start(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}

/// Overwrites `bytes` with zeros, at the speed of memset. The compiler does not remove this.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // The compiler has to assume that the memory is read here.
    core::hint::black_box(bytes.as_mut_ptr());
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_whole_pages_of_zeros() {
        let mut mapping = Mapping::new(5000).unwrap();
        assert_eq!(mapping.as_slice().len() % rustix::param::page_size(), 0);
        assert!(mapping.as_slice().len() >= 5000);
        assert!(mapping.as_slice().iter().all(|&b| b == 0));
        mapping.as_mut_slice()[4999] = 7;
        assert_eq!(mapping.as_slice()[4999], 7);
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        assert!(Mapping::new(usize::MAX).is_err());
        assert!(Mapping::new(usize::MAX / 2).is_err());
    }

    #[test]
    fn wipe_writes_zeros() {
        let mut bytes = [0xa5u8; 333];
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 333]);
    }
}
