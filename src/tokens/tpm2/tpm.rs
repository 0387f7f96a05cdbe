//! The commands of the TPM that are used, and what their responses mean.
//!
//! Reference: TPM 2.0 Library, part 3. What a command leaves in the TPM is flushed when [`Tpm`] is
//! dropped, since a TPM has places for three objects and three sessions only.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use super::crypto::{self, PublicKey};
use super::device::{Device, Transport};
use super::error::Tpm2Error;
use super::object::{self, Blob, PrimaryAlgorithm};
use super::pcrs::{Bank, Pcrs};
use super::session::{self, Encrypted, Session};
use super::wire::{Command, MAX_MESSAGE, Reader, Writer, code};
use crate::Interrupt;
use crate::secret::LockedBytes;

/// How often a command is sent again when the TPM is busy, and the time between.
const RETRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Hmac = 0,
    Policy = 1,
}

/// An object in the TPM.
pub(super) struct Loaded {
    handle: u32,
    name: Vec<u8>,
}

/// The key under which secrets are sealed.
pub(super) struct StorageKey {
    object: Loaded,
    public: PublicKey,
}

/// An open TPM.
pub(super) struct Tpm<'a> {
    transport: Transport<'a>,
    left: Vec<u32>,
}

impl Drop for Tpm<'_> {
    fn drop(&mut self) {
        self.transport.is_ending = true;
        for handle in std::mem::take(&mut self.left) {
            if !self.transport.is_lost {
                // A session that ended is not there any more.
                let _ = self.flush_handle(handle);
            }
        }
    }
}

/// How a command is authorized.
enum By {
    Nothing,
    /// By the empty password of its object.
    EmptyPassword,
    Session(Vec<u8>),
}

/// What a response holds after its code.
struct Answer {
    handle: Option<u32>,
    parameters: Vec<u8>,
    authorization: Vec<u8>,
}

impl<'a> Tpm<'a> {
    pub(super) fn open(device: &Device, interrupt: &'a Interrupt) -> Result<Self, Tpm2Error> {
        let transport = Transport::open(device, interrupt)?;
        let mut tpm = Self {
            transport,
            left: Vec::new(),
        };
        if tpm.transport.is_socket() {
            let clear = Writer::new().u16(0);
            match tpm.run(Command::Startup, &[], By::Nothing, clear) {
                // It was started before.
                Ok(_) | Err(Tpm2Error::Refused { code: 0x100, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tpm)
    }

    /// The primary key of this algorithm in the owner hierarchy. It is the same one each time,
    /// until the TPM is cleared.
    pub(super) fn primary(&mut self, algorithm: PrimaryAlgorithm) -> Result<StorageKey, Tpm2Error> {
        let parameters = Writer::new()
            .sized(&[0; 4])
            .sized(&algorithm.template())
            .sized(&[])
            .u32(0);
        let answer = self.run(
            Command::CreatePrimary,
            &[code::OWNER],
            By::EmptyPassword,
            parameters,
        );
        let answer = answer?;
        let public = Reader::new(&answer.parameters).sized()?;
        storage_key(answer.handle, public)
    }

    /// The persistent key with this handle, which has to have this name.
    pub(super) fn persistent(&mut self, handle: u32, name: &[u8]) -> Result<StorageKey, Tpm2Error> {
        let read = self.run(Command::ReadPublic, &[handle], By::Nothing, Writer::new());
        let answer = read.map_err(|error| match error {
            // The value of a handle is not that of an object.
            Tpm2Error::Refused { code, .. } if code & 0xbf == 0x8b => Tpm2Error::NoKey(handle),
            error => error,
        })?;
        let public = Reader::new(&answer.parameters).sized()?;
        let key = storage_key(Some(handle), public)?;
        match key.object.name == name {
            true => Ok(key),
            false => Err(Tpm2Error::NoKey(handle)),
        }
    }

    /// Loads a sealed secret.
    pub(super) fn load(&mut self, key: &StorageKey, blob: &Blob) -> Result<Loaded, Tpm2Error> {
        let name = object::name_of(&blob.public)?;
        let parameters = Writer::new().sized(&blob.private).sized(&blob.public);
        let answer = self.run(
            Command::Load,
            &[key.object.handle],
            By::EmptyPassword,
            parameters,
        );
        let answer = answer.map_err(|error| match error {
            // Its HMAC was not made with the secret of this key.
            Tpm2Error::Refused { code, .. } if code & 0xbf == 0x9f => Tpm2Error::OtherTpm,
            error => error,
        })?;
        let handle = answer.handle.ok_or(NO_HANDLE)?;
        Ok(Loaded { handle, name })
    }

    /// Starts a session whose key only this process and the TPM know.
    pub(super) fn session(&mut self, kind: Kind, key: &StorageKey) -> Result<Session, Tpm2Error> {
        let (salt, encrypted) = crypto::salt(&key.public)?;
        let nonce = session::nonce()?;
        let parameters = Writer::new()
            .sized(&nonce)
            .bytes(&encrypted)
            .u8(kind as u8)
            .bytes(&object::symmetric())
            .u16(code::SHA256);
        let handles = [key.object.handle, code::NO_HANDLE];
        let answer = self.run(Command::StartAuthSession, &handles, By::Nothing, parameters)?;
        let handle = answer.handle.ok_or(NO_HANDLE)?;
        let mut reader = Reader::new(&answer.parameters);
        let tpm_nonce = reader.sized()?;
        reader.end()?;
        Session::new(handle, &salt, nonce, tpm_nonce)
    }

    /// Adds the present values of PCRs to the policy of a session.
    pub(super) fn policy_pcr(
        &mut self,
        session: &Session,
        pcrs: Pcrs,
        bank: Bank,
    ) -> Result<(), Tpm2Error> {
        let parameters = Writer::new().sized(&[]).bytes(&pcrs.selection(bank));
        let handles = [session.handle];
        let answer = self.run(Command::PolicyPcr, &handles, By::Nothing, parameters);
        match answer {
            // The bank is not active in this TPM.
            Err(Tpm2Error::Refused { code, .. }) if code & 0x80 != 0 => {
                Err(Tpm2Error::NoPcrs { pcrs, bank })
            }
            answer => answer.map(drop),
        }
    }

    /// Adds the authorization value of the object, its PIN, to the policy of a session.
    pub(super) fn policy_auth_value(&mut self, session: &Session) -> Result<(), Tpm2Error> {
        let handles = [session.handle];
        self.run(
            Command::PolicyAuthValue,
            &handles,
            By::Nothing,
            Writer::new(),
        )
        .map(drop)
    }

    /// The hash of the policy of a session.
    pub(super) fn policy_digest(&mut self, session: &Session) -> Result<Vec<u8>, Tpm2Error> {
        let handles = [session.handle];
        let answer = self.run(
            Command::PolicyGetDigest,
            &handles,
            By::Nothing,
            Writer::new(),
        )?;
        let mut reader = Reader::new(&answer.parameters);
        let digest = reader.sized()?.to_vec();
        reader.end()?;
        Ok(digest)
    }

    /// Unseals a secret with a session that has its policy.
    pub(super) fn unseal(
        &mut self,
        object: &Loaded,
        mut session: Session,
        auth: &[u8],
    ) -> Result<LockedBytes, Tpm2Error> {
        session.prepare(auth)?;
        let command = Command::Unseal;
        let by = session.authorization(command, &object.name, &[], Encrypted::Response);
        let handles = [object.handle];
        let answer = self.run(command, &handles, By::Session(by), Writer::new())?;
        session.check(command, &answer.parameters, &answer.authorization)?;
        let mut reader = Reader::new(&answer.parameters);
        let encrypted = reader.sized()?;
        reader.end()?;
        session.decrypt(encrypted)
    }

    /// Seals a secret with a policy and an authorization value, through an HMAC session.
    pub(super) fn create(
        &mut self,
        key: &StorageKey,
        mut session: Session,
        secret: &[u8],
        auth: &[u8],
        policy: &[u8],
    ) -> Result<Blob, Tpm2Error> {
        session.prepare(&[])?;
        let mut sensitive = sensitive(secret, auth)?;
        session.encrypt(&mut sensitive)?;
        let parameters = Writer::new()
            .sized(&sensitive)
            .sized(&object::sealed_template(policy))
            .sized(&[])
            .u32(0)
            .into_bytes();
        let command = Command::Create;
        let name = &key.object.name;
        let by = session.authorization(command, name, &parameters, Encrypted::Command);
        let parameters = Writer::new().bytes(&parameters);
        let handles = [key.object.handle];
        let answer = self.run(command, &handles, By::Session(by), parameters)?;
        session.check(command, &answer.parameters, &answer.authorization)?;
        let mut reader = Reader::new(&answer.parameters);
        Ok(Blob {
            private: reader.sized()?.to_vec(),
            public: reader.sized()?.to_vec(),
        })
    }

    /// The values of PCRs by their numbers. Those that the bank does not have are left out.
    pub(super) fn pcr_values(
        &mut self,
        pcrs: Pcrs,
        bank: Bank,
    ) -> Result<BTreeMap<u32, Vec<u8>>, Tpm2Error> {
        let mut values = BTreeMap::new();
        let mut missing = pcrs;
        // A response has at most eight values.
        while !missing.is_empty() {
            let parameters = Writer::new().bytes(&missing.selection(bank));
            let answer = self.run(Command::PcrRead, &[], By::Nothing, parameters)?;
            let mut reader = Reader::new(&answer.parameters);
            let _counter = reader.u32()?;
            let mut read = Pcrs::default();
            for _ in 0..reader.u32()?.min(16) {
                let of = reader.u16()?;
                let size = reader.u8()?;
                let select = reader.take(usize::from(size))?;
                if of == bank.code() {
                    read = Pcrs::of_selection(select);
                }
            }
            let rest = missing.without(read);
            if rest == missing {
                break;
            }
            let _count = reader.u32()?;
            for number in read.numbers() {
                values.insert(number, reader.sized()?.to_vec());
            }
            reader.end()?;
            missing = rest;
        }
        Ok(values)
    }

    /// Flushes the session with this handle before its end.
    pub(super) fn end(&mut self, session: u32) -> Result<(), Tpm2Error> {
        self.left.retain(|&handle| handle != session);
        self.flush_handle(session)
    }

    fn flush_handle(&mut self, handle: u32) -> Result<(), Tpm2Error> {
        let parameters = Writer::new().u32(handle);
        self.run(Command::FlushContext, &[], By::Nothing, parameters)
            .map(drop)
    }

    /// Sends a command, again if the TPM is busy, and takes its response apart.
    fn run(
        &mut self,
        command: Command,
        handles: &[u32],
        by: By,
        parameters: Writer,
    ) -> Result<Answer, Tpm2Error> {
        let (tag, authorization) = match by {
            By::Nothing => (code::NO_SESSIONS, None),
            By::EmptyPassword => {
                let password = Writer::new().u32(code::PASSWORD).sized(&[]).u8(0);
                (code::SESSIONS, Some(password.sized(&[]).into_bytes()))
            }
            By::Session(authorization) => (code::SESSIONS, Some(authorization)),
        };
        let mut body = Writer::new();
        for handle in handles {
            body = body.u32(*handle);
        }
        if let Some(authorization) = &authorization {
            body = body.u32(small(authorization.len())).bytes(authorization);
        }
        let body = body.bytes(&parameters.into_bytes()).into_bytes();
        let message = Writer::new()
            .u16(tag)
            .u32(small(body.len() + 10))
            .u32(command.code())
            .bytes(&body)
            .into_bytes();
        if message.len() > MAX_MESSAGE {
            return Err(Tpm2Error::Token(
                "tpm2-blob is larger than a command".into(),
            ));
        }
        let mut tries = 0;
        let response = loop {
            let response = self.transport.exchange(&message)?;
            let mut reader = Reader::new(&response);
            reader.take(6)?;
            match reader.u32()? {
                0 => break response,
                code if is_busy(code) && tries < RETRIES => {
                    tries += 1;
                    thread::sleep(PAUSE);
                }
                code => return Err(refused(command, code)),
            }
        };
        self.answer(command, &response, authorization.is_some())
    }

    fn answer(
        &mut self,
        command: Command,
        response: &[u8],
        has_sessions: bool,
    ) -> Result<Answer, Tpm2Error> {
        let mut reader = Reader::new(response);
        let tag = reader.u16()?;
        reader.take(8)?;
        let handle = match command {
            Command::CreatePrimary | Command::Load | Command::StartAuthSession => {
                let handle = reader.u32()?;
                self.left.push(handle);
                Some(handle)
            }
            _ => None,
        };
        let (parameters, authorization) = match (tag, has_sessions) {
            (code::NO_SESSIONS, false) => (reader.rest(), &[][..]),
            (code::SESSIONS, true) => {
                let size = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
                (reader.take(size)?, reader.rest())
            }
            _ => return Err(Tpm2Error::Malformed("its tag is not that of the command")),
        };
        Ok(Answer {
            handle,
            parameters: parameters.to_vec(),
            authorization: authorization.to_vec(),
        })
    }
}

const NO_HANDLE: Tpm2Error = Tpm2Error::Malformed("it has no handle");

fn storage_key(handle: Option<u32>, public: &[u8]) -> Result<StorageKey, Tpm2Error> {
    Ok(StorageKey {
        object: Loaded {
            handle: handle.ok_or(NO_HANDLE)?,
            name: object::name_of(public)?,
        },
        public: object::storage_key(public)?,
    })
}

/// A `TPMS_SENSITIVE_CREATE` in locked memory.
fn sensitive(secret: &[u8], auth: &[u8]) -> Result<LockedBytes, Tpm2Error> {
    let mut bytes = LockedBytes::new(secret.len() + auth.len() + 4)?;
    let mut rest = &mut bytes[..];
    for part in [auth, secret] {
        let size = u16::try_from(part.len()).unwrap_or(u16::MAX);
        let (head, after) = rest.split_at_mut(2);
        head.copy_from_slice(&size.to_be_bytes());
        let (place, after) = after.split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = after;
    }
    Ok(bytes)
}

/// The size of what fits into a message. More than that is refused before it is sent.
fn small(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Whether the TPM asks to send the command again: it retries, yields, tests itself, or spares its
/// memory.
fn is_busy(code: u32) -> bool {
    [0x922, 0x908, 0x90a, 0x920, 0x923].contains(&code)
}

/// What the code of a response means (part 2, section 6.6). In codes with 0x80, the bits of 0x40
/// and from 0x100 say which parameter, handle or session is meant.
fn refused(command: Command, code: u32) -> Tpm2Error {
    match code {
        0x921 => Tpm2Error::Lockout,
        0x902..=0x906 => Tpm2Error::NoMemory,
        _ => match code & 0xbf {
            // The PIN is that of what is unsealed.
            0x8e | 0xa2 if command == Command::Unseal => Tpm2Error::WrongPin,
            0x8e | 0xa2 if command == Command::CreatePrimary => Tpm2Error::OwnerPassword,
            0x8e | 0xa2 if command == Command::Load => Tpm2Error::KeyPassword,
            0x9d => Tpm2Error::Policy,
            _ => Tpm2Error::Refused {
                command: command.name(),
                code,
            },
        },
    }
}
