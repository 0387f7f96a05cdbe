//! A store with retries: how long the client waits, and whose object has a name.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use luksmith_formats::objects::frame;

use super::ObjectsError;
use super::requests::{Sent, count};
use super::store::{Creation, Store, StoreError};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many bytes of a segment are read first. Most headers are shorter.
const FIRST_READ: u64 = 64 << 10;

/// A store with retries: a request that may succeed later is sent again until the time is over.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) store: Arc<dyn Store>,
    pub(super) timeout: Duration,
    pub(super) pause: Duration,
    /// How many objects are read or deleted at the same time.
    pub(super) connections: usize,
    pub(super) sent: Arc<Sent>,
}

/// Whose object has a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This client's: the object has the bytes that it wanted to create.
    Own,
    /// Another one's. Contains the beginning of the object, at least its frame.
    Other(Vec<u8>),
}

impl Client {
    /// Creates a segment, a claim, a root or a fence, or finds out whose object has the name. The
    /// answer to an earlier try may have been lost, so an object with the same frame, the first
    /// part, is this client's: it has the random number of the claim.
    pub(super) fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Owner, ObjectsError> {
        let own = parts.first().copied().unwrap_or_default();
        self.create_or_compare(name, parts, own, || self.frame(name))
    }

    /// Creates an object that has no random number, or finds out whether the one of this name has
    /// the same bytes.
    pub(super) fn create_whole(&self, name: &str, bytes: &[u8]) -> Result<Owner, ObjectsError> {
        self.create_or_compare(name, &[bytes], bytes, || self.read(name, 0..u64::MAX))
    }

    /// Creates an object, whatever the answer is.
    pub(super) fn create_once(&self, name: &str, bytes: &[u8]) -> Result<Creation, ObjectsError> {
        self.created(name, &[bytes])
    }

    fn created(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, ObjectsError> {
        self.retried(name, || {
            count(&self.sent.creations);
            self.store.create(name, parts)
        })
    }

    fn create_or_compare(
        &self,
        name: &str,
        parts: &[&[u8]],
        own: &[u8],
        there: impl Fn() -> Result<Option<Vec<u8>>, ObjectsError>,
    ) -> Result<Owner, ObjectsError> {
        let tries = self.tries();
        loop {
            if self.created(name, parts)? == Creation::Created {
                return Ok(Owner::Own);
            }
            // The store may say for a while that an object is absent that is there.
            if let Some(found) = there()? {
                return Ok(match found == own {
                    true => Owner::Own,
                    false => Owner::Other(found),
                });
            }
            tries.pause().map_err(|_| ObjectsError::missing(name))?;
        }
    }

    pub(super) fn read(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, ObjectsError> {
        self.retried(name, || {
            count(&self.sent.reads);
            self.store.read(name, range.clone())
        })
    }

    /// A whole object that is there.
    pub(super) fn whole(&self, name: &str) -> Result<Vec<u8>, ObjectsError> {
        self.there(name, 0..u64::MAX)
    }

    /// Bytes of an object that is there, although the store may say for a while that it is not.
    pub(super) fn there(&self, name: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectsError> {
        let tries = self.tries();
        loop {
            if let Some(bytes) = self.read(name, range.clone())? {
                return Ok(bytes);
            }
            tries.pause().map_err(|_| ObjectsError::missing(name))?;
        }
    }

    /// The frame with which an object begins, without what follows it.
    pub(super) fn frame(&self, name: &str) -> Result<Option<Vec<u8>>, ObjectsError> {
        let Some(mut bytes) = self.read(name, 0..FIRST_READ)? else {
            return Ok(None);
        };
        let (_, length) = frame::prologue(&bytes).map_err(|error| error.of(name))?;
        if length > bytes.len() {
            bytes = self.there(name, 0..length as u64)?;
        }
        bytes.truncate(length);
        Ok(Some(bytes))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), ObjectsError> {
        self.retried(name, || {
            count(&self.sent.deletions);
            self.store.remove(name)
        })
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, ObjectsError> {
        self.retried(prefix, || {
            count(&self.sent.lists);
            self.store.list(prefix)
        })
    }

    /// Does the same for several things at once, and returns the answers in their order.
    pub(super) fn at_once<I: Send, T: Send>(
        &self,
        things: Vec<I>,
        work: impl Fn(I) -> Result<T, ObjectsError> + Sync,
    ) -> Result<Vec<T>, ObjectsError> {
        if things.len() == 1 || self.connections <= 1 {
            return things.into_iter().map(work).collect();
        }
        let mut answers = Vec::with_capacity(things.len());
        let mut rest = things.into_iter().peekable();
        while rest.peek().is_some() {
            let some = rest.by_ref().take(self.connections);
            let done: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = some.map(|thing| scope.spawn(|| work(thing))).collect();
                threads.into_iter().map(|thread| thread.join()).collect()
            });
            for answer in done {
                answers.push(answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
        }
        Ok(answers)
    }

    pub(super) fn retried<T>(
        &self,
        name: &str,
        request: impl Fn() -> Result<T, StoreError>,
    ) -> Result<T, ObjectsError> {
        let tries = self.tries();
        loop {
            let error = match request() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let over = || tries.pause().is_err();
            if !error.is_temporary() || over() {
                let name = name.to_owned();
                return Err(ObjectsError::Store {
                    name,
                    source: error,
                });
            }
        }
    }

    pub(super) fn tries(&self) -> Tries {
        Tries {
            until: Instant::now().checked_add(self.timeout),
            next: std::cell::Cell::new(self.pause),
        }
    }
}

/// Tries until the time is over, with pauses that become longer.
pub(super) struct Tries {
    /// `None` if there is no such time.
    until: Option<Instant>,
    next: std::cell::Cell<Duration>,
}

/// The time is over.
pub(super) struct Over;

impl Tries {
    pub(super) fn pause(&self) -> Result<(), Over> {
        let pause = self.next.get();
        if self
            .until
            .is_some_and(|until| Instant::now() + pause >= until)
        {
            return Err(Over);
        }
        std::thread::sleep(pause);
        self.next.set((pause * 2).min(LONGEST_PAUSE));
        Ok(())
    }
}

/// Names the object that an error is about.
pub(super) trait Of {
    fn of(self, name: &str) -> ObjectsError;
}

impl Of for luksmith_formats::FormatError {
    fn of(self, name: &str) -> ObjectsError {
        let name = name.to_owned();
        ObjectsError::Format { name, source: self }
    }
}
