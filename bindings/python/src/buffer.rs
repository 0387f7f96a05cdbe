//! Reads to and writes from buffers of Python, while other threads of Python run.
//!
//! Those threads may read and write the same buffer meanwhile. So it is a `Window`, to which there
//! is no reference in Rust, and never a slice.

#![allow(unsafe_code)] // a window on the memory of a buffer

use luksmith::volume::{Volume, Window, Windows};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use crate::error::raise;

/// The memory of a buffer: its address, as a number that another thread may have, and its length.
fn memory(buffer: &PyBuffer<u8>) -> PyResult<(usize, usize)> {
    match buffer.is_c_contiguous() {
        true => Ok((buffer.buf_ptr() as usize, buffer.len_bytes())),
        false => Err(PyBufferError::new_err("the buffer is not contiguous")),
    }
}

/// Fills a buffer with the bytes from `offset` on, and returns how many they are.
pub(crate) fn read(
    py: Python<'_>,
    volume: &Volume,
    buffer: &PyBuffer<u8>,
    offset: u64,
) -> PyResult<usize> {
    if buffer.readonly() {
        return Err(PyBufferError::new_err("the buffer is not writable"));
    }
    let (start, len) = memory(buffer)?;
    let read = py.detach(|| {
        // SAFETY: `buffer` is held until the end, so its memory stays where it is. It is writable,
        // and this module has no reference to it.
        let window = [unsafe { Window::new(start as *mut u8, len) }];
        volume.read_into(offset, Windows::new(&window))
    });
    read.map_err(raise(py))?;
    Ok(len)
}

/// Writes all bytes of a buffer at `offset`, and returns how many they are.
pub(crate) fn write(
    py: Python<'_>,
    volume: &Volume,
    buffer: &PyBuffer<u8>,
    offset: u64,
) -> PyResult<usize> {
    let (start, len) = memory(buffer)?;
    let written = py.detach(|| {
        // SAFETY: as in `read`, but that the memory need not be writable: it is only read.
        let window = [unsafe { Window::new(start as *mut u8, len) }];
        volume.write_from(offset, Windows::new(&window))
    });
    written.map_err(raise(py))?;
    Ok(len)
}
