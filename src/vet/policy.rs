//! The policy for images: a TOML file, or the strict default.

use luksmith_formats::Limits;
use luksmith_formats::luks2::Kdf;
use serde::Deserialize;

use super::finding::checks;
use super::format::{Encryption, Feature, Format};
use super::report::Report;

checks! {
    SIZE: policy, "policy.size", "the disk is larger than the policy allows";
    FORMAT: policy, "policy.format", "the policy does not allow this format";
    FEATURE: policy, "policy.feature", "the image uses a feature that the policy does not allow";
    ENCRYPTION: policy, "policy.encryption",
        "the policy requires encryption, or forbids it";
    CIPHER: policy, "policy.cipher", "the policy does not allow this cipher";
    FLOOR: policy, "policy.kdf-floor",
        "guessing the passphrase of a keyslot costs less than the policy allows";
    CEILING: policy, "policy.kdf-ceiling",
        "unlocking takes more time, memory or threads than the policy allows";
}

/// Whether images have to be encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionRule {
    /// The image may be encrypted or not.
    #[default]
    Optional,
    /// The image must be encrypted.
    Required,
    /// The image must not be encrypted.
    Forbidden,
}

/// The lowest or the highest cost of a keyslot's KDF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct Costs {
    /// Iterations of PBKDF2.
    pub pbkdf2_iterations: u32,
    /// Memory of argon2 in KiB.
    pub argon2_memory_kib: u32,
    /// Memory times passes of argon2 in KiB.
    pub argon2_work_kib: u64,
    /// Lanes of argon2.
    pub argon2_lanes: u32,
}

/// Which images are allowed. The default is strict: it allows common features, and sizes and costs
/// that are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The largest disk in bytes. Default: 16 TiB.
    pub max_size: u64,
    /// The allowed formats. Default: all.
    pub formats: Vec<Format>,
    /// The allowed features. Default: all but `dirty`, `hybrid-mbr`, `extent-files` and `resized`.
    pub features: Vec<Feature>,
    /// Whether images have to be encrypted. Default: optional.
    pub encryption: EncryptionRule,
    /// The names of the allowed LUKS ciphers, such as `aes-xts-plain64`. Default: all that this
    /// program supports.
    pub ciphers: Option<Vec<String>>,
    /// The lowest cost of a keyslot. Default: the lowest that cryptsetup creates.
    pub kdf_floor: Costs,
    /// The highest cost of a keyslot. Default: that of [`Limits`].
    pub kdf_ceiling: Costs,
}

impl Default for Policy {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            max_size: 16 << 40,
            formats: Format::ALL.to_vec(),
            features: Feature::ALL
                .into_iter()
                .filter(|one| one.is_common())
                .collect(),
            encryption: EncryptionRule::Optional,
            ciphers: None,
            kdf_floor: Costs {
                pbkdf2_iterations: 1000,
                argon2_memory_kib: 32,
                argon2_work_kib: 128,
                argon2_lanes: 1,
            },
            kdf_ceiling: Costs {
                pbkdf2_iterations: limits.pbkdf2_iterations,
                argon2_memory_kib: limits.argon2_memory_kib,
                argon2_work_kib: limits.argon2_work_kib,
                argon2_lanes: limits.argon2_lanes,
            },
        }
    }
}

/// Why a policy cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is not TOML, or has unknown members or values.
    #[error("the policy cannot be read: {0}")]
    Text(String),
    /// The policy names an unknown format.
    #[error("the policy names an unknown format \"{0}\"")]
    Format(String),
}

/// What is wrong with a text in TOML, and where, in one line.
pub(crate) fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    let cause: Vec<_> = error.message().lines().map(str::trim).collect();
    let cause = cause.join(", ");
    let before = error.span().and_then(|span| text.get(..span.start));
    let Some(before) = before else { return cause };
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].chars().count() + 1;
    format!("line {line}, column {column}: {cause}")
}

/// The members of the file. A missing one has the default value.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    max_size: Option<u64>,
    formats: Option<Vec<String>>,
    features: Option<Vec<Feature>>,
    encryption: Option<EncryptionRule>,
    #[serde(default)]
    luks: Luks,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Luks {
    ciphers: Option<Vec<String>>,
    kdf_floor: Option<Costs>,
    kdf_ceiling: Option<Costs>,
}

impl Policy {
    /// Reads a policy from TOML. `docs/inspect.md` has an example with every member.
    ///
    /// # Errors
    /// Returns an error if the text is not TOML, or has an unknown member, value or format.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File =
            toml::from_str(text).map_err(|error| PolicyError::Text(toml_fault(text, &error)))?;
        let strict = Self::default();
        let formats = file.formats.map(|names| {
            let known = |name: String| Format::by_name(&name).ok_or(PolicyError::Format(name));
            names.into_iter().map(known).collect()
        });
        Ok(Self {
            max_size: file.max_size.unwrap_or(strict.max_size),
            formats: formats.transpose()?.unwrap_or(strict.formats),
            features: file.features.unwrap_or(strict.features),
            encryption: file.encryption.unwrap_or(strict.encryption),
            ciphers: file.luks.ciphers,
            kdf_floor: file.luks.kdf_floor.unwrap_or(strict.kdf_floor),
            kdf_ceiling: file.luks.kdf_ceiling.unwrap_or(strict.kdf_ceiling),
        })
    }

    /// Checks a report against the policy, and adds the findings.
    pub(super) fn judge(&self, report: &mut Report) {
        if let Some(size) = report.virtual_size.filter(|size| *size > self.max_size) {
            let detail = format!("{size} bytes; the limit is {}", self.max_size);
            report.add(&SIZE, 0, "size", detail);
        }
        if !self.formats.contains(&report.format) {
            report.add(&FORMAT, 0, "format", report.format.name());
        }
        for feature in report.features.clone() {
            if !self.features.contains(&feature) {
                report.add(&FEATURE, 0, "features", feature.name());
            }
        }
        let encrypted = report.encryption != Encryption::None;
        let detail = match self.encryption {
            EncryptionRule::Required if !encrypted => "it is not encrypted",
            EncryptionRule::Forbidden if encrypted => "it is encrypted",
            _ => return,
        };
        report.add(&ENCRYPTION, 0, "encryption", detail);
    }

    /// Checks the cipher of a LUKS volume.
    pub(super) fn judge_cipher(&self, report: &mut Report, offset: u64, cipher: &str) {
        let allowed = self.ciphers.as_ref();
        if allowed.is_some_and(|allowed| allowed.iter().all(|name| name != cipher)) {
            report.add(&CIPHER, offset, "cipher", cipher);
        }
    }

    /// Checks the KDF of a keyslot or digest.
    pub(super) fn judge_kdf(&self, report: &mut Report, offset: u64, field: &str, kdf: &Kdf) {
        let (low, high) = (&self.kdf_floor, &self.kdf_ceiling);
        let costs: &[(&str, u64, u64, u64)] = &match kdf {
            Kdf::Pbkdf2 { iterations, .. } => vec![(
                "iterations",
                u64::from(*iterations),
                low.pbkdf2_iterations.into(),
                high.pbkdf2_iterations.into(),
            )],
            Kdf::Argon2 {
                passes,
                memory_kib,
                lanes,
                ..
            } => vec![
                (
                    "memory",
                    u64::from(*memory_kib),
                    low.argon2_memory_kib.into(),
                    high.argon2_memory_kib.into(),
                ),
                (
                    "work",
                    u64::from(*memory_kib).saturating_mul((*passes).into()),
                    low.argon2_work_kib,
                    high.argon2_work_kib,
                ),
                (
                    "lanes",
                    u64::from(*lanes),
                    low.argon2_lanes.into(),
                    high.argon2_lanes.into(),
                ),
            ],
        };
        for (what, value, low, high) in costs {
            let name = format!("{field}.{what}");
            if value < low {
                report.add(
                    &FLOOR,
                    offset,
                    name,
                    format!("{value}; the lowest is {low}"),
                );
            } else if value > high {
                report.add(
                    &CEILING,
                    offset,
                    name,
                    format!("{value}; the highest is {high}"),
                );
            }
        }
    }
}
