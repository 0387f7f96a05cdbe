//! An opened image: a safe method for each function of librbd.
#![allow(unsafe_code)] // functions of a library in C

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{NonNull, null, null_mut};
use std::ffi::CStr;
use std::ops::Range;
use std::sync::Arc;

use super::cluster::{ENOENT, Pool, terminated, text};
use super::error::Problem;
use super::library::{
    EXCLUSIVE, FEATURE_EXCLUSIVE_LOCK, FEATURES_SET, ORDER, RawImage, RawInfo, RawOptions,
    RawWatcher, Rbd, STRIPE_COUNT, STRIPE_UNIT, rbd,
};

/// The most clients of one image that are listed.
const LISTED: usize = 64;

/// A negative return value of librbd.
pub(super) type Answer = i32;

/// An opened image, closed when this is dropped.
pub(super) struct Image {
    image: NonNull<RawImage>,
    functions: &'static Rbd,
    /// Dropped after the image is closed.
    pub(super) pool: Arc<Pool>,
}

// SAFETY: librbd's images may be used from any thread; librbd has threads of its own for them.
unsafe impl Send for Image {}
// SAFETY: as above; concurrent calls on one image are allowed.
unsafe impl Sync for Image {}

/// The sizes of an image, in bytes.
pub(super) struct Shape {
    pub(super) size: u64,
    pub(super) object_size: u64,
    pub(super) stripe_unit: u64,
    pub(super) stripe_count: u64,
}

/// Another client that has registered itself for an image.
pub(super) struct Watcher {
    pub(super) client: u64,
    pub(super) address: String,
}

impl Image {
    pub(super) fn open(
        pool: Arc<Pool>,
        name: &str,
        snapshot: Option<&str>,
        write: bool,
    ) -> Result<Self, Problem> {
        let functions = rbd()?;
        let (name, snapshot) = (terminated(name), snapshot.map(terminated));
        let snapshot = snapshot.as_ref().map_or(null(), |name| name.as_ptr());
        let mut image = null_mut();
        let open = if write {
            functions.open
        } else {
            functions.open_read_only
        };
        // SAFETY: a live pool, strings that end in NUL (or null), and a place for the image.
        let answer = unsafe { open(pool.pointer(), name.as_ptr(), &raw mut image, snapshot) };
        match (answer, NonNull::new(image)) {
            (0.., Some(image)) => Ok(Self {
                image,
                functions,
                pool,
            }),
            (ENOENT, _) => Err(Problem::NoImage),
            _ => Err(Problem::failed("rbd_open", answer)),
        }
    }

    fn pointer(&self) -> *mut RawImage {
        self.image.as_ptr()
    }

    pub(super) fn shape(&self) -> Result<Shape, Problem> {
        let mut info = RawInfo::empty();
        // SAFETY: a live image, and a struct of the size that is passed.
        let answer =
            unsafe { (self.functions.stat)(self.pointer(), &raw mut info, size_of::<RawInfo>()) };
        checked("rbd_stat", answer)?;
        Ok(Shape {
            size: info.size,
            object_size: info.object_size,
            stripe_unit: self.number("rbd_get_stripe_unit", self.functions.stripe_unit)?,
            stripe_count: self.number("rbd_get_stripe_count", self.functions.stripe_count)?,
        })
    }

    pub(super) fn has_exclusive_lock(&self) -> Result<bool, Problem> {
        let features = self.number("rbd_get_features", self.functions.features)?;
        Ok(features & FEATURE_EXCLUSIVE_LOCK != 0)
    }

    fn number(
        &self,
        what: &'static str,
        function: unsafe extern "C" fn(*mut RawImage, *mut u64) -> c_int,
    ) -> Result<u64, Problem> {
        let mut number = 0;
        // SAFETY: a live image, and a place for the number.
        checked(what, unsafe { function(self.pointer(), &raw mut number) })?;
        Ok(number)
    }

    /// The ID of the image, which another image of the pool never gets.
    pub(super) fn id(&self) -> Option<String> {
        text(|buffer, len| {
            // SAFETY: a live image, and a buffer of that length.
            unsafe { (self.functions.id)(self.pointer(), buffer, len) }
        })
    }

    /// The snapshot of which the image is a clone, if it is one: `POOL/IMAGE@SNAPSHOT`.
    pub(super) fn parent(&self) -> Option<String> {
        let mut texts = [[0_u8; 256]; 3];
        let [pool, image, snapshot] = &mut texts;
        let len = pool.len();
        // SAFETY: a live image, and buffers of the lengths that are passed.
        let answer = unsafe {
            (self.functions.parent)(
                self.pointer(),
                pool.as_mut_ptr().cast(),
                len,
                image.as_mut_ptr().cast(),
                len,
                snapshot.as_mut_ptr().cast(),
                len,
            )
        };
        if answer < 0 {
            return None;
        }
        let [pool, image, snapshot] = texts.map(|text| {
            let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
            text.to_string_lossy().into_owned()
        });
        Some(format!("{pool}/{image}@{snapshot}"))
    }

    /// Fills the buffer. The number is that of the bytes that were read.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<usize, Answer> {
        let (buffer, len) = (into.as_mut_ptr().cast(), into.len());
        // SAFETY: a live image, and a buffer of the length that is passed.
        let answer = unsafe { (self.functions.read)(self.pointer(), offset, len, buffer) };
        counted(answer)
    }

    pub(super) fn write(&self, offset: u64, from: &[u8]) -> Result<usize, Answer> {
        let (bytes, len) = (from.as_ptr().cast(), from.len());
        // SAFETY: a live image, and bytes of the length that is passed.
        let answer = unsafe { (self.functions.write)(self.pointer(), offset, len, bytes) };
        counted(answer)
    }

    pub(super) fn write_zeroes(&self, offset: u64, len: usize) -> Result<usize, Answer> {
        // SAFETY: a live image.
        let answer = unsafe { (self.functions.write_zeroes)(self.pointer(), offset, len, 0, 0) };
        counted(answer)
    }

    pub(super) fn flush(&self) -> Result<(), Answer> {
        // SAFETY: a live image.
        done(unsafe { (self.functions.flush)(self.pointer()) })
    }

    pub(super) fn resize(&self, size: u64) -> Result<(), Answer> {
        // SAFETY: a live image.
        done(unsafe { (self.functions.resize)(self.pointer(), size) })
    }

    /// The ranges of an image that have data, in order.
    pub(super) fn allocated(&self, range: &Range<u64>) -> Result<Vec<Range<u64>>, Answer> {
        /// Adds an extent to the list that the argument points to.
        unsafe extern "C" fn add(at: u64, len: usize, exists: c_int, found: *mut c_void) -> c_int {
            // SAFETY: the caller passes the list, which nothing else uses during the call.
            let found = unsafe { found.cast::<Vec<Range<u64>>>().as_mut() };
            if let Some(found) = found.filter(|_| exists != 0) {
                found.push(at..at.saturating_add(len as u64));
            }
            0
        }
        let mut found: Vec<Range<u64>> = Vec::new();
        let len = range.end.saturating_sub(range.start);
        // SAFETY: a live image; null is the beginning of the image's history; the callback gets
        // the list, which outlives the call.
        let answer = unsafe {
            (self.functions.diff)(
                self.pointer(),
                null(),
                range.start,
                len,
                1, // with what the parent of a clone has
                0, // not in whole objects
                add,
                (&raw mut found).cast(),
            )
        };
        done(answer)?;
        found.sort_by_key(|range| range.start);
        Ok(found)
    }

    /// Takes the exclusive lock, and keeps it until the image is closed.
    pub(super) fn acquire(&self) -> Result<(), Answer> {
        // SAFETY: a live image.
        done(unsafe { (self.functions.acquire)(self.pointer(), EXCLUSIVE) })
    }

    /// The clients that hold the lock, in Ceph's words.
    pub(super) fn owners(&self) -> Vec<String> {
        let mut owners = [null_mut::<c_char>(); LISTED];
        let (mut count, mut mode) = (LISTED, 0);
        let functions = self.functions;
        let list = owners.as_mut_ptr();
        // SAFETY: a live image, and places for the mode and for as many owners as are counted.
        let answer =
            unsafe { (functions.owners)(self.pointer(), &raw mut mode, list, &raw mut count) };
        if answer < 0 {
            return Vec::new();
        }
        let named = owners.iter().take(count).map(|owner| copied(*owner));
        let named = named.collect();
        // SAFETY: the list that the library filled, with its length.
        unsafe { (functions.free_owners)(list, count) };
        named
    }

    /// The clients that have registered themselves, this one too.
    pub(super) fn watchers(&self) -> Result<Vec<Watcher>, Problem> {
        let empty = RawWatcher {
            address: null_mut(),
            client: 0,
            cookie: 0,
        };
        let mut watchers = [empty; LISTED];
        let mut count = LISTED;
        let functions = self.functions;
        let list = watchers.as_mut_ptr();
        // SAFETY: a live image, and places for as many watchers as are counted.
        let answer = unsafe { (functions.watchers)(self.pointer(), list, &raw mut count) };
        checked("rbd_watchers_list", answer)?;
        let named = watchers.iter().take(count).map(|watcher| Watcher {
            client: watcher.client.cast_unsigned(),
            address: copied(watcher.address),
        });
        let named = named.collect();
        // SAFETY: the list that the library filled, with its length.
        unsafe { (functions.free_watchers)(list, count) };
        Ok(named)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: a live image, which is not used afterwards. It releases the lock. Nothing can be
        // done about a failure: every write was stored before.
        let _ = unsafe { (self.functions.close)(self.pointer()) };
    }
}

/// Makes an image with objects of 2^`order` bytes, without striping, and with the lock.
pub(super) fn create(pool: &Pool, name: &str, size: u64, order: u8) -> Result<(), Problem> {
    /// Options of librbd, freed when they are dropped.
    struct Options(*mut RawOptions, &'static Rbd);

    impl Drop for Options {
        fn drop(&mut self) {
            // SAFETY: made by the library, and not used afterwards.
            unsafe { (self.1.free_options)(self.0) };
        }
    }

    let functions = rbd()?;
    let mut options = Options(null_mut(), functions);
    // SAFETY: a place for the options.
    unsafe { (functions.new_options)(&raw mut options.0) };
    for (option, value) in [
        (ORDER, u64::from(order)),
        (STRIPE_UNIT, 1 << order),
        (STRIPE_COUNT, 1),
        (FEATURES_SET, FEATURE_EXCLUSIVE_LOCK),
    ] {
        // SAFETY: live options.
        let answer = unsafe { (functions.set_option)(options.0, option, value) };
        checked("rbd_image_options_set_uint64", answer)?;
    }
    let name = terminated(name);
    // SAFETY: a live pool, a string that ends in NUL, and live options.
    match unsafe { (functions.create)(pool.pointer(), name.as_ptr(), size, options.0) } {
        answer if answer == -libc::EEXIST => Err(Problem::Exists),
        answer => checked("rbd_create4", answer),
    }
}

/// Removes an image.
pub(super) fn remove(pool: &Pool, name: &str) -> Result<(), Problem> {
    let name = terminated(name);
    let functions = rbd()?;
    // SAFETY: a live pool, and a string that ends in NUL.
    let answer = unsafe { (functions.remove)(pool.pointer(), name.as_ptr()) };
    checked("rbd_remove", answer)
}

fn checked(what: &'static str, answer: c_int) -> Result<(), Problem> {
    done(answer).map_err(|answer| Problem::failed(what, answer))
}

fn done(answer: c_int) -> Result<(), Answer> {
    match answer {
        0.. => Ok(()),
        _ => Err(answer),
    }
}

fn counted(answer: isize) -> Result<usize, Answer> {
    usize::try_from(answer).map_err(|_| i32::try_from(answer).unwrap_or(-libc::EIO))
}

/// Copies a string of the library's.
fn copied(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the library's strings end in NUL, and it does not change them meanwhile.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}
