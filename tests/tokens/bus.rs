//! What is between the program and the TPM: a socket that records all messages, and changes one.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use luksmith::Interrupt;
use luksmith::secret::Passphrase;
use luksmith::tokens::tpm2::{self, Device, Tpm2Error, Tpm2Token};
use sha2::{Digest, Sha256};
use support::swtpm::Swtpm;

/// Reads one message of a TPM; `None` if the peer has left.
fn message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 10];
    from.read_exact(&mut message).ok()?;
    let size = u32::from_be_bytes(message[2..6].try_into().ok()?);
    message.resize(size as usize, 0);
    from.read_exact(&mut message[10..]).ok()?;
    Some(message)
}

/// A response without parameters, of a command without sessions.
const SUCCESS: &[u8] = b"\x80\x01\0\0\0\x0a\0\0\0\0";

/// A byte of one response, by the number of the response.
#[derive(Clone, Copy)]
struct Change {
    response: usize,
    byte: usize,
}

/// A bus for one client, which ends after the changed response. Returns the commands and responses.
struct Bus {
    folder: tempfile::TempDir,
    thread: JoinHandle<Vec<[Vec<u8>; 2]>>,
}

impl Bus {
    fn to(tpm: &Swtpm, change: Option<Change>) -> Self {
        Self::without(tpm, change, None)
    }

    /// As [`to`](Self::to). Commands with this code do not reach the TPM, and are answered with
    /// success.
    fn without(tpm: &Swtpm, change: Option<Change>, dropped: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("bus")).unwrap();
        let socket = tpm.socket();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut tpm = UnixStream::connect(socket).unwrap();
            let mut seen = Vec::new();
            while let Some(command) = message(&mut client) {
                let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
                if dropped == Some(code) {
                    client.write_all(SUCCESS).unwrap();
                    seen.push([command, SUCCESS.to_vec()]);
                    continue;
                }
                tpm.write_all(&command).unwrap();
                let mut response = message(&mut tpm).unwrap();
                let changed = change.filter(|change| change.response == seen.len());
                if let Some(change) = changed {
                    let byte = response.get_mut(change.byte);
                    *byte.expect("each run has the same responses") ^= 0x41;
                }
                let sent = client.write_all(&response);
                seen.push([command, response]);
                if changed.is_some() || sent.is_err() {
                    break;
                }
            }
            seen
        });
        Self { folder, thread }
    }

    fn device(&self) -> Device {
        Device::Unix(self.folder.path().join("bus"))
    }

    fn seen(self) -> Vec<[Vec<u8>; 2]> {
        self.thread.join().unwrap()
    }
}

fn sealed(bus: &Bus, pin: &Passphrase) -> (Tpm2Token, Passphrase) {
    let interrupt = Interrupt::new();
    let pcrs = "7".parse().unwrap();
    let sealed = tpm2::seal(&bus.device(), pcrs, Some(pin), &interrupt).unwrap();
    let token = Tpm2Token::read(&sealed.token().to_json()).unwrap();
    (token, sealed.into_passphrase())
}

fn unseal(bus: &Bus, token: &Tpm2Token, pin: &Passphrase) -> Result<Passphrase, Tpm2Error> {
    tpm2::unseal(token, &bus.device(), Some(pin), &Interrupt::new())
}

/// What listens on the bus sees neither the secret nor what the PIN is hashed to.
#[test]
fn no_secret_is_on_the_bus() {
    use base64::Engine as _;
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    let pin = Passphrase::copy_from(b"a PIN").unwrap();
    let bus = Bus::to(&tpm, None);
    let (token, passphrase) = sealed(&bus, &pin);
    let mut seen = bus.seen();
    let bus = Bus::to(&tpm, None);
    unseal(&bus, &token, &pin).unwrap();
    seen.extend(bus.seen());
    assert!(seen.len() > 20, "{} messages", seen.len());
    let engine = base64::engine::general_purpose::STANDARD;
    let secret = engine.decode(passphrase.as_bytes()).unwrap();
    for needle in [
        &secret[..16],
        &secret[16..],
        &Sha256::digest(b"a PIN")[..16],
        b"a PIN",
    ] {
        for message in seen.iter().flatten() {
            assert!(!message.windows(needle.len()).any(|part| part == needle));
        }
    }
    // The search finds what is there: the policy, which is not secret.
    let policy = token.to_json()["tpm2-policy-hash"].to_string();
    let policy = hex::decode(policy.trim_matches('"')).unwrap();
    let is_there = |message: &Vec<u8>| message.windows(32).any(|part| part == policy);
    assert!(seen.iter().flatten().any(is_there));
}

/// A bus that keeps TPM2_PolicyPCR or TPM2_PolicyAuthValue from the TPM makes no secret that is
/// bound to less.
#[test]
fn nothing_on_the_bus_removes_the_pcrs_or_the_pin_from_the_policy() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    let pin = Passphrase::copy_from(b"1234").unwrap();
    for command in [0x17f_u32, 0x16b] {
        let bus = Bus::without(&tpm, None, Some(command));
        let pcrs = "7".parse().unwrap();
        let sealed = tpm2::seal(&bus.device(), pcrs, Some(&pin), &Interrupt::new());
        let error = sealed.err();
        assert!(matches!(error, Some(Tpm2Error::Pcrs { .. })), "{error:?}");
        let seen = bus.seen();
        let is_dropped = |sent: &[u8]| sent[6..10] == command.to_be_bytes();
        assert!(seen.iter().any(|[sent, _]| is_dropped(sent)));
        tpm.clear();
    }
}

/// A response that something changes on its way never gives another secret, and stops nothing.
#[test]
fn a_changed_response_gives_no_secret() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    let pin = Passphrase::copy_from(b"1234").unwrap();
    let bus = Bus::to(&tpm, None);
    let (token, passphrase) = sealed(&bus, &pin);
    bus.seen();
    let bus = Bus::to(&tpm, None);
    unseal(&bus, &token, &pin).unwrap();
    let whole = bus.seen();
    let mut forged = 0;
    for (response, [_, message]) in whole.iter().enumerate() {
        // Bytes of the tag, the sizes, the code and the handle, and then some.
        let first = [0, 1, 5, 9, 10, 13, 15, 17];
        let first = first.into_iter().filter(|&byte| byte < message.len());
        for byte in first.chain((20..message.len()).step_by(53)) {
            let bus = Bus::to(&tpm, Some(Change { response, byte }));
            match unseal(&bus, &token, &pin) {
                Ok(unsealed) => assert!(unsealed.ct_eq(&passphrase), "{response}, {byte}"),
                Err(Tpm2Error::Forged) => forged += 1,
                Err(_) => {}
            }
            bus.seen();
            tpm.clear();
        }
    }
    assert!(forged >= 3, "{forged} were recognised by their HMAC");
}
