//! Copies of volumes, and volumes that were reencrypted beside a client: dm-crypt and QEMU read the
//! same payload as in the source, or as the client wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use luksmith::container::{CreateOptions, Version, Which};
use luksmith::location::Location;
use luksmith::task::copy::{plan_transfer, transfer};
use luksmith::task::cost::Function;
use luksmith::task::new_volume::NewVolume;
use luksmith::task::open::{Image, ImageFormat};
use luksmith::task::{Silent, Watch};
use luksmith_formats::{CipherSpec, Limits};
use support::peers;

use crate::dmcrypt::{DmCrypt, Job, Outcome};
use crate::ours;
use crate::payload::{assert_same, file, payload, sparse};
use crate::qemu::Qemu;

/// QEMU takes only text.
const KEY: &[u8] = b"correct horse battery staple";
/// Not a whole number of the chunks of a copy.
const SIZE: usize = 5 * 1024 * 1024 + 4096;

/// Copies the volume in a file to a new volume in another one.
fn copy(from: &Path, format: ImageFormat, to: &Path, new: NewVolume) {
    let watch = Silent::default();
    let mut source = Image::new(Location::Path(from.into()));
    source.format = format;
    let (container, data) = source
        .open_data_to_read(Default::default(), Limits::default(), &watch)
        .unwrap();
    let unlocked = container
        .unlock(&ours::passphrase(KEY), Which::Any, watch.interrupt())
        .unwrap();
    let volume = data.volume(&container, &unlocked).unwrap();
    let location = Location::Path(to.into());
    let plan = plan_transfer(&source, &container, volume.size(), new, &location).unwrap();
    let made = plan.make(&ours::passphrase(KEY), &watch).unwrap();
    let depth = data.depth();
    transfer(&volume, depth, &made.volume().unwrap(), made.fill(), &watch).unwrap();
    made.keep().unwrap();
}

fn new(version: Version, cipher: &str) -> NewVolume {
    let mut new = NewVolume::default();
    new.version = Some(version);
    new.cipher = CipherSpec::parse(cipher).unwrap();
    new.cost.function = Some(Function::Pbkdf2);
    new.cost.iterations = Some(1000);
    new
}

#[test]
fn dm_crypt_and_qemu_read_the_payload_of_what_was_converted() {
    let Some(qemu) = Qemu::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let key = file(folder.path(), "key", KEY);
    let payload = payload(7, SIZE);
    let source = sparse(folder.path(), "source", (16 << 20) + SIZE as u64);
    let mut options = CreateOptions::new(Version::Luks2, ours::QUICK);
    options.sector_size = 4096;
    ours::create(&source, KEY, options);
    ours::write_all(&ours::volume(&source, None, KEY), &payload);

    // LUKS2 to LUKS1, to LUKS2 with another cipher, to qcow2, and to LUKS1 again.
    copy(
        &source,
        ImageFormat::Raw,
        &at("one"),
        new(Version::Luks1, "aes-xts-plain64"),
    );
    assert_same(&qemu.convert_out(&at("one"), &key), &payload, "LUKS1");
    copy(
        &at("one"),
        ImageFormat::Raw,
        &at("two"),
        new(Version::Luks2, "serpent-cbc-essiv:sha256"),
    );
    let mut qcow2 = new(Version::Luks1, "aes-xts-plain64");
    qcow2.format = ImageFormat::Qcow2;
    copy(&at("two"), ImageFormat::Raw, &at("image"), qcow2);
    copy(
        &at("image"),
        ImageFormat::Qcow2,
        &at("three"),
        new(Version::Luks1, "twofish-xts-plain64"),
    );
    assert_same(
        &qemu.convert_out(&at("three"), &key),
        &payload,
        "from qcow2",
    );

    let Some(machine) = DmCrypt::find() else {
        return;
    };
    let mut images = ["one", "two", "three"].map(at).to_vec();
    let mut expected = vec![Outcome::of(&payload); 3];
    let changes = [
        "--resilience checksum --sector-size 512",
        "--resilience journal --cipher aes-cbc-essiv:sha256",
    ];
    for (seed, change) in (8..).zip(changes) {
        let Some((image, payload)) = reencrypted(folder.path(), seed, change) else {
            return;
        };
        images.push(image);
        expected.push(Outcome::of(&payload));
    }
    let jobs: Vec<_> = images.iter().map(|image| Job::read(image, KEY)).collect();
    assert_eq!(machine.run(&jobs).unwrap(), expected);
}

/// A volume that was reencrypted while a client wrote all of its payload, which is also returned.
/// `None` without such a client.
fn reencrypted(folder: &Path, seed: u64, change: &str) -> Option<(PathBuf, Vec<u8>)> {
    let nbdcopy = peers::find("nbdcopy")?;
    let name = format!("reencrypted-{seed}");
    let (before, after) = (payload(seed, SIZE), payload(seed + 100, SIZE));
    file(folder, "before", &before);
    file(folder, "after", &after);
    let luksmith = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
        command.current_dir(folder);
        command.args(words.split(' ')).args(["--key-file", "key"]);
        command
    };
    let cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    peers::run(&mut luksmith(&format!("encrypt before {name} {cheap}")));
    let begin = format!("reencrypt {name} --init-only {change} {cheap}");
    peers::run(&mut luksmith(&begin));
    // The server converts the volume meanwhile, and the client then waits for the end of that.
    let client = format!(
        "{} after \"$uri\" && until {} info {name} --json | grep -q '\"reencryption\": null'; \
         do sleep 0.05; done",
        nbdcopy.display(),
        env!("CARGO_BIN_EXE_luksmith")
    );
    peers::run(luksmith(&format!("serve {name}")).args(["--run", &client]));
    assert_same(
        &peers::run(&mut luksmith(&format!("decrypt {name} -"))),
        &after,
        change,
    );
    Some((folder.join(name), after))
}
