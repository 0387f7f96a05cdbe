//! The master key with which QEMU decrypts passphrases, and its file.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use luksmith::qemu::{MasterKey, Monitor as _, Object, Qmp};
use luksmith::secret::{Purpose, SecretSource, Source};
use luksmith_formats::json::json;

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind, failed};
use crate::cli::output;
use crate::cli::signals::Signals;
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

/// Passes a temporary key to a running QEMU through a file, which is removed when this returns.
/// Returns the id of the secret.
pub(super) fn give(
    session: &Session,
    qmp: &mut Qmp,
    key: &MasterKey,
) -> Result<String, CommandError> {
    let (uid, gid) = qmp.peer()?;
    let ours = rustix::process::geteuid().as_raw();
    if ours != uid && ours != 0 {
        let message = format!("QEMU runs as user {uid}, to whom user {ours} cannot give a file");
        return Err(CommandError::new(Kind::Permission, message)
            .hint("--master-key FILE names the master key that QEMU was started with"));
    }
    let file = Passing::create(&session.signals, (ours != uid).then_some((uid, gid)), key)?;
    let object = Object::SecretFile {
        id: format!("luksmith-master-{}", std::process::id()),
        path: file.0.display().to_string(),
        base64: true,
    };
    qmp.execute("object-add", &object.json())?;
    Ok(object.id().to_owned())
}

/// Removes the key from QEMU.
pub(super) fn take(qmp: &mut Qmp, id: &str) -> Result<(), CommandError> {
    qmp.execute("object-del", &json!({"id": id}))?;
    Ok(())
}

/// A file that is removed when this is dropped. It is in memory where the system has such a folder.
struct Passing(PathBuf, Signals);

impl Passing {
    fn create(
        signals: &Signals,
        owner: Option<(u32, u32)>,
        key: &MasterKey,
    ) -> Result<Self, CommandError> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| owner.is_none());
        let folder = match own.map(PathBuf::from) {
            Some(folder) => folder,
            None if owner.is_some() => PathBuf::from("/run"),
            None => std::env::temp_dir(),
        };
        let path = folder.join(format!(".luksmith-{}", std::process::id()));
        let mut open = OpenOptions::new();
        let mut file = open
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("create", &path, error))?;
        signals.begin(&path);
        let passing = Self(path, signals.clone());
        let text = key.to_base64()?;
        let written = match owner {
            Some((uid, gid)) => fchown(&file, Some(uid), Some(gid)),
            None => Ok(()),
        };
        written
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| failed("write", &passing.0, error))?;
        Ok(passing)
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            output::warning(format_args!("{} is left: {error}", self.0.display()));
        }
        self.1.end(&self.0);
    }
}
