//! Storage on an NBD server whose connections break every hundred requests or so, and which then
//! also loses its cache.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use luksmith::backend::nbd::{ConnectOptions, NbdBackend};
use luksmith::backend::{Backend, Geometry, IoError};
use luksmith::sectors::{Cipher, Sectors};

use support::nbd_server::{Action, FakeServer, Shape};

/// An export with its server.
pub(crate) struct Export {
    storage: NbdBackend,
    _server: FakeServer,
}

impl Export {
    pub(crate) fn new(size: usize) -> Self {
        let count = AtomicUsize::new(0);
        let shape = Shape {
            size,
            ..Shape::default()
        };
        let server = FakeServer::new(shape, move |_| {
            // Far enough apart that no request meets five breaks, however late its thread runs.
            match count.fetch_add(1, Ordering::SeqCst) % 331 {
                11 => Action::HangUp { carried_out: true },
                127 => Action::HangUp { carried_out: false },
                330 => Action::Die,
                _ => Action::Serve,
            }
        });
        let options = ConnectOptions::new().write(true);
        Self {
            storage: NbdBackend::connect(server.uri(), options).unwrap(),
            _server: server,
        }
    }
}

impl Backend for Export {
    fn geometry(&self) -> Geometry {
        self.storage.geometry()
    }
    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        self.storage.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, from: &Sectors<Cipher>) -> Result<(), IoError> {
        self.storage.write_at(offset, from)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.storage.flush()
    }
    /// Discards as a file does. A server may lose a discard with its cache, which the model does
    /// not know.
    fn discard(&self, range: Range<u64>) -> Result<(), IoError> {
        self.storage.discard(range.clone())?;
        self.storage.write_zeroes(range)
    }
    fn write_zeroes(&self, range: Range<u64>) -> Result<(), IoError> {
        self.storage.write_zeroes(range)
    }
    fn resize(&self, size: u64) -> Result<(), IoError> {
        self.storage.resize(size)
    }
}
