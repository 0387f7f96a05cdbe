//! stdin and stdout as carriers of data and keys, which a terminal is not for.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use luksmith::task::new_file::NewFile;
use luksmith::task::plain::{PlainSink, PlainSource};
use luksmith::task::{self, Watch};

use super::error::{self, CommandError, Exit, Kind, failed};

/// Standard input, of unknown size.
pub(crate) fn stdin() -> Result<PlainSource, CommandError> {
    if io::stdin().is_terminal() {
        return Err(
            CommandError::parameters("a disk image does not come from a terminal")
                .hint("name a file, or pipe stdin"),
        );
    }
    let fd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed("read", Path::new("stdin"), error))?;
    Ok(PlainSource::stream(File::from(fd), "stdin"))
}

/// Refuses stdout that is a terminal.
pub(crate) fn refuse_terminal() -> Result<(), CommandError> {
    if io::stdout().is_terminal() {
        return Err(
            CommandError::parameters("a disk image is not for a terminal")
                .hint("name a file, or pipe stdout"),
        );
    }
    Ok(())
}

/// Standard output.
pub(crate) fn stdout() -> Result<PlainSink, CommandError> {
    let fd = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed("write", Path::new("stdout"), error))?;
    Ok(PlainSink::stream(File::from(fd), "stdout"))
}

/// A failed copy to stdout: a reader that went away ends the command without a message.
pub(crate) fn stdout_failed(error: task::Error) -> CommandError {
    let cause = error.cause().downcast_ref::<io::Error>();
    if cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        CommandError::new(Exit::ReaderGone, error)
    } else {
        error.into()
    }
}

/// Writes a whole small file that holds keys: mode 0600, and never over another. `-` is stdout,
/// unless it is a terminal.
pub(crate) fn write_secret(
    path: &Path,
    bytes: &[u8],
    watch: &dyn Watch,
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
            .map_err(error::stdout_failed);
    }
    if !matches!(is_there(path), Ok(false)) {
        let message = format!("{} exists", path.display());
        return Err(CommandError::new(Kind::Exists, message)
            .hint("name a new file; one that may hold keys is never replaced"));
    }
    let file = NewFile::create(path, false, watch)?;
    file.write(bytes)?;
    Ok(file.keep()?)
}

/// Whether there is anything of that name, a dangling link included.
fn is_there(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
