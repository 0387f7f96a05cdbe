//! Does every prefix, every reordering and every torn last write of every metadata change leave a
//! volume that opens?
//!
//! The disk of these tests records each write and flush of a change. From the recording the tests
//! build every state that a power failure can leave. Flushed writes are there. Each write after the
//! last flush is there or not, in any combination, and the last one may be cut off after any 512
//! bytes, the unit that disks write atomically. In each state the header must open (after `repair`,
//! if there is an undo record), the old or the new passphrase must give the same volume key, and
//! the payload must be unchanged. After the change has returned, a removed passphrase opens
//! nothing.
//!
//! For comparison: cryptsetup 2.6.1 loses the key in 56 of 59 such states when it changes a LUKS1
//! key in place, in 46 of 56 for LUKS2 with all slots full, and in 8 of 13 and 6 of 10 on header
//! restore.

#![allow(missing_docs)]

mod between;
mod changes;
mod disk;
mod enrolment;
mod file_systems;
mod in_place;
mod killed;
mod online;
mod part;
mod pinned;
mod qcow2;
mod record;
mod reencryption;
mod remote;
mod room;
mod space;
mod states;
mod volume;
