//! Failures as exceptions, which `python/luksmith/_errors.py` defines.

use luksmith::task::Error;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The exception of a failure.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let made = py.import("luksmith._errors").and_then(|module| {
        module.call_method1("_of", (error.kind().name(), error.line(), error.hint()))
    });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(other) => other,
    }
}

/// The exception of a failure, for `map_err` where the GIL is held.
pub(crate) fn raise<E: Into<Error>>(py: Python<'_>) -> impl Fn(E) -> PyErr {
    move |error| raised(py, &error.into())
}

/// The same exception with a note, which Python shows below it.
pub(crate) fn with_note(py: Python<'_>, error: PyErr, note: &str) -> PyErr {
    // Without the note it is still what was raised.
    let _ = error.value(py).call_method1("add_note", (note,));
    error
}

/// The exception for parameters that contradict.
pub(crate) fn contradiction(py: Python<'_>, message: &str) -> PyErr {
    raised(py, &Error::parameters(message))
}

/// The exception for a volume or a server that was closed.
pub(crate) fn closed(what: &str) -> PyErr {
    PyValueError::new_err(format!("the {what} is closed"))
}
