//! Unmounts a volume that another process has mounted.

use std::fmt;
use std::path::{Path, PathBuf};

use luksmith_formats::json::Object;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::point::Point;
use super::refused::refused;
use super::users;
use crate::sys::folder::Folder;
use crate::sys::fuse::KIND;
use crate::task::outcome::Outcome;
use crate::task::{Advice, Error, Kind};

/// What unmounting did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmounted {
    /// Where the volume was mounted.
    pub path: PathBuf,
    /// The program that had mounted it had ended before, such as by SIGKILL. What programs had
    /// written to the file and not flushed may be lost.
    pub was_dead: bool,
    /// The file has only lost its name. It is served until its users have closed it.
    pub in_use: bool,
}

/// Flushes and unmounts the volume that is mounted at `path`, and waits until its server has ended.
/// If `lazy`, the file only loses its name if it is in use, and nothing is waited for.
///
/// A server that does not answer is waited for without end, unless `lazy`.
///
/// # Errors
/// [`Kind::Parameters`] if no volume is mounted there, [`Kind::Busy`] if programs use the file,
/// [`Kind::Storage`] if it cannot be flushed, and failed system calls. The file then stays mounted.
pub fn unmount(path: &Path, lazy: bool) -> Result<Unmounted, Error> {
    let (folder, name) = Folder::of(path).map_err(|error| Error::io("look at", path, error))?;
    let point = Point::of(folder, name)?;
    match point.mount()? {
        Some(mount) if mount.kind == KIND.as_bytes() => {}
        Some(mount) => {
            let kind = String::from_utf8_lossy(&mount.kind).into_owned();
            let message = format!(
                "a file system of type {kind} is mounted at {}",
                path.display()
            );
            return Err(Error::parameters(message));
        }
        None => {
            let message = format!("no volume is mounted at {}", path.display());
            return Err(Error::parameters(message));
        }
    }
    let was_dead = match lazy {
        // Nothing is asked of a server that may not answer.
        true => false,
        false => flush(&point)?,
    };
    let failed = |error| refused(error, "unmount", path);
    let in_use = match point.unmount(false) {
        Ok(()) => false,
        Err(error) if error.is_busy() && (lazy || was_dead) => {
            point.unmount(true).map_err(failed)?;
            true
        }
        Err(error) if error.is_busy() => {
            let mut users = users::of(point.path());
            if users.is_empty() {
                users.push("another program".to_owned());
            }
            let message = format!("{} is in use by {}", path.display(), users.join(", "));
            return Err(Error::new(Kind::Busy, message).advise(Advice::UnmountLazily));
        }
        Err(error) => return Err(failed(error)),
    };
    if !lazy && !was_dead {
        wait_for_end(&point);
    }
    Ok(Unmounted {
        path: path.to_owned(),
        was_dead,
        in_use,
    })
}

/// Makes durable what was written. Returns whether the server has ended.
fn flush(point: &Point) -> Result<bool, Error> {
    let flushed = point.open().and_then(|file| file.sync_all());
    match flushed {
        Ok(()) => Ok(false),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOTCONN | Errno::CONNABORTED) => Ok(true),
            // The file of another user. The server flushes at its end.
            Some(Errno::ACCESS) => Ok(false),
            _ => {
                let error = Error::io("flush", point.path(), error);
                Err(error.advise(Advice::UnmountLazily))
            }
        },
    }
}

/// Waits until the server has unlocked the file that was hidden.
fn wait_for_end(point: &Point) {
    // A file that the server made is gone at its end.
    if let Ok(file) = point.open() {
        let _ = rustix::fs::flock(&file, FlockOperation::LockShared);
    }
}

impl Outcome for Unmounted {
    fn members(&self) -> Object {
        let mut members = Object::new();
        members.insert("file", self.path.display().to_string());
        members.insert("was_dead", self.was_dead);
        members.insert("in_use", self.in_use);
        members
    }
}

impl fmt::Display for Unmounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: unmounted", self.path.display())?;
        match (self.was_dead, self.in_use) {
            (true, _) => f.write_str("; its program had ended before"),
            (false, true) => f.write_str("; programs still use the file"),
            (false, false) => Ok(()),
        }
    }
}
