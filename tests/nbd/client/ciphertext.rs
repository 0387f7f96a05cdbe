//! A server sees only ciphertext. Every byte that is sent to it and back, and every byte that it
//! stores, is searched for pieces of plaintext, passphrases and keys, over the whole life of a
//! volume.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use luksmith::Interrupt;
use luksmith::backend::Backend;
use luksmith::backend::nbd::NbdBackend;
use luksmith::container::{
    Configure, Container, CreateOptions, NewKeyslot, OpenOptions, RestoreOptions, UndoFile,
    Unlocked, Version, Which,
};
use luksmith::kdf::calibrate::Cost;
use luksmith::secret::{LockedBytes, Passphrase, VolumeKey};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::Hash;
use luksmith_formats::nbd::uri::Uri;

use super::proxy::Proxy;
use super::servers::Server;
use super::tls::certificates;
use super::{connect, options};
use crate::served::Folder;
use support::secret_search::SecretSearch;

/// The export: a header with room for two keyslots, and data.
const SIZE: &str = "4M";
const HEADER: u64 = 1 << 20;

const COST: Cost = Cost::Pbkdf2 {
    hash: Hash::Sha256,
    iterations: 1000,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The secrets. They are random, so a match of 16 bytes cannot be a coincidence.
struct Secrets {
    key: LockedBytes,
    canary: LockedBytes,
    passphrases: [LockedBytes; 3],
}

impl Secrets {
    fn fresh() -> Self {
        let fresh = |len| {
            let mut bytes = LockedBytes::new(len).unwrap();
            luksmith::secret::random(&mut bytes).unwrap();
            bytes
        };
        Self {
            key: fresh(64),
            canary: fresh(512),
            passphrases: [24, 100, 40].map(fresh),
        }
    }

    fn passphrase(&self, n: usize) -> Passphrase {
        Passphrase::copy_from(&self.passphrases[n]).unwrap()
    }

    fn found(&self, bytes: &[u8]) -> Vec<&'static str> {
        // Bytes across the border of two repetitions are plaintext too.
        let border = [&self.canary[400..], &self.canary[..100]].concat();
        let mut secrets = vec![
            ("the plaintext", &self.canary[..]),
            ("the plaintext", &border[..]),
            ("the volume key", &self.key[..]),
        ];
        secrets.extend(
            self.passphrases
                .iter()
                .map(|one| ("a passphrase", &one[..])),
        );
        SecretSearch::new(secrets).found_in(bytes)
    }
}

/// A volume on a storage that may reply with errors.
struct Life<'a> {
    storage: Arc<dyn Backend>,
    secrets: &'a Secrets,
    version: Version,
    open: OpenOptions,
    interrupt: Interrupt,
    /// How often a step may fail before the test fails.
    patience: usize,
}

impl Life<'_> {
    /// Repeats a step until it succeeds.
    fn step<T>(&self, what: &str, step: impl Fn() -> Outcome<T>) -> T {
        let mut left = self.patience;
        loop {
            match step() {
                Ok(value) => return value,
                Err(error) if left == 0 => panic!("{what}: {error:?}"),
                Err(_) => left -= 1,
            }
        }
    }

    fn create(&self) -> Outcome {
        let mut options = CreateOptions::new(self.version, COST);
        options.volume_key = Some(VolumeKey::copy_from(&self.secrets.key)?);
        options.data_offset = (self.version == Version::Luks2).then_some(HEADER);
        // A change that finds both keyslots in use has to overwrite in place. LUKS1 has eight.
        options.keyslots_size = (self.version == Version::Luks2).then_some(2 * 258_048);
        let first = self.secrets.passphrase(0);
        let storage = self.storage.clone();
        Container::create(storage, options, self.open.clone(), &first, &self.interrupt)?;
        Ok(())
    }

    /// The volume. It is repaired first if a change of its header was interrupted.
    fn open(&self) -> Outcome<Container> {
        let open = || Container::open(self.storage.clone(), self.open.clone());
        if let Ok(container) = open() {
            return Ok(container);
        }
        Container::repair(self.storage.clone(), self.open.clone())?;
        Ok(open()?)
    }

    fn unlocked(&self, passphrase: usize, which: Which) -> Outcome<(Container, Unlocked)> {
        let container = self.open()?;
        let passphrase = self.secrets.passphrase(passphrase);
        let unlocked = container.unlock(&passphrase, which, &self.interrupt)?;
        Ok((container, unlocked))
    }

    fn data(&self) -> Outcome {
        let (container, unlocked) = self.unlocked(0, Which::Any)?;
        let volume = container.volume(self.storage.clone(), &unlocked)?;
        let canary = &self.secrets.canary;
        let fill = canary.repeat(usize::try_from(volume.size() / 512)?);
        volume.write_at(0, &fill)?;
        for offset in [1, 513, 70_000] {
            volume.write_at(offset, &canary[..300])?;
        }
        volume.discard(4096..16_384)?;
        volume.write_zeroes(20_000..40_000)?;
        volume.flush()?;
        let mut back = vec![1; 20_000];
        volume.read_at(20_000, &mut back)?;
        assert!(back.iter().all(|&byte| byte == 0));
        volume.read_at(70_000, &mut back[..300])?;
        assert!(back[..300] == canary[..300]);
        Ok(())
    }

    fn keyslot(passphrase: &Passphrase) -> NewKeyslot<'_> {
        NewKeyslot::new(passphrase, COST)
    }

    /// Adds passphrases until no keyslot is free.
    fn add(&self) -> Outcome {
        let (mut container, unlocked) = self.unlocked(0, Which::Any)?;
        let slots = if self.version == Version::Luks1 { 8 } else { 2 };
        let second = self.secrets.passphrase(1);
        while container.keyslots().len() < slots {
            container.add_keyslot(&unlocked, &Self::keyslot(&second), &self.interrupt)?;
        }
        Ok(())
    }

    /// Replaces the second passphrase by the third, in place.
    fn change(&self) -> Outcome {
        if self.unlocked(2, Which::Slot(1)).is_ok() {
            return Ok(());
        }
        let (mut container, unlocked) = self.unlocked(1, Which::Slot(1))?;
        let third = self.secrets.passphrase(2);
        container.change_keyslot(&unlocked, &Self::keyslot(&third), &self.interrupt)?;
        Ok(())
    }

    fn remove(&self) -> Outcome {
        let mut container = self.open()?;
        if container.keyslots().iter().any(|keyslot| keyslot.slot == 1) {
            container.remove_keyslot(1, false)?;
        }
        Ok(())
    }

    fn label(&self) -> Outcome {
        let mut container = self.open()?;
        let label = Configure::new().label("label".to_owned());
        if self.version == Version::Luks2 {
            container.configure(&label)?;
        }
        Ok(())
    }

    /// Calls each operation that writes.
    fn live(&self, look: &dyn Fn()) {
        self.step("create", || self.create());
        look();
        self.step("data", || self.data());
        look();
        let backup = self.step("backup", || Ok(self.open()?.backup()?));
        assert!(self.secrets.found(&backup).is_empty());
        self.step("add", || self.add());
        self.step("change", || self.change());
        look();
        self.step("remove", || self.remove());
        self.step("label", || self.label());
        self.step("restore", || {
            // An interrupted restore is undone before the next one.
            self.open()?;
            Container::restore(
                self.storage.clone(),
                &backup,
                RestoreOptions::new(),
                self.open.clone(),
            )?;
            Ok(())
        });
        self.step("unlock", || self.unlocked(0, Which::Any));
        self.step("repair", || {
            Container::repair(self.storage.clone(), self.open.clone())?;
            Ok(())
        });
        look();
        self.step("erase", || Ok(self.open()?.erase()?));
        assert!(self.unlocked(0, Which::Any).is_err());
    }
}

/// The whole life of a volume on the export at `uri`. `look` is called after each step.
fn live(uri: &Uri, secrets: &Secrets, version: Version, patience: usize, look: &dyn Fn()) {
    let storage: Arc<dyn Backend> = Arc::new(connect(uri, options()));
    let folder = tempfile::tempdir().unwrap();
    let life = Life {
        storage,
        secrets,
        version,
        open: OpenOptions::new(UndoFile::at(folder.path().join("undo")).into()),
        interrupt: Interrupt::new(),
        patience,
    };
    life.live(look);
}

fn uri_of(socket: &Path) -> Uri {
    Uri::parse(&format!("nbd+unix:///?socket={}", socket.display())).unwrap()
}

fn assert_hidden(proxy: &Proxy, secrets: &Secrets) -> usize {
    let mut passed = 0;
    for stream in proxy.record() {
        let found = secrets.found(&stream);
        assert!(found.is_empty(), "{found:?} passed the proxy");
        passed += stream.len();
    }
    passed
}

#[test]
fn no_piece_of_a_secret_is_sent_to_a_server_or_back() {
    for version in [Version::Luks1, Version::Luks2] {
        let folder = tempfile::tempdir().unwrap();
        let Some(server) = Server::nbdkit(folder.path(), &["memory", SIZE]) else {
            return;
        };
        let (proxy, secrets) = (Proxy::to(server.socket()), Secrets::fresh());
        live(&uri_of(&proxy.socket()), &secrets, version, 0, &|| {});
        // All of the data was sent over it, at least once.
        assert!(assert_hidden(&proxy, &secrets) > 3 << 20);
    }
}

/// The export is a volume that the program serves from an image, so it is encrypted twice. The
/// bytes between both and the bytes of the image are searched.
#[test]
fn no_piece_is_sent_to_a_volume_within_a_volume() {
    let folder = Folder::with_volume();
    let served = folder.serve(&["--discard", "pass"]);
    let proxy = Proxy::to(&folder.path("s.sock"));
    let secrets = Secrets::fresh();
    let lies = || std::fs::read(folder.path("disk.img")).unwrap();
    live(
        &uri_of(&proxy.socket()),
        &secrets,
        Version::Luks2,
        0,
        &|| {
            assert!(secrets.found(&lies()).is_empty());
        },
    );
    assert!(assert_hidden(&proxy, &secrets) > 3 << 20);
    served.stop();
    assert!(secrets.found(&lies()).is_empty());
    assert!(secrets.found(&folder.decrypted()).is_empty());
}

#[test]
fn no_piece_is_sent_to_a_server_that_replies_with_errors() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let logfile = format!("logfile={}", log.display());
    let args = [
        "--filter=log",
        "--filter=error",
        "memory",
        SIZE,
        "error-rate=2%",
        &logfile,
    ];
    let Some(server) = Server::nbdkit(folder.path(), &args) else {
        return;
    };
    let (proxy, secrets) = (Proxy::to(server.socket()), Secrets::fresh());
    live(
        &uri_of(&proxy.socket()),
        &secrets,
        Version::Luks2,
        1000,
        &|| {},
    );
    assert!(assert_hidden(&proxy, &secrets) > 3 << 20);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("error=EIO"), "nothing failed");
}

#[test]
fn no_piece_is_sent_under_tls_or_stored_by_the_server() {
    let certificates = certificates();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 4 << 20]).unwrap();
    let with = format!("--tls-certificates={}", certificates.path().display());
    let file = disk.display().to_string();
    let args = [&with, "--tls=require", "--tls-verify-peer", "file", &file];
    let Some(server) = Server::nbdkit(folder.path(), &args) else {
        return;
    };
    let (proxy, secrets) = (Proxy::to(server.socket()), Secrets::fresh());
    let uri = format!(
        "nbds+unix:///?socket={}&tls-certificates={}&tls-hostname=localhost",
        proxy.socket().display(),
        certificates.path().display()
    );
    let uri = Uri::parse(&uri).unwrap();
    // The proxy sees only TLS, so the bytes that the server stores are searched too.
    live(&uri, &secrets, Version::Luks2, 0, &|| {
        let found = secrets.found(&std::fs::read(&disk).unwrap());
        assert!(found.is_empty(), "{found:?} lies at the server");
    });
    assert!(assert_hidden(&proxy, &secrets) > 3 << 20);
}

/// The proxy and the search find a secret that is sent.
#[test]
fn a_secret_that_is_sent_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::nbdkit(folder.path(), &["memory", SIZE]) else {
        return;
    };
    let (proxy, secrets) = (Proxy::to(server.socket()), Secrets::fresh());
    let storage: NbdBackend = connect(&uri_of(&proxy.socket()), options());
    let mut sectors = Sectors::<Cipher>::zeroed(4096);
    let bytes = sectors.as_mut_slice();
    bytes[100..116].copy_from_slice(&secrets.canary[490..506]);
    bytes[1001..1017].copy_from_slice(&secrets.key[48..]);
    bytes[2003..2019].copy_from_slice(&secrets.passphrases[0][8..]);
    storage.write_at(8192, &sectors).unwrap();
    let found = |stream: &Vec<u8>| secrets.found(stream);
    let mut names: Vec<_> = proxy.record().iter().flat_map(found).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["a passphrase", "the plaintext", "the volume key"]);
}
