//! The guest's memory, as the client shares it.
//!
//! The guest reads and writes this memory at any time: its page cache is there, and so are the
//! rings. So no Rust reference to it exists. It is used through [`Window`]s only, to which sectors
//! are decrypted and from which they are encrypted, with raw loads and stores. Ciphertext is never
//! there. `virtio-queue` accesses the rings, in the same way.
//!
//! A client can also shorten the file behind its memory. Then the memory is [lost](Memory::is_lost)
//! for the server too, and the server drops the client.

#![allow(unsafe_code)] // a window of a mapping

use std::fs::File;
use std::io;
use std::sync::Arc;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    GuestAddress, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
    MmapRegion,
};

use crate::sys::shared_memory::Claim;
use crate::volume::{Window, Windows};

/// The most regions of one client.
pub(super) const MAX_REGIONS: usize = 64;

/// What `virtio-queue` reads the rings from.
pub(super) type Map = GuestMemoryMmap<()>;

/// Some of the guest's memory: an address of the guest, and a length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// The bytes of all segments together.
pub(super) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// An address that is not in the guest's memory, or memory that the client has taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotThere;

/// The memory of a guest. It does not change; another table of regions is another value.
#[derive(Default)]
pub(super) struct Memory {
    // The claims end before the regions are unmapped, so this is the first field.
    regions: Vec<Arc<Region>>,
    map: Map,
}

struct Region {
    claim: Claim,
    mapped: Arc<GuestRegionMmap<()>>,
    /// Where the client has this region in its own memory.
    of_client: u64,
}

impl Memory {
    /// This memory and another region, which is in `file`.
    pub(super) fn with(&self, region: &VhostUserMemoryRegion, file: File) -> io::Result<Self> {
        let refused = |why: &'static str| io::Error::new(io::ErrorKind::InvalidInput, why);
        if self.regions.len() >= MAX_REGIONS {
            return Err(refused("too many regions of memory"));
        }
        let found = file.metadata()?;
        let (offset, size) = (region.mmap_offset, region.memory_size);
        let end = offset.checked_add(size);
        if found.is_file() && end.is_none_or(|end| end > found.len()) {
            return Err(refused("a region of memory is larger than its file"));
        }
        let mapping: MmapRegion<()> = region.mmap_region(file).map_err(io::Error::other)?;
        let claim = Claim::new(mapping.as_ptr(), mapping.size())?;
        let mapped = GuestRegionMmap::new(mapping, GuestAddress(region.guest_phys_addr))
            .ok_or_else(|| refused("a region of memory has no valid address"))?;
        let mapped = Arc::new(mapped);
        let map = self.map.insert_region(mapped.clone());
        let map = map.map_err(|_| refused("two regions of memory overlap"))?;
        let mut regions = self.regions.clone();
        regions.push(Arc::new(Region {
            claim,
            mapped,
            of_client: region.user_addr,
        }));
        Ok(Self { regions, map })
    }

    /// This memory without a region; `None` if it has no such region.
    pub(super) fn without(&self, region: &VhostUserMemoryRegion) -> Option<Self> {
        let (start, len, of_client) =
            (region.guest_phys_addr, region.memory_size, region.user_addr);
        let is_it = |other: &Region| {
            other.mapped.start_addr().0 == start
                && other.mapped.len() == len
                && other.of_client == of_client
        };
        let mut regions = self.regions.clone();
        regions.remove(regions.iter().position(|region| is_it(region))?);
        let (map, _) = self.map.remove_region(GuestAddress(start), len).ok()?;
        Some(Self { regions, map })
    }

    /// The guest's address of an address in the client's memory.
    pub(super) fn address(&self, of_client: u64) -> Option<GuestAddress> {
        self.regions.iter().find_map(|region| {
            let offset = of_client.checked_sub(region.of_client)?;
            let start = region.mapped.start_addr().0;
            (offset < region.mapped.len()).then(|| GuestAddress(start + offset))
        })
    }

    /// The memory for `virtio-queue`.
    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Whether the client has taken a part of its memory away.
    pub(super) fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.claim.is_lost())
    }

    /// The `len` bytes of the segments from `skip` on.
    pub(super) fn windows(
        &self,
        segments: &[Segment],
        skip: u64,
        len: usize,
    ) -> Result<Vec<Window<'_>>, NotThere> {
        let mut windows = Vec::with_capacity(segments.len());
        self.each(segments, skip, len, |_, window| windows.push(window))?;
        Ok(windows)
    }

    /// Calls `use_window` for each part of the `len` bytes from `skip` on, with the bytes before
    /// it. After an error it was called for some of them.
    fn each<'a>(
        &'a self,
        segments: &[Segment],
        skip: u64,
        len: usize,
        mut use_window: impl FnMut(usize, Window<'a>),
    ) -> Result<(), NotThere> {
        let mut found = 0;
        for (mut address, mut left) in pieces(segments, skip, len) {
            // A piece can cross regions that border on each other.
            while left > 0 {
                let window = self.window(address, left).ok_or(NotThere)?;
                let there = window.len();
                use_window(found, window);
                address += there as u64;
                found += there;
                left -= there;
            }
        }
        match found == len {
            true => Ok(()),
            false => Err(NotThere),
        }
    }

    /// At least one and at most `len` bytes from an address on, which are in one region.
    fn window(&self, address: u64, len: usize) -> Option<Window<'_>> {
        let (region, offset) = self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.mapped.start_addr().0)?;
            (offset < region.mapped.len()).then_some((region, offset))
        })?;
        let there = usize::try_from(region.mapped.len() - offset).unwrap_or(usize::MAX);
        let start = region.mapped.get_host_address(MemoryRegionAddress(offset));
        let start = start.ok()?;
        // SAFETY: the region has that many bytes from `start` on. It stays mapped as long as the
        // `Region`, which `self` keeps, and nothing makes a reference to its bytes.
        let window = unsafe { Window::new(start, len.min(there)) };
        Some(window.until_lost(region.claim.lost()))
    }

    /// Copies the bytes of the segments from `skip` on to `into`.
    pub(super) fn copy_out(
        &self,
        segments: &[Segment],
        skip: u64,
        into: &mut [u8],
    ) -> Result<(), NotThere> {
        let mut lost = false;
        self.each(segments, skip, into.len(), |at, window| {
            let part = &mut into[at..at + window.len()];
            let windows = [window];
            let windows = Windows::new(&windows);
            windows.copy_to(part);
            lost |= windows.are_lost();
        })?;
        match lost {
            false => Ok(()),
            true => Err(NotThere),
        }
    }

    /// Copies `from` to the bytes of the segments from `skip` on.
    pub(super) fn copy_in(
        &self,
        segments: &[Segment],
        skip: u64,
        from: &[u8],
    ) -> Result<(), NotThere> {
        self.each(segments, skip, from.len(), |at, window| {
            let part = &from[at..at + window.len()];
            Windows::new(&[window]).copy_from(part);
        })
    }
}

/// Where `len` bytes of the segments from `skip` on are: addresses and lengths.
fn pieces(
    segments: &[Segment],
    mut skip: u64,
    len: usize,
) -> impl Iterator<Item = (u64, usize)> + '_ {
    let mut left = len as u64;
    segments.iter().filter_map(move |segment| {
        let whole = u64::from(segment.len);
        let before = skip.min(whole);
        skip -= before;
        let here = (whole - before).min(left);
        left -= here;
        let len = usize::try_from(here).ok().filter(|len| *len > 0)?;
        Some((segment.address.checked_add(before)?, len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: u64, len: u32) -> Segment {
        Segment { address, len }
    }

    fn region(guest: u64, len: u64, of_client: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::new(guest, len, of_client, 0)
    }

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    fn memory() -> Memory {
        let memory = Memory::default();
        let memory = memory.with(&region(0, 8192, 1 << 40), file(8192)).unwrap();
        let above = region(16384, 4096, 1 << 41);
        memory.with(&above, file(4096)).unwrap()
    }

    #[test]
    fn bytes_are_found_across_segments() {
        let memory = memory();
        let segments = [segment(8190, 2), segment(100, 3), segment(16384, 5)];
        assert_eq!(total(&segments), 10);
        memory.copy_in(&segments, 1, b"abcdefg").unwrap();
        let mut read = [0; 9];
        memory.copy_out(&segments, 0, &mut read).unwrap();
        assert_eq!(&read, b"\0abcdefg\0");
        let mut direct = [0; 3];
        memory
            .copy_out(&[segment(16384, 3)], 0, &mut direct)
            .unwrap();
        assert_eq!(&direct, b"efg");
    }

    #[test]
    fn bytes_are_found_across_regions_that_border_on_each_other() {
        let memory = Memory::default();
        let memory = memory.with(&region(8192, 4096, 0), file(4096)).unwrap();
        let memory = memory.with(&region(4096, 4096, 1 << 40), file(4096));
        let memory = memory.unwrap();
        let segments = [segment(8000, 300)];
        let lens = |skip, len| -> Vec<usize> {
            let windows = memory.windows(&segments, skip, len).unwrap();
            windows.iter().map(Window::len).collect()
        };
        assert_eq!(lens(0, 300), [192, 108]);
        assert_eq!(lens(192, 100), [100]);
        assert_eq!(lens(0, 0), [0; 0]);
        let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
        memory.copy_in(&segments, 0, &bytes).unwrap();
        let mut read = [0; 108];
        memory
            .copy_out(&[segment(8192, 108)], 0, &mut read)
            .unwrap();
        assert_eq!(read, bytes[192..]);
        let past = [segment(12_200, 300)];
        assert!(matches!(memory.windows(&past, 0, 300), Err(NotThere)));
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let memory = memory();
        for segments in [
            // Into a gap, past the end, at the end of the address space, and too short.
            &[segment(8190, 4)][..],
            &[segment(16384, 4097)],
            &[segment(u64::MAX - 1, 4)],
            &[segment(0, 3)],
        ] {
            let mut into = vec![0; 4097];
            let len = into
                .len()
                .min(usize::try_from(total(segments)).unwrap())
                .max(4);
            let into = &mut into[..len];
            assert_eq!(memory.copy_out(segments, 0, into), Err(NotThere));
            assert_eq!(memory.copy_in(segments, 0, into), Err(NotThere));
        }
    }

    #[test]
    fn regions_are_added_and_removed() {
        let memory = memory();
        let at = |memory: &Memory, address: u64| memory.address(address).map(|found| found.0);
        assert_eq!(at(&memory, (1 << 40) + 5), Some(5));
        assert_eq!(at(&memory, (1 << 41) + 4095), Some(16384 + 4095));
        assert_eq!(at(&memory, (1 << 41) + 4096), None);
        let less = memory.without(&region(0, 8192, 1 << 40)).unwrap();
        assert_eq!(at(&less, 1 << 40), None);
        assert!(less.without(&region(0, 8192, 1 << 40)).is_none());
        assert!(memory.with(&region(4096, 8192, 0), file(8192)).is_err());
        assert!(memory.with(&region(1 << 30, 8192, 0), file(4096)).is_err());
        assert!(
            memory
                .with(&region(u64::MAX - 4095, 4096, 0), file(4096))
                .is_err()
        );
    }

    #[test]
    fn a_client_that_shortens_its_memory_loses_it() {
        let shared = file(8192);
        let memory = Memory::default();
        let memory = memory
            .with(&region(0, 8192, 0), shared.try_clone().unwrap())
            .unwrap();
        memory.copy_in(&[segment(0, 8192)], 0, &[7; 8192]).unwrap();
        shared.set_len(0).unwrap();
        let mut read = [1; 8];
        assert_eq!(
            memory.copy_out(&[segment(4096, 8)], 0, &mut read),
            Err(NotThere)
        );
        assert!(memory.is_lost());
    }
}
