//! The blocks of a disk in an image of any format but qcow2: a map from the disk to the image,
//! which was inspected before.
//!
//! Each lookup is bounded and checks what it uses again: the image may change after its inspection.

use luksmith_formats::image::{qed, vdi, vhd, vhdx, vmdk};

use super::tables::{Tables, length};
use crate::backend::IoError;
use crate::inflate::zlib;

/// The unit of offsets in VHD and VMDK, in bytes.
const SECTOR: u64 = 512;

/// The largest grain of a VMDK that QEMU reads, in bytes. A compressed one is inflated in memory.
const LARGEST_GRAIN: u64 = 1 << 30;

/// Where a block of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing is stored, and it reads as zeroes.
    Zeroes,
    /// It begins at this offset of the image.
    At(u64),
    /// It is compressed, and begins at this offset of the image.
    Compressed(u64),
}

/// How the blocks of a disk are found.
pub(super) enum Map {
    /// The disk is the image itself, from its start.
    Flat,
    /// A table of 32-bit block numbers.
    Vdi { table: u64, data: u64 },
    /// A table of 32-bit sector numbers. A bitmap is before each block.
    Vhd { table: u64, bitmap: u64 },
    /// A table of 64-bit entries, with one for a bitmap after each `ratio` of them.
    Vhdx { table: u64, ratio: u64 },
    /// Tables of 64-bit offsets, with `entries` in each.
    Qed { table: u64, entries: u64 },
    /// A directory of tables of 32-bit sector numbers, with `entries` in each.
    Vmdk {
        directory: u64,
        entries: u64,
        flags: u32,
    },
}

/// The disk in an image.
pub(super) struct Blocks {
    tables: Tables,
    map: Map,
    /// The size of the disk, and of a block, in bytes.
    size: u64,
    unit: u64,
    /// The last compressed block that was inflated, and its place.
    inflated: Option<(u64, Vec<u8>)>,
}

impl Blocks {
    pub(super) fn new(tables: Tables, map: Map, size: u64, unit: u64) -> Self {
        Self {
            tables,
            map,
            size,
            unit: unit.max(1),
            inflated: None,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `into` with the bytes of the disk from `offset` on. The caller keeps to its size.
    pub(super) fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let (number, within) = (at / self.unit, at % self.unit);
            let len = length(self.unit - within).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            match self.place(number)? {
                Place::Zeroes => part.fill(0),
                Place::At(place) => self.tables.read(place.saturating_add(within), part)?,
                Place::Compressed(place) => {
                    let whole = self.inflate(place)?;
                    let within = length(within);
                    part.copy_from_slice(&whole[within..within + len]);
                }
            }
            at += len as u64;
            rest = after;
        }
        Ok(())
    }

    fn place(&mut self, number: u64) -> Result<Place, IoError> {
        let tables = &mut self.tables;
        Ok(match self.map {
            Map::Flat => Place::At(number * self.unit),
            Map::Vdi { table, data } => {
                match u32::from_le_bytes(
                    tables.word(table.saturating_add(number.saturating_mul(4)))?,
                ) {
                    vdi::UNALLOCATED | vdi::ZERO => Place::Zeroes,
                    block => {
                        let offset = u64::from(block).saturating_mul(self.unit);
                        Place::At(data.saturating_add(offset))
                    }
                }
            }
            Map::Vhd { table, bitmap } => {
                match u32::from_be_bytes(
                    tables.word(table.saturating_add(number.saturating_mul(4)))?,
                ) {
                    vhd::UNALLOCATED => Place::Zeroes,
                    sector => Place::At(u64::from(sector) * SECTOR + bitmap),
                }
            }
            Map::Vhdx { table, ratio } => {
                let index = number + number / ratio.max(1);
                let entry =
                    u64::from_le_bytes(tables.word(table.saturating_add(index.saturating_mul(8)))?);
                match vhdx::block(entry) {
                    (6, offset, _) => Place::At(offset),
                    (0..=3, ..) => Place::Zeroes,
                    _ => return Err(damaged("a block in a state that is not read", entry)),
                }
            }
            Map::Qed { table, entries } => {
                let (first, second) = (number / entries.max(1), number % entries.max(1));
                match u64::from_le_bytes(
                    tables.word(table.saturating_add(first.saturating_mul(8)))?,
                ) {
                    0 => Place::Zeroes,
                    l2 => match u64::from_le_bytes(
                        tables.word(l2.saturating_add(second.saturating_mul(8)))?,
                    ) {
                        0 | 1 => Place::Zeroes,
                        cluster => Place::At(cluster),
                    },
                }
            }
            Map::Vmdk {
                directory,
                entries,
                flags,
            } => {
                let (first, second) = (number / entries.max(1), number % entries.max(1));
                let table = u32::from_le_bytes(
                    tables.word(directory.saturating_add(first.saturating_mul(4)))?,
                );
                if table == 0 {
                    return Ok(Place::Zeroes);
                }
                let table = u64::from(table) * SECTOR;
                match u32::from_le_bytes(tables.word(table + second.saturating_mul(4))?) {
                    0 => Place::Zeroes,
                    1 if flags & vmdk::ZERO_GRAINS != 0 => Place::Zeroes,
                    grain if flags & vmdk::COMPRESSED != 0 => {
                        Place::Compressed(u64::from(grain) * SECTOR)
                    }
                    grain => Place::At(u64::from(grain) * SECTOR),
                }
            }
        })
    }

    /// Inflates a grain: a zlib stream, whose length is in the marker before it. Without markers it
    /// is as long as two grains at most.
    fn inflate(&mut self, place: u64) -> Result<&[u8], IoError> {
        /// The number of the grain's first sector, and the length of its data.
        const MARKER: usize = 12;
        let known = self.inflated.as_ref().is_some_and(|(at, _)| *at == place);
        if !known {
            let most = 2 * self.unit;
            let markers = matches!(self.map, Map::Vmdk { flags, .. } if flags & vmdk::MARKERS != 0);
            let (start, len) = if markers {
                let mut bytes = [0; MARKER];
                self.tables.read(place, &mut bytes)?;
                let (_, len, _) = vmdk::marker(&bytes);
                (place.saturating_add(MARKER as u64), u64::from(len))
            } else {
                (place, most)
            };
            if len == 0 || len > most {
                return Err(damaged(
                    "a compressed grain of a length that is not read",
                    place,
                ));
            }
            let mut data = vec![0; length(len)];
            self.tables.read(start, &mut data)?;
            let mut whole = vec![0; length(self.unit)];
            match zlib(&data, &mut whole) {
                Some(1..) => self.inflated = Some((place, whole)),
                _ => return Err(damaged("a compressed grain that is damaged", place)),
            }
        }
        Ok(self.inflated.as_ref().map_or(&[], |(_, whole)| whole))
    }
}

fn damaged(what: &'static str, at: u64) -> IoError {
    IoError::Image { what, at }
}

/// Opens the disk in a VDI image.
pub(super) fn vdi(tables: Tables) -> Result<Blocks, IoError> {
    let mut bytes = [0; vdi::LENGTH];
    tables.read(0, &mut bytes)?;
    let header = vdi::Header::parse(&bytes).ok_or(damaged("no header", 0))?;
    let map = Map::Vdi {
        table: header.map_offset.into(),
        data: header.data_offset.into(),
    };
    Ok(Blocks::new(
        tables,
        map,
        header.disk_size,
        header.block_size.into(),
    ))
}

/// Opens the disk in a VHD image, fixed or dynamic.
pub(super) fn vhd(tables: Tables) -> Result<Blocks, IoError> {
    let mut bytes = [0; vhd::FOOTER];
    let end = tables.size().saturating_sub(vhd::FOOTER as u64);
    tables.read(end, &mut bytes)?;
    let footer = vhd::Footer::parse(&bytes).ok_or(damaged("no footer", end))?;
    if footer.disk_type == vhd::FIXED {
        return Ok(Blocks::new(tables, Map::Flat, footer.current_size, 1 << 20));
    }
    let at = footer.data_offset;
    let mut bytes = [0; vhd::HEADER];
    tables.read(at, &mut bytes)?;
    let header = vhd::Header::parse(&bytes).ok_or(damaged("no header", at))?;
    let block = u64::from(header.block_size);
    let map = Map::Vhd {
        table: header.table_offset,
        bitmap: (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR),
    };
    Ok(Blocks::new(tables, map, footer.current_size, block))
}

/// Opens the disk in a QED image.
pub(super) fn qed(tables: Tables) -> Result<Blocks, IoError> {
    let mut bytes = [0; 64];
    tables.read(0, &mut bytes)?;
    let header = qed::Header::parse(&bytes).ok_or(damaged("no header", 0))?;
    let cluster = u64::from(header.cluster_size);
    let map = Map::Qed {
        table: header.l1_offset,
        entries: cluster * u64::from(header.table_size) / 8,
    };
    Ok(Blocks::new(tables, map, header.image_size, cluster))
}

/// Opens the disk in a sparse VMDK image that is one file.
pub(super) fn vmdk(tables: Tables) -> Result<Blocks, IoError> {
    let mut bytes = [0; 512];
    tables.read(0, &mut bytes)?;
    let only = "a VMDK that is not one sparse file";
    let mut header = vmdk::Header::parse(&bytes).ok_or(damaged(only, 0))?;
    if header.gd_offset == vmdk::AT_END {
        let at = tables.size().saturating_sub(2 * SECTOR);
        tables.read(at, &mut bytes)?;
        header = vmdk::Header::parse(&bytes).ok_or(damaged("no footer", at))?;
    }
    let unit = header.grain_size.saturating_mul(SECTOR);
    let map = Map::Vmdk {
        directory: header.gd_offset.saturating_mul(SECTOR),
        entries: header.gtes_per_gt.into(),
        flags: header.flags,
    };
    let size = header.capacity.saturating_mul(SECTOR);
    if unit > LARGEST_GRAIN {
        return Err(damaged("a grain of a size that is not read", 20));
    }
    Ok(Blocks::new(tables, map, size, unit))
}

/// Opens the disk in a VHDX image.
pub(super) fn vhdx(tables: Tables) -> Result<Blocks, IoError> {
    const REGIONS: u64 = 192 << 10;
    let mut regions = vec![0; 64 << 10];
    tables.read(REGIONS, &mut regions)?;
    let (count, _) = vhdx::regions(&regions).ok_or(damaged("no region table", REGIONS))?;
    let entries = regions[16..].chunks_exact(vhdx::Region::LENGTH);
    let find = |guid| {
        let mut regions = entries
            .clone()
            .map(vhdx::Region::parse)
            .take(count as usize);
        regions
            .find(|region| region.guid == guid)
            .map(|region| region.offset)
    };
    let places = (find(vhdx::BAT), find(vhdx::METADATA));
    let (Some(table), Some(metadata)) = places else {
        return Err(damaged("no block allocation table", REGIONS));
    };
    let mut items = vec![0; 64 << 10];
    tables.read(metadata, &mut items)?;
    let count = vhdx::metadata(&items).ok_or(damaged("no metadata", metadata))?;
    let items = items[32..].chunks_exact(vhdx::Item::LENGTH);
    let items = items.map(vhdx::Item::parse).take(count.into());
    let value = |guid| -> Result<u64, IoError> {
        let mut items = items.clone();
        let item = items.find(|item| item.guid == guid);
        let item = item.ok_or(damaged("no item of the metadata", metadata))?;
        let mut bytes = [0; 8];
        let len = length(item.length.into()).min(8);
        tables.read(
            metadata.saturating_add(item.offset.into()),
            &mut bytes[..len],
        )?;
        Ok(u64::from_le_bytes(bytes))
    };
    let block = value(vhdx::FILE_PARAMETERS)? & 0xffff_ffff;
    let (size, sector) = (value(vhdx::DISK_SIZE)?, value(vhdx::LOGICAL_SECTOR)?);
    let ratio = sector.saturating_mul(1 << 23) / block.max(1);
    Ok(Blocks::new(tables, Map::Vhdx { table, ratio }, size, block))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::Backend;
    use crate::backend::memory::MemoryBackend;
    use crate::sectors::{Cipher, Sectors};

    /// Pseudorandom bytes (xorshift).
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Small numbers reach further than large ones.
            if state.is_multiple_of(3) {
                state & 0xff
            } else {
                state
            }
        });
        words
            .take(len.div_ceil(8))
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// An image may change after its inspection, so any bytes are read without a panic, and no read
    /// takes more memory than its buffer and a grain.
    #[test]
    fn an_image_that_changed_after_its_inspection_is_read_or_refused() {
        type Open = fn(Tables) -> Result<Blocks, IoError>;
        let formats: [(Open, usize, &[u8]); 5] = [
            (vdi, 64, b"\x7f\x10\xda\xbe"),
            (vhd, 0, b"conectix"),
            (vhdx, 192 << 10, b"regi"),
            (vmdk, 0, b"KDMV"),
            (qed, 0, b"QED\0"),
        ];
        let mut opened = 0;
        for seed in 0..200 {
            for (open, at, magic) in formats {
                let mut bytes = noise(seed, 300 << 10);
                bytes[at..at + magic.len()].copy_from_slice(magic);
                let footer = bytes.len() - 512;
                bytes[footer..footer + 8].copy_from_slice(b"conectix");
                let storage = Arc::new(MemoryBackend::new(bytes.len()));
                let mut sectors = Sectors::<Cipher>::with_len(bytes.len());
                sectors.as_mut_slice().copy_from_slice(&bytes);
                storage.write_at(0, &sectors).unwrap();
                let storage: Arc<dyn Backend> = storage;
                let Ok(mut blocks) = open(Tables::new(storage)) else {
                    continue;
                };
                opened += 1;
                let mut into = [0; 5000];
                for offset in [0, 511, 1 << 20, blocks.size() / 2, u64::MAX - 5000] {
                    let _ = blocks.read_at(offset, &mut into);
                }
            }
        }
        assert!(opened > 100, "{opened}");
    }
}
