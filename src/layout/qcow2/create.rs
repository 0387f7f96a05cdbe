//! Makes a new image of version 3, with its tables one after the other.
//!
//! The order is header, refcount table, refcount blocks, L1 table, and space for the LUKS header.
//! The header is written last, so a crash before that leaves no image.

use std::sync::Arc;

use luksmith_formats::image::qcow2::{Header, LARGEST_L1, crypto_extension};

use super::refcounts::{make_room, write_count};
use super::shape::length;
use super::{ImageError, Qcow2};
use crate::backend::Backend;
use crate::door;

/// The parameters of a new image.
#[derive(Clone, Copy, Debug)]
pub struct NewImage {
    size: u64,
    cluster_size: u32,
    refcount_bits: u32,
    header_size: u64,
}

impl NewImage {
    /// A disk of `size` bytes, whole sectors of 512, and `header_size` bytes for the LUKS header
    /// with its keyslots.
    #[must_use]
    pub fn new(size: u64, header_size: u64) -> Self {
        Self {
            size,
            cluster_size: 64 << 10,
            refcount_bits: 16,
            header_size,
        }
    }

    setters! {
        /// The size of a cluster in bytes: a power of two from 512 to 2 MiB. Default: 64 KiB.
        cluster_size: u32,

        /// The bits of a refcount: a power of two from 1 to 64. Default: 16.
        refcount_bits: u32,
    }
}

/// The places of all parts, in clusters.
struct Plan {
    cluster: u64,
    refcount_order: u32,
    table: u64,
    blocks: u64,
    l1_entries: u64,
    l1: u64,
    crypto: u64,
}

impl Plan {
    fn new(image: &NewImage) -> Result<Self, ImageError> {
        let cluster = u64::from(image.cluster_size);
        if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
            return Err(ImageError::Size(format!(
                "clusters of {cluster} bytes: they have 512 bytes to 2 MiB, a power of two"
            )));
        }
        if !image.refcount_bits.is_power_of_two() || image.refcount_bits > 64 {
            return Err(ImageError::Size(format!(
                "refcounts of {} bits: they have 1 to 64, a power of two",
                image.refcount_bits
            )));
        }
        let refcount_order = image.refcount_bits.trailing_zeros();
        if image.size == 0 || !image.size.is_multiple_of(512) {
            return Err(ImageError::Size(format!(
                "{} bytes are not whole sectors of 512",
                image.size
            )));
        }
        let l1_entries = image.size.div_ceil(cluster / 8 * cluster);
        if l1_entries > LARGEST_L1 / 8 {
            return Err(ImageError::Size(format!(
                "{} bytes are too many for clusters of {cluster} bytes",
                image.size
            )));
        }
        let l1 = (l1_entries * 8).div_ceil(cluster);
        let crypto = image.header_size.div_ceil(cluster);
        let each = (cluster * 8) >> refcount_order;
        // The blocks count themselves and their table too.
        let (mut table, mut blocks) = (1, 1);
        loop {
            let all = 1 + table + blocks + l1 + crypto;
            let needed = (all.div_ceil(each), (blocks * 8).div_ceil(cluster));
            if needed == (blocks, table) {
                break;
            }
            (blocks, table) = (blocks.max(needed.0), table.max(needed.1));
        }
        Ok(Self {
            cluster,
            refcount_order,
            table,
            blocks,
            l1_entries,
            l1,
            crypto,
        })
    }

    fn clusters(&self) -> u64 {
        1 + self.table + self.blocks + self.l1 + self.crypto
    }
}

impl Qcow2 {
    /// Makes an empty image at the start of `storage`, which grows if it can. The LUKS header is
    /// zeroes: the caller creates a container on [`header_storage`](Self::header_storage).
    ///
    /// # Errors
    /// Returns [`ImageError::Size`] if the parameters contradict each other, or an error of the
    /// storage.
    pub fn create(storage: Arc<dyn Backend>, image: &NewImage) -> Result<Self, ImageError> {
        let plan = Plan::new(image)?;
        let cluster = plan.cluster;
        let blocks = 1 + plan.table;
        let l1 = blocks + plan.blocks;
        let crypto = l1 + plan.l1;
        let mut header = Header::new(image.size, cluster.trailing_zeros());
        header.crypt_method = 2; // LUKS
        header.l1_size = u32::try_from(plan.l1_entries).unwrap_or(u32::MAX);
        header.l1_offset = l1 * cluster;
        header.refcount_table_offset = cluster;
        header.refcount_table_clusters = u32::try_from(plan.table).unwrap_or(u32::MAX);
        header.refcount_order = plan.refcount_order;
        make_room(&*storage, plan.clusters() * cluster)?;
        let zeroes = vec![0; length(cluster)];
        for each in 0..plan.clusters() {
            door::write(&*storage, each * cluster, &zeroes)?;
        }
        let table: Vec<u8> = (0..plan.blocks)
            .flat_map(|block| ((blocks + block) * cluster).to_be_bytes())
            .collect();
        door::write(&*storage, cluster, &table)?;
        let mut counts = vec![0; length(plan.blocks * cluster)];
        for used in 0..plan.clusters() {
            write_count(&mut counts, used, plan.refcount_order, 1);
        }
        door::write(&*storage, blocks * cluster, &counts)?;
        storage.flush()?;
        let mut start = header.to_bytes();
        start.extend(crypto_extension(crypto * cluster, image.header_size));
        door::write(&*storage, 0, &start)?;
        storage.flush()?;
        Self::open(storage)
    }
}
