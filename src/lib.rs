//! luksmith creates, opens and keeps LUKS1 and LUKS2 volumes entirely in user space: no root, no device-mapper,
//! no loop device, no mount. What it makes, cryptsetup opens, and the other way round.
//!
//! # The way of the bytes
//!
//! ```text
//! your program ──► Volume ──► SectorCrypt ──► Backend ──► a file, a block device, memory, your own
//!    plaintext     volume/      crypt.rs       backend/         ciphertext alone
//! ```
//!
//! A [`Container`](container::Container) is a header that was read and validated, still locked. A
//! [`Passphrase`](secret::Passphrase) unlocks it; what comes of that gives the [`Volume`](volume::Volume), a disk of
//! plaintext with `read_at`, `write_at`, `flush` and `discard`. A [`Cursor`](volume::Cursor) makes it a stream for
//! whatever takes [`Read`](std::io::Read), [`Write`](std::io::Write) and [`Seek`](std::io::Seek). That a storage
//! never sees plaintext is in the types: see [`sectors`].
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
//! // So few iterations are for an example alone; `kdf::calibrate` finds what is right for a machine.
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
//! The folder `examples` has more: `fat.rs` puts a FAT filesystem on a volume in a file, `open.rs` reads one.
//!
//! # The modules
//!
//! From the top down; each uses only those below it.
//!
//! - [`task`]: whole pieces of work for any front end; kinds of failure, progress, notes.
//! - [`location`]: where a volume lies, as text.
//! - [`container`]: create, open, unlock; keyslots, tokens, backup, restore, repair, resize, conversion.
//! - [`audit`]: how libvirt is used, judged from XML and facts of the host.
//! - [`vet`]: verdicts on images from strangers, without a key.
//! - [`libvirt`]: secrets, domains, storage pools and volumes of a libvirt that is installed.
//! - [`export`]: volumes for others to open, over NBD.
//! - [`qemu`]: the arguments by which QEMU opens a volume, and the monitor of a running one.
//! - [`volume`]: the disk of plaintext, used by as many threads as one likes.
//! - [`layout`]: where in the storage each byte of a volume lies; encrypted qcow2 images.
//! - [`kdf`]: PBKDF2, argon2, the anti-forensic splitter, and how much a new keyslot should cost.
//! - [`crypt`]: the only place that turns plaintext into ciphertext and back.
//! - [`xts`]: AES-XTS, the hot path.
//! - [`channel`]: a stream to a peer, Unix or TCP, plain or under TLS.
//! - [`secret`]: passphrases and keys in locked memory, and where they come from.
//! - [`backend`]: what stores the ciphertext; implement [`Backend`](backend::Backend) for a storage of your own.
//! - [`sectors`]: the buffer with two sides, plaintext and ciphertext.
//! - [`xml`]: XML from strangers, read within bounds.
//! - [`sys`]: hardening the process.
//! - [`formats`]: every byte layout, without I/O and without secrets; a crate of its own.
//!
//! # Features
//!
//! A program that needs only the library turns the default feature `cli` off: it is the program,
//! and enables all others. Each feature adds an API; none changes what the rest does. What a build
//! cannot do, it refuses with [`MissingFeature`], which names the feature.
//!
//! - none: LUKS1 and LUKS2 on files, block devices and memory, also in qcow2 images.
//! - `nbd`: `channel`, `backend::nbd` and `export::nbd`.
//! - `libvirt`: `libvirt` and `qemu`.
//! - `vet`: `vet` and `audit`.
//! - `ciphers`: Serpent, Twofish and Camellia; RIPEMD-160 and Whirlpool.
//! - `qcow2-compressed`: reading compressed clusters of encrypted qcow2 images.
//!
//! # Secrets
//!
//! Passphrases and keys live in locked memory, are wiped when dropped, and show nothing in `Debug` or in an error.
//! Programs should also set [`WipingAllocator`](secret::WipingAllocator) as their global allocator, for what code of
//! others leaves on the heap, and call [`sys::harden`] as they start. A header from a stranger is safe to open: what
//! it may cost is capped by [`Limits`](formats::Limits), and long work looks at an [`Interrupt`].

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
mod interrupt;
pub mod kdf;
pub mod layout;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod location;
#[cfg(feature = "libvirt")]
pub mod qemu;
pub mod secret;
pub mod sectors;
pub mod sys;
pub mod task;
#[cfg(feature = "vet")]
pub mod vet;
pub mod volume;
#[cfg(any(feature = "libvirt", feature = "vet"))]
pub mod xml;
pub mod xts;

pub use feature::MissingFeature;
pub use interrupt::Interrupt;
pub use luksmith_formats as formats;

/// Compiles the Rust code of `docs/library.md`.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;
