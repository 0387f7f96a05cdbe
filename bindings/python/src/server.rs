//! A server of an opened volume.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use luksmith::task::Silent;
use luksmith::task::open_volume::{Named, OpenVolume, VolumeServer};
use pyo3::prelude::*;

use crate::error::raise;

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

    #[pyo3(signature = (exception_type=None, exception=None, traceback=None))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exception_type: Option<&Bound<'_, PyAny>>,
        exception: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exception_type, exception, traceback);
        self.stop(py)
    }
}
