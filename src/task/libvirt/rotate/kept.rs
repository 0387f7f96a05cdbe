//! The second secret of a rotation, which keeps the passphrase that is in no other secret.
//!
//! Its usage names the secret that is rotated. A secret with any other usage is never read, changed
//! or removed here, whatever a journal says.

use uuid::Uuid;

use super::error::RotateError;
use crate::libvirt::xml::{SecretXml, Usage};
use crate::libvirt::{Connection, LibvirtError, Secret};
use crate::secret::Passphrase;
use crate::task::Error;

/// The second secret.
pub(super) struct Kept(Secret);

fn usage(rotated: &Uuid) -> Usage {
    Usage::volume(format!("luksmith rotation of {rotated}"))
}

impl Kept {
    /// The second secret with this UUID. `None` if there is none, or if it is another secret.
    pub(super) fn find(
        connection: &Connection,
        uuid: &Uuid,
        rotated: &Uuid,
    ) -> Result<Option<Self>, Error> {
        let secret = match connection.secret(uuid) {
            Ok(secret) => secret,
            Err(LibvirtError::NoSecret(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let ours = secret.usage()? == Some(usage(rotated));
        Ok(ours.then_some(Self(secret)))
    }

    /// Fails if there is a second secret with another UUID: that of a rotation with another
    /// directory of journals, or of one whose journal is lost.
    pub(super) fn check(connection: &Connection, uuid: &Uuid, rotated: &Uuid) -> Result<(), Error> {
        let found = match connection.secret_for(&usage(rotated)) {
            Ok(secret) => secret.uuid()?,
            Err(LibvirtError::NoSecret(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if found == *uuid {
            return Ok(());
        }
        Err(RotateError::OtherJournal(found).into())
    }

    /// The second secret, which is made if it does not exist.
    pub(super) fn define(
        connection: &Connection,
        uuid: &Uuid,
        rotated: &Uuid,
        private: bool,
    ) -> Result<Self, Error> {
        if let Some(kept) = Self::find(connection, uuid, rotated)? {
            return Ok(kept);
        }
        let description = "a passphrase of a rotation that is not finished";
        let definition = SecretXml::new(Some(usage(rotated)))
            .uuid(Some(uuid.to_string()))
            .description(Some(description.to_owned()))
            .private(private);
        Ok(Self(connection.define_secret(&definition.to_xml()?)?))
    }

    /// Its value, if libvirt returns it.
    pub(super) fn value(&self) -> Option<Passphrase> {
        self.0.value().ok()
    }

    pub(super) fn store(&self, passphrase: &Passphrase) -> Result<(), Error> {
        Ok(self.0.store(passphrase)?)
    }

    pub(super) fn undefine(&self) -> Result<(), Error> {
        Ok(self.0.undefine()?)
    }
}
