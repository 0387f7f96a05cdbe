//! What a build without one of this crate's Cargo features cannot do.

/// A header or an image needs a Cargo feature of this crate that is not enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} needs the feature \"{feature}\" of luksmith, which this build does not have")]
#[non_exhaustive]
pub struct MissingFeature {
    /// What needs the feature: the name of a cipher or hash, or a structure of an image.
    pub what: &'static str,
    /// The feature, as `Cargo.toml` names it.
    pub feature: &'static str,
}

impl MissingFeature {
    pub(crate) const fn new(what: &'static str, feature: &'static str) -> Self {
        Self { what, feature }
    }
}
