//! Errors of web servers.

use super::kinds;
use crate::backend::http::{HttpError, Problem};
use crate::http::AuthoritiesError;
use crate::task::Kind;

kinds! {
    HttpError => http,
}

fn http(error: &HttpError) -> Kind {
    match &error.source {
        Problem::Authorities(AuthoritiesError::File { source, .. }) => Kind::of_io(source),
        Problem::Denied(_) | Problem::ReadOnly => Kind::Permission,
        Problem::NoRanges | Problem::NoVersion => Kind::Unsupported,
        Problem::Url => Kind::Parameters,
        _ => Kind::Storage,
    }
}
