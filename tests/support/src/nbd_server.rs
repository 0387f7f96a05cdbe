//! An NBD server that misbehaves as a test tells it to.
//!
//! It has a write-back cache: when it dies, data that was written and not flushed is lost.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use luksmith_formats::nbd::uri::Uri;
use luksmith_formats::nbd::{
    BlockSizes, BlockStatus, ChunkFlags, ChunkHeader, ChunkType, ClientFlags, Command,
    CommandFlags, ErrorChunk, ErrorNumber, Extent, Greeting, HandshakeFlags, Info, MetaContext,
    OptionHeader, OptionReply, OptionReplyHeader, OptionType, Request, SimpleReply,
    TransmissionFlags,
};

/// The pause between two pieces of [`Action::Drip`].
const PAUSE: Duration = Duration::from_millis(20);

/// A listener on a Unix socket.
#[derive(Debug)]
pub struct Listener {
    /// The URI of the export `disk` on this socket.
    pub uri: Uri,
    folder: tempfile::TempDir,
    stopped: Arc<AtomicBool>,
}

impl Listener {
    /// Runs `serve` in a thread of its own for each connection. Its first argument counts the
    /// connections from 0.
    ///
    /// # Panics
    ///
    /// If the socket cannot be made.
    pub fn new(serve: impl Fn(usize, UnixStream) + Send + Sync + 'static) -> Self {
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

    /// The path of the socket.
    pub fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("socket")
    }

    /// Accepts no connection from now on, and removes the socket.
    pub fn stop(&self) {
        if !self.stopped.swap(true, Ordering::SeqCst) {
            let socket = self.socket();
            // Wakes the listening thread, which ends then.
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

/// The form of the server's replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// Simple replies.
    Simple,
    /// Structured replies.
    Structured,
    /// Structured replies with extended headers.
    Extended,
}

/// What the server does with a request.
#[derive(Debug)]
pub enum Action {
    /// Carries it out and answers.
    Serve,
    /// Answers with this error.
    Fail(ErrorNumber),
    /// Sends these bytes in place of an answer.
    Say(Vec<u8>),
    /// Sends these bytes in pieces of this length, with a pause after each.
    Drip(Vec<u8>, usize),
    /// Ends the connection.
    HangUp {
        /// Whether the request is carried out first.
        carried_out: bool,
    },
    /// Loses its cache and ends the connection.
    Die,
    /// Ends the connection, and has an empty disk from then on.
    Replace,
}

/// A request that the server received.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The number of the connection, counted from 0.
    pub connection: usize,
    /// The number of the request on that connection, counted from 0.
    pub number: usize,
    /// The request.
    pub request: Request,
}

/// What the server offers.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The size of the export in bytes.
    pub size: usize,
    /// The form of the replies.
    pub replies: Replies,
    /// The transmission flags of the export.
    pub flags: TransmissionFlags,
    /// The block sizes that are announced, if any.
    pub blocks: Option<BlockSizes>,
    /// The number of the context `base:allocation`, if the server has it.
    pub allocation: Option<u32>,
    /// Whether the first look of a client at a new connection gets its data, whatever the server
    /// does with requests.
    pub first_look: bool,
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
            allocation: None,
            first_look: true,
        }
    }
}

/// The server, with a disk in memory.
pub struct FakeServer {
    /// Where it listens.
    pub listener: Listener,
    state: Arc<State>,
}

type Actions = dyn Fn(&Seen) -> Action + Send + Sync;

struct State {
    shape: Mutex<Shape>,
    cached: Mutex<Vec<u8>>,
    stored: Mutex<Vec<u8>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    act: Box<Actions>,
}

impl FakeServer {
    /// A server on a disk of zeroes; `act` decides what the server does with each request.
    ///
    /// # Panics
    ///
    /// If the socket cannot be made.
    pub fn new(shape: Shape, act: impl Fn(&Seen) -> Action + Send + Sync + 'static) -> Self {
        Self::with_disk(shape, vec![0; shape.size], act)
    }

    /// The same on a disk with this content.
    ///
    /// # Panics
    ///
    /// If the socket cannot be made.
    pub fn with_disk(
        shape: Shape,
        disk: Vec<u8>,
        act: impl Fn(&Seen) -> Action + Send + Sync + 'static,
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

    /// The URI of the export.
    pub fn uri(&self) -> &Uri {
        &self.listener.uri
    }

    /// The content of the cache, which is what a client reads.
    pub fn cached(&self) -> Vec<u8> {
        self.state.cached.lock().unwrap().clone()
    }

    /// The content of the disk: what was flushed.
    pub fn stored(&self) -> Vec<u8> {
        self.state.stored.lock().unwrap().clone()
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many connections have completed the handshake.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Changes what later connections are offered.
    pub fn reshape(&self, change: impl FnOnce(&mut Shape)) {
        change(&mut self.state.shape.lock().unwrap());
    }
}

impl State {
    fn serve(&self, connection: usize, stream: UnixStream) {
        // The client may end the connection at any time.
        let _ = self.try_to_serve(connection, stream);
    }

    fn try_to_serve(&self, connection: usize, mut stream: UnixStream) -> std::io::Result<()> {
        let shape = *self.shape.lock().unwrap();
        shake_hands(&mut stream, &shape)?;
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut next = read_request(&mut stream, &shape)?;
        if shape.first_look && is_first_look(&next, &shape) {
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
                Action::Serve => {
                    let data = self.carry_out(&request, &payload);
                    stream.write_all(&answer(&request, &shape, &data))?;
                }
                Action::Fail(error) => stream.write_all(&error_answer(&request, &shape, error))?,
                Action::Say(bytes) => stream.write_all(&bytes)?,
                Action::Drip(bytes, len) => {
                    for piece in bytes.chunks(len) {
                        stream.write_all(piece)?;
                        std::thread::sleep(PAUSE);
                    }
                }
                Action::HangUp { carried_out } => {
                    if carried_out {
                        self.carry_out(&request, &payload);
                    }
                    return Ok(());
                }
                Action::Replace => {
                    self.cached.lock().unwrap().fill(0);
                    self.stored.lock().unwrap().fill(0);
                    return Ok(());
                }
                Action::Die => {
                    let stored = self.stored.lock().unwrap().clone();
                    *self.cached.lock().unwrap() = stored;
                    return Ok(());
                }
            }
            next = read_request(&mut stream, &shape)?;
        }
        Ok(())
    }

    /// Carries a request out, and returns what it reads.
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

/// Whether this is the read with which luksmith begins each connection, to recognise the export. It
/// is always answered, and is not among the requests that the test sees.
fn is_first_look(request: &Request, shape: &Shape) -> bool {
    let block = shape.blocks.map_or(1, |sizes| u64::from(sizes.minimum));
    let len = block.max(4096).min(shape.size as u64);
    (request.command, request.offset, request.len) == (Command::Read, 0, len)
}

/// Carries out the fixed newstyle handshake.
///
/// # Errors
///
/// If the client ends the connection.
///
/// # Panics
///
/// If the client breaks the protocol.
pub fn shake_hands(stream: &mut UnixStream, shape: &Shape) -> std::io::Result<()> {
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
            OptionType::SetMetaContext if shape.allocation.is_some() => {
                let name = "base:allocation".to_owned();
                let id = shape.allocation.unwrap_or_default();
                let context = MetaContext { id, name }.to_bytes();
                reply(OptionReply::MetaContext, &context)?;
                true
            }
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

/// The bytes of a reply to an option.
///
/// # Panics
///
/// If `data` is longer than 4 GiB.
pub fn option_reply(option: OptionType, reply: OptionReply, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    let header = OptionReplyHeader { option, reply, len }.to_bytes();
    [&header, data].concat()
}

/// The chunk that answers a BLOCK_STATUS with these extents, in the context with this number.
pub fn status(request: &Request, shape: &Shape, context: u32, extents: &[Extent]) -> Vec<u8> {
    let extents = extents.to_vec();
    let status = BlockStatus { context, extents };
    let (kind, data) = match shape.replies {
        Replies::Extended => (ChunkType::BlockStatusExtended, status.to_extended()),
        _ => (ChunkType::BlockStatus, status.to_bytes()),
    };
    chunk(request, shape, kind, ChunkFlags::DONE, &data)
}

/// The bytes of a chunk that answers `request`, with its header.
pub fn chunk(
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
