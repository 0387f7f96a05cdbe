//! What all clients of a server share.

use std::sync::atomic::AtomicBool;

use super::options::Options;
use crate::export::busy_poll::BusyPollers;
use crate::export::pool::Pool;
use crate::export::refusals::Refusals;
use crate::export::wake::Wake;

/// What all clients of a server share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) pool: Pool,
    pub(super) busy_pollers: BusyPollers,
    /// How many long requests of one client other threads carry out beside those of its rings.
    pub(super) helpers: usize,
    pub(super) refusals: Refusals,
    pub(super) stopping: AtomicBool,
    pub(super) wake: Wake,
}
