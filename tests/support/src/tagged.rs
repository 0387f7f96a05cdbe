//! Volumes with authenticated encryption that cryptsetup and the kernel made: the vectors of
//! `tests/vectors/integrity.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use luksmith_formats::dm_integrity::{Places, SUPERBLOCK, Superblock};
use luksmith_formats::json::Value;

/// A volume. Sectors that were never written match no tag.
pub struct Tagged {
    /// Its name in the file.
    pub name: String,
    /// The storage of the data, with the header if that is not detached.
    pub image: Vec<u8>,
    /// The detached header.
    pub header: Option<Vec<u8>>,
    /// The volume key. No keyslot has it.
    pub key: Vec<u8>,
    /// The size of the volume in bytes.
    pub size: u64,
    /// The size of a sector in bytes.
    pub sector_size: u64,
    /// The numbers of the sectors that were written, in units of `sector_size`.
    pub written: Vec<u64>,
}

impl Tagged {
    /// All of the file. Two of them take tens of MiB.
    pub fn all() -> Vec<Self> {
        let text = include_str!("../../vectors/integrity.json");
        let file = Value::parse(text.as_bytes()).unwrap();
        let tests = file["tests"].as_array().unwrap();
        tests.iter().map(Self::read).collect()
    }

    /// The one with this name.
    pub fn named(name: &str) -> Self {
        let mut all = Self::all().into_iter();
        all.find(|volume| volume.name == name)
            .unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn read(test: &Value) -> Self {
        let number = |member: &str| test[member].as_u64().unwrap();
        let header = test["header"].as_str();
        Self {
            name: test["name"].as_str().unwrap().to_owned(),
            image: unpacked(test["image"].as_str().unwrap(), number("bytes")),
            header: header.map(|packed| unpacked(packed, number("header_bytes"))),
            key: hexadecimal(test["key"].as_str().unwrap()),
            size: number("size"),
            sector_size: number("sector_size"),
            written: (test["written"].as_array().unwrap().iter())
                .map(|number| number.as_u64().unwrap())
                .collect(),
        }
    }

    /// Whether its journal has writes.
    pub fn has_journal(&self) -> bool {
        self.name == "journal"
    }

    /// What was written to a sector.
    pub fn sector(&self, number: u64) -> Vec<u8> {
        pattern(number * self.sector_size, self.sector_size)
    }

    /// Where the superblock is.
    pub fn start(&self) -> u64 {
        match self.header {
            Some(_) => 0,
            None => 1 << 20,
        }
    }

    /// Where data and tags are.
    pub fn places(&self) -> Places {
        let start = usize::try_from(self.start()).unwrap();
        let superblock = &self.image[start..][..SUPERBLOCK];
        let superblock = Superblock::parse(superblock, start as u64).unwrap();
        let size = self.image.len() as u64;
        superblock.places(start as u64, size).unwrap()
    }

    /// Where a sector and its tag are in the image.
    pub fn place(&self, number: u64) -> (usize, usize) {
        let at = number * self.sector_size;
        let run = self.places().run(at..at + self.sector_size).unwrap();
        let index = |at: u64| usize::try_from(at).unwrap();
        (index(run.data), index(run.tags))
    }
}

/// What the volumes were filled with, from an offset on: numbers of 8 bytes, each followed by a
/// multiple of it.
pub fn pattern(offset: u64, length: u64) -> Vec<u8> {
    let pairs = offset / 16..(offset + length) / 16;
    let pair = |number: u64| [number, number.wrapping_mul(0x9e37_79b9_7f4a_7c15)];
    pairs.flat_map(pair).flat_map(u64::to_le_bytes).collect()
}

/// The bytes of a stream of (offset, length, bytes), in a storage of this size.
fn unpacked(packed: &str, size: u64) -> Vec<u8> {
    let packed = STANDARD.decode(packed).unwrap();
    let stream = miniz_oxide::inflate::decompress_to_vec(&packed).unwrap();
    let mut storage = vec![0; usize::try_from(size).unwrap()];
    let mut rest = &stream[..];
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let number = |at: usize| {
            let bytes = head[at..][..8].try_into().unwrap();
            usize::try_from(u64::from_le_bytes(bytes)).unwrap()
        };
        let (offset, length) = (number(0), number(8));
        let (bytes, after) = after.split_at(length);
        storage[offset..][..length].copy_from_slice(bytes);
        rest = after;
    }
    storage
}

fn hexadecimal(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(byte).collect()
}
