//! Errors of NBD and TLS.

use std::io;

use super::kinds;
use crate::backend::nbd::{NbdError, Problem};
use crate::channel::TlsError;
use crate::export::nbd::ServeError;
use crate::task::Kind;

kinds! {
    NbdError => nbd,
    TlsError => tls,
    ServeError => serve,
}

fn nbd(error: &NbdError) -> Kind {
    match &error.source {
        Problem::ReadOnly => Kind::Permission,
        Problem::Interrupted => Kind::Interrupted,
        Problem::NoCertificates | Problem::TlsRequired => Kind::Parameters,
        Problem::Tls(error) => tls(error),
        Problem::BlockSizes { .. } => Kind::Unsupported,
        _ => Kind::Storage,
    }
}

fn tls(error: &TlsError) -> Kind {
    match error {
        TlsError::Exposed { .. } => Kind::Permission,
        TlsError::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Kind::Permission
        }
        TlsError::Lock(_) => Kind::Memory,
        TlsError::Half { .. } => Kind::Parameters,
        _ => Kind::Storage,
    }
}

fn serve(error: &ServeError) -> Kind {
    match error {
        ServeError::SameName(_) | ServeError::BadText { .. } => Kind::Parameters,
        _ => Kind::Storage,
    }
}
