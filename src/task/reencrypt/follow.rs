//! The client of the control socket of a server: begins a reencryption there, and waits for its
//! end.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use luksmith_formats::json::{Value, json};

use super::control::{LINE, PATIENCE};
use super::controlled::Start;
use super::request::refused;
use super::{Options, Reencrypted};
use crate::location::Location;
use crate::secret::Passphrase;
use crate::task::{Error, Kind, Watch, Work, Working};

/// The time between two questions how far a reencryption is.
const BETWEEN: Duration = Duration::from_millis(200);

/// What a server does with a snapshot of a volume that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// It makes one of what was written until then.
    Make,
    /// It deletes one.
    Delete,
}

/// Has the server whose control socket is `path` make or delete a snapshot of a volume.
///
/// # Errors
/// [`Kind::Permission`] if the server is another user's; a volume that it does not serve; what the
/// server refuses; failed system calls.
pub fn snapshot(
    path: &Path,
    volume: &Location,
    what: Snapshot,
    name: &str,
    watch: &dyn Watch,
) -> Result<(), Error> {
    let command = match what {
        Snapshot::Make => "snapshot",
        Snapshot::Delete => "snapshot-delete",
    };
    let request = json!({ "command": command, "image": volume.to_string(), "name": name });
    let remote = Remote {
        path: path.to_owned(),
        export: None,
        status: Value::Null,
        dropped: Vec::new(),
    };
    remote.ask(&request, &[], None, watch).map(drop)
}

/// A volume that a server serves, and that can be reencrypted there.
#[derive(Debug)]
pub struct Remote {
    path: PathBuf,
    export: Option<String>,
    status: Value,
    dropped: Vec<u32>,
}

impl Remote {
    /// Asks the server whose control socket is `path` how far the reencryption of an export is. The
    /// export need not be named if only one can be reencrypted.
    ///
    /// # Errors
    /// [`Kind::Permission`] if the server is another user's; an export that cannot be reencrypted;
    /// failed system calls.
    pub fn look(path: &Path, export: Option<&str>, watch: &dyn Watch) -> Result<Self, Error> {
        let mut this = Self {
            path: path.to_owned(),
            export: export.map(str::to_owned),
            status: Value::Null,
            dropped: Vec::new(),
        };
        this.update(watch)?;
        Ok(this)
    }

    /// Whether a reencryption has to be begun, since none is in progress.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.text("state"), Some("idle" | "finished"))
    }

    /// Whether the last reencryption has finished since the server was started.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.text("state") == Some("finished")
    }

    /// The sector size of the volume in bytes: the larger one during a reencryption.
    #[must_use]
    pub fn sector_size(&self) -> u64 {
        self.number("sector_size").unwrap_or(0)
    }

    /// The volume, in the words of the server.
    #[must_use]
    pub fn image(&self) -> &str {
        self.text("image").unwrap_or("")
    }

    /// Begins a reencryption while clients use the volume, with these passphrases, or lets the one
    /// that is in progress go on. `larger_sectors` allows that sectors become larger.
    ///
    /// # Errors
    /// What the server refuses, by the kind that it states.
    pub fn start(
        &mut self,
        options: &Options,
        larger_sectors: bool,
        passphrases: &[Passphrase],
        watch: &dyn Watch,
    ) -> Result<(), Error> {
        let start = Start {
            options: options.clone(),
            larger_sectors,
        };
        let mut request = start.to_request(self.export.as_deref());
        let lengths = passphrases.iter();
        let lengths: Vec<_> = lengths.map(|one| one.as_bytes().len() as u64).collect();
        request["passphrases"] = json!(lengths);
        let working = Working::begin(watch, Work::Derive, None);
        self.status = self.ask(&request, passphrases, None, watch)?;
        working.finish();
        self.dropped = numbers(&self.status, "dropped");
        Ok(())
    }

    /// Waits for the end of the reencryption. Returns the volume too.
    ///
    /// # Errors
    /// [`Kind::Storage`] if the reencryption failed; [`Kind::Interrupted`] if this was stopped. The
    /// server goes on then.
    pub fn follow(mut self, watch: &dyn Watch) -> Result<(Location, Reencrypted), Error> {
        let size = self.number("size").unwrap_or(0);
        let working = Working::begin(watch, Work::Reencrypt, Some(size));
        let mut before = self.number("converted").unwrap_or(0);
        working.resume(before);
        loop {
            let converted = self.number("converted").unwrap_or(0);
            working.advance(converted.saturating_sub(before));
            before = converted;
            match self.text("state") {
                Some("finished") => break,
                Some("failed") => {
                    let why = self.text("why").unwrap_or("it has failed").to_owned();
                    return Err(Error::new(Kind::Storage, why).about(self.path.display()));
                }
                _ => {}
            }
            if watch.interrupt().is_set() {
                return Err(Error::interrupted().about("the server goes on"));
            }
            std::thread::sleep(BETWEEN);
            self.update(watch)?;
        }
        working.finish();
        let image = Location::parse_openable(OsStr::new(self.image())).map_err(Error::from)?;
        Ok((
            image,
            Reencrypted {
                was_plain: false,
                finished: true,
                converted: size,
                size,
                keyslots: numbers(&self.status, "keyslots"),
                dropped: self.dropped,
            },
        ))
    }

    fn update(&mut self, watch: &dyn Watch) -> Result<(), Error> {
        let mut request = json!({ "command": "status" });
        if let Some(export) = &self.export {
            request["export"] = json!(export.as_str());
        }
        self.status = self.ask(&request, &[], Some(PATIENCE), watch)?;
        Ok(())
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.status.get(member).and_then(Value::as_str)
    }

    fn number(&self, member: &str) -> Option<u64> {
        self.status.get(member).and_then(Value::as_u64)
    }

    fn ask(
        &self,
        request: &Value,
        passphrases: &[Passphrase],
        patience: Option<Duration>,
        watch: &dyn Watch,
    ) -> Result<Value, Error> {
        let failed = |error| Error::io("use", &self.path, error);
        let mut stream = UnixStream::connect(&self.path).map_err(failed)?;
        self.refuse_foreign(&stream)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_read_timeout(Some(BETWEEN)).map_err(failed)?;
        let sent = stream.write_all(format!("{request}\n").as_bytes());
        sent.map_err(failed)?;
        for passphrase in passphrases {
            stream.write_all(passphrase.as_bytes()).map_err(failed)?;
        }
        let until = patience.map(|patience| Instant::now() + patience);
        let reply =
            read_line(&stream, until, watch).map_err(|error| match watch.interrupt().is_set() {
                true => Error::interrupted().about("the server goes on"),
                false => failed(error),
            })?;
        let reply = Value::parse(&reply)
            .map_err(|error| Error::new(Kind::Storage, error).about(self.path.display()))?;
        match refused(&reply) {
            None => Ok(reply),
            Some(error) => Err(error),
        }
    }

    /// Refuses a server of another user, which would get the passphrases.
    fn refuse_foreign(&self, stream: &UnixStream) -> Result<(), Error> {
        let server = rustix::net::sockopt::socket_peercred(stream)
            .map_err(|error| Error::io("look at", &self.path, error.into()))?;
        let own = rustix::process::geteuid();
        match server.uid == own || server.uid.is_root() {
            true => Ok(()),
            false => {
                let message = format!(
                    "another user, {}, has made this socket, and would get the passphrases",
                    server.uid.as_raw()
                );
                Err(Error::new(Kind::Permission, message).about(self.path.display()))
            }
        }
    }
}

/// Reads a line until this time, or until the interrupt is set.
fn read_line(
    mut stream: &UnixStream,
    until: Option<Instant>,
    watch: &dyn Watch,
) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut bytes = [0; LINE];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(line),
            Ok(count) => {
                line.extend_from_slice(&bytes[..count]);
                if line.ends_with(b"\n") || line.len() > LINE {
                    return Ok(line);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let late = until.is_some_and(|until| Instant::now() > until);
                if late || watch.interrupt().is_set() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn numbers(reply: &Value, member: &str) -> Vec<u32> {
    let numbers = reply.get(member).and_then(Value::as_array);
    let numbers = numbers.into_iter().flatten().filter_map(Value::as_u64);
    numbers
        .filter_map(|number| number.try_into().ok())
        .collect()
}
