//! The master key with which QEMU decrypts passphrases, and its file.

use std::path::Path;

use luksmith::qemu::MasterKey;
use luksmith::secret::{Purpose, SecretSource, Source};

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};
use crate::cli::output;
use crate::cli::streams::write_secret;

/// The key in a file, or a new key that is written to a new file.
pub(super) fn known_or_new(session: &Session, path: &Path) -> Result<MasterKey, CommandError> {
    if path.symlink_metadata().is_ok() {
        return known(session, path);
    }
    let key = MasterKey::random()?;
    write_secret(path, key.to_base64()?.as_bytes(), session)?;
    output::note(format_args!(
        "made the master key {}: QEMU's user has to be able to read it, and no other user",
        path.display()
    ));
    Ok(key)
}

/// The key in a file.
pub(super) fn known(session: &Session, path: &Path) -> Result<MasterKey, CommandError> {
    let purpose = Purpose::unlock("the master key", session.signals.interrupt());
    let text = Source::file(path).read(purpose)?;
    MasterKey::from_base64(&text)?.map_err(|error| {
        CommandError::new(Kind::Parameters, error)
            .about(path.display())
            .hint("`luksmith qemu args --master-key FILE` makes one in a new file")
    })
}
