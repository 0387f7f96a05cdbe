//! The parts that `create`, `encrypt` and `copy` share: they make a plan from the arguments, ask
//! the user to agree to losses, and show the new volume.

use std::fmt::Display;

use luksmith::location::Location;
use luksmith::task;
use luksmith::task::copy::Fill;
use luksmith::task::new_volume::{Made, NewVolume, Plan};
use luksmith::task::open::ImageFormat;
use luksmith::task::openers::{Opener, QemuObstacle};
use luksmith::task::outcome::Created;
use luksmith::task::trust::NewPin;
use luksmith::trust::TrustDir;
use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;

use super::Session;
use super::args::{NewVolumeArgs, TrustArgs};
use super::error::CommandError;
use super::force::{Force, confirm_all};
use super::notes::note_slow;
use super::output;
use super::passphrase::volume_key_file;
use super::terminal;

/// The options of the new volume, from the arguments.
pub(crate) fn new_volume(
    session: &Session,
    args: &NewVolumeArgs,
) -> Result<NewVolume, CommandError> {
    let format = &args.format;
    let mut new = NewVolume::default();
    new.format = format.image_format;
    new.cluster_size = format
        .cluster_size
        .map(|size| u32::try_from(size).unwrap_or(u32::MAX));
    new.version = format.luks_type;
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
    (trust, image): (&TrustArgs, &Location),
    forced: &[Force],
    look: impl FnOnce(NewVolume) -> Result<Plan, task::Error>,
) -> Result<Plan, CommandError> {
    if let Some(dir) = made(trust)? {
        NewPin::check(image, args.format.header.as_ref(), &dir)?;
    }
    let mut new = new_volume(session, args)?;
    new.remote.unfenced = forced.contains(&Force::Unfenced);
    let cipher = new.cipher;
    let plan = look(new)?;
    let losses = plan.losses().iter();
    let losses: Vec<_> = losses
        .map(|loss| (Force::Overwrite, loss.to_string()))
        .collect();
    confirm_all(forced, &losses)?;
    note_slow(cipher);
    Ok(plan)
}

/// The help of `--trust` for a new volume.
pub(crate) const TRUST: &str = "Pin the header of the new volume in DIR, which is made with mode \
                                0700 if it does not exist; see `luksmith trust`";

/// The folder of the pins, which is made if it does not exist.
fn made(trust: &TrustArgs) -> Result<Option<TrustDir>, CommandError> {
    let dir = trust.dir().map(|dir| TrustDir::make(dir.path()));
    Ok(dir.transpose()?)
}

/// What will be pinned of the new volume, if it will be.
pub(crate) fn pin(
    args: &NewVolumeArgs,
    trust: &TrustArgs,
    volume: &Made<'_>,
    image: &Location,
) -> Result<Option<NewPin>, CommandError> {
    let header = args.format.header.as_ref();
    let pin = |dir| NewPin::of(volume, image, header, &dir);
    Ok(made(trust)?.map(pin).transpose()?)
}

/// Pins the new volume, which has its name now.
pub(crate) fn write_pin(pin: Option<NewPin>) -> Result<(), CommandError> {
    let Some(pin) = pin else {
        return Ok(());
    };
    pin.write().map_err(|error| {
        let hint = "the volume was made; `luksmith trust init` pins it";
        CommandError::from(error).hint(hint)
    })
}

/// Refuses holes in a raw volume.
pub(crate) fn check_sparse(sparse: bool, args: &NewVolumeArgs) -> Result<(), CommandError> {
    match sparse && args.format.image_format == ImageFormat::Raw {
        true => Err(CommandError::parameters("a raw volume has no holes")
            .hint("--sparse goes with --format qcow2")),
        false => Ok(()),
    }
}

/// The error of a copy that may have left a part of the data on a device or an export.
pub(crate) fn partly(error: task::Error, fill: Fill, image: &Location) -> CommandError {
    let partly = format!("{image} is now a volume that holds part of the data");
    CommandError::from(error).hint_if(fill.fixed.then_some(partly))
}

/// Says that the volume is larger than the `end` bytes of the source.
pub(crate) fn note_rest(
    made: &Made<'_>,
    end: u64,
    image: &Location,
    source: impl Display,
) -> Result<(), CommandError> {
    if end < made.size()? {
        output::note(format_args!(
            "{image} is larger than {source}: the volume reads as random bytes from byte {end} on",
        ));
    }
    Ok(())
}

/// Prints the new volume, and which programs open it.
pub(crate) fn done(session: &Session, created: &Created) {
    session.done(created);
    if !session.json && !terminal::is_quiet() {
        session
            .output
            .line(opened(&created.openers, created.qemu_obstacle));
    }
}

/// The line that says which programs open the new volume.
fn opened(openers: &[Opener], qemu: Option<QemuObstacle>) -> String {
    let names = openers.iter().map(|opener| match opener {
        Opener::Qemu => "QEMU".to_owned(),
        Opener::Luksmith => "luksmith serve".to_owned(),
        other => other.to_string(),
    });
    let mut names: Vec<_> = names.collect();
    if openers.contains(&Opener::Qemu) {
        names.push("libvirt's own driver".to_owned());
    }
    let last = names.pop().unwrap_or_default();
    let names = match names.is_empty() {
        true => format!("only {last} opens"),
        false => format!("{} and {last} open", names.join(", ")),
    };
    let qemu = match qemu {
        None => String::new(),
        Some(QemuObstacle::Luks2) => "; for QEMU and libvirt's own driver: --type luks1".to_owned(),
        Some(other) => format!("; {other}"),
    };
    format!("{names} this volume{qemu}")
}
