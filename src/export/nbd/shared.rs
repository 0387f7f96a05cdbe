//! What all connections of a server share.

use std::sync::Arc;

use super::connections::Connections;
use super::options::Options;
use super::stopping::Stopping;
use crate::export::Export;
use crate::export::budget::Budget;
use crate::export::busy_poll::BusyPollers;
use crate::export::pool::Pool;
use crate::export::refusals::Refusals;
use crate::export::wake::Wake;

/// What all connections share.
pub(super) struct Shared {
    pub(super) exports: Vec<Arc<Export>>,
    pub(super) options: Options,
    pub(super) budget: Arc<Budget>,
    pub(super) pool: Pool,
    pub(super) busy_pollers: BusyPollers,
    pub(super) stopping: Arc<Stopping>,
    pub(super) connections: Connections,
    pub(super) refusals: Refusals,
    pub(super) wake: Arc<Wake>,
}

impl Shared {
    /// The export of this name. The empty name also finds the only export, whatever its name is.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Export>> {
        let named = self.exports.iter().find(|export| export.name() == name);
        match (&self.exports[..], named) {
            (_, Some(export)) => Some(export.clone()),
            ([only], None) if name.is_empty() => Some(only.clone()),
            _ => None,
        }
    }
}
