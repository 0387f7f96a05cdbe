//! Backing files: every other file from which an image is read has to be declared in the XML, and
//! has to be in a trusted folder.

use super::context::Context;
use super::disk::{Disk, Part, Source};
use super::inventory::Seen;
use super::policy::lies_in;
use super::rule::{Place, rules, shown};
use crate::vet::escaped;

rules! {
    UNDECLARED: Error, "chain.undeclared",
        "an image names a backing file, a data file or an extent that the XML does not declare",
        "What the image does not contain is read from that file. So the author of the image \
         chooses which file of the host, or which server that the host can reach, the guest sees.",
        "Reject the image, or flatten it: qemu-img convert. If you want the chain, declare it to \
         its end with <backingStore> (and <dataStore>).";
    UNTRUSTED: Error, "chain.untrusted-path",
        "a backing store or data file is outside of the trusted folders",
        "A user who can write there changes what the guest reads, and what other guests with the \
         same backing file read.",
        "Move it into a pool, or allow the folder: --trusted-path DIR, or trusted-paths in the \
         policy.";
    UNSEEN: Note, "chain.not-looked-at",
        "an image could not be opened",
        "The rules about the contents of images were not checked on it.",
        "Run the audit on the host that has the image, as a user who may read it. `luksmith \
         inspect --format` checks a single image more closely.";
}

pub(super) fn disk(context: &mut Context<'_>, disk: &Disk<'_>, place: &Place) {
    for (number, layer) in disk.layers.iter().enumerate() {
        let Some(path) = context.path(layer) else {
            continue;
        };
        let place = place.at(layer.line);
        let is_behind = layer.part.is_behind();
        let mut folders = context
            .pools
            .values()
            .filter_map(|pool| pool.target.as_deref());
        let in_pool = folders.any(|folder| lies_in(&path, folder));
        if is_behind && !in_pool && !context.policy.trusts(&path) {
            let detail = format!("{} is {}", layer.part.name(), shown(&path));
            context.add(&UNTRUSTED, place.clone(), detail);
        }
        match context.image(&path, layer.format).map(|one| &one.seen) {
            Some(Seen::Bytes(look)) => {
                let behind = disk.layers.get(number + 1..).unwrap_or_default();
                // The images behind a mirror are those that follow it, and not those of the disk.
                let behind = behind.iter().take_while(|one| one.part != Part::Mirror);
                let undeclared = look.references.iter().find(|reference| {
                    !behind.clone().any(|one| {
                        let declared = context.path(one);
                        declares(reference, &path, declared.as_deref(), &one.source)
                    })
                });
                if let Some(reference) = undeclared {
                    let detail = format!("{} names {reference}", shown(&path));
                    context.add(&UNDECLARED, place, detail);
                }
            }
            Some(Seen::Not(why)) => {
                let detail = format!("{}: {}", shown(&path), shown(why));
                context.add(&UNSEEN, place, detail);
            }
            None => {}
        }
    }
}

/// Whether a name in an image is the source that the XML declares: a path, absolute or relative to
/// the image's folder, or a storage on the network.
fn declares(reference: &str, image: &str, path: Option<&str>, source: &Source<'_>) -> bool {
    if let Source::Network(network) = source {
        let name = escaped(network.name.as_bytes());
        let name = name.trim_matches('"');
        return !name.is_empty() && reference.contains(name);
    }
    let Some(path) = path else {
        return false;
    };
    let folder = image.rsplit_once('/').map_or("", |(folder, _)| folder);
    let relative = path
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'));
    let mut names = [Some(path), relative].into_iter().flatten();
    // A name that was cut is not compared.
    names.any(|name| escaped(name.as_bytes()) == reference && reference.ends_with('"'))
}
