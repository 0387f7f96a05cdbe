//! A file on a web server as storage, which is only read.
//!
//! Every read is a request for a range, with the version of the file that was opened (`If-Range`).
//! If the server has another version by then, the read and all later ones fail: data of two
//! versions is never mixed. A server that does not serve ranges, or that does not tell versions
//! apart, is refused.

mod error;
mod places;
mod version;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::header::{ACCEPT_ENCODING, IF_RANGE, RANGE};
use ureq::http::{Request, Response};

pub use error::{HttpError, Problem};

use super::{Backend, Geometry, IoError, Operation};
use crate::http::{Client, fill};
use crate::sectors::{Cipher, Sectors};
use places::Places;
use version::Version;

/// How often a request is redirected.
const REDIRECTS: u32 = 5;

/// The size of the largest file, as of files on a disk.
const LARGEST: u64 = i64::MAX as u64;

/// The pause before a request is sent again the first time; each further pause is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a file on a web server is read.
#[derive(Clone, Copy, Debug)]
pub struct HttpOptions {
    timeout: Duration,
    connections: usize,
}

impl HttpOptions {
    /// The defaults that each setter names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// How long the server may be silent, and how long a request is sent again that fails.
        /// Default: 30 seconds.
        timeout: Duration,

        /// How many requests are in flight at once. Default: 16.
        connections: usize,
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connections: 16,
        }
    }
}

/// A file on a web server.
pub struct HttpBackend {
    client: Client,
    url: Arc<str>,
    version: Version,
    timeout: Duration,
    places: Places,
    has_changed: AtomicBool,
}

impl HttpBackend {
    /// Asks for the file. `authorities` is a file with the certificates of those to trust, by
    /// default those of the system.
    ///
    /// # Errors
    /// [`HttpError`], whose source is the [`Problem`].
    pub fn open(
        url: &str,
        authorities: Option<&Path>,
        options: HttpOptions,
    ) -> Result<Self, HttpError> {
        let url: Arc<str> = url.into();
        let opened = Self::look(&url, authorities, options);
        opened.map_err(|source| HttpError::new(&url, source))
    }

    fn look(
        url: &Arc<str>,
        authorities: Option<&Path>,
        options: HttpOptions,
    ) -> Result<Self, Problem> {
        let client = Client::new(url, authorities, options.timeout, REDIRECTS)?;
        // The first request is tried once.
        let version = retried(Duration::ZERO, || {
            let answer = ask(&client, url, &(0..1), None)?;
            let found = Version::of(answer.headers());
            let (version, _) = match (answer.status().as_u16(), found) {
                // An empty file has no first byte.
                (206 | 416, Some(found)) => found,
                (200 | 206, _) => return Err(Problem::NoRanges),
                (status, _) => return Err(of_status(status)),
            };
            version.validator()?;
            if version.size > LARGEST {
                return Err(Problem::Answer("a size that no file has"));
            }
            Ok(version)
        })?;
        Ok(Self {
            client,
            url: url.clone(),
            version,
            timeout: options.timeout,
            places: Places::new(options.connections),
            has_changed: AtomicBool::new(false),
        })
    }

    fn read(&self, range: &Range<u64>, into: &mut [u8]) -> Result<(), Problem> {
        let _place = self.places.take();
        retried(self.timeout, || {
            if self.has_changed.load(Ordering::Relaxed) {
                return Err(Problem::Changed);
            }
            let validator = self.version.validator()?;
            let answer = ask(&self.client, &self.url, range, Some(validator))?;
            let found = Version::of(answer.headers());
            match (answer.status().as_u16(), found) {
                (206, Some((version, first))) if self.version.is(&version) => {
                    if first != range.start {
                        return Err(Problem::Answer("another part of the file"));
                    }
                    fill(answer, into).map_err(Problem::Unreachable)
                }
                (200 | 206 | 404 | 410 | 412 | 416, _) => {
                    self.has_changed.store(true, Ordering::Relaxed);
                    Err(Problem::Changed)
                }
                (status, _) => Err(of_status(status)),
            }
        })
    }
}

fn of_status(status: u16) -> Problem {
    match status {
        404 | 410 => Problem::Absent,
        401 | 403 | 407 => Problem::Denied(status),
        status => Problem::Status(status),
    }
}

/// Asks for a part of the file, of one version.
fn ask(
    client: &Client,
    url: &str,
    range: &Range<u64>,
    validator: Option<&str>,
) -> Result<Response<Body>, Problem> {
    let part = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    let mut request = Request::builder().uri(url);
    request = request
        .header(ACCEPT_ENCODING, "identity")
        .header(RANGE, part);
    if let Some(validator) = validator {
        request = request.header(IF_RANGE, validator);
    }
    let request = request.body(()).map_err(|_| Problem::Url)?;
    let sent = client.send(request, range.end - range.start);
    sent.map_err(Problem::Unreachable)
}

/// Sends a request again that may succeed later, until the time is over.
fn retried<T>(
    timeout: Duration,
    mut request: impl FnMut() -> Result<T, Problem>,
) -> Result<T, Problem> {
    // Without an end if there is no such time.
    let until = Instant::now().checked_add(timeout);
    let mut pause = PAUSE;
    loop {
        match request() {
            Err(problem)
                if problem.is_temporary()
                    && until.is_none_or(|until| Instant::now() + pause < until) =>
            {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answer => return answer,
        }
    }
}

impl Backend for HttpBackend {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.version.size).with_read_only(true)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let len = into.len() as u64;
        self.geometry().check(Operation::Read, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let read = self.read(&(offset..offset + len), into.as_mut_slice());
        read.map_err(|problem| problem.of_read(&self.url, offset))
    }

    fn write_at(&self, _: u64, _: &Sectors<Cipher>) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::Write))
    }

    fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::Discard))
    }

    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::WriteZeroes))
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        Err(IoError::ReadOnly(Operation::Resize))
    }
}
