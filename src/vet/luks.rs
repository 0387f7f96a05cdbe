//! LUKS volumes. They are parsed as they are for opening. Both copies of a LUKS2 header are
//! checked, and that the data is one encrypted segment.
//!
//! LUKS1 On-Disk Format 1.2.3; LUKS2 On-Disk Format 1.1.

use luksmith_formats::dm_integrity::{SUPERBLOCK, Superblock};
use luksmith_formats::luks2::{self, AuthenticatedSegment, Kdf, Keyslot, Position, SegmentSize};
use luksmith_formats::{FormatError, Limits, Version, luks1};

use super::finding::checks;
use super::format::Encryption;
use super::format::Format;
use super::policy::Policy;
use super::report::Report;
use super::source::{Source, Stop};

checks! {
    VERSION: reject, "luks.version", "its LUKS version is unknown, or not the declared one";
    HEADER: reject, "luks.header",
        "the header breaks a rule of the format, or uses what is refused (null ciphers, opal, …)";
    COPIES: reject, "luks.copies",
        "the two copies of the header differ, or one is damaged: programs may see different volumes";
    SEGMENT: reject, "luks.segment",
        "the data is not one encrypted segment: a part is not encrypted, or a reencryption is not finished";
    REQUIREMENTS: reject, "luks.requirements",
        "the header has mandatory requirements, such as a pending reencryption";
    INTEGRITY: reject, "luks.integrity",
        "the superblock of dm-integrity is not valid, does not fit the header, or its data is not within the image";
    SIZE: reject, "luks.size", "the header, the keyslots or the data are not within the image";
    DETACHED: reject, "luks.detached", "it is a detached header: the data is in another place";
    TAGS: note, "luks.tags",
        "the data has authenticated encryption (dm-integrity): luksmith only reads it, and QEMU does not open it";
    KEYSLOTS: note, "luks.keyslots", "no keyslot is in use, so no passphrase opens it";
}

/// The bytes that are read to recognise a header: the binary header of LUKS2, and all of a LUKS1
/// header.
const BINARY: u64 = 4096;

pub(super) fn check(
    source: &mut Source<'_>,
    report: &mut Report,
    policy: &Policy,
) -> Result<(), Stop> {
    let size = source.size();
    volume(source, report, policy, 0, size)
}

/// Checks a LUKS1 header in a part of an image, as in qcow2. The size of the data is given by the
/// image.
pub(super) fn inside(
    source: &mut Source<'_>,
    report: &mut Report,
    policy: &Policy,
    (offset, len): (u64, u64),
) -> Result<(), Stop> {
    let start = source.read(offset, len.min(BINARY))?;
    let Some(header) = luks1(report, policy, &start, offset) else {
        return Ok(());
    };
    // The part holds only the header and the key material.
    report.require(
        material_end(&header) <= len,
        &SIZE,
        offset,
        "keyslots",
        || format!("end at byte {} of {len}", material_end(&header)),
    );
    Ok(())
}

fn volume(
    source: &mut Source<'_>,
    report: &mut Report,
    policy: &Policy,
    offset: u64,
    size: u64,
) -> Result<(), Stop> {
    let start = source.read(offset, BINARY)?;
    let version = match Version::detect(&start) {
        Ok(version) => version,
        Err(error) => {
            refuse(report, &VERSION, offset, &error);
            return Ok(());
        }
    };
    let declared = match report.format {
        Format::Luks1 => Version::Luks1,
        Format::Luks2 => Version::Luks2,
        _ => version,
    };
    if !report.require(version == declared, &VERSION, offset + 6, "version", || {
        format!("{version}")
    }) {
        return Ok(());
    }
    match version {
        Version::Luks1 => {
            report.encryption = Encryption::Luks1;
            if let Some(header) = luks1(report, policy, &start, offset) {
                let used = material_end(&header);
                report.require(used <= size, &SIZE, 0, "keyslots", || {
                    format!("end at byte {used}, the image at {size}")
                });
                data(report, 104, size, header.data_offset(), None, 512);
            }
            Ok(())
        }
        Version::Luks2 => {
            report.encryption = Encryption::Luks2;
            luks2(source, report, policy, &start)
        }
    }
}

fn refuse(report: &mut Report, check: &'static super::Check, base: u64, error: &FormatError) {
    report.add(
        check,
        base.saturating_add(error.offset),
        error.field.clone(),
        error.cause.clone(),
    );
}

fn luks1(report: &mut Report, policy: &Policy, start: &[u8], base: u64) -> Option<luks1::Header> {
    let header = match luks1::Header::parse(start, &Limits::default()) {
        Ok(header) => header,
        Err(error) => {
            refuse(report, &HEADER, base, &error);
            return None;
        }
    };
    if let Err(error) = header.check_usable() {
        refuse(report, &HEADER, base, &error);
    }
    if let (Ok(cipher), Ok(hash)) = (header.cipher(), header.hash()) {
        policy.judge_cipher(report, base + 8, &cipher.to_string());
        let pbkdf2 = |iterations| Kdf::Pbkdf2 {
            hash,
            iterations,
            salt: Vec::new(),
        };
        let active = (0_u64..)
            .zip(&header.keyslots)
            .filter(|(_, slot)| slot.active);
        let mut count = 0;
        for (number, keyslot) in active {
            let field = format!("keyslots.{number}");
            let at = base + 208 + number * 48 + 4;
            policy.judge_kdf(report, at, &field, &pbkdf2(keyslot.iterations));
            count += 1;
        }
        report.require(count != 0, &KEYSLOTS, base + 208, "keyslots", || {
            "none".into()
        });
        // The digest costs time only once for each passphrase, and is never easier to guess than
        // the keyslot: only the ceiling counts.
        let mut limits = Limits::default();
        limits.pbkdf2_iterations = policy.kdf_ceiling.pbkdf2_iterations;
        if limits.check_pbkdf2(header.digest_iterations).is_err() {
            policy.judge_kdf(
                report,
                base + 164,
                "digest",
                &pbkdf2(header.digest_iterations),
            );
        }
    }
    Some(header)
}

/// The end of the last key material in use.
fn material_end(header: &luks1::Header) -> u64 {
    let active = (0..luks1::KEYSLOTS).filter(|slot| header.keyslots[*slot].active);
    let ends = active.map(|slot| header.area(slot).end);
    ends.max().unwrap_or(luks1::HEADER_SIZE as u64)
}

/// Checks the place of the data in an image of `size` bytes.
fn data(report: &mut Report, at: u64, size: u64, offset: u64, fixed: Option<u64>, sector: u32) {
    if !report.require(offset != 0, &DETACHED, at, "data offset", || "0".into()) {
        return;
    }
    let needed = offset.saturating_add(fixed.unwrap_or(0));
    if report.require(needed <= size, &SIZE, at, "data offset", || {
        format!("data to byte {needed}, the image ends at {size}")
    }) {
        let len = fixed.unwrap_or(size - offset);
        report.claims(len - len % u64::from(sector.max(1)));
    } else if let Some(fixed) = fixed {
        report.claims(fixed);
    }
}

fn luks2(
    source: &mut Source<'_>,
    report: &mut Report,
    policy: &Policy,
    start: &[u8],
) -> Result<(), Stop> {
    let limits = Limits::default();
    let hdr_size = match luks2::Header::probe_size(start, Position::Primary) {
        Ok(size) => size,
        Err(error) => {
            refuse(report, &HEADER, 0, &error);
            return Ok(());
        }
    };
    let mut copies = Vec::new();
    for position in Position::ALL {
        let bytes = source.read(position.offset(hdr_size), hdr_size)?;
        match luks2::Header::parse(&bytes, position, &limits) {
            Ok(header) => copies.push(header),
            // An error in the first copy is one of the header. One in the second copy only is a
            // difference of the copies.
            Err(error) if position == Position::Primary => refuse(report, &HEADER, 0, &error),
            Err(error) => refuse(report, &COPIES, 0, &error),
        }
    }
    if let [primary, secondary] = &copies[..] {
        report.require(primary == secondary, &COPIES, hdr_size, "header", || {
            format!(
                "sequence numbers {} and {}, or the metadata differs",
                primary.seqid, secondary.seqid
            )
        });
    }
    if let Some(header) = copies.first() {
        for header in &copies {
            described(report, policy, header);
        }
        let needed = header.metadata.keyslots_area().end;
        let size = source.size();
        report.require(needed <= size, &SIZE, 8, "config.keyslots_size", || {
            format!("keyslots to byte {needed}, the image ends at {size}")
        });
        if let Ok((_, segment)) = header.metadata.data_segment() {
            let fixed = match segment.size {
                SegmentSize::Dynamic => None,
                SegmentSize::Fixed(size) => Some(size),
            };
            data(
                report,
                BINARY,
                size,
                segment.offset,
                fixed,
                segment.sector_size,
            );
        }
        if let Ok(Some(segment)) = header.metadata.authenticated_segment() {
            tagged(source, report, segment)?;
        }
    }
    Ok(())
}

/// Checks what dm-integrity says of the data. Its journal and its tags are not read.
fn tagged(
    source: &mut Source<'_>,
    report: &mut Report,
    segment: &AuthenticatedSegment,
) -> Result<(), Stop> {
    let (offset, size) = (segment.offset, source.size());
    let len = SUPERBLOCK as u64;
    if !report.require(offset != 0, &DETACHED, BINARY, "data offset", || "0".into()) {
        return Ok(());
    }
    let is_there = offset.checked_add(len).is_some_and(|end| end <= size);
    if !report.require(is_there, &SIZE, BINARY, "data offset", || {
        format!("data from byte {offset}, the image ends at {size}")
    }) {
        return Ok(());
    }
    let bytes = source.read(offset, len)?;
    let superblock = match Superblock::parse(&bytes, offset) {
        Ok(superblock) => superblock,
        Err(error) => {
            refuse(report, &INTEGRITY, 0, &error);
            return Ok(());
        }
    };
    let found = (usize::from(superblock.tag_size), superblock.sector_size());
    let expected = (segment.encryption.tag_size(), segment.sector_size);
    report.require(found == expected, &INTEGRITY, offset, "tag_size", || {
        let ((tag, sector), (of, on)) = (found, expected);
        format!("{tag} bytes for each {sector}, and {of} for each {on} in the header")
    });
    match superblock.places(offset, size) {
        Ok(places) => report.claims(places.size()),
        Err(error) => refuse(report, &INTEGRITY, 0, &error),
    }
    Ok(())
}

/// Checks the metadata of one copy.
fn described(report: &mut Report, policy: &Policy, header: &luks2::Header) {
    let metadata = &header.metadata;
    let required = &metadata.config().requirements;
    report.require(
        required.is_empty(),
        &REQUIREMENTS,
        BINARY,
        "config.requirements",
        || required.join(", ").escape_default().to_string(),
    );
    for error in metadata.not_understood() {
        refuse(report, &HEADER, 0, error);
    }
    let tagged = metadata.authenticated_segment().ok().flatten();
    match (tagged, metadata.data_segment()) {
        (Some(segment), _) => {
            let cipher = segment.encryption;
            policy.judge_cipher(report, BINARY, cipher.encryption());
            report.add(&TAGS, BINARY, "segments.0.integrity", cipher.to_string());
        }
        (None, Ok((_, segment))) => {
            policy.judge_cipher(report, BINARY, &segment.encryption.to_string())
        }
        (None, Err(error)) if metadata.not_understood().any(|known| *known == error) => {}
        (None, Err(error)) => refuse(report, &SEGMENT, BINARY, &error),
    }
    let backup = metadata.segments().values().any(luks2::Segment::is_backup);
    let unfinished = metadata
        .keyslots()
        .values()
        .any(|keyslot| matches!(keyslot, Keyslot::Reencrypt(_)));
    report.require(!backup && !unfinished, &SEGMENT, BINARY, "segments", || {
        "a reencryption is not finished".into()
    });
    let mut count = 0;
    for (id, keyslot) in metadata.keyslots() {
        if let Some(keyslot) = keyslot.as_luks2() {
            count += 1;
            let field = format!("keyslots.{id}.kdf");
            policy.judge_kdf(report, BINARY, &field, &keyslot.kdf);
            policy.judge_cipher(report, BINARY, &keyslot.area.encryption.to_string());
        }
    }
    report.require(count != 0, &KEYSLOTS, BINARY, "keyslots", || "none".into());
    for (id, digest) in metadata.digests() {
        let kdf = Kdf::Pbkdf2 {
            hash: digest.hash,
            iterations: digest.iterations,
            salt: Vec::new(),
        };
        if digest.iterations > policy.kdf_ceiling.pbkdf2_iterations {
            policy.judge_kdf(report, BINARY, &format!("digests.{id}"), &kdf);
        }
    }
}
