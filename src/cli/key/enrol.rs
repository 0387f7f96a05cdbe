//! What `luksmith key add` makes itself instead of asking for a new passphrase: the passphrase, and
//! the token that says where it is.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use luksmith::kdf::calibrate::Cost;
use luksmith::secret::{LockedBytes, Passphrase};
use luksmith::tokens::clevis::Advertisement;
use luksmith::tokens::tpm2::{self, Pcrs};
use luksmith::tokens::{TokenOptions, recovery};
use luksmith_formats::json::Value;

use crate::cli::Session;
use crate::cli::args::{LocalFile, TokenArgs};
use crate::cli::error::{CommandError, Kind, stdout_failed};
use crate::cli::force::ask;
use crate::cli::output;
use crate::cli::passphrase::KeySource;
use crate::cli::qr::Code;
use crate::cli::streams::{check_secret, secret_to_stdout, write_secret};

/// The options of a keyslot whose passphrase is made, and has a token.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Token")]
pub(super) struct EnrolArgs {
    /// Make a recovery key, as systemd-cryptenroll does, and show it once on the terminal (LUKS2)
    ///
    /// The key has 256 random bits, so its keyslot has a cheap key derivation: PBKDF2 with SHA-512
    /// and 1000 iterations. Its token has the type systemd-recovery. `--token-type
    /// systemd-recovery` accepts the key without its dashes and in capitals too.
    #[arg(long, conflicts_with_all = ["new_key", "new_key_file", "unbound", "pbkdf", "pbkdf_force_iterations", "pbkdf_memory", "pbkdf_parallel"])]
    recovery_key: bool,

    /// Bind a random passphrase to the Tang server at URL, as `clevis luks bind` does (LUKS2)
    ///
    /// The keyslot has 256 random bits as its passphrase, and a cheap key derivation. The token of
    /// type clevis has the passphrase in a form that only the server helps to decrypt. The server
    /// is asked for its keys, which it signs.
    #[arg(long, value_name = "URL", conflicts_with_all = ["new_key", "new_key_file", "unbound", "recovery_key", "tpm2", "pbkdf", "pbkdf_force_iterations", "pbkdf_memory", "pbkdf_parallel"])]
    tang: Option<String>,

    /// The thumbprint of a signing key of the Tang server (`tang-show-keys` prints it); without it,
    /// the terminal asks whether the server's is right
    #[arg(
        long,
        value_name = "THUMBPRINT",
        requires = "tang",
        allow_hyphen_values = true
    )]
    tang_thumbprint: Option<String>,

    /// Write the recovery key to FILE, which is new and gets mode 0600, instead of to the terminal;
    /// - is stdout, unless it is a terminal
    #[arg(long, value_name = "FILE", requires = "recovery_key", value_parser = LocalFile)]
    out: Option<PathBuf>,

    /// Let the TPM of --tpm2-device seal a random passphrase, as systemd-cryptenroll does (LUKS2)
    ///
    /// The passphrase has 256 random bits, so its keyslot has a cheap key derivation, as that of
    /// --recovery-key. `--token-type systemd-tpm2` opens it.
    #[arg(long, conflicts_with_all = ["recovery_key", "new_key", "new_key_file", "unbound", "pbkdf", "pbkdf_force_iterations", "pbkdf_memory", "pbkdf_parallel"])]
    tpm2: bool,

    /// Bind it to the present values of these PCRs of the SHA-256 bank, such as 0+7 [default: none]
    #[arg(long, value_name = "PCRS", requires = "tpm2", value_parser = parse_pcrs)]
    tpm2_pcrs: Option<Pcrs>,

    /// The source of a PIN, as for --key, without which the TPM does not unseal it
    #[arg(long, value_name = "SOURCE", requires = "tpm2")]
    tpm2_pin: Option<String>,
}

fn parse_pcrs(text: &str) -> Result<Pcrs, String> {
    text.parse::<Pcrs>().map_err(|error| error.to_string())
}

/// A passphrase that was made.
pub(super) struct Enrolment {
    pub(super) passphrase: Passphrase,
    /// The token, without keyslots.
    pub(super) token: Value,
    /// The cost of its keyslot.
    pub(super) cost: Cost,
}

impl EnrolArgs {
    /// Refuses what cannot succeed, before a passphrase is asked for.
    pub(super) fn check(&self, session: &Session) -> Result<(), CommandError> {
        if !self.recovery_key {
            return Ok(());
        }
        match &self.out {
            Some(path) => {
                session.refuse_json_beside(path)?;
                check_secret(path)
            }
            None if session.json || !io::stdout().is_terminal() => Err(CommandError::parameters(
                "the recovery key is shown only on a terminal",
            )
            .hint("--out FILE writes it to a new file")),
            None => Ok(()),
        }
    }

    /// Whether the passphrase is made, and no source is read for it.
    pub(super) fn is_given(&self) -> bool {
        self.recovery_key || self.tpm2 || self.tang.is_some()
    }

    /// The source of the PIN, beside that of a passphrase.
    pub(super) fn pin(&self, old: Option<&KeySource>) -> Result<Option<KeySource>, CommandError> {
        let Some(source) = &self.tpm2_pin else {
            return Ok(None);
        };
        let pin = KeySource::named("--tpm2-pin", source)?;
        match old {
            Some(old) => pin.beside(old, "--tpm2-pin").map(Some),
            None => Ok(Some(pin)),
        }
    }

    /// Makes the passphrase and its token.
    pub(super) fn make(
        &self,
        session: &Session,
        tokens: &TokenArgs,
        pin: Option<&KeySource>,
    ) -> Result<Option<Enrolment>, CommandError> {
        let (passphrase, token) = match &self.tang {
            Some(url) => self.bind(url, session)?,
            None if self.tpm2 => return self.seal(session, tokens, pin).map(Some),
            None if self.recovery_key => (recovery::generate()?, recovery::token()),
            None => return Ok(None),
        };
        Ok(Some(Enrolment {
            passphrase,
            token,
            cost: recovery::COST,
        }))
    }

    fn seal(
        &self,
        session: &Session,
        tokens: &TokenArgs,
        pin: Option<&KeySource>,
    ) -> Result<Enrolment, CommandError> {
        let pin = pin.map(|source| source.fresh_pin(session, "the TPM"));
        let pin = pin.transpose()?;
        let device = tokens.tpm2_device.clone().unwrap_or_default();
        let pcrs = self.tpm2_pcrs.unwrap_or_default();
        let sealed = tpm2::seal(&device, pcrs, pin.as_ref(), session.signals.interrupt())?;
        if !sealed.pcrs_are_used() {
            output::warning(format_args!(
                "nothing was measured into {pcrs}: other systems have the same values, and the \
                 binding protects nothing"
            ));
        }
        let token = sealed.token().to_json();
        Ok(Enrolment {
            passphrase: sealed.into_passphrase(),
            token,
            cost: recovery::COST,
        })
    }

    /// A passphrase, and a token with which a Tang server helps to find it.
    fn bind(&self, url: &str, session: &Session) -> Result<(Passphrase, Value), CommandError> {
        let options = TokenOptions::default();
        let interrupt = session.signals.interrupt();
        let advertised = Advertisement::fetch(url, &options, interrupt)
            .map_err(|error| CommandError::from(error).about("--tang"))?;
        match &self.tang_thumbprint {
            Some(thumbprint) if advertised.is_signed_by(thumbprint) => {}
            Some(_) => {
                let message = "--tang-thumbprint: the server has no signing key with it";
                return Err(CommandError::new(Kind::Permission, message)
                    .hint("`tang-show-keys` on the server prints the thumbprints"));
            }
            None => {
                let thumbprints: Vec<_> = advertised.thumbprints().collect();
                let question = format!(
                    "the server {url} signs with the keys {}, which are not known",
                    thumbprints.join(", ")
                );
                if session.json || !io::stdin().is_terminal() {
                    return Err(CommandError::new(Kind::Permission, question)
                        .hint("--tang-thumbprint THUMBPRINT says which key is right"));
                }
                ask("trust", &question)?;
            }
        }
        let passphrase = Passphrase::generate()?;
        let bound = advertised.bind(&passphrase, &options, interrupt);
        let token = bound.map_err(|error| CommandError::from(error).about("--tang"))?;
        Ok((passphrase, token))
    }

    /// Writes a recovery key to its file, before its keyslot is in the header.
    pub(super) fn write(&self, made: &Enrolment, session: &Session) -> Result<(), CommandError> {
        match &self.out {
            Some(path) => write_secret(path, made.passphrase.as_bytes(), session),
            None => Ok(()),
        }
    }

    /// Shows a recovery key that has no file, when its keyslot is in the header.
    pub(super) fn show(&self, made: &Enrolment) -> Result<(), CommandError> {
        match self.recovery_key && self.out.is_none() {
            true => show(made.passphrase.as_bytes()).map_err(stdout_failed),
            false => Ok(()),
        }
    }

    /// Says that a keyslot whose recovery key was written may not be there.
    pub(super) fn not_added(&self, error: CommandError) -> CommandError {
        let file = self.out.as_deref().filter(|path| *path != Path::new("-"));
        error.hint_if(file.map(|path| {
            format!(
                "the recovery key in {} opens nothing, unless `luksmith key test IMAGE --key-file` \
                 says so",
                path.display()
            )
        }))
    }

    /// The file that the key goes to; `-` is stdout.
    pub(super) fn file(&self) -> Option<&Path> {
        self.out.as_deref()
    }
}

/// Shows a recovery key on the terminal, and as a QR code if its characters can show one.
fn show(key: &[u8]) -> io::Result<()> {
    let mut page = LockedBytes::new(PAGE).map_err(io::Error::other)?;
    let mut rest = &mut page[..];
    rest.write_all(b"\n    ")?;
    rest.write_all(key)?;
    rest.write_all(b"\n\n")?;
    if is_utf8()
        && let Some(code) = Code::new(key)
    {
        code.map_err(io::Error::other)?.write(&mut rest)?;
        rest.write_all(b"\n")?;
    }
    let left = rest.len();
    secret_to_stdout(page.get(..PAGE - left).unwrap_or_default())
}

/// Enough bytes for what [`show`] writes.
const PAGE: usize = 4096;

/// Whether the locale says that the terminal shows UTF-8.
fn is_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
