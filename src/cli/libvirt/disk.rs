//! The options that describe a disk, and hints about what the disk needs besides its XML.

use std::path::PathBuf;

use luksmith::container::Version;
use luksmith::libvirt::xml::{Engine, Host, SecretRef};
use luksmith::location::Location;
use luksmith::task::libvirt::disk::{DiskOptions, Login, Need, Served};
use luksmith::task::open::ImageFormat;

use crate::cli::args::{Choice, IMAGE_FORMATS, LocationParser, RemoteArgs, VERSIONS, choice};
use crate::cli::serving::serve_command;

/// How the guest sees the disk and the emulator uses it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Disk")]
pub(super) struct DiskArgs {
    /// The device in the guest: vda, sdb, … [default: vda; for attach the first of vda, vdb, …
    /// that is free]
    #[arg(long, value_name = "NAME", value_parser = parse_target)]
    pub(super) target: Option<String>,

    /// The bus [default: the one that libvirt derives from the target]
    #[arg(long, value_name = "BUS", value_parser = ["virtio", "scsi", "sata", "ide", "usb"])]
    bus: Option<String>,

    /// The serial number that the guest sees
    #[arg(long, value_name = "TEXT", value_parser = parse_serial)]
    serial: Option<String>,

    /// How the emulator uses the host's page cache
    #[arg(long, value_name = "HOW", value_parser = ["none", "writeback", "writethrough", "directsync", "unsafe"])]
    cache: Option<String>,

    /// How the emulator reads and writes; native needs --cache none or directsync
    #[arg(long, value_name = "HOW", value_parser = ["threads", "native", "io_uring"])]
    io: Option<String>,

    /// What the guest's discards do: unmap reveals the free space to the storage
    #[arg(long, value_name = "WHAT", value_parser = ["unmap", "ignore"])]
    discard: Option<String>,

    /// The guest cannot write
    #[arg(long)]
    read_only: bool,

    /// Several guests may write at once
    #[arg(long)]
    shareable: bool,

    /// libvirt does not change the owner and mode (a file, a device or a pool's volume)
    #[arg(long)]
    keep_owner: bool,
}

/// How the disk is opened.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Encryption")]
pub(super) struct OpenArgs {
    /// The secret that opens the volume: a UUID, or usage=volume:PATH [default: usage=volume: and
    /// the path of IMAGE]; one for each layer of an image in Ceph, from the top (libvirt 9.3 and
    /// later)
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<SecretRef>,

    /// The type of the volume; the header is then not read [default: the type in the header; if
    /// luksmith cannot open the location, luks1, or luks2 for rbd:]
    #[arg(short = 'M', long = "type", value_name = "TYPE", value_parser = choice(VERSIONS))]
    pub(super) luks_type: Option<Version>,

    /// The format of IMAGE; it is never guessed
    #[arg(long, value_name = "FORMAT", default_value = "raw", value_parser = choice(IMAGE_FORMATS))]
    format: ImageFormat,

    /// The LUKS header is in FILE (a detached header), which only --served opens: libvirt's XML has
    /// no place for it
    #[arg(long, value_name = "FILE", value_parser = LocationParser::Openable)]
    header: Option<Location>,

    /// What decrypts an image in Ceph [default: librbd for luks2, qemu for luks1]
    #[arg(long, value_name = "ENGINE", value_parser = choice(ENGINES))]
    engine: Option<Engine>,

    /// `luksmith serve` decrypts the volume and serves it on this socket; the XML of the disk then
    /// has no encryption
    #[arg(long, value_name = "SOCKET", group = "serves", conflicts_with_all = ["secret", "engine"])]
    pub(super) served: Option<PathBuf>,

    /// As --served, as a disk of vhost-user: faster, and the domain has to share its memory
    #[arg(long, value_name = "SOCKET", group = "serves", conflicts_with_all = ["secret", "engine"])]
    vhost_user: Option<PathBuf>,

    /// The name of the export on that socket
    #[arg(
        long,
        value_name = "NAME",
        requires = "served",
        default_value = "",
        hide_default_value = true
    )]
    export: String,

    /// The user that libvirt runs emulators as [default: libvirt-qemu or qemu, whichever exists]
    #[arg(long, value_name = "USER", requires = "serves")]
    emulator_user: Option<String>,

    /// A monitor of Ceph, HOST[:PORT] (repeatable)
    #[arg(long, value_name = "HOST", value_parser = parse_monitor)]
    monitor: Vec<Host>,

    /// The configuration file of Ceph's client, on the emulator's host
    #[arg(long, value_name = "FILE")]
    ceph_config: Option<String>,

    /// The user name with which the emulator logs in to Ceph or to the iSCSI target
    #[arg(long, value_name = "NAME", requires = "login_secret")]
    login: Option<String>,

    /// The secret of --login: a UUID, or usage=ceph:NAME or usage=iscsi:NAME
    #[arg(long, value_name = "SECRET", requires = "login")]
    login_secret: Option<SecretRef>,
}

const ENGINES: &[Choice<Engine>] = &[("qemu", "", Engine::Qemu), ("librbd", "", Engine::Librbd)];

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

/// The characters that libvirt's schema allows.
fn parse_serial(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.+- ".contains(c);
    if !text.is_empty() && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a serial number has letters, digits, blanks and _ . + -".to_owned())
    }
}

fn parse_monitor(text: &str) -> Result<Host, String> {
    let uri = format!("http://{text}/x");
    match Location::parse(uri.as_ref()) {
        Ok(Location::Server(server)) => Ok(Host::Tcp {
            name: server.host,
            port: server.port,
        }),
        _ => Err("a monitor is HOST or HOST:PORT".to_owned()),
    }
}

impl DiskArgs {
    /// The target in the guest, if it is named.
    pub(super) fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// The options of a disk whose volume was just made.
    pub(super) fn options(&self) -> DiskOptions {
        let mut options = DiskOptions::default();
        options.bus.clone_from(&self.bus);
        options.serial.clone_from(&self.serial);
        options.cache.clone_from(&self.cache);
        options.io.clone_from(&self.io);
        options.discard.clone_from(&self.discard);
        options.read_only = self.read_only;
        options.shareable = self.shareable;
        options.keep_owner = self.keep_owner;
        options
    }
}

impl OpenArgs {
    /// All options of a disk.
    pub(super) fn options(&self, disk: &DiskArgs, remote: &RemoteArgs) -> DiskOptions {
        let mut options = disk.options();
        options.secrets.clone_from(&self.secret);
        options.version = self.luks_type;
        options.engine = self.engine;
        options.format = self.format;
        options.header.clone_from(&self.header);
        let by_memory = self.vhost_user.as_ref().map(Served::by_vhost_user);
        options.served = self.served.as_ref().map(Served::new).or(by_memory);
        if let Some(served) = &mut options.served {
            served.export.clone_from(&self.export);
            served.emulator_user.clone_from(&self.emulator_user);
        }
        options.monitors.clone_from(&self.monitor);
        options.ceph_config.clone_from(&self.ceph_config);
        options.login = match (&self.login, &self.login_secret) {
            (Some(username), Some(secret)) => Some(Login::new(username, secret.clone())),
            _ => None,
        };
        options.remote = remote.get();
        options
    }
}

/// Hints about what a disk needs besides its XML.
pub(super) fn hints(needs: &[Need]) -> Vec<String> {
    needs.iter().map(hint).collect()
}

fn hint(need: &Need) -> String {
    match need {
        Need::Serving {
            image,
            header,
            format,
            by,
            socket,
            export,
            user,
            secret,
        } => {
            let image = (image.as_str(), header.as_deref(), *format);
            let mut command = serve_command(image, (*by, socket), export, *user);
            if let Some(secret) = secret {
                command.push_str(&format!(" --key libvirt:{secret}"));
            }
            format!("before the machine starts: {command}")
        }
        Need::EmulatorUser => {
            "the emulator's user is not known here; --socket-group and --allow-uid admit it"
                .to_owned()
        }
        other => other.to_string(),
    }
}
