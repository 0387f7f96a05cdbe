//! Makes a volume in a pool of a libvirt, with a secret that opens it, and prints the disk's XML.
//!
//! `cargo run --example provision -- URI POOL NAME BYTES`, such as
//! `provision qemu:///system default vm1.luks 21474836480`.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program, not the library

use std::error::Error;

use luksmith::Interrupt;
use luksmith::libvirt::{ConnectOptions, Connection};
use luksmith::task::libvirt::provision::{Place, Provision, ProvisionOptions, Provisioned};
use luksmith::task::{self, Note, Watch};

/// Wipes freed memory, since other crates may leave copies of secrets on the heap.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: luksmith::secret::WipingAllocator = luksmith::secret::WipingAllocator;

fn main() -> Result<(), Box<dyn Error>> {
    luksmith::sys::harden()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, pool, name, size] = &arguments[..] else {
        return Err("usage: provision URI POOL NAME BYTES".into());
    };
    let options = ConnectOptions::new().uri(uri.clone());
    let made = make(&Connection::open(&options)?, pool, name, size.parse()?)?;
    eprintln!("secret {} opens {}", made.secret, made.location);
    println!("{}", made.disk.to_xml()?);
    Ok(())
}

/// Makes the volume and the secret, whose passphrase is random.
pub(crate) fn make(
    connection: &Connection,
    pool: &str,
    name: &str,
    size: u64,
) -> Result<Provisioned, task::Error> {
    let (pool, name) = (pool.to_owned(), name.to_owned());
    let place = Place::Pool { pool, name, size };
    // A new volume in a pool destroys nothing, so `Provision::losses` is empty.
    Provision::look(connection, place, ProvisionOptions::default())?.make(&Notes::default())
}

/// Prints notes.
#[derive(Default)]
struct Notes(Interrupt);

impl Watch for Notes {
    fn interrupt(&self) -> &Interrupt {
        &self.0
    }

    fn notes(&self, note: Note<'_>) {
        eprintln!("{note}");
    }
}
