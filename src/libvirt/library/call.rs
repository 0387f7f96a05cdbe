//! A safe method for each function signature, which calls the function.
//!
//! Three things make a call safe: the object came from libvirt and has not been freed ([`Handle`]),
//! strings end in NUL, and memory that is pointed to outlives the call. A return value that means
//! failure becomes the error that libvirt has stored for this thread.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr::{NonNull, null_mut};
use core::slice;
use std::ffi::CString;

use super::Functions;
use super::apart::{Overwriting, apart};
use super::shape::{
    Act, ActWith, Ask, BlockCopy, BlockInfo, BlockJob, Borrowed, CountOf, Find, FindUsage,
    Initialize, LastError, List, Make, NewStream, Open, Owned, Parent, RawBlockJobInfo, RawError,
    RawParameter, Read, Receive, Resize, Send_, SetErrorFunction, SetValue, Tell, Transfer, Uuid,
    Value, Xml,
};
pub(in crate::libvirt) use super::shape::{
    Connect, Domain, Pool, RawBlockInfo, Secret, Stream, Volume,
};
use crate::libvirt::error::{LibvirtError, Reply};
use crate::secret::LockedBytes;
use crate::sys::memory::wipe;

/// An opaque libvirt object: `virConnect`, `virDomain`, …
pub(in crate::libvirt) trait Object: Sized {
    /// The function that frees one.
    fn free(functions: &Functions) -> Act<Self>;
}

macro_rules! objects {
    ($($name:ident by $free:ident,)*) => {$(
        impl Object for $name {
            fn free(functions: &Functions) -> Act<Self> {
                functions.$free
            }
        }
    )*};
}

objects! {
    Connect by close,
    Domain by free_domain,
    Pool by free_pool,
    Volume by free_volume,
    Stream by free_stream,
    Secret by free_secret,
}

/// An owned reference to an object, freed when this is dropped.
pub(in crate::libvirt) struct Handle<O: Object> {
    object: NonNull<O>,
    pub(in crate::libvirt) functions: &'static Functions,
    /// Dropped last: after the library has freed the object.
    _overwriting: Overwriting,
}

// SAFETY: libvirt's objects may be used from any thread (its documentation of virConnectPtr and of
// thread safety).
unsafe impl<O: Object> Send for Handle<O> {}
// SAFETY: as above; concurrent calls on one object are allowed.
unsafe impl<O: Object> Sync for Handle<O> {}

impl<O: Object> Handle<O> {
    fn new(object: *mut O, functions: &'static Functions) -> Result<Self, LibvirtError> {
        NonNull::new(object)
            .map(|object| Self {
                object,
                functions,
                _overwriting: Overwriting::new(),
            })
            .ok_or_else(|| failure(functions))
    }

    fn pointer(&self) -> *mut O {
        self.object.as_ptr()
    }
}

impl<O: Object> Drop for Handle<O> {
    fn drop(&mut self) {
        // Nothing can be done about a failure.
        let _ = O::free(self.functions).call(self);
    }
}

/// The error that libvirt has stored for this thread.
fn failure(functions: &Functions) -> LibvirtError {
    LibvirtError::of(functions.last_error.call())
}

/// A return value that is negative if the call failed.
fn checked(answer: c_int, functions: &Functions) -> Result<c_int, LibvirtError> {
    if answer < 0 {
        return Err(failure(functions));
    }
    Ok(answer)
}

/// A string that ends in NUL.
fn terminated(text: &str, what: &'static str) -> Result<CString, LibvirtError> {
    CString::new(text).map_err(|_| LibvirtError::Nul(what))
}

/// Copies a string of libvirt's.
fn copied(text: *const c_char) -> String {
    // SAFETY: every caller passes a string that ends in NUL and is not changed meanwhile.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// Memory from libvirt that the caller frees with the C library's `free`, as libvirt's
/// documentation says.
struct Gift<T>(NonNull<T>);

impl<T> Gift<T> {
    fn new(pointer: *mut T, functions: &Functions) -> Result<Self, LibvirtError> {
        NonNull::new(pointer)
            .map(Self)
            .ok_or_else(|| failure(functions))
    }
}

impl<T> Drop for Gift<T> {
    fn drop(&mut self) {
        // SAFETY: libvirt allocated it with malloc and passed its ownership to this value.
        unsafe { libc::free(self.0.as_ptr().cast()) };
    }
}

impl Initialize {
    pub(super) fn call(self, functions: &Functions) -> Result<(), LibvirtError> {
        // SAFETY: it takes nothing, and may be called again.
        checked(unsafe { (self.0)() }, functions).map(drop)
    }
}

impl SetErrorFunction {
    pub(super) fn call(
        self,
        data: *mut c_void,
        handler: Option<unsafe extern "C" fn(*mut c_void, *mut RawError)>,
    ) {
        // SAFETY: the handler has the type that libvirt calls, and `data` is only passed to it.
        unsafe { (self.0)(data, handler) };
    }
}

impl LastError {
    fn call(self) -> Reply {
        // SAFETY: it takes nothing. The result belongs to this thread and lasts until its next
        // call.
        let error = unsafe { (self.0)() };
        // SAFETY: not null, it points to a `virError`, whose first members are those of `RawError`.
        let Some(error) = (unsafe { error.as_ref() }) else {
            return Reply {
                code: 0,
                domain: 0,
                message: "libvirt reports no reason".to_owned(),
            };
        };
        let message = if error.message.is_null() {
            format!("libvirt's error {}", error.code)
        } else {
            copied(error.message)
        };
        Reply {
            code: error.code,
            domain: error.domain,
            message,
        }
    }
}

impl Open {
    /// Opens a connection. No callback asks for a user name or password.
    pub(in crate::libvirt) fn call(
        self,
        uri: Option<&str>,
        flags: c_uint,
        functions: &'static Functions,
    ) -> Result<Handle<Connect>, LibvirtError> {
        let uri = uri.map(|uri| terminated(uri, "the URI")).transpose()?;
        let name = uri.as_ref().map_or(core::ptr::null(), |uri| uri.as_ptr());
        // SAFETY: the name is null or ends in NUL; null is allowed for the callbacks.
        let connect = unsafe { (self.0)(name, null_mut(), flags) };
        Handle::new(connect, functions)
    }
}

impl<O: Object> Act<O> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<c_int, LibvirtError> {
        // SAFETY: a live object (a `Handle` frees its object once, in drop).
        checked(unsafe { (self.0)(object.pointer()) }, object.functions)
    }

    /// Calls a function that returns 0 for false and 1 for true.
    pub(in crate::libvirt) fn holds(self, object: &Handle<O>) -> Result<bool, LibvirtError> {
        self.call(object).map(|answer| answer != 0)
    }
}

impl<O: Object> ActWith<O> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        flags: c_uint,
    ) -> Result<(), LibvirtError> {
        self.number(object, flags).map(drop)
    }

    /// Calls a function that returns a number.
    pub(in crate::libvirt) fn number(
        self,
        object: &Handle<O>,
        flags: c_uint,
    ) -> Result<c_int, LibvirtError> {
        // SAFETY: a live object.
        let answer = unsafe { (self.0)(object.pointer(), flags) };
        checked(answer, object.functions)
    }
}

impl<O: Object> Tell<O> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        text: &str,
        flags: c_uint,
    ) -> Result<(), LibvirtError> {
        let text = terminated(text, "the XML")?;
        // SAFETY: a live object, and a string that ends in NUL.
        let answer = unsafe { (self.0)(object.pointer(), text.as_ptr(), flags) };
        checked(answer, object.functions).map(drop)
    }
}

impl<O: Object> Borrowed<O> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<String, LibvirtError> {
        // SAFETY: a live object, which keeps the string as long as it lives.
        let text = unsafe { (self.0)(object.pointer()) };
        if text.is_null() {
            return Err(failure(object.functions));
        }
        Ok(copied(text))
    }
}

impl<O: Object> Owned<O> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<String, LibvirtError> {
        // SAFETY: a live object.
        let text = unsafe { (self.0)(object.pointer()) };
        Gift::new(text, object.functions).map(|text| copied(text.0.as_ptr()))
    }
}

impl<O: Object> Xml<O> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        flags: c_uint,
    ) -> Result<String, LibvirtError> {
        // SAFETY: a live object.
        let text = unsafe { (self.0)(object.pointer(), flags) };
        Gift::new(text, object.functions).map(|text| copied(text.0.as_ptr()))
    }
}

impl<O: Object> Uuid<O> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<uuid::Uuid, LibvirtError> {
        let mut text = [0u8; 37]; // VIR_UUID_STRING_BUFLEN
        // SAFETY: a live object, and a buffer as long as it writes.
        let answer = unsafe { (self.0)(object.pointer(), text.as_mut_ptr().cast()) };
        checked(answer, object.functions)?;
        uuid::Uuid::try_parse_ascii(&text[..36]).map_err(|_| failure(object.functions))
    }
}

impl<O: Object, P: Object> Find<O, P> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        text: &str,
    ) -> Result<Handle<P>, LibvirtError> {
        let text = terminated(text, "the name")?;
        // SAFETY: a live object, and a string that ends in NUL.
        let found = unsafe { (self.0)(object.pointer(), text.as_ptr()) };
        Handle::new(found, object.functions)
    }
}

impl<O: Object, P: Object> Make<O, P> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        text: &str,
        flags: c_uint,
    ) -> Result<Handle<P>, LibvirtError> {
        let text = terminated(text, "the XML")?;
        // SAFETY: a live object, and a string that ends in NUL.
        let made = unsafe { (self.0)(object.pointer(), text.as_ptr(), flags) };
        Handle::new(made, object.functions)
    }
}

impl<O: Object, P: Object> Parent<O, P> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<Handle<P>, LibvirtError> {
        // SAFETY: a live object.
        let found = unsafe { (self.0)(object.pointer()) };
        Handle::new(found, object.functions)
    }
}

impl<O: Object, P: Object> List<O, P> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        flags: c_uint,
    ) -> Result<Vec<Handle<P>>, LibvirtError> {
        let mut array = null_mut();
        // SAFETY: a live object, and a place for the array.
        let answer = unsafe { (self.0)(object.pointer(), &raw mut array, flags) };
        let count = checked(answer, object.functions)?;
        let array = Gift::new(array, object.functions)?;
        // SAFETY: the array holds `count` objects, and lives until `array` is dropped.
        let objects =
            unsafe { slice::from_raw_parts(array.0.as_ptr(), count.unsigned_abs() as usize) };
        objects
            .iter()
            .map(|&found| Handle::new(found, object.functions))
            .collect()
    }
}

impl<O: Object, T: Default> Read<O, T> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<T, LibvirtError> {
        let mut value = T::default();
        // SAFETY: a live object, and a place of the type that it fills.
        let answer = unsafe { (self.0)(object.pointer(), &raw mut value) };
        checked(answer, object.functions).map(|_| value)
    }
}

impl<O: Object> Ask<O> {
    pub(in crate::libvirt) fn call(
        self,
        object: &Handle<O>,
        command: &CStr,
        flags: c_uint,
    ) -> Result<String, LibvirtError> {
        let mut result = null_mut();
        // SAFETY: a live object, a string that ends in NUL, and a place for the answer.
        let answer =
            unsafe { (self.0)(object.pointer(), command.as_ptr(), &raw mut result, flags) };
        checked(answer, object.functions)?;
        Gift::new(result, object.functions).map(|text| copied(text.0.as_ptr()))
    }
}

impl<O: Object> CountOf<O> {
    pub(in crate::libvirt) fn call(self, object: &Handle<O>) -> Result<c_int, LibvirtError> {
        // SAFETY: a live object. Null asks for the number only.
        let answer = unsafe { (self.0)(object.pointer(), null_mut(), 0) };
        checked(answer, object.functions)
    }
}

impl BlockCopy {
    /// `bandwidth` is in bytes per second.
    pub(in crate::libvirt) fn call(
        self,
        domain: &Handle<Domain>,
        disk: &str,
        destination: &str,
        bandwidth: Option<u64>,
        flags: c_uint,
    ) -> Result<(), LibvirtError> {
        let disk = terminated(disk, "the name of the disk")?;
        let destination = terminated(destination, "the XML")?;
        let parameters: Vec<_> = bandwidth.map(RawParameter::bandwidth).into_iter().collect();
        // SAFETY: a live object, strings that end in NUL, and at most one parameter with its count.
        let answer = unsafe {
            (self.0)(
                domain.pointer(),
                disk.as_ptr(),
                destination.as_ptr(),
                parameters.as_ptr(),
                c_int::from(!parameters.is_empty()),
                flags,
            )
        };
        checked(answer, domain.functions).map(drop)
    }
}

impl RawParameter {
    fn bandwidth(value: u64) -> Self {
        let mut name = [0; 80];
        let text = b"bandwidth";
        name[..text.len()].copy_from_slice(text);
        let kind = 4; // VIR_TYPED_PARAM_ULLONG
        Self { name, kind, value }
    }
}

impl BlockJob {
    /// `None` if the disk has no job.
    pub(in crate::libvirt) fn call(
        self,
        domain: &Handle<Domain>,
        disk: &str,
    ) -> Result<Option<RawBlockJobInfo>, LibvirtError> {
        let disk = terminated(disk, "the name of the disk")?;
        let mut info = RawBlockJobInfo::default();
        // SAFETY: a live object, a string that ends in NUL, and a struct of the type that it fills.
        let answer = unsafe { (self.0)(domain.pointer(), disk.as_ptr(), &raw mut info, 0) };
        checked(answer, domain.functions).map(|found| (found > 0).then_some(info))
    }
}

impl BlockInfo {
    pub(in crate::libvirt) fn call(
        self,
        domain: &Handle<Domain>,
        disk: &str,
    ) -> Result<RawBlockInfo, LibvirtError> {
        let disk = terminated(disk, "the name of the disk")?;
        let mut info = RawBlockInfo::default();
        // SAFETY: a live object, a string that ends in NUL, and a struct of the type that it fills.
        let answer = unsafe { (self.0)(domain.pointer(), disk.as_ptr(), &raw mut info, 0) };
        checked(answer, domain.functions).map(|_| info)
    }
}

impl Resize {
    pub(in crate::libvirt) fn call(
        self,
        volume: &Handle<Volume>,
        size: u64,
        flags: c_uint,
    ) -> Result<(), LibvirtError> {
        // SAFETY: a live object.
        let answer = unsafe { (self.0)(volume.pointer(), size, flags) };
        checked(answer, volume.functions).map(drop)
    }
}

impl Transfer {
    pub(in crate::libvirt) fn call(
        self,
        volume: &Handle<Volume>,
        stream: &Handle<Stream>,
        offset: u64,
        len: u64,
    ) -> Result<(), LibvirtError> {
        // SAFETY: two live objects.
        let answer = unsafe { (self.0)(volume.pointer(), stream.pointer(), offset, len, 0) };
        checked(answer, volume.functions).map(drop)
    }
}

impl NewStream {
    /// Makes a stream whose calls block.
    pub(in crate::libvirt) fn call(
        self,
        connect: &Handle<Connect>,
    ) -> Result<Handle<Stream>, LibvirtError> {
        // SAFETY: a live object.
        let stream = unsafe { (self.0)(connect.pointer(), 0) };
        Handle::new(stream, connect.functions)
    }
}

impl Send_ {
    /// Returns how many bytes libvirt took.
    pub(in crate::libvirt) fn call(
        self,
        stream: &Handle<Stream>,
        data: &[u8],
    ) -> Result<usize, LibvirtError> {
        // SAFETY: a live object, and a buffer of the length that is passed.
        let answer = unsafe { (self.0)(stream.pointer(), data.as_ptr().cast(), data.len()) };
        checked(answer, stream.functions).map(|sent| sent.unsigned_abs() as usize)
    }
}

impl Receive {
    /// Returns how many bytes arrived; 0 at the end of the stream.
    pub(in crate::libvirt) fn call(
        self,
        stream: &Handle<Stream>,
        room: &mut [u8],
    ) -> Result<usize, LibvirtError> {
        // SAFETY: a live object, and a buffer of the length that is passed.
        let answer = unsafe { (self.0)(stream.pointer(), room.as_mut_ptr().cast(), room.len()) };
        checked(answer, stream.functions).map(|came| came.unsigned_abs() as usize)
    }
}

impl FindUsage {
    pub(in crate::libvirt) fn call(
        self,
        connect: &Handle<Connect>,
        kind: c_int,
        usage: &str,
    ) -> Result<Handle<Secret>, LibvirtError> {
        let usage = terminated(usage, "the usage")?;
        // SAFETY: a live object, and a string that ends in NUL.
        let found = unsafe { (self.0)(connect.pointer(), kind, usage.as_ptr()) };
        Handle::new(found, connect.functions)
    }
}

impl Value {
    /// Returns the value in locked memory. libvirt's copy is wiped before it is freed.
    pub(in crate::libvirt) fn call(
        self,
        secret: &Handle<Secret>,
    ) -> Result<LockedBytes, LibvirtError> {
        apart(|| {
            let mut len = 0;
            // SAFETY: a live object, and a place for the length.
            let value = unsafe { (self.0)(secret.pointer(), &raw mut len, 0) };
            let value = Gift::new(value, secret.functions)?;
            // SAFETY: libvirt allocated `len` bytes and passed their ownership to `value`.
            let bytes = unsafe { slice::from_raw_parts_mut(value.0.as_ptr(), len) };
            let copy = LockedBytes::copy_from(bytes);
            wipe(bytes);
            Ok(copy?)
        })
    }
}

impl SetValue {
    pub(in crate::libvirt) fn call(
        self,
        secret: &Handle<Secret>,
        value: &[u8],
    ) -> Result<(), LibvirtError> {
        apart(|| {
            // SAFETY: a live object, and a buffer of the length that is passed.
            let answer = unsafe { (self.0)(secret.pointer(), value.as_ptr(), value.len(), 0) };
            checked(answer, secret.functions).map(drop)
        })
    }
}
