//! Which clients can connect: users of this machine, and owners of certificates.

use std::path::PathBuf;

use clap::Args;
use luksmith::channel::ServerTls;

use crate::cli::args::LocalFile;
use crate::cli::error::CommandError;

/// Which clients can connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which clients can connect")]
pub(super) struct ClientArgs {
    /// Only the users with these numbers can connect to the Unix socket (repeatable)
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,

    /// Require TLS, with the certificate in FILE, which can contain its chain too
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "tls_dir", value_parser = LocalFile
    )]
    tls_cert: Option<PathBuf>,

    /// The private key for --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_parser = LocalFile)]
    tls_key: Option<PathBuf>,

    /// Only clients with a certificate of the authority in FILE can connect
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_parser = LocalFile)]
    tls_client_ca: Option<PathBuf>,

    /// Require TLS, with server-cert.pem and server-key.pem in DIR. Only clients with a certificate
    /// of the authority in ca-cert.pem can connect
    #[arg(long, value_name = "DIR", value_parser = LocalFile)]
    tls_dir: Option<PathBuf>,

    /// Allow TCP without TLS on a loopback address, for every user of this machine, or TLS for
    /// clients without a certificate
    #[arg(long)]
    pub(super) insecure: bool,
}

impl ClientArgs {
    /// The users that can connect; `None` for all.
    pub(super) fn allow_uids(&self) -> Option<Vec<u32>> {
        (!self.allow_uid.is_empty()).then(|| self.allow_uid.clone())
    }

    /// The certificates; `None` if TLS is not required.
    pub(super) fn tls(&self) -> Result<Option<ServerTls>, CommandError> {
        let tls = match (&self.tls_dir, &self.tls_cert, &self.tls_key) {
            (Some(directory), ..) => ServerTls::from_directory(directory)?,
            (None, Some(certificate), Some(key)) => {
                ServerTls::from_files(certificate, key, self.tls_client_ca.as_deref())?
            }
            _ => return Ok(None),
        };
        Ok(Some(tls))
    }
}
