//! XML from files, policies, and what is in the images that XML names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use luksmith::audit::{self, Document, Image, Inventory, Policy, Seen, Wanted};
use luksmith::backend::file::{FileBackend, OpenOptions};
use luksmith::task::chain;
use luksmith::xml;

use crate::cli::error::{CommandError, Kind};

/// One byte more than what is read, so that a larger one is told from the largest.
const LARGEST_XML: u64 = xml::MOST_BYTES as u64 + 1;
const LARGEST_POLICY: u64 = 1 << 20;

/// A document of the command line.
pub(super) fn file(path: &Path) -> Result<Document, CommandError> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        let stdin = io::stdin().lock();
        stdin
            .take(LARGEST_XML)
            .read_to_end(&mut text)
            .map_err(|error| CommandError::new(Kind::Storage, error).about("cannot read stdin"))?;
        return Ok(Document::file("stdin", text));
    }
    let text = read(path, LARGEST_XML).map_err(|error| {
        CommandError::new(Kind::Storage, error).about(format!("cannot read {}", path.display()))
    })?;
    Ok(Document::file(path.display().to_string(), text))
}

/// A regular file, up to a size; a FIFO or a device does not make us wait.
pub(super) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

pub(super) fn policy(path: &Path) -> Result<Policy, CommandError> {
    let text = read(path, LARGEST_POLICY).map_err(|error| {
        CommandError::new(Kind::Parameters, error).about(format!("cannot read {}", path.display()))
    })?;
    Policy::parse(&String::from_utf8_lossy(&text)).map_err(|error| {
        CommandError::new(Kind::Parameters, error)
            .about(path.display())
            .hint("docs/audit.md shows every member of a policy")
    })
}

/// Opens the images that the rules want to know about. They are in use, maybe: no lock is taken, and none is heeded.
pub(super) fn look_at_images(inventory: &mut Inventory) {
    for wanted in audit::images(inventory) {
        let image = look(&wanted);
        inventory.images.insert(wanted, image);
    }
}

fn look(wanted: &Wanted) -> Image {
    let path = Path::new(&wanted.path);
    let mut image = Image {
        real_path: std::fs::canonicalize(path)
            .ok()
            .map(|path| path.display().to_string()),
        ..Image::default()
    };
    if let Ok(metadata) = path.metadata()
        && metadata.file_type().is_block_device()
    {
        let number = metadata.rdev();
        image.device = Some((rustix::fs::major(number), rustix::fs::minor(number)));
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
