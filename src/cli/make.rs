//! The parts that `create` and `encrypt` share: they make a plan from the arguments, ask the user
//! to agree to losses, and show the new volume.

use luksmith::location::Location;
use luksmith::task::new_volume::{Extent, Made, NewVolume, Plan};
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use luksmith_formats::json::{Value, json};

use super::Session;
use super::args::NewVolumeArgs;
use super::error::CommandError;
use super::force::{Force, confirm};
use super::json;
use super::notes::note_slow;
use super::passphrase::volume_key_file;
use super::size;

/// The options of the new volume, from the arguments.
pub(crate) fn new_volume(
    session: &Session,
    args: &NewVolumeArgs,
) -> Result<NewVolume, CommandError> {
    let format = &args.format;
    let mut new = NewVolume::default();
    new.format = format.image_format.into();
    new.cluster_size = format
        .cluster_size
        .map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    new.version = format.luks_type.map(Into::into);
    new.cipher = format.cipher.unwrap_or(CipherSpec::AES_XTS_PLAIN64);
    new.key_size = format.key_size;
    new.hash = format.hash.unwrap_or(Hash::Sha256);
    new.sector_size = format.sector_size;
    new.label = format.label.clone().unwrap_or_default();
    new.subsystem = format.subsystem.clone().unwrap_or_default();
    new.uuid = format.uuid;
    new.keyslot = format.keyslot.unwrap_or(0);
    new.data_offset = match format.offset {
        Some(sectors) => Some(
            sectors
                .checked_mul(512)
                .ok_or_else(|| CommandError::parameters("--offset: larger than 2^64 bytes"))?,
        ),
        None => None,
    };
    new.metadata_size = format.luks2_metadata_size;
    new.keyslots_size = format.luks2_keyslots_size;
    new.header.clone_from(&format.header);
    if let Some(path) = &format.volume_key_file {
        new.volume_key = Some(volume_key_file(session, path)?);
    }
    new.preallocate = format.preallocate;
    new.cost = args.pbkdf.get();
    new.limits = args.limits.limits();
    new.remote = args.remote.get();
    new.interrupt = session.signals.interrupt().clone();
    Ok(new)
}

/// Makes a plan, and asks the user if something would be lost.
pub(crate) fn plan(
    session: &Session,
    args: &NewVolumeArgs,
    image: &Location,
    forced: &[Force],
    extent: Extent,
) -> Result<Plan, CommandError> {
    let new = new_volume(session, args)?;
    let cipher = new.cipher;
    let plan = Plan::look(new, image, extent)?;
    for loss in plan.losses() {
        confirm(forced, Force::Overwrite, &loss.to_string())?;
    }
    note_slow(cipher);
    Ok(plan)
}

/// The properties of the new volume, for the output.
pub(crate) struct Shown {
    json: Value,
    line: String,
}

impl Shown {
    pub(crate) fn of(made: &Made<'_>, image: &Location) -> Result<Self, CommandError> {
        let volume_size = made.size()?;
        let container = &made.container;
        let segment = container.data_segment().ok();
        let in_image = made.data.qcow2.is_some();
        let mut value = json!({
            "image": null,
            "format": if in_image { "qcow2" } else { "raw" },
            "type": container.version().to_string().to_lowercase(),
            "uuid": container.uuid(),
            "cipher": segment.map(|segment| segment.cipher.to_string()),
            "key_bits": made.unlocked.key().as_bytes().len() * 8,
            "sector_size": segment.map(|segment| segment.sector_size),
            "data": {
                "offset": segment.filter(|_| !in_image).map(|segment| segment.offset),
                "size": volume_size,
            },
            "keyslot": made.unlocked.slot(),
        });
        value = json::with_image(value, image);
        if let Some(image) = json::qcow2(&made.data) {
            value["qcow2"] = image;
        }
        let line = format!(
            "{image}: {} volume of {}, {}-byte sectors, UUID {}",
            container.version(),
            size::both(volume_size),
            segment.map_or(512, |segment| segment.sector_size),
            container.uuid()
        );
        Ok(Self { json: value, line })
    }

    pub(crate) fn print(self, session: &Session, as_json: bool) {
        if as_json {
            session.output.json(&self.json);
        } else {
            session.output.line(self.line);
        }
    }
}
