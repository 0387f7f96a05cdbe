//! A store in memory, with faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use luksmith::objects::{Creation, Store, StoreError};

/// The objects, which all handles share.
#[derive(Clone, Default)]
pub(crate) struct Objects(Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>);

/// Which faults a store has: the chance of each, in thousandths.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// A request is refused, or gets no answer, and does nothing.
    pub(crate) refused: u64,
    /// A creation is done, and its answer is lost.
    pub(crate) dropped: u64,
    /// A creation gets no answer, and is done later.
    pub(crate) delayed: u64,
    /// An object that is there is not found.
    pub(crate) hidden: u64,
    /// A list is that of an earlier time.
    pub(crate) stale: u64,
    /// After how many requests the client is dead. Of those in flight each may be done or not.
    pub(crate) dead_after: Option<u64>,
}

/// What one client sees of the store.
pub(crate) struct Handle {
    objects: Objects,
    faults: Faults,
    inner: Mutex<Inner>,
}

struct Inner {
    random: Random,
    requests: u64,
    delayed: Vec<(String, Vec<u8>)>,
    listed: Option<Vec<(String, u64)>>,
    counts: BTreeMap<&'static str, u64>,
}

/// A small number as an index.
pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

/// Numbers that look random and depend only on the seed.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end.max(1)
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }
}

fn no_answer() -> StoreError {
    StoreError::Unreachable(std::io::ErrorKind::ConnectionReset.into())
}

fn dead() -> StoreError {
    StoreError::Denied("the client is dead".to_owned())
}

impl Objects {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, name: &str, bytes: Vec<u8>) -> Creation {
        let mut objects = self.lock();
        if objects.contains_key(name) {
            return Creation::Exists;
        }
        objects.insert(name.to_owned(), Arc::new(bytes));
        Creation::Created
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(crate) fn remove(&self, name: &str) {
        assert!(self.lock().remove(name).is_some(), "{name}");
    }

    /// Changes a byte of an object.
    pub(crate) fn damage(&self, name: &str, at: usize) {
        let mut objects = self.lock();
        let object = objects.get_mut(name).expect("an object");
        Arc::make_mut(object)[at] ^= 1;
    }

    /// The bytes of all objects.
    pub(crate) fn size(&self) -> usize {
        self.lock().values().map(|object| object.len()).sum()
    }

    pub(crate) fn handle(&self) -> Arc<Handle> {
        self.with_faults(0, Faults::default())
    }

    pub(crate) fn with_faults(&self, seed: u64, faults: Faults) -> Arc<Handle> {
        Arc::new(Handle {
            objects: self.clone(),
            faults,
            inner: Mutex::new(Inner {
                random: Random::new(seed),
                requests: 0,
                delayed: Vec::new(),
                listed: None,
                counts: BTreeMap::new(),
            }),
        })
    }
}

impl Handle {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests of this kind there were.
    pub(crate) fn count(&self, kind: &'static str) -> u64 {
        self.lock().counts.get(kind).copied().unwrap_or_default()
    }

    /// Does what was delayed.
    pub(crate) fn settle(&self) {
        let delayed = std::mem::take(&mut self.lock().delayed);
        for (name, bytes) in delayed {
            self.objects.create(&name, bytes);
        }
    }

    /// The faults of every request. The lock orders the random choices.
    fn begin(&self, kind: &'static str) -> Result<std::sync::MutexGuard<'_, Inner>, StoreError> {
        let mut inner = self.lock();
        *inner.counts.entry(kind).or_default() += 1;
        inner.requests += 1;
        if self
            .faults
            .dead_after
            .is_some_and(|end| inner.requests > end)
        {
            return Err(dead());
        }
        if !inner.delayed.is_empty() && inner.random.chance(300) {
            let count = inner.delayed.len() as u64;
            let at = index(inner.random.below(count));
            let (name, bytes) = inner.delayed.swap_remove(at);
            self.objects.create(&name, bytes);
        }
        if inner.random.chance(self.faults.refused) {
            return Err(match inner.random.below(4) {
                0 => no_answer(),
                1 => StoreError::Temporary {
                    status: 500,
                    code: "InternalError".into(),
                },
                2 => StoreError::Temporary {
                    status: 409,
                    code: "ConditionalRequestConflict".into(),
                },
                _ => StoreError::Temporary {
                    status: 503,
                    code: "SlowDown".into(),
                },
            });
        }
        Ok(inner)
    }
}

impl Store for Handle {
    fn create(&self, name: &str, parts: &[&[u8]]) -> Result<Creation, StoreError> {
        let bytes = parts.concat();
        let mut inner = match self.begin("create") {
            Ok(inner) => inner,
            Err(error) => {
                let mut inner = self.lock();
                // The last requests of a client that is killed may be done.
                let dying = self
                    .faults
                    .dead_after
                    .is_some_and(|end| inner.requests <= end + 4);
                if dying && inner.random.chance(500) {
                    self.objects.create(name, bytes);
                }
                return Err(error);
            }
        };
        if inner.random.chance(self.faults.delayed) {
            inner.delayed.push((name.to_owned(), bytes));
            return Err(no_answer());
        }
        let created = self.objects.create(name, bytes);
        match inner.random.chance(self.faults.dropped) {
            true => Err(no_answer()),
            false => Ok(created),
        }
    }

    fn read(&self, name: &str, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let mut inner = self.begin("read")?;
        let Some(object) = self.objects.lock().get(name).cloned() else {
            return Ok(None);
        };
        if inner.random.chance(self.faults.hidden) {
            return Ok(None);
        }
        let clip = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(object.len());
        Ok(Some(object[clip(range.start)..clip(range.end)].to_vec()))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let _inner = self.begin("remove")?;
        self.objects.lock().remove(name);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let mut inner = self.begin("list")?;
        if inner.random.chance(self.faults.stale)
            && let Some(listed) = inner.listed.clone()
        {
            return Ok(listed);
        }
        let objects = self.objects.lock();
        let found = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        let listed: Vec<_> = found
            .map(|(name, object)| (name.clone(), object.len() as u64))
            .collect();
        inner.listed = Some(listed.clone());
        Ok(listed)
    }
}
