//! Bulk copies between plain data and a volume: one thread reads, one writes, a few buffers between them. The bytes are read
//! straight into the buffer in which they are encrypted or decrypted.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use luksmith::backend::lock::{Access, ImageLock, LockError};
use luksmith::sectors::{Plain, Sectors};
use luksmith::volume::Volume;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::{CommandError, Kind};
use super::make::Made;
use super::new_file::failed;
use super::output::stdout_failed;
use super::progress::Progress;
use super::signals::Signals;

/// Bytes that are read, encrypted and written at once; a multiple of every sector size.
const CHUNK: usize = 1 << 20;
/// Chunks that wait between the two threads.
const WAITING: usize = 4;
/// A hole is left for this many zeroes.
const HOLE: usize = 4096;
/// How far a volume of unknown size grows at once, at least.
const GROWTH: u64 = 256 << 20;

/// What goes from the reader to the writer: where, and the bytes.
type Chunks = Result<(u64, Sectors<Plain>), CommandError>;

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
                Kind::Device,
                format!("{} is neither a file nor a block device", path.display()),
            )
            .hint("- reads from stdin"));
        }
        let lock = ImageLock::take(&file, Access::Shared).map_err(|error| {
            let kind = if matches!(error, LockError::Busy(_)) {
                Kind::Busy
            } else {
                Kind::Device
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

    /// Fills the buffer as far as there is something.
    fn fill(&mut self, buffer: &mut [u8], signals: &Signals) -> Result<usize, CommandError> {
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

/// Encrypts all of `source` into the new volume and returns how many bytes that were, whole sectors.
pub(crate) fn encrypt(
    made: &Made,
    source: &mut PlainSource,
    pad: bool,
    grows: bool,
    progress: &Progress,
    signals: &Signals,
) -> Result<u64, CommandError> {
    let data = made.data.clone();
    let volume = made.container.volume(data, &made.unlocked)?;
    let sector = volume.sector_size() as usize;
    let written = between_threads(
        |chunks| read_plain(source, sector, pad, &chunks, signals),
        |chunks| write_volume(&volume, grows, chunks, progress, signals),
    )?;
    if grows {
        volume.resize(written)?;
    }
    if written == 0 {
        return Err(CommandError::new(
            Kind::Device,
            format!("{} is empty", source.name.display()),
        ));
    }
    if source.size.is_some_and(|size| size > written) {
        let message = format!("{} became shorter while it was read", source.name.display());
        return Err(CommandError::new(Kind::Device, message));
    }
    Ok(written)
}

/// The reader's side of [`encrypt`].
fn read_plain(
    source: &mut PlainSource,
    sector: usize,
    pad: bool,
    chunks: &SyncSender<Chunks>,
    signals: &Signals,
) -> Result<(), CommandError> {
    let mut offset = 0_u64;
    loop {
        let mut buffer = Sectors::<Plain>::with_len(CHUNK);
        let filled = source.fill(buffer.as_mut_slice(), signals)?;
        if filled < CHUNK {
            let whole = filled.next_multiple_of(sector);
            if whole != filled && !pad {
                let message = format!(
                    "{} ends after {} bytes, within a {sector}-byte sector",
                    source.name.display(),
                    offset + filled as u64
                );
                return Err(CommandError::new(Kind::Parameters, message)
                    .hint("--pad fills the last sector with zeroes"));
            }
            if whole > 0 {
                let mut last = Sectors::<Plain>::zeroed(whole);
                last.as_mut_slice()[..filled].copy_from_slice(&buffer.as_slice()[..filled]);
                // A writer that is gone has its own error to tell.
                let _ = chunks.send(Ok((offset, last)));
            }
            return Ok(());
        }
        if chunks.send(Ok((offset, buffer))).is_err() {
            return Ok(());
        }
        offset += CHUNK as u64;
    }
}

/// The writer's side of [`encrypt`].
fn write_volume(
    volume: &Volume,
    grows: bool,
    chunks: Receiver<Chunks>,
    progress: &Progress,
    signals: &Signals,
) -> Result<u64, CommandError> {
    let mut end = 0;
    for chunk in chunks {
        let (offset, sectors) = chunk?;
        signals.check()?;
        let len = sectors.len() as u64;
        end = offset + len;
        if end > volume.size() {
            if !grows {
                let message = format!(
                    "there is more to encrypt than the {} bytes of the volume",
                    volume.size()
                );
                return Err(
                    CommandError::new(Kind::Device, message).hint("--size makes a larger volume")
                );
            }
            volume.resize(volume.size().saturating_mul(2).max(GROWTH))?;
        }
        volume.write_sectors(offset, sectors)?;
        progress.advance(len);
    }
    Ok(end)
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
            return Err(CommandError::new(Kind::Device, message));
        }
        Ok(Self {
            to: To::File {
                file,
                sparse: false,
            },
            name: name.to_owned(),
        })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), CommandError> {
        use std::os::unix::fs::FileExt;
        match &mut self.to {
            To::Stdout(stdout) => stdout.write_all(bytes).map_err(stdout_failed),
            To::File {
                file,
                sparse: false,
            } => file
                .write_all_at(bytes, offset)
                .map_err(|error| failed("write", &self.name, error)),
            To::File { file, sparse: true } => {
                for (at, run) in runs_of_data(bytes) {
                    let written = file.write_all_at(run, offset + at as u64);
                    written.map_err(|error| failed("write", &self.name, error))?;
                }
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<(), CommandError> {
        match self.to {
            To::Stdout(_) => Ok(()),
            To::File { file, .. } => file
                .sync_all()
                .map_err(|error| failed("write", &self.name, error)),
        }
    }
}

/// The parts of a chunk that are not zeroes, in units of [`HOLE`], neighbours together.
fn runs_of_data(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, piece) in bytes.chunks(HOLE).enumerate() {
        if piece.iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = index * HOLE;
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end = at + piece.len(),
            _ => runs.push((at, at + piece.len())),
        }
    }
    runs.into_iter()
        .filter_map(|(at, end)| bytes.get(at..end).map(|run| (at, run)))
        .collect()
}

/// Decrypts all of the volume into the sink.
pub(crate) fn decrypt(
    volume: &Volume,
    mut sink: PlainSink,
    progress: &Progress,
    signals: &Signals,
) -> Result<(), CommandError> {
    between_threads(
        |chunks| read_volume(volume, &chunks, signals),
        |chunks| {
            for chunk in chunks {
                let (offset, sectors) = chunk?;
                signals.check()?;
                sink.write(offset, sectors.as_slice())?;
                progress.advance(sectors.len() as u64);
            }
            Ok(())
        },
    )?;
    sink.finish()
}

/// The reader's side of [`decrypt`].
fn read_volume(
    volume: &Volume,
    chunks: &SyncSender<Chunks>,
    signals: &Signals,
) -> Result<(), CommandError> {
    let mut offset = 0;
    while offset < volume.size() {
        signals.check()?;
        let left = usize::try_from(volume.size() - offset).unwrap_or(CHUNK);
        let len = left.min(CHUNK);
        if chunks
            .send(Ok((offset, volume.read_sectors(offset, len)?)))
            .is_err()
        {
            return Ok(());
        }
        offset += len as u64;
    }
    Ok(())
}

/// Runs the reader in a thread of its own; an error of either side ends both.
fn between_threads<T>(
    read: impl FnOnce(SyncSender<Chunks>) -> Result<(), CommandError> + Send,
    write: impl FnOnce(Receiver<Chunks>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn_scoped(scope, move || {
                let errors = sender.clone();
                if let Err(error) = read(sender) {
                    // A writer that is gone has its own error to tell.
                    let _ = errors.send(Err(error));
                }
            })
            .map_err(|error| {
                CommandError::new(Kind::Memory, error).about("cannot start a thread")
            })?;
        let written = write(receiver);
        // The reader ends by itself once the writer has let go of the channel.
        if reader.join().is_err() {
            return Err(CommandError::new(Kind::Device, "the reading thread failed"));
        }
        written
    })
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
        let runs = runs_of_data(&bytes)
            .iter()
            .map(|(at, run)| (*at, run.len()))
            .collect::<Vec<_>>();
        assert_eq!(runs, [(HOLE, 2 * HOLE), (4 * HOLE, HOLE)]);
        assert!(runs_of_data(&[0; HOLE]).is_empty());
    }
}
