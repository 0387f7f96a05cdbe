//! PBKDF2, argon2 and the anti-forensic splitter.

use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
use luksmith::Interrupt;
use luksmith::kdf::{Argon2Cost, af, argon2, pbkdf2};
use luksmith_formats::Hash;
use luksmith_formats::luks2::Argon2Variant;
use serde_json::Value;
use shake::{ExtendableOutput, Shake256, Update, XofReader};

use crate::{Vectors, bytes, number};

fn check_pbkdf2(hash: Hash, test: &Value, iterations: u32, password: &str, expected: &[u8]) {
    let mut out = vec![0; expected.len()];
    let (password, salt) = (bytes(test, password), bytes(test, "salt"));
    pbkdf2(
        hash,
        &password,
        &salt,
        iterations,
        &mut out,
        &Interrupt::new(),
    )
    .unwrap();
    assert_eq!(out, expected, "{hash}: {test}");
}

#[test]
fn pbkdf2_of_the_rfcs() {
    pbkdf2_of("kdf/pbkdf2_rfc.json");
}

/// The hashes that no publication has vectors of PBKDF2 for.
#[test]
fn pbkdf2_of_openssl() {
    pbkdf2_of("kdf/pbkdf2_openssl.json");
}

fn pbkdf2_of(file: &'static str) {
    let vectors = Vectors::load(file);
    let mut ran = 0;
    for test in vectors.json["tests"].as_array().unwrap() {
        let hash = Hash::parse(test["hash"].as_str().unwrap()).unwrap();
        let iterations = number(test, "iterations");
        check_pbkdf2(hash, test, iterations, "password", &bytes(test, "output"));
        ran += 1;
    }
    vectors.assert_all_ran(ran);
}

fn wycheproof(file: &'static str, hash: Hash) {
    let vectors = Vectors::load(file);
    let mut ran = 0;
    for group in vectors.json["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            // PBKDF2 accepts any input, so a vector that has to fail would be a surprise.
            assert_eq!(test["result"], "valid", "{test}");
            let expected = bytes(test, "dk");
            assert_eq!(
                expected.len(),
                usize::try_from(number(test, "dkLen")).unwrap()
            );
            check_pbkdf2(
                hash,
                test,
                number(test, "iterationCount"),
                "password",
                &expected,
            );
            ran += 1;
        }
    }
    vectors.assert_all_ran(ran);
}

#[test]
fn pbkdf2_of_wycheproof_sha1() {
    wycheproof("kdf/wycheproof_pbkdf2_hmacsha1_test.json", Hash::Sha1);
}

#[test]
fn pbkdf2_of_wycheproof_sha224() {
    wycheproof("kdf/wycheproof_pbkdf2_hmacsha224_test.json", Hash::Sha224);
}

#[test]
fn pbkdf2_of_wycheproof_sha256() {
    wycheproof("kdf/wycheproof_pbkdf2_hmacsha256_test.json", Hash::Sha256);
}

#[test]
fn pbkdf2_of_wycheproof_sha384() {
    wycheproof("kdf/wycheproof_pbkdf2_hmacsha384_test.json", Hash::Sha384);
}

#[test]
fn pbkdf2_of_wycheproof_sha512() {
    wycheproof("kdf/wycheproof_pbkdf2_hmacsha512_test.json", Hash::Sha512);
}

/// One argon2 vector, with the names of RFC 9106.
struct Argon2Vector {
    algorithm: Algorithm,
    version: Version,
    passes: u32,
    memory_kib: u32,
    lanes: u32,
    password: Vec<u8>,
    salt: Vec<u8>,
    secret: Vec<u8>,
    ad: Vec<u8>,
    tag: Vec<u8>,
}

impl Argon2Vector {
    /// Derives with luksmith if LUKS2 has such keyslots. For argon2d, version 0x10, secrets and
    /// associated data it uses the `argon2` crate, which luksmith is built on.
    fn check(&self) -> Ran {
        let variant = match self.algorithm {
            Algorithm::Argon2i => Some(Argon2Variant::I),
            Algorithm::Argon2id => Some(Argon2Variant::Id),
            Algorithm::Argon2d => None,
        };
        let plain = self.version == Version::V0x13 && self.secret.is_empty() && self.ad.is_empty();
        if let (Some(variant), true) = (variant, plain) {
            let cost = Argon2Cost {
                variant,
                passes: self.passes,
                memory_kib: self.memory_kib,
                lanes: self.lanes,
            };
            let (password, salt) = (&self.password, &self.salt);
            let out = argon2(cost, password, salt, self.tag.len(), &Interrupt::new()).unwrap();
            assert_eq!(out[..], self.tag);
            return Ran::Ours;
        }
        let params = ParamsBuilder::new()
            .t_cost(self.passes)
            .m_cost(self.memory_kib)
            .p_cost(self.lanes)
            .output_len(self.tag.len())
            .data(AssociatedData::new(&self.ad).unwrap())
            .build()
            .unwrap();
        let mut out = vec![0; self.tag.len()];
        Argon2::new_with_secret(&self.secret, self.algorithm, self.version, params)
            .unwrap()
            .hash_password_into(&self.password, &self.salt, &mut out)
            .unwrap();
        assert_eq!(out, self.tag);
        Ran::Below
    }
}

#[derive(PartialEq)]
enum Ran {
    Ours,
    Below,
}

fn algorithm(test: &Value) -> Algorithm {
    test["type"].as_str().unwrap().parse().unwrap()
}

/// A member in hex. A missing member is empty.
fn optional(test: &Value, member: &str) -> Vec<u8> {
    if test[member].is_null() {
        Vec::new()
    } else {
        bytes(test, member)
    }
}

#[test]
fn argon2_of_the_reference() {
    let vectors = Vectors::load("kdf/argon2_rfc9106_phc.json");
    let mut ran = 0;
    for test in vectors.json["tests"].as_array().unwrap() {
        Argon2Vector {
            algorithm: algorithm(test),
            version: number(test, "version").try_into().unwrap(),
            passes: number(test, "iterations"),
            memory_kib: number(test, "memory_kib"),
            lanes: number(test, "parallelism"),
            password: bytes(test, "password"),
            salt: bytes(test, "salt"),
            secret: optional(test, "secret"),
            ad: optional(test, "ad"),
            tag: bytes(test, "tag"),
        }
        .check();
        ran += 1;
    }
    vectors.assert_all_ran(ran);
}

#[test]
fn argon2_of_cryptography() {
    let vectors = Vectors::load("kdf/argon2_cryptography.json");
    let (mut ran, mut ours) = (0, 0);
    for test in vectors.json["tests"].as_array().unwrap() {
        let tag = bytes(test, "output");
        assert_eq!(tag.len(), usize::try_from(number(test, "length")).unwrap());
        let vector = Argon2Vector {
            algorithm: algorithm(test),
            version: Version::V0x13,
            passes: number(test, "iter"),
            memory_kib: number(test, "memcost"),
            lanes: number(test, "lanes"),
            password: bytes(test, "pass"),
            salt: bytes(test, "salt"),
            secret: optional(test, "secret"),
            ad: optional(test, "ad"),
            tag,
        };
        ours += u64::from(vector.check() == Ran::Ours);
        ran += 1;
    }
    vectors.assert_all_ran(ran);
    assert!(ours > 0, "no vector went through our own argon2");
}

#[test]
fn anti_forensic_splitter() {
    splitter("af/derived_afsplit.json");
    splitter("af/derived_afsplit_more.json");
}

fn splitter(file: &'static str) {
    let vectors = Vectors::load(file);
    let mut ran = 0;
    for test in vectors.json["tests"].as_array().unwrap() {
        let hash = Hash::parse(test["hash"].as_str().unwrap()).unwrap();
        let (key_len, stripes) = (number(test, "blocklen"), number(test, "stripes"));
        let key = bytes(test, "key");
        assert_eq!(key.len(), usize::try_from(key_len).unwrap());
        let seed = format!("af {hash} {key_len} {stripes}");
        assert_eq!(
            test["random"],
            format!("SHAKE256(\"{seed}\")[0..blocklen*stripes]")
        );

        let material = af::split_with(&key, stripes, hash, |random| {
            let mut shake = Shake256::default();
            shake.update(seed.as_bytes());
            shake.finalize_xof().read(random);
            Ok(())
        })
        .unwrap();
        if let Some(expected) = test["splitkey"].as_str() {
            assert_eq!(hex::encode(&material[..]), expected, "{}", test["id"]);
        }
        let digest = <sha2::Sha256 as digest::Digest>::digest(&material[..]);
        assert_eq!(
            test["splitkey_sha256"],
            hex::encode(digest),
            "{}",
            test["id"]
        );

        let merged = af::merge(&material, key.len(), stripes, hash).unwrap();
        assert_eq!(merged[..], key, "{}", test["id"]);
        ran += 1;
    }
    vectors.assert_all_ran(ran);
}
