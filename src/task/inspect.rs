//! The policy of an inspection, in a file; and an inspection that hands over what it judged.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::destination::Destination;
use super::new_file::NewFile;
use super::{Advice, Error, Kind, Watch, Work, Working};
use crate::backend::file::{FileBackend, OpenOptions};
use crate::backend::{Allocation, Backend};
use crate::sectors::{Cipher, Sectors};
use crate::vet::{self, Format, Policy, Report, Verdict};

/// How many bytes of a policy are read.
const LARGEST_POLICY: u64 = 1 << 20;

/// The bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// What a file may be larger than the disk in it: an eighth of the disk, and this many bytes.
const OVERHEAD: u64 = 64 << 20;

/// Reads a policy from a TOML file, which may be a pipe.
///
/// # Errors
/// [`Kind::Parameters`] if the file is not a policy, and failed system calls.
pub fn read_policy(path: &Path) -> Result<Policy, Error> {
    let cannot = |error| Error::io("read", path, error);
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(LARGEST_POLICY)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    Policy::parse(&text).map_err(|error| {
        Error::new(Kind::Parameters, error)
            .about(path.display())
            .advise(Advice::PolicyMembers("docs/inspect.md"))
    })
}

/// Copies an image into a new file, judges the copy, and gives it its name if it is accepted and
/// names no other file. So a program that changes the image cannot change what was judged.
/// Otherwise the copy is removed. Returns the verdict, and whether the copy was kept.
///
/// Holes and zeroes become holes. No more is copied than the largest disk of the policy, and an
/// eighth of it and 64 MiB for what a format adds.
///
/// # Errors
/// [`Kind::OverLimit`] for a larger image, [`Kind::Interrupted`], [`Kind::Busy`] if another program
/// replaced one of the files, and failed reads and writes.
pub fn inspect_copy(
    image: &dyn Backend,
    format: Format,
    policy: &Policy,
    destination: Destination,
    watch: &dyn Watch,
) -> Result<(Report, bool), Error> {
    let size = image.geometry().size;
    let most = policy
        .max_size
        .saturating_add(policy.max_size / 8 + OVERHEAD);
    if size > most {
        let message = format!(
            "it has {size} bytes, and at most {most} are copied where disks of {} bytes are allowed",
            policy.max_size
        );
        return Err(Error::new(Kind::OverLimit, message));
    }
    let file = NewFile::at(destination.into_file()?, watch)?;
    copy(image, &file, watch)?;
    let path = file.destination().path();
    // The file has no name yet that another program uses, so it needs no lock.
    let options = OpenOptions::new().force_share(true);
    let judged = FileBackend::from_file(file.file()?, path, options)?;
    let report = vet::inspect(&judged, format, policy)?;
    drop(judged);
    let kept = report.verdict() == Verdict::Accept && report.references.is_empty();
    if kept {
        file.keep()?;
    }
    Ok((report, kept))
}

/// Copies all bytes into a new file, which is empty. It gets no data where the image has zeroes.
fn copy(image: &dyn Backend, file: &NewFile<'_>, watch: &dyn Watch) -> Result<(), Error> {
    let size = image.geometry().size;
    let path = file.destination().path();
    let to = file.file()?;
    let failed = |error| Error::io("write", path, error);
    to.set_len(size).map_err(failed)?;
    let working = Working::begin(watch, Work::Copy, Some(size));
    let (mut at, mut data_until) = (0, 0);
    while at < size {
        if watch.interrupt().is_set() {
            return Err(Error::interrupted());
        }
        let end = (at + PIECE).min(size);
        if at >= data_until {
            match image.extents(at..size)?.first() {
                Some((len, Allocation::Hole)) if at + len >= end => {
                    // Pieces begin at whole blocks of the image.
                    let past = at + len;
                    let next = if past >= size {
                        size
                    } else {
                        past - past % PIECE
                    };
                    working.advance(next - at);
                    at = next;
                    continue;
                }
                Some((len, Allocation::Data)) => data_until = at + len,
                _ => {}
            }
        }
        let mut piece = Sectors::<Cipher>::with_len(usize::try_from(end - at).unwrap_or(0));
        image.read_at(at, &mut piece)?;
        if piece.as_slice().iter().any(|byte| *byte != 0) {
            to.write_all_at(piece.as_slice(), at).map_err(failed)?;
        }
        working.advance(end - at);
        at = end;
    }
    working.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Interrupt;
    use crate::backend::memory::MemoryBackend;

    struct Told(Interrupt);

    impl Watch for Told {
        fn interrupt(&self) -> &Interrupt {
            &self.0
        }
    }

    fn judge(bytes: Vec<u8>, policy: &Policy, path: &Path) -> Result<(Report, bool), Error> {
        let image = MemoryBackend::from_bytes(bytes);
        let destination = Destination::look(path)?;
        let watch = Told(Interrupt::new());
        inspect_copy(&image, Format::Raw, policy, destination, &watch)
    }

    #[test]
    fn what_was_accepted_is_named_and_the_rest_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut bytes = vec![0; (3 << 20) + 512];
        bytes[1 << 20] = 1;
        bytes[(3 << 20) + 511] = 2;
        let (report, kept) = judge(bytes.clone(), &Policy::default(), &path).unwrap();
        assert!(kept && report.verdict() == Verdict::Accept);
        assert!(std::fs::read(&path).unwrap() == bytes);
        // It begins as a qcow2 image does.
        std::fs::remove_file(&path).unwrap();
        bytes[..4].copy_from_slice(b"QFI\xfb");
        let (report, kept) = judge(bytes, &Policy::default(), &path).unwrap();
        assert!(!kept && report.verdict() == Verdict::Reject);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_image_that_is_much_larger_than_a_disk_may_be_is_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let policy = Policy {
            max_size: 1 << 20,
            ..Policy::default()
        };
        let limit = (1 << 20) + (1 << 17) + usize::try_from(OVERHEAD).unwrap();
        let error = judge(vec![0; limit + 1], &policy, &path).err().unwrap();
        assert_eq!(error.kind(), Kind::OverLimit);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // Here the policy itself has the word.
        let (report, kept) = judge(vec![0; limit], &policy, &path).unwrap();
        assert!(!kept && report.verdict() == Verdict::Policy);
    }
}
