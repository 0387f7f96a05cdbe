//! Reads the headers of the images that documents name.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::audit::{self, DiskSocket, Image, Inventory, Seen, Wanted};
use crate::backend::file::{FileBackend, OpenOptions};
use crate::task::{Error, Watch, chain};

/// Opens the images that the documents of the inventory name and that rules ask for, and reads
/// their headers. Looks at the permissions of the sockets on which disks are served.
///
/// A guest may be using an image: no lock is taken, and locks of other programs are ignored. Files
/// that an image names are not opened. An image that cannot be opened is recorded as such.
///
/// # Errors
/// Returns an error only if the interrupt of `watch` was set.
pub fn add_images(inventory: &mut Inventory, watch: &dyn Watch) -> Result<(), Error> {
    for wanted in audit::images(inventory) {
        watch.check()?;
        let image = look(&wanted);
        inventory.images.insert(wanted, image);
    }
    for path in audit::sockets(inventory) {
        watch.check()?;
        if let Some(found) = socket(Path::new(&path)) {
            inventory.sockets.insert(path, found);
        }
    }
    Ok(())
}

/// The permissions of a socket and its folder, if it is there.
fn socket(path: &Path) -> Option<DiskSocket> {
    let mode = |path: &Path| Some(path.metadata().ok()?.permissions().mode());
    Some(DiskSocket::new(mode(path)?, mode(path.parent()?)?))
}

fn look(wanted: &Wanted) -> Image {
    let path = Path::new(&wanted.path);
    let mut image = Image {
        real_path: std::fs::canonicalize(path)
            .ok()
            .map(|path| path.display().to_string()),
        ..Image::default()
    };
    match path.metadata() {
        Ok(found) if found.file_type().is_block_device() => {
            let number = found.rdev();
            image.device = Some((rustix::fs::major(number), rustix::fs::minor(number)));
        }
        Ok(found) => image.file = Some((found.dev(), found.ino())),
        Err(_) => {}
    }
    let options = OpenOptions::new().force_share(true);
    image.seen = match FileBackend::open(path, options) {
        Ok(storage) => match audit::look(&storage, &wanted.format) {
            Ok(look) => Seen::Bytes(look),
            Err(error) => Seen::Not(chain(&error)),
        },
        Err(error) => Seen::Not(chain(&error)),
    };
    image
}
