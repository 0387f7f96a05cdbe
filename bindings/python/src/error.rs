//! Failures as exceptions, which `python/luksmith/_errors.py` defines.

use luksmith::task::Error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The exception of a failure.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let hints: Vec<_> = error.advice().iter().map(ToString::to_string).collect();
    let hint = (!hints.is_empty()).then(|| hints.join("; "));
    let made = py
        .import("luksmith._errors")
        .and_then(|module| module.call_method1("_of", (error.kind().name(), error.line(), hint)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(other) => other,
    }
}

/// The exception of a failure, for `map_err` where the GIL is held.
pub(crate) fn raise<E: Into<Error>>(py: Python<'_>) -> impl Fn(E) -> PyErr {
    move |error| raised(py, &error.into())
}

/// The exception for a volume or a server that was closed.
pub(crate) fn closed(what: &str) -> PyErr {
    PyValueError::new_err(format!("the {what} is closed"))
}
