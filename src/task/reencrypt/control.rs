//! The socket that controls the reencryptions of a server, and makes snapshots of what it serves.
//! One line of JSON is a request, and one line is its reply. The passphrases of a request follow
//! it, as bytes.
//!
//! Only the user of the server can connect. A connection is for one request. Passphrases are read
//! from the socket into locked memory. They are neither logged nor kept.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use luksmith_formats::json::{Value, json};

use super::controlled::{Controlled, Start};
use super::request::{lengths, refusal};
use super::served::{Reencryptable, Served, State};
use crate::Interrupt;
use crate::location::Location;
use crate::secret::{LockedBytes, Passphrase};
use crate::task::objects;
use crate::task::unix_socket::{self, SocketFile, UnixSocket};
use crate::task::{Error, Kind, Silent, Watch};

/// The longest line, in bytes.
pub(super) const LINE: usize = 4096;
/// How long the other side may be silent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The time until a socket is used again after it has failed.
const PAUSE: Duration = Duration::from_millis(200);

/// The reencryptions of a server, each in a thread. Dropping this stops them, and removes the
/// socket.
pub struct Running<'a> {
    // Dropped in this order.
    _socket: Option<Socket<'a>>,
    _all: Arc<Vec<Controlled>>,
}

impl<'a> Running<'a> {
    /// Lets the reencryptions go on that are in progress, unless they are `paused`, and makes a
    /// socket at `control`, in a directory that is closed to other users. What begins and ends is
    /// told to `tell`.
    ///
    /// # Errors
    /// A place of the socket where other users could connect, a device that is in use, and failed
    /// system calls.
    pub fn start(
        all: Vec<Reencryptable>,
        paused: bool,
        control: Option<&Path>,
        tell: fn(String),
        watch: &'a dyn Watch,
    ) -> Result<Self, Error> {
        let all = all
            .into_iter()
            .map(|one| Controlled::new(one, paused, tell));
        let all: Arc<Vec<_>> = Arc::new(all.collect::<Result<_, _>>()?);
        let socket = control.map(|path| Socket::listen(path, all.clone(), watch));
        Ok(Self {
            _socket: socket.transpose()?,
            _all: all,
        })
    }
}

/// A control socket. Dropping it removes it.
struct Socket<'a> {
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
    interrupt: Interrupt,
    _file: SocketFile<'a>,
}

impl<'a> Socket<'a> {
    /// Makes the socket, and replies to requests in a thread.
    fn listen(path: &Path, all: Arc<Vec<Controlled>>, watch: &'a dyn Watch) -> Result<Self, Error> {
        let (listener, file) = unix_socket::create(&UnixSocket::new(path), watch)?;
        let accepting = listener
            .try_clone()
            .map_err(|error| Error::io("make", path, error))?;
        let interrupt = Interrupt::new();
        let server = Server {
            all,
            interrupt: interrupt.clone(),
            starting: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || server.serve(&accepting))
            .map_err(Error::thread)?;
        Ok(Self {
            listener,
            thread: Some(thread),
            interrupt,
            _file: file,
        })
    }
}

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        // Ends the key derivations of a start.
        self.interrupt.trigger();
        // Ends the wait for a connection.
        let ended = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let (Ok(()), Some(thread)) = (ended, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Replies to the requests on a control socket.
struct Server {
    all: Arc<Vec<Controlled>>,
    interrupt: Interrupt,
    /// The threads for long work, each of which replies to one request.
    starting: Vec<JoinHandle<()>>,
}

impl Server {
    fn serve(mut self, listener: &UnixListener) {
        loop {
            self.starting.retain(|thread| !thread.is_finished());
            let served = match listener.accept() {
                Ok((stream, _)) => self.one(stream),
                // It was shut down.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                Err(error) => {
                    // No descriptors are left, for example.
                    std::thread::sleep(PAUSE);
                    Err(error)
                }
            };
            if let Err(error) = served {
                tracing::warn!(%error, "a request on the control socket");
            }
        }
        for thread in self.starting {
            let _ = thread.join();
        }
    }

    /// Reads a request, and replies to it. A start, which derives keys, and a snapshot, which waits
    /// for the storage, are left to a thread.
    fn one(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = match read_request(&stream)? {
            Ok(request) => request,
            Err(error) => return send(&stream, &refusal(&error)),
        };
        let work = match request.command() {
            Some("start") => start,
            Some("snapshot" | "snapshot-delete") => snapshot,
            _ => {
                let reply = self.reply(&request);
                return send(&stream, &reply.unwrap_or_else(|error| refusal(&error)));
            }
        };
        let all = self.all.clone();
        let watch = Silent(self.interrupt.clone());
        let thread = std::thread::Builder::new().name("start".to_owned());
        self.starting.push(thread.spawn(move || {
            let reply = work(&all, &request, &watch);
            drop(request);
            // If the client has gone, the work goes on.
            let _ = send(&stream, &reply.unwrap_or_else(|error| refusal(&error)));
        })?);
        Ok(())
    }

    fn reply(&self, request: &Request) -> Result<Value, Error> {
        let chosen = choose(&self.all, request)?;
        match request.command() {
            Some("status") => {}
            Some("resume") => chosen.on_served(Served::resume)?,
            Some("pause") => chosen.on_served(Served::pause)?,
            Some("rate") => {
                let rate = request.line.get("bytes_per_second");
                let rate = rate.ok_or_else(|| Error::parameters("bytes_per_second is missing"))?;
                let rate = match (rate.is_null(), rate.as_u64()) {
                    (true, _) | (false, Some(0)) => None,
                    (false, Some(rate)) => Some(rate),
                    (false, None) => {
                        let message = "bytes_per_second is a number or null";
                        return Err(Error::parameters(message));
                    }
                };
                chosen.on_served(|served| served.set_rate(rate))?;
            }
            _ => {
                let message = "command is status, start, pause, resume, rate, snapshot or \
                               snapshot-delete";
                return Err(Error::parameters(message));
            }
        }
        Ok(describe(chosen))
    }
}

/// A request, and the passphrases that follow it.
struct Request {
    line: Value,
    passphrases: Vec<Passphrase>,
}

impl Request {
    fn command(&self) -> Option<&str> {
        self.line.get("command").and_then(Value::as_str)
    }
}

/// Reads a request. No byte of a passphrase is read into other memory than locked one.
fn read_request(mut stream: &UnixStream) -> io::Result<Result<Request, Error>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
        if line.len() > LINE {
            return Ok(Err(Error::parameters("the line is too long")));
        }
    }
    let parsed = Value::parse(&line).map_err(|error| Error::new(Kind::Parameters, error));
    let line = match parsed {
        Ok(line) => line,
        Err(error) => return Ok(Err(error)),
    };
    let lengths = match lengths(&line) {
        Ok(lengths) => lengths,
        Err(error) => return Ok(Err(error)),
    };
    let mut passphrases = Vec::new();
    for length in lengths {
        let mut bytes = LockedBytes::new(length).map_err(io::Error::other)?;
        stream.read_exact(&mut bytes)?;
        passphrases.push(Passphrase::from_locked(bytes));
    }
    Ok(Ok(Request { line, passphrases }))
}

fn send(mut stream: &UnixStream, reply: &Value) -> io::Result<()> {
    stream.write_all(format!("{reply}\n").as_bytes())
}

/// The export that a request names.
fn choose<'a>(all: &'a [Controlled], request: &Request) -> Result<&'a Controlled, Error> {
    let wanted = request.line.get("export").and_then(Value::as_str);
    match (wanted, all) {
        (None, [only]) => Ok(only),
        (None, []) | (Some(_), []) => {
            let message = "no volume here can be reencrypted: only LUKS2 volumes that are served \
                           for writing can, and not in a qcow2 image";
            Err(Error::parameters(message))
        }
        (None, all) => {
            let names: Vec<_> = all.iter().map(|one| format!("\"{}\"", one.name)).collect();
            let names = names.join(", ");
            Err(Error::parameters(format!(
                "there are several exports: {names}"
            )))
        }
        (Some(wanted), all) => all.iter().find(|one| one.name == wanted).ok_or_else(|| {
            Error::parameters(format!(
                "there is no export \"{wanted}\" that can be reencrypted"
            ))
        }),
    }
}

fn start(all: &[Controlled], request: &Request, watch: &dyn Watch) -> Result<Value, Error> {
    let chosen = choose(all, request)?;
    let start = Start::of_request(&request.line)?;
    let dropped = chosen.start(&start, &request.passphrases, watch)?;
    let mut reply = describe(chosen);
    reply["dropped"] = json!(dropped.as_slice());
    Ok(reply)
}

/// Makes or deletes a snapshot of the volume that a request names.
fn snapshot(all: &[Controlled], request: &Request, watch: &dyn Watch) -> Result<Value, Error> {
    let text = |member: &str| {
        let text = request.line.get(member).and_then(Value::as_str);
        text.ok_or_else(|| Error::parameters(format!("{member} is missing")))
    };
    let image = Location::parse_openable(OsStr::new(text("image")?)).map_err(Error::from)?;
    let mut all = all.iter();
    let chosen = all.find(|one| objects::is_same(&one.image.location, &image));
    let chosen = chosen.ok_or_else(|| {
        let message = format!("the server does not serve {image} as a LUKS2 volume for writing");
        Error::parameters(message)
    })?;
    let (snapshots, name) = (chosen.snapshots()?, text("name")?);
    // One that is begun is completed: the volume could not be closed otherwise.
    watch.check()?;
    let done = match request.command() {
        Some("snapshot-delete") => snapshots.delete(name),
        _ => snapshots.make(name),
    };
    done.map_err(|error| error.about(&image))?;
    Ok(json!({ "ok": true, "export": chosen.name.as_str() }))
}

fn describe(one: &Controlled) -> Value {
    let status = one.status();
    let size = one.volume().size();
    let mut reply = json!({
        "ok": true,
        "export": one.name.as_str(),
        "image": one.image.location.to_string(),
        "state": status.as_ref().map_or("idle", |status| status.state.name()),
        "converted": status.as_ref().map_or(0, |status| status.converted),
        "size": status.as_ref().map_or(size, |status| status.size),
        "zone": status.as_ref().map_or(0, |status| status.zone),
        "sector_size": one.volume().sector_size(),
    });
    let Some(status) = status else {
        return reply;
    };
    let pause = u64::try_from(status.longest_pause.as_millis()).unwrap_or(u64::MAX);
    reply["longest_pause_ms"] = json!(pause);
    reply["keyslots"] = json!(status.keyslots.as_slice());
    reply["bytes_per_second"] = status.rate.map_or(Value::Null, Value::from);
    if let State::Failed(why) = &status.state {
        reply["why"] = json!(why.as_str());
    }
    reply
}
