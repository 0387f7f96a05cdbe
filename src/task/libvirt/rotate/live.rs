//! Changes the keyslots of a volume while a domain has it open. The domain's QEMU changes them on
//! request, through libvirt, or luksmith changes them in the open volume.
//!
//! QEMU reads header and key material when it opens a volume, and otherwise only for
//! `x-blockdev-amend`, which changes the header that QEMU holds in memory and writes it
//! (`crypto/block-luks.c`). A QEMU that supports this command has to make the change, so that its
//! copy stays correct. For LUKS inside of a qcow2 image, that is every QEMU. A QEMU that aborts
//! over the command for a raw volume never reads or writes the header again, so luksmith makes the
//! change, as cryptsetup does while dm-crypt has a volume open. A guest does not reach the bytes
//! before its data.
//!
//! Passphrases are sent to QEMU encrypted with the master key that libvirt made for the domain, so
//! that no log holds them. libvirt marks a domain as tainted (`custom-monitor`) when its QEMU is
//! sent any command.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use luksmith_formats::json::{Value, json};

use super::error::RotateError;
use crate::container::{Container, Header};
use crate::libvirt::Domain;
use crate::qemu::{
    self, At, Driver, Gone, MasterKey, Monitor, NewKeyslot, Node, OpenVolume, QmpError, Wrapped,
    outcome,
};
use crate::secret::{Passphrase, Purpose, SecretSource, Source};
use crate::task::{Advice, Error, Kind, Watch};

/// The id of the master key in every QEMU that libvirt starts.
const MASTER_KEY: &str = "masterKey0";

/// The longest time that QEMU may take for a keyslot.
const PATIENCE: Duration = Duration::from_secs(120);

/// The monitor of a domain, reached through libvirt.
struct Through<'a>(&'a Domain);

impl Monitor for Through<'_> {
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        let text = CString::new(text).map_err(|_| QmpError::Malformed(command.to_owned()))?;
        let answer = self
            .0
            .monitor_command(&text)
            .map_err(|error| QmpError::Carrier(Box::new(error)))?;
        let answer = answer
            .parse()
            .map_err(|_| QmpError::Malformed(command.to_owned()))?;
        outcome(command, answer)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// How the keyslots of a volume that a QEMU has open are changed.
pub(super) enum Way<'a> {
    /// By that QEMU.
    Asked(Live<'a>),
    /// By luksmith, in the open volume.
    Beside(OpenVolume),
}

/// A volume that a QEMU has open and changes itself.
pub(super) struct Live<'a> {
    monitor: Through<'a>,
    node: Node,
    master: MasterKey,
    /// Whether what QEMU writes may stay in a cache of its own.
    cached: bool,
}

/// Fails if a block job or a migration of this domain is under way.
pub(super) fn check_at_rest(domain: &Domain, place: &str) -> Result<(), Error> {
    qemu::check_at_rest(&mut Through(domain)).map_err(|error| Error::from(error).about(place))
}

impl<'a> Way<'a> {
    /// The way for the volume that the QEMU of this domain has open at `at`. `place` is its name in
    /// messages, and `read` reads the header from the storage.
    pub(super) fn find(
        watch: &dyn Watch,
        domain: &'a Domain,
        (place, at): (&str, At<'_>),
        read: impl FnOnce() -> Result<Container, Error>,
    ) -> Result<Self, Error> {
        check_at_rest(domain, place)?;
        let mut monitor = Through(domain);
        let opened = |monitor: &mut Through<'_>| -> Result<OpenVolume, Error> {
            let opened = qemu::opened_at(monitor, at)?;
            Ok(opened.ok_or_else(|| RotateError::NoNode(place.to_owned()))?)
        };
        let mut volume = opened(&mut monitor)?;
        let asked = match qemu::check_amend(&mut monitor, volume.node.driver) {
            // librbd changes no keyslots, and reads the header only when it opens the volume.
            _ if volume.node.driver == Driver::Librbd => false,
            Ok(()) => true,
            Err(QmpError::Aborts(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if asked {
            // A job of an ended process may have changed keyslots until now.
            clear_remains(&mut monitor)?;
            volume = opened(&mut monitor)?;
        }
        let header = read()?;
        if volume
            .uuid
            .as_ref()
            .is_some_and(|uuid| uuid != header.uuid())
        {
            return Err(RotateError::OtherHeader(place.to_owned()).into());
        }
        if !asked {
            return Ok(Self::Beside(volume));
        }
        if !remembers(&volume, &header) {
            return Err(RotateError::Outdated(place.to_owned()).into());
        }
        let cached = !matches!(at, At::Path(_));
        Ok(Self::Asked(Live::with(
            watch,
            monitor,
            volume.node,
            cached,
        )?))
    }
}

impl<'a> Live<'a> {
    fn with(
        watch: &dyn Watch,
        mut monitor: Through<'a>,
        node: Node,
        cached: bool,
    ) -> Result<Self, Error> {
        let file = monitor.execute(
            "qom-get",
            &json!({"path": format!("/objects/{MASTER_KEY}"), "property": "file"}),
        )?;
        let path = PathBuf::from(file.as_str().unwrap_or_default());
        let purpose = Purpose::unlock("the master key of the domain", watch.interrupt());
        let key = Source::file(&path).read(purpose).map_err(|error| {
            Error::from(error)
                .about("the domain runs, and its master key cannot be read")
                .advise(Advice::ReadMasterKey)
        })?;
        let master = MasterKey::from_bytes(&key)?
            .map_err(|error| Error::new(Kind::Storage, error).about(path.display()))?;
        Ok(Self {
            monitor,
            node,
            master,
            cached,
        })
    }

    fn wrap(&self, passphrase: &Passphrase) -> Result<Wrapped, Error> {
        Ok(self.master.wrap(passphrase)?)
    }

    /// Adds a keyslot for a new passphrase. The keyslot has to be free.
    pub(super) fn add(
        &mut self,
        slot: u32,
        new: &Passphrase,
        existing: &Passphrase,
        iter_time: u32,
    ) -> Result<(), Error> {
        let (new, existing) = (self.wrap(new)?, self.wrap(existing)?);
        let keyslot = NewKeyslot::new(&new)
            .existing(Some(&existing))
            .keyslot(Some(slot))
            .iter_time(Some(iter_time));
        qemu::set(&mut self.monitor, &self.node, MASTER_KEY, keyslot)?;
        self.flush()
    }

    /// Lets QEMU write the header that its librbd may still have in its cache.
    fn flush(&mut self) -> Result<(), Error> {
        if self.cached {
            let line = format!("qemu-io {} flush", self.node.name);
            let command = json!({"command-line": line});
            self.monitor.execute("human-monitor-command", &command)?;
        }
        Ok(())
    }

    /// Removes a keyslot, unless it is the last. QEMU refuses if the keyslot is not opened by this
    /// passphrase.
    pub(super) fn remove(
        &mut self,
        slot: u32,
        opened_by: Option<&Passphrase>,
    ) -> Result<(), Error> {
        let passphrase = opened_by.map(|passphrase| self.wrap(passphrase));
        let passphrase = passphrase.transpose()?;
        let gone = match &passphrase {
            Some(passphrase) => Gone::KeyslotOpenedBy(slot, passphrase),
            None => Gone::Keyslot(slot),
        };
        let monitor = &mut self.monitor;
        qemu::unset(monitor, &self.node, MASTER_KEY, gone, false)?;
        self.flush()
    }
}

/// Whether the keyslots that QEMU holds in memory are those in the header.
fn remembers(volume: &OpenVolume, header: &Container) -> bool {
    let Header::Luks1(header) = header.header() else {
        return false;
    };
    let keyslots = header.keyslots.iter();
    keyslots
        .map(|slot| slot.active.then_some(u64::from(slot.iterations)))
        .eq(volume.keyslots.iter().copied())
}

/// The beginning of the names of luksmith's jobs and objects in a QEMU. The process ID follows.
const OURS: &str = "luksmith-";

/// Removes what ended processes of luksmith have left in this QEMU: secrets, and concluded jobs,
/// which keep the header locked until they are dismissed.
fn clear_remains(monitor: &mut Through<'_>) -> Result<(), QmpError> {
    let begun = Instant::now();
    loop {
        let jobs = monitor.execute("query-jobs", &json!({}))?;
        let left = names(&jobs, "id");
        for job in &left {
            let concluded = jobs.as_array().is_some_and(|jobs| {
                jobs.iter()
                    .any(|other| other["id"] == **job && other["status"] == "concluded")
            });
            if concluded {
                monitor.execute("job-dismiss", &json!({"id": job}))?;
            }
        }
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(QmpError::Silent(PATIENCE));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let objects = monitor.execute("qom-list", &json!({"path": "/objects"}))?;
    for object in names(&objects, "name") {
        monitor.execute("object-del", &json!({"id": object}))?;
    }
    Ok(())
}

/// The names in a list that belong to ended processes of luksmith.
fn names(list: &Value, member: &str) -> Vec<String> {
    let names = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry[member].as_str());
    let ended = |name: &&str| {
        let number = name
            .strip_prefix(OURS)
            .map(|rest| rest.split('-').next().unwrap_or(rest));
        number.is_some_and(|number| {
            number != std::process::id().to_string() && !Path::new("/proc").join(number).exists()
        })
    };
    names.filter(ended).map(str::to_owned).collect()
}
