//! An S3 service in memory, which fails on request and answers slowly.
//!
//! It knows what luksmith asks for: creations with `If-None-Match`, reads of ranges, deletions and
//! lists. It checks no signature.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bucket that is there.
pub const BUCKET: &str = "bucket";

/// A request, as a fault is chosen for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The number of the request, from 1 on.
    pub number: u64,
    /// `PUT`, `GET`, `DELETE`, or `LIST`.
    pub method: String,
    /// The name of the object in the bucket.
    pub key: String,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is refused with this status.
    Status(u16),
    /// The connection is closed, after [`Service::closing`] was called: before the request is
    /// read, in the middle of its body, or after it was carried out.
    Closed(Moment),
    /// It waits before it is carried out.
    Delayed(Duration),
    /// A read finds no object, and a list is empty.
    Stale,
}

/// When a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before anything is done.
    Before,
    /// When half of the body has come. Nothing is done.
    HalfWay,
    /// After it was done, in place of the answer.
    After,
}

/// How the service behaves.
pub struct Service {
    /// The fault of a request.
    pub fault: Box<dyn Fn(&Asked) -> Fault + Send + Sync>,
    /// Called before a connection is closed.
    pub closing: Box<dyn Fn() + Send + Sync>,
    /// Whether an object that is there is overwritten, whatever was asked.
    pub overwrites: bool,
    /// How long each request takes, apart from its bytes.
    pub latency: Duration,
    /// How many bytes per second a connection carries; 0 is as many as it can.
    pub rate: u64,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            fault: Box::new(|_| Fault::None),
            closing: Box::new(|| {}),
            overwrites: false,
            latency: Duration::ZERO,
            rate: 0,
        }
    }
}

/// A running service, until the process ends.
#[derive(Clone)]
pub struct S3Double {
    /// Its URL.
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    service: Service,
    objects: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    requests: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    received: AtomicU64,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl S3Double {
    /// Starts a service.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub fn start(service: Service) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            service,
            objects: Mutex::default(),
            requests: AtomicU64::new(0),
            counts: Mutex::default(),
            received: AtomicU64::new(0),
        });
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = served.clone();
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        let endpoint = format!("http://{address}");
        Self { endpoint, shared }
    }

    /// The URI of a volume below this prefix.
    pub fn uri(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint={}", self.endpoint)
    }

    /// The names of the objects below a prefix, in order.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let objects = lock(&self.shared.objects);
        let names = objects.keys().filter(|name| name.starts_with(prefix));
        names.cloned().collect()
    }

    /// Whether an object has these bytes.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let objects: Vec<_> = lock(&self.shared.objects).values().cloned().collect();
        let mut all = objects.iter();
        all.any(|object| object.windows(bytes.len()).any(|part| part == bytes))
    }

    /// The objects now, for [`restore`](Self::restore).
    pub fn objects(&self) -> BTreeMap<String, Arc<Vec<u8>>> {
        lock(&self.shared.objects).clone()
    }

    /// Has these objects, and no others.
    pub fn restore(&self, objects: BTreeMap<String, Arc<Vec<u8>>>) {
        *lock(&self.shared.objects) = objects;
    }

    /// How many requests there were, and begins to count anew.
    pub fn count(&self) -> u64 {
        lock(&self.shared.counts).clear();
        self.shared.received.store(0, Ordering::SeqCst);
        self.shared.requests.swap(0, Ordering::SeqCst)
    }

    /// How many requests of a method there were.
    pub fn count_of(&self, method: &str) -> u64 {
        let counts = lock(&self.shared.counts);
        counts.get(method).copied().unwrap_or_default()
    }

    /// The bytes of the objects that were created.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::with_capacity(1 << 20, stream);
        loop {
            let (mut request, length) = head(&mut reader)?;
            let key = request.path.trim_start_matches('/');
            let (bucket, key) = key.split_once('/').unwrap_or((key, ""));
            let (bucket, key) = (bucket.to_owned(), key.to_owned());
            let method = match request.query.contains_key("list-type") {
                true => "LIST".to_owned(),
                false => request.method.clone(),
            };
            *lock(&self.counts).entry(method.clone()).or_default() += 1;
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            let fault = (self.service.fault)(&Asked {
                number,
                method,
                key: key.clone(),
            });
            let close = |moment| {
                let closes = fault == Fault::Closed(moment);
                if closes {
                    (self.service.closing)();
                }
                closes
            };
            if close(Moment::Before) {
                return None;
            }
            request.body = vec![0; length];
            let (first, rest) = request.body.split_at_mut(length / 2);
            reader.read_exact(first).ok()?;
            if close(Moment::HalfWay) {
                return None;
            }
            reader.read_exact(rest).ok()?;
            if let Fault::Delayed(time) = fault {
                std::thread::sleep(time);
            }
            let (status, answer) = match fault {
                Fault::Status(status) => (status, error("Injected")),
                _ if bucket != BUCKET => (404, error("NoSuchBucket")),
                fault => self.carry_out(&request, &key, fault == Fault::Stale),
            };
            if close(Moment::After) {
                return None;
            }
            let bytes = (length + answer.len()) as u64;
            let slow = bytes
                .checked_mul(1_000_000)
                .and_then(|it| it.checked_div(self.service.rate));
            let time = self.service.latency + Duration::from_micros(slow.unwrap_or(0));
            if !time.is_zero() {
                std::thread::sleep(time);
            }
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            let mut stream = stream;
            stream
                .write_all(&[head.as_bytes(), &answer].concat())
                .ok()?;
        }
    }

    fn carry_out(&self, request: &Request, key: &str, stale: bool) -> (u16, Vec<u8>) {
        let mut objects = lock(&self.objects);
        match request.method.as_str() {
            "PUT" => {
                let once = request.headers.contains_key("if-none-match");
                if once && objects.contains_key(key) && !self.service.overwrites {
                    return (412, error("PreconditionFailed"));
                }
                let length = request.body.len() as u64;
                self.received.fetch_add(length, Ordering::SeqCst);
                objects.insert(key.to_owned(), Arc::new(request.body.clone()));
                (200, Vec::new())
            }
            "DELETE" => {
                objects.remove(key);
                (204, Vec::new())
            }
            _ if request.query.contains_key("list-type") => {
                let prefix = request.query.get("prefix").cloned().unwrap_or_default();
                let after = request.query.get("continuation-token").cloned();
                let most = request.query.get("max-keys").and_then(|it| it.parse().ok());
                let all = objects.iter().filter(|(name, _)| {
                    let late = after.as_ref().is_none_or(|after| *name > after);
                    !stale && name.starts_with(&prefix) && late
                });
                (200, list(all, most.unwrap_or(1000)))
            }
            _ => {
                let Some(object) = objects.get(key).filter(|_| !stale) else {
                    return (404, error("NoSuchKey"));
                };
                let range = request.headers.get("range");
                let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
                    return (200, object.to_vec());
                };
                let (from, to) = range.split_once('-').unwrap_or(("0", ""));
                let from = from.parse().unwrap_or(0);
                let to = to
                    .parse()
                    .map_or(object.len(), |to: usize| to.saturating_add(1));
                match object.get(from..to.min(object.len())) {
                    Some(part) if !part.is_empty() => (206, part.to_vec()),
                    _ => (416, error("InvalidRange")),
                }
            }
        }
    }
}

fn list<'a>(all: impl Iterator<Item = (&'a String, &'a Arc<Vec<u8>>)>, most: usize) -> Vec<u8> {
    let mut text = "<ListBucketResult>".to_owned();
    let mut all = all.peekable();
    let mut last = None;
    for (name, object) in all.by_ref().take(most) {
        let size = object.len();
        let entry = format!("<Contents><Key>{name}</Key><Size>{size}</Size></Contents>");
        text.push_str(&entry);
        last = Some(name);
    }
    if let (Some(last), Some(_)) = (last, all.peek()) {
        let _ = write!(
            text,
            "<NextContinuationToken>{last}</NextContinuationToken>"
        );
    }
    text.push_str("</ListBucketResult>");
    text.into_bytes()
}

fn error(code: &str) -> Vec<u8> {
    format!("<Error><Code>{code}</Code></Error>").into_bytes()
}

/// Reads a request without its body, whose length is returned.
fn head(reader: &mut impl BufRead) -> Option<(Request, usize)> {
    let mut line = String::new();
    let mut next = || {
        line.clear();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let first = next()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect();
    let mut headers = BTreeMap::new();
    loop {
        let line = next()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let request = Request {
        method,
        path: decoded(path),
        query,
        headers,
        body: Vec::new(),
    };
    Some((request, length.unwrap_or(0)))
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.unwrap_or(b'0'));
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
