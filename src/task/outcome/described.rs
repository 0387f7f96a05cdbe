//! The header of an image, as rows of a name and a text for people.

use luksmith_formats::luks2::{self, AuthenticatedSegment, Kdf};

use super::describe::Described;
use super::names;
use crate::backend::Backend as _;
use crate::container::{Header, KeyslotInfo};
use crate::layout::Qcow2Header;
use crate::task::{chain, reencrypt, size};

/// The name and the text of a row.
type Row = (&'static str, String);

impl Described<'_> {
    /// What the header says, except for its keyslots and tokens.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let container = self.container;
        let mut rows = Vec::new();
        if let Some(image) = self.data.qcow2_header.as_deref() {
            rows.extend(qcow2(image));
        }
        rows.push(("UUID", container.uuid().to_owned()));
        if let Header::Luks2(header) = container.header() {
            let labels = [("label", &header.label), ("subsystem", &header.subsystem)];
            let set = labels.into_iter().filter(|(_, text)| !text.is_empty());
            rows.extend(set.map(|(name, text)| (name, text.clone())));
        }
        rows.extend(self.data_rows());
        if let Some(header) = &self.image.header {
            rows.push(("header", format!("detached, in {header}")));
        }
        if let Header::Luks2(header) = container.header() {
            rows.extend(luks2(header));
        }
        rows.push(("health", container.health().to_string()));
        if !container.requirements().is_empty() {
            rows.push(("requirements", container.requirements().join(", ")));
        }
        rows.extend(self.reencryption_row());
        let refusals = container.not_supported();
        let refusals = refusals.iter().map(ToString::to_string);
        rows.extend(refusals.map(|refusal| ("not supported", refusal)));
        rows
    }

    fn data_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let key = self.container.volume_key_size();
        let key = key.map(|bytes| format!(", {}-bit key", bytes * 8));
        let key = key.unwrap_or_default();
        let tagged = self.container.authenticated_segment();
        rows.extend(tagged.iter().flat_map(|segment| self.tagged(segment, &key)));
        match self.container.data_segment() {
            _ if tagged.is_some() => {}
            Ok(segment) => {
                let cipher = format!("{}{key}", segment.cipher);
                rows.push(("cipher", cipher));
                rows.push(("sector size", format!("{} bytes", segment.sector_size)));
                let until = match segment.fixed_size {
                    Some(_) => "of fixed size",
                    None => "to the end of the storage",
                };
                // In a qcow2 image the header does not say where the data is.
                if self.data.qcow2_header.is_none() {
                    rows.push(("data", format!("from byte {} {until}", segment.offset)));
                }
            }
            Err(error) => rows.push((
                "data",
                match self.container.reencryption() {
                    Ok(Some(found)) => {
                        let offset = found.previous.offset();
                        format!("from byte {offset}, with the old or the new encryption")
                    }
                    _ => chain(&error),
                },
            )),
        }
        let size = match self.size {
            Some(size) => format!("{} for the guest", size::both(size)),
            None if self.detached => "the data is stored elsewhere (detached header)".to_owned(),
            None => {
                let size = self.data.backend.geometry().size;
                match self.container.data_segment() {
                    Ok(segment) if segment.offset > size => format!(
                        "unknown: the data begins {} bytes behind the end of the storage, which \
                         is cut off or holds only a header",
                        segment.offset - size
                    ),
                    _ => format!("unknown; the storage has {size} bytes"),
                }
            }
        };
        rows.push(("size", size));
        rows
    }

    fn tagged(&self, segment: &AuthenticatedSegment, key: &str) -> Vec<Row> {
        let (cipher, tag) = (segment.encryption, segment.encryption.tag_size());
        let readable = match self.integrity_problem() {
            Some(error) => format!("not readable: {}", chain(&error)),
            None => "only read".to_owned(),
        };
        let integrity = format!(
            "{} (dm-integrity), {tag} bytes for each sector; {readable}",
            cipher.integrity()
        );
        vec![
            ("cipher", format!("{}{key}", cipher.encryption())),
            ("sector size", format!("{} bytes", segment.sector_size)),
            ("integrity", integrity),
            (
                "data",
                format!("from byte {}, with tags and a journal", segment.offset),
            ),
        ]
    }

    fn reencryption_row(&self) -> Option<Row> {
        let text = match self.container.reencryption() {
            Ok(None) => return None,
            Ok(Some(found)) => {
                let size = reencrypt::data_size(&found, &*self.data.backend);
                let done = reencrypt::converted(&found, size);
                let rest = match found.is_encryption() {
                    true => "; the rest is plaintext",
                    false => "",
                };
                format!(
                    "{} of {} converted to {}, sectors of {} bytes{rest}",
                    size::human(done),
                    size::human(size),
                    found.following.encryption,
                    found.following.sector_size
                )
            }
            Err(error) => format!("not supported: {}", chain(&error)),
        };
        Some(("reencryption", text))
    }
}

fn qcow2(image: &Qcow2Header) -> Vec<Row> {
    let snapshots = match image.snapshots() {
        0 => String::new(),
        count => format!(", snapshots: {count}"),
    };
    let (version, cluster) = (image.version(), size::human(image.cluster_size()));
    let format = format!("qcow2 version {version}, clusters of {cluster}{snapshots}");
    let mut rows = vec![("format", format)];
    for (name, file) in [
        ("backing file", image.backing_file()),
        ("data file", image.data_file()),
    ] {
        rows.extend(file.map(|file| (name, format!("{file} (not opened)"))));
    }
    rows
}

fn luks2(header: &luks2::Header) -> Vec<Row> {
    let area = header.metadata.keyslots_area();
    let (copy, sequence) = (size::human(header.hdr_size), header.seqid);
    let length = size::human(area.end - area.start);
    let mut rows = vec![
        (
            "metadata",
            format!("two copies of {copy}, sequence {sequence}"),
        ),
        (
            "keyslots area",
            format!("{length} from byte {}", area.start),
        ),
    ];
    let flags = &header.metadata.config().flags;
    if !flags.is_empty() {
        rows.push(("flags", flags.join(", ")));
    }
    rows
}

/// A keyslot as the cells of a table: its number, what it opens, its priority, its key derivation
/// with the cost, and its area.
#[must_use]
pub fn keyslot_cells(slot: &KeyslotInfo) -> [String; 6] {
    let opens = match slot.bound {
        true => "the volume".to_owned(),
        false => format!("unbound {}-bit key", slot.key_size * 8),
    };
    let (kdf, cost) = match &slot.sealing {
        Ok(sealing) => kdf(&sealing.kdf),
        Err(_) => ("not supported".to_owned(), String::new()),
    };
    let length = size::human(slot.area.end - slot.area.start);
    [
        slot.slot.to_string(),
        opens,
        names::priority(slot.priority).to_owned(),
        kdf,
        cost,
        format!("{length} at byte {}", slot.area.start),
    ]
}

fn kdf(kdf: &Kdf) -> (String, String) {
    match kdf {
        Kdf::Pbkdf2 {
            hash, iterations, ..
        } => (format!("pbkdf2-{hash}"), format!("{iterations} iterations")),
        Kdf::Argon2 {
            variant,
            passes,
            memory_kib,
            lanes,
            ..
        } => {
            let memory = size::human(u64::from(*memory_kib) * 1024);
            let cost = format!("{memory}, {passes} passes, {lanes} threads");
            (variant.name().to_owned(), cost)
        }
    }
}
