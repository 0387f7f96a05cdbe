//! Advice and notes of the library in the words of the command line: the flag or command to use.

use luksmith::task::{Advice, Note, key_sizes};

/// Advice in the words of the command line.
pub(crate) fn advice(advice: &Advice) -> String {
    let text = match advice {
        Advice::WithoutTags => {
            "remove tags, tags.0 and tags.1 from the folder of its UUID in DIR, and run `luksmith trust \
             init IMAGE --trust DIR --tags` after it"
        }
        Advice::WithoutControl => "leave --control out: it is only for reencryptions",
        Advice::ServeToQemu => {
            "`luksmith serve IMAGE --trust DIR --socket PATH` decrypts it, and QEMU opens that: `luksmith \
             qemu args IMAGE --served PATH`"
        }
        Advice::TagsOfRaw => {
            "`luksmith copy IMAGE NEW --source-format qcow2 --trust DIR` makes a raw volume of it, which \
             can have tags"
        }
        Advice::FinishReencryption => "`luksmith reencrypt IMAGE` finishes it first",
        Advice::ForceShare => "--force-share reads it anyway",
        Advice::LoopDevice => "`losetup --find --show IMAGE` makes a block device of a file",
        Advice::ServeToKernel => {
            "`luksmith serve` decrypts it; nbd-client makes a block device of the plaintext"
        }
        Advice::InstallDmsetup => "install the package dmsetup",
        Advice::InstallFuse => "install the package fuse3",
        Advice::Unmount(path) => return format!("`luksmith unmount {}`", path.display()),
        Advice::UnmountLazily => {
            "`luksmith unmount --lazy FILE` takes its name away at once, and leaves the rest to the \
             programs that use it"
        }
        Advice::ZeroesForHoles => {
            "--discard zeroes writes encrypted zeroes; `luksmith serve --discard pass` passes TRIM on"
        }
        Advice::FormatRaw => "it begins as a LUKS volume does: that is --format raw, the default",
        Advice::FormatQcow2 => "it begins as a qcow2 image does: --format qcow2 opens it as one",
        Advice::OnlyRaw(options) => {
            let verb = if options.len() == 1 { "goes" } else { "go" };
            let options = options.join(" and --");
            return format!("--{options} {verb} with --format raw, the default");
        }
        Advice::OnlyQcow2(option) => return format!("--{option} goes with --format qcow2"),
        Advice::VersionInQcow2 => "leave --type out: a qcow2 image holds only LUKS1",
        Advice::Size => {
            "--size 10G is the size that the guest sees; the file is larger by the header"
        }
        Advice::SizeOfGuest => "--size 10G is the size that the guest sees",
        Advice::NoSize => "leave --size out",
        Advice::LooksLike(what) => {
            return format!(
                "it looks like {what} (a guess); `luksmith identify IMAGE` says which formats of images \
                 it could have"
            );
        }
        Advice::NameRange(None) => {
            "fdisk and sgdisk show and repair tables; IMAGE,offset=N,size=N names a range itself"
        }
        Advice::NameRange(Some(range)) => {
            let (offset, size) = (range.start, range.end - range.start);
            return format!(
                "sgdisk and fdisk repair the table; IMAGE,offset={offset},size={size} opens that range"
            );
        }
        Advice::PartitionInImage => {
            "it begins as a qcow2 image does; `qemu-nbd -f qcow2 --socket=PATH IMAGE` serves the disk \
             in it, as 'nbd+unix:///?socket=PATH,partition=N'"
        }
        Advice::SizeUnit(size) => {
            return format!("--size {size} is in bytes; --size {size}G is {size} GiB");
        }
        Advice::SizeMultiple => "--size in multiples of 4K fits every --sector-size",
        Advice::KeySizes(cipher) => {
            return format!("--key-size takes {} bits for {cipher}", key_sizes(*cipher));
        }
        Advice::UsualCipher => "--cipher aes-xts-plain64 is the default",
        Advice::CopyFromWeakCipher => {
            "`luksmith copy IMAGE NEW` encrypts the data with aes; `luksmith serve --read-only` and \
             `luksmith decrypt` read it"
        }
        Advice::ReadAuthenticated => {
            "`cryptsetup open` writes to it; `luksmith serve --read-only`, `luksmith decrypt` and \
             `luksmith copy` read it"
        }
        Advice::Luks2HasArgon2 => "--type luks2 has argon2",
        Advice::Argon2OrNeither => "--pbkdf argon2id, or leave them out",
        Advice::ReadAsStream => "- reads from stdin",
        Advice::SourceFormat(format @ ("qcow2" | "qed" | "vmdk" | "vhd" | "vhdx" | "vdi")) => {
            return format!(
                "--source-format {format} reads the disk in it; --source-format raw takes it as it \
                 is"
            );
        }
        Advice::SourceFormat("luks") => {
            "`luksmith copy` copies a volume; --source-format raw encrypts it as it is, once more"
        }
        Advice::SourceFormat(_) => {
            "`qemu-img convert -O raw` makes the raw data of it; --source-format raw takes it as it \
             is"
        }
        Advice::Inspect(format) => {
            return format!("`luksmith inspect --format {format}` lists all that is wrong with it");
        }
        Advice::PlaintextOverNetwork => {
            "a Unix socket or nbds:// protects it; --force plaintext-over-network sends it anyway"
        }
        Advice::Pad => "--pad fills the last sector with zeroes",
        Advice::SizeOfStorage => "--size is not needed: the volume has the size of its storage",
        Advice::Permit(what) => return format!("--force {what} goes on without asking"),
        Advice::LargerVolume => "--size makes a larger volume",
        Advice::UsersOnUnixSocket => {
            "--allow-uid goes with --socket; over TCP, certificates identify clients"
        }
        Advice::TlsForKnownClients => {
            "--tls-dir DIR, or --tls-cert, --tls-key and --tls-client-ca, admit known clients over \
             TLS"
        }
        Advice::EveryUser => "--insecure admits every user of this machine",
        Advice::ClientAuthority => {
            "--tls-client-ca FILE admits only clients with a certificate of that authority"
        }
        Advice::EveryClient => "--insecure admits every client",
        Advice::OtherRoot => {
            "--root DIR audits another system's files; without libvirt there is no host to audit"
        }
        Advice::OtherTarget => "--target NAME states another name, such as sda",
        Advice::Detach { domain, target } => {
            return format!("`luksmith libvirt detach {domain} {target}` detaches it");
        }
        Advice::Shareable => "stop what has it open; --shareable is only for a cluster filesystem",
        Advice::AtNextStart => {
            "the domain takes no disk of this bus while it runs; --config adds it for the next start"
        }
        Advice::ReleaseInGuest => {
            "unmount it in the guest; `luksmith libvirt detach` asks again, --timeout SECONDS waits longer"
        }
        Advice::StateVersion => {
            "--type luks1 states the version, if the header cannot be read here"
        }
        Advice::ConvertToLuks1 => {
            "`luksmith convert --to luks1` makes it LUKS1, if its keyslots and its sector size allow \
             that; `luksmith copy IMAGE NEW --type luks1` always makes a LUKS1 volume of it"
        }
        Advice::RemoveSecret(path) => {
            return format!(
                "`luksmith libvirt secret remove usage=volume:{path}` removes it, if nothing needs it"
            );
        }
        Advice::RemoveWithoutValue(secret) => {
            return format!(
                "`luksmith libvirt secret remove {secret}` removes the secret, which has no value"
            );
        }
        Advice::RemoveUsedSecret => "--force in-use removes it anyway",
        Advice::GivePresentPassphrase => {
            "--key SOURCE gives its present passphrase; --new-key SOURCE one that you keep"
        }
        Advice::NameMasterKey => {
            "--master-key FILE names the master key that QEMU was started with"
        }
        Advice::NotServedByQemu => {
            "`luksmith key` changes a volume that luksmith serves, after the server has stopped"
        }
        Advice::NameNode(nodes) => return format!("--node names one: {}", nodes.join(", ")),
        Advice::OtherJournals => "--state-dir DIR names one in which only you can write",
        Advice::SocketOfEach => {
            "--vhost-user PATH is for IMAGE, vhost-user=PATH for an --export, and --socket PATH is for \
             all exports"
        }
        Advice::AllowUsers => "--allow-uid UID lets only that user in",
        Advice::StateMode(mode) => {
            return format!(
                "SocketMode=0600 in the socket unit closes it to others; --socket-mode {mode:o} \
                 accepts its mode"
            );
        }
        Advice::StateGroup(group) => {
            return format!("--socket-group {group} accepts its group");
        }
        Advice::DropKeyslots => {
            "--key SOURCE for each passphrase keeps them; --drop-other-keyslots removes them"
        }
        Advice::FewerKeyslots => {
            "`luksmith key remove` makes room, and so does --drop-other-keyslots with fewer \
             passphrases; `luksmith copy IMAGE NEW` makes a new volume with a new volume key"
        }
        Advice::DetachedHeader => {
            "--header FILE makes a detached header, and moves nothing; `luksmith encrypt IMAGE NEW` \
             encrypts a copy"
        }
        Advice::CopyEncrypted => "`luksmith encrypt IMAGE NEW` encrypts a copy",
        Advice::EncryptImage(format) => {
            return format!(
                "`luksmith encrypt IMAGE NEW --source-format {format}` encrypts the disk in it; \
                 --force as-it-is encrypts its bytes in place"
            );
        }
        Advice::EncryptTwice => {
            "`luksmith reencrypt IMAGE` gives it a new volume key; --force as-it-is encrypts the \
             volume once more"
        }
        Advice::FillSector => {
            "`truncate -s %4096 IMAGE` fills the last sector with zeroes, which the guest then has too"
        }
        Advice::MovedContent => {
            "nothing was changed; `luksmith header repair IMAGE --undo discard` keeps the file as it is"
        }
        Advice::EndMove => {
            "`luksmith header repair IMAGE` moves it back; `luksmith reencrypt --encrypt IMAGE` goes on"
        }
        Advice::FinishEncryption => {
            "`luksmith reencrypt --encrypt IMAGE` finishes it first; --read-only serves it as it is"
        }
        Advice::CopyInstead => {
            "`luksmith copy IMAGE NEW` makes a new volume with a new volume key, also of a LUKS1 \
             volume and of a qcow2 image; `luksmith convert` makes LUKS2 of LUKS1"
        }
        Advice::UnverifiedBlocks => {
            "`luksmith reencrypt IMAGE --force unverified-blocks` goes on, and may lose the content of \
             the block"
        }
        Advice::JournaledBlocks => {
            "`luksmith reencrypt IMAGE --force unverified-blocks` restores the block from the journal; \
             its content is lost only if the journal itself is damaged there"
        }
        Advice::WholeSectors => "`luksmith resize IMAGE --size SIZE` makes it whole sectors",
        Advice::TrustDirectory => "--socket-mode 600 accepts the directory as it is",
        other => return other.to_string(),
    };
    text.to_owned()
}

/// A note, in the words of the command line.
pub(crate) fn note(note: &Note<'_>) -> String {
    match note {
        Note::MeasuredBusy { .. } => format!(
            "{note}; `luksmith key change` measures again, --pbkdf-force-iterations N states the cost"
        ),
        Note::OnlyRead { .. } => format!("{note}; `luksmith copy` encrypts the data with aes"),
        Note::Health { .. } | Note::DamagedCopy { .. } => {
            format!("{note}; `luksmith header repair` repairs it")
        }
        Note::RawNamed { .. } => format!("{note}; `--format qcow2` makes such an image"),
        note => note.to_string(),
    }
}
