//! What a caller passes as a key: the text of a SOURCE, the passphrase itself, or a function.

use std::sync::Arc;

use luksmith::secret::{Purpose, Wanted};
use luksmith::task::open_volume::Key;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use crate::error::raise;
use crate::work::Watching;

/// A key of the caller, that reports an exception of its function to `watching`.
pub(crate) fn key(key: &Bound<'_, PyAny>, watching: &Arc<Watching>) -> PyResult<Key<'static>> {
    let py = key.py();
    if let Ok(text) = key.cast::<PyString>() {
        return Key::source(text.to_str()?).map_err(raise(py));
    }
    let (given, watching) = (key.clone().unbind(), watching.clone());
    if key.is_instance_of::<PyBytes>() || key.is_instance_of::<PyByteArray>() {
        return Ok(Key::Function(Box::new(
            move |_: Purpose<'_>, buffer: &mut [u8]| {
                Python::attach(|py| {
                    let copied = copied(given.bind(py), buffer);
                    watching.keep(py, copied)
                })
            },
        )));
    }
    if !key.is_callable() {
        let message = "a key is the text of a SOURCE, bytes, or a function";
        return Err(PyTypeError::new_err(message));
    }
    Ok(Key::Function(Box::new(
        move |purpose: Purpose<'_>, buffer: &mut [u8]| {
            Python::attach(|py| {
                let is_new = purpose.what == Wanted::New;
                let asked = given.bind(py).call1((purpose.label, is_new));
                let copied = asked.and_then(|passphrase| copied(&passphrase, buffer));
                watching.keep(py, copied)
            })
        },
    )))
}

/// Copies a passphrase to the buffer, and returns its length, also if it does not fit.
fn copied(passphrase: &Bound<'_, PyAny>, buffer: &mut [u8]) -> PyResult<usize> {
    let Ok(given) = PyBuffer::<u8>::get(passphrase) else {
        let message = "a passphrase is bytes, or a bytearray, which can be overwritten later";
        return Err(PyTypeError::new_err(message));
    };
    let len = given.len_bytes();
    if let Some(buffer) = buffer.get_mut(..len) {
        given.copy_to_slice(passphrase.py(), buffer)?;
    }
    Ok(len)
}
