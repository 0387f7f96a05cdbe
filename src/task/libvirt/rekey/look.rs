//! One disk of a domain, its volume and its secret, and why the disk is refused.

use std::path::Path;

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use uuid::Uuid;

use super::error::RekeyError;
use super::journal::At;
use super::options::RekeyOptions;
use super::unit::Unit;
use super::uses::{described, uses};
use crate::backend::file::OpenOptions;
use crate::container::{Container, Header};
use crate::libvirt::xml::{Disk, Engine, Format, Source};
use crate::libvirt::{Connection, Domain, LibvirtError};
use crate::task::emulator::check_whole;
use crate::task::libvirt::inventory::{ANOTHER_HOST, place_of};
use crate::task::libvirt::rotate;
use crate::task::open::{Image, ImageFormat};
use crate::task::{Advice, Error, Watch};

/// A disk that can get a new volume.
pub(super) struct Looked {
    pub(super) at: At,
    pub(super) uuid: String,
    /// The size of the plaintext, in bytes.
    pub(super) size: u64,
    pub(super) format: ImageFormat,
    pub(super) cipher: CipherSpec,
    pub(super) key_size: usize,
    pub(super) hash: Hash,
    pub(super) secret: Uuid,
    /// Whether libvirt does not return the value of the secret.
    pub(super) private: bool,
}

/// Looks at a disk, and changes nothing.
///
/// # Errors
/// [`RekeyError`], and what libvirt and the volume report.
pub(super) fn look(
    connection: &Connection,
    unit: &Unit,
    options: &RekeyOptions<'_>,
    watch: &dyn Watch,
) -> Result<Looked, Error> {
    let domain = unit.find(connection)?;
    let running = domain.is_active()?;
    check_domain(&domain, running, options.keep_old)?;
    let xml = described(&domain, !running)?;
    let disk = xml
        .disk(&unit.target)
        .ok_or_else(|| RekeyError::NotEncrypted(unit.target.clone()))?;
    let (source, format) = check_disk(disk)?;
    if running && domain.block_job(&unit.target)?.is_some() {
        return Err(RekeyError::Job.into());
    }
    let place = place_of(connection, source, connection.is_local()?);
    let place = place.ok_or(RekeyError::Beyond(
        "luksmith does not open this sort of storage",
    ))?;
    let location = place.location.as_ref();
    let Some((location, at)) = location.and_then(|it| Some((it, At::of(it)?))) else {
        let why = place
            .beyond
            .unwrap_or("luksmith does not copy this sort of storage");
        let error = Error::from(RekeyError::Beyond(why)).about(place.name);
        return Err(error.advise_if(why == ANOTHER_HOST, Advice::RunOnItsHost));
    };
    let other = uses(connection, &place.identity)?.into_iter().find(|one| {
        let same = one.domain == unit.domain_name && one.target == unit.target;
        !same || one.beside
    });
    if let Some(other) = other {
        let (place, other) = (at.to_string(), other.to_string());
        return Err(RekeyError::AlsoUsed { place, other }.into());
    }
    let (secret, private) = secret_of(connection, source)?;
    if rotate::is_unfinished(&options.journals, &secret) {
        return Err(RekeyError::Rotation(secret).into());
    }

    let mut image = Image::new(location.clone());
    (image.format, image.remote) = (format, options.remote);
    let file = OpenOptions::new().force_share(running);
    let (container, storage) = image.open_data_to_look(file, options.limits, watch)?;
    if let Some(header) = &storage.qcow2_header {
        check_whole(Some(header), &image.location)?;
        if header.snapshots() > 0 {
            return Err(RekeyError::Bound("snapshots").into());
        }
    }
    let size = storage.volume_size(&container)?;
    if running {
        let seen = domain.block_info(&unit.target)?.capacity;
        if seen != size {
            let place = at.to_string();
            return Err(RekeyError::OtherSize { place, size, seen }.into());
        }
    }
    let (hash, key_size) = parameters(&container)?;
    Ok(Looked {
        at,
        uuid: container.uuid().to_owned(),
        size,
        format,
        cipher: container.data_segment()?.cipher,
        key_size,
        hash,
        secret,
        private,
    })
}

/// Refuses a domain of which something outside of its definition needs its present volumes.
fn check_domain(domain: &Domain, running: bool, keep_old: bool) -> Result<(), Error> {
    if domain.snapshots()? > 0 {
        return Err(RekeyError::Bound("snapshots").into());
    }
    if domain.checkpoints()? > 0 {
        return Err(RekeyError::Bound("checkpoints").into());
    }
    if domain.is_persistent()? {
        if domain.is_saved()? {
            return Err(RekeyError::Saved.into());
        }
    } else if !keep_old {
        return Err(RekeyError::Transient.into());
    }
    if running && domain.has_job()? {
        return Err(RekeyError::Job.into());
    }
    Ok(())
}

/// Refuses a disk that is not one LUKS1 volume which only QEMU opens.
fn check_disk(disk: &Disk) -> Result<(&Source, ImageFormat), Error> {
    let not = || RekeyError::NotEncrypted(disk.target.dev.clone());
    let source = disk.source.as_ref().ok_or_else(not)?;
    let encryption = source.encryption.as_ref().ok_or_else(not)?;
    if disk.mirror.is_some() {
        return Err(RekeyError::Job.into());
    }
    if disk.shareable {
        return Err(RekeyError::Shareable.into());
    }
    if !disk.backing.is_empty() {
        return Err(RekeyError::Backing.into());
    }
    if encryption.engine == Some(Engine::Librbd) || encryption.format != Format::Luks {
        return Err(RekeyError::Beyond("QEMU does not decrypt the disk as LUKS1").into());
    }
    let format = match disk.driver.format.as_deref() {
        Some("raw") => ImageFormat::Raw,
        Some("qcow2") => ImageFormat::Qcow2,
        _ => return Err(RekeyError::Beyond("the image is neither raw nor qcow2").into()),
    };
    Ok((source, format))
}

/// The secret of a disk, and whether it is private.
fn secret_of(connection: &Connection, source: &Source) -> Result<(Uuid, bool), Error> {
    let encryption = source.encryption.as_ref();
    let [reference] = encryption.map_or(&[][..], |one| &one.secrets) else {
        return Err(RekeyError::Beyond("not exactly one secret opens the volume").into());
    };
    let about = |error: LibvirtError| Error::from(error).about(format_args!("secret {reference}"));
    let secret = connection.find_secret(reference).map_err(about)?;
    let private = match secret.value() {
        Ok(_) => false,
        Err(LibvirtError::Private(_)) => true,
        Err(error) => return Err(about(error)),
    };
    Ok((secret.uuid()?, private))
}

/// The hash and the size of the key of a LUKS1 volume.
fn parameters(container: &Container) -> Result<(Hash, usize), Error> {
    let luks2 = RekeyError::Beyond("the volume is LUKS2, which QEMU does not open");
    let Header::Luks1(header) = container.header() else {
        return Err(luks2.into());
    };
    let unknown = |_| RekeyError::Beyond("the volume has a hash that luksmith does not have");
    let hash = Hash::parse(&header.hash_name).map_err(unknown)?;
    let key_size = usize::try_from(header.key_bytes).unwrap_or(usize::MAX);
    Ok((hash, key_size))
}

/// Whether a path is a regular file.
pub(super) fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.is_file())
}
