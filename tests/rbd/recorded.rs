//! What luksmith sends to the cluster is recorded by strace: no piece of the plaintext, of the
//! passphrases or of the volume key is there. The client finds the daemons by the addresses that
//! the monitor gives, so a proxy would not see them. The cluster's protocol does not encrypt here.

use std::process::Command;

use luksmith::task::outcome::hex;
use support::peers;
use support::secret_search::SecretSearch;

use crate::program::{CHEAP, Site, content};

const MIB: usize = 1 << 20;

/// The bytes of all strings of a line of strace, which are hexadecimal.
fn bytes(line: &str) -> Vec<u8> {
    let digits = line.split("\\x").skip(1);
    let byte = |digits: &str| u8::from_str_radix(digits.get(..2)?, 16).ok();
    digits.filter_map(byte).collect()
}

#[test]
fn nothing_secret_is_sent_to_the_cluster() {
    let Some(site) = Site::new() else { return };
    let Some(strace) = peers::find("strace") else {
        return;
    };
    let (passphrase, other, volume_key) = (content(21, 64), content(22, 64), content(23, 64));
    // A short piece again and again: the search is slow for many pieces.
    let canary = content(24, 251);
    let plain: Vec<u8> = canary.iter().copied().cycle().take(2 * MIB).collect();
    for (name, bytes) in [
        ("key", &passphrase),
        ("other", &other),
        ("volume-key", &volume_key),
        ("plain", &plain),
    ] {
        site.write(name, bytes);
    }
    let cheap = CHEAP.join(" ");
    let mut sent = Vec::new();
    for line in [
        format!("encrypt plain {{recorded}} --volume-key-file volume-key --key-file key {cheap}"),
        format!("key add {{recorded}} --key-file key --new-key-file other {cheap}"),
        "resize {recorded} --size +1M".to_owned(),
        "key remove {recorded} --key-file key".to_owned(),
        "decrypt {recorded} out --key-file other".to_owned(),
    ] {
        let program = site.command(&line.split(' ').collect::<Vec<_>>());
        let mut command = Command::new(&strace);
        command.current_dir(program.get_current_dir().unwrap());
        command.args(["-f", "-xx", "-s", "9999999", "-o", "trace", "-e"]);
        command.arg("trace=sendmsg,sendto,sendmmsg");
        peers::run(command.arg(program.get_program()).args(program.get_args()));
        let trace = String::from_utf8(site.read("trace")).unwrap();
        sent.extend(trace.lines().map(bytes));
    }
    assert!(site.read("out").starts_with(&plain));

    let texts = [&passphrase, &volume_key].map(|secret| hex(secret).into_bytes());
    let search = SecretSearch::new(vec![
        ("the plaintext", &plain[..2 * canary.len()]),
        ("a passphrase", &passphrase),
        ("a passphrase", &other),
        ("a passphrase", &texts[0]),
        ("the volume key", &volume_key),
        ("the volume key", &texts[1]),
    ]);
    for message in &sent {
        assert_eq!(search.found_in(message), [""; 0]);
    }
    // The record has the header and the ciphertext.
    let all = sent.concat();
    assert!(all.len() > 2 * MIB, "{}", all.len());
    assert!(all.windows(6).any(|part| part == b"LUKS\xba\xbe"));
}
