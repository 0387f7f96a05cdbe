//! Bytes of one kind next to each other, as regions; a bounded number of them.

/// The most regions that are kept one by one; further ones are only counted.
pub const MAX_REGIONS: usize = 10_000;

/// Why a region is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It is all zero: a hole, discarded, or never written.
    Zero,
    /// Some byte values come far too often.
    LowEntropy,
    /// The byte values come far too evenly.
    TooEven,
    /// It has the signature of this.
    Signature(&'static str),
}

/// Neighbouring sectors, or zero grains of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Where it begins on the storage, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// What it is: the first signature in it, or else what its first sector is.
    pub why: Why,
}

/// Regions in the order of their offsets.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    /// The first [`MAX_REGIONS`] of them.
    pub listed: Vec<Region>,
    /// How many there are in all.
    pub count: u64,
    /// Their bytes in all.
    pub bytes: u64,
    last: Option<Region>,
}

impl Regions {
    /// What follows is another area's, and does not join what was before.
    pub(super) fn part(&mut self) {
        self.last = None;
    }

    /// Takes up bytes that follow all those before; they join the last region where they touch it.
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
        // The last region may still grow: its place in the list is brought up to date.
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
