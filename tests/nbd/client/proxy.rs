//! A proxy between a client and a server on Unix sockets that records every byte.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The bytes in one direction over one connection.
type Stream = Arc<Mutex<Vec<u8>>>;

/// Its threads end with their connections. The one that accepts ends with the test.
pub(super) struct Proxy {
    folder: tempfile::TempDir,
    streams: Arc<Mutex<Vec<Stream>>>,
}

impl Proxy {
    /// Starts a proxy for the server at `server`.
    pub(super) fn to(server: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("proxy")).unwrap();
        let streams: Arc<Mutex<Vec<Stream>>> = Arc::default();
        let (server, all) = (server.to_owned(), Arc::clone(&streams));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = UnixStream::connect(&server).unwrap();
                pass(&client, &server, &all);
                pass(&server, &client, &all);
            }
        });
        Self { folder, streams }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("proxy")
    }

    /// The bytes until now, for each connection and direction.
    pub(super) fn record(&self) -> Vec<Vec<u8>> {
        let streams = self.streams.lock().unwrap();
        let bytes = streams.iter().map(|stream| stream.lock().unwrap().clone());
        bytes.collect()
    }
}

fn pass(from: &UnixStream, to: &UnixStream, all: &Mutex<Vec<Stream>>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let stream = Stream::default();
    all.lock().unwrap().push(Arc::clone(&stream));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            stream.lock().unwrap().extend_from_slice(&buffer[..n]);
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
