//! Key stores as sources of passphrases: `helper:` and `generate:helper:`.

use super::error::KeyStoreError;
use super::{Expected, HelperFolders, KeyStore};
use crate::secret::{
    ParseSourceError, Passphrase, Purpose, Scheme, SecretError, SecretSource, Wanted,
};

/// A scheme whose sources are the values of key stores.
#[derive(Clone, Debug)]
pub struct HelperScheme {
    folders: HelperFolders,
    generate: bool,
}

impl HelperScheme {
    /// `helper:NAME[:REFERENCE]`: the value that the store has.
    #[must_use]
    pub fn existing(folders: HelperFolders) -> Self {
        let generate = false;
        Self { folders, generate }
    }

    /// `generate:helper:NAME:REFERENCE`: a new random passphrase, which the store has before it is
    /// used.
    #[must_use]
    pub fn generated(folders: HelperFolders) -> Self {
        let generate = true;
        Self { folders, generate }
    }
}

impl Scheme for HelperScheme {
    fn name(&self) -> &'static str {
        match self.generate {
            true => "generate:helper",
            false => "helper",
        }
    }

    fn parse(&self, rest: &str) -> Result<Box<dyn SecretSource>, ParseSourceError> {
        let store = KeyStore::new(rest.parse()?, self.folders.clone());
        if self.generate && !store.reference().has_reference() {
            let message = "generate:helper: takes a reference: generate:helper:NAME:REFERENCE";
            return Err(ParseSourceError::Scheme(message.to_owned()));
        }
        Ok(Box::new(StoreSource {
            store,
            generate: self.generate,
        }))
    }
}

/// The value of a key store as a source of a passphrase.
#[derive(Debug)]
pub struct StoreSource {
    store: KeyStore,
    generate: bool,
}

impl StoreSource {
    /// The value that the store has.
    #[must_use]
    pub fn existing(store: KeyStore) -> Self {
        let generate = false;
        Self { store, generate }
    }

    /// A new random passphrase of 256 bits. It is put into the store, which must not have a value
    /// under this reference, and is read back before the caller gets it.
    #[must_use]
    pub fn generated(store: KeyStore) -> Self {
        let generate = true;
        Self { store, generate }
    }

    fn get(&self, purpose: Purpose<'_>) -> Result<Passphrase, KeyStoreError> {
        let (volume, interrupt) = (purpose.volume, purpose.interrupt);
        let present = self.store.get(volume, interrupt);
        if !self.generate {
            return Ok(present?.passphrase);
        }
        match present {
            Ok(_) => return Err(KeyStoreError::Present),
            Err(KeyStoreError::NoValue) => {}
            Err(error) => return Err(error),
        }
        let new = Passphrase::generate()?;
        let stored = self
            .store
            .store(&new, Expected::Nothing, volume, interrupt)?;
        Ok(stored.passphrase)
    }
}

impl SecretSource for StoreSource {
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
        let reference = self.store.reference();
        let from = match self.generate {
            true => format!("generate:{reference}"),
            false => reference.to_string(),
        };
        if self.generate && purpose.what == Wanted::Unlock {
            return Err(SecretError::OnlyNew { from });
        }
        self.get(purpose).map_err(|error| error.of(from))
    }
}
