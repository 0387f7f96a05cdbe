//! What helps after a failure of `libvirt rotate`.

use luksmith::task::libvirt::rotate::RotateError;

fn some(hint: impl Into<String>) -> Option<String> {
    Some(hint.into())
}

/// What helps after this error.
pub(super) fn rotate(error: &RotateError) -> Option<String> {
    match error {
        RotateError::NoVolume(_) => {
            some("`luksmith libvirt rotate --all --check` shows the volumes that luksmith knows")
        }
        RotateError::Nothing => some("--check says which volumes have no secret"),
        RotateError::OneForSeveral => {
            some("without --new-key each secret gets a random passphrase of its own")
        }
        RotateError::OtherVolumes(_) => some(
            "make them known to libvirt again (start their pool, define their domain), and run \
             rotate again",
        ),
        RotateError::DoesNotOpen(_) => some(
            "--key SOURCE or --key-file PATH gives the passphrase that opens it; --check tests all \
             secrets",
        ),
        RotateError::SharesPassphrase { .. } => some(
            "let one secret open the volume for all domains and remove the others, or give each its \
             own passphrase (`luksmith key add`, `luksmith libvirt secret set`)",
        ),
        RotateError::MaySharePassphrase { .. } => {
            some("let one secret open the volume for all domains, and remove the private one")
        }
        RotateError::OpensStranger(_) => some(
            "give each image a secret (`luksmith libvirt secret define --usage volume:PATH`, then \
             `secret set`) or a passphrase of its own (`luksmith key change`), or delete it",
        ),
        RotateError::OtherJournal(kept) => some(format!(
            "--state-dir DIR names the directory of that rotation; if it is lost, `luksmith libvirt \
             secret remove {kept}` removes that secret"
        )),
        RotateError::Held(_) => some("rotate while the domain is shut off"),
        RotateError::NotProven { .. } => some("no old keyslot was removed; run the command again"),
        RotateError::NoKeyslot => some("`luksmith key remove IMAGE --keyslot N` makes room"),
        RotateError::SeveralDomains(_) => some("shut down all of them, or all but one"),
        RotateError::NoNode(_) => some("rotate while the domain is shut off"),
        RotateError::OtherHeader(_) => {
            some("run luksmith on the domain's host, or rotate while the domain is shut off")
        }
        RotateError::Outdated(_) => some("restart the domain, or rotate while it is shut off"),
        _ => None,
    }
}
