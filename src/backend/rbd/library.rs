//! The functions of `librados.so.2` and `librbd.so.1` that this crate calls, as Ceph's headers
//! declare them, looked up when they are first needed. Only `cluster` and `image` call them.
#![allow(unsafe_code)] // functions of a library in C

use core::ffi::{c_char, c_int, c_void};

use super::error::Problem;
use crate::sys::library::functions;

/// The client library of the object store.
const LIBRADOS: &str = "librados.so.2";

/// The client library of block devices.
const LIBRBD: &str = "librbd.so.1";

/// `rados_t`.
pub(super) enum RawCluster {}

/// `rados_ioctx_t`.
pub(super) enum RawPool {}

/// `rbd_image_t`.
pub(super) enum RawImage {}

/// `rbd_image_options_t`.
pub(super) enum RawOptions {}

/// `RBD_LOCK_MODE_EXCLUSIVE`.
pub(super) const EXCLUSIVE: c_int = 0;

/// `RBD_IMAGE_OPTION_ORDER`: the binary logarithm of the size of an object.
pub(super) const ORDER: c_int = 2;

/// `RBD_IMAGE_OPTION_STRIPE_UNIT`, in bytes.
pub(super) const STRIPE_UNIT: c_int = 3;

/// `RBD_IMAGE_OPTION_STRIPE_COUNT`.
pub(super) const STRIPE_COUNT: c_int = 4;

/// `RBD_IMAGE_OPTION_FEATURES_SET`: features beside the default ones.
pub(super) const FEATURES_SET: c_int = 8;

/// `RBD_FEATURE_EXCLUSIVE_LOCK`.
pub(super) const FEATURE_EXCLUSIVE_LOCK: u64 = 1 << 2;

/// `rbd_image_watcher_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RawWatcher {
    pub(super) address: *mut c_char,
    pub(super) client: i64,
    pub(super) cookie: u64,
}

/// `rbd_image_info_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RawInfo {
    pub(super) size: u64,
    pub(super) object_size: u64,
    pub(super) objects: u64,
    pub(super) order: c_int,
    block_name_prefix: [c_char; 24],
    parent_pool: i64,
    parent_name: [c_char; 96],
}

impl RawInfo {
    pub(super) fn empty() -> Self {
        Self {
            size: 0,
            object_size: 0,
            objects: 0,
            order: 0,
            block_name_prefix: [0; 24],
            parent_pool: 0,
            parent_name: [0; 96],
        }
    }
}

/// What [`Rbd::diff`] calls for each extent: offset, length, whether it has data, its argument.
pub(super) type OnExtent = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;

functions! {
    /// The functions of `librados.so.2`.
    pub(super) struct Rados of LIBRADOS {
        create: unsafe extern "C" fn(*mut *mut RawCluster, *const c_char) -> c_int
            = "rados_create",
        read_conf: unsafe extern "C" fn(*mut RawCluster, *const c_char) -> c_int
            = "rados_conf_read_file",
        set_conf: unsafe extern "C" fn(*mut RawCluster, *const c_char, *const c_char) -> c_int
            = "rados_conf_set",
        get_conf: unsafe extern "C" fn(*mut RawCluster, *const c_char, *mut c_char, usize) -> c_int
            = "rados_conf_get",
        connect: unsafe extern "C" fn(*mut RawCluster) -> c_int = "rados_connect",
        shutdown: unsafe extern "C" fn(*mut RawCluster) = "rados_shutdown",
        fsid: unsafe extern "C" fn(*mut RawCluster, *mut c_char, usize) -> c_int
            = "rados_cluster_fsid",
        client: unsafe extern "C" fn(*mut RawCluster) -> u64 = "rados_get_instance_id",
        open_pool: unsafe extern "C" fn(*mut RawCluster, *const c_char, *mut *mut RawPool) -> c_int
            = "rados_ioctx_create",
        close_pool: unsafe extern "C" fn(*mut RawPool) = "rados_ioctx_destroy",
        pool_id: unsafe extern "C" fn(*mut RawPool) -> i64 = "rados_ioctx_get_id",
        set_namespace: unsafe extern "C" fn(*mut RawPool, *const c_char)
            = "rados_ioctx_set_namespace",
    }
}

functions! {
    /// The functions of `librbd.so.1`.
    pub(super) struct Rbd of LIBRBD {
        new_options: unsafe extern "C" fn(*mut *mut RawOptions) = "rbd_image_options_create",
        free_options: unsafe extern "C" fn(*mut RawOptions) = "rbd_image_options_destroy",
        set_option: unsafe extern "C" fn(*mut RawOptions, c_int, u64) -> c_int
            = "rbd_image_options_set_uint64",
        create: unsafe extern "C" fn(*mut RawPool, *const c_char, u64, *mut RawOptions) -> c_int
            = "rbd_create4",
        remove: unsafe extern "C" fn(*mut RawPool, *const c_char) -> c_int = "rbd_remove",
        open: unsafe extern "C" fn(*mut RawPool, *const c_char, *mut *mut RawImage, *const c_char)
            -> c_int = "rbd_open",
        open_read_only: unsafe extern "C" fn(
            *mut RawPool, *const c_char, *mut *mut RawImage, *const c_char,
        ) -> c_int = "rbd_open_read_only",
        close: unsafe extern "C" fn(*mut RawImage) -> c_int = "rbd_close",
        stat: unsafe extern "C" fn(*mut RawImage, *mut RawInfo, usize) -> c_int = "rbd_stat",
        features: unsafe extern "C" fn(*mut RawImage, *mut u64) -> c_int = "rbd_get_features",
        stripe_count: unsafe extern "C" fn(*mut RawImage, *mut u64) -> c_int
            = "rbd_get_stripe_count",
        stripe_unit: unsafe extern "C" fn(*mut RawImage, *mut u64) -> c_int
            = "rbd_get_stripe_unit",
        id: unsafe extern "C" fn(*mut RawImage, *mut c_char, usize) -> c_int = "rbd_get_id",
        parent: unsafe extern "C" fn(
            *mut RawImage, *mut c_char, usize, *mut c_char, usize, *mut c_char, usize,
        ) -> c_int = "rbd_get_parent_info",
        read: unsafe extern "C" fn(*mut RawImage, u64, usize, *mut c_char) -> isize = "rbd_read",
        write: unsafe extern "C" fn(*mut RawImage, u64, usize, *const c_char) -> isize
            = "rbd_write",
        write_zeroes: unsafe extern "C" fn(*mut RawImage, u64, usize, c_int, c_int) -> isize
            = "rbd_write_zeroes",
        flush: unsafe extern "C" fn(*mut RawImage) -> c_int = "rbd_flush",
        resize: unsafe extern "C" fn(*mut RawImage, u64) -> c_int = "rbd_resize",
        diff: unsafe extern "C" fn(
            *mut RawImage, *const c_char, u64, u64, u8, u8, OnExtent, *mut c_void,
        ) -> c_int = "rbd_diff_iterate2",
        acquire: unsafe extern "C" fn(*mut RawImage, c_int) -> c_int = "rbd_lock_acquire",
        owners: unsafe extern "C" fn(*mut RawImage, *mut c_int, *mut *mut c_char, *mut usize)
            -> c_int = "rbd_lock_get_owners",
        free_owners: unsafe extern "C" fn(*mut *mut c_char, usize) = "rbd_lock_get_owners_cleanup",
        watchers: unsafe extern "C" fn(*mut RawImage, *mut RawWatcher, *mut usize) -> c_int
            = "rbd_watchers_list",
        free_watchers: unsafe extern "C" fn(*mut RawWatcher, usize) = "rbd_watchers_list_cleanup",
    }
}

/// The functions of librados, loaded at the first call.
pub(super) fn rados() -> Result<&'static Rados, Problem> {
    Rados::get(|_| Ok(()))
}

/// The functions of librbd, loaded at the first call.
pub(super) fn rbd() -> Result<&'static Rbd, Problem> {
    Rbd::get(|_| Ok(()))
}
