//! The settings and the state of a host, in files below a root.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file::read;
use luksmith_formats::text::Name;

use crate::audit::conf;
use crate::audit::{BlockDevice, Document, Holds, Host, Inventory, KeptFile, SocketUnit};
use crate::task::{Advice, Error, Kind};

const LARGEST_FILE: u64 = conf::MOST_BYTES as u64 + 1;

/// The daemons whose files and sockets have the same settings.
const DAEMONS: [&str; 8] = [
    "libvirtd",
    "virtproxyd",
    "virtqemud",
    "virtstoraged",
    "virtsecretd",
    "virtnetworkd",
    "virtnodedevd",
    "virtinterfaced",
];

/// Adds the settings and the state of the host whose root is `root`: `/`, or where the files of
/// another system are.
///
/// A file that does not exist is skipped. One that cannot be read is recorded in
/// [`Host::not_read`].
///
/// # Errors
/// Returns an error if there is no `etc/libvirt`.
pub fn add_host(root: &Path, inventory: &mut Inventory) -> Result<(), Error> {
    let settings = root.join("etc/libvirt");
    if !settings.is_dir() {
        let message = format!("{} is not a folder", settings.display());
        return Err(Error::new(Kind::Storage, message).advise(Advice::OtherRoot));
    }
    let mut gathered = Gathered {
        root,
        host: Host::default(),
    };
    // Without this file, the defaults apply.
    let qemu = gathered.root.join("etc/libvirt/qemu.conf");
    if !qemu.exists() {
        let empty = Document::at(&qemu, "");
        gathered.host.files.push(empty);
    }
    gathered.file("etc/libvirt/qemu.conf");
    for daemon in DAEMONS {
        gathered.file(&format!("etc/libvirt/{daemon}.conf"));
        for kind in ["", "-admin", "-tcp", "-tls"] {
            gathered.unit(&format!("{daemon}{kind}.socket"));
        }
    }
    for folder in ["etc/default", "etc/sysconfig"] {
        for name in ["libvirtd", "libvirt-guests"] {
            gathered.file(&format!("{folder}/{name}"));
        }
    }
    gathered.file("etc/lvm/lvm.conf");
    gathered.host.lvm_devices_file = root.join("etc/lvm/devices/system.devices").exists();
    gathered.polkit();
    gathered.kept("etc/libvirt/secrets", "base64", Holds::Secret);
    gathered.kept("var/lib/libvirt/qemu/save", "save", Holds::Memory);
    gathered.kept("var/lib/libvirt/qemu/dump", "", Holds::Memory);
    gathered.host.mountinfo = gathered.read(&root.join("proc/self/mountinfo"));
    gathered.host.devices = devices(&root.join("sys/class/block"));
    if root == Path::new("/") {
        // The paths of loop devices are paths here.
        for device in &mut gathered.host.devices {
            let file = device.backing_file.as_ref();
            let file = file.and_then(|file| fs::metadata(file).ok());
            device.backing = file.map(|file| (file.dev(), file.ino()));
        }
    }
    for path in listed(&settings.join("storage")).unwrap_or_default() {
        if path.extension().is_some_and(|one| one == "xml") {
            inventory.documents.extend(gathered.read(&path));
        }
    }
    inventory.host = Some(gathered.host);
    Ok(())
}

struct Gathered<'a> {
    root: &'a Path,
    host: Host,
}

impl Gathered<'_> {
    /// Reads a file, if it exists.
    fn read(&mut self, path: &Path) -> Option<Document> {
        match read(path, LARGEST_FILE) {
            Ok(text) => Some(Document::at(path, text)),
            Err(error) => {
                self.missed(path, &error);
                None
            }
        }
    }

    fn missed(&mut self, path: &Path, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            let path = Name(path.as_os_str().as_encoded_bytes()).to_string();
            self.host.not_read.push((path, error.to_string()));
        }
    }

    fn file(&mut self, path: &str) {
        let document = self.read(&self.root.join(path));
        self.host.files.extend(document);
    }

    /// The files of several folders. If they have the same name, the one in the first folder hides
    /// the others.
    fn layered(&mut self, folders: &[PathBuf], end: &str) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for folder in folders {
            match listed(folder) {
                Ok(paths) => {
                    for path in paths {
                        let name = path.file_name().unwrap_or_default().to_string_lossy();
                        if name.ends_with(end) {
                            found.entry(name.into_owned()).or_insert(path);
                        }
                    }
                }
                Err(error) => self.missed(folder, &error),
            }
        }
        found
    }

    fn polkit(&mut self) {
        let folders = ["etc", "run", "usr/local/share", "usr/share"]
            .map(|folder| self.root.join(folder).join("polkit-1/rules.d"));
        for path in self.layered(&folders, ".rules").into_values() {
            let document = self.read(&path);
            self.host.files.extend(document);
        }
        self.file("usr/share/polkit-1/actions/org.libvirt.unix.policy");
    }

    /// Reads a unit of systemd (systemd.unit(5)): its file from the first folder that has it, and
    /// its drop-ins in the order of their names.
    fn unit(&mut self, name: &str) {
        let folders = [
            "etc/systemd/system",
            "run/systemd/system",
            "usr/local/lib/systemd/system",
            "usr/lib/systemd/system",
            "lib/systemd/system",
        ]
        .map(|folder| self.root.join(folder));
        let paths = folders.iter().map(|folder| folder.join(name));
        let Some(path) = paths
            .into_iter()
            .find(|path| path.symlink_metadata().is_ok())
        else {
            return;
        };
        // A masked unit is a link to /dev/null.
        if path
            .canonicalize()
            .is_ok_and(|path| path == Path::new("/dev/null"))
        {
            return;
        }
        let drop_ins: Vec<_> = folders
            .iter()
            .map(|folder| folder.join(format!("{name}.d")))
            .collect();
        let drop_ins = self.layered(&drop_ins, ".conf");
        let files = std::iter::once(path).chain(drop_ins.into_values());
        let files: Vec<_> = files.filter_map(|path| self.read(&path)).collect();
        let wanted = listed(&self.root.join("etc/systemd/system")).unwrap_or_default();
        let enabled = wanted.iter().any(|folder| {
            let kind = folder.extension().unwrap_or_default();
            (kind == "wants" || kind == "requires") && folder.join(name).symlink_metadata().is_ok()
        });
        self.host.sockets.push(SocketUnit {
            name: name.to_owned(),
            files,
            enabled,
        });
    }

    fn kept(&mut self, folder: &str, extension: &str, holds: Holds) {
        let folder = self.root.join(folder);
        let paths = match listed(&folder) {
            Ok(paths) => paths,
            Err(error) => return self.missed(&folder, &error),
        };
        for path in paths {
            let is_one =
                extension.is_empty() || path.extension().is_some_and(|one| one == extension);
            if let (true, Ok(metadata)) = (is_one, path.symlink_metadata()) {
                self.host.kept.push(KeptFile {
                    path: Name(path.as_os_str().as_encoded_bytes()).to_string(),
                    mode: metadata.permissions().mode(),
                    holds,
                });
            }
        }
    }
}

/// The paths in a folder, sorted by name.
fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok);
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The block devices of sysfs (Documentation/ABI/…/sysfs-block).
fn devices(folder: &Path) -> Vec<BlockDevice> {
    let paths = listed(folder).unwrap_or_default();
    paths.iter().filter_map(|path| device(path)).collect()
}

fn device(path: &Path) -> Option<BlockDevice> {
    let line = |name: &str| {
        let text = read(&path.join(name), 4096).ok()?;
        Some(
            String::from_utf8_lossy(&text)
                .trim_end_matches('\n')
                .to_owned(),
        )
    };
    let number = line("dev")?;
    let (major, minor) = number.split_once(':')?;
    let name_of = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let real = path.canonicalize().ok()?;
    let whole = line("partition").and_then(|_| name_of(real.parent()?.to_owned()));
    Some(BlockDevice {
        name: name_of(path.to_owned())?,
        number: (major.parse().ok()?, minor.parse().ok()?),
        backing_file: line("loop/backing_file"),
        backing: None,
        mapping: line("dm/name"),
        slaves: listed(&path.join("slaves"))
            .unwrap_or_default()
            .into_iter()
            .filter_map(name_of)
            .collect(),
        whole,
    })
}
