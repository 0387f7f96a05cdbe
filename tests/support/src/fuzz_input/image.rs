//! Inputs of the fuzz target `inspect`: images without their zeroes, so that a small input is a
//! large image.
//!
//! An input is the number of the format, the size of the image (8 bytes, little endian), the number
//! of parts, for each part its offset (8 bytes) and its length (4 bytes), and then the bytes of all
//! parts. The table comes first, so that a byte more or less among the bytes moves no part.
//! Any bytes are an image: what is missing at the end is zero.

use std::ops::Range;

use luksmith::backend::{Backend, Geometry, IoError, Operation};
use luksmith::sectors::{Cipher, Sectors};

/// An image of zeroes with parts that are not zero. Where parts overlap, the later one counts.
///
/// As a [`Backend`] it can only be read: every change panics, since an inspection makes none.
#[derive(Debug, PartialEq, Eq)]
pub struct SparseImage<'a> {
    /// The number of the image's format.
    pub format: u8,
    size: u64,
    parts: Vec<(u64, &'a [u8])>,
}

impl<'a> SparseImage<'a> {
    /// Reads an input. Returns `None` if it ends before the number of parts.
    pub fn decode(input: &'a [u8]) -> Option<Self> {
        let ([format], rest) = input.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let ([count], rest) = rest.split_first_chunk()?;
        let table = rest.len().min(usize::from(*count) * 12);
        let (table, mut data) = rest.split_at(table);
        let entries = table.as_chunks::<12>().0.iter();
        let parts = entries.map(|entry| {
            let [o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = *entry;
            let offset = u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
            let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let (part, rest) = data.split_at(len.min(data.len()));
            data = rest;
            (offset, part)
        });
        Some(Self {
            format: *format,
            parts: parts.collect(),
            size: u64::from_le_bytes(*size),
        })
    }
}

/// The input that is this image. Of many parts the first 255 are kept, and of each part the first
/// 64 KiB, so that the input stays small.
pub fn encode(format: u8, image: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    const LONGEST: usize = 64 << 10;
    let mut parts: Vec<Range<usize>> = Vec::new();
    for start in (0..image.len()).step_by(BLOCK) {
        let block = start..image.len().min(start + BLOCK);
        let last = parts.last_mut().filter(|last| last.end == start);
        if image[block.clone()].iter().any(|byte| *byte != 0) {
            match last {
                Some(last) => last.end = block.end,
                None => parts.push(block),
            }
        }
    }
    parts.truncate(usize::from(u8::MAX));
    for part in &mut parts {
        part.end = part.end.min(part.start + LONGEST);
    }
    let mut input = vec![format];
    input.extend((image.len() as u64).to_le_bytes());
    input.push(u8::try_from(parts.len()).expect("not many parts"));
    for part in &parts {
        input.extend((part.start as u64).to_le_bytes());
        input.extend(
            u32::try_from(part.len())
                .expect("a short part")
                .to_le_bytes(),
        );
    }
    for part in parts {
        input.extend(&image[part]);
    }
    input
}

impl Backend for SparseImage<'_> {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.size).with_read_only(true)
    }

    fn read_at(&self, offset: u64, into: &mut Sectors<Cipher>) -> Result<(), IoError> {
        let len = into.len() as u64;
        self.geometry().check(Operation::Read, offset, len)?;
        let into = into.as_mut_slice();
        into.fill(0);
        for (start, part) in &self.parts {
            // Where the part begins in what is read, or the other way around.
            let (from, to) = (offset.saturating_sub(*start), start.saturating_sub(offset));
            let from = usize::try_from(from).ok().and_then(|from| part.get(from..));
            let to = usize::try_from(to).ok().and_then(|to| into.get_mut(to..));
            for (to, from) in to.into_iter().flatten().zip(from.into_iter().flatten()) {
                *to = *from;
            }
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &Sectors<Cipher>) -> Result<(), IoError> {
        panic!("an inspection writes");
    }

    fn flush(&self) -> Result<(), IoError> {
        panic!("an inspection flushes");
    }

    fn discard(&self, _: Range<u64>) -> Result<(), IoError> {
        panic!("an inspection discards");
    }

    fn write_zeroes(&self, _: Range<u64>) -> Result<(), IoError> {
        panic!("an inspection zeroes");
    }

    fn resize(&self, _: u64) -> Result<(), IoError> {
        panic!("an inspection resizes");
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    let mut image = vec![0; 3 << 20];
    image[..700].fill(1);
    image[5000] = 2;
    let end = image.len() - 3;
    image[end..].fill(3);
    let input = encode(7, &image);
    assert!(input.len() < 3000);
    let sparse = SparseImage::decode(&input).expect("an image");
    assert_eq!(sparse.format, 7);
    for range in [0..image.len(), 600..5001, 4999..5002, end + 1..image.len()] {
        let mut read = Sectors::zeroed(range.len());
        sparse
            .read_at(range.start as u64, &mut read)
            .expect("bytes");
        assert!(read.as_slice() == &image[range.clone()], "{range:?}");
    }
    assert_eq!(SparseImage::decode(&input[..8]), None);
    assert!(SparseImage::decode(&input[..20]).is_some());
}
