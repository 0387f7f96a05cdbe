//! The operations of every kernel.

use super::run::Run;
use super::tweak::Tweaks;

/// A kernel with its key schedules. The caller passes only sector sizes for which `takes` is true,
/// and data that is a whole number of sectors.
pub(super) trait Keyed: Send + Sync {
    /// Whether a sector of this size is a whole number of the kernel's steps.
    fn takes(&self, sector_size: usize) -> bool;
    fn encrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
    fn decrypt(&self, tweaks: Tweaks, sector_size: usize, data: &mut [u8]);
    /// The same kernel out of place. `None` if it only works in place.
    fn out_of_place(&self) -> Option<&dyn OutOfPlace>;
}

/// A kernel that reads sectors at one place and writes them at another. It reads each byte once,
/// and reads nothing that it has written.
pub(super) trait OutOfPlace {
    fn encrypt(&self, tweaks: Tweaks, run: Run<'_>);
    fn decrypt(&self, tweaks: Tweaks, run: Run<'_>);
}
