//! Rules, and findings: the places where a rule is broken.

use std::fmt;

use luksmith_formats::text::Shown;

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Information: a protection that may be wanted, or something that could not be read.
    Note,
    /// A protection is off, or data leaves the host without encryption.
    Warning,
    /// A guest, its image or an attacker on the network can access the host, other guests, or data
    /// that should be encrypted.
    Error,
}

impl Severity {
    /// All severities, the lowest first.
    pub const ALL: [Self; 3] = [Self::Note, Self::Warning, Self::Error];

    /// Its name in reports and in SARIF.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A rule for domains, pools, volumes, secrets or the host.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// The id, such as `storage.luks-as-raw`. It does not change between versions.
    pub id: &'static str,
    /// How severe it is to break the rule.
    pub severity: Severity,
    /// What is wrong if the rule is broken.
    pub meaning: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// How to correct it.
    pub fix: &'static str,
}

/// Declares rules, and `RULES`, the list of all of them.
macro_rules! rules {
    ($($name:ident: $severity:ident, $id:literal, $meaning:literal, $why:literal, $fix:literal;)+) => {
        $(static $name: $crate::audit::rule::Rule = $crate::audit::rule::Rule {
            id: $id,
            severity: $crate::audit::rule::Severity::$severity,
            meaning: $meaning,
            why: $why,
            fix: $fix,
        };)+
        /// Every rule of this file.
        pub(super) static RULES: &[&$crate::audit::rule::Rule] = &[$(&$name),+];
    };
}
pub(super) use rules;

/// The place of a finding: a file or an object of libvirt, a line in it, and the object at this
/// line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The path of a file, or a URI of libvirt with the object in it.
    pub origin: String,
    /// The bytes of the path, if they are not UTF-8. Then `origin` has `\xNN` for each byte that is
    /// not.
    pub path_bytes: Option<Vec<u8>>,
    /// Whether the origin is a file.
    pub is_file: bool,
    /// The line, counted from 1, of the file or of the object's XML.
    pub line: Option<usize>,
    /// The kinds and names of the objects there, from the outside in, such as `domain vm1`, `disk
    /// vda`. They are safe to print.
    pub object: Vec<(&'static str, String)>,
}

impl Place {
    /// Only the names, as in exceptions: `vm1:vda`.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.object.iter().map(|(_, name)| name.as_str()).collect();
        names.join(":")
    }

    /// The place of an object in the object of this place.
    #[must_use]
    pub(super) fn within(&self, kind: &'static str, name: &str, line: usize) -> Self {
        let mut place = self.clone();
        place.object.push((kind, shown(name)));
        place.line = Some(line);
        place
    }

    /// The same place at another line.
    #[must_use]
    pub(super) fn at(&self, line: usize) -> Self {
        Self {
            line: Some(line),
            ..self.clone()
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        for (number, (kind, name)) in self.object.iter().enumerate() {
            let comma = if number == 0 { ":" } else { "," };
            write!(f, "{comma} {kind} {name}")?;
        }
        Ok(())
    }
}

/// A place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// The place.
    pub place: Place,
    /// What is wrong there, in one line. It is safe to print, and contains no secrets.
    pub detail: String,
    /// The reason of the policy's exception, if there is one.
    pub excepted: Option<String>,
}

/// A text from outside that is safe to print: cut, and with control characters escaped.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let mut cut = text.char_indices().skip(MOST);
    match cut.next() {
        Some((end, _)) => format!("{}…", Shown(text.get(..end).unwrap_or_default())),
        None => Shown(text).to_string(),
    }
}
