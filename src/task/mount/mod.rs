//! Mounts a volume as a file of this machine, and unmounts it.
//!
//! The mount point is a file, which the mounted file hides. While a volume is mounted, its server
//! holds a lock (`flock(2)`) on the hidden file: a second server does not mount there, and a task
//! that unmounts knows when the server has ended.

mod point;
mod refused;
mod unmount;
mod users;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::exports::Wanted;
use super::open::ImageFormat;
use super::{Advice, Error, Kind, MadeFile, Watch};
use crate::export::{Discard, Export, fuse};
use crate::sys::fuse::How;
use point::{Attached, Point};
use refused::refused;

pub use point::{Detached, MountPoint};
pub use unmount::{Unmounted, unmount};

/// How a volume is mounted.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Limits of the server, and whether the page cache is used.
    pub server: fuse::Options,
    /// Other users have access as far as the mode of the file permits, which is 0600 or 0400: root.
    /// FUSE otherwise refuses every other user, root too.
    pub allow_other: bool,
}

/// Refuses a volume that cannot be mounted as is wanted, before a passphrase is asked for.
///
/// # Errors
/// [`Kind::Parameters`] for [`Discard::Pass`] and a raw volume: a hole of a file reads as zeroes,
/// and freed storage of a raw volume as noise.
pub fn check(wanted: &Wanted) -> Result<(), Error> {
    let reads_as_noise = wanted.image.format == ImageFormat::Raw;
    if wanted.discard == Discard::Pass && reads_as_noise {
        let message = "a hole in a mounted file has to read as zeroes, and freed storage of a raw \
                       volume reads as noise";
        return Err(Error::parameters(message).advise(Advice::ZeroesForHoles));
    }
    Ok(())
}

/// A volume that is mounted, and not served yet. Dropping it unmounts it.
pub struct Mounted<'a> {
    // Dropped in this order.
    attached: Arc<Attached>,
    device: OwnedFd,
    made: Option<Made<'a>>,
    /// The file below, which is locked.
    hidden: File,
    server: fuse::Server,
}

/// A mount point that was made, and is removed when this is dropped.
struct Made<'a> {
    file: MadeFile,
    watch: &'a dyn Watch,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // Another file may have its name by now.
        let _ = self.file.remove();
        self.watch.unfinished(&self.file, false);
    }
}

impl<'a> Mounted<'a> {
    /// Mounts an export. Programs that use the file wait until it is served.
    ///
    /// # Errors
    /// [`Kind::Busy`] if something is mounted there, [`Kind::Unsupported`] without FUSE,
    /// [`Kind::Permission`] if the system or the helper for ordinary users refuses, and failed
    /// system calls.
    pub fn mount(
        export: Arc<Export>,
        at: MountPoint,
        source: String,
        options: &Options,
        watch: &'a dyn Watch,
    ) -> Result<Self, Error> {
        let how = How {
            source,
            read_only: export.is_read_only(),
            allow_other: options.allow_other,
        };
        let (hidden, made) = at.hold()?;
        let made = made.map(|file| {
            watch.unfinished(&file, true);
            Made { file, watch }
        });
        let point = Point::of(at.folder, at.name)?;
        let device = crate::sys::fuse::open_device().map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let kind = if missing {
                Kind::Unsupported
            } else {
                Kind::of_io(&error)
            };
            Error::new(kind, error)
                .about("cannot use /dev/fuse")
                .advise_if(missing, Advice::LoadFuse)
        });
        let mounted = device.and_then(|device| {
            match crate::sys::fuse::mount(device.as_fd(), hidden.as_fd(), &how) {
                Ok(()) => Ok(device),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    crate::sys::fuse::mount_by_helper(point.path(), &how)
                        .map_err(|error| refused(error, "mount", point.path()))
                }
                Err(error) => Err(Error::io("mount", point.path(), error)),
            }
        });
        let device = mounted?;
        Ok(Self {
            attached: Arc::new(point.attached()?),
            device,
            made,
            hidden,
            server: fuse::Server::new(export, &options.server),
        })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.attached.path()
    }

    /// A function that unmounts the file, from any thread, after which [`serve`](Self::serve) soon
    /// returns. A file in use only loses its name, and is served until its users have closed it.
    pub fn unmounter(&self) -> impl Fn() -> Result<Detached, Error> + Send + Sync + 'static {
        let attached = Arc::downgrade(&self.attached);
        move || match attached.upgrade() {
            Some(attached) => attached.detach(),
            None => Ok(Detached::Wholly),
        }
    }

    /// Serves the file until it is unmounted and no program has it open. Then flushes the volume.
    ///
    /// # Errors
    /// Those of [`fuse::Server::run`].
    pub fn serve(self) -> Result<(), Error> {
        let Self {
            attached,
            device,
            made,
            hidden,
            server,
        } = self;
        let served = server.run(device);
        // In this order: no other server mounts here before the file is unlocked.
        drop(attached);
        drop(made);
        drop(hidden);
        Ok(served?)
    }
}
