//! `luksmith libvirt provision`: a volume, the secret that opens it, and the disk of it, in one.
//!
//! In a pool, libvirt makes the volume, wherever it is; the header is made here, in memory, and sent to it. What goes over a remote
//! connection is the header and, to libvirt's secrets, the passphrase; no file of the pool is touched from here.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use luksmith::backend::memory::MemoryBackend;
use luksmith::container::{self, Container, Undo, Version, Which};
use luksmith::libvirt::xml::{SecretRef, SecretXml, Usage, VolumeXml};
use luksmith::libvirt::{Connection, LibvirtError, Secret, StorageVolume};
use luksmith::location::Location;
use luksmith::secret::Passphrase;
use luksmith::task::emulator::{absolute, check_passphrase};
use luksmith::task::libvirt::disk::{self, Served};
use luksmith::task::new_volume::{Extent, HeaderAlone};
use luksmith_formats::cipher::{BlockCipher, IvGenerator};
use luksmith_formats::hash::Hash;
use luksmith_formats::json::{Value, json};
use uuid::Uuid;

use super::connect::ConnectArgs;
use super::disk::{DiskArgs, hints};
use super::taken_back::TakenBack;
use crate::cli::Session;
use crate::cli::args::{ImageFormat, LocationParser, NewVolumeArgs, VersionName};
use crate::cli::error::{CommandError, Kind};
use crate::cli::force::{Force, only};
use crate::cli::make;
use crate::cli::notes::note_slow;
use crate::cli::output;
use crate::cli::passphrase::KeySource;
use crate::cli::size;

/// Make a volume, the secret that opens it, and the XML of its disk
///
/// The passphrase is 256 random bits, and nowhere but in libvirt's secret, unless --key or --key-file says where it comes from. In a pool
/// (--pool, --name) libvirt makes the volume, also far away; IMAGE is a file, a device or an export that luksmith makes itself. The
/// volume is opened once with what the secret holds. If anything fails, or SIGINT comes, what was made is taken away again. With
/// --json: {"secret", "path", "pool", "volume", "type", "uuid", "size", "xml", "hints"}.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file to make, a block device, or an export (nbd://…), where it is in no pool
    #[arg(value_name = "IMAGE", value_parser = LocationParser::Openable, required_unless_present = "pool")]
    image: Option<Location>,

    /// The pool to make the volume in; it has to be started
    #[arg(long, value_name = "POOL", conflicts_with = "image", requires_all = ["name", "size"])]
    pool: Option<String>,

    /// Its name in the pool
    #[arg(long, value_name = "NAME", requires = "pool")]
    name: Option<String>,

    /// What the guest sees; the volume is that plus the header. 10G is 10 GiB [not for a device or an export: all of it]
    #[arg(long, value_name = size::SIZE, value_parser = size::parse)]
    size: Option<u64>,

    /// libvirt gives the secret's value to nobody afterwards, not to luksmith either
    #[arg(long)]
    private: bool,

    /// Go on without asking: overwrite
    #[arg(long, value_name = "WHAT", value_parser = only(&[Force::Overwrite]))]
    force: Vec<Force>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// The libvirt that is meant, remote ones too: qemu:///system, qemu:///session, qemu+ssh://HOST/system
    /// [default: LIBVIRT_DEFAULT_URI, or what libvirt finds]
    // Without the short name that ConnectArgs has: -c is the cipher here.
    #[arg(long, value_name = "URI")]
    connect: Option<String>,

    #[command(flatten)]
    disk: DiskArgs,

    /// `luksmith serve` decrypts it on this socket: the volume is LUKS2, and the disk has no encryption of its own
    #[arg(
        long,
        value_name = "SOCKET",
        conflicts_with = "pool",
        help_heading = "Encryption"
    )]
    served: Option<PathBuf>,

    /// As whom libvirt runs emulators [default: libvirt-qemu or qemu, whichever there is]
    #[arg(
        long,
        value_name = "USER",
        requires = "served",
        help_heading = "Encryption"
    )]
    emulator_user: Option<String>,

    #[command(flatten)]
    new: NewVolumeArgs,
}

const EXAMPLES: &str = "\
Examples:
  luksmith libvirt provision --pool default --name vm1.luks --size 20G
  luksmith libvirt provision --pool default --name vm1.luks --size 20G --connect qemu+ssh://host/system
  luksmith libvirt provision /vm/data.img --size 10G --target vdb > disk.xml && virsh attach-device vm1 disk.xml --config
  luksmith libvirt provision 'nbd://storage/vm1'
  luksmith libvirt provision /vm/two.img --size 10G --served /run/luksmith/two.sock";

/// What was made.
struct Made {
    secret: Uuid,
    path: Option<String>,
    version: Version,
    uuid: String,
    size: u64,
    /// For the disk's XML.
    place: Location,
}

impl Args {
    pub(crate) fn run(mut self, session: &Session) -> Result<(), CommandError> {
        let version = self.version()?;
        self.new.format.luks_type = Some(version);
        let connect = self.connect.clone();
        let connection = ConnectArgs { connect }.open()?;
        let passphrase = self.passphrase(session, version)?;
        // What is left when this fails is taken back as it is dropped.
        let mut taken_back = TakenBack::default();
        let made = match (&self.pool, &self.name, self.size) {
            (Some(pool), Some(name), Some(size)) => self.in_pool(
                session,
                &connection,
                &passphrase,
                &mut taken_back,
                (pool, name, size),
            )?,
            _ => self.at_location(session, &connection, &passphrase, &mut taken_back)?,
        };
        let (xml, hints) = self.disk_xml(&made)?;
        session.signals.check()?;
        taken_back.keep();
        if version == VersionName::Luks1 {
            output::note(
                "the volume is LUKS1: QEMU opens no other by itself; LUKS2 is for --served SOCKET",
            );
        }
        for hint in &hints {
            output::hint(hint);
        }
        if self.json {
            session.output.json(&self.report(&made, &xml, &hints));
        } else {
            output::note(format_args!(
                "made {} of {}, which secret {} opens",
                made.place,
                size::both(made.size),
                made.secret
            ));
            session.output.line(xml);
        }
        Ok(())
    }

    /// LUKS1, but for what luksmith serves.
    fn version(&self) -> Result<VersionName, CommandError> {
        if self.new.format.header.is_some() {
            let message = "--header: no emulator opens a volume with a detached header";
            return Err(CommandError::parameters(message).hint("leave it out"));
        }
        if self.new.format.image_format != ImageFormat::Raw {
            let message =
                "--format: what is provisioned is a raw volume, which a pool knows for encrypted";
            return Err(CommandError::parameters(message)
                .hint("`luksmith create --format qcow2` makes an image in a file"));
        }
        if self.served.is_none() {
            self.check_cipher()?;
        }
        match (self.new.format.luks_type, &self.served) {
            (Some(VersionName::Luks2), None) => Err(CommandError::parameters(
                "a disk of LUKS2 is one that luksmith serves: QEMU's own driver knows LUKS1 alone",
            )
            .hint("--served SOCKET says on which socket; --type luks1 is for QEMU itself")),
            (Some(stated), _) => Ok(stated),
            (None, Some(_)) => Ok(VersionName::Luks2),
            (None, None) => Ok(VersionName::Luks1),
        }
    }

    /// What QEMU's own driver does not have, of what LUKS1 can.
    fn check_cipher(&self) -> Result<(), CommandError> {
        let format = &self.new.format;
        let cipher = format.cipher.filter(|spec| {
            spec.cipher == BlockCipher::Camellia || spec.iv == IvGenerator::Plain64Be
        });
        let hash = format.hash.filter(|hash| *hash == Hash::Whirlpool);
        let missing = match (cipher, hash) {
            (Some(cipher), _) => cipher.to_string(),
            (None, Some(hash)) => hash.to_string(),
            (None, None) => return Ok(()),
        };
        Err(
            CommandError::parameters(format!("QEMU's own driver does not know {missing}"))
                .hint("--served SOCKET is for a volume that `luksmith serve` decrypts"),
        )
    }

    fn passphrase(
        &self,
        session: &Session,
        version: VersionName,
    ) -> Result<Passphrase, CommandError> {
        let key = &self.new.key;
        if key.key.is_none() && key.key_file.is_none() {
            return Ok(Passphrase::generate()?);
        }
        let passphrase =
            KeySource::of(key)?.fresh(session, "the new volume", self.new.force_weak)?;
        if version == VersionName::Luks1 {
            check_passphrase(&passphrase)?;
        }
        Ok(passphrase)
    }

    fn in_pool(
        &self,
        session: &Session,
        connection: &Connection,
        passphrase: &Passphrase,
        taken_back: &mut TakenBack,
        (pool_name, name, size): (&str, &str, u64),
    ) -> Result<Made, CommandError> {
        let pool = connection
            .pool(pool_name)
            .map_err(|error| CommandError::from(error).about(pool_name))?;
        if !pool.is_active()? {
            return Err(
                CommandError::parameters(format!("the pool {pool_name} is not started"))
                    .hint(format!("`virsh pool-start {pool_name}` starts it")),
            );
        }
        if name.contains('/') || matches!(name, "" | "." | "..") {
            return Err(
                CommandError::parameters(format!("--name {name}: no name of a volume"))
                    .hint("a name without / ; IMAGE in place of --pool is for a path"),
            );
        }
        let new = make::new_volume(session, &self.new)?;
        note_slow(new.cipher);
        let header = HeaderAlone::make(new, size, passphrase, session)?;
        let whole = header
            .offset
            .checked_add(size)
            .ok_or_else(|| CommandError::parameters("--size is too large"))?;
        let raw = VolumeXml::new(name)
            .capacity(Some(whole))
            .allocation(Some(if self.new.format.preallocate {
                whole
            } else {
                0
            }))
            .format(Some("raw".to_owned()));
        session.signals.check()?;
        let volume = pool.create_volume(&raw.to_xml()?).map_err(|error| {
            CommandError::from(error).about(format_args!("{name} in the pool {pool_name}"))
        })?;
        let path = volume.path();
        taken_back.volume = Some(volume);
        let path = path?;
        let (secret, uuid) =
            self.secret(session, connection, passphrase, taken_back, Some(&path))?;
        session.signals.check()?;
        if let Some(volume) = &taken_back.volume {
            let mut bytes = Cursor::new(header.storage.to_bytes());
            volume
                .upload(connection, 0, &mut bytes)
                .map_err(|error| CommandError::from(error).about("the header cannot be sent"))?;
        }
        session.signals.check()?;
        // The pool sees by this that it is encrypted, and by which secret.
        pool.refresh()?;
        let luks = self.check(
            session,
            connection,
            &pool.volume(name)?,
            &header,
            &secret,
            passphrase,
        )?;
        Ok(Made {
            secret: uuid,
            path: Some(path),
            version: header.container.version(),
            uuid: luks,
            size,
            place: Location::Pool {
                pool: pool.name()?,
                volume: name.to_owned(),
            },
        })
    }

    /// Opens what the pool has now with what the secret has now; the volume's UUID.
    fn check(
        &self,
        session: &Session,
        connection: &Connection,
        volume: &StorageVolume,
        header: &HeaderAlone,
        secret: &Secret,
        passphrase: &Passphrase,
    ) -> Result<String, CommandError> {
        let described = VolumeXml::parse(volume.xml()?.as_bytes())
            .map_err(|error| CommandError::new(Kind::Storage, error))?;
        if described.encryption.is_none() {
            output::note(
                "the pool does not tell that the volume is encrypted, as pools of some types never do",
            );
        }
        let mut bytes = Vec::new();
        volume.download(connection, 0, Some(header.offset), &mut bytes)?;
        let backend = Arc::new(MemoryBackend::from_bytes(bytes));
        let options =
            container::OpenOptions::new(Undo::NotLookedFor).limits(self.new.limits.limits());
        let container = Container::open(backend, options)
            .map_err(|error| CommandError::from(error).about("the new volume"))?;
        let kept = kept(secret)?;
        let interrupt = session.signals.interrupt();
        container.unlock(kept.as_ref().unwrap_or(passphrase), Which::Any, interrupt)?;
        Ok(container.uuid().to_owned())
    }

    /// Defines a secret for what lies at `path`, and gives it its value.
    fn secret(
        &self,
        session: &Session,
        connection: &Connection,
        passphrase: &Passphrase,
        taken_back: &mut TakenBack,
        path: Option<&str>,
    ) -> Result<(Secret, Uuid), CommandError> {
        session.signals.check()?;
        let usage = path.map(|path| Usage::volume(path));
        let description = match &self.image {
            Some(image) => format!("LUKS passphrase of {image}"),
            None => "LUKS passphrase".to_owned(),
        };
        let definition = SecretXml::new(usage)
            .description(Some(description))
            .private(self.private);
        let defined = connection.define_secret(&definition.to_xml()?);
        let secret = defined.map_err(|error| {
            let duplicate = matches!(error, LibvirtError::DuplicateUsage(_));
            let hint = path.map(|path| {
                format!("`luksmith libvirt secret remove usage=volume:{path}` removes it, if nothing needs it")
            });
            CommandError::from(error)
                .about(path.unwrap_or("the secret"))
                .hint_if(hint.filter(|_| duplicate))
        })?;
        let uuid = secret.uuid()?;
        taken_back.secret = Some(connection.secret(&uuid)?);
        secret.store(passphrase)?;
        Ok((secret, uuid))
    }

    fn at_location(
        &self,
        session: &Session,
        connection: &Connection,
        passphrase: &Passphrase,
        taken_back: &mut TakenBack,
    ) -> Result<Made, CommandError> {
        let Some(image) = &self.image else {
            return Err(CommandError::parameters("neither IMAGE nor --pool"));
        };
        let uri = connection.uri()?;
        if image.path().is_some() && is_far(&uri) {
            let message = format!("{image} would be made on this machine, and {uri} is another");
            return Err(CommandError::parameters(message).hint(
                "--pool POOL --name NAME makes a volume there; an export (nbd://…) can be for both",
            ));
        }
        let extent = self.size.map_or(Extent::AllThereIs, Extent::Exactly);
        let plan = make::plan(session, &self.new, image, &self.force, extent)?;
        let path = image.path().map(absolute).transpose()?;
        let (secret, uuid) =
            self.secret(session, connection, passphrase, taken_back, path.as_deref())?;
        let made = plan.make(passphrase, session)?;
        let kept = kept(&secret)?;
        let interrupt = session.signals.interrupt();
        made.container
            .unlock(kept.as_ref().unwrap_or(passphrase), Which::Any, interrupt)?;
        let backend = &made.data.backend;
        let size = made.container.data_size(backend.geometry().size)?;
        let done = Made {
            secret: uuid,
            path,
            version: made.container.version(),
            uuid: made.container.uuid().to_owned(),
            size,
            place: image.clone(),
        };
        session.signals.check()?;
        made.keep()?;
        if let Some(path) = image.path() {
            taken_back.file = path.is_file().then(|| path.to_owned());
        }
        Ok(done)
    }

    fn disk_xml(&self, made: &Made) -> Result<(String, Vec<String>), CommandError> {
        let mut options = self.disk.options();
        options.version = self.new.format.luks_type.map(Into::into);
        options.served = self.served.as_ref().map(|socket| {
            let mut served = Served::new(socket);
            served.emulator_user.clone_from(&self.emulator_user);
            served
        });
        options.secrets = vec![SecretRef::Uuid(made.secret.to_string())];
        let target = self.disk.target().unwrap_or("vda");
        let described = disk::describe(&made.place, target, &options)?;
        Ok((described.disk.to_xml()?, hints(&described.needs)))
    }

    fn report(&self, made: &Made, xml: &str, hints: &[String]) -> Value {
        json!({
            "secret": made.secret.to_string(),
            "path": made.path,
            "pool": self.pool,
            "volume": self.name,
            "type": made.version.to_string().to_lowercase(),
            "uuid": made.uuid,
            "size": made.size,
            "xml": xml,
            "hints": hints,
        })
    }
}

/// Whether a libvirt is on another machine: its URI names a host then.
fn is_far(uri: &str) -> bool {
    let authority = uri.split_once("://").map_or("", |(_, rest)| rest);
    !authority.is_empty() && !authority.starts_with('/')
}

/// What the secret gives, if it gives anything.
fn kept(secret: &Secret) -> Result<Option<Passphrase>, CommandError> {
    match secret.value() {
        Ok(kept) => Ok(Some(kept)),
        Err(LibvirtError::Private(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_with_a_host_is_far() {
        for near in [
            "qemu:///system",
            "qemu+unix:///system?socket=/run/x",
            "test:///default",
        ] {
            assert!(!is_far(near), "{near}");
        }
        for far in [
            "qemu+ssh://me@host/system",
            "qemu://host/system",
            "qemu+tls://[::1]:16514/",
        ] {
            assert!(is_far(far), "{far}");
        }
    }
}
