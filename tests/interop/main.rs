//! Do cryptsetup, QEMU and dm-crypt agree with us in both directions, bit for bit?
//!
//! The peers are real programs that run on plain files; `./test` installs them. A test whose peer
//! is missing prints `skipped: …` and passes, unless `CI=true`.
//!
//! - `cryptsetup`, `qemu`: the two programs on image files, with cheap key derivation.
//! - `dmcrypt`: the kernel's own reader and writer, in a virtual machine that boots from
//!   `initramfs`.
//! - `locks`: which programs may have an image open at the same time.
//! - `payload`: what is written into volumes, and compared as whole images.
//! - `oracles`: the peers compared with each other, since the other tests trust them.
//! - `ours`: the library on image files.
//! - `matrix`: a table of the volumes that are made. `both_ways`: luksmith reads the volumes of
//!   cryptsetup and cryptsetup those of luksmith, with dm-crypt as the judge. `with_qemu`: the same
//!   with QEMU.
//! - `copies`: volumes that were copied from others, or reencrypted beside a client.
//! - `qcow2`: encrypted qcow2 images with QEMU.
//! - `integrity`: volumes with authenticated encryption, whose tags dm-integrity keeps.
//! - `tls`: TLS with gnutls.
//! - `turns`: one program changes keyslots and headers, and the other uses them. `tokens`: luksmith
//!   keeps what it does not know. `unusual`: headers that cryptsetup shows, whatever
//!   is in them.

mod both_ways;
mod copies;
mod cryptsetup;
mod dm_table;
mod dmcrypt;
mod initramfs;
mod integrity;
mod locks;
mod matrix;
mod oracles;
mod ours;
mod partitions;
mod payload;
mod qcow2;
mod qemu;
mod tls;
mod tokens;
mod turns;
mod unusual;
mod with_qemu;
