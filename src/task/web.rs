//! Files on web servers.

use super::Error;
use super::storage::{Remote, Storage};
use crate::backend::file::OpenOptions;
use crate::location::Server;

/// Opens a file on a web server, which is only read.
#[cfg(feature = "http")]
pub(super) fn open(server: &Server, remote: Remote, file: OpenOptions) -> Result<Storage, Error> {
    use std::sync::Arc;

    use super::storage::Nature;
    use crate::backend::http::{HttpBackend, HttpError, HttpOptions, Problem};

    let url = server.url();
    if file.writes() {
        return Err(HttpError::new(url, Problem::ReadOnly).into());
    }
    let mut options = HttpOptions::new().timeout(remote.timeout);
    if let Some(connections) = remote.connections {
        options = options.connections(connections);
    }
    let authorities = server
        .certificates
        .as_ref()
        .map(|folder| folder.join("ca-cert.pem"));
    let backend = HttpBackend::open(url, authorities.as_deref(), options)?;
    Ok(Storage::raw(Arc::new(backend), Nature::Export))
}

#[cfg(not(feature = "http"))]
pub(super) fn open(server: &Server, _: Remote, _: OpenOptions) -> Result<Storage, Error> {
    let missing = crate::MissingFeature::new("a volume on a web server", "http");
    Err(Error::new(super::Kind::Unsupported, missing).about(server))
}
