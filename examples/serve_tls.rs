//! Serves a volume over TLS, to clients with a certificate of an authority.
//!
//! `cargo run --example serve_tls -- IMAGE ADDRESS:PORT DIRECTORY`, where DIRECTORY contains
//! `ca-cert.pem`, `server-cert.pem` and `server-key.pem`, as for QEMU, libvirt and nbdkit.

#![allow(clippy::print_stdout)] // a program, not the library

use std::error::Error;
use std::path::Path;

use luksmith::channel::ServerTls;
use luksmith::export::nbd::{Options, Server};
use luksmith::formats::Limits;
use luksmith::location::Location;
use luksmith::secret::{Purpose, SecretSource, Source};
use luksmith::task::exports::Wanted;
use luksmith::task::listen::{Listen, Listening, Place};
use luksmith::task::open::Image;
use luksmith::task::{Silent, Watch};

/// Wipes freed memory, since other crates may leave copies of secrets on the heap.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    luksmith::sys::harden()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, address, certificates] = &arguments[..] else {
        return Err("usage: serve_tls IMAGE ADDRESS:PORT DIRECTORY".into());
    };
    let watch = Silent::default();
    let passphrase: Source = "prompt".parse()?;
    let (server, sockets) = prepare(image, &passphrase, address, certificates, &watch)?;
    println!("{}", sockets.uri(""));
    // Returns when a `Stopper` of the server is used, for example by a signal handler.
    Ok(sockets.serve(&server)?)
}

/// Opens the volume and the TCP port. From now on clients can connect; they are served by
/// `Listening::serve`.
pub(crate) fn prepare<'a>(
    image: &str,
    passphrase: &Source,
    address: &str,
    certificates: impl AsRef<Path>,
    watch: &'a Silent,
) -> Result<(Server, Listening<'a>), Box<dyn Error>> {
    // The place is checked first: it is refused if clients could connect without a certificate.
    let mut options = Options::default();
    options.tls = Some(ServerTls::from_directory(certificates.as_ref())?);
    let listen = Listen::new(Place::tcp(address)?, &options)?;

    let image = Image::new(Location::parse(image.as_ref())?);
    let locked = Wanted::new("", image).open(Limits::default(), watch)?;
    let passphrase = passphrase.read(Purpose::unlock("the volume", watch.interrupt()))?;
    let export = locked.unlock(&passphrase, watch)?;
    Ok((Server::new([export], options)?, listen.start(watch)?))
}
