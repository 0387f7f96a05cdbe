//! Tokens of the type `systemd-tpm2`, with swtpm as the TPM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use luksmith::Interrupt;
use luksmith::formats::Hash;
use luksmith::formats::json::{Value, json};
use luksmith::kdf::pbkdf2;
use luksmith::secret::Passphrase;
use luksmith::tokens::tpm2::{self, Device, Pcrs, Tpm2Error, Tpm2Token};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::Command;
use support::peers;
use support::program::{refused, succeeds};
use support::swtpm::Swtpm;

const PASSPHRASE: &str = "passphrase";

fn device(tpm: &Swtpm) -> Device {
    tpm.name().parse().expect("a socket")
}

fn secret(text: &str) -> Passphrase {
    Passphrase::copy_from(text.as_bytes()).expect("locked memory")
}

/// A LUKS2 volume in a folder, with a passphrase in the file `key`.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Option<Self> {
        let cryptsetup = peers::find("cryptsetup")?;
        let folder = tempfile::tempdir().expect("a folder");
        let volume = Self(folder);
        std::fs::write(volume.key(), PASSPHRASE).expect("the folder is ours");
        let file = std::fs::File::create(volume.image()).expect("the folder is ours");
        file.set_len(18 << 20).expect("a sparse file");
        let mut command = Command::new(cryptsetup);
        command
            .args(["luksFormat", "--batch-mode", "--type", "luks2"])
            .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
            .args([volume.image(), volume.key()]);
        peers::run(&mut command);
        Some(volume)
    }

    fn image(&self) -> PathBuf {
        self.0.path().join("image")
    }

    fn key(&self) -> PathBuf {
        self.0.path().join("key")
    }

    /// The number of the newest header.
    fn epoch(&self) -> u64 {
        let mut command = Command::new(peers::find("cryptsetup").expect("it was found before"));
        let text = peers::run(command.arg("luksDump").arg(self.image()));
        let text = String::from_utf8(text).expect("luksDump prints text");
        let line = text.lines().find_map(|line| line.strip_prefix("Epoch:"));
        line.and_then(|number| number.trim().parse().ok())
            .expect("the header has a number")
    }

    /// A token of the volume, as cryptsetup reads it.
    fn token(&self, id: &str) -> Value {
        let mut command = Command::new(peers::find("cryptsetup").expect("it was found before"));
        command.args(["luksDump", "--dump-json-metadata"]);
        let text = peers::run(command.arg(self.image()));
        let metadata = Value::parse(&text).expect("luksDump prints JSON");
        metadata["tokens"][id].clone()
    }

    /// Whether cryptsetup opens a keyslot with this passphrase.
    fn opens(&self, passphrase: &Passphrase) -> bool {
        let file = self.0.path().join("other");
        std::fs::write(&file, passphrase.as_bytes()).expect("the folder is ours");
        let mut command = Command::new(peers::find("cryptsetup").expect("it was found before"));
        command.args(["open", "--test-passphrase", "--key-file"]);
        let output = peers::output(command.arg(file).arg(self.image()));
        output.status.success()
    }
}

fn luksmith(words: &[&str], volume: &Volume, tpm: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luksmith"));
    command.args(words).arg(volume.image());
    command.args(["--tpm2-device", tpm]);
    command
}

/// `luksmith key add --tpm2`, and what it says.
fn enrol(volume: &Volume, tpm: &Swtpm, options: &[&str]) -> String {
    let mut command = luksmith(&["key", "add"], volume, &tpm.name());
    command.arg("--key-file").arg(volume.key());
    succeeds(command.arg("--tpm2").args(options))
}

/// What `luksmith key test` says with a token that does not open the volume, and its exit code.
fn not_opened(volume: &Volume, tpm: &str, options: &[&str]) -> (i32, String) {
    let mut command = luksmith(&["key", "test"], volume, tpm);
    refused(command.args(["--token-type", "systemd-tpm2"]).args(options))
}

fn unseal(tpm: &Swtpm, token: &Value, pin: Option<&str>) -> Result<Passphrase, Tpm2Error> {
    let token = Tpm2Token::read(token).expect("a token of systemd");
    let pin = pin.map(secret);
    tpm2::unseal(&token, &device(tpm), pin.as_ref(), &Interrupt::new())
}

#[test]
fn what_is_enrolled_opens_with_systemd() {
    let (Some(tpm), Some(volume)) = (Swtpm::start(), Volume::new()) else {
        return;
    };
    tpm.extend(7);
    let epoch = volume.epoch();
    let said = enrol(&volume, &tpm, &["--tpm2-pcrs", "0+7"]);
    assert!(said.contains("keyslot 1 added, with token 0"), "{said}");
    assert!(!said.contains("nothing was measured"), "{said}");
    assert_eq!(volume.epoch(), epoch + 1, "one change of the header");
    let token = volume.token("0");
    assert_eq!(token["keyslots"], json!(["1"]));
    assert_eq!(token["tpm2-pcrs"], json!([0, 7]));
    assert_eq!(tpm.systemd_opens(&volume.image(), ""), Some(1));
    let mut test = luksmith(&["key", "test"], &volume, &tpm.name());
    let said = succeeds(test.args(["--token", "0", "--json"]));
    let said: Value = said.parse().unwrap();
    assert_eq!((&said["keyslot"], &said["token"]), (&json!(1), &json!(0)));

    tpm.extend(7);
    assert_eq!(tpm.systemd_opens(&volume.image(), ""), None);
    let (code, said) = not_opened(&volume, &tpm.name(), &[]);
    assert!(said.contains("bound to PCR 0+7 (sha256)"), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert_eq!(code, 2);
    assert_eq!(tpm.left(), 0, "nothing is left in the TPM");
}

#[test]
fn what_is_enrolled_with_a_pin_opens_with_systemd() {
    let (Some(tpm), Some(volume)) = (Swtpm::start(), Volume::new()) else {
        return;
    };
    let pin = volume.0.path().join("pin");
    std::fs::write(&pin, "1234").unwrap();
    let pin = format!("file:{}", pin.display());
    let options = ["--tpm2-pcrs", "7", "--tpm2-pin", &pin];
    let said = enrol(&volume, &tpm, &options);
    assert!(
        said.contains("warning: nothing was measured into PCR 7"),
        "{said}"
    );
    assert_eq!(tpm.systemd_opens(&volume.image(), "1234"), Some(1));
    assert_eq!(tpm.systemd_opens(&volume.image(), "4321"), None);
    let mut test = luksmith(&["key", "test"], &volume, &tpm.name());
    let test = test.args(["--token-type", "systemd-tpm2", "--key", &pin]);
    succeeds(test);

    let key = format!("file:{}", volume.key().display());
    let (code, said) = not_opened(&volume, &tpm.name(), &["--key", &key]);
    assert!(said.contains("wrong PIN"), "{said}");
    assert_eq!(code, 2);
    std::fs::write(volume.key(), "line\n").unwrap();
    let mut add = luksmith(&["key", "add"], &volume, &tpm.name());
    add.args(["--tpm2", "--tpm2-pin", &key, "--key-file", "/dev/null"]);
    let (_, said) = refused(&mut add);
    assert!(said.contains("a PIN is a line of text"), "{said}");
}

#[test]
fn without_its_tpm_nothing_opens() {
    let (Some(tpm), Some(other), Some(volume)) = (Swtpm::start(), Swtpm::start(), Volume::new())
    else {
        return;
    };
    tpm.enrol(&volume.image(), PASSPHRASE, "", None);
    let (code, said) = not_opened(&volume, &other.name(), &[]);
    assert!(said.contains("sealed by another TPM"), "{said}");
    assert_eq!(code, 2);
    let none = format!("unix:{}", volume.0.path().join("none").display());
    let (_, said) = not_opened(&volume, &none, &[]);
    assert!(said.contains("no TPM at unix:"), "{said}");
    assert!(said.contains("hint: --tpm2-device names"), "{said}");
    let (_, said) = not_opened(&volume, "/dev/zero", &[]);
    assert!(said.contains("malformed response"), "{said}");
    let key = volume.key();
    let (_, said) = not_opened(&volume, &key.display().to_string(), &[]);
    assert!(said.contains("not a character device"), "{said}");
    // A token is used only if it is named.
    let mut test = luksmith(&["key", "test"], &volume, &tpm.name());
    refused(test.args(["--key-file", "/dev/null"]));
    let mut test = luksmith(&["key", "test"], &volume, &tpm.name());
    succeeds(test.args(["--token-type", "systemd-tpm2"]));
}

#[test]
fn what_systemd_enrols_is_unsealed() {
    let (Some(tpm), Some(volume)) = (Swtpm::start(), Volume::new()) else {
        return;
    };
    tpm.extend(7);
    tpm.enrol(&volume.image(), PASSPHRASE, "0+7", None);
    tpm.enrol(&volume.image(), PASSPHRASE, "7", Some("1234"));
    tpm.enrol(&volume.image(), PASSPHRASE, "", None);
    let passphrase = unseal(&tpm, &volume.token("0"), None).unwrap();
    assert!(volume.opens(&passphrase));
    let passphrase = unseal(&tpm, &volume.token("1"), Some("1234")).unwrap();
    assert!(volume.opens(&passphrase));
    let passphrase = unseal(&tpm, &volume.token("2"), None).unwrap();
    assert!(volume.opens(&passphrase));
    assert_eq!(tpm.left(), 0, "nothing is left in the TPM");

    let wrong = unseal(&tpm, &volume.token("1"), Some("4321"));
    assert!(matches!(wrong, Err(Tpm2Error::WrongPin)), "{wrong:?}");
    tpm.extend(0);
    let other = unseal(&tpm, &volume.token("0"), None);
    assert!(matches!(other, Err(Tpm2Error::Pcrs { .. })), "{other:?}");
    assert_eq!(tpm.left(), 0, "nothing is left in the TPM");
}

#[test]
fn what_is_sealed_is_unsealed() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    for (pcrs, pin) in [
        ("", None),
        ("", Some("pin")),
        ("0+7+23", None),
        ("1", Some("pin")),
    ] {
        let pcrs: Pcrs = pcrs.parse().unwrap();
        let pin = pin.map(secret);
        let sealed = tpm2::seal(&device(&tpm), pcrs, pin.as_ref(), &Interrupt::new()).unwrap();
        let token = sealed.token().to_json();
        let token = Tpm2Token::read(&token).unwrap();
        let device = device(&tpm);
        let again = tpm2::unseal(&token, &device, pin.as_ref(), &Interrupt::new()).unwrap();
        assert!(again.ct_eq(sealed.passphrase()));
    }
}

/// Seals with tpm2-tools under a key, bound to PCR 7, and returns the members of the token. The
/// object of the key is in a file or has a persistent handle.
fn sealed_by_tools(tpm: &Swtpm, key: &str, auth: &str) -> Value {
    std::fs::write(tpm.folder().join("secret"), [7; 32]).unwrap();
    let (auth_value, password) = match auth {
        "" => (None, String::new()),
        _ => (
            Some("tpm2_policyauthvalue -Q -S policy.ctx -L policy"),
            format!(" -p hex:{auth}"),
        ),
    };
    tpm.tool("tpm2_startauthsession -Q -S policy.ctx");
    tpm.tool("tpm2_policypcr -Q -S policy.ctx -l sha256:7 -L policy");
    if let Some(line) = auth_value {
        tpm.tool(line);
    }
    tpm.tool("tpm2_flushcontext policy.ctx");
    tpm.tool(&format!(
        "tpm2_create -Q -C {key} -i secret -L policy -a fixedtpm|fixedparent -u public \
         -r private{password}"
    ));
    tpm.tool("tpm2_flushcontext -t");
    let read = |name: &str| std::fs::read(tpm.folder().join(name)).unwrap();
    json!({
        "type": "systemd-tpm2",
        "keyslots": [],
        "tpm2-blob": STANDARD.encode([read("private"), read("public")].concat()),
        "tpm2-pcrs": [7],
        "tpm2-pcr-bank": "sha256",
        "tpm2-policy-hash": hex::encode(read("policy")),
        "tpm2-pin": !auth.is_empty(),
    })
}

/// The passphrase of what [`sealed_by_tools`] sealed.
fn passphrase_of_tools() -> Passphrase {
    secret(&STANDARD.encode([7; 32]))
}

/// systemd since 254 seals under the storage root key in the TPM, and since 255 it derives the PIN.
/// No such systemd is here, so tpm2-tools seal in its form.
#[test]
fn a_secret_under_a_persistent_key_is_unsealed_with_a_derived_pin() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    let salt = *b"a salt of systemd";
    let mut derived = [0; 32];
    let interrupt = Interrupt::new();
    pbkdf2(
        Hash::Sha256,
        b"1234",
        &salt,
        10_000,
        &mut derived,
        &interrupt,
    )
    .unwrap();
    let auth = hex::encode(Sha256::digest(STANDARD.encode(derived)));
    for line in [
        "tpm2_createprimary -Q -C o -G ecc -c srk.ctx",
        "tpm2_evictcontrol -Q -C o -c srk.ctx 0x81000001",
        "tpm2_flushcontext -t",
        "tpm2_readpublic -Q -c 0x81000001 -o srk.pub -n srk.name",
    ] {
        tpm.tool(line);
    }
    let mut token = sealed_by_tools(&tpm, "0x81000001", &auth);
    let read = |name: &str| std::fs::read(tpm.folder().join(name)).unwrap();
    let name = read("srk.name");
    let size = u16::try_from(name.len()).unwrap().to_be_bytes();
    let key = [
        &[0x81, 0, 0, 1],
        &size[..],
        &name,
        &[0, 0, 0, 1],
        &read("srk.pub"),
    ]
    .concat();
    token["tpm2_pcrlock"] = false.into();
    token["tpm2_srk"] = STANDARD.encode(key).into();
    token["tpm2_salt"] = STANDARD.encode(salt).into();
    let unsealed = unseal(&tpm, &token, Some("1234")).unwrap();
    assert!(unsealed.ct_eq(&passphrase_of_tools()));

    let other = [&[0x81, 0, 0, 1, 0, 34], &[7; 34][..]].concat();
    let mut changed = token.clone();
    changed["tpm2_srk"] = STANDARD.encode(other).into();
    let other = unseal(&tpm, &changed, Some("1234"));
    assert!(
        matches!(other, Err(Tpm2Error::NoKey(0x8100_0001))),
        "{other:?}"
    );
    tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    let none = unseal(&tpm, &token, Some("1234"));
    assert!(
        matches!(none, Err(Tpm2Error::NoKey(0x8100_0001))),
        "{none:?}"
    );
}

/// What TPM2_Load refuses is the password of the key, and never the PIN, which is not sent with it.
#[test]
fn a_password_of_the_persistent_key_is_not_taken_for_a_wrong_pin() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    for line in [
        "tpm2_createprimary -Q -C o -G ecc -p password -c srk.ctx",
        "tpm2_evictcontrol -Q -C o -c srk.ctx 0x81000001",
        "tpm2_flushcontext -t",
        "tpm2_readpublic -Q -c 0x81000001 -o srk.pub -n srk.name",
    ] {
        tpm.tool(line);
    }
    let mut token = sealed_by_tools(&tpm, "0x81000001 -P password", "");
    let name = std::fs::read(tpm.folder().join("srk.name")).unwrap();
    let size = u16::try_from(name.len()).unwrap().to_be_bytes();
    let key = [&[0x81, 0, 0, 1], &size[..], &name].concat();
    token["tpm2_srk"] = STANDARD.encode(key).into();
    for pin in [None, Some("1234")] {
        token["tpm2-pin"] = pin.is_some().into();
        let refused = unseal(&tpm, &token, pin);
        assert!(
            matches!(refused, Err(Tpm2Error::KeyPassword)),
            "{refused:?}"
        );
    }
    assert_eq!(tpm.left(), 0, "nothing is left in the TPM");
}

/// Two secrets do not both take all of stdin. No TPM is needed to say so.
#[test]
fn a_pin_does_not_share_stdin_with_a_key_file() {
    let Some(volume) = Volume::new() else {
        return peers::skip("cryptsetup");
    };
    for (key, pin) in [
        (["--key-file", "-"], "stdin"),
        (["--key", "stdin"], "fd:0"),
        (["--key", "fd:0"], "prompt"),
    ] {
        let mut add = luksmith(&["key", "add"], &volume, "unix:/none");
        let (code, said) = refused(add.args(["--tpm2", "--tpm2-pin", pin]).args(key));
        let both = pin != "prompt";
        assert_eq!(
            said.contains("--tpm2-pin both come from stdin"),
            both,
            "{said}"
        );
        assert!(code == 1 || !both, "{said}");
    }
    // One line each: the PIN first.
    if let Some(tpm) = Swtpm::start() {
        let lines = volume.0.path().join("lines");
        std::fs::write(&lines, format!("1234\n{PASSPHRASE}\n")).unwrap();
        let add = format!(
            "{} key add {} --tpm2-device {} --tpm2 --tpm2-pin stdin --key stdin < {}",
            env!("CARGO_BIN_EXE_luksmith"),
            volume.image().display(),
            tpm.name(),
            lines.display()
        );
        succeeds(Command::new("bash").args(["-c", &add]));
        assert_eq!(tpm.systemd_opens(&volume.image(), "1234"), Some(1));
    }
}

/// systemd takes RSA in a TPM without ECC.
#[test]
fn a_secret_under_a_key_of_rsa_is_unsealed() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    tpm.tool(
        "tpm2_createprimary -Q -C o -G rsa2048:null:aes128cfb -c rsa.ctx \
         -a restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth",
    );
    let mut token = sealed_by_tools(&tpm, "rsa.ctx", "");
    token["tpm2-primary-alg"] = "rsa".into();
    let unsealed = unseal(&tpm, &token, None).unwrap();
    assert!(unsealed.ct_eq(&passphrase_of_tools()));

    token["tpm2-primary-alg"] = "ecc".into();
    let other = unseal(&tpm, &token, None);
    assert!(matches!(other, Err(Tpm2Error::OtherTpm)), "{other:?}");
}

/// A TPM locks after too many wrong PINs, and a secret of another TPM is recognised.
#[test]
fn a_locked_tpm_and_another_tpm_are_named() {
    let (Some(tpm), Some(other)) = (Swtpm::start(), Swtpm::start()) else {
        return;
    };
    tpm.tool("tpm2_dictionarylockout -s -n 2 -t 1000 -l 1000");
    let pin = secret("1234");
    let interrupt = Interrupt::new();
    let sealed = tpm2::seal(&device(&tpm), Pcrs::default(), Some(&pin), &interrupt).unwrap();
    let token = sealed.token().to_json();
    for _ in 0..2 {
        let wrong = unseal(&tpm, &token, Some("4321"));
        assert!(matches!(wrong, Err(Tpm2Error::WrongPin)), "{wrong:?}");
    }
    let locked = unseal(&tpm, &token, Some("1234"));
    assert!(matches!(locked, Err(Tpm2Error::Lockout)), "{locked:?}");
    assert_eq!(tpm.left(), 0, "nothing is left in the TPM");

    let elsewhere = unseal(&other, &token, Some("1234"));
    assert!(
        matches!(elsewhere, Err(Tpm2Error::OtherTpm)),
        "{elsewhere:?}"
    );
    tpm.tool("tpm2_changeauth -Q -c owner owner-password");
    let owned = unseal(&tpm, &token, Some("1234"));
    assert!(matches!(owned, Err(Tpm2Error::OwnerPassword)), "{owned:?}");
}

/// A TPM whose memory other programs use says so, instead of a number.
#[test]
fn a_tpm_without_memory_is_named() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    for n in 0..3 {
        tpm.tool(&format!("tpm2_createprimary -Q -C o -G ecc -c {n}.ctx"));
    }
    let full = tpm2::seal(&device(&tpm), Pcrs::default(), None, &Interrupt::new());
    assert!(matches!(full, Err(Tpm2Error::NoMemory)), "{full:?}");
}
