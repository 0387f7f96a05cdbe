//! Do cryptsetup, QEMU and dm-crypt agree with us, both ways, bit for bit?
//!
//! The peers are real programs, started on plain files; `./test` installs them. A test whose peer is not there
//! prints `skipped: …` and passes, unless `CI=true`: there a missing peer fails.
//!
//! - `cryptsetup`, `qemu`: the two programs on image files, with key derivation turned down to be quick.
//! - `dmcrypt`: the kernel's own reader and writer, in a virtual machine (`initramfs` is what boots there).
//! - `locks`: who may have an image open at the same time.
//! - `payload`: what is written into volumes and compared as whole images.
//! - `oracles`: the peers against each other: that what is trusted here deserves it.
//! - `ours`: the library on image files.
//! - `matrix`: which volumes are made, as a table; `both_ways`: theirs read by us and ours by them, with dm-crypt as
//!   the judge; `with_qemu`: the same with QEMU.
//! - `qcow2`: encrypted qcow2 images with QEMU.
//! - `tls`: TLS with gnutls.
//! - `turns`: keyslots and headers changed by one and used by the other; `tokens`: what we do not know survives.

mod both_ways;
mod cryptsetup;
mod dmcrypt;
mod initramfs;
mod locks;
mod matrix;
mod oracles;
mod ours;
mod payload;
mod qcow2;
mod qemu;
mod tls;
mod tokens;
mod turns;
mod with_qemu;
