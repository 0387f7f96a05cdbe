//! BLOCK_STATUS chunks, with which a server says which parts of an export hold data (`proto.md`,
//! "Metadata querying"). A server may send anything.

use std::ops::Range;

use luksmith_formats::nbd::{BlockStatus, Extent};

use super::error::Problem;
use super::handshake::Export;

/// The most extents of a chunk (`proto.md`, "NBD_CMD_BLOCK_STATUS").
const MOST: u64 = 1 << 20;

/// The longest chunk, in bytes.
pub(super) const LONGEST: u64 = MOST * 16 + 8;

/// Reads a BLOCK_STATUS chunk about a range.
pub(super) fn parse(
    bytes: &[u8],
    extended: bool,
    export: &Export,
    range: Range<u64>,
) -> Result<Vec<Extent>, Problem> {
    let status = match extended {
        true => BlockStatus::parse_extended(bytes),
        false => BlockStatus::parse(bytes),
    };
    let status = status.map_err(Problem::Malformed)?;
    if Some(status.context) != export.allocation {
        return Err(Problem::Violation(
            "a block status belongs to another context",
        ));
    }
    let mut at = range.start;
    for extent in &status.extents {
        // Only the last extent may go on after the range.
        if at >= range.end {
            return Err(Problem::Violation(
                "a block status goes on after what was asked",
            ));
        }
        at = at.saturating_add(extent.len);
    }
    // The size was reduced to whole blocks.
    if at > export.size.saturating_add(u64::from(export.minimum)) {
        return Err(Problem::Violation(
            "a block status reaches beyond the export",
        ));
    }
    Ok(status.extents)
}
