//! An export as a virtio block device: its features and its configuration space (*Virtual I/O
//! Device (VIRTIO) Version 1.2*, section 5.2).

use std::sync::Arc;

use crate::export::{Discard, Export};

/// The unit of sector numbers in requests and in the configuration, in bytes.
pub(super) const SECTOR: u64 = 512;

/// The most queues. Each one that a client sets up has a thread.
pub(super) const MAX_QUEUES: usize = 128;

/// The most descriptors of a queue.
pub(super) const MAX_QUEUE_SIZE: u16 = 1024;

/// The most pieces of data in a request. With the header and the status they fit into the smallest
/// queue that emulators make, of 128 descriptors.
const MAX_SEGMENTS: u32 = 126;

/// The most ranges in one request to discard or zero, and the most sectors in each.
pub(super) const MAX_RANGES: u32 = 16;
pub(super) const MAX_RANGE_SECTORS: u32 = (64 << 20) / 512;

/// Feature bits of a block device.
pub(super) mod bits {
    pub(in super::super) const SEG_MAX: u64 = 1 << 2;
    pub(in super::super) const RO: u64 = 1 << 5;
    pub(in super::super) const BLK_SIZE: u64 = 1 << 6;
    pub(in super::super) const FLUSH: u64 = 1 << 9;
    pub(in super::super) const TOPOLOGY: u64 = 1 << 10;
    pub(in super::super) const CONFIG_WCE: u64 = 1 << 11;
    pub(in super::super) const MQ: u64 = 1 << 12;
    pub(in super::super) const DISCARD: u64 = 1 << 13;
    pub(in super::super) const WRITE_ZEROES: u64 = 1 << 14;
    pub(in super::super) const INDIRECT_DESC: u64 = 1 << 28;
    pub(in super::super) const EVENT_IDX: u64 = 1 << 29;
    /// Of vhost-user: there are protocol features.
    pub(in super::super) const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub(in super::super) const VERSION_1: u64 = 1 << 32;
}

/// The configuration space, up to the members for secure erase.
const CONFIG_LEN: usize = 60;

/// Where the configuration says whether there is a write-back cache. A client may only write this
/// byte.
pub(super) const WRITEBACK_AT: u32 = 32;

/// An export and how it looks as a block device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) export: Arc<Export>,
    block_size: u32,
}

impl Device {
    /// `block_size` is the smallest block that a guest reads or writes: a power of two of at least
    /// 512 bytes.
    pub(super) fn new(export: Arc<Export>, block_size: u32) -> Self {
        Self { export, block_size }
    }

    /// The features that are offered. `VHOST_F_LOG_ALL` is not one, so an emulator refuses to
    /// migrate the guest.
    pub(super) fn features(&self) -> u64 {
        let of_all = bits::SEG_MAX
            | bits::BLK_SIZE
            | bits::FLUSH
            | bits::TOPOLOGY
            | bits::CONFIG_WCE
            | bits::MQ
            | bits::INDIRECT_DESC
            | bits::EVENT_IDX
            | bits::PROTOCOL_FEATURES
            | bits::VERSION_1;
        if self.export.is_read_only() {
            return of_all | bits::RO;
        }
        match self.export.discard_policy() {
            Discard::Deny => of_all | bits::WRITE_ZEROES,
            Discard::Zeroes | Discard::Pass => of_all | bits::WRITE_ZEROES | bits::DISCARD,
        }
    }

    /// `size` bytes of the configuration from `offset` on. Beyond its end there are zeroes.
    pub(super) fn config(&self, offset: u32, size: u32, writeback: bool) -> Vec<u8> {
        let config = self.whole_config(writeback);
        let byte = |at: u32| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            config.get(at).copied().unwrap_or(0)
        };
        (0..size).map(|n| byte(offset.saturating_add(n))).collect()
    }

    fn whole_config(&self, writeback: bool) -> [u8; CONFIG_LEN] {
        let export = &self.export;
        let unit = export.unit().max(self.block_size);
        let exponent = (unit / self.block_size).trailing_zeros();
        let one_block = SECTOR.max(u64::from(unit)) / SECTOR;
        let mut config = [0; CONFIG_LEN];
        let mut put = |at: usize, bytes: &[u8]| {
            for (into, byte) in config.iter_mut().skip(at).zip(bytes) {
                *into = *byte;
            }
        };
        put(0, &(export.size() / SECTOR).to_le_bytes());
        put(12, &MAX_SEGMENTS.to_le_bytes());
        put(20, &self.block_size.to_le_bytes());
        put(24, &[u8::try_from(exponent).unwrap_or(0)]);
        // The suggested minimum and optimal sizes of requests, in blocks.
        let smallest = u16::try_from(unit / self.block_size).unwrap_or(1);
        put(26, &smallest.to_le_bytes());
        put(28, &((256 << 10) / self.block_size).to_le_bytes());
        put(32, &[u8::from(writeback)]);
        put(34, &u16::try_from(MAX_QUEUES).unwrap_or(1).to_le_bytes());
        put(36, &MAX_RANGE_SECTORS.to_le_bytes());
        put(40, &MAX_RANGES.to_le_bytes());
        put(44, &u32::try_from(one_block).unwrap_or(1).to_le_bytes());
        put(48, &MAX_RANGE_SECTORS.to_le_bytes());
        put(52, &MAX_RANGES.to_le_bytes());
        config
    }
}
