//! Hints after a failure of the library: one table of the flags and commands that help.

mod rotate;
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
use luksmith::kdf::KdfError;
use luksmith::layout::ImageError;
use luksmith::libvirt::{LibvirtError, ValueError};
use luksmith::qemu::{AmendError, QmpError};
use luksmith::secret::{HelperError, SecretError};
use luksmith::task::destination::NoRoom;
use luksmith::task::emulator::EmulatorError;
use luksmith::task::libvirt::definition::DefinitionError;
use luksmith::task::libvirt::disk::DiskError;
use luksmith::task::libvirt::provision::ProvisionError;
use luksmith::task::libvirt::rotate::RotateError;
use luksmith::vet::ciphertext::VetError;
use luksmith_formats::FormatError;
use luksmith_formats::error::Kind as FormatKind;

use rotate::rotate;

/// The hint, if there is one.
type Hint = Option<String>;

fn some(hint: impl Into<String>) -> Hint {
    Some(hint.into())
}

macro_rules! hints {
    ($($error:ty => $hint:ident),* $(,)?) => {
        /// The hint for this error.
        pub(crate) fn hint(error: &(dyn Error + 'static)) -> Hint {
            $(if let Some(error) = error.downcast_ref::<$error>() {
                return $hint(error);
            })*
            None
        }
    };
}

hints! {
    FormatError => format,
    KdfError => kdf,
    SecretError => secret,
    IoError => io,
    FileError => file,
    NbdError => nbd,
    OpenError => open,
    UnlockError => unlock,
    VolumeError => volume,
    CreateError => create,
    KeyslotError => keyslot,
    HeaderError => header,
    CommitError => commit,
    ServeError => serve,
    TlsError => tls,
    VetError => vet,
    ImageError => image,
    QmpError => qmp,
    AmendError => amend,
    LibvirtError => libvirt,
    ValueError => value,
    EmulatorError => emulator,
    DefinitionError => definition,
    DiskError => disk,
    RotateError => rotate,
    NoRoom => no_room,
    ProvisionError => provision,
}

fn image(error: &ImageError) -> Hint {
    match error {
        ImageError::BackingFile | ImageError::DataFile => some(
            "only the image itself is opened; `qemu-img convert` makes an image that holds all \
             data. `luksmith info`, `key` and `header` work on its header",
        ),
        ImageError::Encrypted => some(
            "`luksmith copy --source-format qcow2` copies an encrypted image, with its passphrase",
        ),
        ImageError::NotEncrypted => some(
            "`luksmith encrypt IMAGE NEW --source-format qcow2 --format qcow2` makes an encrypted one",
        ),
        ImageError::NeedsRepair(_) => {
            some("`qemu-img check -r all` repairs it; `luksmith decrypt` reads it as it is")
        }
        ImageError::Bitmaps => {
            some("`qemu-img bitmap --remove` removes them; for reading that is not necessary")
        }
        ImageError::Header(error) if error.kind == FormatKind::Malformed => {
            some("`luksmith inspect --format qcow2` lists all that is wrong with it")
        }
        ImageError::Io(error) => io(error),
        _ => None,
    }
}

fn vet(error: &VetError) -> Hint {
    match error {
        VetError::Header(_) => some(
            "--header FILE reads the header of a backup, --no-header searches all of IMAGE as data",
        ),
        VetError::Io(error) => io(error),
        VetError::Interrupted => interrupted(),
        _ => None,
    }
}

const ROOM: &str = "`luksmith key remove IMAGE --keyslot N` makes room";
const SHOW: &str = "`luksmith info IMAGE` shows the keyslots";

fn format(error: &FormatError) -> Hint {
    match error.kind {
        FormatKind::OverLimit => over_limit(error),
        FormatKind::Malformed => {
            some("`luksmith header restore IMAGE FILE` restores a header backup")
        }
        _ => None,
    }
}

/// The flag that raises the limit which a key derivation exceeds.
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

fn kdf(error: &KdfError) -> Hint {
    match error {
        KdfError::OverLimit(error) => over_limit(error),
        KdfError::Interrupted => interrupted(),
        KdfError::Memory { .. } | KdfError::Lock(_) => memory(),
        KdfError::Random(error) => secret(error),
        _ => None,
    }
}

/// The hint for an interrupted question or derivation, both of which come before the first write.
fn interrupted() -> Hint {
    some("nothing was changed")
}

fn crypt(error: &CryptError) -> Hint {
    match error {
        CryptError::Lock(_) => memory(),
        _ => None,
    }
}

fn memory() -> Hint {
    some(
        "free some memory, or raise `ulimit -l` (locked memory); --pbkdf-memory limits new \
         keyslots",
    )
}

fn secret(error: &SecretError) -> Hint {
    match error {
        SecretError::Interrupted => interrupted(),
        SecretError::Lock(_) => some("raise the limit of locked memory (`ulimit -l`)"),
        SecretError::Parse(_) | SecretError::StdinTaken => {
            some("--key file:PATH, --key fd:N or --key-file PATH leave stdin for the data")
        }
        SecretError::Scheme { source, .. } => source.downcast_ref().and_then(value),
        SecretError::Helper { source, .. } => helper(source),
        SecretError::TooWeak(_) => {
            some("choose several unrelated words, or accept it with --force-weak")
        }
        SecretError::NoTerminal(_) => some(
            "--key stdin reads a line of a pipe; --key SOURCE or --key-file PATH names another source",
        ),
        SecretError::NoCredentials => some("run it as a systemd service with LoadCredential="),
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

fn io(error: &IoError) -> Hint {
    match error {
        IoError::NoSpace { .. } => {
            some("free space where it is stored, and run the command again; `df -h` shows it")
        }
        IoError::Plaintext { .. } => some(
            "--compressed-plaintext reads it; anyone with access to the storage can have changed \
             it",
        ),
        _ => None,
    }
}

fn no_room(_: &NoRoom) -> Hint {
    some("free space there, or name a file in another file system")
}

fn file(error: &FileError) -> Hint {
    match error {
        FileError::PermissionDenied(path) => some(format!(
            "`ls -l {}` shows who may; a device is usually for root and its group",
            path.display()
        )),
        FileError::ForeignLink { .. } => {
            some("name the path to which the link leads, if that is the one you mean")
        }
        FileError::Failed { source, .. }
            if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            some(
                "the file system or the device is read-only; `luksmith info`, `key test` and `decrypt` \
                 need no more",
            )
        }
        FileError::Busy { source, .. }
            if (source.holders.iter()).any(|holder| holder.command.starts_with("qemu")) =>
        {
            some(
                "a virtual machine uses it; `luksmith libvirt rotate` or `luksmith qemu amend` changes \
                 passphrases while it runs",
            )
        }
        FileError::Busy { .. } => some("stop the program that has it open, and run this again"),
        FileError::Symlink(_) => some("--follow-symlinks opens what it points to"),
        _ => None,
    }
}

fn nbd(error: &NbdError) -> Hint {
    match &error.source {
        Problem::Tls(error) => tls(error),
        Problem::Silent(_) | Problem::Slow(_) => {
            some("--timeout SECONDS waits longer for a slow server")
        }
        _ => None,
    }
}

fn open(error: &OpenError) -> Hint {
    match error {
        OpenError::NotLuks => some("--header FILE names a detached header"),
        OpenError::Remains(_) => some("`luksmith header repair IMAGE` repairs it"),
        OpenError::Header(error) => format(error),
        OpenError::BothCopies { .. } => {
            some("`luksmith header restore IMAGE FILE` restores a header backup")
        }
        OpenError::TooSmall { .. } => {
            some("the image is cut off; --header FILE names a detached header")
        }
        OpenError::Interrupted { undo } => some(format!(
            "`luksmith header repair IMAGE` ends the change; if --undo-file named the record, add \
             --undo-file {undo}"
        )),
        OpenError::NoUndo { undo } => some(format!("move {undo} away")),
        OpenError::Io(error) => io(error),
        OpenError::Undo(error) => undo::store(error),
        _ => None,
    }
}

fn unlock(error: &UnlockError) -> Hint {
    match error {
        UnlockError::NoSuchKeyslot(_) => some(SHOW),
        UnlockError::NoKeyslots => some(
            "a header backup (`luksmith header restore`) or --volume-key-file may still open it",
        ),
        UnlockError::Kdf { source, .. } => kdf(source),
        UnlockError::Memory(_) => memory(),
        UnlockError::Crypt(error) => crypt(error),
        UnlockError::Io(error) => io(error),
        _ => None,
    }
}

fn volume(error: &VolumeError) -> Hint {
    match error {
        VolumeError::Detached => some("name the data as IMAGE and the header with --header FILE"),
        VolumeError::Kdf(error) => kdf(error),
        VolumeError::Crypt(error) => crypt(error),
        _ => None,
    }
}

fn create(error: &CreateError) -> Hint {
    match error {
        CreateError::Option { option, .. } => some(format!("see --{option} in --help")),
        CreateError::TooSmall { .. } => some(
            "--luks2-keyslots-size 1M makes a LUKS2 header small, and --type luks1 needs 2 MiB",
        ),
        CreateError::Cipher(_) => some("see --cipher and --key-size in --help"),
        CreateError::Keyslot(error) => keyslot(error),
        CreateError::Secret(error) => secret(error),
        CreateError::Commit(error) => commit(error),
        _ => None,
    }
}

fn keyslot(error: &KeyslotError) -> Hint {
    match error {
        KeyslotError::AllInUse(_) => some(ROOM),
        KeyslotError::InUse(_) => some(SHOW),
        KeyslotError::OutOfRange { .. } | KeyslotError::NotInUse(_) | KeyslotError::Replaced(_) => {
            some(SHOW)
        }
        KeyslotError::NoRoom { .. } => some(ROOM),
        KeyslotError::Last(_) => some("--force last-keyslot removes it anyway"),
        KeyslotError::Cost(error) => cost(error),
        KeyslotError::Kdf(error) => kdf(error),
        KeyslotError::Secret(error) => secret(error),
        KeyslotError::Memory(_) => memory(),
        KeyslotError::Crypt(error) => crypt(error),
        KeyslotError::Commit(error) => commit(error),
        _ => None,
    }
}

fn header(error: &HeaderError) -> Hint {
    match error {
        HeaderError::OtherUuid { .. } => some("--force other-uuid restores it anyway"),
        HeaderError::NotUnderstood(_) => some(
            "use the program that wrote it; `cryptsetup luksHeaderRestore` writes the backup over \
             it, and the passphrases of the present header are lost",
        ),
        HeaderError::Behind { end, .. } => some(format!(
            "move what is there elsewhere; `truncate -s {end} IMAGE` then cuts it off"
        )),
        HeaderError::InTheWay { what, .. } => some(match what.contains("LUKSMETA") {
            true => "`luksmeta nuke -d IMAGE` removes it, if clevis does not unlock this volume",
            false => "copy it elsewhere, and overwrite it with zeroes, if nothing needs it",
        }),
        HeaderError::NoSuchToken(_) => some("`luksmith token list IMAGE` shows the tokens"),
        HeaderError::TokenExists(_) => some("--token-replace replaces it"),
        HeaderError::TokensFull => some("`luksmith token remove IMAGE --token-id N` makes room"),
        HeaderError::Secret(error) => secret(error),
        HeaderError::Open(OpenError::NotLuks) => {
            some("`luksmith header restore IMAGE FILE` restores a header backup")
        }
        HeaderError::Open(error) => open(error),
        HeaderError::Io(error) => io(error),
        HeaderError::Commit(error) => commit(error),
        _ => None,
    }
}

fn commit(error: &CommitError) -> Hint {
    match error {
        CommitError::Changed => {
            some("another program changed this header; look at it and try again")
        }
        CommitError::Foreign(_) => some(
            "copy the image first: `luksmith header repair IMAGE` asks, and overwrites this data",
        ),
        CommitError::NeedsUndo => {
            some("--undo-file PATH names a file on another device, for the duration of the change")
        }
        CommitError::InUse => some("close the volume first"),
        CommitError::Secret(error) => secret(error),
        CommitError::Io(error) => io(error),
        CommitError::NotKept { .. } => some(
            "it is another disk now, or another program writes to it: check both before you run \
             the command again",
        ),
        CommitError::NoRoom(_) => some("free space where the image is, and run the command again"),
        CommitError::RolledBack(error) => io(error),
        CommitError::Undo(error) => undo::undo(error),
        _ => None,
    }
}

fn serve(error: &ServeError) -> Hint {
    match error {
        ServeError::SameName(_) => {
            some("--name and --export NAME=IMAGE give each export its own name")
        }
        ServeError::Flush { .. } => {
            some("what clients have written since their last successful flush may be lost")
        }
        _ => None,
    }
}

/// Files of certificates and keys, which --tls-dir and similar options name.
fn tls(error: &TlsError) -> Hint {
    match error {
        TlsError::Exposed { path, .. } => {
            let hint = format!("`chmod 600 {}` closes it", path.display());
            some(hint)
        }
        TlsError::Lock(_) => memory(),
        _ => None,
    }
}

fn qmp(error: &QmpError) -> Hint {
    match error {
        QmpError::Silent(_) => {
            some("a monitor has one client at a time; --timeout SECONDS waits longer")
        }
        QmpError::NoCommand(_) => some(
            "QEMU 5.1 and later can change keyslots; `luksmith key` can when the machine is off",
        ),
        QmpError::Aborts(_) => some(
            "`luksmith libvirt rotate` changes the volume of a running domain without its QEMU; for \
             any other machine, shut it down, then run `luksmith key change IMAGE`",
        ),
        QmpError::Occupied(_) => some("run the command again when that has ended"),
        _ => None,
    }
}

fn amend(error: &AmendError) -> Hint {
    match error {
        AmendError::Qmp(error) => qmp(error),
        AmendError::NotLuks(_) => some("--node NODE names a block node"),
        _ => None,
    }
}

fn libvirt(error: &LibvirtError) -> Hint {
    match error {
        LibvirtError::NotInstalled { .. } => some(
            "install libvirt's client library: libvirt0 on Debian and Ubuntu, libvirt-libs on \
             Fedora",
        ),
        LibvirtError::Broken { .. } => some(
            "reinstall libvirt's client library with its dependencies: libvirt0 on Debian and \
             Ubuntu, libvirt-libs on Fedora",
        ),
        LibvirtError::Connection(_) => some(
            "--connect URI, or LIBVIRT_DEFAULT_URI, selects the libvirt: qemu:///system, \
             qemu+ssh://HOST/system, …",
        ),
        LibvirtError::Denied(_) => some(
            "run it as root, or as a user that libvirt's configuration admits (group libvirt, \
             polkit, auth.conf)",
        ),
        LibvirtError::Private(_) => some(
            "only libvirt itself can use this secret; give the passphrase from another source \
             (--key file:PATH, --key prompt)",
        ),
        LibvirtError::NoValue(_) => some(
            "`luksmith libvirt secret set SECRET` sets it; an ephemeral secret loses it when the \
             daemon ends",
        ),
        LibvirtError::NoSecret(_) => some("`luksmith libvirt secret list` shows the secrets"),
        LibvirtError::DuplicateUsage(_) => {
            some("`luksmith libvirt secret list` shows what uses it")
        }
        LibvirtError::Lock(_) => memory(),
        _ => None,
    }
}

fn value(error: &ValueError) -> Hint {
    match error {
        ValueError::Present => {
            some("--key libvirt:SECRET uses that value; `luksmith libvirt rotate` replaces it")
        }
        ValueError::Unseen(_) => some(
            "`luksmith libvirt secret define --private --generate` makes a new secret with a value",
        ),
        ValueError::Libvirt(error) | ValueError::NotReadBack(error) => libvirt(error),
        ValueError::Generate(error) => secret(error),
        _ => None,
    }
}

/// The hint for a volume that an emulator does not open itself.
const SERVED: &str = "--served SOCKET is for a volume that `luksmith serve` decrypts";

fn emulator(error: &EmulatorError) -> Hint {
    match error {
        EmulatorError::Luks2(_) => some(SERVED),
        EmulatorError::Qcow2(_) => some(
            "`luksmith copy IMAGE NEW --source-format qcow2 --type luks1` makes a raw volume of it, \
             which libvirt takes",
        ),
        EmulatorError::NotUtf8(_) => some("give it another name"),
        EmulatorError::AbstractSocket => some("socket=PATH names a socket in a directory"),
        EmulatorError::NoCertificates(_) => {
            some("tls-certificates=DIR in it names them, for QEMU too")
        }
        EmulatorError::NotText => some(
            "`luksmith key add` adds a passphrase that is text, such as the base64 of a key \
             file",
        ),
        _ => None,
    }
}

fn definition(error: &DefinitionError) -> Hint {
    match error {
        DefinitionError::NoUsage(_) => some("--usage volume:/TEXT gives it a name of its own"),
        DefinitionError::NoName(_) => some("--name NAME"),
        DefinitionError::NoSecret(_) => some("--secret UUID names it"),
        _ => None,
    }
}

fn disk(error: &DiskError) -> Hint {
    match error {
        DiskError::NoOwner => some("leave --keep-owner out"),
        DiskError::NotCeph => some("leave --monitor and --ceph-config out"),
        DiskError::OnlyCeph => some(SERVED),
        DiskError::OnlyLuks1 => some(
            "--engine librbd opens LUKS2; `luksmith copy IMAGE NEW --type luks1` makes LUKS1 of it",
        ),
        DiskError::NoLogin => some("leave --login out"),
        DiskError::NotServed(_) => some("the path of its file or device names it"),
        DiskError::Far { .. } => some(
            "volume:POOL/NAME names a volume there; an export (nbd://…) can be for both machines",
        ),
        DiskError::WhichSecret(_) => {
            some("--secret UUID names it; `luksmith libvirt secret list` shows all")
        }
        _ => None,
    }
}

fn provision(error: &ProvisionError) -> Hint {
    match error {
        ProvisionError::Detached => some("leave --header out"),
        ProvisionError::NotRaw => some("`luksmith create --format qcow2` makes an image in a file"),
        ProvisionError::Luks2 => {
            some("--served SOCKET says on which socket; --type luks1 is for QEMU itself")
        }
        ProvisionError::NotInQemu(_) => some(SERVED),
        ProvisionError::Far { .. } => some(
            "--pool POOL --name NAME makes a volume there; an export (nbd://…) can be for both",
        ),
        ProvisionError::NotStarted(pool) => some(format!("`virsh pool-start {pool}` starts it")),
        ProvisionError::Name(_) => {
            some("a name without / ; IMAGE in place of --pool is for a path")
        }
        _ => None,
    }
}
