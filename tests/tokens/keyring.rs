//! Keys of the kernel's keyrings, with cryptsetup.

use support::peers;

use crate::site::Site;

#[test]
fn cryptsetup_and_we_open_by_the_same_key() {
    for peer in ["keyctl", "cryptsetup"] {
        if peers::find(peer).is_none() {
            return peers::skip(peer);
        }
    }
    let site = Site::new();
    let name = format!("luksmith:test-{}", std::process::id());
    site.luksmith(&format!("token add disk.img --key-description {name}"));
    site.run(
        "cryptsetup",
        &format!("token add --key-description {name}:theirs disk.img"),
    );
    let (code, error) = site.refused("key test disk.img --token 0");
    assert_eq!(code, 2);
    assert!(error.contains(&name), "{error}");

    let luksmith = env!("CARGO_BIN_EXE_luksmith");
    let cryptsetup = peers::find("cryptsetup").unwrap();
    let cryptsetup = cryptsetup.display();
    let script = format!(
        "set -e\n\
         keyctl padd user {name} @s < key >id\n\
         {luksmith} key test disk.img --token-type luks2-keyring\n\
         {cryptsetup} open --test-passphrase --token-id 0 disk.img\n\
         keyctl unlink $(cat id) @s\n\
         keyctl padd user {name}:theirs @s < key\n\
         {luksmith} key test disk.img --token 1\n"
    );
    std::fs::write(site.path("script"), script).unwrap();
    let printed = site.run("keyctl", "session - bash script");
    let printed = String::from_utf8(printed).unwrap();
    for token in [0, 1] {
        let line = format!("keyslot 0 opens the volume, by token {token}");
        assert!(printed.contains(&line), "{printed}");
    }
}
