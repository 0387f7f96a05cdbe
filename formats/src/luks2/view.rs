//! The typed view of LUKS2 metadata, derived from its JSON.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::json::Value;

use super::config::Config;
use super::digest::{Digest, OtherDigest};
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
    /// The digests that cannot be computed.
    pub(super) other_digests: BTreeMap<u32, OtherDigest>,
    pub(super) tokens: BTreeMap<u32, Token>,
    pub(super) config: Config,
    /// A relation between objects because of which the volume is not opened.
    pub(super) obstacle: Option<FormatError>,
}

impl View {
    /// Metadata without any object.
    pub(super) fn new(config: Config) -> Self {
        Self {
            keyslots: BTreeMap::new(),
            segments: BTreeMap::new(),
            digests: BTreeMap::new(),
            other_digests: BTreeMap::new(),
            tokens: BTreeMap::new(),
            config,
            obstacle: None,
        }
    }

    /// Reads every object. [`validate`](super::validate) checks the relations between them.
    pub(super) fn derive(value: &Value, hdr_size: u64) -> Result<Self, FormatError> {
        let root = Node::root(value);
        let section = |name: &str| root.member(name);
        let mut view = Self::new(Config::read(&section("config")?, hdr_size)?);
        let numbered = |name: &str, most| section(name)?.numbered(most);
        view.keyslots = read_all(numbered("keyslots", MAX_OBJECTS)?, Keyslot::read)?;
        // cryptsetup ignores tokens with other numbers, and keeps them.
        let tokens = section("tokens")?.numbered_among(MAX_OBJECTS)?;
        view.tokens = read_all(tokens, Token::read)?;
        view.segments = read_all(numbered("segments", MAX_OBJECTS)?, Segment::read)?;
        for (id, node) in numbered("digests", MAX_DIGESTS)? {
            match Digest::read(&node)? {
                Ok(digest) => {
                    view.digests.insert(id, digest);
                }
                Err(other) => {
                    view.other_digests.insert(id, other);
                }
            }
        }
        Ok(view)
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

    /// The keyslots and segments of every digest, computable or not.
    pub(super) fn references(&self) -> impl Iterator<Item = (u32, &[u32], &[u32])> {
        let known = self.digests.iter();
        let known = known.map(|(id, digest)| (*id, &*digest.keyslots, &*digest.segments));
        let other = self.other_digests.iter();
        let other = other.map(|(id, digest)| (*id, &*digest.keyslots, &*digest.segments));
        known.chain(other)
    }

    /// What is not supported or not understood, in the order of the specification.
    pub(super) fn refusals(&self) -> impl Iterator<Item = &FormatError> {
        let keyslots = self.keyslots.values().filter_map(Keyslot::why);
        let segments = self.segments.values().filter_map(Segment::why);
        let digests = self.other_digests.values().map(|digest| &digest.why);
        let objects = keyslots.chain(segments).chain(digests);
        objects.chain(&self.obstacle)
    }

    pub(super) fn refusals_mut(&mut self) -> impl Iterator<Item = &mut FormatError> {
        let keyslots = self.keyslots.values_mut().filter_map(Keyslot::why_mut);
        let segments = self.segments.values_mut().filter_map(Segment::why_mut);
        let digests = self
            .other_digests
            .values_mut()
            .map(|digest| &mut digest.why);
        let objects = keyslots.chain(segments).chain(digests);
        objects.chain(&mut self.obstacle)
    }
}

fn read_all<T>(
    members: Vec<(u32, Node<'_>)>,
    read: impl Fn(&Node<'_>) -> Result<T, FormatError>,
) -> Result<BTreeMap<u32, T>, FormatError> {
    members
        .iter()
        .map(|(id, node)| Ok((*id, read(node)?)))
        .collect()
}
