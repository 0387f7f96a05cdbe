//! The requests and replies of a control socket, as JSON. The passphrases of a request follow it as
//! bytes.

use std::time::Duration;

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;
use luksmith_formats::json::{Object, Value, json};

use super::controlled::Start;
use super::options::{Options, Protection};
use crate::task::cost::{CostOptions, Function};
use crate::task::{Advice, Error, Kind};

/// The most passphrases of a request.
const MOST_PASSPHRASES: usize = 64;
/// The longest passphrase in bytes.
const LONGEST_PASSPHRASE: usize = 8 << 20;

const FUNCTIONS: &[(&str, Function)] = &[
    ("pbkdf2", Function::Pbkdf2),
    ("argon2i", Function::Argon2i),
    ("argon2id", Function::Argon2id),
];

const PROTECTIONS: &[(&str, Protection)] = &[
    ("checksum", Protection::Checksum),
    ("journal", Protection::Journal),
];

/// The advice that a reply can have.
const ADVICE: &[(&str, Advice)] = &[
    ("device-in-use", Advice::DeviceInUse),
    ("drop-keyslots", Advice::DropKeyslots),
    ("fewer-keyslots", Advice::FewerKeyslots),
    ("usual-cipher", Advice::UsualCipher),
    ("whole-sectors", Advice::WholeSectors),
    ("reencrypt-again", Advice::ReencryptAgain),
    ("reencrypt-as-begun", Advice::ReencryptAsBegun),
    ("luks2-has-argon2", Advice::Luks2HasArgon2),
    ("argon2-or-neither", Advice::Argon2OrNeither),
];

fn named<T: Clone>(list: &[(&str, T)], name: &str) -> Option<T> {
    let (_, found) = list.iter().find(|(own, _)| *own == name)?;
    Some(found.clone())
}

fn name_of<T: PartialEq>(list: &[(&'static str, T)], of: &T) -> Option<&'static str> {
    let (name, _) = list.iter().find(|(_, own)| own == of)?;
    Some(*name)
}

impl Start {
    /// The request, without the passphrases.
    pub(super) fn to_request(&self, export: Option<&str>) -> Value {
        let mut request = Object::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                request.insert(name, value);
            }
        };
        let Options {
            cipher,
            key_size,
            sector_size,
            hash,
            cost,
            protection,
            checksum_hash,
            zone,
            rate,
            only_resume,
            only_begin: _,
            drop_others,
            unverified_blocks: _,
        } = &self.options;
        let yes = |set: &bool| set.then(|| Value::from(true));
        let time = u64::try_from(cost.time.as_millis()).unwrap_or(u64::MAX);
        put("command", Some("start".into()));
        put("export", export.map(Value::from));
        put("cipher", cipher.map(|cipher| cipher.to_string().into()));
        put("key_bits", key_size.map(|size| (size as u64 * 8).into()));
        put("sector_size", sector_size.map(Value::from));
        put("hash", hash.map(|hash| hash.name().into()));
        let function = cost.function.and_then(|one| name_of(FUNCTIONS, &one));
        put("pbkdf", function.map(Value::from));
        put("pbkdf_time_ms", Some(time.into()));
        put("pbkdf_force_iterations", cost.iterations.map(Value::from));
        put("pbkdf_memory_kib", cost.memory_kib.map(Value::from));
        put("pbkdf_parallel", cost.lanes.map(Value::from));
        let protection = protection.and_then(|one| name_of(PROTECTIONS, &one));
        put("resilience", protection.map(Value::from));
        put(
            "resilience_hash",
            checksum_hash.map(|hash| hash.name().into()),
        );
        put("zone_size", zone.map(Value::from));
        put("bytes_per_second", rate.map(Value::from));
        put("resume", yes(only_resume));
        put("drop_other_keyslots", yes(drop_others));
        put("larger_sectors", yes(&self.larger_sectors));
        Value::Object(request)
    }

    /// The options of a request.
    ///
    /// # Errors
    /// [`Kind::Parameters`] for a member that is unknown, or has a wrong value.
    pub(super) fn of_request(request: &Value) -> Result<Self, Error> {
        let mut options = Options::default();
        let mut larger_sectors = false;
        let members = request.as_object().into_iter().flat_map(Object::iter);
        for (name, value) in members {
            let wrong = || Error::parameters(format!("{name}: {value} is no such value"));
            let text = || value.as_str().ok_or_else(wrong);
            let number = || value.as_u64().ok_or_else(wrong);
            let small = || u32::try_from(number()?).map_err(|_| wrong());
            let flag = || value.as_bool().ok_or_else(wrong);
            let hash = || Hash::parse(text()?).map_err(|_| wrong());
            let cost: &mut CostOptions = &mut options.cost;
            match name {
                "command" | "export" | "passphrases" => {}
                "cipher" => {
                    let cipher = CipherSpec::parse(text()?);
                    options.cipher = Some(cipher.map_err(|_| wrong())?);
                }
                "key_bits" => options.key_size = Some(small()? as usize / 8),
                "sector_size" => {
                    let size = Some(small()?).filter(|size| size.is_power_of_two());
                    let size = size.filter(|size| (512..=4096).contains(size));
                    options.sector_size = Some(size.ok_or_else(wrong)?);
                }
                "hash" => options.hash = Some(hash()?),
                "pbkdf" => cost.function = Some(named(FUNCTIONS, text()?).ok_or_else(wrong)?),
                "pbkdf_time_ms" => cost.time = Duration::from_millis(small()?.max(1).into()),
                "pbkdf_force_iterations" => cost.iterations = Some(small()?),
                "pbkdf_memory_kib" => cost.memory_kib = Some(small()?.max(32)),
                "pbkdf_parallel" => cost.lanes = Some(small()?.clamp(1, 16)),
                "resilience" => {
                    options.protection = Some(named(PROTECTIONS, text()?).ok_or_else(wrong)?);
                }
                "resilience_hash" => options.checksum_hash = Some(hash()?),
                "zone_size" => options.zone = Some(number()?),
                "bytes_per_second" if value.is_null() => {}
                "bytes_per_second" => options.rate = Some(number()?).filter(|rate| *rate > 0),
                "resume" => options.only_resume = flag()?,
                "drop_other_keyslots" => options.drop_others = flag()?,
                "larger_sectors" => larger_sectors = flag()?,
                _ => return Err(Error::parameters(format!("{name} is no member of start"))),
            }
        }
        Ok(Self {
            options,
            larger_sectors,
        })
    }
}

/// The lengths in bytes of the passphrases that follow a request.
pub(super) fn lengths(request: &Value) -> Result<Vec<usize>, Error> {
    let Some(lengths) = request.get("passphrases") else {
        return Ok(Vec::new());
    };
    let length = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let lengths: Option<Vec<_>> = lengths
        .as_array()
        .filter(|lengths| lengths.len() <= MOST_PASSPHRASES)
        .and_then(|lengths| lengths.iter().map(length).collect());
    lengths
        .filter(|lengths| lengths.iter().all(|length| *length <= LONGEST_PASSPHRASE))
        .ok_or_else(|| Error::parameters("passphrases: an array of lengths in bytes"))
}

/// The reply that refuses a request.
pub(super) fn refusal(error: &Error) -> Value {
    let advice = error.advice().iter();
    let advice: Vec<_> = advice.filter_map(|one| name_of(ADVICE, one)).collect();
    json!({
        "ok": false,
        "error": error.line(),
        "kind": error.kind().name(),
        "advice": advice,
    })
}

/// The error of a reply that refuses a request.
pub(super) fn refused(reply: &Value) -> Option<Error> {
    let why = reply.get("error").and_then(Value::as_str)?;
    let kind = reply.get("kind").and_then(Value::as_str);
    let kind = kind.and_then(Kind::of_name).unwrap_or(Kind::Parameters);
    let advice = reply.get("advice").and_then(Value::as_array);
    let advice = advice.into_iter().flatten().filter_map(Value::as_str);
    let error = Error::new(kind, why);
    Some(advice.fold(error, |error, name| match named(ADVICE, name) {
        Some(advice) => error.advise(advice),
        None => error,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_all_that_was_asked_for() {
        let options = Options {
            cipher: Some(CipherSpec::parse("aes-cbc-essiv:sha256").unwrap()),
            key_size: Some(32),
            sector_size: Some(4096),
            hash: Some(Hash::Sha512),
            cost: CostOptions {
                function: Some(Function::Argon2i),
                time: Duration::from_millis(777),
                iterations: Some(5),
                memory_kib: Some(64),
                lanes: Some(3),
            },
            protection: Some(Protection::Journal),
            checksum_hash: Some(Hash::Sha1),
            zone: Some(1 << 20),
            rate: Some(9),
            only_resume: true,
            only_begin: false,
            drop_others: true,
            unverified_blocks: false,
        };
        let start = Start {
            options,
            larger_sectors: true,
        };
        let request = start.to_request(Some("name"));
        let text = format!("{request}");
        let read = Start::of_request(&Value::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(read.to_request(Some("name")), request);
        assert_eq!(
            format!("{:?}", read.options),
            format!("{:?}", start.options)
        );
        assert!(read.larger_sectors);
    }

    #[test]
    fn a_wrong_request_is_refused() {
        for wrong in [
            r#"{"cipher": "rot13"}"#,
            r#"{"cipher": 7}"#,
            r#"{"sector_size": 8192}"#,
            r#"{"resilience": "none"}"#,
            r#"{"drop_others": true}"#,
            r#"{"pbkdf_force_iterations": 5000000000}"#,
        ] {
            let request = Value::parse(wrong.as_bytes()).unwrap();
            let error = Start::of_request(&request).err().unwrap();
            assert_eq!(error.kind(), Kind::Parameters, "{wrong}");
        }
        for wrong in [
            r#"{"passphrases": 7}"#,
            r#"{"passphrases": [-1]}"#,
            r#"{"passphrases": [99999999]}"#,
        ] {
            let request = Value::parse(wrong.as_bytes()).unwrap();
            assert!(lengths(&request).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_has_the_kind_and_the_advice_of_the_error() {
        let error = Error::new(Kind::WrongPassphrase, "no keyslot").advise(Advice::DropKeyslots);
        let read = refused(&refusal(&error)).unwrap();
        assert_eq!(read.kind(), Kind::WrongPassphrase);
        assert_eq!(read.advice(), [Advice::DropKeyslots]);
        assert_eq!(read.line(), "no keyslot");
        assert!(refused(&json!({ "ok": true })).is_none());
    }
}
