//! Hands a volume to dm-crypt: its table, its key in the kernel's keyring, and the mapped device.
//!
//! This is the way out for a machine whose kernel may see the plaintext. The names are those of
//! cryptsetup, so `cryptsetup status` and `cryptsetup close` know the device.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::json::Object;
use rustix::fs::{fstat, major, minor};
use thiserror::Error as ThisError;
use uuid::Uuid;

use super::outcome::{Outcome, image as add_image};
use super::storage::{Nature, Storage};
use super::trust::kept::Task;
use super::{Advice, Error};
use crate::container::{Container, Header, Unlocked, Version, VolumeError};
use crate::location::Location;
use crate::sys::keyring::LogonKey;

/// The unit of dm-crypt's table in bytes, whatever the sectors of the volume are.
const SECTOR: u64 = 512;

/// How long the key of [`Handover::create`] stays if this process is killed, in seconds.
const WHILE_CREATING: u32 = 60;

/// The programs that `create` looks for. Users other than root have no `sbin` in their PATH.
const DMSETUP: [&str; 3] = ["dmsetup", "/usr/sbin/dmsetup", "/sbin/dmsetup"];

/// The flags that a LUKS2 header keeps for each opening, and the options of dm-crypt that they are.
const FLAGS: [(&str, &str); 5] = [
    ("allow-discards", ALLOW_DISCARDS),
    ("same-cpu-crypt", "same_cpu_crypt"),
    ("submit-from-crypt-cpus", "submit_from_crypt_cpus"),
    ("no-read-workqueue", "no_read_workqueue"),
    ("no-write-workqueue", "no_write_workqueue"),
];
const ALLOW_DISCARDS: &str = "allow_discards";

/// Why dm-crypt cannot open a volume.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum DmCryptError {
    /// The volume is a file, an export of a server, or inside of a qcow2 image.
    #[error("dm-crypt needs a block device")]
    NoBlockDevice,
    /// The data does not begin or end where a sector of 512 bytes does.
    #[error("dm-crypt counts in sectors of {SECTOR} bytes, and the data is not in whole ones")]
    Unaligned,
    /// The device mapper or cryptsetup would not take the name.
    #[error("{0} is no name of a mapped device: 1 to 127 letters, digits and #+-.:=@_")]
    Name(String),
    /// The header has no UUID of the usual form. It could name another device in the table, which
    /// has no quotes.
    #[error("the header's UUID is not of the usual form, and dm-crypt's table needs one")]
    Uuid,
    /// No keyslot is left that states the size of the volume key.
    #[error("the size of the volume key is not known, since no keyslot is left")]
    NoKeySize,
    /// The kernel did not take the key.
    #[error("the kernel's keyring does not take the volume key")]
    Keyring(#[source] io::Error),
    /// `dmsetup` could not be started.
    #[error("cannot start dmsetup")]
    NoDmsetup(#[source] io::Error),
    /// `dmsetup` failed. This is what it printed.
    #[error("dmsetup: {0}")]
    Dmsetup(String),
}

/// How dm-crypt opens a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// Where the volume is stored.
    pub image: Location,
    /// The description of the key, which is in the keyring with type `logon`.
    pub key_description: String,
    /// The size of the key in bytes.
    pub key_size: usize,
    /// The block device that holds the data, as `MAJOR:MINOR`.
    pub device: String,
    /// The offset of the data on that device, in bytes.
    pub offset: u64,
    /// The size of the plaintext, in bytes.
    pub size: u64,
    /// The cipher.
    pub cipher: CipherSpec,
    /// The encryption sector size, in bytes.
    pub sector_size: u32,
    /// The IV of the first sector.
    pub first_iv: u64,
    /// Further options of dm-crypt, such as `allow_discards`.
    pub options: Vec<&'static str>,
    uuid: Uuid,
    version: Version,
}

/// What was done with a [`Table`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Handed {
    /// The table.
    pub table: Table,
    /// For how many seconds the key is in the keyring, if it was put there.
    pub key_seconds: Option<u32>,
    /// The name of the mapped device, if it was created.
    pub name: Option<String>,
}

impl Table {
    /// The table for the volume on this storage. Discards reach the device if the caller or a flag
    /// of the header allows them.
    ///
    /// # Errors
    /// [`DmCryptError`], and what [`Container::data_segment_on`] reports.
    pub fn new(
        image: &Location,
        container: &Container,
        data: &Storage,
        allow_discards: bool,
    ) -> Result<Self, Error> {
        data.refuse_tags(container, Task::Kernel)
            .map_err(|error| error.about(image))?;
        let file = match (&data.file, data.nature, &data.qcow2_header) {
            (Some(file), Nature::BlockDevice, None) => file,
            (_, nature, _) => {
                let advice = match (nature, &data.qcow2_header) {
                    (Nature::File, None) => Advice::LoopDevice,
                    _ => Advice::ServeToKernel,
                };
                let error = Error::from(DmCryptError::NoBlockDevice).about(image);
                return Err(error.advise(advice));
            }
        };
        let descriptor = file
            .descriptor()
            .map_err(|error| Error::io("open", file.path(), error))?;
        let number = fstat(&descriptor)
            .map_err(|error| Error::io("look at", file.path(), error.into()))?
            .st_rdev;
        let segment = container.data_segment_on(&*data.backend)?;
        let offset = segment.offset + data.offset.unwrap_or(0);
        let size = container.data_size(data.backend.geometry().size)?;
        if !offset.is_multiple_of(SECTOR) || !size.is_multiple_of(SECTOR) {
            return Err(Error::from(DmCryptError::Unaligned).about(image));
        }
        let key_size = container.volume_key_size();
        let uuid = Uuid::parse_str(container.uuid()).map_err(|_| DmCryptError::Uuid);
        let uuid = uuid.map_err(|error| Error::from(error).about(image))?;
        let mut options = flags(container.header());
        if allow_discards && !options.contains(&ALLOW_DISCARDS) {
            options.push(ALLOW_DISCARDS);
        }
        Ok(Self {
            image: image.clone(),
            key_description: format!(
                "cryptsetup:{uuid}-d{}",
                container.volume_digest_id().unwrap_or(0)
            ),
            key_size: key_size.ok_or(DmCryptError::NoKeySize)?,
            device: format!("{}:{}", major(number), minor(number)),
            offset,
            size,
            cipher: segment.cipher,
            sector_size: segment.sector_size,
            first_iv: segment.first_iv.0,
            options,
            uuid,
            version: container.version(),
        })
    }

    fn run_dmsetup(&self, name: &str, read_only: bool) -> Result<(), Error> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for program in DMSETUP {
            let mut command = Command::new(program);
            command.args(["create", name, "--uuid", &self.device_uuid(name)]);
            command.args(["--table", &self.to_string()]);
            command.args(read_only.then_some("--readonly"));
            match command.stdin(Stdio::null()).output() {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => {
                    let printed = String::from_utf8_lossy(&output.stderr);
                    let lines: Vec<_> = printed.lines().map(str::trim).collect();
                    return Err(DmCryptError::Dmsetup(lines.join("; ")).into());
                }
                Err(error) => failed = error,
            }
        }
        let error = Error::from(DmCryptError::NoDmsetup(failed));
        Err(error.advise(Advice::InstallDmsetup))
    }

    /// The UUID by which cryptsetup knows a device of its own.
    fn device_uuid(&self, name: &str) -> String {
        let version = match self.version {
            Version::Luks1 => "LUKS1",
            Version::Luks2 => "LUKS2",
        };
        format!("CRYPT-{version}-{}-{name}", self.uuid.simple())
    }
}

/// A table with the volume key, for the kernel.
#[derive(Debug)]
pub struct Handover {
    table: Table,
    unlocked: Unlocked,
}

impl Handover {
    /// The table of this container, with its key.
    ///
    /// # Errors
    /// [`VolumeError::WrongKey`] for the key of an unbound keyslot or of another container.
    pub fn new(table: Table, container: &Container, unlocked: Unlocked) -> Result<Self, Error> {
        match container.is_own_volume_key(&unlocked) {
            true => Ok(Self { table, unlocked }),
            false => Err(Error::from(VolumeError::WrongKey).about(&table.image)),
        }
    }

    /// Puts the volume key into the session keyring of this process, as a key that no program can
    /// read. The kernel removes it after `seconds`.
    ///
    /// # Errors
    /// [`DmCryptError::Keyring`].
    pub fn load_key(self, seconds: u32) -> Result<Handed, Error> {
        self.add_key(seconds)?;
        Ok(Handed {
            key_seconds: Some(seconds),
            ..Handed::new(self.table)
        })
    }

    /// Creates the mapped device by `dmsetup`. The key is in the keyring only meanwhile. The device
    /// of the volume should be closed: dm-crypt claims it.
    ///
    /// # Errors
    /// [`DmCryptError`].
    pub fn create(self, name: &str, read_only: bool) -> Result<Handed, Error> {
        check_name(name)?;
        let key = self.add_key(WHILE_CREATING)?;
        let created = self.table.run_dmsetup(name, read_only);
        // The kernel has its own copy. If the time of the key has passed, it is gone already.
        let _ = key.remove();
        created?;
        Ok(Handed {
            name: Some(name.to_owned()),
            ..Handed::new(self.table)
        })
    }

    fn add_key(&self, seconds: u32) -> Result<LogonKey, Error> {
        let key = self.unlocked.key().as_bytes();
        let added = LogonKey::add(&self.table.key_description, key, seconds);
        Ok(added.map_err(DmCryptError::Keyring)?)
    }
}

impl Handed {
    /// A table of which only the text is used.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self {
            table,
            key_seconds: None,
            name: None,
        }
    }
}

/// Checks the name of a mapped device, before a passphrase is asked for.
///
/// # Errors
/// [`DmCryptError::Name`].
pub fn check_name(name: &str) -> Result<(), DmCryptError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"#+-.:=@_".contains(&byte);
    let special = matches!(name, "." | "..") || name.starts_with('-');
    match !special && (1..=127).contains(&name.len()) && name.bytes().all(known) {
        true => Ok(()),
        false => Err(DmCryptError::Name(name.to_owned())),
    }
}

fn flags(header: &Header) -> Vec<&'static str> {
    let Header::Luks2(header) = header else {
        return Vec::new();
    };
    let flags = &header.metadata.config().flags;
    let set = |(flag, _): &(&str, &str)| flags.iter().any(|one| one == flag);
    FLAGS
        .into_iter()
        .filter(set)
        .map(|(_, option)| option)
        .collect()
}

/// The line for `dmsetup create --table`, which holds no secret.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "0 {} crypt {} :{}:logon:{} {} {} {}",
            self.size / SECTOR,
            self.cipher,
            self.key_size,
            self.key_description,
            self.first_iv,
            self.device,
            self.offset / SECTOR,
        )?;
        let sectors = (u64::from(self.sector_size) != SECTOR)
            .then(|| format!("sector_size:{}", self.sector_size));
        let options = self.options.iter().map(|option| (*option).to_owned());
        let options: Vec<String> = options.chain(sectors).collect();
        match options.is_empty() {
            true => Ok(()),
            false => write!(f, " {} {}", options.len(), options.join(" ")),
        }
    }
}

impl Outcome for Handed {
    fn members(&self) -> Object {
        let table = &self.table;
        let mut members = Object::new();
        add_image(&mut members, &table.image);
        members.insert("table", table.to_string());
        members.insert("device", table.device.as_str());
        members.insert("offset", table.offset);
        members.insert("size", table.size);
        members.insert("key_description", table.key_description.as_str());
        members.insert("key_bits", table.key_size * 8);
        members.insert("key_seconds", self.key_seconds);
        members.insert("name", self.name.as_deref());
        members
    }
}

impl fmt::Display for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}: /dev/mapper/{name}", self.table.image),
            None => self.table.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_device_mapper_keeps_as_they_are() {
        for good in ["v", "luks-1.2", "a#+:=@_", &"n".repeat(127)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "-v", "ä", &"n".repeat(128)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
