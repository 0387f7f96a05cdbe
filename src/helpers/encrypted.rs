//! `key-systemd-creds`: each secret is a credential in a directory, which systemd-creds encrypts
//! with a key of the host, of its TPM, or of both.
//!
//! Settings: `directory` (by default `/etc/credstore.encrypted`), `with-key` (for
//! `systemd-creds encrypt --with-key`; by default systemd-creds chooses), and `program` (by default
//! `/usr/bin/systemd-creds`). The name of the credential is the reference.

use std::path::PathBuf;

use super::failure::Failure;
use super::files::Files;
use super::settings::Settings;
use super::store::{Store, Value};
use crate::Interrupt;
use crate::secret::{Helper, LockedBytes, MAX_KEY_FILE, SecretError};

pub(super) struct Encrypted {
    path: PathBuf,
    program: PathBuf,
    with_key: Option<String>,
}

impl Encrypted {
    pub(super) fn new(mut settings: Settings) -> Result<Self, Failure> {
        let path = settings.path("directory", "/etc/credstore.encrypted")?;
        let program = settings.path("program", "/usr/bin/systemd-creds")?;
        let with_key = settings.take("with-key");
        settings.finish()?;
        Ok(Self {
            path,
            program,
            with_key,
        })
    }

    /// Runs `systemd-creds VERB --name=NAME - -`.
    fn run(&self, verb: &str, name: &str, bytes: &[u8]) -> Result<LockedBytes, Failure> {
        let mut program = Helper::new(&self.program)
            .argument(verb)
            .argument(format!("--name={name}"));
        if let Some(key) = self.with_key.as_ref().filter(|_| verb == "encrypt") {
            program = program.argument(format!("--with-key={key}"));
        }
        let ran = program.argument("-").argument("-").run_with(
            bytes,
            MAX_KEY_FILE * 2,
            &Interrupt::new(),
        );
        ran.map_err(|error| match &error {
            SecretError::Helper { from, source } => Failure::other(format!("{from}: {source}")),
            _ => Failure::other(error),
        })
    }
}

impl Store for Encrypted {
    fn get(&self, reference: &str) -> Result<Value, Failure> {
        let name = Files::name(reference)?;
        let (encrypted, revision) = Files::open(&self.path)?.read(name)?;
        let secret = self.run("decrypt", reference, &encrypted)?;
        Ok(Value { secret, revision })
    }

    fn store(
        &self,
        reference: &str,
        secret: &LockedBytes,
        new: bool,
        revision: Option<&str>,
    ) -> Result<(), Failure> {
        let name = Files::name(reference)?;
        let encrypted = self.run("encrypt", reference, secret)?;
        Files::open(&self.path)?.replace(name, &encrypted, new, revision)
    }

    fn erase(&self, reference: &str) -> Result<(), Failure> {
        let name = Files::name(reference)?;
        Files::open(&self.path)?.remove(name)
    }

    fn check(&self, reference: &str) -> Result<(), Failure> {
        Files::name(reference)?;
        if let Err(error) = std::fs::metadata(&self.program) {
            return Err(Failure::io(self.program.display(), &error));
        }
        Files::open(&self.path)?.check()
    }
}
