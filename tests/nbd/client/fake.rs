//! A server that does as it is told.
//!
//! It has a cache: what is written is lost when it dies before a flush, unless the test says otherwise.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{
    BlockSizes, ChunkFlags, ChunkHeader, ChunkType, ClientFlags, Command, CommandFlags, ErrorChunk,
    ErrorNumber, Greeting, HandshakeFlags, Info, OptionHeader, OptionReply, OptionReplyHeader,
    OptionType, Request, SimpleReply, TransmissionFlags,
};

/// A listener on a Unix socket that runs `serve` for each connection, the first one being 0.
pub(super) struct Listener {
    pub(super) uri: Uri,
    folder: tempfile::TempDir,
    stopped: Arc<AtomicBool>,
}

impl Listener {
    pub(super) fn new(serve: impl Fn(usize, UnixStream) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let uri = format!("nbd+unix:///disk?socket={}", socket.display());
        let stopped = Arc::new(AtomicBool::new(false));
        let (serve, stop) = (Arc::new(serve), stopped.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let serve = serve.clone();
                std::thread::spawn(move || serve(number, stream.unwrap()));
            }
        });
        Self {
            uri: Uri::parse(&uri).unwrap(),
            folder,
            stopped,
        }
    }

    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("socket")
    }

    /// Nobody is let in any more.
    pub(super) fn stop(&self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            let socket = self.socket();
            // Wakes the listener, which is gone then.
            drop(UnixStream::connect(&socket));
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Which replies the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    Simple,
    Structured,
    Extended,
}

/// What the server does with a request.
pub(super) enum Act {
    /// What it should.
    Serve,
    /// This error.
    Fail(ErrorNumber),
    /// These bytes in place of an answer.
    Say(Vec<u8>),
    /// It ends the connection, after the request was carried out or before.
    HangUp { carried_out: bool },
    /// It loses its cache and ends the connection.
    Die,
    /// Another server with an empty disk comes in its place.
    Replace,
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Which connection, the first one being 0.
    pub(super) connection: usize,
    /// Which request of that connection, the first one being 0.
    pub(super) number: usize,
    pub(super) request: Request,
}

/// How the server is.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) size: usize,
    pub(super) replies: Replies,
    pub(super) flags: TransmissionFlags,
    pub(super) blocks: Option<BlockSizes>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            size: 1 << 20,
            replies: Replies::Structured,
            flags: TransmissionFlags::HAS_FLAGS
                | TransmissionFlags::SEND_FLUSH
                | TransmissionFlags::SEND_FUA
                | TransmissionFlags::SEND_TRIM
                | TransmissionFlags::SEND_WRITE_ZEROES,
            blocks: None,
        }
    }
}

/// A server on a disk in memory.
pub(super) struct Fake {
    pub(super) listener: Listener,
    state: Arc<State>,
}

type Acts = dyn Fn(&Seen) -> Act + Send + Sync;

struct State {
    shape: Mutex<Shape>,
    cached: Mutex<Vec<u8>>,
    stored: Mutex<Vec<u8>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    act: Box<Acts>,
}

impl Fake {
    pub(super) fn new(shape: Shape, act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::with_disk(shape, vec![0; shape.size], act)
    }

    pub(super) fn with_disk(
        shape: Shape,
        disk: Vec<u8>,
        act: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(State {
            shape: Mutex::new(shape),
            cached: Mutex::new(disk.clone()),
            stored: Mutex::new(disk),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            act: Box::new(act),
        });
        let serving = state.clone();
        let listener = Listener::new(move |number, stream| serving.serve(number, stream));
        Self { listener, state }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.listener.uri
    }

    /// What would be read.
    pub(super) fn cached(&self) -> Vec<u8> {
        self.state.cached.lock().unwrap().clone()
    }

    /// What was flushed.
    pub(super) fn stored(&self) -> Vec<u8> {
        self.state.stored.lock().unwrap().clone()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many connections got as far as requests.
    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How later connections find it.
    pub(super) fn reshape(&self, change: impl FnOnce(&mut Shape)) {
        change(&mut self.state.shape.lock().unwrap());
    }
}

impl State {
    fn serve(&self, connection: usize, stream: UnixStream) {
        // A client that leaves is no failure of the server.
        let _ = self.try_to_serve(connection, stream);
    }

    fn try_to_serve(&self, connection: usize, mut stream: UnixStream) -> std::io::Result<()> {
        let shape = *self.shape.lock().unwrap();
        shake_hands(&mut stream, &shape)?;
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut next = read_request(&mut stream, &shape)?;
        if is_first_look(&next, &shape) {
            let start = self.carry_out(&next, &[]);
            stream.write_all(&answer(&next, &shape, &start))?;
            next = read_request(&mut stream, &shape)?;
        }
        for number in 0.. {
            let request = next;
            let payload = if request.command == Command::Write {
                let mut payload = vec![0; usize::try_from(request.len).unwrap()];
                stream.read_exact(&mut payload)?;
                payload
            } else {
                Vec::new()
            };
            if request.command == Command::Disconnect {
                return Ok(());
            }
            let seen = Seen {
                connection,
                number,
                request,
            };
            self.seen.lock().unwrap().push(seen);
            match (self.act)(&seen) {
                Act::Serve => {
                    let data = self.carry_out(&request, &payload);
                    stream.write_all(&answer(&request, &shape, &data))?;
                }
                Act::Fail(error) => stream.write_all(&error_answer(&request, &shape, error))?,
                Act::Say(bytes) => stream.write_all(&bytes)?,
                Act::HangUp { carried_out } => {
                    if carried_out {
                        self.carry_out(&request, &payload);
                    }
                    return Ok(());
                }
                Act::Replace => {
                    self.cached.lock().unwrap().fill(0);
                    self.stored.lock().unwrap().fill(0);
                    return Ok(());
                }
                Act::Die => {
                    let stored = self.stored.lock().unwrap().clone();
                    *self.cached.lock().unwrap() = stored;
                    return Ok(());
                }
            }
            next = read_request(&mut stream, &shape)?;
        }
        Ok(())
    }

    /// Carries a request out, and says what was read.
    fn carry_out(&self, request: &Request, payload: &[u8]) -> Vec<u8> {
        let mut cached = self.cached.lock().unwrap();
        let start = usize::try_from(request.offset).unwrap();
        let range = start..start + usize::try_from(request.len).unwrap();
        match request.command {
            Command::Read => return cached[range].to_vec(),
            Command::Write => cached[range.clone()].copy_from_slice(payload),
            Command::WriteZeroes => cached[range.clone()].fill(0),
            Command::Flush => *self.stored.lock().unwrap() = cached.clone(),
            _ => {}
        }
        if request.flags.contains(CommandFlags::FUA) {
            self.stored.lock().unwrap()[range.clone()].copy_from_slice(&cached[range]);
        }
        Vec::new()
    }
}

fn read_request(stream: &mut UnixStream, shape: &Shape) -> std::io::Result<Request> {
    if shape.replies == Replies::Extended {
        let mut header = [0; Request::EXTENDED_LEN];
        stream.read_exact(&mut header)?;
        let request = Request::parse_extended(&header).unwrap();
        let is_write = request.command == Command::Write;
        assert_eq!(request.flags.contains(CommandFlags::PAYLOAD_LEN), is_write);
        return Ok(request);
    }
    let mut header = [0; Request::COMPACT_LEN];
    stream.read_exact(&mut header)?;
    Ok(Request::parse_compact(&header).unwrap())
}

/// How a client begins on each connection: it looks whether the disk is the one that it knows. That is always answered, and is none of
/// what the test has seen.
fn is_first_look(request: &Request, shape: &Shape) -> bool {
    let block = shape.blocks.map_or(1, |sizes| u64::from(sizes.minimum));
    let len = block.max(4096).min(shape.size as u64);
    (request.command, request.offset, request.len) == (Command::Read, 0, len)
}

/// The handshake of fixed newstyle.
pub(super) fn shake_hands(stream: &mut UnixStream, shape: &Shape) -> std::io::Result<()> {
    let flags = HandshakeFlags::FIXED_NEWSTYLE | HandshakeFlags::NO_ZEROES;
    stream.write_all(&Greeting { flags }.to_bytes())?;
    stream.read_exact(&mut [0; ClientFlags::LEN])?;
    loop {
        let mut header = [0; OptionHeader::LEN];
        stream.read_exact(&mut header)?;
        let OptionHeader { option, len } = OptionHeader::parse(&header).unwrap();
        stream.read_exact(&mut vec![0; len as usize])?;
        let mut reply = |reply, data: &[u8]| stream.write_all(&option_reply(option, reply, data));
        let accepted = match option {
            OptionType::ExtendedHeaders => shape.replies == Replies::Extended,
            OptionType::StructuredReply => shape.replies != Replies::Simple,
            OptionType::Go => {
                let (size, flags) = (shape.size as u64, shape.flags);
                reply(OptionReply::Info, &Info::Export { size, flags }.to_bytes())?;
                if let Some(sizes) = shape.blocks {
                    reply(OptionReply::Info, &Info::BlockSize(sizes).to_bytes())?;
                }
                return reply(OptionReply::Ack, &[]);
            }
            _ => false,
        };
        let answer = if accepted {
            OptionReply::Ack
        } else {
            OptionReply::ErrUnsupported
        };
        reply(answer, &[])?;
    }
}

pub(super) fn option_reply(option: OptionType, reply: OptionReply, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    let header = OptionReplyHeader { option, reply, len }.to_bytes();
    [&header, data].concat()
}

/// A chunk with its header.
pub(super) fn chunk(
    request: &Request,
    shape: &Shape,
    kind: ChunkType,
    flags: ChunkFlags,
    data: &[u8],
) -> Vec<u8> {
    let header = ChunkHeader {
        flags,
        kind,
        cookie: request.cookie,
        offset: request.offset,
        len: data.len() as u64,
    };
    match shape.replies {
        Replies::Extended => [&header.to_extended()[..], data].concat(),
        _ => [&header.to_structured()[..], data].concat(),
    }
}

fn answer(request: &Request, shape: &Shape, data: &[u8]) -> Vec<u8> {
    let cookie = request.cookie;
    match (shape.replies, request.command) {
        (Replies::Simple, _) => {
            let error = ErrorNumber::None;
            [&SimpleReply { error, cookie }.to_bytes()[..], data].concat()
        }
        (_, Command::Read) => {
            let data = [&request.offset.to_be_bytes(), data].concat();
            chunk(
                request,
                shape,
                ChunkType::OffsetData,
                ChunkFlags::DONE,
                &data,
            )
        }
        _ => chunk(request, shape, ChunkType::None, ChunkFlags::DONE, &[]),
    }
}

fn error_answer(request: &Request, shape: &Shape, error: ErrorNumber) -> Vec<u8> {
    if shape.replies == Replies::Simple {
        let cookie = request.cookie;
        return SimpleReply { error, cookie }.to_bytes().to_vec();
    }
    let error = ErrorChunk {
        error,
        message: "as told".into(),
        offset: None,
    };
    chunk(
        request,
        shape,
        error.kind(),
        ChunkFlags::DONE,
        &error.to_bytes(),
    )
}
