//! What a TPM sealed or unsealed, and the PIN, are gone from memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use luksmith::Interrupt;
use luksmith::secret::{LockedBytes, Passphrase};
use luksmith::tokens::tpm2;
use support::swtpm::Swtpm;

use crate::scan::{Needle, fresh};

/// The bytes that were sealed for this passphrase.
fn sealed(passphrase: &Passphrase) -> LockedBytes {
    let mut bytes = LockedBytes::new(33).unwrap();
    let decoded = STANDARD.decode_slice(passphrase.as_bytes(), &mut bytes);
    assert_eq!(decoded, Ok(32));
    bytes
}

#[test]
fn what_a_tpm_unsealed_is_gone_after_use() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    let (device, interrupt) = (tpm.name().parse().unwrap(), Interrupt::new());
    let random = fresh(24);
    let pin = Passphrase::base64_of(&random).unwrap();
    drop(random);
    let pcrs = "7".parse().unwrap();
    let made = tpm2::seal(&device, pcrs, Some(&pin), &interrupt).unwrap();
    let token = made.token().clone();
    let bytes = sealed(made.passphrase());
    let needles = [
        Needle::of(made.passphrase().as_bytes()),
        Needle::of(&bytes[..32]),
        Needle::of(pin.as_bytes()),
    ];
    drop((made, bytes));
    let unsealed = tpm2::unseal(&token, &device, Some(&pin), &interrupt).unwrap();
    assert!(!needles[0].find().is_empty());
    assert!(!needles[2].find().is_empty());
    needles[1].assert_gone("the sealed bytes");
    drop((unsealed, pin));
    for (needle, what) in needles
        .iter()
        .zip(["the passphrase", "the sealed bytes", "the PIN"])
    {
        needle.assert_gone(what);
    }
}
