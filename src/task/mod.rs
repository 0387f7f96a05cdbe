//! Whole pieces of work, for any front end: a command line, a daemon, a binding to another
//! language.
//!
//! A task asks no questions and prints nothing. While it runs, it reports progress and notes to a
//! [`Watch`]. A failure is an [`Error`]: a program maps its [`Kind`] to exit codes or exceptions of
//! its own, and its [`Advice`] says what may help. A task that would destroy something returns what
//! would be lost before it touches anything: the caller decides.
//!
//! ```
//! use luksmith::location::Location;
//! use luksmith::secret::Passphrase;
//! use luksmith::task::new_volume::{Extent, NewVolume, Plan};
//! use luksmith::task::{Kind, Silent, Watch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("luksmith-doc-{}", std::process::id()));
//! # std::fs::create_dir(&folder)?;
//! let image = Location::Path(folder.join("disk.img"));
//! let passphrase = Passphrase::copy_from(b"correct horse battery staple")?;
//! let watch = Silent::default();
//!
//! let mut new = NewVolume::default();
//! // So few passes are for examples only. Without this line they are measured.
//! new.cost.iterations = Some(4);
//! # new.cost.memory_kib = Some(32);
//! let plan = Plan::look(new, &image, Extent::Exactly(1 << 20))?;
//! assert!(plan.losses().is_empty());
//! let made = plan.make(&passphrase, &watch)?;
//! made.volume()?.write_at(0, b"hello")?;
//! made.keep()?;
//!
//! // The image exists now: to make it again would lose it.
//! let again = Plan::look(NewVolume::default(), &image, Extent::Exactly(1 << 20))?;
//! assert!(again.losses()[0].to_string().contains("would be replaced"));
//!
//! // A task stops soon after the interrupt is set.
//! watch.interrupt().trigger();
//! let stopped = again.make(&passphrase, &watch).err().map(|error| error.kind());
//! assert_eq!(stopped, Some(Kind::Interrupted));
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```

mod advice;
#[cfg(feature = "libvirt")]
pub mod amend;
#[cfg(feature = "vet")]
pub mod audit;
#[cfg(feature = "cli")]
pub mod background;
#[cfg(feature = "nbd")]
pub mod captive;
mod ceph;
pub mod copy;
pub mod cost;
pub mod destination;
#[cfg(feature = "vhost-user")]
pub mod disk_sockets;
pub mod dm_crypt;
#[cfg(feature = "libvirt")]
pub mod emulator;
mod error;
pub mod export_text;
pub mod exports;
#[cfg(feature = "vet")]
pub mod inspect;
pub mod key_rotate;
pub mod keyslots;
mod kinds;
#[cfg(feature = "libvirt")]
pub mod libvirt;
#[cfg(feature = "nbd")]
pub mod listen;
mod made_file;
pub mod measure;
#[cfg(feature = "fuse")]
pub mod mount;
pub mod new_file;
mod new_image;
pub mod new_volume;
mod note;
pub mod objects;
mod occupied;
pub mod open;
#[cfg(feature = "nbd")]
mod open_sockets;
pub mod open_volume;
pub mod openers;
pub mod outcome;
mod pace;
mod part;
pub mod pid_file;
pub mod plain;
mod printable;
pub mod public_files;
#[cfg(feature = "libvirt")]
pub mod qemu_arguments;
pub mod reencrypt;
pub mod resize;
#[cfg(feature = "vet")]
pub mod search;
#[cfg(all(feature = "nbd", feature = "vhost-user"))]
pub mod service;
pub mod size;
pub mod storage;
pub mod tokens;
pub mod trust;
#[cfg(any(feature = "nbd", feature = "vhost-user"))]
mod unix_socket;
mod watch;
mod web;

pub use advice::{Advice, key_sizes};
pub use error::{Error, Kind, chain};
pub use made_file::MadeFile;
pub use note::Note;
pub use pace::Pace;
pub use printable::printable;
pub use watch::{Silent, Unit, Watch, Work, Working};
