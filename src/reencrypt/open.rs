//! The volume during a reencryption that does not go on.

use std::sync::Arc;

use luksmith_formats::luks2::Progress;

use super::error::ReencryptError;
use super::recover::{Decided, Interrupted};
use super::side::{old_side_of, side_of};
use super::{check_resilience, data_size, unit};
use crate::backend::Backend;
use crate::container::{Container, ReencryptionKeys};
use crate::layout::side::Side;
use crate::layout::two_sides::{Block, TwoSides, ZoneCopy};
use crate::volume::Volume;

/// The volume with the reencryption in `container`, for reading. Nothing is written: of a zone in
/// which the reencryption was interrupted, each block is decided on its own. What of it nothing
/// decides cannot be read.
///
/// # Errors
/// Returns [`ReencryptError`].
pub fn open_to_read(
    container: &Container,
    data: Arc<dyn Backend>,
    keys: &ReencryptionKeys,
) -> Result<Volume, ReencryptError> {
    let found = container.reencryption().map_err(ReencryptError::Format)?;
    let found = found.ok_or(ReencryptError::NotPending)?;
    let size = data_size(&found, container, &*data)?;
    let new_key = keys.following().ok_or(ReencryptError::NotPending)?;
    let new = side_of(&found.following, new_key)?;
    if found.progress == Progress::Finished {
        let Side {
            crypt,
            start,
            first_iv,
        } = new;
        let size = size - size % u64::from(crypt.sector_size());
        return Ok(Volume::new(data, crypt, start, size, first_iv, true)?);
    }
    let old = old_side_of(&found.previous, keys)?;
    let old = old.ok_or(ReencryptError::NotPending)?;
    let new = Arc::new(new);
    let unit = unit(&found, &*data);
    let sides = match found.progress {
        Progress::Finished => TwoSides::new(data, old, Some(new), unit, size, Vec::new()),
        Progress::Clean { converted } => {
            TwoSides::new(data, old, Some(new), unit, converted, Vec::new())
        }
        Progress::Hot { start, length } => {
            check_resilience(&found, size, unit)?;
            let interrupted = Interrupted {
                container,
                data: &*data,
                found: &found,
                old: &old,
                new: &new,
                size,
                unit,
            };
            let decided = interrupted.decide(start, length, false)?;
            let end = start + length;
            let at = |boundary: u64, hot: Vec<Block>| {
                TwoSides::new(
                    data.clone(),
                    old.clone(),
                    Some(new.clone()),
                    unit,
                    boundary,
                    hot,
                )
            };
            match decided {
                Decided::Converted => at(end, Vec::new()),
                Decided::Untouched => at(start, Vec::new()),
                Decided::Blocks(blocks, block) => at(start, in_units(&blocks, block, unit)),
                Decided::Journaled => at(end, Vec::new()).with_copy(ZoneCopy {
                    zone: start..end,
                    storage: container.header_storage().clone(),
                    at: found.state.area.start,
                }),
            }
        }
    };
    Ok(Volume::of_two_sides(Arc::new(sides), size, true)?)
}

/// The state of each unit, from those of the smaller blocks of checksums. A unit whose blocks have
/// different states is unknown.
fn in_units(blocks: &[Block], block: usize, unit: u64) -> Vec<Block> {
    let count = usize::try_from(unit).unwrap_or(block) / block;
    let state = |blocks: &[Block]| match blocks.split_first() {
        Some((first, rest)) if rest.iter().all(|block| block == first) => *first,
        _ => Block::Unknown,
    };
    blocks.chunks(count).map(state).collect()
}
