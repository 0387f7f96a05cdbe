//! The plaintext of an unlocked volume.

use std::ffi::{c_int, c_void};
use std::ops::Range;

use luksmith::backend::IoError;
use luksmith::task::open_volume::{Force, Task};
use luksmith::task::{Error, Kind};
use luksmith::volume::{Volume, Window, Windows};

use crate::error::{ErrorOut, caught, null, run};
use crate::options::{LuksmithOptions, named};
use crate::volume::LuksmithVolume;

/// The memory of the caller, to which other threads may write meanwhile.
///
/// # Safety
/// `buffer` is `NULL`, or there are `size` bytes, which the use of the window may read or write.
unsafe fn window<'a>(buffer: *mut c_void, size: usize) -> Result<Window<'a>, Error> {
    if size == 0 {
        return Ok(Window::from(&mut [][..]));
    }
    if buffer.is_null() {
        return Err(null("buffer"));
    }
    // SAFETY: the caller states that the bytes are there, and the library has no reference to them.
    Ok(unsafe { Window::new(buffer.cast(), size) })
}

/// Moves bytes between the plaintext and the memory of the caller.
///
/// # Safety
/// As for [`window`]. `moved` reads or writes the bytes as the caller of the library permits.
unsafe fn transfer(
    volume: Option<&LuksmithVolume>,
    (buffer, size): (*mut c_void, usize),
    error: ErrorOut<'_>,
    moved: impl FnOnce(&Volume, Windows<'_>) -> Result<(), IoError>,
) -> c_int {
    run(error, || {
        let volume = LuksmithVolume::plaintext(volume)?;
        // SAFETY: as the caller states.
        let window = [unsafe { window(buffer, size) }?];
        Ok(moved(&volume, Windows::new(&window))?)
    })
}

fn range(offset: u64, size: u64) -> Result<Range<u64>, Error> {
    let end = offset.checked_add(size);
    let end = end.ok_or_else(|| Error::parameters("offset and size are 2^64 bytes or more"))?;
    Ok(offset..end)
}

/// The size in bytes, or 0 if it is not known.
#[unsafe(no_mangle)]
pub extern "C" fn luksmith_size(volume: Option<&LuksmithVolume>) -> u64 {
    caught(0, || {
        volume.and_then(|volume| volume.open.size()).unwrap_or(0)
    })
}

/// The size of a sector in bytes, or 0 if the volume is locked.
#[unsafe(no_mangle)]
pub extern "C" fn luksmith_sector_size(volume: Option<&LuksmithVolume>) -> u32 {
    caught(0, || {
        LuksmithVolume::plaintext(volume).map_or(0, |volume| volume.sector_size())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_read(
    volume: Option<&LuksmithVolume>,
    buffer: *mut c_void,
    size: usize,
    offset: u64,
    error: ErrorOut<'_>,
) -> c_int {
    let read = |volume: &Volume, windows: Windows<'_>| volume.read_into(offset, windows);
    // SAFETY: the header says that the buffer has `size` bytes.
    unsafe { transfer(volume, (buffer, size), error, read) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_write(
    volume: Option<&LuksmithVolume>,
    buffer: *const c_void,
    size: usize,
    offset: u64,
    error: ErrorOut<'_>,
) -> c_int {
    let write = |volume: &Volume, windows: Windows<'_>| volume.write_from(offset, windows);
    // SAFETY: the header says that the buffer has `size` bytes, and a write only reads them.
    unsafe { transfer(volume, (buffer.cast_mut(), size), error, write) }
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_flush(volume: Option<&LuksmithVolume>, error: ErrorOut<'_>) -> c_int {
    run(error, || Ok(LuksmithVolume::plaintext(volume)?.flush()?))
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_write_zeroes(
    volume: Option<&LuksmithVolume>,
    offset: u64,
    size: u64,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let volume = LuksmithVolume::plaintext(volume)?;
        Ok(volume.write_zeroes(range(offset, size)?)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_discard(
    volume: Option<&LuksmithVolume>,
    offset: u64,
    size: u64,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let volume = LuksmithVolume::plaintext(volume)?;
        match volume.discard(range(offset, size)?) {
            Err(error @ IoError::Unsupported(_)) => Err(Error::new(Kind::Unsupported, error)),
            discarded => Ok(discarded?),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_resize(
    volume: Option<&LuksmithVolume>,
    size: u64,
    options: Option<&LuksmithOptions>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let shrink = named(options, Task::Change)?.permits(Force::Shrink);
        LuksmithVolume::at(volume)?.open.resize(size, shrink)
    })
}
