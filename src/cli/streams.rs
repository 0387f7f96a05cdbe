//! Uses stdin and stdout for data and keys. A terminal is refused.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use luksmith::task;
use luksmith::task::new_file::NewFile;
use luksmith::task::plain::{PlainSink, PlainSource};

use super::Session;
use super::error::{self, CommandError, Exit, Kind, failed};
use super::output::refuse_closed_stdout;

/// Standard input, whose size is unknown.
pub(crate) fn stdin() -> Result<PlainSource, CommandError> {
    if io::stdin().is_terminal() {
        return Err(
            CommandError::parameters("a disk image cannot be read from a terminal")
                .hint("name a file, or pipe stdin"),
        );
    }
    if luksmith::sys::stdin_was_closed() {
        return Err(failed(
            "read",
            Path::new("stdin"),
            io::Error::other("it is closed"),
        ));
    }
    let fd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| failed("read", Path::new("stdin"), error))?;
    Ok(PlainSource::stream(File::from(fd), "stdin"))
}

/// Whether a path is that of a terminal.
pub(crate) fn is_terminal(path: &Path, session: &Session) -> Result<bool, CommandError> {
    let open = || File::open(path).is_ok_and(|file| file.is_terminal());
    session.signals.ending(open)
}

/// Refuses to write an image to a terminal, or where it would be lost.
pub(crate) fn refuse_terminal() -> Result<(), CommandError> {
    refuse_closed_stdout()?;
    if io::stdout().is_terminal() {
        return Err(
            CommandError::parameters("a disk image is not written to a terminal")
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

/// A failed copy to stdout. If the reader exited, the command ends without a message.
pub(crate) fn stdout_failed(error: task::Error) -> CommandError {
    let cause = error.cause().downcast_ref::<io::Error>();
    if cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        CommandError::new(Exit::ReaderGone, error)
    } else {
        error.into()
    }
}

/// Writes a file that holds keys, with mode 0600, and never over another file. `-` is stdout,
/// unless it is a terminal.
pub(crate) fn write_secret(
    path: &Path,
    bytes: &[u8],
    session: &Session,
) -> Result<(), CommandError> {
    if path == Path::new("-") {
        session.refuse_json_beside(path)?;
        check_secret(path)?;
        let written = session.signals.ending(|| secret_to_stdout(bytes))?;
        return written.map_err(error::stdout_failed);
    }
    let file = NewFile::create(path, session).map_err(not_a_new_file)?;
    file.write(bytes)?;
    file.keep()?;
    Ok(())
}

/// Writes secret bytes to standard output, and not through its buffer, which is no locked memory
/// and is never wiped.
pub(crate) fn secret_to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.flush()?;
    File::from(stdout.as_fd().try_clone_to_owned()?).write_all(bytes)
}

/// Fails if [`write_secret`] would, as far as that is known before a key derivation.
pub(crate) fn check_secret(path: &Path) -> Result<(), CommandError> {
    if path != Path::new("-") {
        return NewFile::check(path).map_err(not_a_new_file);
    }
    refuse_closed_stdout()?;
    if io::stdout().is_terminal() {
        let refused = CommandError::parameters("keys are not written to a terminal");
        return Err(refused.hint("name a new file, or pipe stdout"));
    }
    Ok(())
}

fn not_a_new_file(error: task::Error) -> CommandError {
    let exists = error.kind() == Kind::Exists;
    let hint = "name a new file; one that may hold keys is never replaced";
    CommandError::from(error).hint_if(exists.then(|| hint.to_owned()))
}
