//! Sizes: the disk of an image or volume has to be within the limit, and within its pool.

use super::context::{Context, Pool};
use super::disk::Disk;
use super::inventory::Seen;
use super::rule::{Place, rules, shown};
use crate::xml::Element;

rules! {
    LIMIT: Warning, "size.limit",
        "a disk is larger than the policy allows",
        "An image of one megabyte can have a disk of terabytes. It grows as the guest writes, \
         until the host's storage is full for all guests.",
        "Refuse it, or raise the limit: --max-size SIZE, or max-size in the policy.";
    POOL: Warning, "size.pool",
        "a volume may grow beyond the space of its pool",
        "A guest that fills its disk fills the pool. Then all other guests with volumes there get \
         I/O errors or are paused.",
        "Make the volume smaller or the pool larger, or allocate volumes fully.";
}

pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for layer in &disk.layers {
        let Some(path) = context.path(layer) else {
            continue;
        };
        let image = context.image(&path, layer.format);
        if let Some(Seen::Bytes(look)) = image.map(|one| &one.seen) {
            let size = look.size;
            limit(context, size, &place.at(layer.line), &path);
        }
    }
}

fn limit(context: &mut Context<'_>, size: Option<u64>, place: &Place, what: &str) {
    let most = context.policy.max_size;
    let broken = size
        .filter(|size| *size > most)
        .map(|size| format!("{}: {size} bytes; the limit is {most}", shown(what)));
    context.add_if(&LIMIT, place, broken);
}

/// A volume. It can grow to its capacity. Its allocation is the space that it occupies already.
pub(super) fn volume(
    context: &mut Context<'_>,
    xml: Element<'_>,
    place: &Place,
    pool: Option<&str>,
) {
    let of = |name| xml.child(name).and_then(bytes);
    let Some(capacity) = of("capacity") else {
        return;
    };
    let line = xml.child("capacity").map_or(xml.line(), Element::line);
    let place = place.at(line);
    limit(context, Some(capacity), &place, "the volume");
    let Some(pool) = pool.and_then(|name| context.pools.get(name)) else {
        return;
    };
    let Pool {
        capacity: whole,
        available,
        ..
    } = *pool;
    let wants = capacity.saturating_sub(of("allocation").unwrap_or(0));
    let broken = match (whole, available) {
        (Some(whole), _) if capacity > whole => {
            Some(format!("{capacity} bytes; the pool has {whole}"))
        }
        (_, Some(free)) if wants > free => Some(format!(
            "it may need {wants} more bytes; the pool has {free} left"
        )),
        _ => None,
    };
    context.add_if(&POOL, &place, broken);
}

/// A size in libvirt's XML: a number, and a unit, which is bytes by default.
pub(super) fn bytes(element: Element<'_>) -> Option<u64> {
    let number: u64 = element.text().parse().ok()?;
    let unit = element
        .attribute("unit")
        .unwrap_or("B")
        .to_ascii_lowercase();
    if ["b", "byte", "bytes"].contains(&unit.as_str()) {
        return Some(number);
    }
    let (prefix, rest) = unit.split_at_checked(1)?;
    let power = "kmgtpe".find(prefix)? + 1;
    let base: u64 = match rest {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    let factor = base.checked_pow(u32::try_from(power).ok()?)?;
    Some(number.saturating_mul(factor))
}
