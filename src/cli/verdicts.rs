//! Hints after a failure of the library: one table of the flags and commands that help.

#[macro_use]
mod row;
mod servers;
mod tokens;
mod trust;
mod undo;

use std::error::Error;
use std::io::ErrorKind;

use luksmith::backend::IoError;
use luksmith::backend::file::FileError;
use luksmith::backend::nbd::{NbdError, Problem};
use luksmith::channel::TlsError;
use luksmith::container::{
    CommitError, CreateError, HeaderError, KeyslotError, OpenError, UnlockError, VolumeError,
};
use luksmith::crypt::CryptError;
use luksmith::export::nbd::ServeError;
use luksmith::export::vhost_user::ServeError as VhostError;
use luksmith::kdf::KdfError;
use luksmith::layout::{ImageError, IntegrityError};
use luksmith::libvirt::{LibvirtError, ValueError};
use luksmith::qemu::{AmendError, QmpError};
use luksmith::reencrypt::RoomError;
use luksmith::secret::{HelperError, KeyStoreError, SecretError};
use luksmith::sys::LoadError;
use luksmith::task::destination::NoRoom;
use luksmith::task::emulator::EmulatorError;
use luksmith::task::key_rotate::KeyRotateError;
use luksmith::task::libvirt::definition::DefinitionError;
use luksmith::task::libvirt::disk::DiskError;
use luksmith::task::libvirt::provision::ProvisionError;
use luksmith::task::libvirt::rekey::RekeyError;
use luksmith::task::libvirt::rotate::RotateError;
use luksmith::vet::ciphertext::VetError;
use luksmith_formats::FormatError;
use luksmith_formats::error::Kind as FormatKind;

use row::{Hint, Row};

const ROOM: &str = "`luksmith key remove IMAGE --keyslot N` makes room";
const SHOW: &str = "`luksmith info IMAGE` shows the keyslots";
/// The hint for a volume that an emulator does not open itself.
const SERVED: &str = "--served SOCKET is for a volume that `luksmith serve` decrypts";
/// The hint for a volume with a detached header.
const DETACHED: &str = "`luksmith qemu args --header FILE` is for QEMU without libvirt; --served \
                        SOCKET is for a volume that `luksmith serve` decrypts";
const MEMORY: &str = "free some memory, or raise `ulimit -l` (locked memory); --pbkdf-memory limits \
                      new keyslots";
/// The hint for a volume with authenticated encryption.
const CRYPTSETUP_WRITES: &str = "`cryptsetup open` writes to it; `luksmith serve --read-only`, \
                                 `luksmith decrypt` and `luksmith copy` read it";
/// The hint for an interrupted question or derivation, both of which come before the first write.
const UNCHANGED: &str = "nothing was changed";

hints! {
    else servers::hint;

    FormatError {
        error @ FormatError { kind: FormatKind::OverLimit, .. } => over_limit(error),
        FormatError { kind: FormatKind::Malformed, .. } =>
            "`luksmith header restore IMAGE FILE` restores a header backup",
    }

    KdfError {
        KdfError::OverLimit(error) => over_limit(error),
        KdfError::Interrupted => UNCHANGED,
        KdfError::Memory { .. } | KdfError::Lock(_) => MEMORY,
        KdfError::Random(error) => hint(error),
    }

    SecretError {
        SecretError::Interrupted => UNCHANGED,
        SecretError::Lock(_) => "raise the limit of locked memory (`ulimit -l`)",
        SecretError::Parse(_) | SecretError::StdinTaken =>
            "--key file:PATH, --key fd:N or --key-file PATH leave stdin for the data",
        SecretError::Scheme { source, .. } => hint(source.as_ref()),
        SecretError::Helper { source, .. } => helper(source),
        SecretError::TooWeak(_) => "choose several unrelated words, or accept it with --force-weak",
        SecretError::NoTerminal(_) =>
            "--key stdin reads a line of a pipe; --key SOURCE or --key-file PATH names another \
             source",
        SecretError::NoCredentials => "run it as a systemd service with LoadCredential=",
    }

    IoError {
        IoError::NoSpace { .. } =>
            "free space where it is stored, and run the command again; `df -h` shows it",
        IoError::Altered { .. } =>
            "do not trust this storage; if you know that another program has written to the volume, \
             remove tags, tags.0 and tags.1 from the folder of its UUID in DIR, and `luksmith trust \
             init IMAGE --trust DIR --tags` makes them anew",
        IoError::TagMismatch { .. } =>
            "these bytes can only be restored from a backup; what is at other places can still be \
             read by `luksmith serve --read-only`",
        IoError::LockLost(_) =>
            "look at the volume before you go on: what the other program has written is kept",
        IoError::Plaintext { .. } =>
            "--compressed-plaintext reads it; anyone with access to the storage can have changed \
             it",
    }

    FileError {
        FileError::NotFound(path) if path.as_os_str() == "-" =>
            "a volume is a file or a device, since it is not read in order; a pipe cannot hold one",
        FileError::PermissionDenied(path) =>
            format!(
                "`ls -l {}` shows who may; a device is usually for root and its group",
                path.display()
            ),
        FileError::ForeignLink { .. } =>
            "name the path to which the link leads, if that is the one you mean",
        FileError::Failed { source, .. }
            if source.kind() == ErrorKind::ReadOnlyFilesystem =>
            "the file system or the device is read-only; `luksmith info`, `key test` and `decrypt` \
             need no more",
        FileError::Busy { source, .. }
            if source.holders.iter().any(|holder| holder.is_machine()) =>
            "a virtual machine uses it; `luksmith libvirt rotate` or `luksmith qemu amend` changes \
             passphrases while it runs",
        FileError::Busy { source, .. }
            if (source.holders.iter()).any(|holder| holder.pid == std::process::id()) =>
            "this command has it open already: name another destination than the source",
        FileError::Busy { .. } => "stop the program that has it open, and run this again",
        FileError::Symlink(_) => "--follow-symlinks opens what it points to",
    }

    NbdError {
        NbdError { source: Problem::Tls(error), .. } => hint(error),
        NbdError { source: Problem::Silent(_) | Problem::Slow(_), .. } =>
            "--timeout SECONDS waits longer for a slow server",
    }

    OpenError {
        OpenError::NotLuks => "--header FILE names a detached header",
        OpenError::CloneInCeph =>
            "`rbd flatten POOL/IMAGE` makes the clone independent; librbd opens it with --engine \
             librbd of `luksmith libvirt xml disk`",
        OpenError::Remains(_) => "`luksmith header repair IMAGE` repairs it",
        OpenError::Header(error) => hint(error),
        OpenError::BothCopies { .. } =>
            "`luksmith header restore IMAGE FILE` restores a header backup",
        OpenError::TooSmall { .. } => "the image is cut off; --header FILE names a detached header",
        OpenError::Interrupted { undo } =>
            format!(
                "`luksmith header repair IMAGE` ends the change; if --undo-file named the record, \
                 add --undo-file {undo}"
            ),
        OpenError::NoUndo { undo } => format!("move {undo} away"),
        OpenError::Io(error) => hint(error),
        OpenError::Undo(error) => undo::store(error),
        OpenError::Trust(error) => hint(error),
    }

    UnlockError {
        UnlockError::NoSuchKeyslot(_) => SHOW,
        UnlockError::OnlyIgnored => "--keyslot N tries one of them",
        UnlockError::NoKeyslots =>
            "a header backup (`luksmith header restore`) or --volume-key-file may still open it",
        UnlockError::Kdf { source, .. } => hint(source),
        UnlockError::Memory(_) => MEMORY,
        UnlockError::Crypt(error) => crypt(error),
        UnlockError::Io(error) => hint(error),
        UnlockError::Trust(error) => hint(error),
    }

    VolumeError {
        VolumeError::Unsupported(why) => unfinished(why),
        VolumeError::Detached => "name the data as IMAGE and the header with --header FILE",
        VolumeError::TooSmall { size, needed } =>
            format!("{} bytes are missing: the image is cut off", needed.saturating_sub(*size)),
        VolumeError::Kdf(error) => hint(error),
        VolumeError::Crypt(error) => crypt(error),
        VolumeError::Integrity(error) => hint(error),
        VolumeError::Trust(error) => hint(error),
    }

    IntegrityError {
        IntegrityError::Journal { .. } =>
            "`cryptsetup open DEVICE NAME` and then `cryptsetup close NAME` write them to their \
             places; `losetup --find --show IMAGE` makes a device of a file",
        IntegrityError::Superblock(FormatError { kind: FormatKind::Malformed, .. }) =>
            "the storage of this header has a superblock of dm-integrity there: is IMAGE complete, \
             and does the header belong to it?",
        IntegrityError::Io(error) => hint(error),
    }

    CreateError {
        CreateError::Option { option, .. } => format!("see --{option} in --help"),
        CreateError::TooSmall { .. } =>
            "--luks2-keyslots-size 1M makes a LUKS2 header small, and --type luks1 needs 2 MiB",
        CreateError::Cipher(_) => "see --cipher and --key-size in --help",
        CreateError::Keyslot(error) => hint(error),
        CreateError::Secret(error) => hint(error),
        CreateError::Commit(error) => hint(error),
    }

    KeyslotError {
        KeyslotError::AllInUse(_) => ROOM,
        KeyslotError::InUse(_) | KeyslotError::OutOfRange { .. } => SHOW,
        KeyslotError::NotInUse(_) | KeyslotError::Replaced(_) => SHOW,
        KeyslotError::NoRoom { .. } => ROOM,
        KeyslotError::Requirements(names) => unfinished(names),
        KeyslotError::Last(_) => "--force last-keyslot removes it anyway",
        KeyslotError::Cost(error) => cost(error),
        KeyslotError::Kdf(error) => hint(error),
        KeyslotError::Secret(error) => hint(error),
        KeyslotError::Memory(_) => MEMORY,
        KeyslotError::Crypt(error) => crypt(error),
        KeyslotError::Commit(error) => hint(error),
    }

    HeaderError {
        HeaderError::OtherUuid { .. } => "--force other-uuid restores it anyway",
        HeaderError::Requirements(names) => unfinished(names),
        HeaderError::OtherKey => "--force other-key restores it anyway",
        HeaderError::NotUnderstood(_) =>
            "use the program that wrote it; `cryptsetup luksHeaderRestore` writes the backup over \
             it, and the passphrases of the present header are lost",
        HeaderError::Behind { end, .. } =>
            format!("move what is there elsewhere; `truncate -s {end} IMAGE` then cuts it off"),
        HeaderError::InTheWay { what, .. } if what.contains("LUKSMETA") =>
            "`luksmeta nuke -d IMAGE` removes it, if clevis does not unlock this volume",
        HeaderError::InTheWay { .. } =>
            "copy it elsewhere, and overwrite it with zeroes, if nothing needs it",
        HeaderError::NoSuchToken(_) => "`luksmith token list IMAGE` shows the tokens",
        HeaderError::TokenExists(_) => "--token-replace replaces it",
        HeaderError::TokensFull => "`luksmith token remove IMAGE --token-id N` makes room",
        HeaderError::Secret(error) => hint(error),
        HeaderError::Open(OpenError::NotLuks) =>
            "`luksmith header restore IMAGE FILE` restores a header backup",
        HeaderError::Open(error) => hint(error),
        HeaderError::Io(error) => hint(error),
        HeaderError::Commit(error) => hint(error),
    }

    CommitError {
        CommitError::Changed => "another program changed this header; look at it and try again",
        CommitError::Foreign(_) =>
            "copy the image first: `luksmith header repair IMAGE` asks, and overwrites this data",
        CommitError::NeedsUndo =>
            "--undo-file PATH names a file on another device, for the duration of the change",
        CommitError::InUse => "close the volume first",
        CommitError::Secret(error) => hint(error),
        CommitError::Io(error) => hint(error).unwrap_or_else(||
            "the change can have been made before the failure: `luksmith info IMAGE` shows what the \
             header has; keep the old and the new passphrase until then".to_owned()),
        CommitError::NotKept { .. } =>
            "it is another disk now, or another program writes to it: check both before you run \
             the command again",
        CommitError::NoRoom(_) => "free space where the image is, and run the command again",
        CommitError::RolledBack(error) => hint(error),
        CommitError::Undo(error) => undo::undo(error),
        CommitError::Trust(error) => hint(error),
    }

    RoomError {
        RoomError::Read(error) | RoomError::Store(error) => undo::store(error),
    }

    ServeError {
        ServeError::SameName(_) => "--name and --export NAME=IMAGE give each export its own name",
        ServeError::Flush { .. } =>
            "what clients have written since their last successful flush may be lost",
    }

    VhostError {
        VhostError::BlockSize(_) => "--block-size takes one of these",
        VhostError::Flush { .. } =>
            "what guests have written since their last successful flush may be lost",
    }

    TlsError {
        TlsError::Exposed { path, .. } => format!("`chmod 600 {}` closes it", path.display()),
        TlsError::Lock(_) => MEMORY,
    }

    VetError {
        VetError::Header(_) =>
            "--header FILE reads the header of a backup, --no-header searches all of IMAGE as data",
        VetError::Tagged =>
            "`luksmith decrypt IMAGE - >/dev/null` reads all of it, and compares each sector with its \
             tag; --no-header searches all of IMAGE as data",
        VetError::Io(error) => hint(error),
        VetError::Interrupted => UNCHANGED,
    }

    ImageError {
        ImageError::BackingFile | ImageError::DataFile =>
            "only the image itself is opened; `qemu-img convert` makes an image that holds all \
             data. `luksmith info`, `key` and `header` work on its header",
        ImageError::Encrypted =>
            "`luksmith copy --source-format qcow2` copies an encrypted image, with its passphrase",
        ImageError::NotEncrypted =>
            "`luksmith encrypt IMAGE NEW --source-format qcow2 --format qcow2` makes an encrypted \
             one",
        ImageError::NeedsRepair(_) =>
            "`qemu-img check -r all` repairs it; `luksmith decrypt` reads it as it is",
        ImageError::Bitmaps =>
            "`qemu-img bitmap --remove` removes them; for reading that is not necessary",
        ImageError::Header(error) if error.kind == FormatKind::Malformed =>
            "`luksmith inspect --format qcow2` lists all that is wrong with it",
        ImageError::Io(error) => hint(error),
    }

    NoRoom {
        NoRoom { .. } => "free space there, or name a file in another file system",
    }

    QmpError {
        QmpError::Silent(_) => "a monitor has one client at a time; --timeout SECONDS waits longer",
        QmpError::NoCommand(_) =>
            "QEMU 5.1 and later can change keyslots; `luksmith key` can when the machine is off",
        QmpError::Aborts(_) =>
            "`luksmith libvirt rotate` changes the volume of a running domain without its QEMU; \
             for any other machine, shut it down, then run `luksmith key change IMAGE`",
        QmpError::Occupied(_) => "run the command again when that has ended",
    }

    AmendError {
        AmendError::Qmp(error) => hint(error),
        AmendError::NotLuks(_) => "--node NODE names a block node",
    }

    LibvirtError {
        LibvirtError::Library(LoadError::NotInstalled { .. }) =>
            "install libvirt's client library: libvirt0 on Debian and Ubuntu, libvirt-libs on \
             Fedora",
        LibvirtError::Library(LoadError::Broken { .. }) =>
            "reinstall libvirt's client library with its dependencies: libvirt0 on Debian and \
             Ubuntu, libvirt-libs on Fedora",
        LibvirtError::Connection(_) =>
            "LIBVIRT_DEFAULT_URI, or --connect URI where it is taken, selects the libvirt: qemu:///system, \
             qemu+ssh://HOST/system, …",
        LibvirtError::Denied(_) =>
            "run it as root, or as a user that libvirt's configuration admits (group libvirt, \
             polkit, auth.conf)",
        LibvirtError::Private(_) =>
            "only libvirt itself can use this secret; give the passphrase from another source \
             (--key file:PATH, --key prompt)",
        LibvirtError::NoValue(_) =>
            "`luksmith libvirt secret set SECRET` sets it; an ephemeral secret loses it when the \
             daemon ends",
        LibvirtError::NoSecret(_) => "`luksmith libvirt secret list` shows the secrets",
        LibvirtError::DuplicateUsage(_) => "`luksmith libvirt secret list` shows what uses it",
        LibvirtError::Lock(_) => MEMORY,
    }

    ValueError {
        ValueError::Present =>
            "--key libvirt:SECRET uses that value; `luksmith libvirt rotate` replaces it",
        ValueError::Unseen(_) =>
            "`luksmith libvirt secret define --private --generate` makes a new secret with a value",
        ValueError::Libvirt(error) | ValueError::NotReadBack(error) => hint(error),
        ValueError::Generate(error) => hint(error),
    }

    EmulatorError {
        EmulatorError::Luks2(_) | EmulatorError::Part(_) | EmulatorError::Objects(_) => SERVED,
        EmulatorError::Qcow2(_) => "--format qcow2 describes it as one",
        EmulatorError::SeveralFiles(_) =>
            "`qemu-img convert` makes an image that holds all data",
        EmulatorError::DataOffset { .. } => SERVED,
        EmulatorError::NotUtf8(_) => "give it another name",
        EmulatorError::AbstractSocket => "socket=PATH names a socket in a directory",
        EmulatorError::NoCertificates(_) => "tls-certificates=DIR in it names them, for QEMU too",
        EmulatorError::NotText =>
            "`luksmith key add` adds a passphrase that is text, such as the base64 of a key file",
    }

    KeyStoreError {
        KeyStoreError::NotFound { .. } =>
            "--helper-dir DIR names a directory with the program; docs/key-helpers.md says what it has to \
             do",
        KeyStoreError::Helper(HelperError::Refused(error))
            if error.kind() == ErrorKind::PermissionDenied =>
            "a helper, its directory and all directories above it have to belong to root, or to you \
             with --helper-dir, and no other user may write to them (`chmod go-w`)",
        KeyStoreError::NoValue =>
            "`luksmith key change IMAGE --new-key generate:helper:NAME:REFERENCE` makes one",
        KeyStoreError::Present =>
            "helper:NAME:REFERENCE uses that value; `luksmith key rotate` replaces it",
        KeyStoreError::Conflict =>
            "another program has changed it; look at the key store, and run the command again",
        KeyStoreError::Denied => "the configuration of the helper says with which rights it asks",
        KeyStoreError::Unreachable => "run the command again later; nothing was lost",
        KeyStoreError::Altered | KeyStoreError::NotReadBack(_) | KeyStoreError::Nothing =>
            "the helper does not work as docs/key-helpers.md says",
        KeyStoreError::Secret(error) => hint(error),
    }

    KeyRotateError {
        KeyRotateError::NoReference(_) => "helper:NAME:REFERENCE names one",
        KeyRotateError::DoesNotOpen(_) =>
            "`luksmith key test IMAGE --key helper:NAME:REFERENCE` tests it; `luksmith key change` moves a \
             passphrase that opens the volume into the key store",
        KeyRotateError::Lost { kept, .. } =>
            format!(
                "`luksmith key test IMAGE --key {kept}` tests it; store that value under the reference \
                 itself, and run the command again"
            ),
        KeyRotateError::NotProven(_) | KeyRotateError::Replaced(_) =>
            "no old keyslot was removed; run the command again",
    }

    DefinitionError {
        DefinitionError::NoUsage(_) => "--usage volume:/TEXT gives it a name of its own",
        DefinitionError::NoName(_) => "--name NAME",
        DefinitionError::NoSecret(_) => "--secret UUID names it",
    }

    DiskError {
        DiskError::NoOwner => "leave --keep-owner out",
        DiskError::NotCeph => "leave --monitor and --ceph-config out",
        DiskError::OnlyCeph => SERVED,
        DiskError::OnlyLuks1 =>
            "--engine librbd opens LUKS2; `luksmith copy IMAGE NEW --type luks1` makes LUKS1 of it",
        DiskError::NoLogin => "leave --login out",
        DiskError::Detached => DETACHED,
        DiskError::Qcow2 => "leave --format out",
        DiskError::NotServed(_) => "the path of its file or device names it",
        DiskError::Far { .. } =>
            "volume:POOL/NAME names a volume there; an export (nbd://…) can be for both machines",
        DiskError::WhichSecret(_) =>
            "--secret UUID names it; `luksmith libvirt secret list` shows all",
    }

    RotateError {
        RotateError::NoVolume(_) =>
            "`luksmith libvirt rotate --all --check` shows the volumes that luksmith knows",
        RotateError::Nothing => "--check says which volumes have no secret",
        RotateError::OneForSeveral =>
            "without --new-key each secret gets a random passphrase of its own",
        RotateError::OtherVolumes(_) =>
            "make them known to libvirt again (start their pool, define their domain), and run \
             rotate again",
        RotateError::DoesNotOpen(_) =>
            "--key SOURCE or --key-file PATH gives the passphrase that opens it; --check tests all \
             secrets",
        RotateError::SharesPassphrase { .. } =>
            "let one secret open the volume for all domains and remove the others, or give each \
             its own passphrase (`luksmith key add`, `luksmith libvirt secret set`)",
        RotateError::MaySharePassphrase { .. } =>
            "let one secret open the volume for all domains, and remove the private one",
        RotateError::OpensStranger(_) =>
            "give each image a secret (`luksmith libvirt secret define --usage volume:PATH`, then \
             `secret set`) or a passphrase of its own (`luksmith key change`), or delete it",
        RotateError::OtherJournal(kept) =>
            format!(
                "--state-dir DIR names the directory of that rotation; if it is lost, `luksmith \
                 libvirt secret remove {kept}` removes that secret"
            ),
        RotateError::Held(_) => "rotate while the domain is shut off",
        RotateError::NotProven { .. } => "no old keyslot was removed; run the command again",
        RotateError::NoKeyslot => "`luksmith key remove IMAGE --keyslot N` makes room",
        RotateError::SeveralDomains(_) => "shut down all of them, or all but one",
        RotateError::NoNode(_) => "rotate while the domain is shut off",
        RotateError::OtherHeader(_) =>
            "run luksmith on the domain's host, or rotate while the domain is shut off",
        RotateError::Outdated(_) => "restart the domain, or rotate while it is shut off",
    }

    RekeyError {
        RekeyError::NoDisk(_) | RekeyError::NotEncrypted(_) =>
            "`luksmith reencrypt --served SOCKET` gives a volume a new key that `luksmith serve` \
             decrypts",
        RekeyError::Locked => "wait until it is done",
        RekeyError::Bound(what) =>
            format!("`virsh {}-list DOMAIN` shows them", what.trim_end_matches('s')),
        RekeyError::Saved =>
            "start the domain, or give its saved memory up with `virsh managedsave-remove DOMAIN`",
        RekeyError::Transient => "--keep-old keeps the old volume for that definition",
        RekeyError::Job =>
            "run the command again when the job is done; `virsh domjobinfo` and `virsh blockjob` \
             show it",
        RekeyError::Backing => "`virsh blockpull` merges the layers while the domain runs",
        RekeyError::AlsoUsed { .. } => "detach that disk first",
        RekeyError::NoPool(_) => "--pool POOL names a pool in which the new volume is made",
        RekeyError::OtherSize { .. } =>
            "shut the domain off and start it again, so that the guest sees the whole volume",
        RekeyError::Rotation(_) => "`luksmith libvirt rotate DOMAIN` completes it",
        RekeyError::ShutOff | RekeyError::CopyEnded =>
            "the domain has its old volume still; run the command again",
        RekeyError::NotProven(_) => "the old volume is not erased",
        RekeyError::NotShown { .. } =>
            "start the domain once, so that QEMU opens the new volume, and run the command again",
        RekeyError::Exchanged(_) =>
            "give the domain one of the two as its disk again, and run the command again",
        RekeyError::OtherVolume(_) => "`luksmith header erase` erases the volume that you mean",
    }

    ProvisionError {
        ProvisionError::Detached => "leave --header out",
        ProvisionError::NotAFile(_) => "leave --format out: a raw volume has its size from the start",
        ProvisionError::Luks2 =>
            "--served SOCKET says on which socket; --type luks1 is for QEMU itself",
        ProvisionError::NotInQemu(_) => SERVED,
        ProvisionError::Far { .. } =>
            "--pool POOL --name NAME makes a volume there; an export (nbd://…) can be for both",
        ProvisionError::NotStarted(pool) => format!("`virsh pool-start {pool}` starts it"),
        ProvisionError::Name(_) => "a name without / ; IMAGE in place of --pool is for a path",
    }
}

/// The flag that raises the limit which a key derivation exceeds.
/// The hint for a header that requires a reencryption to be finished.
fn unfinished(names: &str) -> Hint {
    if names.contains("dm-integrity") {
        return some(CRYPTSETUP_WRITES);
    }
    names.contains("reencrypt").then(|| {
        "`luksmith reencrypt IMAGE` goes on with the reencryption, which has to be finished first"
            .to_owned()
    })
}

fn over_limit(error: &FormatError) -> Hint {
    let flag = match error.field.rsplit('.').next() {
        Some("memory") => "--max-kdf-memory",
        Some("cpus") => "--max-kdf-lanes",
        Some("time") => "--max-kdf-work",
        Some("iterations") => "--max-kdf-iterations",
        _ => return None,
    };
    some(format!(
        "{flag} raises the limit, for an image that you trust"
    ))
}

/// Each cost of a new keyslot has a flag.
fn cost(error: &FormatError) -> Hint {
    some(match error.field.rsplit('.').next() {
        Some("memory") => "a smaller --pbkdf-memory lowers the cost",
        Some("cpus") => "a smaller --pbkdf-parallel lowers the cost",
        Some("time") => {
            "--pbkdf-force-iterations of argon2 counts passes over the memory: at least 4, few more"
        }
        _ => "a smaller --pbkdf-force-iterations lowers the cost; pbkdf2 needs at least 1000",
    })
}

fn crypt(error: &CryptError) -> Hint {
    match error {
        CryptError::Lock(_) => some(MEMORY),
        _ => None,
    }
}

fn helper(error: &HelperError) -> Hint {
    match error {
        HelperError::Refused(error) if error.kind() == ErrorKind::PermissionDenied => some(
            "the program has to be executable; it and its folder have to belong to root or to you, \
             and no other user may write to them (`chmod go-w`)",
        ),
        HelperError::Failed(_) | HelperError::Slow(_) => some(
            "it runs without arguments and terminal, with stdin from /dev/null and with a fixed \
             PATH; docs/programs.md has examples",
        ),
        _ => None,
    }
}

fn some(hint: impl Into<String>) -> Hint {
    Some(hint.into())
}
