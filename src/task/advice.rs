//! What may help after a failure, as data.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use luksmith_formats::cipher::CipherSpec;

use super::size::human;

/// What may help after a failure. Its `Display` is a sentence that names no option; a front end
/// with options of its own names the one to use instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The device cannot be claimed because it is mounted, or part of another device.
    DeviceInUse,
    /// The tags can be removed before, and made again after.
    WithoutTags,
    /// The server serves the volume if its clients cannot begin a reencryption.
    WithoutControl,
    /// A server decrypts the volume for QEMU.
    ServeToQemu,
    /// A raw volume can have tags.
    TagsOfRaw,
    /// The reencryption has to end first.
    FinishReencryption,
    /// A reencryption goes on where it stopped if the same task runs again.
    ReencryptAgain,
    /// A reencryption goes on if the options do not differ from those that it began with.
    ReencryptAsBegun,
    /// Every passphrase can be given, or the keyslots of the others can be dropped.
    DropKeyslots,
    /// A detached header needs no room before the data, and a copy needs none in the same file.
    DetachedHeader,
    /// A copy can be encrypted instead.
    CopyEncrypted,
    /// The disk in a disk image of this format can be encrypted into a new volume.
    EncryptImage(&'static str),
    /// A LUKS volume can be reencrypted, or be encrypted once more as it is.
    EncryptTwice,
    /// The file can be filled up to whole sectors.
    FillSector,
    /// The content of a file has moved, and its undo record does not agree with it.
    MovedContent,
    /// A move that was interrupted can be reversed.
    EndMove,
    /// An encryption in place goes on offline, and its data can be read meanwhile.
    FinishEncryption,
    /// Fewer keyslots, or fewer passphrases that stay, make room in the header.
    FewerKeyslots,
    /// A copy into a new volume does what a reencryption in place cannot.
    CopyInstead,
    /// The block can be taken as it is, or a backup of the data restored.
    UnverifiedBlocks,
    /// The block can be restored from the journal, or a backup of the data restored.
    JournaledBlocks,
    /// The volume can be resized to whole sectors.
    WholeSectors,
    /// The path is not a file of known size, but can be read as a stream.
    ReadAsStream,
    /// The data begins as this format does: it can be read in this format, if that is known, or
    /// taken as it is.
    SourceFormat(&'static str),
    /// An inspection in this format lists all that is wrong.
    Inspect(&'static str),
    /// A Unix socket or TLS protects plaintext, or it can be sent without.
    PlaintextOverNetwork,
    /// A loop device is a block device of a file.
    LoopDevice,
    /// A server of the plaintext and a client in the kernel give a block device.
    ServeToKernel,
    /// dmsetup is in a package of this name.
    InstallDmsetup,
    /// fusermount3 is in the package fuse3.
    InstallFuse,
    /// The kernel's FUSE is a module, which can be loaded.
    LoadFuse,
    /// An ordinary user may open a mounted file to others only if the administrator permits it.
    UserAllowOther,
    /// An empty file, or a name that nothing has, can be a mount point.
    EmptyMountPoint,
    /// What is mounted at this path can be unmounted.
    Unmount(PathBuf),
    /// A file that is in use, or does not answer, can lose its name.
    UnmountLazily,
    /// A discard can write zeroes, and in a qcow2 image it can free clusters.
    ZeroesForHoles,
    /// The last sector can be filled with zeroes.
    Pad,
    /// A larger volume can be made.
    LargerVolume,
    /// The volume has the size of the partition that it is in, which can be changed.
    ResizePartition,
    /// The volume has the size of its storage.
    SizeOfStorage,
    /// The size can be in whole clusters of this many bytes.
    WholeClusters(u32),
    /// The caller can permit the loss, by this value of the option `force` on the command line.
    Permit(&'static str),
    /// The image can be read although another program writes to it.
    ForceShare,
    /// The image begins as a LUKS volume does.
    FormatRaw,
    /// The image begins as a qcow2 image does.
    FormatQcow2,
    /// These options, by their names on the command line, are only for raw volumes.
    OnlyRaw(&'static [&'static str]),
    /// This option, by its name on the command line, is only for qcow2 images.
    OnlyQcow2(&'static str),
    /// The version need not be stated for a qcow2 image.
    VersionInQcow2,
    /// The size of the plaintext has to be stated; the file is larger by the header.
    Size,
    /// The size of the plaintext has to be stated.
    SizeOfGuest,
    /// The size need not be stated.
    NoSize,
    /// There is no LUKS header, but the signature of this, which is a guess.
    LooksLike(&'static str),
    /// The range of the partition can be named, or the table repaired. The second copy of the table
    /// has the partition at these bytes, if it is valid.
    NameRange(Option<Range<u64>>),
    /// The disk in a disk image has partitions, and a server of that disk can be named.
    PartitionInImage,
    /// The kernel has a device for this partition, which can be named.
    NameDevice(PathBuf),
    /// A size has a unit, unless it is in bytes.
    SizeUnit(u64),
    /// A multiple of 4 KiB fits every sector size.
    SizeMultiple,
    /// The sizes of keys that a cipher takes.
    KeySizes(CipherSpec),
    /// The default cipher is usual.
    UsualCipher,
    /// Volumes with this cipher are only read, but the data can be copied into a new volume.
    CopyFromWeakCipher,
    /// Volumes with authenticated encryption are only read.
    ReadAuthenticated,
    /// Argon2 needs LUKS2.
    Luks2HasArgon2,
    /// Options of argon2 need argon2 as the key derivation, or have to be left out.
    Argon2OrNeither,
    /// Each export needs a socket for an emulator, or all one for NBD.
    SocketOfEach,
    /// A qcow2 image holds only LUKS1.
    OnlyLuks1InQcow2,
    /// An address to listen on is an IP address or a host name, and a port.
    AddressAndPort,
    /// Only a Unix socket tells which user connects; over TCP, certificates identify clients.
    UsersOnUnixSocket,
    /// TLS with client certificates lets only known clients in.
    TlsForKnownClients,
    /// Plaintext without TLS can be allowed on a loopback address, for every user of the machine.
    EveryUser,
    /// Clients can be made to show a certificate of an authority.
    ClientAuthority,
    /// TLS can be allowed for clients without a certificate, which is for every client.
    EveryClient,
    /// The directory of a new file does not exist; or that of a socket, nor its parent.
    MakeDirectory(PathBuf),
    /// The directory of a socket has to be closed to other users.
    CloseDirectory,
    /// The directory of a socket can be accepted as it is.
    TrustDirectory,
    /// A symbolic link that another user could have made is not followed.
    ForeignLink,
    /// Standard output has another name.
    DashForStdout,
    /// Another directory can be named for the journals of rotations.
    OtherJournals,
    /// Only users that are named can be let in.
    AllowUsers,
    /// A socket that was passed has this mode, which can be stated.
    StateMode(u32),
    /// A socket that was passed has this group, which can be stated.
    StateGroup(u32),
    /// The access control list of a socket that was passed can be removed.
    RemoveAccessList(PathBuf),
    /// One service can have all connections of a socket, instead of one for each.
    OneServiceForAll,
    /// The path of a socket is too long.
    ShorterSocketPath,
    /// Clients can share one export.
    ShareExport,
    /// There is no libvirt here, but the files of another system can be audited.
    OtherRoot,
    /// This document shows every member of a policy.
    PolicyMembers(&'static str),
    /// A name in the guest other than vda to vdz can be stated.
    OtherTarget,
    /// The disk can be detached.
    Detach {
        /// The domain.
        domain: String,
        /// The name of the disk in the guest.
        target: String,
    },
    /// Several domains can share a disk, for a cluster filesystem.
    Shareable,
    /// A domain can share its memory, from its next start.
    ShareMemory,
    /// The disk can be attached for the next start of the domain.
    AtNextStart,
    /// The disks that a domain has, by their names in the guest.
    DisksAre(Vec<String>),
    /// The guest holds a disk that it was asked to release.
    ReleaseInGuest,
    /// The version of LUKS can be stated, where the header cannot be read.
    StateVersion,
    /// A LUKS2 volume can be converted to LUKS1, if its keyslots and its sector size allow that. It
    /// can always be copied into a LUKS1 volume.
    ConvertToLuks1,
    /// The secret with the usage of this path can be removed, if nothing needs it.
    RemoveSecret(String),
    /// The secret, which was defined but got no value, can be removed.
    RemoveWithoutValue(uuid::Uuid),
    /// The secret can be removed although something uses it.
    RemoveUsedSecret,
    /// The secret of a libvirt is private, and the caller has to give its present value.
    GivePresentPassphrase,
    /// A new value could not be set, and the secret has its old value again.
    OldValueRestored,
    /// A new value could not be set. The old value is kept in this secret.
    OldValueKept(uuid::Uuid),
    /// The master key that a running QEMU was started with can be named.
    NameMasterKey,
    /// This QEMU itself has no LUKS volume open. A server may have the volume open.
    NotServedByQemu,
    /// One of the block nodes of a running QEMU has to be named.
    NameNode(Vec<String>),
    /// A failed change was undone.
    NothingChanged,
    /// A failed change was not undone, for this reason: the new passphrase is still valid.
    NewPassphraseStays(String),
    /// The master key of a running domain can only be read on its host, by the user who started it.
    ReadMasterKey,
    /// The keyslots of a running domain's volume have to be changed in the open volume, which has
    /// to be on this host and writable.
    ChangeBesideQemu,
    /// The volume is on the host of the libvirt, which is not this one.
    RunOnItsHost,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceInUse => "it is mounted, or part of another device",
            Self::ReadAsStream => "it can be read as a stream",
            Self::SourceFormat("luks") => "it can be copied as a volume, or taken as it is",
            Self::SourceFormat(format) => {
                return write!(f, "it can be read as {format}, or taken as it is");
            }
            Self::Inspect(format) => {
                return write!(f, "an inspection as {format} lists all that is wrong");
            }
            Self::PlaintextOverNetwork => "a Unix socket or nbds:// protects it",
            Self::LoopDevice => "a loop device is a block device of a file",
            Self::ServeToKernel => "a client in the kernel makes a block device of an export",
            Self::InstallDmsetup => "the package dmsetup has it",
            Self::InstallFuse => "the package fuse3 has it",
            Self::LoadFuse => "`modprobe fuse` loads it",
            Self::UserAllowOther => {
                "a line user_allow_other in /etc/fuse.conf permits that to ordinary users"
            }
            Self::EmptyMountPoint => "name an empty file, or a new one",
            Self::Unmount(path) => return write!(f, "{} can be unmounted", path.display()),
            Self::UnmountLazily => {
                "it can lose its name, and be served until the programs have closed it"
            }
            Self::ZeroesForHoles => {
                "a discard can write encrypted zeroes; in a qcow2 image it can free clusters"
            }
            Self::Pad => "the last sector can be filled with zeroes",
            Self::LargerVolume => "a larger volume has room for it",
            Self::ResizePartition => {
                "change the partition, with sfdisk or parted: the volume has its size"
            }
            Self::SizeOfStorage => "the volume has the size of its storage",
            Self::WholeClusters(unit) => {
                return write!(
                    f,
                    "use a size in whole clusters of {}: the rest of a cut cluster would come back \
                     when the volume grows",
                    human((*unit).into())
                );
            }
            Self::Permit(what) => return write!(f, "the value {what} of `force` permits it"),
            Self::ForceShare => "it can be read although another program writes to it",
            Self::FormatRaw => "it begins as a LUKS volume does, which is the raw format",
            Self::FormatQcow2 => "it begins as a qcow2 image does",
            Self::OnlyRaw(options) => {
                let options = options.join(" and ");
                return write!(f, "only for raw volumes: {options}");
            }
            Self::OnlyQcow2(option) => return write!(f, "only for qcow2 images: {option}"),
            Self::VersionInQcow2 => "a qcow2 image holds only LUKS1",
            Self::Size => "the size is that which the guest sees; the file is larger by the header",
            Self::SizeOfGuest => "the size is that which the guest sees",
            Self::NoSize => "the size need not be stated",
            Self::LooksLike(what) => return write!(f, "it looks like {what}"),
            Self::NameRange(None) => "the range of the partition can be named instead",
            Self::NameRange(Some(range)) => {
                return write!(
                    f,
                    "the table can be repaired, or bytes {} to {} be named",
                    range.start, range.end
                );
            }
            Self::PartitionInImage => {
                "it begins as a qcow2 image does; a server of the disk in it can be named"
            }
            Self::NameDevice(device) => return write!(f, "name {}", device.display()),
            Self::SizeUnit(size) => {
                return write!(
                    f,
                    "a size without a unit is in bytes: {size}G are {size} GiB"
                );
            }
            Self::SizeMultiple => "a multiple of 4 KiB fits every sector size",
            Self::KeySizes(cipher) => {
                return write!(f, "{cipher} takes keys of {} bits", key_sizes(*cipher));
            }
            Self::UsualCipher => "aes-xts-plain64 is the usual cipher",
            Self::CopyFromWeakCipher => {
                "it can be opened for reading, and copied into a new volume with another cipher"
            }
            Self::ReadAuthenticated => {
                "it can be opened for reading, and copied into a new volume; dm-crypt of the kernel \
                 writes to it"
            }
            Self::Luks2HasArgon2 => "LUKS2 has argon2",
            Self::Argon2OrNeither => "they go with argon2id",
            Self::OnlyLuks1InQcow2 => {
                "a qcow2 image holds only LUKS1, as QEMU knows no other there"
            }
            Self::WithoutTags => "the tags can be removed before, and made again after it",
            Self::WithoutControl => "it is served where no client can begin a reencryption",
            Self::ServeToQemu => "a server can decrypt it for QEMU",
            Self::TagsOfRaw => "a raw volume, such as a copy of this one, can have tags",
            Self::FinishReencryption => "the reencryption has to end first",
            Self::ReencryptAgain => "what is converted stays converted: another run goes on",
            Self::ReencryptAsBegun => "without the options that differ, the reencryption goes on",
            Self::DropKeyslots => "give each passphrase, or let the other keyslots be dropped",
            Self::DetachedHeader => {
                "a detached header needs no room before the data, or a copy can be encrypted"
            }
            Self::CopyEncrypted => "a copy can be encrypted instead",
            Self::EncryptImage(format) => {
                return write!(
                    f,
                    "the disk in it can be encrypted into a new volume, if it is {format}, or the \
                     bytes be taken as they are"
                );
            }
            Self::EncryptTwice => {
                "it can be reencrypted, or be taken as it is and encrypted once more"
            }
            Self::FillSector => "the file can be filled up to whole sectors",
            Self::MovedContent => {
                "nothing was changed: the undo record is needed to find what has moved"
            }
            Self::EndMove => "it can be moved back, or the encryption go on",
            Self::FinishEncryption => {
                "it can be finished while nothing else uses the data, or be opened for reading"
            }
            Self::FewerKeyslots => {
                "fewer keyslots need less room; a copy into a new volume has a new key too"
            }
            Self::CopyInstead => "a copy into a new volume has a new key too",
            Self::UnverifiedBlocks => {
                "it may be torn or rotten: if it was not written by another program, its old content \
                 is lost, and it can be taken as it is"
            }
            Self::JournaledBlocks => {
                "it may be torn or rotten: the journal has its old content, from which it can be \
                 restored, unless the journal itself is damaged there"
            }
            Self::WholeSectors => "the volume can be resized to whole sectors first",
            Self::AddressAndPort => "an address and a port, such as 127.0.0.1:10809 or [::1]:10809",
            Self::UsersOnUnixSocket => {
                "a Unix socket tells which user connects; over TCP, certificates identify clients"
            }
            Self::TlsForKnownClients => "TLS with client certificates lets only known clients in",
            Self::EveryUser => "if allowed, every user of this machine can connect",
            Self::ClientAuthority => {
                "with a client authority, clients have to show a certificate of it"
            }
            Self::EveryClient => "if allowed, every client can connect",
            Self::MakeDirectory(directory) => {
                return write!(f, "`mkdir -p -m 700 {}` makes it", directory.display());
            }
            Self::CloseDirectory => {
                "a directory of mode 700 is closed to others; a missing one is created like this"
            }
            Self::TrustDirectory => "the directory can be accepted as it is",
            Self::ForeignLink => {
                "name the path to which the link leads, if that is the one you mean"
            }
            Self::DashForStdout => "commands that write to standard output take - as its name",
            Self::OtherJournals => "another directory can be named, in which only you can write",
            Self::SocketOfEach => "each export needs a socket of its own, or all one for NBD",
            Self::AllowUsers => "only users that are named can be let in",
            Self::StateMode(mode) => {
                return write!(
                    f,
                    "a mode of 0600 closes it to others; {mode:04o} can be stated"
                );
            }
            Self::StateGroup(group) => return write!(f, "the group {group} can be stated"),
            Self::RemoveAccessList(path) => {
                return write!(f, "`setfacl -b {}` removes the list", path.display());
            }
            Self::OneServiceForAll => "Accept=no in the socket unit passes the socket itself",
            Self::ShorterSocketPath => "the path of a socket has at most 107 bytes",
            Self::ShareExport => {
                "clients can share one export; an image can have two if both are read-only"
            }
            Self::OtherRoot => {
                "without libvirt there is no host to audit; another system can be audited by its \
                 root"
            }
            Self::PolicyMembers(document) => {
                return write!(f, "{document} shows every member of a policy");
            }
            Self::OtherTarget => "another name can be stated, such as sda",
            Self::Detach { domain, target } => {
                return write!(f, "{target} can be detached from {domain}");
            }
            Self::ShareMemory => {
                "a domain shares its memory if its XML has <memoryBacking><source type='memfd'/>\
                 <access mode='shared'/></memoryBacking>, from its next start"
            }
            Self::Shareable => "stop what has it open; only a cluster filesystem can be shared",
            Self::AtNextStart => {
                "the domain takes no disk of this bus while it runs; its next start can take it"
            }
            Self::DisksAre(targets) => {
                return write!(f, "its disks are {}", targets.join(", "));
            }
            Self::ReleaseInGuest => "unmount it in the guest, and detach it again",
            Self::StateVersion => {
                "the version of LUKS can be stated where the header cannot be read"
            }
            Self::ConvertToLuks1 => {
                "it can be converted to LUKS1, if its keyslots and its sector size allow that, or \
                 copied into a LUKS1 volume"
            }
            Self::RemoveSecret(path) => {
                return write!(
                    f,
                    "the secret of {path} can be removed, if nothing needs it"
                );
            }
            Self::RemoveWithoutValue(secret) => {
                return write!(f, "the secret {secret}, which has no value, can be removed");
            }
            Self::RemoveUsedSecret => "it can be removed anyway",
            Self::GivePresentPassphrase => {
                "the present passphrase of a private secret has to be given"
            }
            Self::OldValueRestored => "the secret has its old value; run it again",
            Self::OldValueKept(secret) => {
                return write!(
                    f,
                    "the old value is kept in the secret {secret}; run it again"
                );
            }
            Self::NameMasterKey => "the master key that QEMU was started with can be named",
            Self::NotServedByQemu => {
                "a volume that another program serves to QEMU is changed when it is not served"
            }
            Self::NameNode(nodes) => return write!(f, "its nodes are {}", nodes.join(", ")),
            Self::NothingChanged => "nothing was changed",
            Self::NewPassphraseStays(why) => {
                return write!(f, "the new passphrase stays: {why}");
            }
            Self::ReadMasterKey => {
                "run it on the domain's host, as the user who started the domain (root for \
                 qemu:///system), or while the domain is shut off"
            }
            Self::RunOnItsHost => "run luksmith on that host, with a local connection",
            Self::ChangeBesideQemu => {
                "the domain runs, and its QEMU cannot change keyslots: run luksmith on its host, \
                 as root or as the owner of the image; or rotate while the domain is shut off"
            }
        })
    }
}

/// The sizes of keys that a cipher takes, in bits: `256, 384 or 512`.
#[must_use]
pub fn key_sizes(cipher: CipherSpec) -> String {
    let bits = cipher.key_sizes().iter();
    let mut bits: Vec<_> = bits.map(|bytes| (bytes * 8).to_string()).collect();
    let last = bits.pop().unwrap_or_default();
    match bits.is_empty() {
        true => last,
        false => format!("{} or {last}", bits.join(", ")),
    }
}
