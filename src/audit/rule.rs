//! A rule has a stable id; a finding is one place where it is broken.

use std::fmt;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing: a defence that one may want, or something that could not be looked at.
    Note,
    /// A defence is off, or data leaves the host in the clear.
    Warning,
    /// A guest, its image or somebody on the network can get at the host, at other guests or at what was to be encrypted.
    Error,
}

impl Severity {
    /// All of them, the lightest first.
    pub const ALL: [Self; 3] = [Self::Note, Self::Warning, Self::Error];

    /// Its name, as reports and SARIF spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that every domain, pool, volume, secret or host is checked for.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its stable id, such as `storage.luks-as-raw`.
    pub id: &'static str,
    /// What breaking it weighs.
    pub severity: Severity,
    /// What is the case where it is broken.
    pub meaning: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// Declares rules, and the list of them all.
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

/// Where something is: a file or an object of libvirt, a line in it, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The path of a file, or a URI of libvirt with the object in it.
    pub origin: String,
    /// Whether the origin is a file.
    pub is_file: bool,
    /// The line, from 1, of the file or of the object's XML.
    pub line: Option<usize>,
    /// What stands there, from the outside in: kinds and names, such as `domain vm1`, `disk vda`. Safe to show.
    pub object: Vec<(&'static str, String)>,
}

impl Place {
    /// The names alone, as exceptions spell them: `vm1:vda`.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.object.iter().map(|(_, name)| name.as_str()).collect();
        names.join(":")
    }

    /// The same place, one step further in.
    #[must_use]
    pub(super) fn within(&self, kind: &'static str, name: &str, line: usize) -> Self {
        let mut place = self.clone();
        place.object.push((kind, shown(name)));
        place.line = Some(line);
        place
    }

    /// The same object, at another line.
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

/// A rule that is broken somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// Where.
    pub place: Place,
    /// What is there, in one line; safe to show, and without secrets.
    pub detail: String,
    /// Why the policy excepts it.
    pub excepted: Option<String>,
}

/// A text from outside, safe to show: control characters are escaped, and it is not too long.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let mut shown = String::new();
    for character in text.chars().take(MOST) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
