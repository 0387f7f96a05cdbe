//! Searches an image for data that is not encrypted, without a key.

use luksmith_formats::limits::Limits;

use super::open::ImageFormat;
use super::storage::{Remote, Storage};
use super::{Advice, Error, Note, Watch, Work, Working};
use crate::backend::file::OpenOptions;
use crate::layout::ImageError;
use crate::location::Location;
use crate::secret;
use crate::vet::ciphertext::areas::{ImageParts, Layout, Purpose};
use crate::vet::ciphertext::{AreaReport, Report, Sample, VerifyOptions, VetError, verify};

/// Where the header of a searched image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderPlace<'a> {
    /// At the start of the image, or nowhere: an image without one is searched as a whole.
    Inside,
    /// In a storage of its own.
    Detached(&'a Location),
    /// Nowhere: all of the image is data, whatever it begins with.
    Nowhere,
}

/// An opened image, and its areas as its header describes them.
pub struct Search<'a> {
    location: &'a Location,
    /// The detached header.
    header: Option<&'a Location>,
    data: Storage,
    layout: Layout,
}

impl<'a> Search<'a> {
    /// Opens an image, and reads its header.
    ///
    /// # Errors
    /// What the storages report, a header that cannot be read, the remains of a header that was
    /// overwritten, and a detached header that is not one.
    pub fn open(
        location: &'a Location,
        header: HeaderPlace<'a>,
        format: ImageFormat,
        remote: Remote,
        options: OpenOptions,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let limits = Limits::default();
        let asking = remote.extents(true);
        let data = Storage::open(location, asking, options, watch.interrupt())?;
        if format == ImageFormat::Qcow2 {
            if header != HeaderPlace::Inside {
                let message = "a qcow2 image has its header inside";
                let advice = Advice::OnlyRaw(&["header", "no-header"]);
                return Err(Error::parameters(message).advise(advice));
            }
            return Self::open_qcow2(location, data, &limits, watch);
        }
        let read = |storage: &Storage, from: &Location| {
            Layout::read(storage.backend.as_ref(), &limits)
                .map_err(|error| Error::from(error).about(from))
        };
        let layout = match header {
            HeaderPlace::Nowhere => Layout::headerless(),
            HeaderPlace::Inside => {
                let layout = read(&data, location)?;
                if layout.version.is_none() {
                    data.refuse_remains(location, &limits)?;
                }
                layout
            }
            HeaderPlace::Detached(from) => {
                let storage = Storage::open(from, remote, options, watch.interrupt())?;
                let layout = read(&storage, from)?;
                if layout.version.is_none() {
                    return Err(Error::from(VetError::NoHeader).about(from));
                }
                layout.detached()
            }
        };
        let header = match header {
            HeaderPlace::Detached(header) => Some(header),
            _ => None,
        };
        Ok(Self {
            location,
            header,
            data,
            layout,
        })
    }

    /// The same of a qcow2 image. No file that it names is opened.
    fn open_qcow2(
        location: &'a Location,
        data: Storage,
        limits: &Limits,
        watch: &dyn Watch,
    ) -> Result<Self, Error> {
        let data = data.into_qcow2_header(location)?;
        let about = |error: ImageError| Error::from(error).about(location);
        let Some(image) = &data.qcow2_header else {
            return Err(about(ImageError::NotQcow2));
        };
        let luks = Layout::read(&*image.storage(), limits)
            .map_err(|error| Error::from(error).about(location))?;
        if luks.version.is_none() {
            return Err(Error::from(VetError::NoHeader).about(location));
        }
        let mut walk = image.used_clusters().map_err(about)?;
        while walk.step().map_err(about)? {
            watch.check()?;
        }
        let used = walk.finish().map_err(about)?;
        let (start, len) = image.place();
        let mut parts = ImageParts::new(start..start.saturating_add(len));
        parts.data = used.data.into();
        parts.compressed = used.compressed.into();
        Ok(Self {
            location,
            header: None,
            data,
            layout: luks.in_image(parts),
        })
    }

    /// The format of the image.
    #[must_use]
    pub fn format(&self) -> ImageFormat {
        match self.data.qcow2_header {
            None => ImageFormat::Raw,
            Some(_) => ImageFormat::Qcow2,
        }
    }

    /// The areas of the image.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Searches the whole image, or a sample of it.
    ///
    /// # Errors
    /// What the storage reports, and [`Kind::Interrupted`](super::Kind::Interrupted).
    pub fn run(&self, sample: Option<Sample>, watch: &dyn Watch) -> Result<Report, Error> {
        let storage = self.data.backend.as_ref();
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        let options = VerifyOptions::new()
            .sample(sample)
            .threads(self.data.depth().max(processors));
        let total = self.layout.bytes_to_read(storage.geometry().size, options);
        let progress = Working::begin(watch, Work::Verify, Some(total));
        let advance = |bytes| progress.advance(bytes);
        let report = verify(storage, &self.layout, options, watch.interrupt(), &advance)
            .map_err(|error| Error::from(error).about(self.location))?;
        progress.finish();
        self.note(&report, watch);
        Ok(report)
    }

    /// Reports what the header says that is not as it should be.
    fn note(&self, report: &Report, watch: &dyn Watch) {
        let location = self.location;
        if self.layout.damaged_copy {
            let location = self.header.unwrap_or(location);
            watch.notes(Note::DamagedCopy { location });
        }
        for AreaReport { area, tally, .. } in &report.areas {
            match area.purpose {
                Purpose::PlainData => watch.notes(Note::PlainData {
                    location,
                    offset: area.range.start,
                    bytes: area.range.end - area.range.start,
                }),
                Purpose::Compressed => watch.notes(Note::Compressed {
                    location,
                    bytes: area.size(),
                }),
                Purpose::Keyslot(keyslot) if tally.random == 0 => {
                    watch.notes(Note::EmptyKeyslot { location, keyslot });
                }
                _ => {}
            }
        }
    }
}

/// A seed for a [`Sample`], from the operating system.
///
/// # Errors
/// The operating system has no random bytes.
pub fn random_seed() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    secret::random(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
