//! QEMU without libvirt: the objects and block devices with which it opens a volume, and a client
//! of the monitor of a running QEMU.
//!
//! QEMU opens only LUKS1. It gets a passphrase in a file, or wrapped: encrypted with a master key
//! that QEMU reads from a file, so that argument lists and monitor commands do not reveal it.
//!
//! References: QEMU's *QEMU QMP Reference Manual* (`QCryptoSecret`, `BlockdevOptionsLUKS`,
//! `x-blockdev-amend`), its *QMP protocol specification*, and "Providing secret data to QEMU".

mod amend;
mod block;
mod nodes;
mod qmp;
mod wrap;

pub use amend::{AmendError, Gone, Keyslots, NewKeyslot, check_amend, keyslots, set, unset};
pub use block::{Block, Cache, Object, Server, quoted};
pub use nodes::{At, Driver, Node, OpenVolume, check_at_rest, luks_nodes, opened_at};
pub use qmp::{Monitor, Qmp, QmpError, outcome};
pub use wrap::{MasterKey, NoMasterKey, Wrapped};
