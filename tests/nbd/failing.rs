//! Storage that fails or is slow. The right request gets the error, and a slow storage does not
//! delay other exports.

use std::io::Write;
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use luksmith::backend::memory::MemoryBackend;
use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::crypt::{IvSector, SectorCrypt};
use luksmith::export::Export;
use luksmith::export::nbd::{Options, ServeError, Server, Stopper};
use luksmith::formats::CipherSpec;
use luksmith::secret::VolumeKey;
use luksmith::sectors::{Cipher, Sectors};
use luksmith::volume::Volume;
use luksmith_formats::nbd::{ChunkType, Command, CommandFlags, ErrorNumber, OptionType, Request};
use tempfile::TempDir;

use crate::served::{Folder, SIZE, Served, until};
use crate::wire::{Client, Handshake};
use support::peers::find;

/// Storage in memory that can be made to fail and to wait.
struct Faulty {
    memory: MemoryBackend,
    /// Reads that touch this byte fail.
    bad_read: u64,
    /// Writes that touch this byte find no space.
    full_write: u64,
    flush_fails: AtomicBool,
    /// Reads of this byte wait until the storage has been flushed.
    waits_for_flush: u64,
    flushed: AtomicBool,
    /// How long each read takes.
    delay: Duration,
    /// Reads and writes wait until this many are waiting at once.
    meeting: usize,
    here: Mutex<usize>,
    came: Condvar,
    most_here: AtomicUsize,
}

impl Faulty {
    fn new() -> Self {
        Self {
            memory: MemoryBackend::new(SIZE.try_into().unwrap()),
            bad_read: u64::MAX,
            full_write: u64::MAX,
            flush_fails: AtomicBool::new(false),
            waits_for_flush: u64::MAX,
            flushed: AtomicBool::new(false),
            delay: Duration::ZERO,
            meeting: 0,
            here: Mutex::new(0),
            came: Condvar::new(),
            most_here: AtomicUsize::new(0),
        }
    }

    fn meet(&self) {
        if self.meeting == 0 {
            return;
        }
        let mut here = self.here.lock().unwrap();
        *here += 1;
        self.most_here.fetch_max(*here, Ordering::Relaxed);
        self.came.notify_all();
        let met = |_: &mut usize| self.most_here.load(Ordering::Relaxed) < self.meeting;
        // The first requests come one after the other: the storage has to look slow first.
        let patience = Duration::from_millis(500);
        let (mut here, _) = self.came.wait_timeout_while(here, patience, met).unwrap();
        *here -= 1;
    }
}

impl Backend for Faulty {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        std::thread::sleep(self.delay);
        self.meet();
        if (offset..offset + into.len() as u64).contains(&self.bad_read) {
            return Err(IoError::from_os(
                Operation::Read,
                self.bad_read,
                std::io::Error::from_raw_os_error(5),
            ));
        }
        if (offset..offset + into.len() as u64).contains(&self.waits_for_flush) {
            until("the storage is flushed", || {
                self.flushed.load(Ordering::Relaxed)
            });
        }
        self.memory.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.meet();
        if (offset..offset + from.len() as u64).contains(&self.full_write) {
            let offset = self.full_write;
            return Err(IoError::NoSpace {
                operation: Operation::Write,
                offset,
            });
        }
        self.memory.write_at(offset, from)
    }

    fn flush(&self) -> Result<(), IoError> {
        // As in the kernel, the error is reported once.
        if self.flush_fails.swap(false, Ordering::Relaxed) {
            let error = std::io::Error::from_raw_os_error(5);
            return Err(IoError::from_os(Operation::Flush, 0, error));
        }
        self.flushed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.discard(range)
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.memory.write_zeroes(range)
    }

    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.memory.resize(size)
    }
}

/// The server of the library on such storage.
struct Running {
    folder: TempDir,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Running {
    fn on(backend: Arc<Faulty>) -> Self {
        Self::with(backend, Options::default())
    }

    fn with(backend: Arc<Faulty>, options: Options) -> Self {
        let key = VolumeKey::copy_from(&[0x42; 64]).unwrap();
        let crypt = SectorCrypt::new(CipherSpec::AES_XTS_PLAIN64, 4096, &key).unwrap();
        let volume = Volume::new(backend, crypt, 0, SIZE, IvSector(0), false).unwrap();
        let export = Export::new("", Arc::new(volume));
        let server = Server::new(vec![export], options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s.sock")).unwrap();
        let stopper = server.stopper();
        let thread = std::thread::spawn(move || server.run(vec![listener.into()]));
        Self {
            folder,
            stopper,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("s.sock")).unwrap()
    }

    fn client(&self) -> Client {
        Client::of(self.connect())
    }

    fn stop(mut self) -> Result<(), ServeError> {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_failed_read_is_an_error_of_its_own_request() {
    const BAD: u64 = (5 << 20) + 12_345;
    let mut backend = Faulty::new();
    backend.bad_read = BAD;
    let running = Running::on(Arc::new(backend));
    let mut client = running.client();
    // The bytes before the bad one are received, then the error, which ends the reply.
    let answer = client.ask(Command::Read, CommandFlags::NONE, 0, SIZE, &[]);
    assert_eq!(answer.error, ErrorNumber::Io);
    assert_eq!(answer.parts.last(), Some(&ChunkType::Error));
    assert_eq!(answer.data.len(), 5 << 20);
    let answer = client.ask(Command::Read, CommandFlags::DF, BAD, 1, &[]);
    assert_eq!((answer.error, answer.data.len()), (ErrorNumber::Io, 0));
    assert_eq!(client.read(0, 5 << 20).len(), 5 << 20);

    // A simple reply can be an error too, if all bytes are read before it is sent.
    let mut simple = Handshake::greeted(running.connect()).go("");
    for (offset, len) in [(BAD, 1), (0, SIZE)] {
        let answer = simple.ask(Command::Read, CommandFlags::NONE, offset, len, &[]);
        assert_eq!(answer.error, ErrorNumber::Io);
    }
    assert_eq!(simple.read(0, 5 << 20).len(), 5 << 20);
    // A write of a part of a sector has to read first.
    assert_eq!(simple.write(BAD, b"x"), ErrorNumber::Io);
    running.stop().unwrap();
}

#[test]
fn a_write_without_space_fails_and_the_next_request_is_served() {
    let mut backend = Faulty::new();
    backend.full_write = 1 << 20;
    let running = Running::on(Arc::new(backend));
    let mut client = running.client();
    assert_eq!(client.write(0, &vec![1; 4 << 20]), ErrorNumber::NoSpace);
    assert_eq!(client.write(2 << 20, &vec![2; 1 << 20]), ErrorNumber::None);
    assert!(client.read(2 << 20, 1 << 20).iter().all(|&byte| byte == 2));
    assert_eq!(client.flush(), ErrorNumber::None);
    running.stop().unwrap();
}

#[test]
fn a_failed_flush_stays_failed_for_every_client() {
    for with_fua in [false, true] {
        let backend = Arc::new(Faulty::new());
        let running = Running::on(backend.clone());
        let (mut one, mut other) = (running.client(), running.client());
        assert_eq!(one.write(0, b"lost?"), ErrorNumber::None);
        assert_eq!(other.flush(), ErrorNumber::None);
        backend.flush_fails.store(true, Ordering::Relaxed);
        let failed = if with_fua {
            one.write_with(CommandFlags::FUA, 0, b"lost")
        } else {
            one.flush()
        };
        assert_eq!(failed, ErrorNumber::Io);
        // From here on the storage itself would report success.
        for client in [&mut other, &mut one, &mut running.client()] {
            assert_eq!(client.flush(), ErrorNumber::Io);
            assert_eq!(
                client.write_with(CommandFlags::FUA, 0, b"x"),
                ErrorNumber::Io
            );
            assert_eq!(client.write(0, b"x"), ErrorNumber::None);
            assert_eq!(client.read(0, 1), b"x");
        }
        let ended = running.stop();
        assert!(matches!(ended, Err(ServeError::Flush { .. })), "{ended:?}");
    }
}

/// A server that stops does not wait for the slowest request before it stores what others wrote.
#[test]
fn a_server_that_stops_flushes_before_slow_requests_end() {
    let mut backend = Faulty::new();
    backend.waits_for_flush = 8192;
    let backend = Arc::new(backend);
    let running = Running::on(backend.clone());
    let (mut writer, mut reader) = (running.client(), running.client());
    assert_eq!(writer.write(0, b"kept"), ErrorNumber::None);
    let read = Request {
        flags: CommandFlags::NONE,
        command: Command::Read,
        cookie: 7,
        offset: 8192,
        len: 512,
    };
    reader.send(read, &[]).unwrap();
    running.stopper.stop();
    let answer = reader.answer(&read).unwrap();
    assert_eq!(answer.error, ErrorNumber::None);
    running.stop().unwrap();
}

#[test]
fn requests_to_slow_storage_wait_at_the_same_time() {
    const AT_ONCE: usize = 24;
    let mut backend = Faulty::new();
    backend.meeting = AT_ONCE;
    let backend = Arc::new(backend);
    let running = Running::on(backend.clone());
    for extended in [false, true] {
        backend.most_here.store(0, Ordering::Relaxed);
        let mut handshake = Handshake::greeted(running.connect());
        if extended {
            handshake.acked(OptionType::ExtendedHeaders, &[]);
        }
        let mut client = handshake.go("");
        client.extended = extended;
        let requests: Vec<_> = (0..2 * AT_ONCE as u64)
            .map(|n| Request {
                flags: CommandFlags::NONE,
                command: Command::Read,
                cookie: 7,
                offset: n * 4096,
                len: 4096,
            })
            .collect();
        // All are for the same bytes, so the order of the replies does not matter.
        let same = Request {
            offset: 8192,
            ..requests[0]
        };
        requests
            .iter()
            .for_each(|_| client.send(same, &[]).unwrap());
        for _ in &requests {
            let answer = client.answer(&same).unwrap();
            assert_eq!((answer.error, answer.data.len()), (ErrorNumber::None, 4096));
        }
        assert!(backend.most_here.load(Ordering::Relaxed) >= AT_ONCE);
    }
    running.stop().unwrap();
}

/// Sends all requests at once.
fn send_together(client: &mut Client, requests: &[Request], payload: &[u8]) {
    let messages = requests
        .iter()
        .map(|request| [&request.to_compact()[..], payload].concat());
    let messages = messages.collect::<Vec<_>>().concat();
    client.stream.write_all(&messages).unwrap();
}

#[test]
fn consecutive_long_requests_are_served_at_the_same_time() {
    const LONG: u32 = 128 << 10;
    let meet = |command: Command| {
        let mut backend = Faulty::new();
        backend.meeting = 2;
        let backend = Arc::new(backend);
        let running = Running::on(backend.clone());
        let mut client = running.client();
        // Two writes of the same bytes would wait for each other. Two reads of the same bytes may
        // be replied in any order.
        let requests = [0, u64::from(LONG)].map(|offset| Request {
            flags: CommandFlags::NONE,
            command,
            cookie: 7,
            offset: if command == Command::Write { offset } else { 0 },
            len: LONG.into(),
        });
        let payload = vec![7; LONG as usize];
        let payload = if command == Command::Write {
            &payload[..]
        } else {
            &[]
        };
        send_together(&mut client, &requests, payload);
        for request in &requests {
            assert_eq!(client.answer(request).unwrap().error, ErrorNumber::None);
        }
        running.stop().unwrap();
        backend.most_here.load(Ordering::Relaxed) == 2
    };
    // The second request may arrive too late to be noticed behind the first.
    for command in [Command::Read, Command::Write] {
        assert!((0..20).any(|_| meet(command)), "{command:?}");
    }
}

#[test]
fn a_simple_reply_in_parts_is_not_mixed_with_others() {
    let mut backend = Faulty::new();
    backend.delay = Duration::from_millis(1);
    let mut options = Options::default();
    // The budget has no room for the long request, and room for the others.
    options.max_in_flight = 6 << 20;
    let running = Running::with(Arc::new(backend), options);
    let mut client = Handshake::greeted(running.connect()).go("");
    let expected = client.read(0, SIZE);
    let lens = [vec![4096; 40], vec![SIZE], vec![4096; 20]].concat();
    let requests: Vec<_> = (lens.into_iter().zip(0..))
        .map(|(len, cookie)| Request {
            flags: CommandFlags::NONE,
            command: Command::Read,
            cookie,
            offset: 0,
            len,
        })
        .collect();
    send_together(&mut client, &requests, &[]);
    let mut answered: Vec<u64> = (0..requests.len())
        .map(|_| {
            let (cookie, answer) = client.answer_to_any(&requests).unwrap();
            let len = requests[usize::try_from(cookie).unwrap()].len;
            assert_eq!(
                (answer.error, answer.data.len() as u64),
                (ErrorNumber::None, len)
            );
            assert!(answer.data == expected[..answer.data.len()], "{cookie}");
            cookie
        })
        .collect();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..requests.len() as u64));
    running.stop().unwrap();
}

/// A server in which system calls of one kind fail, once or each time.
fn served_under_strace(folder: &Folder, inject: &str) -> Option<Served> {
    let strace = find("strace")?;
    // With -D, strace runs as a child, and the started process is luksmith.
    let calls = inject.split(':').next().unwrap();
    let args = ["-D", "-f", "-qq", "-o", "/dev/null", "-e"].map(str::to_owned);
    let args = args.into_iter().chain([
        format!("trace={calls}"),
        "-e".into(),
        format!("inject={inject}"),
    ]);
    let mut command = folder.program(strace, args);
    command.args([
        env!("CARGO_BIN_EXE_luksmith"),
        "serve",
        "--json",
        "disk.img",
    ]);
    command.args(["--socket", "s.sock", "--key-file", "key"]);
    Some(Served::start(folder, command))
}

#[test]
fn errors_of_the_system_reach_the_client() {
    let folder = Folder::with_volume();
    let Some(served) = served_under_strace(&folder, "pwrite64:error=ENOSPC:when=1") else {
        return;
    };
    let mut client = served.client();
    assert_eq!(client.write(0, &[1; 4096]), ErrorNumber::NoSpace);
    // strace counts the calls of each thread: the first write of another thread fails as well.
    let written = (0..50).any(|_| client.write(0, &[2; 4096]) == ErrorNumber::None);
    assert!(written, "the server recovers");
    assert_eq!(client.flush(), ErrorNumber::None);
    served.stop();

    let served = served_under_strace(&folder, "fdatasync:error=EIO:when=1").unwrap();
    assert_eq!(served.client().write(0, &[3; 4096]), ErrorNumber::None);
    assert_eq!(served.client().flush(), ErrorNumber::Io);
    assert_eq!(served.client().flush(), ErrorNumber::Io);
}
