//! A buffer of whole sectors whose type says whether it holds plaintext or ciphertext.
//!
//! [`Sectors<Plain>`] holds what the user of a volume sees, [`Sectors<Cipher>`] what the storage
//! sees. A [`Backend`](crate::backend::Backend) only handles `Sectors<Cipher>`, and only `crypt.rs`
//! converts one into the other, in place and by move, or from and to memory that is only plaintext
//! ([`Windows`](crate::crypt::Windows)). Metadata, such as headers and tables of
//! images, is stored as it is: it becomes `Sectors<Cipher>` through `Sectors::<Cipher>::metadata`.
//! What is encrypted in place is read as plaintext by `door.rs`.
//!
//! Ciphertext can be written:
//!
//! ```
//! use luksmith::backend::{Backend, memory::MemoryBackend};
//! use luksmith::sectors::{Cipher, Plain, Sectors};
//! let storage = MemoryBackend::new(4096);
//! let sectors = Sectors::<Cipher>::zeroed(4096);
//! storage.write_at(0, &sectors).unwrap();
//! ```
//!
//! Plaintext cannot be written. This differs in one line, and does not compile:
//!
//! ```compile_fail,E0308
//! use luksmith::backend::{Backend, memory::MemoryBackend};
//! use luksmith::sectors::{Cipher, Plain, Sectors};
//! let storage = MemoryBackend::new(4096);
//! let sectors = Sectors::<Plain>::zeroed(4096);
//! storage.write_at(0, &sectors).unwrap();
//! ```
//!
//! The memory is aligned to 4096 bytes, as `O_DIRECT` needs it. It comes from a pool of the process
//! that keeps at most [`POOL_BYTES`]. Memory that held plaintext is wiped before it returns to the
//! pool.
#![allow(unsafe_code)] // an aligned allocation, and slices of it

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The alignment of every buffer, in bytes.
pub const ALIGNMENT: usize = 4096;

/// The most memory that the pool of freed buffers keeps, in bytes.
pub const POOL_BYTES: usize = 32 << 20;

/// The plaintext side.
pub enum Plain {}

/// The ciphertext side.
pub enum Cipher {}

/// One of the two sides, [`Plain`] and [`Cipher`]. Other crates cannot implement it.
pub trait Side: sealed::Side {}
impl Side for Plain {}
impl Side for Cipher {}

mod sealed {
    pub trait Side {
        /// Whether a buffer of this side is wiped when it is freed.
        const SECRET: bool;
        const NAME: &'static str;
    }
    impl Side for super::Plain {
        const SECRET: bool = true;
        const NAME: &'static str = "Plain";
    }
    impl Side for super::Cipher {
        const SECRET: bool = false;
        const NAME: &'static str = "Cipher";
    }
}

/// An owned, aligned buffer of plaintext or ciphertext.
pub struct Sectors<S: Side> {
    memory: Option<Memory>,
    len: usize,
    /// Whether it is wiped when it is freed, although its side is not.
    wiped: bool,
    side: PhantomData<S>,
}

impl<S: Side> Sectors<S> {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let mut sectors = Self::with_len(len);
        sectors.bytes_mut().fill(0);
        sectors
    }

    /// A buffer of `len` bytes with arbitrary content, which the caller overwrites completely. The
    /// content may be old ciphertext, but never old plaintext.
    pub fn with_len(len: usize) -> Self {
        Self {
            memory: Some(Memory::take(len)),
            len,
            wiped: false,
            side: PhantomData,
        }
    }

    /// An empty buffer without memory, to replace one that is moved out of its place.
    pub fn empty() -> Self {
        Self {
            memory: None,
            len: 0,
            wiped: false,
            side: PhantomData,
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

    fn bytes(&self) -> &[u8] {
        self.memory
            .as_ref()
            .map_or(&[], |memory| memory.bytes(self.len))
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.memory
            .as_mut()
            .map_or(&mut [], |memory| memory.bytes_mut(len))
    }

    /// Converts the content with `turn`, and returns the same memory as the other side. If `turn`
    /// panics, the buffer is freed as its old side.
    fn turned<T: Side>(mut self, turn: impl FnOnce(&mut [u8])) -> Sectors<T> {
        turn(self.bytes_mut());
        Sectors {
            memory: self.memory.take(),
            len: self.len,
            wiped: self.wiped,
            side: PhantomData,
        }
    }
}

impl Sectors<Plain> {
    /// The plaintext.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes()
    }

    /// The plaintext, for changing it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    /// The first `len` bytes. The caller has put nothing into the others, which are not wiped.
    #[cfg(feature = "fuse")]
    pub(crate) fn shortened(mut self, len: usize) -> Self {
        self.len = self.len.min(len);
        self
    }

    /// Converts plaintext into ciphertext. Only `crypt.rs` calls this.
    pub(crate) fn encrypted(self, encrypt: impl FnOnce(&mut [u8])) -> Sectors<Cipher> {
        self.turned(encrypt)
    }
}

impl Sectors<Cipher> {
    /// The ciphertext.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes()
    }

    /// The ciphertext, for a backend that reads into it.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    /// Converts ciphertext into plaintext. Only `crypt.rs` calls this.
    pub(crate) fn decrypted(self, decrypt: impl FnOnce(&mut [u8])) -> Sectors<Plain> {
        self.turned(decrypt)
    }

    /// A buffer of `len` bytes with arbitrary content, for what another program stored unencrypted:
    /// it is wiped when it is freed.
    pub(crate) fn unencrypted(len: usize) -> Self {
        let mut sectors = Self::with_len(len);
        sectors.wiped = true;
        sectors
    }

    /// The same bytes as plaintext, if another program stored them unencrypted. Only `door.rs`
    /// calls this.
    pub(crate) fn stored_plaintext(self) -> Sectors<Plain> {
        self.turned(|_| {})
    }

    /// Whether the buffer is for what another program stored unencrypted.
    #[cfg(feature = "nbd")]
    pub(crate) fn is_unencrypted(&self) -> bool {
        self.wiped
    }

    /// A buffer of bytes that are stored as they are, such as headers. Only `door.rs` calls this.
    pub(crate) fn metadata(bytes: &[u8]) -> Self {
        let mut sectors = Self::with_len(bytes.len());
        sectors.bytes_mut().copy_from_slice(bytes);
        sectors
    }
}

impl<S: Side> Drop for Sectors<S> {
    fn drop(&mut self) {
        if S::SECRET || self.wiped {
            let bytes = self.bytes_mut();
            bytes.fill(0);
            zeroize::optimization_barrier(bytes);
        }
        if let Some(memory) = self.memory.take() {
            memory.give_back();
        }
    }
}

impl<S: Side> fmt::Debug for Sectors<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sectors<{}>({} bytes)", S::NAME, self.len)
    }
}

/// An allocation with every byte initialised. Its size is the size of a class, or a multiple of
/// [`ALIGNMENT`] above the largest class.
struct Memory {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: a `Memory` is the only owner of its allocation, which is not tied to a thread.
unsafe impl Send for Memory {}
// SAFETY: a shared reference only permits reading.
unsafe impl Sync for Memory {}

impl Memory {
    fn take(len: usize) -> Self {
        let size = match class_of(len) {
            Some(class) => match pool().take(class) {
                Some(memory) => return memory,
                None => class_size(class),
            },
            None => len.next_multiple_of(ALIGNMENT),
        };
        Self::allocate(size)
    }

    fn allocate(size: usize) -> Self {
        let layout = Self::layout(size);
        // SAFETY: the size is not zero, since `take` asks for a class or for more than the largest
        // one.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Self { start, size }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGNMENT)
            .expect("no buffer is longer than the address space")
    }

    fn give_back(self) {
        pool().give(self);
    }

    fn bytes(&self, len: usize) -> &[u8] {
        debug_assert!(len <= self.size);
        // SAFETY: the allocation has at least `len` initialised bytes, and is borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }

    fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        debug_assert!(len <= self.size);
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with the same layout, and has no other owner.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.size)) }
    }
}

/// The classes are powers of two from 4 KiB to 1 MiB.
const CLASSES: usize = 9;

fn class_size(class: usize) -> usize {
    ALIGNMENT << class
}

fn class_of(len: usize) -> Option<usize> {
    (0..CLASSES).find(|&class| len <= class_size(class))
}

/// Freed buffers that can be used again.
struct Pool {
    free: [Vec<Memory>; CLASSES],
    bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: [const { Vec::new() }; CLASSES],
    bytes: 0,
});

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn take(&mut self, class: usize) -> Option<Memory> {
        let memory = self.free[class].pop()?;
        self.bytes -= memory.size;
        Some(memory)
    }

    fn give(&mut self, memory: Memory) {
        let class = class_of(memory.size);
        if let Some(class) = class.filter(|_| self.bytes + memory.size <= POOL_BYTES) {
            self.bytes += memory.size;
            self.free[class].push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_program_stored_unencrypted_is_wiped() {
        // A length that no other test uses: the pool gives the same memory back.
        let len = (POOL_BYTES / 64) - 1;
        let mut sectors = Sectors::<Cipher>::unencrypted(len);
        sectors.as_mut_slice().fill(7);
        let start = sectors.as_slice().as_ptr();
        drop(sectors);
        let again = Sectors::<Cipher>::with_len(len);
        if again.as_slice().as_ptr() == start {
            assert!(again.as_slice().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn buffers_are_aligned_and_have_the_asked_length() {
        for len in [
            0,
            1,
            512,
            4096,
            4097,
            258_048,
            1 << 20,
            (1 << 20) + 1,
            3 << 20,
        ] {
            let sectors = Sectors::<Plain>::zeroed(len);
            assert_eq!(sectors.len(), len);
            assert_eq!(sectors.is_empty(), len == 0);
            assert!(sectors.as_slice().iter().all(|&b| b == 0));
            assert_eq!(sectors.as_slice().as_ptr().addr() % ALIGNMENT, 0);
        }
    }

    #[test]
    fn zeroed_is_zero_in_reused_memory() {
        let mut old = Sectors::<Cipher>::with_len(8192);
        old.as_mut_slice().fill(0xaa);
        drop(old);
        let new: Vec<_> = (0..4).map(|_| Sectors::<Cipher>::zeroed(8192)).collect();
        assert!(
            new.iter()
                .all(|sectors| sectors.as_slice().iter().all(|&b| b == 0))
        );
    }

    #[test]
    fn plaintext_never_comes_back_from_the_pool() {
        // Other tests use the pool too, so the content is unknown. It must not be this pattern.
        for _ in 0..64 {
            let mut plain: Vec<_> = (0..8).map(|_| Sectors::<Plain>::with_len(16384)).collect();
            plain
                .iter_mut()
                .for_each(|sectors| sectors.as_mut_slice().fill(0x5c));
            drop(plain);
            let next: Vec<_> = (0..8).map(|_| Sectors::<Cipher>::with_len(16384)).collect();
            assert!(
                next.iter()
                    .all(|sectors| !sectors.as_slice().contains(&0x5c))
            );
        }
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<_> = (0..64)
            .map(|_| Sectors::<Cipher>::with_len(1 << 20))
            .collect();
        drop(many);
        assert!(pool().bytes <= POOL_BYTES);
    }

    #[test]
    fn turning_keeps_the_memory() {
        let plain = Sectors::<Plain>::zeroed(512);
        let place = plain.as_slice().as_ptr();
        let cipher = plain.encrypted(|bytes| bytes.fill(7));
        assert_eq!(cipher.as_slice(), [7; 512]);
        assert_eq!(cipher.as_slice().as_ptr(), place);
        let plain = cipher.decrypted(|bytes| bytes.fill(0));
        assert_eq!(plain.as_slice(), [0; 512]);
    }

    #[test]
    fn metadata_is_taken_as_it_is() {
        assert_eq!(
            Sectors::metadata(b"LUKS\xba\xbe").as_slice(),
            b"LUKS\xba\xbe"
        );
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(
            format!("{:?}", Sectors::<Plain>::zeroed(512)),
            "Sectors<Plain>(512 bytes)"
        );
    }
}
