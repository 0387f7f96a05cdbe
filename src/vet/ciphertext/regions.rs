//! Regions: adjacent bytes of one kind. Their number is bounded.

/// The most regions that are listed. Further ones are only counted.
pub const MAX_REGIONS: usize = 10_000;

/// Why a region is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The region is zero: discarded, or never written.
    Zero,
    /// The storage has no data there. It was not read, and would read as zeroes.
    Hole,
    /// The region has compressed clusters of an image, which are not encrypted.
    Compressed,
    /// Some byte values occur much too often.
    LowEntropy,
    /// The byte values occur much too evenly.
    TooEven,
    /// The region has the signature with this name.
    Signature(&'static str),
}

/// A region of adjacent sectors, or of adjacent groups of 16 zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Its offset on the storage, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Why it is reported: the first signature in it, or else the reason for its first sector.
    pub why: Why,
}

/// Regions in the order of their offsets.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// The first [`MAX_REGIONS`] regions.
    pub listed: Vec<Region>,
    /// The number of all regions.
    pub count: u64,
    /// The number of bytes in all regions.
    pub bytes: u64,
    last: Option<Region>,
}

impl Regions {
    /// Begins another area, whose regions do not join those before.
    pub(super) fn part(&mut self) {
        self.last = None;
    }

    /// Adds bytes that are after all those that were added before. They join the last region if
    /// they are adjacent to it.
    pub(super) fn add(&mut self, offset: u64, length: u64, why: Why) {
        self.bytes += length;
        if let Some(last) = &mut self.last
            && last.offset + last.length == offset
        {
            last.length += length;
            if !matches!(last.why, Why::Signature(_)) && matches!(why, Why::Signature(_)) {
                last.why = why;
            }
        } else {
            self.count += 1;
            self.last = Some(Region {
                offset,
                length,
                why,
            });
        }
        // The last region may have grown, so its entry in the list is replaced.
        let place = usize::try_from(self.count - 1).unwrap_or(usize::MAX);
        if let Some(last) = self.last
            && place < MAX_REGIONS
        {
            self.listed.truncate(place);
            self.listed.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_a_signature_names_them() {
        let mut regions = Regions::default();
        regions.add(512, 1024, Why::LowEntropy);
        regions.add(1536, 512, Why::Signature("x"));
        regions.add(2048, 512, Why::Signature("y"));
        regions.add(4096, 512, Why::TooEven);
        let region = |offset, length, why| Region {
            offset,
            length,
            why,
        };
        let expected = [
            region(512, 2048, Why::Signature("x")),
            region(4096, 512, Why::TooEven),
        ];
        assert_eq!(regions.listed, expected);
        assert_eq!((regions.count, regions.bytes), (2, 2560));
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut regions = Regions::default();
        for n in 0..MAX_REGIONS as u64 + 5 {
            regions.add(n * 1024, 512, Why::Zero);
        }
        assert_eq!(regions.listed.len(), MAX_REGIONS);
        assert_eq!(regions.count, MAX_REGIONS as u64 + 5);
    }
}
