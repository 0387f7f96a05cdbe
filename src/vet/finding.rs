//! A check has a stable id; a finding is one place where an image fails it.

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; no reason to refuse.
    Note,
    /// The image may be good, but the policy does not want it.
    Policy,
    /// The image is not what it is said to be, or is more than that.
    Reject,
}

impl Severity {
    /// Its name, as reports spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Policy => "policy",
            Self::Reject => "reject",
        }
    }
}

/// Something that every image of a format is checked for.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// Its stable id, such as `qcow2.backing-file`.
    pub id: &'static str,
    /// What failing it weighs.
    pub severity: Severity,
    /// What it means when an image fails it.
    pub meaning: &'static str,
}

impl Check {
    pub(super) const fn reject(id: &'static str, meaning: &'static str) -> Self {
        Self {
            id,
            severity: Severity::Reject,
            meaning,
        }
    }

    pub(super) const fn policy(id: &'static str, meaning: &'static str) -> Self {
        Self {
            id,
            severity: Severity::Policy,
            meaning,
        }
    }

    pub(super) const fn note(id: &'static str, meaning: &'static str) -> Self {
        Self {
            id,
            severity: Severity::Note,
            meaning,
        }
    }
}

/// Declares checks, and the list of them all.
macro_rules! checks {
    ($($name:ident: $severity:ident, $id:literal, $meaning:literal;)+) => {
        $(pub(super) static $name: $crate::vet::finding::Check = $crate::vet::finding::Check::$severity($id, $meaning);)+
        /// Every check of this file.
        pub(in $crate::vet) static CHECKS: &[&$crate::vet::finding::Check] = &[$(&$name),+];
    };
}
pub(super) use checks;

/// A check that an image fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The check.
    pub check: &'static Check,
    /// Where, in bytes from the start of the image.
    pub offset: u64,
    /// The field there.
    pub field: String,
    /// What is there, in one line; bytes from the image are escaped.
    pub detail: String,
}

/// Bytes of an image as text that is safe to show: ASCII, everything else escaped, and not too long.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    const MOST: usize = 256;
    let shown = bytes.get(..MOST).unwrap_or(bytes).escape_ascii();
    let rest = if bytes.len() > MOST { "…" } else { "" };
    format!("\"{shown}\"{rest}")
}
