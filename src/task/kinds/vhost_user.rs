//! Errors of vhost-user.

use super::kinds;
use crate::export::vhost_user::ServeError;
use crate::task::Kind;

kinds! {
    ServeError => serve,
}

fn serve(error: &ServeError) -> Kind {
    match error {
        ServeError::BlockSize(_) => Kind::Parameters,
        _ => Kind::Storage,
    }
}
