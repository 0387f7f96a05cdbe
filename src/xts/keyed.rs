//! The operations of every kernel.

use super::tweak::Tweaks;

/// A kernel with its key schedules. The caller passes only sector sizes for which `takes` is true,
/// and data that is a whole number of sectors.
pub(super) trait Keyed: Send + Sync {
    /// Whether a sector of this size is a whole number of the kernel's steps.
    fn takes(&self, sector_size: usize) -> bool;
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
}
