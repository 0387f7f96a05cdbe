//! The sources of secrets that this crate has, and the text that names them: `prompt`,
//! `file:PATH[,offset=N][,size=N]`, `fd:N`, `stdin`, `credential:NAME`,
//! `command:PROGRAM`.

#![allow(unsafe_code)] // an inherited descriptor is a bare number

use core::fmt;
use core::str::FromStr;
use std::fs::File;
use std::io::{IsTerminal, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::{ParseSourceError, SecretError};
use super::helper::Helper;
use super::input::Input;
use super::terminal;
use super::{LockedBytes, Passphrase, Purpose, SecretSource, Wanted};
use crate::Interrupt;

/// The largest key file, in bytes: 8 MiB, as for cryptsetup.
pub const MAX_KEY_FILE: usize = 8 << 20;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Asks on the terminal. If standard input is not a terminal, reads one line of it instead: the
    /// source of a program to which its user named none.
    Prompt,
    /// Asks on the terminal, and never reads standard input: the source that `prompt` names.
    Terminal,
    /// The bytes of a file, including newlines.
    File {
        /// The file.
        path: PathBuf,
        /// Bytes to skip at its beginning.
        offset: u64,
        /// Bytes to read. `None` reads up to the end.
        size: Option<u64>,
    },
    /// All bytes of an inherited descriptor.
    Fd(RawFd),
    /// One line of standard input, without its newline. The next secret may be on the next line.
    Stdin,
    /// The bytes of a credential that systemd passed to the service.
    Credential(String),
    /// All bytes that the program at this absolute path prints, including newlines. See
    /// [`Helper`].
    Command(PathBuf),
}

impl Source {
    /// How the text of each form begins. A form that ends with a colon goes on.
    pub const FORMS: [&str; 6] = ["prompt", "stdin", "file:", "fd:", "credential:", "command:"];

    /// The whole of a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File {
            path: path.into(),
            offset: 0,
            size: None,
        }
    }

    /// The same source for a program that reads or writes data on standard input: `prompt` asks
    /// only on the terminal.
    ///
    /// # Errors
    /// [`SecretError::StdinTaken`] for `stdin` and `fd:0`.
    pub fn beside_data_on_stdin(self) -> Result<Self, SecretError> {
        match self {
            Self::Prompt => Ok(Self::Terminal),
            Self::Stdin | Self::Fd(0) => Err(SecretError::StdinTaken),
            other => Ok(other),
        }
    }
}

impl SecretSource for Source {
    fn read(&self, purpose: Purpose<'_>) -> Result<Passphrase, SecretError> {
        let interrupt = purpose.interrupt;
        let bytes = match self {
            Self::Terminal => terminal::ask(purpose)?,
            Self::Prompt if std::io::stdin().is_terminal() => terminal::ask(purpose)?,
            Self::Prompt | Self::Stdin => Input {
                fd: std::io::stdin().as_fd(),
                from: "standard input",
                interrupt,
            }
            .line(MAX_KEY_FILE)?,
            Self::Fd(number) => inherited(*number, interrupt)?,
            Self::File { path, offset, size } => file(path, *offset, *size, interrupt)?,
            Self::Credential(name) => {
                let directory =
                    std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(SecretError::NoCredentials)?;
                file(&Path::new(&directory).join(name), 0, None, interrupt)?
            }
            Self::Command(program) => helper(program).run(MAX_KEY_FILE, interrupt)?,
        };
        if bytes.is_empty() && purpose.what == Wanted::New {
            return Err(SecretError::Empty);
        }
        Ok(Passphrase::from_locked(bytes))
    }
}

/// The program, with the environment variables by which other programs find a user's settings and
/// agents.
fn helper(program: &Path) -> Helper {
    let passed = ["HOME", "USER", "LOGNAME", "LANG", "XDG_RUNTIME_DIR"];
    let set = passed
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)));
    set.fold(Helper::new(program), |helper, (name, value)| {
        helper.variable(name, value)
    })
}

fn inherited(number: RawFd, interrupt: &Interrupt) -> Result<LockedBytes, SecretError> {
    let from = format!("fd:{number}");
    if number < 0 {
        return Err(SecretError::Io {
            from,
            source: rustix::io::Errno::BADF.into(),
        });
    }
    // SAFETY: the number is not −1, and is only used here, for reading. If it is not open, a call
    // fails with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let input = Input {
        fd,
        from: &from,
        interrupt,
    };
    input.to_end(MAX_KEY_FILE)
}

fn file(
    path: &Path,
    offset: u64,
    size: Option<u64>,
    interrupt: &Interrupt,
) -> Result<LockedBytes, SecretError> {
    let from = path.display().to_string();
    let failed = |source| SecretError::Io {
        from: from.clone(),
        source,
    };
    let too_long = || SecretError::TooLong {
        from: from.clone(),
        limit: MAX_KEY_FILE,
    };
    // Without O_NONBLOCK, opening a FIFO would wait for a writer, and no interrupt would end that.
    let mut file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.mode() & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "every user of this machine can read the key file");
    }

    let end = offset.saturating_add(size.unwrap_or(0));
    if metadata.is_file() && metadata.len() < end {
        return Err(short(path, offset, size.unwrap_or(0)));
    }
    let input = |file| Input {
        fd: file,
        from: &from,
        interrupt,
    };
    if metadata.is_file() || metadata.file_type().is_block_device() {
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    } else {
        skip(&input(file.as_fd()), path, offset)?;
    }
    let size = match size {
        None if metadata.is_file() => Some(metadata.len().saturating_sub(offset)),
        given => given,
    };
    let bytes = match size {
        None => input(file.as_fd()).to_end(MAX_KEY_FILE)?,
        Some(size) => {
            let len = usize::try_from(size)
                .ok()
                .filter(|&len| len <= MAX_KEY_FILE)
                .ok_or_else(too_long)?;
            let mut bytes = LockedBytes::new(len)?;
            if input(file.as_fd()).fill(&mut bytes)? < len {
                return Err(short(path, offset, size));
            }
            bytes
        }
    };
    if bytes.is_empty() {
        return Err(input(file.as_fd()).nothing());
    }
    Ok(bytes)
}

/// Skips `offset` bytes of an input that cannot seek.
fn skip(input: &Input<'_>, path: &Path, offset: u64) -> Result<(), SecretError> {
    let mut left = offset;
    if left == 0 {
        return Ok(());
    }
    let mut skipped = LockedBytes::new(4096)?;
    while left > 0 {
        let step = usize::try_from(left).map_or(skipped.len(), |left| left.min(skipped.len()));
        match input.some(&mut skipped[..step])? {
            0 => return Err(short(path, offset, 0)),
            n => left -= n as u64,
        }
    }
    Ok(())
}

fn short(path: &Path, offset: u64, size: u64) -> SecretError {
    SecretError::Short {
        path: path.to_owned(),
        wanted: offset.saturating_add(size),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prompt | Self::Terminal => f.write_str("prompt"),
            Self::File { path, offset, size } => {
                write!(f, "file:{}", path.display())?;
                if *offset != 0 {
                    write!(f, ",offset={offset}")?;
                }
                size.map_or(Ok(()), |size| write!(f, ",size={size}"))
            }
            Self::Fd(number) => write!(f, "fd:{number}"),
            Self::Stdin => f.write_str("stdin"),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Command(program) => write!(f, "command:{}", program.display()),
        }
    }
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        match text.split_once(':') {
            None if text == "prompt" => Ok(Self::Terminal),
            None if text == "stdin" => Ok(Self::Stdin),
            Some(("file", rest)) => parse_file(rest),
            Some(("fd", number)) => number
                .parse()
                .ok()
                .filter(|&number: &RawFd| number >= 0)
                .map(Self::Fd)
                .ok_or(ParseSourceError::NotDescriptor),
            Some(("credential", name)) => {
                if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                    return Err(ParseSourceError::NotName);
                }
                Ok(Self::Credential(name.to_owned()))
            }
            Some(("command", program)) if program.starts_with('/') => {
                Ok(Self::Command(program.into()))
            }
            Some(("command", _)) => Err(ParseSourceError::NotProgram),
            _ => Err(ParseSourceError::Unknown),
        }
    }
}

/// Parses the options from the end. The rest is the path, which may hold commas.
fn parse_file(mut rest: &str) -> Result<Source, ParseSourceError> {
    let (mut offset, mut size) = (None, None);
    while let Some((before, last)) = rest.rsplit_once(',') {
        let (option, slot, value) = if let Some(value) = last.strip_prefix("offset=") {
            ("offset", &mut offset, value)
        } else if let Some(value) = last.strip_prefix("size=") {
            ("size", &mut size, value)
        } else {
            break;
        };
        let bytes: u64 = value
            .parse()
            .map_err(|_| ParseSourceError::NotBytes { option })?;
        if slot.replace(bytes).is_some() {
            return Err(ParseSourceError::Twice { option });
        }
        rest = before;
    }
    if rest.is_empty() {
        return Err(ParseSourceError::NoPath);
    }
    Ok(Source::File {
        path: rest.into(),
        offset: offset.unwrap_or(0),
        size,
    })
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
