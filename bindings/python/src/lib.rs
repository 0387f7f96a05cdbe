//! The module `luksmith._luksmith` for Python. `python/luksmith` re-exports it, and has what is
//! written in Python.
//!
//! - `volume`: `open`, `create`, and the class `Volume`; `server`: the class `Server`.
//! - `buffer`: reads to and writes from buffers of Python, without the GIL.
//! - `keys`, `options`: what a caller passes.
//! - `work`: progress, notes and signals while a task runs.
//! - `documents`: `info`, `inspect` and `audit`, which return dicts.

mod buffer;
mod documents;
mod error;
mod keys;
mod options;
mod server;
mod volume;
mod work;

use pyo3::prelude::*;

/// Makes the process undumpable: no core dumps, and no access to its memory for other processes of
/// the same user. Call it before the first secret is read.
#[pyfunction]
fn harden(py: Python<'_>) -> PyResult<()> {
    luksmith::task::open_volume::harden().map_err(error::raise(py))
}

#[pymodule]
fn _luksmith(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<volume::PyVolume>()?;
    module.add_class::<server::PyServer>()?;
    module.add_function(wrap_pyfunction!(volume::open, module)?)?;
    module.add_function(wrap_pyfunction!(volume::create, module)?)?;
    module.add_function(wrap_pyfunction!(documents::info, module)?)?;
    module.add_function(wrap_pyfunction!(documents::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(documents::audit, module)?)?;
    module.add_function(wrap_pyfunction!(harden, module)?)
}
