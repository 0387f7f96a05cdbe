//! Storages of volumes, each with a client of its own that changes what is stored there.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith::backend::Backend as _;
use luksmith::objects::s3::{Account, Credentials, S3Store};
use luksmith::objects::{ObjectsBackend, ObjectsOptions};
use luksmith::sectors::{Cipher, Sectors};
use luksmith_formats::objects::uri::Uri;
use support::ceph::Ceph;
use support::loop_device::LoopDevice;
use support::peers;
use support::s3_double::{S3Double, Service};

use crate::site::{CHEAP, S3_KEY, Site};

/// The size of each volume.
pub(crate) const SIZE: usize = 2 << 20;

const BLOCK: usize = 4096;

/// A storage with a volume that the key in `key` opens.
pub(crate) trait Place {
    /// The arguments that name the volume.
    fn name(&self) -> String;

    /// Where its data begins in what is stored.
    fn data(&self) -> usize;

    /// What is stored, as another client reads it.
    fn load(&self) -> Vec<u8>;

    /// Another client changes what is stored.
    fn store(&self, image: &[u8]);

    /// What the storage has now, which it has again when this is called.
    fn keep(&self) -> Box<dyn Fn() + '_> {
        let image = self.load();
        Box::new(move || self.store(&image))
    }
}

/// An export of nbdkit, with LUKS1.
pub(crate) struct Nbd {
    server: Child,
    nbdcopy: PathBuf,
    folder: PathBuf,
}

impl Nbd {
    pub(crate) fn new(site: &Site) -> Option<Self> {
        let (nbdkit, nbdcopy) = (peers::find("nbdkit")?, peers::find("nbdcopy")?);
        let folder = site.path("");
        let file = fs::File::create(folder.join("exported")).unwrap();
        file.set_len((LUKS1 + SIZE) as u64).unwrap();
        let mut command = site.of(
            &nbdkit,
            "--foreground --exit-with-parent --unix nbdkit.sock --pidfile nbdkit.pid file exported",
        );
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        let server = command.spawn().unwrap();
        let place = Self {
            server,
            nbdcopy,
            folder,
        };
        let until = Instant::now() + Duration::from_secs(30);
        // It makes the file when it listens.
        while !fs::read(place.folder.join("nbdkit.pid")).is_ok_and(|pid| !pid.is_empty()) {
            assert!(Instant::now() < until, "nbdkit does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let name = place.name();
        site.ok(&format!(
            "create {name} --type luks1 --key-file key {CHEAP}"
        ));
        Some(place)
    }

    fn copy(&self, from: &str, to: &str) {
        let mut command = Command::new(&self.nbdcopy);
        command.current_dir(&self.folder);
        peers::run(command.args(["--flush", from, to]));
    }
}

/// Where the data of volumes begins.
const LUKS1: usize = 2 << 20;
const LUKS2: usize = 16 << 20;

impl Place for Nbd {
    fn name(&self) -> String {
        let socket = self.folder.join("nbdkit.sock");
        format!("nbd+unix:///?socket={}", socket.display())
    }

    fn data(&self) -> usize {
        LUKS1
    }

    fn load(&self) -> Vec<u8> {
        self.copy(&self.name(), "loaded");
        fs::read(self.folder.join("loaded")).unwrap()
    }

    fn store(&self, image: &[u8]) {
        fs::write(self.folder.join("stored"), image).unwrap();
        self.copy("stored", &self.name());
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// An image in Ceph.
pub(crate) struct Rbd {
    ceph: &'static Ceph,
    image: String,
    folder: PathBuf,
}

impl Rbd {
    /// No other test has an image of the same name.
    pub(crate) fn new(site: &Site, image: &str) -> Option<Self> {
        let ceph = Ceph::running(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        let place = Self {
            ceph,
            image: image.to_owned(),
            folder: site.path(""),
        };
        let name = place.name();
        site.ok(&format!("create {name} --size 2M --key-file key {CHEAP}"));
        Some(place)
    }
}

impl Place for Rbd {
    fn name(&self) -> String {
        self.ceph.uri(&self.image)
    }

    fn data(&self) -> usize {
        LUKS2
    }

    fn load(&self) -> Vec<u8> {
        let to = self.folder.join("loaded");
        let _ = fs::remove_file(&to);
        let image = &self.image;
        let export = format!("export --no-progress rbd/{image} {}", to.display());
        self.ceph.rbd(&export);
        fs::read(to).unwrap()
    }

    fn store(&self, image: &[u8]) {
        let from = self.folder.join("stored");
        fs::write(&from, image).unwrap();
        let program = "for at in range(0, image.size(), 1 << 20):\n    \
                       image.write(open(sys.argv[1], 'rb').read()[at:at + (1 << 20)], at)\n\
                       image.flush()";
        let from = from.to_str().unwrap();
        self.ceph.python(&self.image, program, &[from]);
    }
}

/// A volume in an object store. The other client has the key of its bucket.
pub(crate) struct S3 {
    double: S3Double,
}

impl S3 {
    pub(crate) fn new(site: &Site) -> Self {
        let place = Self {
            double: S3Double::start(Service::default()),
        };
        let name = place.name();
        site.ok(&format!("create {name} --size 2M --key-file key {CHEAP}"));
        place
    }

    fn open(&self, write: bool) -> ObjectsBackend {
        let account = Account::new(Credentials::new(S3_KEY.0, S3_KEY.1, None), "us-east-1");
        let uri = Uri::parse(&self.name()).unwrap();
        let store = S3Store::new(&uri, account, Duration::from_secs(20)).unwrap();
        let options = ObjectsOptions::new().write(write);
        ObjectsBackend::open(Arc::new(store), None, options).unwrap()
    }
}

impl Place for S3 {
    fn name(&self) -> String {
        self.double.uri("volume")
    }

    fn data(&self) -> usize {
        LUKS2
    }

    fn load(&self) -> Vec<u8> {
        let volume = self.open(false);
        let size = usize::try_from(volume.geometry().size).unwrap();
        let mut content = Sectors::<Cipher>::with_len(size);
        volume.read_at(0, &mut content).unwrap();
        content.as_slice().to_vec()
    }

    fn store(&self, image: &[u8]) {
        let present = self.load();
        let volume = self.open(true);
        for (number, (new, old)) in image.chunks(BLOCK).zip(present.chunks(BLOCK)).enumerate() {
            if new != old {
                let mut content = Sectors::<Cipher>::with_len(new.len());
                content.as_mut_slice().copy_from_slice(new);
                volume.write_at((number * BLOCK) as u64, &content).unwrap();
            }
        }
        volume.close().unwrap();
    }

    /// The objects themselves, so that the whole history goes back.
    fn keep(&self) -> Box<dyn Fn() + '_> {
        let objects = self.double.objects();
        Box::new(move || self.double.restore(objects.clone()))
    }
}

/// A block device.
pub(crate) struct Device(LoopDevice);

impl Device {
    pub(crate) fn new(site: &Site) -> Option<Self> {
        let file = fs::File::create(site.path("behind")).unwrap();
        file.set_len((LUKS2 + SIZE) as u64).unwrap();
        let Some(device) = LoopDevice::attach(&site.path("behind"), &[]) else {
            peers::skip("no loop device can be attached");
            return None;
        };
        let place = Self(device);
        let name = place.name();
        site.ok(&format!("create {name} --key-file key {CHEAP}"));
        Some(place)
    }
}

impl Place for Device {
    fn name(&self) -> String {
        self.0.path().display().to_string()
    }

    fn data(&self) -> usize {
        LUKS2
    }

    fn load(&self) -> Vec<u8> {
        fs::read(self.0.path()).unwrap()
    }

    fn store(&self, image: &[u8]) {
        let device = fs::File::options().write(true).open(self.0.path());
        device.unwrap().write_all_at(image, 0).unwrap();
    }
}

/// A file whose header is in another one.
pub(crate) struct Detached(PathBuf);

impl Detached {
    pub(crate) fn new(site: &Site) -> Self {
        let place = Self(site.path("data.img"));
        let name = place.name();
        site.ok(&format!("create {name} --size 2M --key-file key {CHEAP}"));
        place
    }
}

impl Place for Detached {
    fn name(&self) -> String {
        "data.img --header data.header".to_owned()
    }

    fn data(&self) -> usize {
        0
    }

    fn load(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    fn store(&self, image: &[u8]) {
        fs::write(&self.0, image).unwrap();
    }
}
