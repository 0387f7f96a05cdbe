//! Makes a volume, opens it, and closes it.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use luksmith_formats::objects::claim::{Claim, Fence};
use luksmith_formats::objects::journal::Begin;
use luksmith_formats::objects::name::Name;
use luksmith_formats::objects::segment;
use luksmith_formats::objects::volume::Volume;
use luksmith_formats::objects::{RootId, name};

use super::ObjectsError;
use super::cache::Cache;
use super::client::{Client, Of as _, Owner};
use super::journal::Journal;
use super::journaled::Journaled;
use super::kept::Kept;
use super::log::Log;
use super::options::ObjectsOptions;
use super::recover::{Fencer, Found};
use super::state::State;
use super::store::{Asked, Creation, Store};

/// An open volume with its threads, which end when it is dropped.
pub(super) struct Opened {
    pub(super) log: Arc<Log>,
    /// Those that upload, and last the one that makes checkpoints.
    threads: Vec<JoinHandle<()>>,
}

fn client(store: Arc<dyn Store>, options: &ObjectsOptions) -> Client {
    Client {
        store,
        timeout: options.timeout,
        pause: options.pause,
        connections: options.connections,
        sent: Arc::default(),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Makes a volume, which is empty. Its name must be free, and the store must not overwrite.
pub(super) fn create(
    store: Arc<dyn Store>,
    volume: &Volume,
    options: &ObjectsOptions,
) -> Result<(), ObjectsError> {
    let client = client(store, options).of(volume);
    let bytes = volume.encode();
    Volume::decode(&bytes).map_err(|error| error.of(name::VOLUME))?;
    if let Owner::Other(_) = client.create(name::VOLUME, &[&bytes])? {
        return Err(ObjectsError::Exists);
    }
    let refused = client.refuses_twice(name::VOLUME, &bytes);
    if let Err(ObjectsError::Overwrites) = refused {
        client.remove(name::VOLUME)?;
    }
    refused
}

/// What never changes in the volume, if there is one.
pub(super) fn find(
    store: Arc<dyn Store>,
    options: &ObjectsOptions,
) -> Result<Option<Volume>, ObjectsError> {
    let client = client(store, options);
    if let Some(volume) = client.volume()? {
        return Ok(Some(volume));
    }
    match client.list("")?.into_iter().next() {
        None => Ok(None),
        Some((name, _)) => Err(ObjectsError::Occupied { name }),
    }
}

/// How often the objects are listed that are to be deleted: a list may be old.
const LISTS: usize = 8;

/// What tells the claim of a writer from those of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnClaim {
    pub(super) epoch: u32,
    pub(super) nonce: [u8; 16],
}

/// Deletes the objects of a volume that was made just now; last the one that says that there is a
/// volume. Nothing is deleted if there is another volume, or if a writer other than `own` has
/// claimed it. The journal of the volume, if it has one, becomes empty.
pub(super) fn remove(
    store: Arc<dyn Store>,
    uuid: [u8; 16],
    own: Option<OwnClaim>,
    options: &ObjectsOptions,
) -> Result<(), ObjectsError> {
    let client = client(store, options);
    let Some(volume) = client.volume()? else {
        return Ok(());
    };
    if volume.uuid != uuid {
        return Err(ObjectsError::Exists);
    }
    let last = client.last_epoch()?;
    let is_own = |claim: Claim| {
        let (epoch, nonce) = (claim.epoch, claim.nonce);
        own == Some(OwnClaim { epoch, nonce })
    };
    if last > 0 && !is_own(client.claim(&volume, last)?.0) {
        return Err(client.busy(&volume, last));
    }
    for _ in 0..LISTS {
        let names = client.list("")?.into_iter().map(|(name, _)| name);
        // What is not of this volume may be of one whose prefix begins with that of this one.
        let names = names.filter(|name| Name::parse(name).is_some_and(|name| name != Name::Volume));
        let names: Vec<String> = names.collect();
        if names.is_empty() {
            break;
        }
        client.at_once(names, |name| client.remove(&name))?;
    }
    client.remove(name::VOLUME)?;
    if let Some(path) = &options.journal {
        let (journal, kept) = Journal::open(path, options.journal_size)?;
        if kept.begins.iter().all(|begin| begin.uuid == uuid) {
            journal.clear().map_err(ObjectsError::of_journal)?;
        }
    }
    Ok(())
}

impl Client {
    /// The same for this volume: in a store that overwrites, the client asks before it creates.
    fn of(mut self, volume: &Volume) -> Self {
        if volume.unfenced {
            let (store, sent) = (self.store, self.sent.clone());
            self.store = Arc::new(Asked { store, sent });
        }
        self
    }

    /// Refuses a store that creates an object that is there.
    fn refuses_twice(&self, name: &str, bytes: &[u8]) -> Result<(), ObjectsError> {
        match self.create_once(name, bytes)? {
            Creation::Exists => Ok(()),
            Creation::Created => Err(ObjectsError::Overwrites),
        }
    }
}

impl Opened {
    pub(super) fn open(
        store: Arc<dyn Store>,
        snapshot: Option<&str>,
        options: ObjectsOptions,
    ) -> Result<Self, ObjectsError> {
        let client = client(store, &options);
        let volume = client.volume()?.ok_or(ObjectsError::Absent)?;
        let client = client.of(&volume);
        match snapshot {
            Some(_) if options.write => Err(ObjectsError::ReadOnly),
            Some(name) => {
                let root = client.snapshot(&volume, name)?;
                Self::read_only(client, volume, options, Some(root))
            }
            None if options.write => Self::write(client, volume, options),
            None => Self::read_only(client, volume, options, None),
        }
    }

    fn read_only(
        client: Client,
        volume: Volume,
        options: ObjectsOptions,
        snapshot: Option<RootId>,
    ) -> Result<Self, ObjectsError> {
        let (found, unclosed) = match snapshot {
            Some(_) => (
                Found::at(&client, &volume, snapshot, options.map_memory)?,
                None,
            ),
            None => {
                let last = client.last_epoch()?;
                let found = newest(&client, &volume, last, &options)?;
                let unclosed = (!found.is_closed).then_some(last);
                (found, unclosed)
            }
        };
        let state = state(found);
        let mut log = Log::new(client, volume, options, (0, [0; 16]), state)?;
        log.unclosed = unclosed;
        Ok(Self {
            log: Arc::new(log),
            threads: Vec::new(),
        })
    }

    fn write(
        client: Client,
        volume: Volume,
        options: ObjectsOptions,
    ) -> Result<Self, ObjectsError> {
        if volume.unfenced {
            tracing::warn!(
                "the volume is for one writer at a time, and nothing enforces that: its store may \
                 overwrite objects"
            );
        }
        let mut journal = Journaled::open(&volume, &options)?;
        let last = client.last_epoch()?;
        if options.of_writer.is_some_and(|epoch| epoch != last) {
            return Err(client.busy(&volume, last));
        }
        let seen = client.newest_root(&volume, last, None)?;
        if !options.take_over || journal.is_some() {
            let is_closed = newest(&client, &volume, last, &options)?.is_closed;
            if !is_closed && !options.take_over {
                return Err(client.busy(&volume, last));
            }
            if let Some(journal) = journal.as_mut().filter(|_| !is_closed) {
                let (claim, _) = client.claim(&volume, last)?;
                journal.check(&claim, options.journal_lost)?;
            }
        }
        let epoch = last + 1;
        let by = Fencer {
            epoch,
            nonce: rand::random(),
        };
        let begin = Begin::new(volume.uuid, epoch, by.nonce);
        if let Some(journal) = &journal {
            journal.begin(begin)?;
        }
        let mut claim = Claim::new(volume.uuid, epoch, by.nonce);
        claim.base = seen;
        claim.time = now();
        claim.host.clone_from(&options.host);
        let claim = claim.encode();
        let name = name::claim(epoch);
        if let Owner::Other(_) = client.create(&name, &[&claim])? {
            return Err(client.busy(&volume, epoch));
        }
        let refused = client.refuses_twice(&name, &claim);
        if let Err(ObjectsError::Overwrites) = refused {
            // No writer can have come after this one: they are refused there too.
            client.remove(&name)?;
        }
        refused?;
        let root = client.newest_root(&volume, last, Some(by))?;
        let mut found = Found::at(&client, &volume, root, options.map_memory)?;
        found.replay(last, Some(by))?;
        let ends = std::mem::take(&mut found.ends);
        let mut state = state(found);
        state.previous = segment::hash(&claim);
        let mut kept = Kept::default();
        let mut log = Log::new(client, volume, options, (epoch, by.nonce), state)?;
        let mut replay = None;
        if let Some(journal) = journal {
            let (journal, needed) = journal.into_parts(begin)?;
            log.journal = Some(journal);
            replay = needed;
        }
        let snapshots = log.lock().snapshots.clone();
        log.find_kept(&mut kept, &snapshots)?;
        *log.lock_kept() = kept;
        let log = Arc::new(log);
        let mut opened = Self {
            log,
            threads: Vec::new(),
        };
        opened.start();
        if let Some(replay) = replay {
            opened.log.replay_journal(&replay, &ends)?;
        }
        Ok(opened)
    }

    fn start(&mut self) {
        let spawn = |name: &str, work: fn(&Log)| {
            let log = self.log.clone();
            let thread = std::thread::Builder::new().name(name.into());
            let spawned = thread.spawn(move || work(&log));
            if let Err(error) = &spawned {
                let text = format!("no thread for uploads: {error}");
                self.log.fail(&ObjectsError::Failed(text));
            }
            spawned.ok()
        };
        let uploads = (0..self.log.options.uploads.max(1)).map(|_| ("upload", Log::upload as _));
        let keeper = ("checkpoint", Log::keep as fn(&Log));
        let all = uploads.chain([keeper]);
        self.threads = all.filter_map(|(name, work)| spawn(name, work)).collect();
    }

    /// Writes what is left, and ends the epoch, so that the next writer has nothing to take over.
    pub(super) fn close(&mut self) -> Result<(), ObjectsError> {
        if self.threads.is_empty() {
            return Ok(());
        }
        let log = &*self.log;
        // First the thread that makes checkpoints, which needs those that upload.
        log.lock().stop_keeping = true;
        log.keep.notify_all();
        if let Some(keeper) = self.threads.pop() {
            keeper.join().ok();
        }
        let done = self.finish();
        log.lock().stop = true;
        log.work.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
        done?;
        let place = (log.epoch, log.lock().next);
        let fence = Fence::new(log.volume.uuid, place, log.epoch, log.nonce);
        let at = luksmith_formats::objects::Position {
            epoch: place.0,
            sequence: place.1,
        };
        match log.client.create(&name::segment(at), &[&fence.encode()])? {
            Owner::Own => Ok(()),
            Owner::Other(_) => Err(ObjectsError::Fenced),
        }
    }

    fn finish(&self) -> Result<(), ObjectsError> {
        self.log.flush_to_store()?;
        let changed = self.log.lock().objects_since > 0;
        match changed {
            true => self.log.checkpoint(),
            false => Ok(()),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let closed = self.close();
        if let Err(error) = closed
            && !matches!(error, ObjectsError::Abandoned)
        {
            if let Some(told) = &self.log.options.not_closed {
                return told.tell(error);
            }
            let error = crate::backend::chain(&error);
            tracing::warn!(error, "the volume in the object store was not closed");
        }
    }
}

/// The newest state, without a fence. If the store hides a root, it is an older one, whose index
/// may be deleted already.
fn newest<'a>(
    client: &'a Client,
    volume: &'a Volume,
    epoch: u32,
    options: &ObjectsOptions,
) -> Result<Found<'a>, ObjectsError> {
    let tries = client.tries();
    let root = loop {
        let root = client.newest_root(volume, epoch, None)?;
        let index = root.map(|id| client.read(&name::index(id), 0..1));
        if index.transpose()?.is_none_or(|bytes| bytes.is_some()) || tries.pause().is_err() {
            break root;
        }
    };
    let mut found = Found::at(client, volume, root, options.map_memory)?;
    found.replay(epoch, None)?;
    Ok(found)
}

fn state(found: Found<'_>) -> State {
    let mut state = State::new(found.map, found.size, found.position, found.hash);
    (state.bytes_since, state.objects_since) = (found.bytes, found.objects);
    state.root = found.root;
    state.snapshots = found.snapshots;
    state
}

impl Client {
    fn busy(&self, volume: &Volume, epoch: u32) -> ObjectsError {
        match self.claim(volume, epoch) {
            Ok((claim, _)) => ObjectsError::Busy {
                host: claim.host,
                time: claim.time,
            },
            Err(error) => error,
        }
    }

    /// The checkpoint of a snapshot.
    fn snapshot(&self, volume: &Volume, snapshot: &str) -> Result<RootId, ObjectsError> {
        let newest = self.newest_root(volume, self.last_epoch()?, None)?;
        let (_, index) = self.root_and_index(volume, newest.ok_or(ObjectsError::NoSnapshot)?)?;
        let mut all = index.snapshots.iter();
        let found = all.find(|kept| kept.name == snapshot);
        found.map(|kept| kept.root).ok_or(ObjectsError::NoSnapshot)
    }
}

impl Log {
    fn new(
        client: Client,
        volume: Volume,
        options: ObjectsOptions,
        (epoch, nonce): (u32, [u8; 16]),
        state: State,
    ) -> Result<Self, ObjectsError> {
        let cache = options.cache.as_deref();
        let cache = cache.map(|path| Cache::open(path, options.cache_size));
        Ok(Self {
            cache: cache.transpose()?,
            journal: None,
            client,
            volume,
            options,
            epoch,
            nonce,
            unclosed: None,
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
            keep: Condvar::new(),
            kept: Mutex::default(),
        })
    }

    /// The work of the thread that makes checkpoints.
    fn keep(&self) {
        loop {
            let mut state = self.lock();
            while !state.checkpoint_wanted && !state.stop_keeping && state.failure.is_none() {
                state = self.wait(&self.keep, state);
            }
            if state.stop_keeping || state.failure.is_some() {
                return;
            }
            drop(state);
            // A checkpoint that fails makes the volume fail. What is not deleted now is deleted
            // after another checkpoint.
            if let Err(error) = self.checkpoint().and_then(|()| self.collect()) {
                let error = crate::backend::chain(&error);
                tracing::warn!(error, "garbage in the object store was not collected");
            }
        }
    }
}
