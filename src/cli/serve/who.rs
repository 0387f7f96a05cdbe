//! Who may connect: users of this machine, and certificates.

use std::path::PathBuf;

use clap::Args;
use luksmith::channel::ServerTls;

use crate::cli::args::LocalFile;
use crate::cli::error::CommandError;

/// Who may connect.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may connect")]
pub(super) struct WhoArgs {
    /// Let the user with this number connect through the socket, and nobody who is not named so
    /// (repeatable)
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,

    /// Require TLS, with the certificate (and its chain) in FILE
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "tls_dir", value_parser = LocalFile
    )]
    tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_parser = LocalFile)]
    tls_key: Option<PathBuf>,

    /// Let clients connect that show a certificate of the authority in FILE, and no others
    #[arg(long, value_name = "FILE", requires = "tls_cert", value_parser = LocalFile)]
    tls_client_ca: Option<PathBuf>,

    /// Require TLS, with server-cert.pem and server-key.pem of DIR, and certificates of ca-cert.pem
    /// from clients
    #[arg(long, value_name = "DIR", value_parser = LocalFile)]
    tls_dir: Option<PathBuf>,

    /// Serve plaintext over TCP without TLS to this machine (loopback), or over TLS to clients
    /// without a certificate
    #[arg(long)]
    pub(super) insecure: bool,
}

impl WhoArgs {
    pub(super) fn allow_uids(&self) -> Option<Vec<u32>> {
        (!self.allow_uid.is_empty()).then(|| self.allow_uid.clone())
    }

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
