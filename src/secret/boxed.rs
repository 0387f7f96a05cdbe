//! One value in locked memory, such as an expanded key.

#![allow(unsafe_code)] // a value is stored in bytes

use core::marker::PhantomData;
use core::ops::Deref;

use super::{LockError, LockedBytes};

/// The alignment of every address in locked memory: a cell of the arena is a 64th of a page, which
/// is at least this.
const ALIGNMENT: usize = 64;

/// A `Box` in locked memory. The memory is wiped after the value is dropped.
pub(crate) struct LockedBox<T> {
    bytes: LockedBytes,
    value: PhantomData<T>,
}

impl<T> LockedBox<T> {
    /// Moves `value` into locked memory. Its old place keeps a copy, which the caller scrubs.
    pub(crate) fn new(value: T) -> Result<Self, LockError> {
        const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
        let mut bytes = LockedBytes::new(size_of::<T>())?;
        let place = bytes.as_mut_ptr().cast::<T>();
        debug_assert!(place.is_aligned());
        // SAFETY: the bytes have the size of a `T`, its alignment as asserted, and no other owner.
        unsafe { place.write(value) };
        Ok(Self {
            bytes,
            value: PhantomData,
        })
    }
}

impl<T> Deref for LockedBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` stored a `T` there, which stays until drop.
        unsafe { &*self.bytes.as_ptr().cast() }
    }
}

impl<T> Drop for LockedBox<T> {
    fn drop(&mut self) {
        // SAFETY: `new` stored a `T` there, and nothing reads it after this.
        unsafe { self.bytes.as_mut_ptr().cast::<T>().drop_in_place() };
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[repr(align(64))]
    struct Loud<'a>(&'a Cell<u32>, [u8; 100]);

    impl Drop for Loud<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_value_is_what_it_was_and_dropped_once() {
        let drops = Cell::new(0);
        let boxes: Vec<_> = (0..100)
            .map(|n| LockedBox::new(Loud(&drops, [n; 100])).unwrap())
            .collect();
        for (n, locked) in (0..100).zip(&boxes) {
            assert_eq!(locked.1, [n; 100]);
            assert!(std::ptr::from_ref(&**locked).is_aligned());
        }
        assert_eq!(drops.get(), 0);
        drop(boxes);
        assert_eq!(drops.get(), 100);
    }

    #[test]
    fn a_value_larger_than_a_page_has_pages_of_its_own() {
        let locked = LockedBox::new([7_u64; 2000]).unwrap();
        assert_eq!(*locked, [7; 2000]);
    }
}
