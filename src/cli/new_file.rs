//! Files that come into being whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use luksmith::task;

use super::error::{CommandError, Kind};
use super::output;
use super::signals::Signals;

/// What is at a path already.
pub(crate) enum Present {
    Nothing,
    File { size: u64 },
    BlockDevice,
}

/// Looks, following links; anything that is neither a file nor a block device is refused.
pub(crate) fn look(path: &Path) -> Result<Present, CommandError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Present::File {
            size: metadata.len(),
        }),
        Ok(metadata) if metadata.file_type().is_block_device() => Ok(Present::BlockDevice),
        Ok(_) => {
            let message = format!("{} is neither a file nor a block device", path.display());
            Err(CommandError::new(Kind::Storage, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Present::Nothing),
        Err(error) => Err(failed("look at", path, error)),
    }
}

/// Has a block device alone, as far as the kernel goes: what is mounted, or part of another device, is refused. Nobody can mount it
/// until the answer is dropped.
pub(crate) fn claim_device(path: &Path) -> Result<File, CommandError> {
    let mut open = OpenOptions::new();
    open.read(true).custom_flags(libc::O_EXCL);
    open.open(path).map_err(|error| {
        let in_use = error.kind() == io::ErrorKind::ResourceBusy;
        let error = failed("overwrite", path, error);
        if in_use {
            error.hint("it is mounted, or part of another device")
        } else {
            error
        }
    })
}

/// A file being made. It is removed again unless [`NewFile::keep`] is reached, also by a second Ctrl-C.
pub(crate) struct NewFile {
    written: PathBuf,
    name: PathBuf,
    replaces: bool,
    signals: Signals,
    kept: bool,
}

impl NewFile {
    /// Makes an empty file, 0600, beside `path`, where it comes to be when it is whole. `replaces`: a file is there, and its owner
    /// has agreed that it goes. Otherwise nothing may be there, now or when the new one is whole.
    pub(crate) fn create(
        path: &Path,
        replaces: bool,
        signals: &Signals,
    ) -> Result<Self, CommandError> {
        let name = if replaces {
            path.canonicalize()
                .map_err(|error| failed("find", path, error))?
        } else if path.symlink_metadata().is_ok() {
            return Err(failed("create", path, io::ErrorKind::AlreadyExists.into()));
        } else {
            path.to_owned()
        };
        let written = create_beside(&name).map_err(|error| failed("create", path, error))?;
        signals.begin(&written);
        Ok(Self {
            written,
            name,
            replaces,
            signals: signals.clone(),
            kept: false,
        })
    }

    /// Where the bytes go until it is whole.
    pub(crate) fn path(&self) -> &Path {
        &self.written
    }

    /// It is whole: gives it its name, durably.
    pub(crate) fn keep(mut self) -> Result<(), CommandError> {
        let file =
            File::open(&self.written).map_err(|error| failed("open", &self.written, error))?;
        file.sync_all()
            .map_err(|error| failed("write", &self.written, error))?;
        if self.replaces {
            std::fs::rename(&self.written, &self.name)
                .map_err(|error| failed("replace", &self.name, error))?;
        } else {
            rename_to_new(&self.written, &self.name)
                .map_err(|error| failed("create", &self.name, error))?;
        }
        self.kept = true;
        self.signals.end(&self.written);
        sync_directory(&self.name)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match std::fs::remove_file(&self.written) {
            Ok(()) => output::note(format_args!(
                "the unfinished {} is removed",
                self.name.display()
            )),
            Err(error) => output::warning(format_args!(
                "the unfinished {} is left: {error}",
                self.written.display()
            )),
        }
        self.signals.end(&self.written);
    }
}

/// Writes a whole small file that holds keys: 0600, and never over another. `-` is stdout, if that is no terminal.
pub(crate) fn write_secret(
    path: &Path,
    bytes: &[u8],
    signals: &Signals,
) -> Result<(), CommandError> {
    if path == Path::new("-") {
        let mut stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(CommandError::parameters("keys are not for a terminal")
                .hint("name a new file, or pipe stdout"));
        }
        return stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(super::error::stdout_failed);
    }
    if !matches!(look_any(path), Ok(false)) {
        let message = format!("{} exists", path.display());
        return Err(CommandError::new(Kind::Exists, message)
            .hint("name a new file; one that may hold keys is never replaced"));
    }
    let file = NewFile::create(path, false, signals)?;
    OpenOptions::new()
        .write(true)
        .open(file.path())
        .and_then(|mut open| open.write_all(bytes))
        .map_err(|error| failed("write", path, error))?;
    file.keep()
}

/// Whether there is anything of that name, a dangling link included.
fn look_any(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The kind and the words of a failed system call on a path.
pub(crate) fn failed(verb: &str, path: &Path, error: io::Error) -> CommandError {
    task::Error::io(verb, path, error).into()
}

/// Makes a file that shows what it is to become. What a killed process of the same number has left is not touched.
fn create_beside(name: &Path) -> io::Result<PathBuf> {
    let file = name.file_name().unwrap_or_default().to_string_lossy();
    // With what is added, still no longer than names may be.
    let file: String = file.chars().take(50).collect();
    let process = std::process::id();
    let mut number = 0;
    loop {
        let written = name.with_file_name(format!(".{file}.luksmith-{process}-{number}"));
        let mut open = OpenOptions::new();
        match open.write(true).create_new(true).mode(0o600).open(&written) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            opened => return opened.map(|_| written),
        }
    }
}

/// Never over another file, also not over one that came a moment ago.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system cannot say so: an empty file of ours keeps the name until then.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            File::create_new(to)?;
            std::fs::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

fn sync_directory(path: &Path) -> Result<(), CommandError> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(|error| failed("write", directory, error))
}
