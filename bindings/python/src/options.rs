//! Keyword arguments as options of the command line.

use std::path::Path;

use luksmith::location::Location;
use luksmith::task::open_volume::{Named, Task};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyString};

use crate::error::raise;

/// The options that keyword arguments name, which are for this task. `None` is like no argument.
pub(crate) fn named(
    py: Python<'_>,
    arguments: Option<&Bound<'_, PyDict>>,
    task: Task,
) -> PyResult<Named> {
    let mut named = Named::new();
    for (name, value) in arguments.into_iter().flatten() {
        let name = name.extract::<String>()?.replace('_', "-");
        if !value.is_none() {
            named.set(name, text(&value)?);
        }
    }
    named.check(task).map_err(raise(py))?;
    Ok(named)
}

/// The value of an option as text.
fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(flag.is_true().to_string());
    }
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyString>() {
        return Ok(value.str()?.to_str()?.to_owned());
    }
    let path = value.py().import("os")?.call_method1("fspath", (value,));
    match path.and_then(|path| path.extract()) {
        Ok(path) => Ok(path),
        Err(_) => {
            let message = "an option is text, a number, a truth value or a path";
            Err(PyTypeError::new_err(message))
        }
    }
}

/// The location that a path or a URI names.
pub(crate) fn location(py: Python<'_>, image: &Path) -> PyResult<Location> {
    Named::location(image.as_os_str()).map_err(raise(py))
}
