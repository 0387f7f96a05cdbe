//! Changes the keyslots of a volume that a running QEMU has open, through QEMU's monitor.
//!
//! Passphrases reach QEMU encrypted with a master key. If the caller has no key that QEMU was
//! started with, QEMU gets a temporary key in a file, which is removed as soon as QEMU has read it.

use std::io::Write;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use luksmith_formats::json::json;
use rustix::fs::OFlags;

use super::{Advice, Error, Kind, MadeFile, Note, Watch};
use crate::qemu::{
    self, AmendError, Gone, Keyslots, MasterKey, Monitor, NewKeyslot, Node, Object, Qmp, Wrapped,
};
use crate::secret::Passphrase;
use crate::sys::folder::Folder;

/// A running QEMU that has a volume open.
pub struct Running<'a> {
    watch: &'a dyn Watch,
    qmp: Qmp,
    node: Node,
    before: Keyslots,
    master: Master,
}

/// The master key with which QEMU decrypts passphrases.
pub enum Master {
    /// The key that QEMU was started with.
    Known {
        /// The id that the key has in QEMU.
        id: String,
        /// The key.
        key: MasterKey,
    },
    /// A temporary key, which is passed through a file.
    Temporary {
        /// The folder of that file if QEMU runs as the same user. One in memory is best. If QEMU
        /// runs as another user, the folder is `/run`.
        folder: PathBuf,
    },
}

/// Which keyslots are removed.
#[derive(Clone, Copy)]
pub enum Removal<'a> {
    /// The keyslot with this number.
    Keyslot(u32),
    /// Every keyslot that this passphrase opens.
    OpenedBy(&'a Passphrase),
}

impl<'a> Running<'a> {
    /// Connects to a monitor, to which no other client may be connected. `node` is the block node
    /// of the volume. Without it, the only one with a LUKS header is used.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a QEMU that cannot change keyslots, [`Kind::Parameters`] if it has
    /// no volume or several volumes open, and what the monitor reports.
    pub fn connect(
        socket: &Path,
        timeout: Duration,
        node: Option<&str>,
        master: Master,
        watch: &'a dyn Watch,
    ) -> Result<Self, Error> {
        let mut qmp = Qmp::connect(socket, timeout)?;
        tracing::info!(version = qmp.version(), "connected to QEMU");
        let mut nodes = qemu::luks_nodes(&mut qmp)?;
        if let Some(name) = node {
            nodes.retain(|node| node.name == name);
            if nodes.is_empty() {
                return Err(AmendError::NotLuks(name.to_owned()).into());
            }
        }
        let node = only_node(nodes)?;
        qemu::check_amend(&mut qmp, node.driver)?;
        let before = qemu::keyslots(&mut qmp, &node)?;
        Ok(Self {
            watch,
            qmp,
            node,
            before,
            master,
        })
    }

    /// The block node of the volume.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node.name
    }

    /// The keyslots as they were when the monitor was connected.
    #[must_use]
    pub fn before(&self) -> &Keyslots {
        &self.before
    }

    /// The keyslots as they are now.
    ///
    /// # Errors
    /// The errors that QEMU reports.
    pub fn now(&mut self) -> Result<Keyslots, Error> {
        Ok(qemu::keyslots(&mut self.qmp, &self.node)?)
    }

    /// Stores another passphrase in a free keyslot. `existing` opens the volume; by default that is
    /// the passphrase with which QEMU was started. `iter_time` is how long opening the new keyslot
    /// takes on QEMU's host, in milliseconds.
    ///
    /// # Errors
    /// The errors that QEMU reports.
    pub fn add(
        &mut self,
        new: &Passphrase,
        existing: Option<&Passphrase>,
        iter_time: Option<u32>,
    ) -> Result<(), Error> {
        self.with_key(|running, id, key| {
            let existing = existing.map(|old| key.wrap(old)).transpose()?;
            let new = key.wrap(new)?;
            running.set(id, &new, existing.as_ref(), iter_time)
        })
    }

    /// Removes keyslots. `force` also removes the last one, after which nothing opens the volume
    /// when QEMU has ended.
    ///
    /// # Errors
    /// The errors that QEMU reports.
    pub fn remove(&mut self, which: Removal<'_>, force: bool) -> Result<(), Error> {
        self.with_key(|running, id, key| match which {
            Removal::Keyslot(slot) => running.unset(id, Gone::Keyslot(slot), force),
            Removal::OpenedBy(old) => running.unset(id, Gone::OpenedBy(&key.wrap(old)?), force),
        })
    }

    /// Stores a new passphrase, then removes the keyslots of the old one. If the old passphrase is
    /// wrong, the new one is removed again.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if both are the same, and what QEMU reports.
    pub fn change(
        &mut self,
        old: &Passphrase,
        new: &Passphrase,
        iter_time: Option<u32>,
    ) -> Result<(), Error> {
        if old.ct_eq(new) {
            return Err(Error::parameters(
                "the new passphrase is the same as the old one, and would be removed with it",
            ));
        }
        self.with_key(|running, id, key| {
            let (old, new) = (key.wrap(old)?, key.wrap(new)?);
            running.set(id, &new, Some(&old), iter_time)?;
            let removed = running.unset(id, Gone::OpenedBy(&old), false);
            removed.map_err(|error| match running.remove_added(id, &new) {
                Ok(()) => error.advise(Advice::NothingChanged),
                Err(left) => error.advise(Advice::NewPassphraseStays(left.line())),
            })
        })
    }

    /// Calls `work` with a master key that QEMU has, and its id. A temporary key is removed from
    /// QEMU afterwards.
    fn with_key(
        &mut self,
        work: impl FnOnce(&mut Self, &str, &MasterKey) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let folder = match &self.master {
            Master::Temporary { folder } => folder.clone(),
            Master::Known { .. } => PathBuf::new(),
        };
        let master = std::mem::replace(&mut self.master, Master::Temporary { folder });
        match master {
            Master::Known { id, key } => {
                let done = work(self, &id, &key);
                self.master = Master::Known { id, key };
                done
            }
            Master::Temporary { folder } => {
                let key = MasterKey::random()?;
                let id = self.give(&key, &folder)?;
                let done = work(self, &id, &key);
                if let Err(error) = self.qmp.execute("object-del", &json!({"id": id})) {
                    let error = &error;
                    self.watch.notes(Note::KeyStays { id: &id, error });
                }
                done
            }
        }
    }

    /// Passes a key to QEMU through a file, which is removed when this returns. Returns the id of
    /// the key.
    fn give(&mut self, key: &MasterKey, folder: &Path) -> Result<String, Error> {
        let (uid, gid) = self.qmp.peer()?;
        let ours = rustix::process::geteuid().as_raw();
        if ours != uid && ours != 0 {
            let message = format!("QEMU runs as user {uid}, and user {ours} cannot give it a file");
            let error = Error::new(Kind::Permission, message);
            return Err(error.advise(Advice::NameMasterKey));
        }
        let owner = (ours != uid).then_some((uid, gid));
        let folder = match owner {
            Some(_) => Path::new("/run"),
            None => folder,
        };
        let file = KeyFile::create(folder, owner, key, self.watch)?;
        let object = Object::SecretFile {
            id: format!("luksmith-master-{}", std::process::id()),
            path: file.path.display().to_string(),
            base64: true,
        };
        self.qmp.execute("object-add", &object.json())?;
        Ok(object.id().to_owned())
    }

    fn set(
        &mut self,
        id: &str,
        new: &Wrapped,
        existing: Option<&Wrapped>,
        iter_time: Option<u32>,
    ) -> Result<(), Error> {
        let keyslot = NewKeyslot::new(new).existing(existing).iter_time(iter_time);
        Ok(qemu::set(&mut self.qmp, &self.node, id, keyslot)?)
    }

    fn unset(&mut self, id: &str, gone: Gone<'_>, force: bool) -> Result<(), Error> {
        Ok(qemu::unset(&mut self.qmp, &self.node, id, gone, force)?)
    }

    /// Removes the keyslots with this passphrase that were added since the monitor was connected.
    /// Another monitor may have added others.
    fn remove_added(&mut self, id: &str, new: &Wrapped) -> Result<(), Error> {
        let mut failed = Ok(());
        for slot in self.now()?.active {
            if !self.before.active.contains(&slot) {
                let removed = self.unset(id, Gone::KeyslotOpenedBy(slot, new), false);
                failed = failed.and(removed);
            }
        }
        failed
    }
}

fn only_node(nodes: Vec<Node>) -> Result<Node, Error> {
    match <[Node; 1]>::try_from(nodes) {
        Ok([node]) => Ok(node),
        Err(nodes) if nodes.is_empty() => {
            let message = "this QEMU itself has no LUKS volume open";
            Err(Error::parameters(message).advise(Advice::NotServedByQemu))
        }
        Err(several) => {
            let message = "QEMU has several volumes open";
            let names = several.into_iter().map(|node| node.name).collect();
            Err(Error::parameters(message).advise(Advice::NameNode(names)))
        }
    }
}

/// A file with a key, which is removed when this is dropped.
struct KeyFile<'a> {
    path: PathBuf,
    made: MadeFile,
    watch: &'a dyn Watch,
}

impl<'a> KeyFile<'a> {
    fn create(
        folder: &Path,
        owner: Option<(u32, u32)>,
        key: &MasterKey,
        watch: &'a dyn Watch,
    ) -> Result<Self, Error> {
        let name = format!(".luksmith-{}", std::process::id());
        let path = folder.join(&name);
        let failed = |error| Error::io("create", &path, error);
        let folder = Folder::open(folder).map_err(failed)?;
        let mut file = folder
            .create_new(name.as_ref(), OFlags::empty())
            .map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let made = MadeFile::find(folder, name.into(), &about).map_err(failed)?;
        watch.unfinished(&made, true);
        let passed = Self { path, made, watch };
        let text = key.to_base64()?;
        let written = match owner {
            Some((uid, gid)) => fchown(&file, Some(uid), Some(gid)),
            None => Ok(()),
        };
        written
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| Error::io("write", &passed.path, error))?;
        Ok(passed)
    }
}

impl Drop for KeyFile<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.made.remove() {
            self.watch.notes(Note::NotTakenBack {
                what: &self.path.display().to_string(),
                error: &error.to_string(),
            });
        }
        self.watch.unfinished(&self.made, false);
    }
}

#[cfg(test)]
mod tests;
