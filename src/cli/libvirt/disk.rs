//! What a disk is to be, as it is told on the command line, and the XML of that.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use clap::ValueEnum;
use luksmith::container::Version;
use luksmith::libvirt::xml::{
    Auth, Disk, Encryption, Engine, Format, Host, Label, Network, SecretRef, Source, Store, Target,
    Usage,
};
use luksmith::location::Location;
use luksmith_formats::nbd::uri::{Transport, Uri};

use crate::cli::args::{RemoteArgs, VersionName};
use crate::cli::emulator::{User, absolute, refuse_luks2, serve_command, text_of_socket, version};
use crate::cli::error::{CommandError, Kind};

/// How the guest and the emulator have the disk.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Disk")]
pub(super) struct DiskArgs {
    /// Where the guest finds it: vda, sdb, … [default: vda; for attach the first of vda, vdb, … that is free]
    #[arg(long, value_name = "NAME", value_parser = parse_target)]
    pub(super) target: Option<String>,

    /// The bus [default: what libvirt takes for the target]
    #[arg(long, value_name = "BUS")]
    bus: Option<Bus>,

    /// The serial number that the guest sees
    #[arg(long, value_name = "TEXT", value_parser = parse_serial)]
    serial: Option<String>,

    /// What the emulator does with the host's page cache
    #[arg(long, value_name = "HOW")]
    cache: Option<Cache>,

    /// How the emulator reads and writes; native needs --cache none or directsync
    #[arg(long, value_name = "HOW")]
    io: Option<Io>,

    /// What the guest's discards do: unmap lets the storage see what is free
    #[arg(long, value_name = "WHAT")]
    discard: Option<Discard>,

    /// The guest only reads
    #[arg(long)]
    read_only: bool,

    /// Several guests may write at once
    #[arg(long)]
    shareable: bool,

    /// Leave the owner and mode of the file as they are (a file, a device or a pool's volume)
    #[arg(long)]
    keep_owner: bool,
}

/// How the disk is opened.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Encryption")]
pub(super) struct OpenArgs {
    /// The secret that opens it: a UUID, or usage=volume:PATH [default: usage=volume: and the path of IMAGE]; repeated for layers of librbd,
    /// from the top, which libvirt has since 9.3
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<SecretRef>,

    /// It is this, and is not looked at [default: what the header says; without a look luks1, for rbd: luks2]
    #[arg(short = 'M', long = "type", value_name = "TYPE")]
    pub(super) luks_type: Option<VersionName>,

    /// Who decrypts an image in Ceph [default: librbd for luks2, qemu for luks1]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineName>,

    /// `luksmith serve` decrypts it on this socket: the disk has no encryption of its own
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["secret", "engine"])]
    pub(super) served: Option<PathBuf>,

    /// The export's name there
    #[arg(
        long,
        value_name = "NAME",
        requires = "served",
        default_value = "",
        hide_default_value = true
    )]
    export: String,

    /// As whom libvirt runs emulators [default: libvirt-qemu or qemu, whichever there is]
    #[arg(long, value_name = "USER", requires = "served")]
    emulator_user: Option<String>,

    /// A monitor of Ceph, HOST[:PORT] (repeatable)
    #[arg(long, value_name = "HOST")]
    monitor: Vec<String>,

    /// The configuration file of Ceph's client, on the host of the emulator
    #[arg(long, value_name = "FILE")]
    ceph_config: Option<String>,

    /// Who the emulator is to Ceph or to the iSCSI target
    #[arg(long, value_name = "NAME", requires = "login_secret")]
    login: Option<String>,

    /// The secret of --login: a UUID, or usage=ceph:NAME or usage=iscsi:NAME
    #[arg(long, value_name = "SECRET", requires = "login")]
    login_secret: Option<SecretRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bus {
    Virtio,
    Scsi,
    Sata,
    Ide,
    Usb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cache {
    None,
    Writeback,
    Writethrough,
    Directsync,
    Unsafe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Io {
    Threads,
    Native,
    #[value(name = "io_uring")]
    Uring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Discard {
    Unmap,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Qemu,
    Librbd,
}

/// The name of a value, which is libvirt's own.
fn name<T: ValueEnum>(value: &T) -> Option<String> {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
}

fn parse_target(text: &str) -> Result<String, String> {
    let known = ["vd", "sd", "hd", "xvd"].iter().any(|prefix| {
        let rest = text.strip_prefix(prefix);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_lowercase()))
    });
    if known {
        Ok(text.to_owned())
    } else {
        Err("a target is vda, vdb, …, sda, … or hda, …".to_owned())
    }
}

/// As libvirt's schema has it.
fn parse_serial(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.+- ".contains(c);
    if !text.is_empty() && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a serial number has letters, digits, blanks and _ . + -".to_owned())
    }
}

/// A disk, and what else has to be done for it.
pub(super) struct Described {
    pub(super) disk: Disk,
    pub(super) hints: Vec<String>,
}

impl DiskArgs {
    /// The disk of a source, at a target.
    pub(super) fn disk(&self, source: Source, target: &str) -> Result<Disk, CommandError> {
        let mut source = source;
        if self.keep_owner {
            match source.store {
                Store::File(_) | Store::Block(_) | Store::Volume { .. } => {
                    source.labels.push(Label::untouched());
                }
                _ => {
                    let message = "--keep-owner: libvirt gives what a server has no owner";
                    return Err(CommandError::parameters(message).hint("leave it out"));
                }
            }
        }
        let target = Target::new(target.to_owned(), self.bus.as_ref().and_then(name));
        let mut disk = Disk::raw(source, target);
        disk.driver.cache = self.cache.as_ref().and_then(name);
        disk.driver.io = self.io.as_ref().and_then(name);
        disk.driver.discard = self.discard.as_ref().and_then(name);
        disk.serial.clone_from(&self.serial);
        disk.read_only = self.read_only;
        disk.shareable = self.shareable;
        Ok(disk)
    }
}

impl OpenArgs {
    /// Of a volume that was just made.
    pub(super) fn known(
        luks_type: Option<VersionName>,
        served: Option<PathBuf>,
        emulator_user: Option<String>,
    ) -> Self {
        Self {
            secret: Vec::new(),
            luks_type,
            engine: None,
            served,
            export: String::new(),
            emulator_user,
            monitor: Vec::new(),
            ceph_config: None,
            login: None,
            login_secret: None,
        }
    }

    /// Where a place is for libvirt, and what opens it. `known` is a secret that was just made for it.
    pub(super) fn describe(
        &self,
        place: &Location,
        known: Option<SecretRef>,
        disk: &DiskArgs,
        remote: &RemoteArgs,
        target: &str,
    ) -> Result<Described, CommandError> {
        let mut hints = Vec::new();
        let source = match &self.served {
            Some(_) => self.served(place, known.as_ref(), &mut hints)?,
            None => {
                let mut source = Source::plain(self.store(place, &mut hints)?);
                source.encryption = Some(self.encryption(place, known, remote, &mut hints)?);
                source.auth = self.auth(place)?;
                source
            }
        };
        let mut disk = disk.disk(source, target)?;
        if matches!(place, Location::Server(server) if server.protocol != "iscsi") {
            // The emulator's driver for these only reads.
            disk.read_only = true;
        }
        Ok(Described { disk, hints })
    }

    fn store(&self, place: &Location, hints: &mut Vec<String>) -> Result<Store, CommandError> {
        if !matches!(place, Location::Rbd { .. })
            && (!self.monitor.is_empty() || self.ceph_config.is_some())
        {
            return Err(CommandError::parameters(
                "--monitor and --ceph-config are for an image in Ceph, rbd:POOL/IMAGE",
            ));
        }
        Ok(match place {
            Location::Path(path) => {
                let device = path
                    .metadata()
                    .is_ok_and(|metadata| metadata.file_type().is_block_device());
                let path = absolute(path)?;
                if device {
                    Store::Block(path)
                } else {
                    Store::File(path)
                }
            }
            Location::Nbd(uri) => Store::Network(export(uri, hints)?),
            Location::Pool { pool, volume } => Store::Volume {
                pool: pool.clone(),
                volume: volume.clone(),
            },
            Location::Rbd { image, snapshot } => {
                let monitors = self.monitor.iter().map(|text| monitor(text));
                let monitors = monitors.collect::<Result<_, _>>()?;
                let mut network = Network::new("rbd", Some(image.clone()), monitors);
                network.snapshot.clone_from(snapshot);
                network.config.clone_from(&self.ceph_config);
                Store::Network(network)
            }
            Location::Server(server) => {
                let host = Host::Tcp {
                    name: server.host.clone(),
                    port: server.port,
                };
                let name = Some(server.name.clone());
                let mut network = Network::new(server.protocol, name, vec![host]);
                network.query.clone_from(&server.query);
                Store::Network(network)
            }
            other => {
                let message = format!("{other} cannot be described to libvirt");
                return Err(CommandError::new(Kind::Unsupported, message));
            }
        })
    }

    fn encryption(
        &self,
        place: &Location,
        known: Option<SecretRef>,
        remote: &RemoteArgs,
        hints: &mut Vec<String>,
    ) -> Result<Encryption, CommandError> {
        let rbd = matches!(place, Location::Rbd { .. });
        let version = match place {
            image if image.opened_here() && known.is_none() => {
                let version = version(image, remote, self.luks_type)?;
                if version == Version::Luks2 {
                    return Err(refuse_luks2(image));
                }
                version
            }
            _ => match (self.luks_type, self.engine) {
                (Some(stated), _) => stated.into(),
                (None, Some(EngineName::Librbd) | None) if rbd => Version::Luks2,
                _ => Version::Luks1,
            },
        };
        let engine = match (self.engine, version) {
            (Some(EngineName::Librbd), _) | (None, Version::Luks2) => Some(Engine::Librbd),
            (Some(EngineName::Qemu), _) => Some(Engine::Qemu),
            _ => None,
        };
        if engine == Some(Engine::Librbd) && !rbd {
            return Err(CommandError::parameters(
                "LUKS2, and librbd, are for an image in Ceph alone: QEMU's own driver knows LUKS1",
            )
            .hint("--served SOCKET is for a volume that `luksmith serve` decrypts"));
        }
        if engine == Some(Engine::Qemu) && version == Version::Luks2 {
            return Err(
                CommandError::parameters("QEMU's own driver knows LUKS1 alone")
                    .hint("--engine librbd opens LUKS2"),
            );
        }
        let mut secrets = self.secret.clone();
        if secrets.is_empty() {
            secrets.push(match known {
                Some(known) => known,
                None => default_secret(place)?,
            });
        }
        if secrets.len() > 1 {
            if engine != Some(Engine::Librbd) {
                return Err(CommandError::parameters(
                    "several secrets open the layers of an image in Ceph, by librbd alone",
                ));
            }
            hints.push("several secrets need libvirt 9.3 or newer".to_owned());
        }
        Ok(Encryption::new(
            match version {
                Version::Luks2 => Format::Luks2,
                _ => Format::Luks,
            },
            engine,
            secrets,
        ))
    }

    fn auth(&self, place: &Location) -> Result<Option<Auth>, CommandError> {
        let (Some(username), Some(secret)) = (&self.login, &self.login_secret) else {
            return Ok(None);
        };
        let kind = match place {
            Location::Rbd { .. } => "ceph",
            Location::Server(server) if server.protocol == "iscsi" => "iscsi",
            _ => {
                return Err(CommandError::parameters(
                    "--login is for Ceph and for iSCSI targets",
                ));
            }
        };
        Ok(Some(Auth::new(username, kind, secret.clone())))
    }

    /// What luksmith serves: an export on a socket that the emulator's user may connect to. libvirt gives sockets neither owner nor
    /// label.
    fn served(
        &self,
        place: &Location,
        known: Option<&SecretRef>,
        hints: &mut Vec<String>,
    ) -> Result<Source, CommandError> {
        let image = match place {
            Location::Path(path) => absolute(path)?,
            Location::Nbd(uri) => uri.to_string(),
            _ => {
                let message = format!("{place}: luksmith does not open that, and cannot serve it");
                return Err(CommandError::parameters(message)
                    .hint("the path of its file or device names it"));
            }
        };
        let socket = match &self.served {
            Some(socket) => absolute(socket)?,
            None => String::new(),
        };
        let user = match &self.emulator_user {
            Some(name) => Some(User::named(name).ok_or_else(|| {
                CommandError::parameters(format!("no user {name} in /etc/passwd"))
            })?),
            None => User::of_emulators(),
        };
        let mut command = serve_command(&image, &socket, &self.export, user);
        if let Some(known) = known {
            command.push_str(&format!(" --key libvirt:{known}"));
        }
        hints.push(format!("before the machine starts: {command}"));
        if user.is_none() {
            hints.push(
                "--socket-group and --allow-uid let the emulator's user in, who is nobody known here".to_owned(),
            );
        }
        let name = (!self.export.is_empty()).then(|| self.export.clone());
        let network = Network::new("nbd", name, vec![Host::Unix(socket)]);
        Ok(Source::plain(Store::Network(network)))
    }
}

/// The secret of a file or device, which is found by its path.
fn default_secret(place: &Location) -> Result<SecretRef, CommandError> {
    match place {
        Location::Path(path) => Ok(SecretRef::Usage(Usage::volume(absolute(path)?))),
        _ => Err(
            CommandError::parameters(format!("{place}: which secret opens it?"))
                .hint("--secret UUID names it; `luksmith libvirt secret list` shows all"),
        ),
    }
}

fn export(uri: &Uri, hints: &mut Vec<String>) -> Result<Network, CommandError> {
    let host = match &uri.transport {
        Transport::Unix(socket) => Host::Unix(text_of_socket(socket)?),
        Transport::Tcp { host, port } => Host::Tcp {
            name: host.clone(),
            port: Some(*port),
        },
    };
    let name = (!uri.export.is_empty()).then(|| uri.export.clone());
    let mut network = Network::new("nbd", name, vec![host]);
    if let Some(tls) = &uri.tls {
        network.tls = true;
        network.tls_hostname.clone_from(&tls.hostname);
        hints.push(
            "libvirt takes its certificates from nbd_tls_x509_cert_dir of qemu.conf, not from the URI".to_owned(),
        );
    }
    Ok(network)
}

fn monitor(text: &str) -> Result<Host, CommandError> {
    let uri = format!("http://{text}/x");
    match Location::parse(uri.as_ref()) {
        Ok(Location::Server(server)) => Ok(Host::Tcp {
            name: server.host,
            port: server.port,
        }),
        _ => Err(CommandError::parameters(format!(
            "--monitor {text}: is not HOST or HOST:PORT"
        ))),
    }
}
