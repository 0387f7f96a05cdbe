//! What `qemu-img check` looks for, fast enough to check thousands of images: no cluster has a
//! refcount below the number of its uses, and the flag COPIED is set exactly where the refcount is
//! 1.

use std::collections::HashMap;

use luksmith_formats::image::qcow2::{
    COPIED, EXT_CRYPTO, Header, L2Entry, Snapshot, crypto_header, extensions, l2_entry, table_entry,
};

struct Image<'a> {
    bytes: &'a [u8],
    header: Header,
    cluster: u64,
    counts: HashMap<u64, u64>,
    used: HashMap<u64, u64>,
}

/// Checks an image. Returns how many uses its refcounts count in excess (leaks), or what is wrong.
///
/// Refcounts have 16 or 64 bits.
///
/// # Errors
///
/// The description of the first thing that is wrong.
///
/// # Panics
///
/// If the image ends within its first cluster, a refcount block or its list of snapshots.
pub fn check(bytes: &[u8]) -> Result<u64, String> {
    let header = Header::parse(bytes).ok_or("no header")?;
    let mut image = Image {
        bytes,
        cluster: 1 << header.cluster_bits,
        header,
        counts: HashMap::new(),
        used: HashMap::new(),
    };
    image.uses()?;
    let (offset, size) = (image.header.l1_offset, image.header.l1_size);
    image.disk(offset, size)?;
    image.snapshots()?;
    image.copied(offset, size)?;
    let mut leaks = 0;
    for (cluster, used) in &image.used {
        let count = image.counts.get(cluster).copied().unwrap_or(0);
        leaks += count
            .checked_sub(*used)
            .ok_or_else(|| format!("cluster {cluster}: counted {count}, used {used}"))?;
    }
    let unused = image
        .counts
        .iter()
        .filter(|(cluster, _)| !image.used.contains_key(cluster));
    Ok(leaks + unused.map(|(_, count)| count).sum::<u64>())
}

impl Image<'_> {
    fn word(&self, at: u64) -> Result<u64, String> {
        let bytes = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..));
        let bytes = bytes.and_then(|bytes| bytes.first_chunk());
        bytes
            .map(|bytes| u64::from_be_bytes(*bytes))
            .ok_or_else(|| format!("byte {at} is not there"))
    }

    /// Counts a use of each cluster in a range of bytes that begins with a cluster.
    fn take(&mut self, offset: u64, len: u64) -> Result<(), String> {
        if !offset.is_multiple_of(self.cluster) || offset + len > self.bytes.len() as u64 {
            return Err(format!("{len} bytes at byte {offset}"));
        }
        self.touch(offset, len);
        Ok(())
    }

    fn touch(&mut self, offset: u64, len: u64) {
        for cluster in offset / self.cluster..(offset + len).div_ceil(self.cluster) {
            *self.used.entry(cluster).or_default() += 1;
        }
    }

    /// Counts the uses of header, encryption header and refcounts, and reads the refcounts.
    fn uses(&mut self) -> Result<(), String> {
        self.take(0, self.cluster)?;
        let start = usize::try_from(self.header.header_length).unwrap();
        let first = &self.bytes[..usize::try_from(self.cluster).unwrap()];
        for extension in extensions(first, start).map_err(|at| at.to_string())? {
            if extension.kind == EXT_CRYPTO {
                let (offset, len) = crypto_header(&extension.data).ok_or("crypto")?;
                self.take(offset, len)?;
            }
        }
        let table = self.header.refcount_table_offset;
        let len = u64::from(self.header.refcount_table_clusters) * self.cluster;
        self.take(table, len)?;
        let bits = 1_u64 << self.header.refcount_order;
        let each = self.cluster * 8 / bits;
        for index in 0..len / 8 {
            let (block, _) = table_entry(self.word(table + index * 8)?, 0);
            if block == 0 {
                continue;
            }
            self.take(block, self.cluster)?;
            for number in 0..each {
                let count = self.count(block, number, bits)?;
                if count != 0 {
                    self.counts.insert(index * each + number, count);
                }
            }
        }
        Ok(())
    }

    /// A refcount of 16 or 64 bits.
    fn count(&self, block: u64, number: u64, bits: u64) -> Result<u64, String> {
        let at = usize::try_from(block + number * bits / 8).unwrap();
        match bits {
            16 => Ok(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]).into()),
            64 => self.word(at as u64),
            _ => Err(format!("refcounts of {bits} bits")),
        }
    }

    /// Counts the uses that an L1 table makes, directly and by its L2 tables.
    fn disk(&mut self, l1: u64, entries: u32) -> Result<(), String> {
        self.take(l1, u64::from(entries) * 8)?;
        for (table, _) in self.entries(l1, entries.into())? {
            self.take(table, self.cluster)?;
            for (data, _) in self.data(table)? {
                match data {
                    L2Entry::Cluster(at) => self.take(at, self.cluster)?,
                    L2Entry::Compressed(at, len) => self.touch(at, len),
                    L2Entry::Unallocated => {}
                    L2Entry::Reserved => return Err(format!("a reserved bit at byte {table}")),
                }
            }
        }
        Ok(())
    }

    /// The offsets in the entries of a table that are not empty, and whether COPIED is set.
    fn entries(&self, table: u64, count: u64) -> Result<Vec<(u64, bool)>, String> {
        let mut found = Vec::new();
        for index in 0..count {
            let entry = self.word(table + index * 8)?;
            let (offset, reserved) = table_entry(entry, COPIED);
            if reserved {
                return Err(format!("entry {entry:#x}"));
            }
            if offset != 0 {
                found.push((offset, entry & COPIED != 0));
            }
        }
        Ok(found)
    }

    /// The entries of an L2 table, and whether COPIED is set.
    fn data(&self, table: u64) -> Result<Vec<(L2Entry, bool)>, String> {
        let entry = |index| {
            let entry = self.word(table + index * 8)?;
            let zero_bit = self.header.version >= 3;
            let data = l2_entry(entry, self.header.cluster_bits, zero_bit);
            Ok((data, entry & COPIED != 0))
        };
        (0..self.cluster / 8).map(entry).collect()
    }

    fn snapshots(&mut self) -> Result<(), String> {
        let start = self.header.snapshots_offset;
        let mut at = start;
        for _ in 0..self.header.snapshots {
            let bytes = &self.bytes[usize::try_from(at).unwrap()..];
            let snapshot = Snapshot::parse(bytes).ok_or("a snapshot")?;
            self.disk(snapshot.l1_offset, snapshot.l1_size)?;
            at += snapshot.length();
        }
        if at > start {
            self.take(start, at - start)?;
        }
        Ok(())
    }

    /// COPIED is set in the tables of the disk itself exactly where the refcount is 1.
    fn copied(&self, l1: u64, entries: u32) -> Result<(), String> {
        let mut all = Vec::new();
        for (table, copied) in self.entries(l1, entries.into())? {
            all.push((table, copied));
            for (data, copied) in self.data(table)? {
                match data {
                    L2Entry::Cluster(at) => all.push((at, copied)),
                    // COPIED is never set here, whatever the refcount is.
                    L2Entry::Compressed(at, _) if copied => {
                        return Err(format!("byte {at}: compressed, and COPIED is set"));
                    }
                    _ => {}
                }
            }
        }
        for (offset, copied) in all {
            let count = self.counts.get(&(offset / self.cluster)).copied();
            if (count == Some(1)) != copied {
                return Err(format!("byte {offset}: counted {count:?}, COPIED {copied}"));
            }
        }
        Ok(())
    }
}
