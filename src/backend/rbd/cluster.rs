//! A connection to a cluster, and a pool in it.
#![allow(unsafe_code)] // functions of a library in C

use core::ffi::c_char;
use core::ptr::{NonNull, null_mut};
use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::Arc;

use luksmith_formats::rbd::{USER, Uri};

use super::error::{Problem, os_error};
use super::library::{Rados, RawCluster, RawPool, rados};
use super::options::RbdOptions;
use crate::secret::{LockedBytes, Passphrase};

/// Where the configuration is, unless the URI names another file. What librados itself tries before
/// that, a variable of the environment and the current folder, is not read.
const CONFIGURATION: &str = "/etc/ceph/ceph.conf";

/// A connection to a cluster.
pub(super) struct Cluster {
    cluster: NonNull<RawCluster>,
    functions: &'static Rados,
}

// SAFETY: librados's handles may be used from any thread (its documentation of rados_t).
unsafe impl Send for Cluster {}
// SAFETY: as above; concurrent calls are allowed.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// Connects as the URI and the options say.
    fn connect(uri: &Uri, options: &RbdOptions) -> Result<Self, Problem> {
        let functions = rados()?;
        let user = uri.id.as_deref().unwrap_or(USER);
        let mut cluster = null_mut();
        let id = terminated(user);
        // SAFETY: a place for the handle, and a string that ends in NUL.
        let answer = unsafe { (functions.create)(&raw mut cluster, id.as_ptr()) };
        let cluster = NonNull::new(cluster).filter(|_| answer >= 0);
        let cluster = cluster.ok_or_else(|| Problem::failed("rados_create", answer))?;
        let cluster = Self { cluster, functions };

        let path = uri.conf.as_deref().unwrap_or(CONFIGURATION);
        // The usual file is not needed where the URI names the monitors, and the library complains
        // of a missing one on standard error.
        let is_needed = uri.conf.is_some() || uri.monitors.is_none();
        if is_needed || Path::new(path).exists() {
            cluster.read(path)?;
        } else if options.key.is_none() {
            // The library's own default has the name of the cluster in it. The library knows that
            // name only after it has read a configuration file.
            cluster.set("keyring", &format!("/etc/ceph/ceph.client.{user}.keyring"))?;
        }
        if let Some(monitors) = &uri.monitors {
            cluster.set("mon_host", monitors)?;
        }
        if let Some(key) = &options.key {
            cluster.set_key(key)?;
        }
        let seconds = options.timeout.as_secs().max(1).to_string();
        for (option, value) in [
            ("client_mount_timeout", &*seconds),
            ("rados_mon_op_timeout", &seconds),
            ("rados_osd_op_timeout", &seconds),
            // Every write that succeeded is stored by the cluster, and every read sees what other
            // clients have written.
            ("rbd_cache", "false"),
            // The library prints nothing itself.
            ("log_to_stderr", "false"),
            ("err_to_stderr", "false"),
        ] {
            cluster.set(option, value)?;
        }
        // SAFETY: a handle that is not connected yet.
        let answer = unsafe { (functions.connect)(cluster.pointer()) };
        match answer {
            0.. => Ok(cluster),
            // Without a key, librados says that a file is missing, or that it supports nothing.
            ENOENT | EPERM | EACCES | EOPNOTSUPP => Err(Problem::Denied {
                user: user.to_owned(),
                source: os_error(answer),
            }),
            _ => Err(Problem::Unreachable(os_error(answer))),
        }
    }

    fn pointer(&self) -> *mut RawCluster {
        self.cluster.as_ptr()
    }

    /// Reads a configuration file.
    fn read(&self, path: &str) -> Result<(), Problem> {
        let file = terminated(path);
        // SAFETY: a handle that is not connected yet, and a string that ends in NUL.
        match unsafe { (self.functions.read_conf)(self.pointer(), file.as_ptr()) } {
            0.. => Ok(()),
            answer => Err(Problem::Configuration {
                path: path.to_owned(),
                source: os_error(answer),
            }),
        }
    }

    fn set(&self, option: &'static str, value: &str) -> Result<(), Problem> {
        self.set_text(option, &terminated(value))
    }

    /// Gives the library the key of the user, which it keeps in memory of its own.
    fn set_key(&self, key: &Passphrase) -> Result<(), Problem> {
        let text = Passphrase::base64_of(key.as_bytes()).map_err(Problem::Key)?;
        let len = text.as_bytes().len();
        let mut terminated =
            LockedBytes::new(len + 1).map_err(|error| Problem::Key(error.into()))?;
        terminated[..len].copy_from_slice(text.as_bytes());
        match CStr::from_bytes_until_nul(&terminated) {
            Ok(text) => self.set_text("key", text),
            Err(_) => Ok(()),
        }
    }

    fn set_text(&self, option: &'static str, value: &CStr) -> Result<(), Problem> {
        let name = terminated(option);
        // SAFETY: a live handle, and strings that end in NUL.
        let answer =
            unsafe { (self.functions.set_conf)(self.pointer(), name.as_ptr(), value.as_ptr()) };
        match answer {
            0.. => Ok(()),
            _ => Err(Problem::Option(option, os_error(answer))),
        }
    }

    /// The value of an option, if the library has it.
    pub(super) fn option(&self, name: &str) -> Option<String> {
        let name = terminated(name);
        text(|buffer, len| {
            // SAFETY: a live handle, a string that ends in NUL, and a buffer of that length.
            unsafe { (self.functions.get_conf)(self.pointer(), name.as_ptr(), buffer, len) }
        })
    }

    /// The UUID of the cluster.
    pub(super) fn fsid(&self) -> Option<String> {
        text(|buffer, len| {
            // SAFETY: a live handle, and a buffer of that length.
            unsafe { (self.functions.fsid)(self.pointer(), buffer, len) }
        })
    }

    /// The number by which the cluster knows this client.
    pub(super) fn client(&self) -> u64 {
        // SAFETY: a live handle.
        unsafe { (self.functions.client)(self.pointer()) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: a live handle, which is not used afterwards: pools keep their cluster.
        unsafe { (self.functions.shutdown)(self.pointer()) };
    }
}

/// A pool of a cluster, with the namespace of an image.
pub(super) struct Pool {
    pool: NonNull<RawPool>,
    /// Dropped after the pool is closed.
    pub(super) cluster: Arc<Cluster>,
}

// SAFETY: librados's handles may be used from any thread (its documentation of rados_ioctx_t).
unsafe impl Send for Pool {}
// SAFETY: as above; concurrent calls are allowed.
unsafe impl Sync for Pool {}

impl Pool {
    /// Connects to the cluster of the URI, and opens its pool.
    pub(super) fn connect(uri: &Uri, options: &RbdOptions) -> Result<Self, Problem> {
        let cluster = Arc::new(Cluster::connect(uri, options)?);
        let functions = cluster.functions;
        let name = terminated(&uri.pool);
        let mut pool = null_mut();
        // SAFETY: a connected handle, a string that ends in NUL, and a place for the pool.
        let answer =
            unsafe { (functions.open_pool)(cluster.pointer(), name.as_ptr(), &raw mut pool) };
        let pool = match (answer, NonNull::new(pool)) {
            (0.., Some(pool)) => Self { pool, cluster },
            (ENOENT, _) => return Err(Problem::NoPool),
            _ => return Err(Problem::failed("rados_ioctx_create", answer)),
        };
        let namespace = terminated(&uri.namespace);
        // SAFETY: a live pool, and a string that ends in NUL.
        unsafe { (functions.set_namespace)(pool.pointer(), namespace.as_ptr()) };
        Ok(pool)
    }

    pub(super) fn pointer(&self) -> *mut RawPool {
        self.pool.as_ptr()
    }

    /// The number of the pool, which another pool of the cluster never gets.
    pub(super) fn id(&self) -> i64 {
        // SAFETY: a live pool.
        unsafe { (self.cluster.functions.pool_id)(self.pointer()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: a live pool, which is not used afterwards: images keep their pool.
        unsafe { (self.cluster.functions.close_pool)(self.pointer()) };
    }
}

pub(super) const EPERM: i32 = -libc::EPERM;
pub(super) const ENOENT: i32 = -libc::ENOENT;
pub(super) const EACCES: i32 = -libc::EACCES;
pub(super) const EOPNOTSUPP: i32 = -libc::EOPNOTSUPP;

/// A string that ends in NUL. The parser of URIs lets no NUL in.
pub(super) fn terminated(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// The string that a call writes into a buffer, unless the call fails.
pub(super) fn text(call: impl FnOnce(*mut c_char, usize) -> i32) -> Option<String> {
    let mut buffer = [0_u8; 512];
    if call(buffer.as_mut_ptr().cast(), buffer.len()) < 0 {
        return None;
    }
    let text = CStr::from_bytes_until_nul(&buffer).ok()?;
    Some(text.to_string_lossy().into_owned())
}
