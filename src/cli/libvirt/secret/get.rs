//! `luksmith libvirt secret get`: writes the value of a secret for a program.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use luksmith::libvirt::xml::SecretRef;
use luksmith::task::outcome::SecretChange;

use crate::cli::Session;
use crate::cli::error::{CommandError, failed};
use crate::cli::libvirt::connect::ConnectArgs;
use crate::cli::output;
use crate::cli::streams::{is_terminal, write_secret};

/// Write the value of a secret into a file or a descriptor
///
/// Exactly the bytes of the value are written, and never to a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(required = true, multiple = false, id = "to")]
pub(crate) struct Args {
    /// The secret: a UUID, or usage=TYPE:ID
    #[arg(value_name = "SECRET")]
    secret: SecretRef,

    /// The file to make, with mode 0600; - is stdout, if that is not a terminal
    #[arg(long, value_name = "FILE", group = "to")]
    out: Option<PathBuf>,

    /// Write to the open descriptor N, if that is not a terminal
    #[arg(long, value_name = "N", group = "to")]
    fd: Option<u32>,

    #[command(flatten)]
    connect: ConnectArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt secret get usage=volume:/pool/vm.img --out vm.key
  luksmith libvirt secret get usage=volume:/pool/vm.img --out - | cryptsetup luksOpen --test-passphrase --key-file - /pool/vm.img
  luksmith libvirt secret get 6c1f3c1e-4c22-4e8c-8a0e-4f7a5d0f9a11 --fd 3 3>vm.key";

impl Args {
    pub(crate) fn run(self, session: &Session) -> Result<(), CommandError> {
        // The output is checked before libvirt is asked for the value.
        let mut descriptor = match self.fd {
            Some(number) => {
                let path = PathBuf::from(format!("/proc/self/fd/{number}"));
                let open = || OpenOptions::new().append(true).open(&path);
                let open = session.signals.ending(open)?;
                let open = open.map_err(|error| {
                    failed("write to descriptor", Path::new(&number.to_string()), error)
                })?;
                Some((open, path))
            }
            None => None,
        };
        let shown = match (&descriptor, self.out.as_deref()) {
            (Some((open, _)), _) => open.is_terminal(),
            (None, Some(out)) if out == Path::new("-") => std::io::stdout().is_terminal(),
            (None, Some(out)) => is_terminal(out, session)?,
            (None, None) => true,
        };
        if shown {
            return Err(CommandError::parameters(
                "the value of a secret is never shown on a terminal",
            )
            .hint("--out names a new file; --out - and --fd N write to a program or a file"));
        }
        let connection = self.connect.open()?;
        let about = |error| CommandError::from(error).about(&self.secret);
        let secret = connection.find_secret(&self.secret).map_err(about)?;
        let value = secret.value().map_err(about)?;
        let file = match (&mut descriptor, self.out) {
            (Some((open, path)), _) => {
                let written = session
                    .signals
                    .ending(|| open.write_all(value.as_bytes()))?;
                written.map_err(|error| failed("write", path, error))?;
                path.clone()
            }
            (None, out) => {
                let out = out.unwrap_or_default();
                write_secret(&out, value.as_bytes(), session)?;
                out
            }
        };
        let written = SecretChange::Written {
            secret: secret.uuid()?,
            file: file.clone(),
        };
        match self.fd {
            Some(_) => output::note(&written),
            None => session.wrote(&file, &written),
        }
        Ok(())
    }
}
