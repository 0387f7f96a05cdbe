//! The token `systemd-tpm2`, as systemd writes it.
//!
//! Its members up to systemd 252 have `-` in their names, and later ones have `_`. A member that
//! makes the policy another one than PCRs and a PIN is refused: the TPM would refuse it too, but
//! with less to say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use luksmith_formats::json::{Value, json};

use super::error::Tpm2Error;
use super::object::{Blob, PrimaryAlgorithm};
use super::pcrs::{Bank, Pcrs};
use super::wire::Reader;

/// The type of the token.
const TOKEN_TYPE: &str = "systemd-tpm2";

/// A secret that is sealed by a TPM, with what is needed to unseal it.
#[derive(Clone, Debug)]
pub struct Tpm2Token {
    pub(super) blob: Blob,
    pub(super) pcrs: Pcrs,
    pub(super) bank: Bank,
    pub(super) primary: Primary,
    pub(super) policy_hash: Vec<u8>,
    pub(super) pin: bool,
    /// With a salt, the PIN is derived with PBKDF2.
    pub(super) salt: Option<Vec<u8>>,
}

/// The key under which the secret is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Primary {
    /// The TPM derives it each time.
    Derived(PrimaryAlgorithm),
    /// It is in the TPM, and has this name.
    Persistent { handle: u32, name: Vec<u8> },
}

impl Tpm2Token {
    /// Reads a token of this type.
    ///
    /// # Errors
    /// [`Tpm2Error::Token`] and [`Tpm2Error::Unsupported`].
    pub fn read(token: &Value) -> Result<Self, Tpm2Error> {
        check_policy(token)?;
        let blob = token.get("tpm2-blob").ok_or_else(|| missing("tpm2-blob"))?;
        if blob.as_array().is_some() {
            return Err(Tpm2Error::Unsupported("it has several sealed objects"));
        }
        let policy_hash =
            text(token, "tpm2-policy-hash")?.ok_or_else(|| missing("tpm2-policy-hash"))?;
        let policy_hash = from_hex(policy_hash);
        let bank = match text(token, "tpm2-pcr-bank")? {
            None => Bank::Sha256,
            Some(name) => Bank::of_name(name).ok_or(Tpm2Error::Unsupported("its bank of PCRs"))?,
        };
        let primary = match base64(token, "tpm2_srk")? {
            Some(srk) => persistent(&srk)?,
            None => Primary::Derived(match text(token, "tpm2-primary-alg")? {
                None => PrimaryAlgorithm::Ecc,
                Some(name) => PrimaryAlgorithm::of_name(name)
                    .ok_or(Tpm2Error::Unsupported("the algorithm of its primary key"))?,
            }),
        };
        let pin = match token.get("tpm2-pin") {
            None => false,
            Some(pin) => pin.as_bool().ok_or_else(|| invalid("tpm2-pin"))?,
        };
        Ok(Self {
            blob: Blob::read(&base64(token, "tpm2-blob")?.unwrap_or_default())?,
            pcrs: pcrs(token, "tpm2-pcrs")?.ok_or_else(|| missing("tpm2-pcrs"))?,
            bank,
            primary,
            policy_hash: policy_hash.ok_or_else(|| invalid("tpm2-policy-hash"))?,
            pin,
            salt: base64(token, "tpm2_salt")?,
        })
    }

    /// The JSON of the token. Its list of keyslots is empty.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut token = json!({"type": TOKEN_TYPE, "keyslots": []});
        token["tpm2-blob"] = STANDARD.encode(self.blob.to_bytes()).into();
        let pcrs = self.pcrs.numbers().map(Value::from).collect::<Vec<_>>();
        token["tpm2-pcrs"] = pcrs.into();
        token["tpm2-pcr-bank"] = self.bank.name().into();
        if let Primary::Derived(algorithm) = self.primary {
            token["tpm2-primary-alg"] = algorithm.name().into();
        }
        token["tpm2-policy-hash"] = to_hex(&self.policy_hash).into();
        token["tpm2-pin"] = self.pin.into();
        token
    }

    /// Whether it takes a PIN to unseal the secret.
    #[must_use]
    pub fn needs_pin(&self) -> bool {
        self.pin
    }

    /// The PCRs that have to have the values of when the secret was sealed.
    #[must_use]
    pub fn pcrs(&self) -> Pcrs {
        self.pcrs
    }
}

/// Refuses policies of other kinds.
fn check_policy(token: &Value) -> Result<(), Tpm2Error> {
    if pcrs(token, "tpm2_pubkey_pcrs")?.is_some_and(|pcrs| !pcrs.is_empty()) {
        return Err(Tpm2Error::Unsupported("a policy of signed PCRs"));
    }
    let pcrlock = token.get("tpm2_pcrlock").and_then(Value::as_bool);
    if pcrlock == Some(true) || token.get("tpm2_pcrlock_nv").is_some() {
        return Err(Tpm2Error::Unsupported("a policy of systemd-pcrlock"));
    }
    let other = token.as_object().into_iter().flat_map(|all| all.iter());
    for (name, _) in other {
        let known = [
            "tpm2_pubkey",
            "tpm2_pubkey_pcrs",
            "tpm2_pcrlock",
            "tpm2_srk",
            "tpm2_salt",
        ];
        if name.starts_with("tpm2_") && !known.contains(&name) {
            return Err(Tpm2Error::Unsupported("it has members of a later systemd"));
        }
    }
    Ok(())
}

/// Reads a key that is in the TPM, as libtss2-esys stores it: its handle, its name, and its public
/// area, which the TPM has too.
fn persistent(bytes: &[u8]) -> Result<Primary, Tpm2Error> {
    let mut reader = Reader::new(bytes);
    let handle = reader.u32().map_err(|_| invalid("tpm2_srk"))?;
    let name = reader.sized().map_err(|_| invalid("tpm2_srk"))?.to_vec();
    // Of the owner, in part 2, section 7.5.
    if !(0x8100_0000..0x8180_0000).contains(&handle) {
        return Err(invalid("tpm2_srk"));
    }
    Ok(Primary::Persistent { handle, name })
}

fn missing(member: &str) -> Tpm2Error {
    Tpm2Error::Token(format!("it has no {member}"))
}

fn invalid(member: &str) -> Tpm2Error {
    Tpm2Error::Token(format!("{member} has a value that it cannot have"))
}

fn text<'a>(token: &'a Value, member: &str) -> Result<Option<&'a str>, Tpm2Error> {
    let value = token.get(member);
    value
        .map(|value| value.as_str().ok_or_else(|| invalid(member)))
        .transpose()
}

fn base64(token: &Value, member: &str) -> Result<Option<Vec<u8>>, Tpm2Error> {
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| invalid(member));
    text(token, member)?.map(decode).transpose()
}

fn pcrs(token: &Value, member: &str) -> Result<Option<Pcrs>, Tpm2Error> {
    let Some(list) = token.get(member) else {
        return Ok(None);
    };
    let list = list.as_array().ok_or_else(|| invalid(member))?;
    list.iter()
        .try_fold(Pcrs::default(), |set, number| set.with(number.as_u64()?))
        .map(Some)
        .ok_or_else(|| invalid(member))
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| {
        digit
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    });
    let digits = digits.collect::<Option<Vec<u8>>>()?;
    let pairs = digits.chunks_exact(2);
    match pairs.remainder() {
        [] => Some(
            pairs
                .filter_map(|pair| Some(pair.first()? << 4 | pair.get(1)?))
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Value {
        json!({
            "type": "systemd-tpm2",
            "keyslots": [],
            "tpm2-blob": "AAECAAID/w==",
            "tpm2-pcrs": [0, 7],
            "tpm2-pcr-bank": "sha256",
            "tpm2-primary-alg": "rsa",
            "tpm2-policy-hash": "00ff",
            "tpm2-pin": true,
        })
    }

    #[test]
    fn a_token_is_written_as_it_was_read() {
        let read = Tpm2Token::read(&token()).unwrap();
        assert!(read.needs_pin());
        assert_eq!(read.pcrs().to_string(), "PCR 0+7");
        assert_eq!(read.policy_hash, [0, 0xff]);
        assert_eq!(read.to_json().to_string(), token().to_string());
    }

    #[test]
    fn members_of_later_versions_have_defaults() {
        let mut old = token();
        for member in ["tpm2-pcr-bank", "tpm2-primary-alg", "tpm2-pin"] {
            old.as_object_mut().unwrap().remove(member);
        }
        let read = Tpm2Token::read(&old).unwrap();
        assert_eq!(read.primary, Primary::Derived(PrimaryAlgorithm::Ecc));
        assert_eq!((read.bank, read.pin), (Bank::Sha256, false));

        let mut new = token();
        new["tpm2_pubkey_pcrs"] = json!([]);
        new["tpm2_pcrlock"] = false.into();
        new["tpm2_salt"] = "AQI=".into();
        new["tpm2_srk"] = "gQAAAQACAAs=".into();
        let read = Tpm2Token::read(&new).unwrap();
        assert_eq!(read.salt, Some(vec![1, 2]));
        let (handle, name) = (0x8100_0001, vec![0, 11]);
        assert_eq!(read.primary, Primary::Persistent { handle, name });
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        let bad = [
            ("tpm2-blob", json!("AAEC")),
            ("tpm2-blob", json!("***")),
            ("tpm2-blob", json!(7)),
            ("tpm2-pcrs", json!([24])),
            ("tpm2-pcrs", json!(["7"])),
            ("tpm2-pcrs", json!(7)),
            ("tpm2-policy-hash", json!("0")),
            ("tpm2-policy-hash", json!("xy")),
            ("tpm2-pin", json!("yes")),
            ("tpm2-pcr-bank", json!(1)),
            ("tpm2_salt", json!("*")),
            ("tpm2_srk", json!("AA==")),
            ("tpm2_srk", json!("QAAAAQACAAs=")),
        ];
        for (member, value) in bad {
            let mut token = token();
            token[member] = value.clone();
            let read = Tpm2Token::read(&token);
            let Err(Tpm2Error::Token(why)) = read else {
                panic!("{member} {value}: {read:?}");
            };
            assert!(why.contains(member), "{why}");
        }
        for member in ["tpm2-blob", "tpm2-pcrs", "tpm2-policy-hash"] {
            let mut token = token();
            token.as_object_mut().unwrap().remove(member);
            assert!(matches!(Tpm2Token::read(&token), Err(Tpm2Error::Token(_))));
        }
    }

    #[test]
    fn other_policies_are_refused() {
        for (member, value) in [
            ("tpm2_pubkey_pcrs", json!([11])),
            ("tpm2_pcrlock", json!(true)),
            ("tpm2_pcrlock_nv", json!("AA==")),
            ("tpm2_argon2id", json!({})),
            ("tpm2-blob", json!(["AAECAAID/w=="])),
            ("tpm2-blob", json!("AAECAAID/wAA")),
            ("tpm2-pcr-bank", json!("sm3")),
            ("tpm2-primary-alg", json!("ecc521")),
        ] {
            let mut token = token();
            token[member] = value;
            let read = Tpm2Token::read(&token);
            assert!(matches!(read, Err(Tpm2Error::Unsupported(_))), "{member}");
        }
    }
}
