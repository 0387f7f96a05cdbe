//! Errors of mounted files.

use super::kinds;
use crate::export::fuse::ServeError;
use crate::task::Kind;

kinds! {
    ServeError => serve,
}

fn serve(error: &ServeError) -> Kind {
    match error {
        ServeError::OldKernel => Kind::Unsupported,
        _ => Kind::Storage,
    }
}
