//! Which failure of the library is which kind of failed command, and what helps. One table.

use luksmith::backend::IoError;
use luksmith::backend::file::FileError;
use luksmith::backend::nbd::{NbdError, Problem};
use luksmith::channel::TlsError;
use luksmith::container::{
    CommitError, CreateError, HeaderError, KeyslotError, OpenError, UndoError, UnlockError,
    VolumeError,
};
use luksmith::crypt::CryptError;
use luksmith::export::nbd::ServeError;
use luksmith::kdf::KdfError;
use luksmith::layout::ImageError;
use luksmith::libvirt::{LibvirtError, ValueError};
use luksmith::qemu::{AmendError, QmpError};
use luksmith::secret::SecretError;
use luksmith::vet::ciphertext::VetError;
use luksmith_formats::FormatError;
use luksmith_formats::error::Kind as FormatKind;

use super::error::{CommandError, Kind};

/// A verdict: the kind, and a hint.
type Verdict = (Kind, Option<String>);

fn plain(kind: Kind) -> Verdict {
    (kind, None)
}

fn helped(kind: Kind, hint: impl Into<String>) -> Verdict {
    (kind, Some(hint.into()))
}

macro_rules! commands_fail_with {
    ($($error:ty => $judge:ident),* $(,)?) => {$(
        impl From<$error> for CommandError {
            fn from(error: $error) -> Self {
                let (kind, hint) = $judge(&error);
                Self::new(kind, error).hint_if(hint)
            }
        }
    )*};
}

commands_fail_with! {
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
}

fn image(error: &ImageError) -> Verdict {
    match error {
        ImageError::BackingFile | ImageError::DataFile => helped(
            Kind::Device,
            "what is not in the image itself is never opened; `qemu-img convert` makes an image that holds all of it",
        ),
        ImageError::NotEncrypted => helped(
            Kind::Device,
            "`qemu-img convert -O raw` and `luksmith encrypt --format qcow2` make an encrypted one",
        ),
        ImageError::NeedsRepair(_) => helped(
            Kind::Device,
            "`qemu-img check -r all` repairs it; `luksmith decrypt` reads it as it is",
        ),
        ImageError::Bitmaps => helped(
            Kind::Device,
            "`qemu-img bitmap --remove` removes them; who reads alone needs not do so",
        ),
        ImageError::Size(_) => plain(Kind::Parameters),
        ImageError::Header(error) if error.kind == FormatKind::Malformed => helped(
            Kind::Device,
            "`luksmith inspect --format qcow2` tells all that is wrong with it",
        ),
        ImageError::Io(error) => io(error),
        _ => plain(Kind::Device),
    }
}

fn vet(error: &VetError) -> Verdict {
    match error {
        VetError::Header(_) => helped(
            Kind::Device,
            "--header FILE reads the header of a backup, --no-header takes all of IMAGE for data",
        ),
        VetError::Io(error) => io(error),
        VetError::Interrupted => interrupted(),
        _ => plain(Kind::Device),
    }
}

const SHOW: &str = "`luksmith info IMAGE` shows the keyslots";

fn format(error: &FormatError) -> Verdict {
    match error.kind {
        FormatKind::OverLimit => over_limit(error),
        FormatKind::Malformed => helped(
            Kind::Device,
            "`luksmith header restore IMAGE FILE` restores a header backup",
        ),
        _ => plain(Kind::Device),
    }
}

/// Each limit on a key derivation has its flag.
fn over_limit(error: &FormatError) -> Verdict {
    let flag = match error.field.rsplit('.').next() {
        Some("memory") => "--max-kdf-memory",
        Some("cpus") => "--max-kdf-lanes",
        Some("time") => "--max-kdf-work",
        Some("iterations") => "--max-kdf-iterations",
        _ => return plain(Kind::Memory),
    };
    helped(
        Kind::Memory,
        format!("{flag} raises the limit, if the image is to be trusted"),
    )
}

fn kdf(error: &KdfError) -> Verdict {
    match error {
        KdfError::OverLimit(error) => over_limit(error),
        KdfError::Interrupted => interrupted(),
        KdfError::Memory { .. } | KdfError::Lock(_) => memory(),
        KdfError::Parameters { .. } => plain(Kind::Parameters),
        KdfError::Random(error) => secret(error),
        _ => plain(Kind::Memory),
    }
}

/// Questions and derivations come before the first write.
fn interrupted() -> Verdict {
    helped(Kind::Interrupted, "nothing was changed")
}

fn crypt(error: &CryptError) -> Verdict {
    match error {
        CryptError::Lock(_) => memory(),
        _ => plain(Kind::Device),
    }
}

fn memory() -> Verdict {
    helped(
        Kind::Memory,
        "free some memory, or raise `ulimit -l` (locked memory); --pbkdf-memory limits new keyslots",
    )
}

fn secret(error: &SecretError) -> Verdict {
    match error {
        SecretError::Interrupted => interrupted(),
        SecretError::Lock(_) => helped(
            Kind::Memory,
            "raise the limit of locked memory (`ulimit -l`)",
        ),
        SecretError::Parse(_) | SecretError::StdinTaken => helped(
            Kind::Parameters,
            "--key file:PATH, --key fd:N or --key-file PATH leave stdin to the data",
        ),
        SecretError::NoTerminal(_) => helped(
            Kind::Parameters,
            "--key SOURCE or --key-file PATH names where the passphrase comes from",
        ),
        SecretError::NoCredentials => helped(
            Kind::Parameters,
            "run it as a systemd service with LoadCredential=",
        ),
        SecretError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            plain(Kind::Permission)
        }
        SecretError::Io { .. } | SecretError::Random(_) => plain(Kind::Device),
        SecretError::Scheme { source, .. } => source
            .downcast_ref()
            .map_or_else(|| plain(Kind::Device), value),
        SecretError::Empty | SecretError::Nothing { .. } | SecretError::Mismatch => {
            plain(Kind::Permission)
        }
        _ => plain(Kind::Parameters),
    }
}

fn io(error: &IoError) -> Verdict {
    match error {
        IoError::ReadOnly(_) => plain(Kind::Permission),
        IoError::Plaintext { .. } => helped(
            Kind::Device,
            "--compressed-plaintext reads it: whoever has the storage can have put there what he likes",
        ),
        IoError::Failed { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            plain(Kind::Permission)
        }
        _ => plain(Kind::Device),
    }
}

fn file(error: &FileError) -> Verdict {
    match error {
        FileError::PermissionDenied(_) => plain(Kind::Permission),
        FileError::Exists(_) | FileError::Busy { .. } => plain(Kind::Busy),
        FileError::UnlockedWrite(_) => plain(Kind::Parameters),
        FileError::Symlink(_) => helped(Kind::Device, "--follow-symlinks opens what it points to"),
        _ => plain(Kind::Device),
    }
}

fn nbd(error: &NbdError) -> Verdict {
    match &error.source {
        Problem::ReadOnly => plain(Kind::Permission),
        Problem::NoCertificates | Problem::TlsRequired => plain(Kind::Parameters),
        Problem::Tls(error) => tls(error),
        Problem::Silent(_) => helped(
            Kind::Device,
            "--timeout SECONDS has more patience with a slow server",
        ),
        _ => plain(Kind::Device),
    }
}

fn open(error: &OpenError) -> Verdict {
    match error {
        OpenError::NotLuks => helped(Kind::Device, "--header FILE names a detached header"),
        OpenError::Header(error) => format(error),
        OpenError::BothCopies { .. } => helped(
            Kind::Device,
            "`luksmith header restore IMAGE FILE` restores a header backup",
        ),
        OpenError::TooSmall { .. } => helped(
            Kind::Device,
            "the image is cut off; --header FILE names a detached header",
        ),
        OpenError::Interrupted { undo } => helped(
            Kind::Device,
            format!(
                "`luksmith header repair IMAGE` brings the state before the change back; where --undo-file named the record, it takes \
                 --undo-file {undo} too"
            ),
        ),
        OpenError::NoUndo { .. } => helped(
            Kind::Parameters,
            "--undo-file PATH names a file that does not exist yet",
        ),
        OpenError::Io(error) => io(error),
        _ => plain(Kind::Device),
    }
}

fn unlock(error: &UnlockError) -> Verdict {
    match error {
        UnlockError::WrongPassphrase => plain(Kind::Permission),
        UnlockError::NoSuchKeyslot(_) => helped(Kind::Parameters, SHOW),
        UnlockError::NoKeyslots => helped(
            Kind::Permission,
            "a header backup (`luksmith header restore`) or --volume-key-file may still open it",
        ),
        UnlockError::Kdf { source, .. } => kdf(source),
        UnlockError::Memory(_) => memory(),
        UnlockError::Crypt(error) => crypt(error),
        UnlockError::Io(error) => io(error),
        _ => plain(Kind::Device),
    }
}

fn volume(error: &VolumeError) -> Verdict {
    match error {
        VolumeError::WrongKey => plain(Kind::Permission),
        VolumeError::Detached => helped(
            Kind::Parameters,
            "name the data as IMAGE and the header with --header FILE",
        ),
        VolumeError::Kdf(error) => kdf(error),
        VolumeError::Crypt(error) => crypt(error),
        _ => plain(Kind::Device),
    }
}

fn create(error: &CreateError) -> Verdict {
    match error {
        CreateError::Option { option, .. } => {
            helped(Kind::Parameters, format!("see --{option} in --help"))
        }
        CreateError::Cipher(_) => helped(Kind::Parameters, "see --cipher and --key-size in --help"),
        CreateError::Keyslot(error) => keyslot(error),
        CreateError::Header(_) => plain(Kind::Parameters),
        CreateError::Secret(error) => secret(error),
        CreateError::Commit(error) => commit(error),
        _ => plain(Kind::Device),
    }
}

fn keyslot(error: &KeyslotError) -> Verdict {
    match error {
        KeyslotError::AllInUse(_) => helped(
            Kind::Busy,
            "`luksmith key remove IMAGE --keyslot N` makes room",
        ),
        KeyslotError::InUse(_) => helped(Kind::Busy, SHOW),
        KeyslotError::OutOfRange { .. } | KeyslotError::NotInUse(_) => {
            helped(Kind::Parameters, SHOW)
        }
        KeyslotError::NoRoom { .. } => helped(
            Kind::Device,
            "`luksmith key remove IMAGE --keyslot N` makes room",
        ),
        KeyslotError::Last(_) => helped(
            Kind::Parameters,
            "--force last-keyslot removes it all the same",
        ),
        KeyslotError::Unsupported(_) => plain(Kind::Parameters),
        KeyslotError::Kdf(error) => kdf(error),
        KeyslotError::Secret(error) => secret(error),
        KeyslotError::Memory(_) => memory(),
        KeyslotError::Crypt(error) => crypt(error),
        KeyslotError::Commit(error) => commit(error),
        _ => plain(Kind::Device),
    }
}

fn header(error: &HeaderError) -> Verdict {
    match error {
        HeaderError::OtherUuid { .. } => helped(
            Kind::Parameters,
            "--force other-uuid restores it all the same",
        ),
        HeaderError::Unsupported(_) | HeaderError::Header(_) => plain(Kind::Parameters),
        HeaderError::NoSuchToken(_) => helped(
            Kind::Parameters,
            "`luksmith token list IMAGE` shows the tokens",
        ),
        HeaderError::TokenExists(_) => helped(Kind::Busy, "--token-replace replaces it"),
        HeaderError::TokensFull => helped(
            Kind::Busy,
            "`luksmith token remove IMAGE --token-id N` makes room",
        ),
        HeaderError::Secret(error) => secret(error),
        HeaderError::Open(error) => open(error),
        HeaderError::Io(error) => io(error),
        HeaderError::Commit(error) => commit(error),
        _ => plain(Kind::Device),
    }
}

fn commit(error: &CommitError) -> Verdict {
    match error {
        CommitError::Changed => helped(
            Kind::Busy,
            "somebody else works on this header; look at it and try again",
        ),
        CommitError::Foreign(_) => helped(
            Kind::Device,
            "copy the image before anything else: that and the LUKS header cannot both be kept",
        ),
        CommitError::NeedsUndo => helped(
            Kind::Parameters,
            "--undo-file PATH names a file on another device for the time of the change",
        ),
        CommitError::InUse => helped(Kind::Busy, "do it while the volume is closed"),
        CommitError::Secret(error) => secret(error),
        CommitError::Io(error) => io(error),
        CommitError::NotKept { .. } => helped(
            Kind::Device,
            "another disk has taken its place, or somebody else writes to it: look at both before running the command again",
        ),
        CommitError::Undo(UndoError::Storage(error)) => io(error),
        CommitError::Undo(UndoError::Damaged { .. } | UndoError::OtherImage { .. }) => helped(
            Kind::Parameters,
            "--undo-file PATH names this volume's undo record, or a file that does not exist yet",
        ),
        _ => plain(Kind::Device),
    }
}

fn serve(error: &ServeError) -> Verdict {
    match error {
        ServeError::SameName(_) => helped(
            Kind::Parameters,
            "--name and --export NAME=IMAGE give each export a name of its own",
        ),
        ServeError::BadText { .. } => plain(Kind::Parameters),
        ServeError::Flush { .. } => helped(
            Kind::Device,
            "what clients have written since their last successful flush may be lost",
        ),
        _ => plain(Kind::Device),
    }
}

/// Files of certificates and keys, which come from --tls-dir and its like.
fn tls(error: &TlsError) -> Verdict {
    match error {
        TlsError::Exposed { path, .. } => {
            let hint = format!("`chmod 600 {}` closes it", path.display());
            helped(Kind::Permission, hint)
        }
        TlsError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            plain(Kind::Permission)
        }
        TlsError::Lock(_) => memory(),
        TlsError::Half { .. } => plain(Kind::Parameters),
        _ => plain(Kind::Device),
    }
}

fn qmp(error: &QmpError) -> Verdict {
    match error {
        QmpError::Connect { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            plain(Kind::Permission)
        }
        QmpError::Silent(_) => helped(
            Kind::Busy,
            "a monitor has one client at a time; --timeout SECONDS has more patience",
        ),
        QmpError::Refused { .. } | QmpError::Job { .. } => plain(Kind::Parameters),
        QmpError::NoCommand(_) => helped(
            Kind::Device,
            "QEMU 5.1 and later change keyslots; `luksmith key` does it when the machine is off",
        ),
        QmpError::Aborts(_) => helped(
            Kind::Device,
            "`luksmith libvirt rotate` changes a running domain's volume beside it; for any other machine, shut it down, then `luksmith key change IMAGE`",
        ),
        QmpError::Occupied(_) => helped(Kind::Busy, "run it again when that has come to its end"),
        _ => plain(Kind::Device),
    }
}

fn amend(error: &AmendError) -> Verdict {
    match error {
        AmendError::Qmp(error) => qmp(error),
        AmendError::NotLuks(_) => helped(Kind::Parameters, "--node NODE names a block node"),
        _ => plain(Kind::Device),
    }
}

fn libvirt(error: &LibvirtError) -> Verdict {
    match error {
        LibvirtError::NotInstalled { .. } => helped(
            Kind::Device,
            "install libvirt's client library: libvirt0 on Debian and Ubuntu, libvirt-libs on Fedora",
        ),
        LibvirtError::Broken { .. } => helped(
            Kind::Device,
            "install libvirt's client library anew, with all that it needs: libvirt0 on Debian and Ubuntu, libvirt-libs on Fedora",
        ),
        LibvirtError::Connection(_) => helped(
            Kind::Device,
            "--connect URI, or LIBVIRT_DEFAULT_URI, names the libvirt that is meant: qemu:///system, qemu+ssh://HOST/system, …",
        ),
        LibvirtError::Denied(_) => helped(
            Kind::Permission,
            "run it as root, or as a user whom libvirt's own configuration lets in (group libvirt, polkit, auth.conf)",
        ),
        LibvirtError::Private(_) => helped(
            Kind::Permission,
            "take the passphrase from where it is kept besides (--key file:PATH, --key prompt); only libvirt itself can use this secret",
        ),
        LibvirtError::NoValue(_) => helped(
            Kind::Permission,
            "`luksmith libvirt secret set SECRET` gives it one; an ephemeral secret loses it when the daemon ends",
        ),
        LibvirtError::NoSecret(_) => helped(
            Kind::Device,
            "`luksmith libvirt secret list` shows the secrets",
        ),
        LibvirtError::DuplicateUsage(_) => helped(
            Kind::Busy,
            "`luksmith libvirt secret list` shows who uses it",
        ),
        LibvirtError::Exists(_) | LibvirtError::Busy(_) => plain(Kind::Busy),
        LibvirtError::Invalid(_) | LibvirtError::Nul(_) | LibvirtError::TooLong { .. } => {
            plain(Kind::Parameters)
        }
        LibvirtError::Lock(_) => memory(),
        _ => plain(Kind::Device),
    }
}

fn value(error: &ValueError) -> Verdict {
    match error {
        ValueError::Present => helped(
            Kind::Busy,
            "--key libvirt:SECRET takes that one; `luksmith libvirt rotate` puts another in its place",
        ),
        ValueError::Unseen(_) => helped(
            Kind::Permission,
            "`luksmith libvirt secret define --private --generate` makes a new one with its value",
        ),
        ValueError::Libvirt(error) | ValueError::NotReadBack(error) => libvirt(error),
        ValueError::Generate(error) => secret(error),
        _ => plain(Kind::Device),
    }
}
