//! Which commands use tokens, and what the others say.

use support::program::{refused, succeeds};

use crate::site::Site;

/// A volume with a recovery key in the file `recovery`, keyslot 1, token 0.
fn site() -> Site {
    let site = Site::new();
    site.luksmith("key add disk.img --key-file key --recovery-key --out recovery");
    site
}

/// Runs a command whose standard input is the recovery key.
fn with_key_on_stdin(site: &Site, line: &str) -> String {
    let luksmith = env!("CARGO_BIN_EXE_luksmith");
    let mut shell = site.command("bash", "-c");
    succeeds(shell.arg(format!("{luksmith} {line} < recovery")))
}

const CHEAP: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
const BY_TOKEN: &str = "key test disk.img --token-type systemd-recovery --key-file recovery";

#[test]
fn a_reencryption_keeps_the_keyslots_of_tokens() {
    let site = site();
    let (code, error) = site.refused("reencrypt disk.img --key-file key");
    assert_eq!(code, 1);
    assert!(error.contains("after the reencryption: 1"), "{error}");
    let both = format!("reencrypt disk.img --key-file key --token-type systemd-recovery {CHEAP}");
    with_key_on_stdin(&site, &both);
    let opened = site.luksmith(BY_TOKEN);
    assert!(opened.contains("by token 0"), "{opened}");
    site.luksmith("key test disk.img --key-file key");

    // A token is enough to begin one and to go on with it.
    let by_token = "reencrypt disk.img --token 0";
    let begin = format!("{by_token} --drop-other-keyslots --init-only {CHEAP}");
    with_key_on_stdin(&site, &begin);
    with_key_on_stdin(&site, &format!("{by_token} --resume"));
    site.luksmith(BY_TOKEN);
    site.refused("key test disk.img --key-file key");
}

/// As docs/reencrypt.md says.
#[test]
fn a_reencryption_that_drops_the_keyslot_of_a_token_keeps_a_token_that_opens_nothing() {
    let site = site();
    let line = "reencrypt disk.img --key-file key --drop-other-keyslots";
    site.luksmith(&format!("{line} {CHEAP}"));
    let (code, error) = site.refused(BY_TOKEN);
    assert_eq!(code, 1);
    assert!(error.contains("token 0 is for no keyslot"), "{error}");
    let token = site.token(0);
    assert_eq!(token["keyslots"].to_string(), "[]");
    site.luksmith("token remove disk.img --token-id 0");
    site.luksmith("key add disk.img --key-file key --recovery-key --out again");
    site.luksmith("key test disk.img --token 0 --key-file again");
}

#[test]
fn exports_are_opened_by_the_tokens_that_they_state() {
    let site = site();
    for line in [
        "serve --export a=disk.img,key=file:recovery,token=0 --run true",
        "serve --export a=disk.img,key=file:recovery,token-type=systemd-recovery --run true",
        "serve --token-type systemd-recovery --key-file recovery --export a=disk.img --run true",
        // A stated key is that of a keyslot.
        "serve --token-type clevis --export a=disk.img,key=file:key --run true",
    ] {
        site.luksmith(line);
    }
    for (line, expected) in [
        (
            "serve --export a=disk.img,key=file:key,token=0 --run true",
            "not a recovery key",
        ),
        (
            "serve --export a=disk.img,token=x --run true",
            "token= takes a number",
        ),
        (
            "serve --export a=disk.img,token-type=tpm --run true",
            "the types are luks2-keyring",
        ),
        (
            "serve --export a=disk.img,key=file:key,token-type=clevis --run true",
            "no token of type clevis",
        ),
    ] {
        let (_, error) = site.refused(line);
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn commands_without_tokens_name_what_to_use() {
    let site = Site::new();
    std::fs::write(site.path("plain.img"), vec![0; 1 << 20]).unwrap();
    for (line, expected) in [
        (
            "qemu args disk.img --token 0",
            "`luksmith serve IMAGE --token-type TYPE`",
        ),
        (
            "qemu amend change vm.qmp --token-type clevis",
            "QEMU decrypts LUKS1",
        ),
        (
            "libvirt rotate vm --token-type clevis",
            "--new-key libvirt:SECRET",
        ),
        (
            "libvirt rekey vm --token-id 0",
            "`luksmith reencrypt IMAGE --token-type TYPE`",
        ),
        (
            "libvirt secret set usage=volume:/v --token 0",
            "--new-key libvirt:SECRET",
        ),
        (
            "libvirt provision --pool p --token 0",
            "a new volume has no tokens",
        ),
        (
            "key rotate disk.img --token 0",
            "the passphrase is that of --secret",
        ),
        (
            "create new.img --size 1M --token 0",
            "a new volume has no tokens",
        ),
        (
            "encrypt plain.img new.img --token-type clevis",
            "a new volume has no tokens",
        ),
        (
            "reencrypt --served vm.control --token 0",
            "the server has the header",
        ),
        (
            "reencrypt --encrypt plain.img --header head --token 0",
            "plaintext has no tokens",
        ),
        (
            "key test disk.img --tang-url http://a --key-file key",
            "--token-type clevis",
        ),
    ] {
        let (code, error) = refused(&mut site.command("luksmith", line));
        assert_eq!(code, 1, "{line}: {error}");
        assert!(error.contains(expected), "{line}: {error}");
        assert!(error.contains("hint: "), "{line}: {error}");
    }
}
