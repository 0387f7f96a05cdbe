//! Why a bucket cannot be used at all.

use std::io;
use std::path::PathBuf;

use crate::http::AuthoritiesError;

/// Why a store cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum S3Error {
    /// The authorities to trust are not known.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// A file of profiles cannot be read.
    #[error("the profiles in {path} cannot be read")]
    Profiles {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The access key has a session token, and the endpoint is another machine without TLS.
    #[error("the session token of the access key would be sent in clear (http://)")]
    TokenInClear,
    /// There is no access key.
    #[error("there is no access key for the object store")]
    NoKey,
    /// A profile is not there, or has no access key.
    #[error("there is no profile '{profile}' with an access key")]
    NoProfile {
        /// The name of the profile.
        profile: String,
    },
}
