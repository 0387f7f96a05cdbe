//! Tokens of the type `systemd-tpm2`: the passphrase of a keyslot is sealed by a TPM 2.0.
//!
//! systemd-cryptenroll makes such tokens, and systemd-cryptsetup opens them. The TPM unseals 32
//! random bytes while chosen PCRs have the values that they had when the bytes were sealed, and if
//! the PIN is right, if there is one. The base64 of these bytes is the passphrase.
//!
//! References: TPM 2.0 Library, revision 1.59, parts 1 to 3; `tpm2-util.c` of systemd 252 for what
//! is sealed and how. What the TPM says and what a token holds is not trusted: nothing is read that
//! is not there, and a response through a session has to prove where it comes from.

mod crypto;
mod device;
mod error;
mod object;
mod pcrs;
mod policy;
mod session;
mod token;
mod tpm;
mod wire;

use luksmith_formats::Hash;

pub use device::{Device, ParseDeviceError};
pub use error::Tpm2Error;
pub use pcrs::{Bank, ParsePcrsError, Pcrs};
pub use token::Tpm2Token;

use crate::Interrupt;
use crate::kdf::{KdfError, pbkdf2};
use crate::secret::{LockedBytes, Passphrase, random};
use object::PrimaryAlgorithm;
use token::Primary;
use tpm::{Kind, StorageKey, Tpm};

/// The size of a new sealed secret.
const SECRET: usize = 32;

/// The most bytes that a TPM seals.
const MAX_SECRET: usize = 128;

/// How often unsealing begins again because a PCR was extended meanwhile.
const RETRIES: u32 = 30;

/// The PBKDF2 iterations with which systemd derives a PIN that has a salt.
const PIN_ITERATIONS: u32 = 10_000;

/// Unseals the secret of a token: the passphrase of its keyslots.
///
/// A wrong PIN counts as a failure in the TPM, which refuses to try another one after some.
///
/// # Errors
/// [`Tpm2Error`].
pub fn unseal(
    token: &Tpm2Token,
    device: &Device,
    pin: Option<&Passphrase>,
    interrupt: &Interrupt,
) -> Result<Passphrase, Tpm2Error> {
    let auth = match (token.pin, pin) {
        (false, _) => LockedBytes::new(0)?,
        (true, Some(pin)) => auth_value(pin, token.salt.as_deref(), interrupt)?,
        (true, None) => return Err(Tpm2Error::NeedsPin),
    };
    let mut tpm = Tpm::open(device, interrupt)?;
    let key = match &token.primary {
        Primary::Derived(algorithm) => tpm.primary(*algorithm)?,
        Primary::Persistent { handle, name } => tpm.persistent(*handle, name)?,
    };
    let secret = unseal_under(&mut tpm, &key, token, &auth)?;
    Ok(Passphrase::base64_of(&secret)?)
}

/// A new secret, sealed by a TPM.
#[derive(Debug)]
pub struct Sealed {
    passphrase: Passphrase,
    token: Tpm2Token,
    pcrs_are_used: bool,
}

impl Sealed {
    /// The passphrase of a new keyslot.
    #[must_use]
    pub fn passphrase(&self) -> &Passphrase {
        &self.passphrase
    }

    /// The passphrase of a new keyslot.
    #[must_use]
    pub fn into_passphrase(self) -> Passphrase {
        self.passphrase
    }

    /// The token that has the sealed secret.
    #[must_use]
    pub fn token(&self) -> &Tpm2Token {
        &self.token
    }

    /// Whether one of the PCRs has been extended since the start of the machine. If none has, they
    /// have the same values on every machine, and protect nothing.
    #[must_use]
    pub fn pcrs_are_used(&self) -> bool {
        self.pcrs_are_used
    }
}

/// Seals a new random secret, which the TPM unseals while these PCRs of its SHA-256 bank have their
/// present values, with this PIN.
///
/// The PCRs are read once, and the hash of the policy is computed from these values. What was
/// sealed is unsealed again before this returns, which shows that they are the values in the TPM.
///
/// # Errors
/// [`Tpm2Error`].
pub fn seal(
    device: &Device,
    pcrs: Pcrs,
    pin: Option<&Passphrase>,
    interrupt: &Interrupt,
) -> Result<Sealed, Tpm2Error> {
    let auth = match pin {
        None => LockedBytes::new(0)?,
        Some(pin) if !is_pin(pin) => {
            return Err(Tpm2Error::BadPin);
        }
        Some(pin) => auth_value(pin, None, interrupt)?,
    };
    let bank = Bank::Sha256;
    let mut tpm = Tpm::open(device, interrupt)?;
    let values = tpm.pcr_values(pcrs, bank)?;
    if !values.keys().copied().eq(pcrs.numbers()) {
        return Err(Tpm2Error::NoPcrs { pcrs, bank });
    }
    for (number, value) in &values {
        tracing::info!("PCR {number} ({bank}) is {}", token::to_hex(value));
    }
    // The hash is computed here: one from the TPM is in no session, so something on the bus could
    // leave the PCRs out of it.
    let policy = policy::hash(pcrs, bank, values.values(), pin.is_some()).to_vec();
    let is_used = |value: &Vec<u8>| value.windows(2).any(|pair| pair.first() != pair.get(1));
    let (key, algorithm) = match tpm.primary(PrimaryAlgorithm::Ecc) {
        Ok(key) => (key, PrimaryAlgorithm::Ecc),
        // A TPM without ECC.
        Err(Tpm2Error::Refused { .. }) => {
            (tpm.primary(PrimaryAlgorithm::Rsa)?, PrimaryAlgorithm::Rsa)
        }
        Err(error) => return Err(error),
    };

    let mut secret = LockedBytes::new(SECRET)?;
    random(&mut secret)?;
    let session = tpm.session(Kind::Hmac, &key)?;
    let blob = tpm.create(&key, session, &secret, &auth, &policy)?;
    let token = Tpm2Token {
        blob,
        pcrs,
        bank,
        primary: Primary::Derived(algorithm),
        policy_hash: policy,
        pin: pin.is_some(),
        salt: None,
    };
    let again = unseal_under(&mut tpm, &key, &token, &auth)?;
    if !crypto::is_same(&again, &secret) {
        return Err(Tpm2Error::NotVerified);
    }
    Ok(Sealed {
        passphrase: Passphrase::base64_of(&secret)?,
        token,
        pcrs_are_used: pcrs.is_empty() || values.values().any(is_used),
    })
}

/// Whether a person can type it.
fn is_pin(pin: &Passphrase) -> bool {
    let bytes = pin.as_bytes();
    !bytes.is_empty() && pin.is_text() && !bytes.contains(&b'\n')
}

fn unseal_under(
    tpm: &mut Tpm<'_>,
    key: &StorageKey,
    token: &Tpm2Token,
    auth: &[u8],
) -> Result<LockedBytes, Tpm2Error> {
    let object = tpm.load(key, &token.blob)?;
    let other_values = || match token.pcrs.is_empty() {
        true => Tpm2Error::Policy,
        false => Tpm2Error::Pcrs {
            pcrs: token.pcrs,
            bank: token.bank,
        },
    };
    for _ in 0..RETRIES {
        let session = tpm.session(Kind::Policy, key)?;
        let hash = start_policy(tpm, &session, token)?;
        if hash != token.policy_hash {
            return Err(other_values());
        }
        let handle = session.handle;
        match tpm.unseal(&object, session, auth) {
            Ok(secret) if (1..=MAX_SECRET).contains(&secret.len()) => return Ok(secret),
            Ok(secret) => return Err(Tpm2Error::Size(secret.len())),
            // A PCR was extended after it was added to the policy.
            Err(Tpm2Error::Refused { code: 0x128, .. }) => tpm.end(handle)?,
            Err(error) => return Err(error),
        }
    }
    Err(other_values())
}

/// Makes the policy of a token in a session, and returns its hash.
fn start_policy(
    tpm: &mut Tpm<'_>,
    session: &session::Session,
    token: &Tpm2Token,
) -> Result<Vec<u8>, Tpm2Error> {
    if !token.pcrs.is_empty() {
        tpm.policy_pcr(session, token.pcrs, token.bank)?;
    }
    if token.pin {
        tpm.policy_auth_value(session)?;
    }
    tpm.policy_digest(session)
}

/// The authorization value of a PIN, without zeros at its end, which the TPM removes.
fn auth_value(
    pin: &Passphrase,
    salt: Option<&[u8]>,
    interrupt: &Interrupt,
) -> Result<LockedBytes, Tpm2Error> {
    let hash = match salt {
        None => crypto::sha256_of_secret(pin.as_bytes())?,
        Some(salt) => {
            let mut derived = LockedBytes::new(crypto::HASH)?;
            let pin = pin.as_bytes();
            pbkdf2(
                Hash::Sha256,
                pin,
                salt,
                PIN_ITERATIONS,
                &mut derived,
                interrupt,
            )
            .map_err(|error| match error {
                KdfError::Interrupted => Tpm2Error::Interrupted,
                _ => Tpm2Error::BadPin,
            })?;
            let text = Passphrase::base64_of(&derived)?;
            crypto::sha256_of_secret(text.as_bytes())?
        }
    };
    let end = hash.iter().rposition(|&byte| byte != 0);
    let kept = hash.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
    Ok(LockedBytes::copy_from(kept)?)
}
