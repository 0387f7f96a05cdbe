//! Compressed clusters, packed as QEMU packs them: each begins at the byte after the one before, so
//! that a cluster of the image holds several, and one may be in two clusters of the image.

use luksmith_formats::image::qcow2::{COPIED, Header, table_entry};
use miniz_oxide::deflate::compress_to_vec;

/// Replaces clusters of the guest by compressed ones that hold `plain`, from the cluster number
/// `guest` on. Returns how many were replaced.
///
/// They are written where these clusters were, and what remains there is freed. Therefore only as
/// many are replaced as are consecutive in the image and have a refcount of 1.
///
/// # Panics
///
/// If the image is malformed, or `plain` does not become smaller.
pub fn compress(image: &mut [u8], guest: u64, plain: &[u8]) -> usize {
    let header = Header::parse(image).unwrap();
    let cluster = 1_u64 << header.cluster_bits;
    let parts = plain.chunks_exact(size(cluster));
    let places: Vec<u64> = (guest..guest + parts.len() as u64)
        .map_while(|guest| entry_at(image, &header, guest))
        .collect();
    let Some(entry) = places.first().map(|place| word(image, *place)) else {
        return 0;
    };
    let (first, _) = table_entry(entry, COPIED);
    let row = (first..).step_by(size(cluster)).zip(&places);
    let in_a_row = |(at, place): &(u64, &u64)| *at != 0 && word(image, **place) == *at | COPIED;
    let count = row.take_while(in_a_row).count();
    let mut uses = vec![0; count];
    let mut at = first;
    for (place, part) in places.iter().copied().zip(parts).take(count) {
        let data = compress_to_vec(part, 6);
        let end = at + data.len() as u64;
        assert!(end <= first + uses.len() as u64 * cluster, "no room");
        image[size(at)..size(end)].copy_from_slice(&data);
        let sectors = (end - 1) / 512 - at / 512;
        let entry = (1 << 62) | sectors << (62 - (header.cluster_bits - 8)) | at;
        image[size(place)..size(place) + 8].copy_from_slice(&entry.to_be_bytes());
        for used in (at - first) / cluster..(end - first).div_ceil(cluster) {
            uses[size(used)] += 1;
        }
        at = end;
    }
    for (host, uses) in (first / cluster..).zip(uses) {
        set_count(image, &header, host, uses);
    }
    count
}

/// The offset of a cluster's L2 entry, if its L2 table is allocated.
fn entry_at(image: &[u8], header: &Header, guest: u64) -> Option<u64> {
    let each = (1 << header.cluster_bits) / 8;
    let (table, _) = table_entry(word(image, header.l1_offset + guest / each * 8), COPIED);
    (table != 0).then_some(table + guest % each * 8)
}

/// Sets a refcount of 16 or 64 bits.
fn set_count(image: &mut [u8], header: &Header, host: u64, count: u64) {
    let bytes = (1 << header.refcount_order) / 8;
    let each = (1 << header.cluster_bits) / bytes;
    let table = header.refcount_table_offset + host / each * 8;
    let at = size(word(image, table) + host % each * bytes);
    let count = &count.to_be_bytes()[8 - size(bytes)..];
    image[at..at + size(bytes)].copy_from_slice(count);
}

fn word(image: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(*image[size(at)..].first_chunk().unwrap())
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap()
}
