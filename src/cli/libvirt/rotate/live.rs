//! The keyslots of a volume that a domain has open: its QEMU changes them, asked through libvirt, or we do beside it.
//!
//! QEMU reads header and key material when it opens a volume and for nothing else but `x-blockdev-amend`, by which it changes the header that
//! it has in memory and writes that (`crypto/block-luks.c`). One that can do that is asked to: what it has in memory stays true. One that aborts
//! over it neither reads nor writes the header ever again, so luksmith does, as cryptsetup does it beside dm-crypt; a guest does not reach
//! what lies before its data.
//!
//! Passphrases go to QEMU encrypted with the master key that libvirt made for this machine, so that no log has them. libvirt marks the
//! domain as tainted (`custom-monitor`) by any question to its QEMU.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use luksmith::container::{Container, Header};
use luksmith::libvirt::Domain;
use luksmith::qemu::{
    self, Gone, MasterKey, Monitor, NewKeyslot, OpenVolume, QmpError, Wrapped, outcome,
};
use luksmith::secret::{Passphrase, Purpose, SecretSource, Source};
use serde_json::{Value, json};

use crate::cli::Session;
use crate::cli::error::{CommandError, Kind};

/// The id of the master key in every QEMU that libvirt starts.
const MASTER_KEY: &str = "masterKey0";

/// How long QEMU may take for a keyslot.
const PATIENCE: Duration = Duration::from_secs(120);

/// A monitor that libvirt holds.
struct Through<'a>(&'a Domain);

impl Monitor for Through<'_> {
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        let text = CString::new(text).map_err(|_| QmpError::Malformed(command.to_owned()))?;
        let answer = self
            .0
            .monitor_command(&text)
            .map_err(|error| QmpError::Carrier(Box::new(error)))?;
        let answer =
            serde_json::from_str(&answer).map_err(|_| QmpError::Malformed(command.to_owned()))?;
        outcome(command, answer)
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// Who changes the keyslots of a volume that a QEMU has open.
pub(super) enum Way<'a> {
    /// That QEMU.
    Asked(Live<'a>),
    /// We, beside it.
    Beside(OpenVolume),
}

/// A volume that a QEMU has open, and changes.
pub(super) struct Live<'a> {
    monitor: Through<'a>,
    node: String,
    master: MasterKey,
}

impl<'a> Way<'a> {
    /// The volume at `place`, in the QEMU of this domain; `read` reads its header as it is at that moment.
    pub(super) fn find(
        session: &Session,
        domain: &'a Domain,
        place: &str,
        read: impl FnOnce() -> Result<Container, CommandError>,
    ) -> Result<Self, CommandError> {
        let mut monitor = Through(domain);
        qemu::check_at_rest(&mut monitor)
            .map_err(|error| CommandError::from(error).about(place))?;
        let asked = match qemu::check_amend(&mut monitor) {
            Ok(()) => true,
            Err(QmpError::Aborts(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if asked {
            clear_remains(&mut monitor)?;
        }
        let volume = qemu::opened_at(&mut monitor, place)?.ok_or_else(|| {
            CommandError::new(
                Kind::Busy,
                format!("a domain has {place} open, and its QEMU shows no LUKS node for it"),
            )
            .hint("rotate while the domain is off")
        })?;
        let header = read()?;
        if volume.uuid != header.uuid() {
            let message = format!("{place} has another LUKS header than the domain's QEMU opened");
            return Err(CommandError::new(Kind::Storage, message)
                .hint("run luksmith on the domain's host, or rotate while the domain is off"));
        }
        if !asked {
            return Ok(Self::Beside(volume));
        }
        if !remembers(&volume, &header) {
            let message = format!(
                "the keyslots of {place} were changed since the domain's QEMU read them, and it would write the old ones back"
            );
            return Err(CommandError::new(Kind::Busy, message)
                .hint("restart the domain, or rotate while it is off"));
        }
        Ok(Self::Asked(Live::with(session, monitor, volume.node)?))
    }
}

impl<'a> Live<'a> {
    fn with(
        session: &Session,
        mut monitor: Through<'a>,
        node: String,
    ) -> Result<Self, CommandError> {
        let file = monitor.execute(
            "qom-get",
            &json!({"path": format!("/objects/{MASTER_KEY}"), "property": "file"}),
        )?;
        let path = PathBuf::from(file.as_str().unwrap_or_default());
        let purpose = Purpose::unlock("the master key of the domain", session.signals.interrupt());
        let key = Source::file(&path).read(purpose).map_err(|error| {
            CommandError::from(error)
                .about("the domain runs, and its master key cannot be read")
                .hint("run luksmith on the domain's host, as who started the domain (root for qemu:///system), or rotate while it is off")
        })?;
        let master = MasterKey::from_bytes(&key)?
            .map_err(|error| CommandError::new(Kind::Storage, error).about(path.display()))?;
        Ok(Self {
            monitor,
            node,
            master,
        })
    }

    fn wrap(&self, passphrase: &Passphrase) -> Result<Wrapped, CommandError> {
        Ok(self.master.wrap(passphrase)?)
    }

    /// Puts a new passphrase into a keyslot that is free.
    pub(super) fn add(
        &mut self,
        slot: u32,
        new: &Passphrase,
        existing: &Passphrase,
        iter_time: u32,
    ) -> Result<(), CommandError> {
        let (new, existing) = (self.wrap(new)?, self.wrap(existing)?);
        let keyslot = NewKeyslot::new(&new)
            .existing(Some(&existing))
            .keyslot(Some(slot))
            .iter_time(Some(iter_time));
        Ok(qemu::set(
            &mut self.monitor,
            &self.node,
            MASTER_KEY,
            keyslot,
        )?)
    }

    /// Takes a keyslot away; never the last.
    pub(super) fn remove(&mut self, slot: u32) -> Result<(), CommandError> {
        Ok(qemu::unset(
            &mut self.monitor,
            &self.node,
            MASTER_KEY,
            Gone::Keyslot(slot),
            false,
        )?)
    }
}

/// Whether QEMU has the keyslots in memory that are in the header.
fn remembers(volume: &OpenVolume, header: &Container) -> bool {
    let Header::Luks1(header) = header.header() else {
        return false;
    };
    let keyslots = header.keyslots.iter();
    keyslots
        .map(|slot| slot.active.then_some(u64::from(slot.iterations)))
        .eq(volume.keyslots.iter().copied())
}

/// What begins the names of luksmith's jobs and objects in a QEMU; the number of the process follows.
const OURS: &str = "luksmith-";

/// Takes away what processes that are no more have left in this QEMU: jobs that wait to be dismissed, which keep the header locked, and
/// secrets.
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

/// The names in a list that are of processes of ours which have ended.
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
