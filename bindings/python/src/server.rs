//! A server of an opened volume.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use luksmith::task::Silent;
use luksmith::task::open_volume::{Named, OpenVolume, VolumeServer};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::raise;
use crate::work::drop_detached;

/// An NBD server of a volume. It stops at `stop`, and at the end of its `with`.
#[pyclass(name = "Server", module = "luksmith", frozen)]
pub(crate) struct PyServer {
    uri: String,
    server: Mutex<Option<VolumeServer>>,
}

impl PyServer {
    pub(crate) fn start(
        py: Python<'_>,
        volume: &OpenVolume,
        socket: PathBuf,
        options: &Named,
    ) -> PyResult<Self> {
        let start = || VolumeServer::start(volume, socket, options, Silent::default());
        let server = py.detach(start).map_err(raise(py))?;
        Ok(Self {
            uri: server.uri().to_owned(),
            server: Mutex::new(Some(server)),
        })
    }
}

#[pymethods]
impl PyServer {
    /// The URI by which clients reach it.
    #[getter]
    fn uri(&self) -> &str {
        &self.uri
    }

    /// Stops it: clients get their last replies, and everything is flushed.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let server = self.server.lock();
        let Some(server) = server.unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        py.detach(move || server.stop()).map_err(raise(py))
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.stop(py)
    }
}

impl Drop for PyServer {
    fn drop(&mut self) {
        let server = self.server.get_mut();
        let server = server.unwrap_or_else(PoisonError::into_inner).take();
        drop_detached(server);
    }
}
