//! The options of a new volume, and the checks that they do not contradict each other.

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use luksmith_formats::limits::Limits;
use uuid::Uuid;

use crate::Interrupt;
use crate::container::{CreateOptions, Layout, Version};
use crate::kdf::calibrate::Cost;
use crate::location::Location;
use crate::secret::VolumeKey;
use crate::task::cost::CostOptions;
use crate::task::new_image::Absent;
use crate::task::open::ImageFormat;
use crate::task::storage::Remote;
use crate::task::{Advice, Error, Kind, Watch};

/// The options of a new volume. The defaults are those of cryptsetup.
#[derive(Debug)]
#[non_exhaustive]
pub struct NewVolume {
    /// The format of the image.
    pub format: ImageFormat,
    /// The size of a cluster of a qcow2 image, in bytes.
    pub cluster_size: Option<u32>,
    /// The version; by default LUKS2, and LUKS1 in a qcow2 image, which holds no other.
    pub version: Option<Version>,
    /// The cipher of the data.
    pub cipher: CipherSpec,
    /// The size of the volume key in bytes; by default the cipher's.
    pub key_size: Option<usize>,
    /// The hash of the digest, of the anti-forensic splitter and of PBKDF2.
    pub hash: Hash,
    /// The encryption sector size in bytes; by default 4096 where size and offset allow, else 512.
    pub sector_size: Option<u32>,
    /// A name by which the volume can be found (LUKS2), at most 47 bytes.
    pub label: String,
    /// A second name (LUKS2), at most 47 bytes.
    pub subsystem: String,
    /// The volume's UUID; by default a random one.
    pub uuid: Option<Uuid>,
    /// The number of the passphrase's keyslot.
    pub keyslot: u32,
    /// Where the data begins, in bytes.
    pub data_offset: Option<u64>,
    /// The size of one copy of the metadata in bytes (LUKS2).
    pub metadata_size: Option<u64>,
    /// The size of the keyslots area in bytes (LUKS2).
    pub keyslots_size: Option<u64>,
    /// Where the header is written, if it is detached.
    pub header: Option<Location>,
    /// The volume key, instead of a random one.
    pub volume_key: Option<VolumeKey>,
    /// Allocate the storage of a new file at once.
    pub preallocate: bool,
    /// The cost of opening the keyslot.
    pub cost: CostOptions,
    /// Limits on the key derivation that the header states.
    pub limits: Limits,
    /// How a server is reached.
    pub remote: Remote,
    /// Ends the wait for a server.
    pub interrupt: Interrupt,
}

impl Default for NewVolume {
    fn default() -> Self {
        Self {
            format: ImageFormat::Raw,
            cluster_size: None,
            version: None,
            cipher: CipherSpec::AES_XTS_PLAIN64,
            key_size: None,
            hash: Hash::Sha256,
            sector_size: None,
            label: String::new(),
            subsystem: String::new(),
            uuid: None,
            keyslot: 0,
            data_offset: None,
            metadata_size: None,
            keyslots_size: None,
            header: None,
            volume_key: None,
            preallocate: false,
            cost: CostOptions::default(),
            limits: Limits::default(),
            remote: Remote::default(),
            interrupt: Interrupt::default(),
        }
    }
}

/// The size of a new volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// Exactly this many bytes of plaintext. A volume on a device, on an export or in an existing
    /// image of Ceph always reaches to its end, and any other size is refused there.
    Exactly(u64),
    /// At least this many bytes of plaintext: a file is made for exactly these, but a device or an
    /// export may be larger.
    AtLeast(u64),
    /// All of a device or an export, or, with a detached header, all of the data file.
    AllThereIs,
    /// As many bytes as will be written. The file grows meanwhile.
    Growing,
}

impl Extent {
    /// The bytes of plaintext, if they are known.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::Exactly(size) | Self::AtLeast(size) => Some(size),
            Self::AllThereIs | Self::Growing => None,
        }
    }
}

impl NewVolume {
    /// Refuses options that the format does not allow.
    pub(super) fn check_format(&self, extent: Extent) -> Result<(), Error> {
        let wrong = |what: &str, advice| Err(Error::parameters(what).advise(advice));
        if self.format == ImageFormat::Raw {
            return match self.cluster_size {
                Some(_) => wrong(
                    "only a qcow2 image has clusters",
                    Advice::OnlyQcow2("cluster-size"),
                ),
                None => Ok(()),
            };
        }
        if self.version == Some(Version::Luks2) {
            return wrong("there is no LUKS2 in qcow2 images", Advice::VersionInQcow2);
        }
        if self.header.is_some() || self.data_offset.is_some() {
            return wrong(
                "a qcow2 image has its header inside, and its data in clusters",
                Advice::OnlyRaw(&["header", "offset"]),
            );
        }
        if self.preallocate {
            return wrong(
                "a qcow2 image grows as it is written",
                Advice::OnlyRaw(&["preallocate"]),
            );
        }
        match extent.size() {
            Some(_) => Ok(()),
            None => wrong("a qcow2 image needs a size", Advice::SizeOfGuest),
        }
    }

    /// Refuses options that a new image on a server cannot have.
    pub(super) fn check_new_image(&self, image: &Absent) -> Result<(), Error> {
        let what = image.what();
        if self.format == ImageFormat::Qcow2 {
            let message = format!("a new {what} is raw: it has snapshots and holes itself");
            return Err(Error::parameters(message));
        }
        match self.preallocate {
            true => {
                let message = format!("a new {what} grows as it is written");
                Err(Error::parameters(message))
            }
            false => Ok(()),
        }
    }

    /// The options of the container, without the costs, and the places of everything. `size` is the
    /// size of the plaintext, or of the storage; `blank` says that the storage of the header is
    /// new. In an image in Ceph the data begins at a multiple of `period`, if its place is not
    /// stated: librbd opens no other volume.
    pub(in crate::task) fn options(
        &mut self,
        size: Option<u64>,
        blank: bool,
        period: Option<u64>,
    ) -> Result<(CreateOptions, Layout), Error> {
        let qcow2 = self.format == ImageFormat::Qcow2;
        let version = self.version.unwrap_or(match qcow2 {
            true => Version::Luks1,
            false => Version::Luks2,
        });
        let cipher = self.cipher;
        cipher
            .check_writable()
            .map_err(|error| Error::new(Kind::Parameters, error).advise(Advice::UsualCipher))?;
        let key_size = self.key_size.unwrap_or_else(|| cipher.default_key_size());
        cipher.check_key_size(key_size).map_err(|error| {
            Error::new(Kind::Parameters, error).advise(Advice::KeySizes(cipher))
        })?;
        // The cost is measured later: contradictions are found before that.
        let unmeasured = Cost::Pbkdf2 {
            hash: self.hash,
            iterations: 1000,
        };
        let mut options = CreateOptions::new(version, unmeasured);
        options.cipher = cipher;
        options.key_size = key_size;
        options.hash = self.hash;
        options.keyslot = self.keyslot;
        options.label.clone_from(&self.label);
        options.subsystem.clone_from(&self.subsystem);
        options.uuid = self.uuid;
        options.data_offset = self.data_offset;
        options.metadata_size = self.metadata_size;
        options.keyslots_size = self.keyslots_size;
        options.detached = self.header.is_some();
        options.blank = blank;
        options.sector_size = 512;
        if qcow2 {
            options = options.in_qcow2();
        }
        let mut layout = options.layout()?;
        if let Some(period) = period.filter(|_| !qcow2 && !options.detached)
            && options.data_offset.is_none()
        {
            options.data_offset = layout.data_offset.checked_next_multiple_of(period);
            layout = options.layout()?;
        }
        options.sector_size = self
            .sector_size
            .unwrap_or_else(|| sector_size(size, version, layout.data_offset));
        let layout = options.layout()?;
        options.volume_key = self.volume_key.take();
        Ok((options, layout))
    }
}

/// Measures the costs of opening the keyslot and of checking the volume key.
pub(super) fn measure(
    cost: &CostOptions,
    options: &mut CreateOptions,
    watch: &dyn Watch,
) -> Result<(), Error> {
    options.kdf = cost.of_keyslot(options.hash, options.version, options.key_size, watch)?;
    options.digest_iterations = cost.of_digest(options.hash, watch)?;
    Ok(())
}

/// As cryptsetup: 4096 where everything is a multiple of it. A stream may end at any 512 bytes.
fn sector_size(size: Option<u64>, version: Version, data_offset: u64) -> u32 {
    let fits = version == Version::Luks2
        && size.is_some_and(|size| size.is_multiple_of(4096))
        && data_offset.is_multiple_of(4096);
    if fits { 4096 } else { 512 }
}

/// A volume has whole sectors, and at least one.
pub(super) fn check_size(size: Option<u64>, sector_size: u32) -> Result<(), Error> {
    match size {
        Some(0) => {
            let message = "a volume has one sector at least";
            Err(Error::parameters(message).advise(Advice::Size))
        }
        Some(size) if !size.is_multiple_of(u64::from(sector_size)) => {
            let message = format!(
                "a size of {size} bytes is not a whole number of {sector_size}-byte sectors"
            );
            let no_unit = size < 4096;
            Err(Error::parameters(message)
                .advise_if(no_unit, Advice::SizeUnit(size))
                .advise_if(!no_unit, Advice::SizeMultiple))
        }
        _ => Ok(()),
    }
}

pub(super) fn too_large() -> Error {
    Error::parameters("larger than 2^64 bytes")
}
