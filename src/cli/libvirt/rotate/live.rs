//! The keyslots of a volume that a domain has open: QEMU itself changes them, asked through libvirt. Behind its back nobody may.
//!
//! Passphrases go to QEMU encrypted with the master key that libvirt made for this machine, so that no log has them. libvirt marks the
//! domain as tainted (`custom-monitor`) by that.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use luksmith::libvirt::Domain;
use luksmith::qemu::{self, Gone, MasterKey, Monitor, NewKeyslot, QmpError, Wrapped, outcome};
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

/// A volume that a QEMU has open.
pub(super) struct Live<'a> {
    monitor: Through<'a>,
    node: String,
    master: MasterKey,
}

impl<'a> Live<'a> {
    /// The volume at `place`, in the QEMU of this domain.
    pub(super) fn find(
        session: &Session,
        domain: &'a Domain,
        place: &str,
    ) -> Result<Self, CommandError> {
        let mut monitor = Through(domain);
        qemu::check_amend(&mut monitor)?;
        clear_remains(&mut monitor)?;
        let node = node_of(&mut monitor, place)?;
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
            .map_err(|error| CommandError::new(Kind::Device, error).about(path.display()))?;
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
        let keyslot = NewKeyslot {
            new: &new,
            existing: Some(&existing),
            keyslot: Some(slot),
            iter_time: Some(iter_time),
        };
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

/// The block node that has LUKS on what lies at `place`.
fn node_of(monitor: &mut Through<'_>, place: &str) -> Result<String, CommandError> {
    let nodes = monitor.execute("query-named-block-nodes", &json!({"flat": true}))?;
    let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = nodes
        .iter()
        .filter(|node| node["drv"] == "luks")
        .filter(|node| {
            // What QEMU calls a node on a file is JSON text with the file's name in it.
            let text = node["file"].as_str().unwrap_or_default();
            let described: Value =
                serde_json::from_str(text.strip_prefix("json:").unwrap_or("null"))
                    .unwrap_or_default();
            described["file"]["filename"] == place || text == place
        });
    let node = found.next().and_then(|node| node["node-name"].as_str());
    node.map(str::to_owned).ok_or_else(|| {
        CommandError::new(
            Kind::Busy,
            format!("a domain has {place} open, and its QEMU shows no LUKS node for it"),
        )
        .hint("rotate while the domain is off")
    })
}
