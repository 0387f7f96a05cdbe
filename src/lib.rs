//! luksmith creates, opens and maintains LUKS1 and LUKS2 volumes entirely in user space, without
//! root, device-mapper, loop devices or mounting. cryptsetup opens the volumes that luksmith makes,
//! and luksmith opens those of cryptsetup.
//!
//! # The path of the data
//!
//! ```text
//! your program ──► Volume ──► SectorCrypt ──► Backend ──► a file, a block device, memory, your own
//!    plaintext     volume/      crypt.rs       backend/         only ciphertext
//! ```
//!
//! A [`Container`](container::Container) is a header that was read and validated, and is still
//! locked. A [`Passphrase`](secret::Passphrase) unlocks it, which gives an
//! [`Unlocked`](container::Unlocked) key. From that the container makes a
//! [`Volume`](volume::Volume), a plaintext disk with `read_at`, `write_at`, `flush` and `discard`.
//! A [`Cursor`](volume::Cursor) makes it a stream that implements [`Read`](std::io::Read),
//! [`Write`](std::io::Write) and [`Seek`](std::io::Seek). The types guarantee that a storage never
//! sees plaintext: see [`sectors`].
//!
//! ```
//! use std::sync::Arc;
//!
//! use luksmith::Interrupt;
//! use luksmith::backend::memory::MemoryBackend;
//! use luksmith::container::{Container, CreateOptions, OpenOptions, Undo, Version, Which};
//! use luksmith::formats::Hash;
//! use luksmith::kdf::calibrate::Cost;
//! use luksmith::secret::Passphrase;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // 16 MiB for the header, 1 MiB for the data.
//! let storage = Arc::new(MemoryBackend::new(17 << 20));
//! let passphrase = Passphrase::copy_from(b"correct horse battery staple")?;
//! let interrupt = Interrupt::new();
//!
//! // So few iterations are for examples only. `kdf::calibrate` finds the right number.
//! let cost = Cost::Pbkdf2 { hash: Hash::Sha256, iterations: 1000 };
//! let options = CreateOptions::new(Version::Luks2, cost);
//! let open = OpenOptions::new(Undo::NotLookedFor);
//! Container::create(storage.clone(), options, open.clone(), &passphrase, &interrupt)?;
//!
//! let container = Container::open(storage.clone(), open)?;
//! let unlocked = container.unlock(&passphrase, Which::Any, &interrupt)?;
//! let volume = container.volume(storage, &unlocked)?;
//! volume.write_at(1000, b"hello")?;
//! volume.flush()?;
//!
//! let mut bytes = [0; 5];
//! volume.read_at(1000, &mut bytes)?;
//! assert_eq!((&bytes, volume.size()), (b"hello", 1 << 20));
//! # Ok(())
//! # }
//! ```
//!
//! The folder `examples` has complete programs: `encrypt.rs` encrypts a disk image and shows its
//! progress, `fat.rs` puts a FAT file system on a volume in a file, `open.rs` reads from a volume,
//! and `keyslots.rs` changes its keyslots. `partition.rs` implements a `Backend`. `serve_tls.rs`
//! serves a volume over TLS, and `serve_socket.rs` serves a disk in memory on a Unix socket.
//! `provision.rs` makes a volume with its secret in a libvirt, and `rotate.rs` gives it a new
//! passphrase.
//!
//! # The modules
//!
//! A module uses only modules that are below it in this list:
//!
//! - [`task`]: whole pieces of work for any front end; kinds of failures, progress, notes.
//! - [`location`]: where a volume is stored, as text.
//! - [`partition`]: where a partition of a disk is.
//! - [`container`]: headers and keyslots: create, open, unlock, tokens, backup, repair, conversion.
//! - [`trust`]: state of this host that tells whether a storage is honest.
//! - [`audit`]: judges how libvirt is used, from XML and facts about the host.
//! - [`vet`]: judges images of unknown origin, without a key.
//! - [`tokens`]: tokens of LUKS2 headers that give a passphrase.
//! - [`libvirt`]: secrets, domains, storage pools and volumes of an installed libvirt.
//! - [`objects`]: a storage that is a log of objects, in an object store.
//! - [`export`]: serves volumes to clients, over NBD.
//! - [`qemu`]: the arguments with which QEMU opens a volume, and the monitor of a running QEMU.
//! - [`volume`]: the plaintext disk, for any number of threads.
//! - [`layout`]: the place of each byte of a volume in the storage; encrypted qcow2 images.
//! - [`kdf`]: PBKDF2, argon2, the anti-forensic splitter, and the calibration of costs.
//! - [`crypt`]: the only place that converts plaintext into ciphertext and back.
//! - [`xts`]: the cipher mode AES-XTS, with kernels for several CPUs.
//! - [`backend`]: the storage of ciphertext. Implement [`Backend`](backend::Backend) for your own.
//! - [`helpers`]: the helpers of key stores that the program brings.
//! - [`channel`]: a stream to a peer, over Unix sockets or TCP, plain or with TLS.
//! - [`secret`]: passphrases and keys in locked memory, and the sources that they are read from.
//! - [`sectors`]: the buffer that is either plaintext or ciphertext, by its type.
//! - [`xml`]: XML from untrusted sources, parsed within limits.
//! - [`sys`]: hardening of the process.
//! - [`formats`]: the byte layouts of headers, images and messages, in a crate of their own.
//!
//! # Features
//!
//! The default feature `cli` is the program, and enables all others. A program that needs only the
//! library turns it off. A feature adds an API, and never changes what the rest does. A header or
//! an image that needs a missing feature is refused with [`MissingFeature`], which names the
//! feature.
//!
//! - none: LUKS1 and LUKS2 on files, block devices and memory, also in qcow2 images.
//! - `nbd`: `channel`, `backend::nbd` and `export::nbd`.
//! - `objects`: `objects`, for an object store of your own; `s3`: `objects::s3`.
//! - `http`: `backend::http`.
//! - `tang`: `tokens::clevis`.
//! - `libvirt`: `libvirt` and `qemu`.
//! - `vet`: `vet` and `audit`.
//! - `tpm2`: `tokens::tpm2`.
//! - `ciphers`: Serpent, Twofish, Camellia, CAST5 and adiantum; RIPEMD-160, Whirlpool, SM3, SHA-3
//!   and BLAKE2.
//! - `integrity`: AES-GCM, ChaCha20-Poly1305 and AEGIS-128 in volumes with authenticated
//!   encryption.
//! - `qcow2-compressed`: reading compressed clusters of encrypted qcow2 images.
//!
//! # Secrets
//!
//! Passphrases and keys are in locked memory, are wiped when they are dropped, and never appear in
//! `Debug` output or in an error. A program should also set
//! [`WipingAllocator`](secret::WipingAllocator) as its global allocator, since other crates leave
//! copies on the heap, and call [`sys::harden`] when it starts. Opening a header of unknown origin
//! is safe: [`Limits`](formats::Limits) bound its cost, and long work checks an [`Interrupt`].

#[macro_use]
mod setters;

#[cfg(feature = "vet")]
pub mod audit;
pub mod backend;
#[cfg(feature = "nbd")]
pub mod channel;
pub mod container;
pub mod crypt;
mod door;
pub mod export;
mod feature;
pub mod helpers;
#[cfg(any(feature = "http", feature = "s3", feature = "tang"))]
pub mod http;
#[cfg(any(feature = "vet", feature = "qcow2-compressed"))]
mod inflate;
mod interrupt;
pub mod kdf;
pub mod layout;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod location;
#[cfg(feature = "objects")]
pub mod objects;
pub mod partition;
#[cfg(feature = "libvirt")]
pub mod qemu;
pub mod reencrypt;
pub mod secret;
pub mod sectors;
pub mod sys;
pub mod task;
pub mod tokens;
pub mod trust;
#[cfg(feature = "vet")]
pub mod vet;
pub mod volume;
#[cfg(any(feature = "libvirt", feature = "s3", feature = "vet"))]
pub mod xml;
pub mod xts;

pub use feature::MissingFeature;
pub use interrupt::Interrupt;
pub use luksmith_formats as formats;
/// The crate whose `Uuid` the public API uses: UUIDs of volumes and of libvirt's objects. A change
/// of its major version is a change of this library's.
pub use uuid;

/// Compiles the Rust code of `docs/library.md`.
#[cfg(all(doctest, feature = "cli"))]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;
