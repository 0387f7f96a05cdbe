//! Images in Ceph: opens them, makes new ones, and knows what tasks have to know about them.

use luksmith_formats::rbd::Uri;

use super::Error;
use super::storage::{Remote, Storage};
use crate::backend::file::OpenOptions;
use crate::location::Location;

#[cfg(feature = "rbd")]
mod present {
    use std::sync::Arc;

    use super::*;
    use crate::backend::rbd::{AbsentImage, NewImage, RbdBackend, RbdOptions};
    use crate::secret::Passphrase;
    use crate::task::Kind;
    use crate::task::storage::{InCeph, Nature};

    /// An image that does not exist yet.
    pub(in crate::task) type Absent = AbsentImage;

    /// An image that was made, and is removed unless it is kept.
    pub(in crate::task) type Made = NewImage;

    fn options(uri: &Uri, remote: Remote) -> Result<RbdOptions, Error> {
        let key = key(uri).map_err(|error| error.about(uri))?;
        Ok(RbdOptions::new()
            .timeout(remote.timeout)
            .key(key.map(Arc::new)))
    }

    /// The key of the user, if the URI names a libvirt secret with it.
    #[cfg(feature = "libvirt")]
    fn key(uri: &Uri) -> Result<Option<Passphrase>, Error> {
        use crate::libvirt::xml::{SecretRef, Usage, UsageType};
        use crate::libvirt::{ConnectOptions, Connection};
        let Some(text) = &uri.secret else {
            return Ok(None);
        };
        let named = text.parse::<SecretRef>();
        let named = named.map_err(|error| Error::new(Kind::Parameters, error))?;
        if let SecretRef::Usage(Usage { kind, .. }) = &named
            && *kind != UsageType::Ceph
        {
            return Err(Error::parameters(
                "the key of a user is in a secret of usage ceph",
            ));
        }
        let connection = Connection::open(&ConnectOptions::new().uri(uri.libvirt.clone()))?;
        let value = connection.find_secret(&named).and_then(|it| it.value());
        let about = |error| Error::from(error).about(format_args!("secret {named}"));
        Ok(Some(value.map_err(about)?))
    }

    #[cfg(not(feature = "libvirt"))]
    fn key(uri: &Uri) -> Result<Option<Passphrase>, Error> {
        match uri.secret {
            None => Ok(None),
            Some(_) => {
                let missing = crate::MissingFeature::new("a key in a libvirt secret", "libvirt");
                Err(Error::new(Kind::Unsupported, missing))
            }
        }
    }

    fn storage(backend: RbdBackend) -> Storage {
        let ceph = InCeph {
            period: backend.period(),
            parent: backend.parent(),
        };
        Storage {
            ceph: Some(ceph),
            ..Storage::raw(Arc::new(backend), Nature::Rbd)
        }
    }

    /// Opens an image. Only a writer has it for itself; `file` says whether it is one, and whether
    /// a QEMU may have it open for writing too.
    pub(in crate::task) fn open(
        uri: &Uri,
        remote: Remote,
        file: OpenOptions,
    ) -> Result<Storage, Error> {
        let options = options(uri, remote)?;
        let options = options.write(file.writes()).beside(file.is_beside());
        Ok(storage(RbdBackend::open(uri, options)?))
    }

    /// The name of an image that does not exist, or `None` if it does.
    pub(in crate::task) fn absent(uri: &Uri, remote: Remote) -> Result<Option<Absent>, Error> {
        Ok(AbsentImage::look(uri, options(uri, remote)?)?)
    }

    /// Makes an image of this size.
    pub(in crate::task) fn make(absent: Absent, size: u64) -> Result<(Storage, Made), Error> {
        let (backend, made) = absent.make(size)?;
        Ok((storage(backend), made))
    }

    /// Whether two URIs name the same image of the same cluster, or snapshots of it.
    pub(super) fn is_same_image(one: &Uri, other: &Uri, remote: Remote) -> Result<bool, Error> {
        let id = |uri| -> Result<_, Error> {
            let id = RbdBackend::open(uri, options(uri, remote)?)?.id();
            Ok(id.map(|id| (id.cluster, id.pool, id.image)))
        };
        Ok(one == other || id(one)?.is_some_and(|one| Some(one) == id(other).ok().flatten()))
    }
}

#[cfg(not(feature = "rbd"))]
mod present {
    use super::*;
    use crate::MissingFeature;
    use crate::task::Kind;

    /// There is none without the feature.
    pub(in crate::task) enum Absent {}

    /// There is none without the feature.
    pub(in crate::task) enum Made {}

    impl Absent {
        pub(in crate::task) fn period(&self) -> u64 {
            match *self {}
        }
    }

    impl Made {
        pub(in crate::task) fn keep(self) {
            match self {}
        }
    }

    fn missing(uri: &Uri) -> Error {
        let missing = MissingFeature::new("a volume in an image of Ceph", "rbd");
        Error::new(Kind::Unsupported, missing).about(uri)
    }

    pub(in crate::task) fn open(uri: &Uri, _: Remote, _: OpenOptions) -> Result<Storage, Error> {
        Err(missing(uri))
    }

    pub(in crate::task) fn absent(uri: &Uri, _: Remote) -> Result<Option<Absent>, Error> {
        Err(missing(uri))
    }

    pub(in crate::task) fn make(absent: Absent, _: u64) -> Result<(Storage, Made), Error> {
        match absent {}
    }

    pub(super) fn is_same_image(one: &Uri, other: &Uri, _: Remote) -> Result<bool, Error> {
        Ok(one == other)
    }
}

pub(super) use present::{Absent, Made, absent, make, open};

/// The image in Ceph at a location, or of which the location is a part.
fn image(location: &Location) -> Option<&Uri> {
    match location {
        Location::Rbd(uri) => Some(uri),
        Location::Part { whole, .. } => image(whole),
        _ => None,
    }
}

/// Whether two locations are in one image, or in a snapshot of it, whatever their URIs are.
///
/// # Errors
/// What the cluster of the first one reports.
pub(super) fn is_same(one: &Location, other: &Location, remote: Remote) -> Result<bool, Error> {
    match (image(one), image(other)) {
        (Some(one), Some(other)) => present::is_same_image(one, other, remote),
        _ => Ok(false),
    }
}
