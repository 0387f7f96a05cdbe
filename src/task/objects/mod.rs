//! Volumes in object stores: opens them, and makes new ones.

use luksmith_formats::objects::uri::Uri;

use super::Error;
use super::storage::{Remote, Storage};
use crate::backend::file::OpenOptions;
use crate::location::Location;

#[cfg(feature = "s3")]
mod present {
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex, PoisonError};

    use luksmith_formats::objects::volume::Volume;

    use super::*;
    use crate::objects::s3::S3Store;
    use crate::objects::{
        NotClosed, ObjectsBackend, ObjectsError, ObjectsOptions, OwnClaim, Store,
    };
    use crate::task::storage::{Nature, Snapshots};

    /// A volume that does not exist yet.
    pub(in crate::task) struct Absent {
        store: Arc<dyn Store>,
        options: ObjectsOptions,
        uri: Uri,
        unfenced: bool,
    }

    /// A volume that was made, and is removed unless it is kept.
    pub(in crate::task) struct Made {
        /// Dropped before the objects are removed: no upload comes after that.
        backend: Option<Arc<ObjectsBackend>>,
        absent: Absent,
        uuid: [u8; 16],
        is_kept: bool,
    }

    /// How many objects are read at the same time.
    const CONNECTIONS: usize = 16;

    /// The options that the URI and the way to the server give, for reading.
    pub(in crate::task) fn options(uri: &Uri, remote: Remote) -> ObjectsOptions {
        let connections = remote.connections.unwrap_or(CONNECTIONS);
        let host = rustix::system::uname();
        let options = match uri.cache_size {
            Some(size) => ObjectsOptions::new().cache_size(size),
            None => ObjectsOptions::new(),
        };
        options
            .journal(uri.journal.as_ref().map(PathBuf::from))
            .cache(uri.cache.as_ref().map(PathBuf::from))
            .timeout(remote.timeout)
            .connections(connections)
            .not_closed(Some(NotClosed::new(uri.to_string(), keep)))
            .uploads(connections.div_ceil(2))
            .host(host.nodename().to_string_lossy().into_owned())
    }

    /// The volumes that could not be closed.
    static NOT_CLOSED: Mutex<Vec<Error>> = Mutex::new(Vec::new());

    fn keep(volume: &str, error: ObjectsError) {
        let about = format!("{volume} was not closed");
        let mut all = NOT_CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Error::from(error).about(about));
    }

    /// The failures of volumes that were dropped since the last call and could not be closed: the
    /// store lacks what only the journal has, or the next writer has to take the volume over.
    #[must_use]
    pub fn not_closed() -> Vec<Error> {
        let mut all = NOT_CLOSED.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all)
    }

    fn store(uri: &Uri, remote: Remote) -> Result<Arc<dyn Store>, Error> {
        let store = S3Store::connect(uri, remote.timeout);
        Ok(Arc::new(
            store.map_err(|error| Error::from(error).about(uri))?,
        ))
    }

    fn storage(backend: Arc<ObjectsBackend>) -> Storage {
        let mut storage = Storage::raw(backend.clone(), Nature::Objects);
        storage.snapshots = Some(backend);
        storage
    }

    impl Snapshots for ObjectsBackend {
        fn make(&self, name: &str) -> Result<(), Error> {
            Ok(self.make_snapshot(name)?)
        }

        fn delete(&self, name: &str) -> Result<(), Error> {
            Ok(self.delete_snapshot(name)?)
        }
    }

    /// Opens a volume. Only a writer claims it; `file` says whether it is one.
    pub(in crate::task) fn open(
        uri: &Uri,
        remote: Remote,
        file: OpenOptions,
    ) -> Result<Storage, Error> {
        let options = options(uri, remote).write(file.writes());
        Ok(storage(Arc::new(open_backend(uri, remote, options)?)))
    }

    /// Opens a volume with these options.
    pub(in crate::task) fn open_backend(
        uri: &Uri,
        remote: Remote,
        options: ObjectsOptions,
    ) -> Result<ObjectsBackend, Error> {
        let backend = ObjectsBackend::open(store(uri, remote)?, uri.snapshot.as_deref(), options);
        backend.map_err(|error| Error::from(error).about(uri))
    }

    /// The place of a volume that does not exist, or `None` if it does.
    pub(in crate::task) fn absent(uri: &Uri, remote: Remote) -> Result<Option<Absent>, Error> {
        let (store, options) = (store(uri, remote)?, options(uri, remote));
        let about = |error| Error::from(error).about(uri);
        match ObjectsBackend::find(store.clone(), &options).map_err(about)? {
            Some(_) => Ok(None),
            None if uri.snapshot.is_some() => Err(about(ObjectsError::Absent)),
            None => Ok(Some(Absent {
                store,
                options: options.write(true),
                uri: uri.clone(),
                unfenced: remote.unfenced,
            })),
        }
    }

    /// Makes a volume of this size.
    pub(in crate::task) fn make(absent: Absent, size: u64) -> Result<(Storage, Made), Error> {
        let about = |error| Error::from(error).about(&absent.uri);
        let mut volume = Volume::new(rand::random(), size);
        if absent.uri.journal.is_some() {
            volume = volume.with_journal();
        }
        let create =
            |volume: &Volume| ObjectsBackend::create(absent.store.clone(), volume, &absent.options);
        match create(&volume) {
            Err(ObjectsError::Overwrites) if absent.unfenced => {
                volume = volume.with_unfenced();
                create(&volume)
            }
            created => created,
        }
        .map_err(about)?;
        match ObjectsBackend::open(absent.store.clone(), None, absent.options.clone()) {
            Ok(backend) => {
                let backend = Arc::new(backend);
                let made = Made {
                    backend: Some(backend.clone()),
                    absent,
                    uuid: volume.uuid,
                    is_kept: false,
                };
                Ok((storage(backend), made))
            }
            Err(error) => {
                absent.remove(volume.uuid, None);
                Err(about(error))
            }
        }
    }

    impl Absent {
        /// Removes the volume that was made, unless another writer has opened it.
        fn remove(&self, uuid: [u8; 16], own: Option<OwnClaim>) {
            let removed = ObjectsBackend::remove(self.store.clone(), uuid, own, &self.options);
            if let Err(error) = removed {
                let error = crate::task::chain(&error);
                tracing::warn!(volume = %self.uri, error, "an unfinished volume was not removed");
            }
        }
    }

    impl Made {
        pub(in crate::task) fn keep(mut self) {
            self.is_kept = true;
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            if !self.is_kept {
                let backend = self.backend.take();
                let own = backend.and_then(|backend| {
                    backend.abandon();
                    backend.claim()
                });
                self.absent.remove(self.uuid, own);
            }
        }
    }

    /// Whether two URIs name the same volume, or snapshots of it.
    pub(super) fn is_same_volume(one: &Uri, other: &Uri) -> bool {
        let place = |uri: &Uri| (uri.endpoint.clone(), uri.bucket.clone(), uri.prefix.clone());
        if place(one) == place(other) {
            return true;
        }
        let uuid = |uri: &Uri| {
            let remote = Remote::default();
            let volume = ObjectsBackend::find(store(uri, remote).ok()?, &options(uri, remote));
            volume.ok().flatten().map(|volume| volume.uuid)
        };
        uuid(one).is_some_and(|one| Some(one) == uuid(other))
    }
}

#[cfg(not(feature = "s3"))]
mod present {
    use super::*;
    use crate::MissingFeature;
    use crate::task::Kind;

    /// There is none without the feature.
    pub(in crate::task) enum Absent {}

    /// There is none without the feature.
    pub(in crate::task) enum Made {}

    impl Made {
        pub(in crate::task) fn keep(self) {
            match self {}
        }
    }

    fn missing(uri: &Uri) -> Error {
        let missing = MissingFeature::new("a volume in an object store", "s3");
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

    pub(super) fn is_same_volume(one: &Uri, other: &Uri) -> bool {
        one == other
    }
}

#[cfg(feature = "s3")]
mod upkeep;

#[cfg(feature = "s3")]
pub use present::not_closed;
pub(super) use present::{Absent, Made, absent, make, open};
#[cfg(feature = "s3")]
pub use upkeep::{Checked, Collected, Place, SnapshotChange, State};

/// The volume in an object store at a location, or of which the location is a part.
fn volume(location: &Location) -> Option<&Uri> {
    match location {
        Location::Objects(uri) => Some(uri),
        Location::Part { whole, .. } => volume(whole),
        _ => None,
    }
}

/// Whether two locations are in one volume of an object store, or in a snapshot of it, whatever
/// their URIs are.
pub(super) fn is_same(one: &Location, other: &Location) -> bool {
    match (volume(one), volume(other)) {
        (Some(one), Some(other)) => present::is_same_volume(one, other),
        _ => false,
    }
}
