//! The way to the TPM: the kernel's device, or the socket of swtpm.
//!
//! `/dev/tpmrm0` is the resource manager of the kernel: it keeps what one program leaves in the TPM
//! away from others, and flushes it. Both take a command and return a response, as they are in the
//! specification, without a frame around them.

use core::fmt;
use core::str::FromStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::Tpm2Error;
use super::wire::{MAX_MESSAGE, Reader};
use crate::Interrupt;
use crate::sys::folder::Folder;
use crate::sys::peer;

/// The device of the kernel's resource manager.
const DEFAULT: &str = "/dev/tpmrm0";

/// The longest time that a command may take. A TPM may take minutes for a primary key of RSA.
const LIMIT: Duration = Duration::from_secs(300);

/// How long a response is waited for after an interrupt, and that to a command that frees memory
/// of the TPM. With the response the TPM is ready for the next command.
const SOON: Duration = Duration::from_secs(5);

/// The time between two checks of the interrupt.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The bytes of a response up to the end of its code.
const HEAD: usize = 10;

/// Where a TPM is: `PATH` of a device, or `unix:PATH` of a socket of swtpm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A character device, such as `/dev/tpmrm0`.
    Path(PathBuf),
    /// A Unix socket of `swtpm socket --server type=unixio,path=PATH`.
    Unix(PathBuf),
}

impl Default for Device {
    /// `/dev/tpmrm0`.
    fn default() -> Self {
        Self::Path(DEFAULT.into())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why text names no TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TPM is the path of a device, such as /dev/tpmrm0, or unix:PATH of a socket of swtpm")]
pub struct ParseDeviceError;

impl FromStr for Device {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, ParseDeviceError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ParseDeviceError),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text.contains('/') => Ok(Self::Path(text.into())),
            None => Err(ParseDeviceError),
        }
    }
}

/// An open TPM.
pub(super) struct Transport<'a> {
    fd: OwnedFd,
    name: String,
    is_socket: bool,
    interrupt: &'a Interrupt,
    /// A response may still come, so the next one would be taken for that of another command.
    pub(super) is_lost: bool,
    /// What was loaded is flushed, also after an interrupt.
    pub(super) is_ending: bool,
}

impl<'a> Transport<'a> {
    pub(super) fn open(device: &Device, interrupt: &'a Interrupt) -> Result<Self, Tpm2Error> {
        let name = device.to_string();
        let opened = match device {
            Device::Path(path) => open_device(path),
            Device::Unix(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }),
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => return Err(Tpm2Error::NoDevice { device: name }),
            Err(source) => {
                return Err(Tpm2Error::Open {
                    device: name,
                    source,
                });
            }
        };
        let is_socket = matches!(device, Device::Unix(_));
        let transport = Self {
            fd,
            name,
            is_socket,
            interrupt,
            is_lost: false,
            is_ending: false,
        };
        if is_socket {
            transport.check_peer()?;
        }
        Ok(transport)
    }

    /// Whether it is a socket. The kernel has started the TPM behind a device.
    pub(super) fn is_socket(&self) -> bool {
        self.is_socket
    }

    /// A program that poses as a TPM learns what is sealed, so it has to belong to this user or to
    /// root.
    fn check_peer(&self) -> Result<(), Tpm2Error> {
        let peer = peer::credentials(self.fd.as_fd()).map_err(|source| self.failed(source))?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid != 0 && peer.uid != own {
            return Err(Tpm2Error::Foreign {
                device: self.name.clone(),
                owner: peer.uid,
            });
        }
        Ok(())
    }

    /// Sends a command, and returns the response to it.
    pub(super) fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, Tpm2Error> {
        let limit = if self.is_ending { SOON } else { LIMIT };
        let until = Instant::now() + limit;
        let mut rest = command;
        while !rest.is_empty() {
            self.wait(PollFlags::OUT, until, Duration::ZERO)?;
            // Until the whole response was read.
            self.is_lost = true;
            let written = self.done(rustix::io::write(&self.fd, rest))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        let mut response = vec![0; MAX_MESSAGE];
        let mut filled = 0;
        while filled < wanted(response.get(..filled).unwrap_or_default())? {
            self.wait(PollFlags::IN, until, SOON)?;
            let space = response.get_mut(filled..).unwrap_or_default();
            match rustix::io::read(&self.fd, space) {
                Ok(0) => return Err(self.failed(ErrorKind::UnexpectedEof.into())),
                read => filled += self.done(read)?,
            }
        }
        response.truncate(filled);
        if filled > wanted(&response)? {
            return Err(Tpm2Error::Malformed("it is longer than it states"));
        }
        self.is_lost = false;
        Ok(response)
    }

    /// How many bytes a system call has transferred: none if it would have waited.
    fn done(&self, result: rustix::io::Result<usize>) -> Result<usize, Tpm2Error> {
        match result {
            Err(Errno::INTR | Errno::AGAIN) => Ok(0),
            result => result.map_err(|error| self.failed(error.into())),
        }
    }

    /// Waits until the TPM can go on, and after an interrupt for `patience` only.
    fn wait(&self, flags: PollFlags, until: Instant, patience: Duration) -> Result<(), Tpm2Error> {
        let mut interrupted = None;
        loop {
            if !self.is_ending && self.interrupt.is_set() {
                let since: &mut Instant = interrupted.get_or_insert_with(Instant::now);
                if since.elapsed() >= patience {
                    return Err(Tpm2Error::Interrupted);
                }
            }
            if Instant::now() > until {
                return Err(self.failed(ErrorKind::TimedOut.into()));
            }
            match poll(&mut [PollFd::new(&self.fd, flags)], Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(self.failed(error.into())),
            }
        }
    }

    fn failed(&self, source: io::Error) -> Tpm2Error {
        Tpm2Error::Exchange {
            device: self.name.clone(),
            source,
        }
    }
}

/// How many bytes a response has that begins like this: those of its head, until they are there.
fn wanted(begin: &[u8]) -> Result<usize, Tpm2Error> {
    let Some(mut head) = begin.get(..HEAD).map(Reader::new) else {
        return Ok(HEAD);
    };
    head.u16()?;
    let size = usize::try_from(head.u32()?).unwrap_or(usize::MAX);
    match (HEAD..=MAX_MESSAGE).contains(&size) {
        true => Ok(size),
        false => Err(Tpm2Error::Malformed(
            "it states a size that no response has",
        )),
    }
}

fn open_device(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = Folder::open_path(path, flags)?;
    match file.metadata()?.file_type().is_char_device() {
        true => Ok(file.into()),
        false => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is not a character device",
        )),
    }
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::NOENT, Errno::NODEV, Errno::NXIO, Errno::CONNREFUSED];
    let code = Errno::from_io_error(error);
    code.is_some_and(|code| absent.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn places_of_tpms_are_read_and_shown() {
        for text in ["/dev/tpmrm0", "unix:/run/tpm.sock", "./tpm"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for bad in ["", "unix:", "tpmrm0", "device"] {
            assert_eq!(bad.parse::<Device>(), Err(ParseDeviceError), "{bad}");
        }
    }

    #[test]
    fn what_is_no_tpm_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let interrupt = Interrupt::new();
        let open = |device| Transport::open(&device, &interrupt).err();
        assert!(matches!(
            open(Device::Path(folder.path().join("none"))),
            Some(Tpm2Error::NoDevice { .. })
        ));
        assert!(matches!(
            open(Device::Path(file.clone())),
            Some(Tpm2Error::Open { .. })
        ));
        assert!(matches!(
            open(Device::Unix(file)),
            Some(Tpm2Error::NoDevice { .. })
        ));
    }

    /// What an exchange says when the peer answers with these pieces and then closes.
    fn answered(pieces: &'static [&'static [u8]]) -> Result<Vec<u8>, Tpm2Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tpm");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut command = [0; 3];
            stream.read_exact(&mut command).unwrap();
            for piece in pieces {
                stream.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            command
        });
        let interrupt = Interrupt::new();
        let mut transport = Transport::open(&Device::Unix(path), &interrupt).unwrap();
        let response = transport.exchange(b"abc");
        assert_eq!(transport.is_lost, response.is_err());
        assert_eq!(&peer.join().unwrap(), b"abc");
        response
    }

    #[test]
    fn a_response_is_read_up_to_its_stated_size() {
        let whole = answered(&[b"\x80\x01\0\0\0\x0c\0\0\0\0\x01\x02"]);
        assert_eq!(whole.unwrap().len(), 12);
        let pieces = answered(&[b"\x80", b"\x01\0\0\0\x0c\0\0\0", b"\0\x01\x02"]);
        assert_eq!(pieces.unwrap().len(), 12);
        assert_eq!(
            answered(&[b"\x80\x01\0\0\0\x0a\0\0\x01\0"]).unwrap().len(),
            10
        );
        const BAD: [&[&[u8]]; 3] = [
            &[b"\x80\x01\0\0\0\x09\0\0\0\0"],
            &[b"\x80\x01\xff\xff\xff\xff\0\0\0\0"],
            &[b"\x80\x01\0\0\0\x0a\0\0\0\0more"],
        ];
        for bad in BAD {
            assert!(matches!(answered(bad), Err(Tpm2Error::Malformed(_))));
        }
        assert!(matches!(
            answered(&[b"\x80\x01\0\0\0\x0c\0\0\0\0\x01"]),
            Err(Tpm2Error::Exchange { .. })
        ));
    }
}
