//! A proxy of a server on the loopback interface that records every byte, in both directions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The bytes of one direction of a connection.
type Stream = Arc<Mutex<Vec<u8>>>;

/// A running proxy, until the process ends.
#[derive(Debug)]
pub struct Recorder {
    /// Where its clients connect.
    pub address: SocketAddr,
    streams: Arc<Mutex<Vec<Stream>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Starts a proxy of the server at `HOST:PORT`.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let streams = Arc::<Mutex<Vec<Stream>>>::default();
        let (server, all) = (server.to_owned(), streams.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = join(&client, &server, &all);
            }
        });
        Self { address, streams }
    }

    /// The streams of all connections until now, each direction by itself.
    pub fn streams(&self) -> Vec<Vec<u8>> {
        let streams = lock(&self.streams);
        streams.iter().map(|stream| lock(stream).clone()).collect()
    }
}

/// Connects a client to the server. A thread for each direction copies and records.
fn join(client: &TcpStream, server: &str, all: &Mutex<Vec<Stream>>) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    for (from, to) in [(client, &server), (&server, client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        to.set_nodelay(true)?;
        let stream = Stream::default();
        lock(all).push(stream.clone());
        std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            loop {
                let length = match from.read(&mut bytes) {
                    Ok(length) if length > 0 => length,
                    _ => break,
                };
                // Before the other side has it.
                lock(&stream).extend_from_slice(&bytes[..length]);
                if to.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
