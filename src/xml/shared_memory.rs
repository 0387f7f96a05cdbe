//! Whether a domain of libvirt shares its memory with programs of the host (libvirt's
//! `formatdomain`, "Memory Backing" and "NUMA"). A disk of vhost-user needs that.

use super::Element;

/// Whether the memory of a domain is shared, or else that of each of its NUMA cells.
pub(crate) fn shares_memory(domain: Element<'_>) -> bool {
    let is_shared = |value: Option<&str>| value == Some("shared");
    let access = domain.at(&["memoryBacking", "access"]);
    let by_default = is_shared(access.and_then(|access| access.attribute("mode")));
    let numa = domain.at(&["cpu", "numa"]);
    let cells = numa.into_iter().flat_map(|numa| numa.children("cell"));
    let mut cells = cells.map(|cell| cell.attribute("memAccess")).peekable();
    if cells.peek().is_none() {
        return by_default;
    }
    cells.all(|stated| by_default && stated.is_none() || is_shared(stated))
}
