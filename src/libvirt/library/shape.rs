//! The types of libvirt's objects, structs and functions, as its headers declare them. A type for
//! each function signature; `call` has the methods that call the functions.

use core::ffi::{c_char, c_int, c_uchar, c_uint, c_ulong, c_ulonglong, c_void};

/// `virConnect`.
pub(in crate::libvirt) enum Connect {}

/// `virDomain`.
pub(in crate::libvirt) enum Domain {}

/// `virStoragePool`.
pub(in crate::libvirt) enum Pool {}

/// `virStorageVol`.
pub(in crate::libvirt) enum Volume {}

/// `virStream`.
pub(in crate::libvirt) enum Stream {}

/// `virSecret`.
pub(in crate::libvirt) enum Secret {}

/// The error that libvirt stored for this thread (`virError`). Only its first three members are
/// read.
#[repr(C)]
pub(in crate::libvirt) struct RawError {
    pub(super) code: c_int,
    pub(super) domain: c_int,
    pub(super) message: *const c_char,
}

/// `virStoragePoolInfo`.
#[repr(C)]
#[derive(Default)]
pub(in crate::libvirt) struct RawPoolInfo {
    pub(in crate::libvirt) state: c_int,
    pub(in crate::libvirt) capacity: c_ulonglong,
    pub(in crate::libvirt) allocation: c_ulonglong,
    pub(in crate::libvirt) available: c_ulonglong,
}

/// `virStorageVolInfo`.
#[repr(C)]
#[derive(Default)]
pub(in crate::libvirt) struct RawVolumeInfo {
    pub(in crate::libvirt) kind: c_int,
    pub(in crate::libvirt) capacity: c_ulonglong,
    pub(in crate::libvirt) allocation: c_ulonglong,
}

/// `virDomainBlockInfo`.
#[repr(C)]
#[derive(Default)]
pub(in crate::libvirt) struct RawBlockInfo {
    pub(in crate::libvirt) capacity: c_ulonglong,
    pub(in crate::libvirt) allocation: c_ulonglong,
    pub(in crate::libvirt) physical: c_ulonglong,
}

/// `virDomainJobInfo`.
#[repr(C)]
#[derive(Default)]
pub(in crate::libvirt) struct RawJobInfo {
    pub(in crate::libvirt) kind: c_int,
    counts: [c_ulonglong; 11],
}

/// `virDomainBlockJobInfo`.
#[repr(C)]
#[derive(Default)]
pub(in crate::libvirt) struct RawBlockJobInfo {
    pub(in crate::libvirt) kind: c_int,
    bandwidth: c_ulong,
    pub(in crate::libvirt) done: c_ulonglong,
    pub(in crate::libvirt) end: c_ulonglong,
}

/// `virTypedParameter` with an unsigned number of 64 bits.
#[repr(C)]
pub(in crate::libvirt) struct RawParameter {
    /// Its name, ended by NUL.
    pub(super) name: [c_uchar; 80],
    /// `VIR_TYPED_PARAM_ULLONG`.
    pub(super) kind: c_int,
    pub(super) value: c_ulonglong,
}

macro_rules! shapes {
    ($($(#[$about:meta])* $name:ident $(<$($object:ident),+>)?: fn($($argument:ty),*) $(-> $answer:ty)?;)*) => {$(
        $(#[$about])*
        #[repr(transparent)]
        pub(in crate::libvirt) struct $name$(<$($object),+>)?(pub(super) unsafe extern "C" fn($($argument),*) $(-> $answer)?);

        impl$(<$($object),+>)? Clone for $name$(<$($object),+>)? {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl$(<$($object),+>)? Copy for $name$(<$($object),+>)? {}
    )*};
}

shapes! {
    Initialize: fn() -> c_int;
    SetErrorFunction: fn(*mut c_void, Option<unsafe extern "C" fn(*mut c_void, *mut RawError)>);
    LastError: fn() -> *const RawError;
    /// URI, callbacks that ask for credentials (null), flags.
    Open: fn(*const c_char, *mut c_void, c_uint) -> *mut Connect;
    /// Acts on an object, or returns a number of it.
    Act<O>: fn(*mut O) -> c_int;
    /// The same, with flags.
    ActWith<O>: fn(*mut O, c_uint) -> c_int;
    /// Acts on an object with a string, such as the XML of a device.
    Tell<O>: fn(*mut O, *const c_char, c_uint) -> c_int;
    /// Returns a string that belongs to the object.
    Borrowed<O>: fn(*mut O) -> *const c_char;
    /// Returns a string that the caller frees.
    Owned<O>: fn(*mut O) -> *mut c_char;
    /// The same, with flags.
    Xml<O>: fn(*mut O, c_uint) -> *mut c_char;
    /// Writes a UUID, 36 characters and a NUL.
    Uuid<O>: fn(*mut O, *mut c_char) -> c_int;
    /// Returns another object, found by a string.
    Find<O, P>: fn(*mut O, *const c_char) -> *mut P;
    /// The same, with flags.
    Make<O, P>: fn(*mut O, *const c_char, c_uint) -> *mut P;
    /// Returns the object to which this one belongs.
    Parent<O, P>: fn(*mut O) -> *mut P;
    /// Returns an array of objects. The caller frees the array and each object.
    List<O, P>: fn(*mut O, *mut *mut *mut P, c_uint) -> c_int;
    /// Fills a struct or a number.
    Read<O, T>: fn(*mut O, *mut T) -> c_int;
    /// Command, reply, flags.
    Ask<O>: fn(*mut O, *const c_char, *mut *mut c_char, c_uint) -> c_int;
    /// Returns how many objects there are, if there is no place for the array.
    CountOf<O>: fn(*mut O, *mut c_void, c_uint) -> c_int;
    /// Disk, XML of the destination, parameters, their number, flags.
    BlockCopy: fn(*mut Domain, *const c_char, *const c_char, *const RawParameter, c_int, c_uint) -> c_int;
    /// Returns 0 if the disk has no job.
    BlockJob: fn(*mut Domain, *const c_char, *mut RawBlockJobInfo, c_uint) -> c_int;
    BlockInfo: fn(*mut Domain, *const c_char, *mut RawBlockInfo, c_uint) -> c_int;
    Resize: fn(*mut Volume, c_ulonglong, c_uint) -> c_int;
    /// Offset, length, flags.
    Transfer: fn(*mut Volume, *mut Stream, c_ulonglong, c_ulonglong, c_uint) -> c_int;
    NewStream: fn(*mut Connect, c_uint) -> *mut Stream;
    Send_: fn(*mut Stream, *const c_char, usize) -> c_int;
    Receive: fn(*mut Stream, *mut c_char, usize) -> c_int;
    FindUsage: fn(*mut Connect, c_int, *const c_char) -> *mut Secret;
    Value: fn(*mut Secret, *mut usize, c_uint) -> *mut c_uchar;
    SetValue: fn(*mut Secret, *const c_uchar, usize, c_uint) -> c_int;
}
