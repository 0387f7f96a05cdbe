//! The plain ends of a bulk copy: what is encrypted, and where decrypted data goes.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use luksmith::backend::lock::{Access, ImageLock, LockError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::stdout_failed;
use super::error::{CommandError, Kind};
use super::new_file::failed;
use super::signals::Signals;

/// A hole is left for this many zeroes.
const HOLE: usize = 4096;

/// Plain data to be encrypted.
pub(crate) struct PlainSource {
    file: File,
    name: PathBuf,
    size: Option<u64>,
    /// Reading may wait for somebody: look at the interrupt meanwhile.
    waits: bool,
    _lock: Option<ImageLock>,
}

impl PlainSource {
    /// Standard input, of a size that nobody knows.
    pub(crate) fn stdin() -> Result<Self, CommandError> {
        let name = PathBuf::from("stdin");
        if io::stdin().is_terminal() {
            return Err(
                CommandError::parameters("a disk image does not come from a terminal")
                    .hint("name a file, or pipe stdin"),
            );
        }
        let fd = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| failed("read", &name, error))?;
        Ok(Self {
            file: File::from(fd),
            name,
            size: None,
            waits: true,
            _lock: None,
        })
    }

    /// A file or a block device, which nobody may be writing to.
    pub(crate) fn open(path: &Path) -> Result<Self, CommandError> {
        let mut file = File::open(path).map_err(|error| failed("open", path, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| failed("look at", path, error))?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            return Err(CommandError::new(
                Kind::Storage,
                format!("{} is neither a file nor a block device", path.display()),
            )
            .hint("- reads from stdin"));
        }
        let lock = ImageLock::take(&file, Access::Shared).map_err(|error| {
            let kind = if matches!(error, LockError::Busy(_)) {
                Kind::Busy
            } else {
                Kind::Storage
            };
            CommandError::new(kind, error).about(format_args!("cannot read {}", path.display()))
        })?;
        let size = file
            .seek(SeekFrom::End(0))
            .and_then(|size| file.rewind().map(|()| size));
        let size = size.map_err(|error| failed("measure", path, error))?;
        Ok(Self {
            file,
            name: path.to_owned(),
            size: Some(size),
            waits: false,
            _lock: Some(lock),
        })
    }

    /// How much there is, if that can be known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// What it is called in messages.
    pub(super) fn name(&self) -> std::path::Display<'_> {
        self.name.display()
    }

    /// Fills the buffer as far as there is something.
    pub(super) fn fill(
        &mut self,
        buffer: &mut [u8],
        signals: &Signals,
    ) -> Result<usize, CommandError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            self.wait(signals)?;
            match self.file.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &self.name, error)),
            }
        }
        Ok(filled)
    }

    fn wait(&self, signals: &Signals) -> Result<(), CommandError> {
        loop {
            signals.check()?;
            if !self.waits {
                return Ok(());
            }
            let soon = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&soon)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(failed("read", &self.name, error.into())),
            }
        }
    }
}

/// Where decrypted data goes.
pub(crate) struct PlainSink {
    to: To,
    name: PathBuf,
}

enum To {
    Stdout(File),
    File { file: File, sparse: bool },
}

impl PlainSink {
    pub(crate) fn stdout() -> Result<Self, CommandError> {
        let name = PathBuf::from("stdout");
        let fd = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| failed("write", &name, error))?;
        Ok(Self {
            to: To::Stdout(File::from(fd)),
            name,
        })
    }

    /// A new file, of the size that it will have.
    pub(crate) fn file(
        file: File,
        name: &Path,
        size: u64,
        sparse: bool,
    ) -> Result<Self, CommandError> {
        file.set_len(size)
            .map_err(|error| failed("write", name, error))?;
        Ok(Self {
            to: To::File { file, sparse },
            name: name.to_owned(),
        })
    }

    /// A block device that is large enough.
    pub(crate) fn device(mut file: File, name: &Path, size: u64) -> Result<Self, CommandError> {
        let there = file
            .seek(SeekFrom::End(0))
            .map_err(|error| failed("measure", name, error))?;
        if there < size {
            let message = format!("{} has {there} bytes, the volume {size}", name.display());
            return Err(CommandError::new(Kind::Storage, message));
        }
        Ok(Self {
            to: To::File {
                file,
                sparse: false,
            },
            name: name.to_owned(),
        })
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), CommandError> {
        match &mut self.to {
            To::Stdout(stdout) => stdout.write_all(bytes).map_err(stdout_failed),
            To::File {
                file,
                sparse: false,
            } => file
                .write_all_at(bytes, offset)
                .map_err(|error| failed("write", &self.name, error)),
            To::File { file, sparse: true } => {
                for (at, run) in runs_of_data(bytes, HOLE) {
                    let written = file.write_all_at(run, offset + at as u64);
                    written.map_err(|error| failed("write", &self.name, error))?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn finish(self) -> Result<(), CommandError> {
        match self.to {
            To::Stdout(_) => Ok(()),
            To::File { file, .. } => file
                .sync_all()
                .map_err(|error| failed("write", &self.name, error)),
        }
    }
}

/// The parts of a chunk that are not zeroes, in units of `hole` bytes, neighbours together.
pub(super) fn runs_of_data(bytes: &[u8], hole: usize) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, piece) in bytes.chunks(hole).enumerate() {
        if piece.iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = index * hole;
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end = at + piece.len(),
            _ => runs.push((at, at + piece.len())),
        }
    }
    runs.into_iter()
        .filter_map(|(at, end)| bytes.get(at..end).map(|run| (at, run)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_left_out_in_whole_pieces() {
        let mut bytes = vec![0; 5 * HOLE];
        bytes[HOLE] = 1;
        bytes[2 * HOLE + 7] = 1;
        bytes[4 * HOLE + 9] = 1;
        let runs = runs_of_data(&bytes, HOLE)
            .iter()
            .map(|(at, run)| (*at, run.len()))
            .collect::<Vec<_>>();
        assert_eq!(runs, [(HOLE, 2 * HOLE), (4 * HOLE, HOLE)]);
        assert!(runs_of_data(&[0; HOLE], HOLE).is_empty());
    }
}
