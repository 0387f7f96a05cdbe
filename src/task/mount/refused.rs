//! What the helper for ordinary users refuses.

use std::path::Path;

use crate::sys::fuse::HelperError;
use crate::task::{Advice, Error, Kind};

/// The error of the helper for ordinary users.
pub(super) fn refused(error: HelperError, verb: &str, path: &Path) -> Error {
    match error {
        HelperError::System(error) => Error::io(verb, path, error),
        HelperError::Missing(error) => {
            let why = format!("only root can {verb} without fusermount3");
            let error = Error::new(Kind::Unsupported, error).about(why);
            error.advise(Advice::InstallFuse)
        }
        HelperError::Refused(said) => {
            let others = said.contains("user_allow_other");
            Error::new(Kind::Permission, said)
                .about(format_args!(
                    "cannot {verb} {}: fusermount3",
                    path.display()
                ))
                .advise_if(others, Advice::UserAllowOther)
        }
    }
}
