//! Keys in the kernel's keyrings: those for dm-crypt, and those of the user.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_long};
use std::io;

/// The type of keys that programs cannot read back: only the kernel uses them.
const LOGON: &CStr = c"logon";

/// The type of keys that a user adds for programs.
const USER: &CStr = c"user";

/// The session keyring of the process, which its children share.
const SESSION_KEYRING: c_long = -3;

/// The keyring of the user, which all of its sessions share.
const USER_KEYRING: c_long = -4;

// Operations of keyctl, from linux/keyctl.h.
const GET_KEYRING_ID: c_long = 0;
const SEARCH: c_long = 10;
const READ: c_long = 11;
const SET_TIMEOUT: c_long = 15;
const INVALIDATE: c_long = 21;

/// A key of type `logon` in the session keyring.
#[derive(Debug)]
pub(crate) struct LogonKey(c_long);

impl LogonKey {
    /// Adds a key that the kernel removes after `seconds`. It replaces a key of this description.
    ///
    /// # Errors
    /// What `add_key` and `keyctl` report, such as `EDQUOT`, and `ENOSYS` of a kernel or container
    /// without keyrings.
    pub(crate) fn add(description: &str, payload: &[u8], seconds: u32) -> io::Result<Self> {
        let description = CString::new(description)?;
        // A process without a session keyring gets one, which dmsetup then inherits.
        keyctl(GET_KEYRING_ID, SESSION_KEYRING, 1)?;
        // SAFETY: the type and the description are strings with a terminating zero, the payload has
        // the stated length, and the kernel only reads all three.
        let id = unsafe {
            libc::syscall(
                libc::SYS_add_key,
                LOGON.as_ptr(),
                description.as_ptr(),
                payload.as_ptr(),
                payload.len(),
                SESSION_KEYRING,
            )
        };
        let key = Self(checked(id)?);
        match keyctl(SET_TIMEOUT, key.0, c_long::from(seconds)) {
            Ok(_) => Ok(key),
            Err(error) => {
                let _ = key.remove();
                Err(error)
            }
        }
    }

    /// Removes the key at once.
    ///
    /// # Errors
    /// What `keyctl` reports, such as `ENOKEY` after the key's time has passed.
    pub(crate) fn remove(self) -> io::Result<()> {
        keyctl(INVALIDATE, self.0, 0).map(drop)
    }
}

/// A key of type `user` that a keyring of this process or of its user has.
#[derive(Debug)]
pub(crate) struct UserKey(c_long);

impl UserKey {
    /// Finds a key by its description: in the keyrings of the thread, the process and the session,
    /// then in that of the user. No program is asked to make it.
    ///
    /// # Errors
    /// What the kernel reports: `ENOKEY`, `EKEYEXPIRED` and `EKEYREVOKED`, `EACCES`, and `ENOSYS`
    /// of a kernel or container without keyrings.
    pub(crate) fn find(description: &str) -> io::Result<Self> {
        let description = CString::new(description)?;
        let no_callout = std::ptr::null::<libc::c_char>();
        // SAFETY: the type and the description are strings with a terminating zero, which the
        // kernel only reads. Without a callout it starts no program. No keyring gets a link.
        let found = checked(unsafe {
            libc::syscall(
                libc::SYS_request_key,
                USER.as_ptr(),
                description.as_ptr(),
                no_callout,
                0,
            )
        });
        let found = found.or_else(|error| {
            // SAFETY: as above; the search takes the same two strings.
            let in_users = checked(unsafe {
                libc::syscall(
                    libc::SYS_keyctl,
                    SEARCH,
                    USER_KEYRING,
                    USER.as_ptr(),
                    description.as_ptr(),
                    0,
                )
            });
            in_users.map_err(|_| error)
        });
        found.map(Self)
    }

    /// Reads the key into the buffer, as far as it fits. Returns the size of the key in bytes.
    ///
    /// # Errors
    /// What `keyctl` reports, such as `EACCES`.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer has the stated length, and the kernel writes at most that many bytes.
        let size = checked(unsafe {
            libc::syscall(
                libc::SYS_keyctl,
                READ,
                self.0,
                into.as_mut_ptr(),
                into.len(),
                0,
            )
        })?;
        usize::try_from(size).map_err(io::Error::other)
    }
}

fn keyctl(operation: c_long, first: c_long, second: c_long) -> io::Result<c_long> {
    // SAFETY: the operations of this file take numbers only.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, 0, 0) })
}

fn checked(returned: c_long) -> io::Result<c_long> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_until_it_is_removed() {
        let description = format!("luksmith:test-{}", std::process::id());
        let key = match LogonKey::add(&description, &[7; 64], 60) {
            Ok(key) => key,
            // A container may forbid the calls.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let listed = || std::fs::read_to_string("/proc/keys").unwrap();
        let line = listed();
        let line = line.lines().find(|line| line.contains(&description));
        assert!(
            line.is_some_and(|line| line.contains(" logon ")),
            "{line:?}"
        );
        key.remove().unwrap();
        // The kernel frees a key later. Until then the last of its flags says that it is invalid.
        let gone = |line: &str| {
            let flags = line.split_whitespace().nth(1);
            flags.is_some_and(|flags| flags.ends_with('i'))
        };
        let left = listed();
        let mut left = left.lines().filter(|line| line.contains(&description));
        assert!(left.all(gone));
    }
}
