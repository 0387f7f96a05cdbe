//! A session with a TPM: both ends prove that messages are from the other one, and the secret
//! parameter of a command or a response is encrypted.
//!
//! Reference: TPM 2.0 Library, part 1, sections 19.6 (sessions) and 21 (encryption of parameters).
//! The key of the session comes from a salt that only the TPM can decrypt, so what listens on the
//! bus sees neither the secret nor anything by which it could guess a PIN.

use super::crypto::{self, HASH};
use super::error::Tpm2Error;
use super::wire::{Command, Reader, Writer};
use crate::secret::{LockedBytes, random};

/// The attributes of a session in a command (part 2, section 8.4): the first parameter of the
/// command is encrypted, or that of the response. Without `continueSession`, the session ends when
/// the command succeeds.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Encrypted {
    Command = 0x20,
    Response = 0x40,
}

/// A session for one command.
pub(super) struct Session {
    pub(super) handle: u32,
    key: LockedBytes,
    /// The key and the authorization value of the object that the command uses.
    value: LockedBytes,
    nonce: [u8; HASH],
    tpm_nonce: Vec<u8>,
}

impl Session {
    /// The session with this handle. `salt` is what was sent to the TPM, and `nonce` and
    /// `tpm_nonce` are those of the start.
    pub(super) fn new(
        handle: u32,
        salt: &LockedBytes,
        nonce: [u8; HASH],
        tpm_nonce: &[u8],
    ) -> Result<Self, Tpm2Error> {
        let key = crypto::kdf_a(salt, "ATH", tpm_nonce, &nonce)?;
        Ok(Self {
            handle,
            value: LockedBytes::copy_from(&key)?,
            key,
            nonce,
            tpm_nonce: tpm_nonce.to_vec(),
        })
    }

    /// Sets the authorization value of the object, and draws the nonce of the command.
    pub(super) fn prepare(&mut self, auth: &[u8]) -> Result<(), Tpm2Error> {
        let auth_start = self.key.len();
        let mut value = LockedBytes::new(auth_start + auth.len())?;
        let (key, end) = value.split_at_mut(auth_start);
        key.copy_from_slice(&self.key);
        end.copy_from_slice(auth);
        self.value = value;
        self.nonce = nonce()?;
        Ok(())
    }

    /// Encrypts the first parameter of the command.
    pub(super) fn encrypt(&self, parameter: &mut [u8]) -> Result<(), Tpm2Error> {
        let key = crypto::kdf_a(&self.value, "CFB", &self.nonce, &self.tpm_nonce)?;
        crypto::cfb(&key, parameter, true);
        Ok(())
    }

    /// The authorization of a command on objects with these names.
    pub(super) fn authorization(
        &self,
        command: Command,
        names: &[u8],
        parameters: &[u8],
        encrypted: Encrypted,
    ) -> Vec<u8> {
        let attributes = encrypted as u8;
        let hash = crypto::sha256(&[&command.code().to_be_bytes(), names, parameters]);
        let mac = crypto::hmac(
            &self.value,
            &[&hash, &self.nonce, &self.tpm_nonce, &[attributes]],
        );
        Writer::new()
            .u32(self.handle)
            .sized(&self.nonce)
            .u8(attributes)
            .sized(&mac)
            .into_bytes()
    }

    /// Checks that a response is from the TPM with which the session began.
    pub(super) fn check(
        &mut self,
        command: Command,
        parameters: &[u8],
        authorization: &[u8],
    ) -> Result<(), Tpm2Error> {
        let mut reader = Reader::new(authorization);
        let tpm_nonce = reader.sized()?;
        let attributes = reader.u8()?;
        let mac = reader.sized()?;
        reader.end()?;
        // The code of the response, which is 0, then that of the command.
        let code = command.code().to_be_bytes();
        let hash = crypto::sha256(&[&[0; 4], &code, parameters]);
        let expected = crypto::hmac(&self.value, &[&hash, tpm_nonce, &self.nonce, &[attributes]]);
        if !crypto::is_same(mac, &expected) {
            return Err(Tpm2Error::Forged);
        }
        self.tpm_nonce = tpm_nonce.to_vec();
        Ok(())
    }

    /// Decrypts the first parameter of a response that was checked.
    pub(super) fn decrypt(&self, parameter: &[u8]) -> Result<LockedBytes, Tpm2Error> {
        let key = crypto::kdf_a(&self.value, "CFB", &self.tpm_nonce, &self.nonce)?;
        let mut plain = LockedBytes::copy_from(parameter)?;
        crypto::cfb(&key, &mut plain, false);
        Ok(plain)
    }
}

/// A random nonce.
pub(super) fn nonce() -> Result<[u8; HASH], Tpm2Error> {
    let mut nonce = [0; HASH];
    random(&mut nonce)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let salt = LockedBytes::copy_from(&[7; HASH]).unwrap();
        Session::new(0x0300_0000, &salt, [1; HASH], &[2; HASH]).unwrap()
    }

    /// The response of a TPM that knows the session.
    fn response(session: &Session, parameters: &[u8]) -> Vec<u8> {
        let tpm_nonce = [3; HASH];
        let code = Command::Unseal.code().to_be_bytes();
        let hash = crypto::sha256(&[&[0; 4], &code, parameters]);
        let mac = crypto::hmac(
            &session.value,
            &[&hash, &tpm_nonce, &session.nonce, &[0x40]],
        );
        Writer::new()
            .sized(&tpm_nonce)
            .u8(0x40)
            .sized(&mac)
            .into_bytes()
    }

    #[test]
    fn only_a_response_of_the_same_session_is_accepted() {
        let mut session = session();
        session.prepare(b"pin").unwrap();
        let good = response(&session, b"parameters");
        session
            .check(Command::Unseal, b"parameters", &good)
            .unwrap();

        session.prepare(b"pin").unwrap();
        let good = response(&session, b"parameters");
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            let checked = session.check(Command::Unseal, b"parameters", &changed);
            assert!(checked.is_err(), "byte {at}");
        }
        for (command, parameters) in [
            (Command::Unseal, &b"parameterz"[..]),
            (Command::Load, b"parameters"),
        ] {
            let checked = session.check(command, parameters, &good);
            assert!(matches!(checked, Err(Tpm2Error::Forged)));
        }
        session.prepare(b"nip").unwrap();
        let checked = session.check(Command::Unseal, b"parameters", &good);
        assert!(matches!(checked, Err(Tpm2Error::Forged)));
    }

    #[test]
    fn a_parameter_is_not_sent_as_it_is() {
        let mut session = session();
        session.prepare(b"").unwrap();
        let mut parameter = *b"a secret of more than one block";
        session.encrypt(&mut parameter).unwrap();
        assert_ne!(&parameter, b"a secret of more than one block");
    }
}
