//! Auditing libvirt: domains, pools, volumes, secrets and the settings of the host, by the
//! recommendations of libvirt's "Secure Usage" and by related rules. `docs/audit.md` has every
//! rule.
//!
//! [`audit()`] is a function of texts and facts, and opens nothing. The caller fills an
//! [`Inventory`]. It can ask [`images`] which images the rules need, [`look`] at them, and add the
//! results. [`task::audit`](crate::task::audit) does all of this.
//!
//! ```
//! use luksmith::audit::{Document, Inventory, Policy, audit};
//!
//! let xml = "<domain><name>vm1</name><devices><disk type='network' device='disk'>
//!   <driver name='qemu' type='raw'/>
//!   <source protocol='nbd' name='vm1'><host name='storage'/></source>
//!   <target dev='vda'/></disk></devices></domain>";
//! let mut inventory = Inventory::default();
//! inventory.documents.push(Document::file("vm1.xml", xml));
//! let report = audit(&inventory, &Policy::default());
//! let finding = &report.findings[0];
//! assert_eq!(finding.rule.id, "storage.remote-plain");
//! assert_eq!(finding.place.to_string(), "vm1.xml:1: domain vm1, disk vda");
//! ```

mod chain;
pub mod conf;
mod confinement;
mod console;
mod context;
mod devices;
mod disk;
mod host;
mod inventory;
mod look;
mod memory;
mod policy;
mod policy_file;
mod probing;
mod report;
mod rule;
pub mod sarif;
mod secrets;
mod served;
mod size;
mod storage;
mod transport;

use std::collections::BTreeSet;

pub use inventory::{
    BlockDevice, DiskSocket, Document, Holds, Host, Image, Inventory, KeptFile, Look, Seen,
    SocketUnit, Wanted,
};
pub use look::look;
pub use policy::{Exception, Policy};
pub use policy_file::PolicyError;
pub use report::Report;
pub use rule::{Finding, Place, Rule, Severity};

use crate::xml::{self, Element};
use context::{Context, Pool, place_of};
use disk::{Disk, disks};
use rule::{rules, shown};

rules! {
    UNREADABLE: Error, "audit.unreadable",
        "a document could not be read",
        "No rule was checked on it. libvirt's own XML has no document type and no entities, and \
         none of the sizes that are refused here.",
        "Give the XML of a domain, disk, snapshot, pool, volume or secret, as virsh dumpxml \
         --inactive, snapshot-dumpxml, pool-dumpxml, vol-dumpxml and secret-dumpxml print it. To \
         check a disk image, use `luksmith inspect`.";
}

/// The most images that [`images`] returns, and the most sockets of [`sockets`].
const MOST_IMAGES: usize = 4096;

/// All rules.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let own = [
        RULES,
        report::RULES,
        probing::RULES,
        chain::RULES,
        size::RULES,
        storage::RULES,
        confinement::RULES,
        console::RULES,
        memory::RULES,
        secrets::RULES,
        transport::RULES,
        served::RULES,
    ];
    own.into_iter().chain(host::ALL).flatten().copied()
}

/// Checks all rules on an inventory.
pub fn audit(inventory: &Inventory, policy: &Policy) -> Report {
    let mut context = Context::new(inventory, policy);
    if let Some(host) = &inventory.host {
        host::settings(&mut context, host);
    }
    storages(&mut context);
    for document in &inventory.documents {
        let place = place_of(document);
        for xml in xml::documents(&document.text) {
            let judged = match &xml {
                Ok(xml) => one(&mut context, document, xml.root(), &place)
                    .map_err(|what| (place.at(xml.root().line()), what.to_owned())),
                Err(error) => Err((place.clone(), shown(&error.to_string()))),
            };
            if let Err((place, what)) = judged {
                context.add(&UNREADABLE, place, what);
            }
        }
    }
    secrets::shared(&mut context);
    if let Some(host) = &inventory.host {
        host::access(&mut context, host);
    }
    context.report
}

/// The images that the rules need, according to the documents of the inventory.
pub fn images(inventory: &Inventory) -> BTreeSet<Wanted> {
    let policy = Policy::default();
    let mut context = Context::new(inventory, &policy);
    storages(&mut context);
    let mut wanted = BTreeSet::new();
    each_disk(inventory, |disk| {
        for layer in &disk.layers {
            let path = context.path(layer).filter(|path| path.starts_with('/'));
            if wanted.len() < MOST_IMAGES {
                wanted.extend(path.map(|path| Wanted {
                    path,
                    format: layer.format.unwrap_or("raw").to_owned(),
                }));
            }
        }
    });
    wanted
}

/// The sockets that the rules need, according to the documents of the inventory.
pub fn sockets(inventory: &Inventory) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    each_disk(inventory, |disk| {
        let sockets = served::sockets(disk).map(|(path, _)| path.to_owned());
        wanted.extend(sockets.take(MOST_IMAGES - wanted.len().min(MOST_IMAGES)));
    });
    wanted
}

/// Calls `look` for each disk that the documents have.
fn each_disk(inventory: &Inventory, mut look: impl FnMut(&Disk<'_>)) {
    for document in &inventory.documents {
        for xml in xml::documents(&document.text).flatten() {
            let root = xml.root();
            let domains = domains_of(root).into_iter();
            let domains = domains.filter(|domain| is_of_qemu(*domain));
            let fragment = root.is("disk").then(|| Disk::read(root));
            let disks = fragment.into_iter().chain(domains.flat_map(all_disks));
            disks.for_each(|disk| look(&disk));
        }
    }
}

/// The disks of a domain, and the storages that are used like disks.
fn all_disks(domain: Element<'_>) -> impl Iterator<Item = Disk<'_>> {
    disks(domain).chain(devices::storages(domain))
}

/// Whether a domain is one of libvirt's QEMU driver. The rules are about what that driver does.
fn is_of_qemu(domain: Element<'_>) -> bool {
    let others = [
        "bhyve",
        "hyperv",
        "lxc",
        "openvz",
        "parallels",
        "phyp",
        "uml",
        "vbox",
        "vmware",
        "vz",
        "xen",
    ];
    let kind = domain.attribute("type").unwrap_or_default();
    !others.contains(&kind)
}

/// Records all pools and volumes, to which domains refer by name.
fn storages(context: &mut Context<'_>) {
    let inventory = context.inventory;
    let documents = inventory.documents.iter().flat_map(|document| {
        let all = xml::documents(&document.text).flatten();
        all.map(move |xml| (document, xml))
    });
    for (document, xml) in documents {
        let root = xml.root();
        let text = |path: &[&str]| root.at(path).map(Element::text);
        let name = text(&["name"]).unwrap_or_default();
        if root.is("pool") {
            let size = |name| root.child(name).and_then(size::bytes);
            let pool = Pool {
                kind: root.attribute("type").unwrap_or("dir").to_owned(),
                target: text(&["target", "path"]),
                capacity: size("capacity").filter(|size| *size > 0),
                available: size("capacity").and(size("available")),
            };
            context.pools.insert(name, pool);
        } else if let (true, Some(pool), Some(path)) =
            (root.is("volume"), &document.pool, text(&["target", "path"]))
        {
            context.volumes.insert((pool.clone(), name), path);
        }
    }
}

/// The domains of a document: the document itself, a part of the state that libvirt stores of a
/// running domain, or the definitions of a domain at the time of a snapshot or checkpoint.
fn domains_of(root: Element<'_>) -> Vec<Element<'_>> {
    if root.is("domain") {
        return vec![root];
    }
    let parts: &[&str] = if root.is("domstatus") || root.is("domaincheckpoint") {
        &["domain"]
    } else if root.is("domainsnapshot") {
        &["domain", "inactiveDomain"]
    } else {
        &[]
    };
    parts.iter().filter_map(|part| root.child(part)).collect()
}

fn one(
    context: &mut Context<'_>,
    document: &Document,
    root: Element<'_>,
    place: &Place,
) -> Result<(), &'static str> {
    let name = |root: Element<'_>| {
        root.child("name")
            .map_or_else(|| "unnamed".to_owned(), Element::text)
    };
    let domains = domains_of(root);
    if !domains.is_empty() {
        for xml in domains {
            let place = place.within("domain", &name(xml), xml.line());
            domain(context, xml, &place);
        }
    } else if root.is("disk") {
        let disk = Disk::read(root);
        let place = place.within(disk.kind, &disk.target, root.line());
        one_disk(context, &disk, &place);
    } else if root.is("volume") {
        let pool = document.pool.as_deref();
        let place = match pool {
            Some(pool) => place.within("pool", pool, root.line()),
            None => place.clone(),
        };
        let place = place.within("volume", &name(root), root.line());
        size::volume(context, root, &place, pool);
        storage::volume(context, root, &place, pool);
        probing::volume(context, root, &place);
        if let Some(path) = root.at(&["target", "path"]) {
            context.paths.push((path.text(), place));
        }
    } else if root.is("secret") {
        let uuid = root.child("uuid").map(Element::text).unwrap_or_default();
        secrets::secret(context, root, &place.within("secret", &uuid, root.line()));
    } else if root.is("domainsnapshot") || root.is("domaincheckpoint") {
        return Err("the snapshot contains no domain");
    } else if !root.is("pool") {
        return Err("it is not a domain, disk, snapshot, pool, volume or secret");
    }
    Ok(())
}

fn domain(context: &mut Context<'_>, xml: Element<'_>, place: &Place) {
    confinement::passed_through(context, xml, place);
    secrets::passed_through(context, xml, place);
    transport::passed_through(context, xml, place);
    if !is_of_qemu(xml) {
        return;
    }
    confinement::domain(context, xml, place);
    console::domain(context, xml, place);
    memory::domain(context, xml, place);
    storage::files(context, xml, place);
    secrets::tpms(context, xml, place);
    for disk in all_disks(xml) {
        let place = place.within(disk.kind, &disk.target, disk.element.line());
        one_disk(context, &disk, &place);
        served::memory(context, xml, &disk, &place);
    }
}

fn one_disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    probing::disk(context, disk, place);
    chain::disk(context, disk, place);
    size::disk(context, disk, place);
    storage::disk(context, disk, place);
    secrets::disk(context, disk, place);
    served::disk(context, disk, place);
    for layer in &disk.layers {
        if let Some(path) = context.path(layer) {
            context.paths.push((path, place.at(layer.line)));
        }
    }
}
