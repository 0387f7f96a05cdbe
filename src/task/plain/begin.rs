//! Refuses plain data that begins as the file of a disk image does.
//!
//! A copy of such a file as it is would give the guest the file, not the disk in it. A signature
//! only refuses. It never chooses how data is read: the caller states that.

use luksmith_formats::image::signature::{Signature, signatures};
use luksmith_formats::image::vhd;

use crate::task::{Advice, Error, Kind};

/// Formats whose signature an ordinary raw disk has, or that one finds anywhere in a disk.
const RAW: [&str; 5] = ["mbr", "gpt", "iso", "udf", "dmg"];

/// The length of the footer at the end of a fixed VHD.
const FOOTER: usize = 512;

/// Refuses data with the signature of a disk image or of a LUKS volume. `start` is its begin, and
/// `end` its end, which is empty where it is not known. `size` is its size in bytes.
pub(super) fn refuse_images(name: &str, start: &[u8], end: &[u8], size: u64) -> Result<(), Error> {
    let Some(image) = found(start, end, size) else {
        return Ok(());
    };
    let what = match image.format {
        "luks" => "a LUKS volume".to_owned(),
        format => format!("a disk image ({format})"),
    };
    let place = if image.offset == 0 || image.format == "vdi" {
        "begins"
    } else {
        "ends"
    };
    let message = format!("{name} {place} as {what} does, and is not the raw data of a disk");
    Err(Error::new(Kind::Parameters, message).advise(Advice::SourceFormat(image.format)))
}

/// The format of the disk image or of the LUKS volume whose signature the data has.
pub(in crate::task) fn image_in(start: &[u8], end: &[u8], size: u64) -> Option<&'static str> {
    found(start, end, size).map(|seen| seen.format)
}

fn found(start: &[u8], end: &[u8], size: u64) -> Option<Signature> {
    let mut found = signatures(start, end, size).into_iter();
    found.find(|seen| match (seen.format, seen.offset) {
        ("vhd", 1..) => is_fixed_vhd(end, size),
        (format, _) => !RAW.contains(&format),
    })
}

/// Whether the last sector is the footer of a fixed VHD. A raw disk can end with the eight letters
/// of its signature, but not by chance with its checksum and the size of the data before it.
fn is_fixed_vhd(end: &[u8], size: u64) -> bool {
    let footer = end.len().checked_sub(FOOTER).and_then(|at| end.get(at..));
    let Some((bytes, footer)) = footer.and_then(|bytes| Some((bytes, vhd::Footer::parse(bytes)?)))
    else {
        return false;
    };
    let fits = footer.current_size.checked_add(FOOTER as u64) == Some(size);
    fits && footer.checksum == vhd::checksum(bytes, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins(magic: &[u8], at: usize) -> Result<(), Error> {
        let mut start = vec![0; 4096];
        start[at..at + magic.len()].copy_from_slice(magic);
        refuse_images("x", &start, &[], 1 << 20)
    }

    #[test]
    fn images_are_refused_and_disks_are_not() {
        for (magic, at) in [
            (&b"QFI\xfb\0\0\0\x03"[..], 0),
            (b"QED\0", 0),
            (b"KDMV", 0),
            (b"# Disk DescriptorFile", 0),
            (b"conectix", 0),
            (b"vhdxfile", 0),
            (b"\x7f\x10\xda\xbe", 64),
            (b"LUKS\xba\xbe\0\x01", 0),
        ] {
            let error = begins(magic, at).unwrap_err();
            assert_eq!(error.kind(), Kind::Parameters);
            assert!(error.line().contains("begins as"), "{error}");
        }
        begins(b"EFI PART", 512).unwrap();
        begins(b"\x55\xaa", 510).unwrap();
        begins(b"", 0).unwrap();
    }

    #[test]
    fn only_a_whole_footer_makes_a_fixed_vhd() {
        let size = 1 << 20;
        let mut footer = vec![0; FOOTER];
        footer[..8].copy_from_slice(b"conectix");
        footer[48..56].copy_from_slice(&(size - 512_u64).to_be_bytes());
        refuse_images("x", &[], &footer, size).unwrap();
        let checksum = vhd::checksum(&footer, 64);
        footer[64..68].copy_from_slice(&checksum.to_be_bytes());
        let error = refuse_images("x", &[], &footer, size).unwrap_err();
        assert!(
            error.line().contains("ends as a disk image (vhd)"),
            "{error}"
        );
        refuse_images("x", &[], &footer, size + 512).unwrap();
    }
}
