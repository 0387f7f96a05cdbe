//! Checks, and findings: the places where an image fails them.

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Information, and no reason to refuse the image.
    Note,
    /// The image may be valid, but the policy does not allow it.
    Policy,
    /// The image is not valid in the declared format, or a program could read it in another way.
    Reject,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Policy => "policy",
            Self::Reject => "reject",
        }
    }
}

/// A check of every image of a format.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// The id, such as `qcow2.backing-file`. It does not change between versions.
    pub id: &'static str,
    /// How severe it is to fail the check.
    pub severity: Severity,
    /// What is wrong with an image that fails the check.
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

/// Declares checks, and `CHECKS`, the list of all of them.
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
    /// The offset of the field, in bytes from the start of the image.
    pub offset: u64,
    /// The name of the field.
    pub field: String,
    /// What the field contains, in one line. Bytes from the image are escaped.
    pub detail: String,
}

/// Bytes of an image as text that is safe to show: cut, and with everything but printable ASCII
/// escaped.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    const MOST: usize = 256;
    let shown = bytes.get(..MOST).unwrap_or(bytes).escape_ascii();
    let rest = if bytes.len() > MOST { "…" } else { "" };
    format!("\"{shown}\"{rest}")
}
