//! The typed view of LUKS2 metadata, derived from its JSON.

use alloc::collections::BTreeMap;

use crate::json::Value;

use super::config::Config;
use super::digest::Digest;
use super::keyslot::Keyslot;
use super::node::Node;
use super::segment::Segment;
use super::token::Token;
use super::{MAX_DIGESTS, MAX_OBJECTS};
use crate::error::FormatError;

/// Every object of the metadata, as a struct.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) keyslots: BTreeMap<u32, Keyslot>,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) digests: BTreeMap<u32, Digest>,
    pub(super) tokens: BTreeMap<u32, Token>,
    pub(super) config: Config,
}

impl View {
    /// Reads every object. [`validate`](super::validate) checks the relations between objects.
    pub(super) fn derive(value: &Value, hdr_size: u64) -> Result<Self, FormatError> {
        let root = Node::root(value);
        let section = |name: &str| root.member(name);
        let config = Config::read(&section("config")?, hdr_size)?;
        Ok(Self {
            keyslots: read_all(&section("keyslots")?, MAX_OBJECTS, Keyslot::read)?,
            tokens: read_all(&section("tokens")?, MAX_OBJECTS, Token::read)?,
            segments: read_all(&section("segments")?, MAX_OBJECTS, Segment::read)?,
            digests: read_all(&section("digests")?, MAX_DIGESTS, Digest::read)?,
            config,
        })
    }

    pub(super) fn data_segments(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.segments
            .iter()
            .filter(|(_, segment)| !segment.is_backup())
            .map(|(id, segment)| (*id, segment))
    }

    pub(super) fn data_offset(&self) -> u64 {
        self.data_segments()
            .map(|(_, segment)| segment.offset())
            .min()
            .unwrap_or(0)
    }

    pub(super) fn digest(&self, wanted: impl Fn(&Digest) -> bool) -> Option<(u32, &Digest)> {
        self.digests
            .iter()
            .find(|(_, digest)| wanted(digest))
            .map(|(id, digest)| (*id, digest))
    }
}

fn read_all<T>(
    section: &Node<'_>,
    most: u32,
    read: impl Fn(&Node<'_>) -> Result<T, FormatError>,
) -> Result<BTreeMap<u32, T>, FormatError> {
    section
        .numbered(most)?
        .iter()
        .map(|(id, node)| Ok((*id, read(node)?)))
        .collect()
}
