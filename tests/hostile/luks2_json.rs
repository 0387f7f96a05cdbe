//! LUKS2: changes of the metadata, with a correct checksum each time. Every rule of the JSON has a
//! case here.

use luksmith_formats::json::{Value, json};
use luksmith_formats::luks2::{Kdf, Keyslot, Priority, Segment};
use luksmith_formats::{FormatError, Hash, Kind};

use crate::luks2::{
    bytes_of, good, json_of, keyslot, parse, parse_usable, pbkdf2, put_text, seal, with_size,
};
use crate::verdict::{Verdict, judge, not_understood, unsupported};

type Change = fn(&mut Value);

#[rustfmt::skip]
fn evil() -> Vec<(&'static str, Change, Verdict)> {
    vec![
        ("no config", |v| remove(v, "", "config"), not_understood("config", "is missing")),
        ("config an array", |v| set(v, "/config", json!([])), not_understood("config", "is not an object")),
        ("config null", |v| set(v, "/config", json!(null)), not_understood("config", "is not an object")),
        ("no keyslots", |v| remove(v, "", "keyslots"), not_understood("keyslots", "is missing")),
        ("keyslots an array", |v| set(v, "/keyslots", json!([])), not_understood("keyslots", "is not an object")),
        ("keyslots null", |v| set(v, "/keyslots", json!(null)), not_understood("keyslots", "is not an object")),
        ("no tokens", |v| remove(v, "", "tokens"), not_understood("tokens", "is missing")),
        ("tokens an array", |v| set(v, "/tokens", json!([])), not_understood("tokens", "is not an object")),
        ("tokens null", |v| set(v, "/tokens", json!(null)), not_understood("tokens", "is not an object")),
        ("no segments", |v| remove(v, "", "segments"), not_understood("segments", "is missing")),
        ("segments an array", |v| set(v, "/segments", json!([])), not_understood("segments", "is not an object")),
        ("segments null", |v| set(v, "/segments", json!(null)), not_understood("segments", "is not an object")),
        ("no digests", |v| remove(v, "", "digests"), not_understood("digests", "is missing")),
        ("digests an array", |v| set(v, "/digests", json!([])), not_understood("digests", "is not an object")),
        ("digests null", |v| set(v, "/digests", json!(null)), not_understood("digests", "is not an object")),
        ("json_size of another size", |v| set(v, "/config/json_size", json!("28672")), not_understood("config.json_size", "makes it 12288")),
        ("json_size a number", |v| set(v, "/config/json_size", json!(12288)), not_understood("config.json_size", "is not a string")),
        ("json_size missing", |v| remove(v, "/config", "json_size"), not_understood("config.json_size", "is missing")),
        ("keyslots_size missing", |v| remove(v, "/config", "keyslots_size"), not_understood("config.keyslots_size", "is missing")),
        ("keyslots_size unaligned", |v| set(v, "/config/keyslots_size", json!("16744447")), not_understood("config.keyslots_size", "multiple of 4096")),
        ("keyslots_size over 128 MiB", |v| set(v, "/config/keyslots_size", json!("134221824")), not_understood("config.keyslots_size", "up to 134217728")),
        ("keyslots_size of all bits", |v| set(v, "/config/keyslots_size", json!("18446744073709551615")), not_understood("config.keyslots_size", "multiple of 4096")),
        ("keyslots_size over the data", |v| set(v, "/config/keyslots_size", json!("16748544")), not_understood("segments.0.offset", "overlaps the metadata")),
        ("keyslots_size too small for the areas", |v| set(v, "/config/keyslots_size", json!("4096")), not_understood("keyslots.0.area.offset", "outside of the keyslots area")),
        ("flags no array", |v| set(v, "/config/flags", json!("x")), not_understood("config.flags", "is not an array")),
        ("flags of numbers", |v| set(v, "/config/flags", json!([1])), not_understood("config.flags.0", "is not a string")),
        ("requirements an array", |v| set(v, "/config/requirements", json!([])), not_understood("config.requirements", "is not an object")),
        ("mandatory no array", |v| set(v, "/config/requirements", json!({"mandatory": {}})), not_understood("config.requirements.mandatory", "is not an array")),
        ("mandatory of numbers", |v| set(v, "/config/requirements", json!({"mandatory": [0]})), not_understood("config.requirements.mandatory.0", "is not a string")),
        ("number with a sign", |v| set(v, "/segments/0/offset", json!("+16777216")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with negative", |v| set(v, "/segments/0/offset", json!("-1")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with space before", |v| set(v, "/segments/0/offset", json!(" 16777216")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with space behind", |v| set(v, "/segments/0/offset", json!("16777216 ")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with hexadecimal", |v| set(v, "/segments/0/offset", json!("0x1000000")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with empty", |v| set(v, "/segments/0/offset", json!("")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with fraction", |v| set(v, "/segments/0/offset", json!("16777216.0")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with exponent", |v| set(v, "/segments/0/offset", json!("1e7")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with 65 bits", |v| set(v, "/segments/0/offset", json!("18446744073709551616")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with 88 bits", |v| set(v, "/segments/0/offset", json!("99999999999999999999999999")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with digits of another script", |v| set(v, "/segments/0/offset", json!("１６")), not_understood("segments.0.offset", "is not a decimal number")),
        ("number with separators", |v| set(v, "/segments/0/offset", json!("16_777_216")), not_understood("segments.0.offset", "is not a decimal number")),
        ("sector_size a string", |v| set(v, "/segments/0/sector_size", json!("4096")), not_understood("segments.0.sector_size", "is not an integer")),
        ("sector_size a fraction", |v| set(v, "/segments/0/sector_size", json!(4096.0)), not_understood("segments.0.sector_size", "is not an integer")),
        ("sector_size negative", |v| set(v, "/segments/0/sector_size", json!(-4096)), not_understood("segments.0.sector_size", "is not an integer")),
        ("sector_size 33 bits", |v| set(v, "/segments/0/sector_size", json!(4294967296_u64)), not_understood("segments.0.sector_size", "is not an integer")),
        ("sector_size a boolean", |v| set(v, "/segments/0/sector_size", json!(true)), not_understood("segments.0.sector_size", "is not an integer")),
        ("sector_size null", |v| set(v, "/segments/0/sector_size", json!(null)), not_understood("segments.0.sector_size", "is not an integer")),
        ("sector_size an array", |v| set(v, "/segments/0/sector_size", json!([4096])), not_understood("segments.0.sector_size", "is not an integer")),
        ("keyslot number too high", |v| copy(v, "/keyslots", "0", "32"), not_understood("keyslots", "is not a number from 0 to 31")),
        ("keyslot number leading zero", |v| copy(v, "/keyslots", "0", "00"), not_understood("keyslots", "is not a number from 0 to 31")),
        ("keyslot number negative", |v| copy(v, "/keyslots", "0", "-1"), not_understood("keyslots", "is not a number from 0 to 31")),
        ("keyslot number a word", |v| copy(v, "/keyslots", "0", "x"), not_understood("keyslots", "is not a number from 0 to 31")),
        ("keyslot number empty", |v| copy(v, "/keyslots", "0", ""), not_understood("keyslots", "is not a number from 0 to 31")),
        ("keyslot number a sign", |v| copy(v, "/keyslots", "0", "+3"), not_understood("keyslots", "is not a number from 0 to 31")),
        ("keyslot number too many bits", |v| copy(v, "/keyslots", "0", "4294967296"), not_understood("keyslots", "is not a number from 0 to 31")),
        ("segment number too high", |v| copy(v, "/segments", "0", "32"), not_understood("segments", "from 0 to 31")),
        ("digest number too high", |v| copy(v, "/digests", "0", "8"), not_understood("digests", "from 0 to 7")),
        ("33 keyslots", |v| { for id in 3..33 { copy(v, "/keyslots", "0", &id.to_string()); }; }, not_understood("keyslots", "has 33 objects; there can be 32")),
        ("33 segments", |v| { for id in 1..33 { copy(v, "/segments", "0", &id.to_string()); }; }, not_understood("segments", "has 33 objects")),
        ("9 digests", |v| { for id in 2..9 { copy(v, "/digests", "0", &id.to_string()); }; }, not_understood("digests", "has 9 objects; there can be 8")),
        ("a keyslot that is a number", |v| set(v, "/keyslots/0", json!(1)), not_understood("keyslots.0", "is not an object")),
        ("a token that is a string", |v| set(v, "/tokens/0", json!("x")), not_understood("tokens.0", "is not an object")),
        ("keyslot without type", |v| remove(v, "/keyslots/0", "type"), not_understood("keyslots.0.type", "is missing")),
        ("keyslot without key_size", |v| remove(v, "/keyslots/0", "key_size"), not_understood("keyslots.0.key_size", "is missing")),
        ("keyslot without area", |v| remove(v, "/keyslots/0", "area"), not_understood("keyslots.0.area", "is missing")),
        ("keyslot without kdf", |v| remove(v, "/keyslots/0", "kdf"), not_understood("keyslots.0.kdf", "is missing")),
        ("keyslot without af", |v| remove(v, "/keyslots/0", "af"), not_understood("keyslots.0.af", "is missing")),
        ("keyslot type a number", |v| set(v, "/keyslots/0/type", json!(2)), not_understood("keyslots.0.type", "is not a string")),
        ("key_size 0", |v| set(v, "/keyslots/0/key_size", json!(0)), not_understood("keyslots.0.key_size", "is 0")),
        ("key_size a string", |v| set(v, "/keyslots/0/key_size", json!("64")), not_understood("keyslots.0.key_size", "is not an integer")),
        ("key_size of no key of the segment", |v| set(v, "/keyslots/0/key_size", json!(40)), not_understood("keyslots.0.key_size", "no keys of 40 bytes")),
        ("key_size over the area", |v| set(v, "/keyslots/2/key_size", json!(65)), not_understood("keyslots.2.area.size", "needs 260096")),
        ("key_size of all bits", |v| set(v, "/keyslots/2/key_size", json!(4294967295_u64)), not_understood("keyslots.2.area.size", "needs 17179869180416")),
        ("area without type", |v| remove(v, "/keyslots/0/area", "type"), not_understood("keyslots.0.area.type", "is missing")),
        ("area without offset", |v| remove(v, "/keyslots/0/area", "offset"), not_understood("keyslots.0.area.offset", "is missing")),
        ("area without size", |v| remove(v, "/keyslots/0/area", "size"), not_understood("keyslots.0.area.size", "is missing")),
        ("area without encryption", |v| remove(v, "/keyslots/0/area", "encryption"), not_understood("keyslots.0.area.encryption", "is missing")),
        ("area without key_size", |v| remove(v, "/keyslots/0/area", "key_size"), not_understood("keyslots.0.area.key_size", "is missing")),
        ("area type unknown", |v| set(v, "/keyslots/0/area/type", json!("cooked")), unsupported("keyslots.0.area.type", "known is raw")),
        ("area offset a number", |v| set(v, "/keyslots/0/area/offset", json!(32768)), not_understood("keyslots.0.area.offset", "is not a string")),
        ("area empty", |v| set(v, "/keyslots/0/area/size", json!("0")), not_understood("keyslots.0.area.size", "is empty")),
        ("area that overflows", |v| set(v, "/keyslots/0/area/size", json!("18446744073709551615")), not_understood("keyslots.0.area.size", "over 64 bits")),
        ("area in the primary header", |v| set(v, "/keyslots/0/area/offset", json!("0")), not_understood("keyslots.0.area.offset", "outside of the keyslots area")),
        ("area in the secondary header", |v| set(v, "/keyslots/0/area/offset", json!("28672")), not_understood("keyslots.0.area.offset", "outside of the keyslots area")),
        ("area in the data", |v| set(v, "/keyslots/0/area/offset", json!("16777216")), not_understood("keyslots.0.area.offset", "outside of the keyslots area")),
        ("area one block into the data", |v| set(v, "/keyslots/0/area/offset", json!("16523264")), not_understood("keyslots.0.area.offset", "outside of the keyslots area")),
        ("area unaligned", |v| set(v, "/keyslots/0/area/offset", json!("33280")), not_understood("keyslots.0.area.offset", "is not a multiple of 4096")),
        ("area size unaligned", |v| set(v, "/keyslots/0/area/size", json!("257536")), not_understood("keyslots.0.area.size", "is not a multiple of 4096")),
        ("area too small for its key", |v| set(v, "/keyslots/0/area/size", json!("253952")), not_understood("keyslots.0.area.size", "needs 256000")),
        ("area at another's place", |v| set(v, "/keyslots/1/area/offset", json!("32768")), not_understood("keyslots.1.area.offset", "overlaps that of keyslot 0")),
        ("area one block into another", |v| set(v, "/keyslots/1/area/offset", json!("286720")), not_understood("keyslots.1.area.offset", "overlaps that of keyslot 0")),
        ("area null cipher", |v| set(v, "/keyslots/0/area/encryption", json!("cipher_null-ecb")), unsupported("keyslots.0.area.encryption", "CVE-2025-59054")),
        ("area driver name", |v| set(v, "/keyslots/0/area/encryption", json!("__driver-xts-aes-aesni")), unsupported("keyslots.0.area.encryption", "kernel driver")),
        ("area unknown cipher", |v| set(v, "/keyslots/0/area/encryption", json!("des-cbc-plain")), unsupported("keyslots.0.area.encryption", "unknown cipher")),
        ("area cipher a number", |v| set(v, "/keyslots/0/area/encryption", json!(1)), not_understood("keyslots.0.area.encryption", "is not a string")),
        ("area key_size of no cipher", |v| set(v, "/keyslots/0/area/key_size", json!(63)), not_understood("keyslots.0.area.key_size", "no keys of 63 bytes")),
        ("area key_size 0", |v| set(v, "/keyslots/0/area/key_size", json!(0)), not_understood("keyslots.0.area.key_size", "is 0")),
        ("af without type", |v| remove(v, "/keyslots/0/af", "type"), not_understood("keyslots.0.af.type", "is missing")),
        ("af without stripes", |v| remove(v, "/keyslots/0/af", "stripes"), not_understood("keyslots.0.af.stripes", "is missing")),
        ("af without hash", |v| remove(v, "/keyslots/0/af", "hash"), not_understood("keyslots.0.af.hash", "is missing")),
        ("af type unknown", |v| set(v, "/keyslots/0/af/type", json!("luks9")), unsupported("keyslots.0.af.type", "known is luks1")),
        ("af stripes 0", |v| set(v, "/keyslots/0/af/stripes", json!(0)), not_understood("keyslots.0.af.stripes", "is 0, not 4000")),
        ("af stripes of all bits", |v| set(v, "/keyslots/0/af/stripes", json!(4294967295_u64)), not_understood("keyslots.0.af.stripes", "not 4000")),
        ("af hash unknown", |v| set(v, "/keyslots/0/af/hash", json!("md5")), unsupported("keyslots.0.af.hash", "unknown hash")),
        ("argon2 without type", |v| remove(v, "/keyslots/0/kdf", "type"), not_understood("keyslots.0.kdf.type", "is missing")),
        ("argon2 without time", |v| remove(v, "/keyslots/0/kdf", "time"), not_understood("keyslots.0.kdf.time", "is missing")),
        ("argon2 without memory", |v| remove(v, "/keyslots/0/kdf", "memory"), not_understood("keyslots.0.kdf.memory", "is missing")),
        ("argon2 without cpus", |v| remove(v, "/keyslots/0/kdf", "cpus"), not_understood("keyslots.0.kdf.cpus", "is missing")),
        ("argon2 without salt", |v| remove(v, "/keyslots/0/kdf", "salt"), not_understood("keyslots.0.kdf.salt", "is missing")),
        ("argon2 with another member for time", |v| { remove(v, "/keyslots/0/kdf", "time"); set(v, "/keyslots/0/kdf/x", json!(1)); }, not_understood("keyslots.0.kdf.time", "is missing")),
        ("argon2 with another member for memory", |v| { remove(v, "/keyslots/0/kdf", "memory"); set(v, "/keyslots/0/kdf/x", json!(1)); }, not_understood("keyslots.0.kdf.memory", "is missing")),
        ("argon2 with another member for cpus", |v| { remove(v, "/keyslots/0/kdf", "cpus"); set(v, "/keyslots/0/kdf/x", json!(1)); }, not_understood("keyslots.0.kdf.cpus", "is missing")),
        ("argon2 with another member for salt", |v| { remove(v, "/keyslots/0/kdf", "salt"); set(v, "/keyslots/0/kdf/x", json!(1)); }, not_understood("keyslots.0.kdf.salt", "is missing")),
        ("pbkdf2 with another member for hash", |v| { remove(v, "/keyslots/1/kdf", "hash"); set(v, "/keyslots/1/kdf/x", json!(1)); }, not_understood("keyslots.1.kdf.hash", "is missing")),
        ("pbkdf2 with another member for iterations", |v| { remove(v, "/keyslots/1/kdf", "iterations"); set(v, "/keyslots/1/kdf/x", json!(1)); }, not_understood("keyslots.1.kdf.iterations", "is missing")),
        ("pbkdf2 with another member for salt", |v| { remove(v, "/keyslots/1/kdf", "salt"); set(v, "/keyslots/1/kdf/x", json!(1)); }, not_understood("keyslots.1.kdf.salt", "is missing")),
        ("kdf unknown", |v| set(v, "/keyslots/0/kdf/type", json!("scrypt")), unsupported("keyslots.0.kdf.type", "unknown KDF")),
        ("argon2d", |v| set(v, "/keyslots/0/kdf/type", json!("argon2d")), unsupported("keyslots.0.kdf.type", "unknown KDF")),
        ("argon2 time 0", |v| set(v, "/keyslots/0/kdf/time", json!(0)), not_understood("keyslots.0.kdf.time", "is 0")),
        ("argon2 time over 32 bits", |v| set(v, "/keyslots/0/kdf/time", json!(4294967296_u64)), not_understood("keyslots.0.kdf.time", "is not an integer")),
        ("argon2 memory 0", |v| set(v, "/keyslots/0/kdf/memory", json!(0)), not_understood("keyslots.0.kdf.memory", "is 0")),
        ("argon2 memory over 32 bits", |v| set(v, "/keyslots/0/kdf/memory", json!(4294967296_u64)), not_understood("keyslots.0.kdf.memory", "is not an integer")),
        ("argon2 cpus 0", |v| set(v, "/keyslots/0/kdf/cpus", json!(0)), not_understood("keyslots.0.kdf.cpus", "is 0")),
        ("argon2 cpus over 32 bits", |v| set(v, "/keyslots/0/kdf/cpus", json!(4294967296_u64)), not_understood("keyslots.0.kdf.cpus", "is not an integer")),
        ("argon2 memory under the lanes", |v| set(v, "/keyslots/0/kdf/memory", json!(31)), not_understood("keyslots.0.kdf.memory", "less than 8 for each of 4 lanes")),
        ("pbkdf2 iterations 0", |v| set(v, "/keyslots/1/kdf/iterations", json!(0)), not_understood("keyslots.1.kdf.iterations", "is 0")),
        ("pbkdf2 iterations over 32 bits", |v| set(v, "/keyslots/1/kdf/iterations", json!(4294967296_u64)), not_understood("keyslots.1.kdf.iterations", "is not an integer")),
        ("pbkdf2 hash unknown", |v| set(v, "/keyslots/1/kdf/hash", json!("sha0")), unsupported("keyslots.1.kdf.hash", "unknown hash")),
        ("keyslots.0.kdf.salt of 31 bytes", |v| set(v, "/keyslots/0/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")), not_understood("keyslots.0.kdf.salt", "31 bytes instead of 32")),
        ("keyslots.0.kdf.salt of 33 bytes", |v| set(v, "/keyslots/0/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), not_understood("keyslots.0.kdf.salt", "33 bytes instead of 32")),
        ("keyslots.0.kdf.salt empty", |v| set(v, "/keyslots/0/kdf/salt", json!("")), not_understood("keyslots.0.kdf.salt", "0 bytes instead of 32")),
        ("keyslots.0.kdf.salt not base64", |v| set(v, "/keyslots/0/kdf/salt", json!("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")), not_understood("keyslots.0.kdf.salt", "is not base64")),
        ("keyslots.0.kdf.salt without padding", |v| set(v, "/keyslots/0/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), not_understood("keyslots.0.kdf.salt", "is not base64")),
        ("keyslots.0.kdf.salt with a line break", |v| set(v, "/keyslots/0/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")), not_understood("keyslots.0.kdf.salt", "is not base64")),
        ("keyslots.0.kdf.salt a number", |v| set(v, "/keyslots/0/kdf/salt", json!(7)), not_understood("keyslots.0.kdf.salt", "is not a string")),
        ("keyslots.1.kdf.salt of 31 bytes", |v| set(v, "/keyslots/1/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")), not_understood("keyslots.1.kdf.salt", "31 bytes instead of 32")),
        ("keyslots.1.kdf.salt of 33 bytes", |v| set(v, "/keyslots/1/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), not_understood("keyslots.1.kdf.salt", "33 bytes instead of 32")),
        ("keyslots.1.kdf.salt empty", |v| set(v, "/keyslots/1/kdf/salt", json!("")), not_understood("keyslots.1.kdf.salt", "0 bytes instead of 32")),
        ("keyslots.1.kdf.salt not base64", |v| set(v, "/keyslots/1/kdf/salt", json!("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")), not_understood("keyslots.1.kdf.salt", "is not base64")),
        ("keyslots.1.kdf.salt without padding", |v| set(v, "/keyslots/1/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), not_understood("keyslots.1.kdf.salt", "is not base64")),
        ("keyslots.1.kdf.salt with a line break", |v| set(v, "/keyslots/1/kdf/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")), not_understood("keyslots.1.kdf.salt", "is not base64")),
        ("keyslots.1.kdf.salt a number", |v| set(v, "/keyslots/1/kdf/salt", json!(7)), not_understood("keyslots.1.kdf.salt", "is not a string")),
        ("digests.0.salt of 31 bytes", |v| set(v, "/digests/0/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")), not_understood("digests.0.salt", "31 bytes instead of 32")),
        ("digests.0.salt of 33 bytes", |v| set(v, "/digests/0/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), not_understood("digests.0.salt", "33 bytes instead of 32")),
        ("digests.0.salt empty", |v| set(v, "/digests/0/salt", json!("")), not_understood("digests.0.salt", "0 bytes instead of 32")),
        ("digests.0.salt not base64", |v| set(v, "/digests/0/salt", json!("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")), not_understood("digests.0.salt", "is not base64")),
        ("digests.0.salt without padding", |v| set(v, "/digests/0/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), not_understood("digests.0.salt", "is not base64")),
        ("digests.0.salt with a line break", |v| set(v, "/digests/0/salt", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")), not_understood("digests.0.salt", "is not base64")),
        ("digests.0.salt a number", |v| set(v, "/digests/0/salt", json!(7)), not_understood("digests.0.salt", "is not a string")),
        ("digest without type", |v| remove(v, "/digests/0", "type"), not_understood("digests.0.type", "is missing")),
        ("digest without keyslots", |v| remove(v, "/digests/0", "keyslots"), not_understood("digests.0.keyslots", "is missing")),
        ("digest without segments", |v| remove(v, "/digests/0", "segments"), not_understood("digests.0.segments", "is missing")),
        ("digest without hash", |v| remove(v, "/digests/0", "hash"), not_understood("digests.0.hash", "is missing")),
        ("digest without iterations", |v| remove(v, "/digests/0", "iterations"), not_understood("digests.0.iterations", "is missing")),
        ("digest without salt", |v| remove(v, "/digests/0", "salt"), not_understood("digests.0.salt", "is missing")),
        ("digest without digest", |v| remove(v, "/digests/0", "digest"), not_understood("digests.0.digest", "is missing")),
        ("digest type unknown", |v| set(v, "/digests/0/type", json!("argon2id")), unsupported("digests.0.type", "known is pbkdf2")),
        ("digest hash unknown", |v| set(v, "/digests/0/hash", json!("md5")), unsupported("digests.0.hash", "unknown hash")),
        ("digest iterations 0", |v| set(v, "/digests/0/iterations", json!(0)), not_understood("digests.0.iterations", "is 0")),
        ("digest of 31 bytes", |v| set(v, "/digests/0/digest", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==")), not_understood("digests.0.digest", "31 bytes instead of 20 or 32")),
        ("digest empty", |v| set(v, "/digests/0/digest", json!("")), not_understood("digests.0.digest", "0 bytes")),
        ("digest not base64", |v| set(v, "/digests/0/digest", json!("*")), not_understood("digests.0.digest", "is not base64")),
        ("digest of another hash's length", |v| set(v, "/digests/0/hash", json!("sha512")), not_understood("digests.0.digest", "32 bytes instead of 20 or 64")),
        ("digest for a keyslot that is not there", |v| set(v, "/digests/0/keyslots", json!(["0", "1", "9"])), not_understood("digests.0.keyslots.2", "there is no keyslot 9")),
        ("digest for a segment that is not there", |v| set(v, "/digests/0/segments", json!(["0", "1"])), not_understood("digests.0.segments.1", "there is no segment 1")),
        ("digest's keyslot a number", |v| set(v, "/digests/0/keyslots", json!([0, 1])), not_understood("digests.0.keyslots.0", "is not a string")),
        ("digest's keyslot a word", |v| set(v, "/digests/0/keyslots", json!(["0", "x"])), not_understood("digests.0.keyslots.1", "is not a number")),
        ("digest's keyslot with a leading zero", |v| set(v, "/digests/0/keyslots", json!(["00", "1"])), not_understood("digests.0.keyslots.0", "is not a number")),
        ("digest's keyslots no array", |v| set(v, "/digests/0/keyslots", json!({})), not_understood("digests.0.keyslots", "is not an array")),
        ("keyslot with no digest", |v| set(v, "/digests/0/keyslots", json!(["0"])), not_understood("keyslots.1", "belongs to no digest")),
        ("unbound keyslot with no digest", |v| remove(v, "/digests", "1"), not_understood("keyslots.2", "belongs to no digest")),
        ("keyslot with two digests", |v| set(v, "/digests/1/keyslots", json!(["2", "0"])), not_understood("keyslots.0", "belongs to 2 digests")),
        ("encrypted segment with no digest", |v| set(v, "/digests/0/segments", json!([])), not_understood("segments.0", "belongs to no digest")),
        ("segment with two digests", |v| set(v, "/digests/1/segments", json!(["0"])), not_understood("segments.0", "belongs to 2 digests")),
        ("token without type", |v| remove(v, "/tokens/1", "type"), not_understood("tokens.1.type", "is missing")),
        ("token type a number", |v| set(v, "/tokens/1/type", json!(1)), not_understood("tokens.1.type", "is not a string")),
        ("token without keyslots", |v| remove(v, "/tokens/1", "keyslots"), not_understood("tokens.1.keyslots", "is missing")),
        ("token for a keyslot that is not there", |v| set(v, "/tokens/0/keyslots", json!(["1", "3"])), not_understood("tokens.0.keyslots.1", "there is no keyslot 3")),
        ("token's keyslot a number", |v| set(v, "/tokens/0/keyslots", json!([1])), not_understood("tokens.0.keyslots.0", "is not a string")),
        ("no segment", |v| { set(v, "/segments", json!({})); set(v, "/digests/0/segments", json!([])); }, not_understood("segments", "no segment that maps data")),
        ("segment without type", |v| remove(v, "/segments/0", "type"), not_understood("segments.0.type", "is missing")),
        ("segment without offset", |v| remove(v, "/segments/0", "offset"), not_understood("segments.0.offset", "is missing")),
        ("segment without size", |v| remove(v, "/segments/0", "size"), not_understood("segments.0.size", "is missing")),
        ("segment without iv_tweak", |v| remove(v, "/segments/0", "iv_tweak"), not_understood("segments.0.iv_tweak", "is missing")),
        ("segment without encryption", |v| remove(v, "/segments/0", "encryption"), not_understood("segments.0.encryption", "is missing")),
        ("segment without sector_size", |v| remove(v, "/segments/0", "sector_size"), not_understood("segments.0.sector_size", "is missing")),
        ("segment in the header", |v| set(v, "/segments/0/offset", json!("4096")), not_understood("segments.0.offset", "overlaps the metadata")),
        ("segment in the keyslots area", |v| set(v, "/segments/0/offset", json!("16776704")), not_understood("segments.0.offset", "overlaps the metadata")),
        ("segment unaligned", |v| set(v, "/segments/0/offset", json!("16777217")), not_understood("segments.0.offset", "multiple of 512")),
        ("segment size 0", |v| set(v, "/segments/0/size", json!("0")), not_understood("segments.0.size", "is empty")),
        ("segment size unaligned", |v| set(v, "/segments/0/size", json!("1000")), not_understood("segments.0.size", "multiple of 512")),
        ("segment size no multiple of its sectors", |v| set(v, "/segments/0/size", json!("4608")), not_understood("segments.0.size", "sector size 4096")),
        ("segment size a number", |v| set(v, "/segments/0/size", json!(4096)), not_understood("segments.0.size", "is not a string")),
        ("segment size a word", |v| set(v, "/segments/0/size", json!("Dynamic")), not_understood("segments.0.size", "is not a decimal number")),
        ("segment that overflows", |v| set(v, "/segments/0/size", json!("18446744073709547520")), not_understood("segments.0.size", "over 64 bits")),
        ("iv_tweak a number", |v| set(v, "/segments/0/iv_tweak", json!(0)), not_understood("segments.0.iv_tweak", "is not a string")),
        ("iv_tweak negative", |v| set(v, "/segments/0/iv_tweak", json!("-1")), not_understood("segments.0.iv_tweak", "is not a decimal number")),
        ("sector size 0", |v| set(v, "/segments/0/sector_size", json!(0)), not_understood("segments.0.sector_size", "0 is not a sector size")),
        ("sector size 256", |v| set(v, "/segments/0/sector_size", json!(256)), not_understood("segments.0.sector_size", "256 is not a sector size")),
        ("sector size 513", |v| set(v, "/segments/0/sector_size", json!(513)), not_understood("segments.0.sector_size", "513 is not a sector size")),
        ("sector size 8192", |v| set(v, "/segments/0/sector_size", json!(8192)), not_understood("segments.0.sector_size", "8192 is not a sector size")),
        ("sector size 3072", |v| set(v, "/segments/0/sector_size", json!(3072)), not_understood("segments.0.sector_size", "3072 is not a sector size")),
        ("segment null cipher", |v| set(v, "/segments/0/encryption", json!("cipher_null-ecb")), unsupported("segments.0.encryption", "CVE-2025-59054")),
        ("segment driver name", |v| set(v, "/segments/0/encryption", json!("capi:xts(aes)-plain64")), unsupported("segments.0.encryption", "kernel driver")),
        ("segment unknown cipher", |v| set(v, "/segments/0/encryption", json!("aes-xts-random")), unsupported("segments.0.encryption", "unknown cipher")),
        ("segment cipher without such a key", |v| set(v, "/segments/0/encryption", json!("aes-cbc-plain64")), not_understood("keyslots.0.key_size", "no keys of 64 bytes")),
        ("integrity by another hash", |v| set(v, "/segments/0/integrity", json!({"type": "hmac(sha1)", "journal_encryption": "none", "journal_integrity": "none"})), unsupported("segments.0.integrity", "is not supported")),
        ("integrity with another cipher", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/encryption", json!("aes-gcm-plain64")); }, unsupported("segments.0.integrity", "is not supported")),
        ("integrity without a type", |v| set(v, "/segments/0/integrity", json!({"journal_encryption": "none", "journal_integrity": "none"})), not_understood("segments.0.integrity.type", "is missing")),
        ("integrity no object", |v| set(v, "/segments/0/integrity", json!("aead")), not_understood("segments.0.integrity", "is not an object")),
        ("a journal that is encrypted", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/integrity/journal_encryption", json!("ctr(aes)")); }, unsupported("segments.0.integrity.journal_encryption", "not none")),
        ("a journal with codes", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/integrity/journal_integrity", json!("hmac(sha256)")); }, unsupported("segments.0.integrity.journal_integrity", "not none")),
        ("another key size of integrity", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/integrity/key_size", json!(20)); }, unsupported("segments.0.integrity.key_size", "only of 32")),
        ("integrity of a fixed size", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/size", json!("8192")); }, unsupported("segments.0.size", "fixed size")),
        ("integrity with a tweak", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/iv_tweak", json!("8")); }, unsupported("segments.0.iv_tweak", "begin at 0")),
        ("integrity with odd sectors", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/sector_size", json!(256)); }, not_understood("segments.0.sector_size", "256 is not")),
        ("integrity without such a key", |v| { set(v, "/segments/0/integrity", json!({"type": "aead", "journal_encryption": "none", "journal_integrity": "none"})); set(v, "/segments/0/encryption", json!("aes-gcm-random")); }, not_understood("keyslots.0.key_size", "no keys of 64 bytes")),
        ("segment flags no array", |v| set(v, "/segments/0/flags", json!("backup-final")), not_understood("segments.0.flags", "is not an array")),
        ("segment flags of numbers", |v| set(v, "/segments/0/flags", json!([1])), not_understood("segments.0.flags.0", "is not a string")),
        ("a gap before the first segment", |v| { copy(v, "/segments", "0", "1"); remove(v, "/segments", "0"); set(v, "/digests/0/segments", json!(["1"])); }, not_understood("segments", "no segment 0")),
        ("a gap between segments", |v| { copy(v, "/segments", "0", "2"); set(v, "/segments/0/size", json!("4096")); set(v, "/digests/0/segments", json!(["0", "2"])); }, not_understood("segments", "no segment 1")),
        ("only backup segments", |v| set(v, "/segments/0/flags", json!(["backup-final"])), not_understood("segments", "no segment that maps data")),
        ("a segment behind a dynamic one", |v| { copy(v, "/segments", "0", "1"); set(v, "/digests/0/segments", json!(["0", "1"])); }, not_understood("segments.0.size", "only the last")),
        ("two segments at the same place", |v| { copy(v, "/segments", "0", "1"); set(v, "/digests/0/segments", json!(["0", "1"])); set(v, "/segments/0/size", json!("8192")); }, not_understood("segments.1.offset", "overlaps segment 0")),
        ("one block into another segment", |v| { copy(v, "/segments", "0", "1"); set(v, "/digests/0/segments", json!(["0", "1"])); set(v, "/segments/0/size", json!("8192")); set(v, "/segments/1/offset", json!("16781312")); }, not_understood("segments.1.offset", "overlaps segment 0")),
        ("a backup segment before a regular one", |v| { copy(v, "/segments", "0", "1"); set(v, "/digests/0/segments", json!(["0", "1"])); set(v, "/segments/0/flags", json!(["backup-previous"])); }, not_understood("segments.1", "after a backup segment")),
        ("a backup segment that overflows", |v| { copy(v, "/segments", "0", "1"); set(v, "/digests/0/segments", json!(["0", "1"])); set(v, "/segments/1/flags", json!(["backup-final"])); set(v, "/segments/1/size", json!("18446744073709547520")); }, not_understood("segments.1.size", "over 64 bits")),
        ("requirement without its keyslot", |v| set(v, "/config/requirements", json!({"mandatory": ["online-reencrypt-v2"]})), not_understood("config.requirements.mandatory", "no reencrypt keyslot")),
        ("reencrypt keyslot without its requirement", |v| { reencrypting(v); remove(v, "/config", "requirements"); }, not_understood("keyslots.3.type", "without the requirement")),
        ("two reencrypt keyslots", |v| { reencrypting(v); copy(v, "/keyslots", "3", "4"); set(v, "/keyslots/4/area/offset", json!("8388608")); }, not_understood("keyslots.4.type", "second reencrypt keyslot")),
        ("reencrypt area over another", |v| { reencrypting(v); set(v, "/keyslots/3/area/offset", json!("32768")); }, not_understood("keyslots.3.area.offset", "overlaps that of keyslot 0")),
        ("reencrypt area out of bounds", |v| { reencrypting(v); set(v, "/keyslots/3/area/size", json!("16777216")); }, not_understood("keyslots.3.area.offset", "outside")),
        ("reencrypt without mode", |v| { reencrypting(v); remove(v, "/keyslots/3", "mode"); }, not_understood("keyslots.3.mode", "is missing")),
        ("reencrypt without direction", |v| { reencrypting(v); remove(v, "/keyslots/3", "direction"); }, not_understood("keyslots.3.direction", "is missing")),
        ("reencrypt without key_size", |v| { reencrypting(v); remove(v, "/keyslots/3", "key_size"); }, not_understood("keyslots.3.key_size", "is missing")),
        ("reencrypt mode unknown", |v| { reencrypting(v); set(v, "/keyslots/3/mode", json!("x")); }, not_understood("keyslots.3.mode", "unknown mode")),
        ("reencrypt direction unknown", |v| { reencrypting(v); set(v, "/keyslots/3/direction", json!("up")); }, not_understood("keyslots.3.direction", "unknown direction")),
        ("reencrypt resilience unknown", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("raw")); }, unsupported("keyslots.3.area.type", "unknown resilience")),
        ("reencrypt checksum without hash", |v| { reencrypting(v); remove(v, "/keyslots/3/area", "hash"); }, not_understood("keyslots.3.area.hash", "is missing")),
        ("reencrypt checksum of no power of two", |v| { reencrypting(v); set(v, "/keyslots/3/area/sector_size", json!(1536)); }, not_understood("keyslots.3.area.sector_size", "power of two")),
        ("reencrypt checksum of small sectors", |v| { reencrypting(v); set(v, "/keyslots/3/area/sector_size", json!(256)); }, not_understood("keyslots.3.area.sector_size", "power of two")),
        ("reencrypt datashift without shift", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("datashift")); }, not_understood("keyslots.3.area.shift_size", "is missing")),
        ("reencrypt datashift unaligned", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("datashift-journal")); set(v, "/keyslots/3/area/shift_size", json!("1000")); }, not_understood("keyslots.3.area.shift_size", "multiple of 512")),
        ("reencrypt keyslot with two digests", |v| { reencrypting(v); set(v, "/digests/1/keyslots", json!(["2", "3"])); }, not_understood("keyslots.3", "belongs to 2 digests")),
        ("unknown keyslot type without area", |v| { other(v); remove(v, "/keyslots/3", "area"); }, not_understood("keyslots.3.area", "is missing")),
        ("unknown keyslot type over another's area", |v| { other(v); set(v, "/keyslots/3/area/offset", json!("32768")); }, not_understood("keyslots.3.area.offset", "overlaps that of keyslot 0")),
        ("unknown keyslot type in the data", |v| { other(v); set(v, "/keyslots/3/area/offset", json!("16777216")); }, not_understood("keyslots.3.area.offset", "outside")),
    ]
}

#[rustfmt::skip]
fn neighbours() -> Vec<(&'static str, Change)> {
    vec![
        ("untouched", |v| _ = v),
        ("unknown members everywhere", |v| { for place in ["", "/config", "/keyslots/0", "/keyslots/0/area", "/keyslots/0/af", "/segments/0", "/digests/0", "/tokens/1"] { set(v, &format!("{place}/unknown"), json!({"a": [1.5, null, "\u{1}"]})); }; }),
        ("empty tokens", |v| set(v, "/tokens", json!({}))),
        ("flags, known or not", |v| set(v, "/config/flags", json!(["allow-discards", "no-such-flag", "high_priority"]))),
        ("an unknown requirement", |v| set(v, "/config/requirements", json!({"mandatory": ["no-such-thing"]}))),
        ("requirements without mandatory", |v| set(v, "/config/requirements", json!({}))),
        ("offline reencryption", |v| set(v, "/config/requirements", json!({"mandatory": ["offline-reencrypt"]}))),
        ("priority 0", |v| set(v, "/keyslots/0/priority", json!(0))),
        ("priority 1", |v| set(v, "/keyslots/0/priority", json!(1))),
        ("priority 2", |v| set(v, "/keyslots/0/priority", json!(2))),
        ("costs of all bits", |v| { set(v, "/keyslots/0/kdf/time", json!(4294967295_u64)); set(v, "/keyslots/0/kdf/memory", json!(4294967295_u64)); set(v, "/keyslots/1/kdf/iterations", json!(4294967295_u64)); }),
        ("a short digest", |v| set(v, "/digests/0/digest", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAA="))),
        ("argon2i", |v| set(v, "/keyslots/0/kdf/type", json!("argon2i"))),
        ("32-byte keys", |v| { set(v, "/keyslots/0/key_size", json!(32)); set(v, "/keyslots/1/key_size", json!(32)); }),
        ("hash in capitals", |v| set(v, "/keyslots/0/af/hash", json!("SHA256"))),
        ("detached", |v| set(v, "/segments/0/offset", json!("0"))),
        ("iv_tweak of all bits", |v| set(v, "/segments/0/iv_tweak", json!("18446744073709551615"))),
        ("sector size 512", |v| set(v, "/segments/0/sector_size", json!(512))),
        ("sector size 1024", |v| set(v, "/segments/0/sector_size", json!(1024))),
        ("sector size 2048", |v| set(v, "/segments/0/sector_size", json!(2048))),
        ("fixed size", |v| set(v, "/segments/0/size", json!("4096"))),
        ("a segment up to the last byte", |v| set(v, "/segments/0/size", json!("18446744073692770304"))),
        ("an unknown segment flag", |v| set(v, "/segments/0/flags", json!(["x"]))),
        ("an unknown segment type", |v| set(v, "/segments/0/type", json!("hw-opal"))),
        ("a linear segment", |v| { set(v, "/segments/0", json!({"type": "linear", "offset": "16777216", "size": "dynamic"})); set(v, "/digests/0/segments", json!([])); }),
        ("two segments side by side", |v| { copy(v, "/segments", "0", "1"); set(v, "/digests/0/segments", json!(["0", "1"])); set(v, "/segments/0/size", json!("8192")); set(v, "/segments/1/offset", json!("16785408")); }),
        ("area up to the end of the keyslots area", |v| set(v, "/keyslots/1/area/offset", json!("16519168"))),
        ("areas side by side in another order", |v| { set(v, "/keyslots/0/area/offset", json!("290816")); set(v, "/keyslots/1/area/offset", json!("32768")); }),
        ("reencryption", |v| reencrypting(v)),
        ("reencryption with none", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("none")); }),
        ("reencryption with journal", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("journal")); }),
        ("reencryption with datashift", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("datashift")); set(v, "/keyslots/3/area/shift_size", json!("4096")); }),
        ("reencryption with datashift-journal", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("datashift-journal")); set(v, "/keyslots/3/area/shift_size", json!("4096")); }),
        ("reencryption with datashift-checksum", |v| { reencrypting(v); set(v, "/keyslots/3/area/type", json!("datashift-checksum")); set(v, "/keyslots/3/area/shift_size", json!("4096")); }),
        ("reencryption backward", |v| { reencrypting(v); set(v, "/keyslots/3/direction", json!("backward")); }),
        ("reencryption to encrypt", |v| { reencrypting(v); set(v, "/keyslots/3/mode", json!("encrypt")); }),
        ("reencryption to decrypt", |v| { reencrypting(v); set(v, "/keyslots/3/mode", json!("decrypt")); }),
        ("integrity", |v| set(v, "/segments/0/integrity", tags())),
        ("integrity with a key size", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/integrity/key_size", json!(32)); }),
        ("integrity with random IVs", |v| { set(v, "/segments/0/integrity", tags()); set(v, "/segments/0/encryption", json!("aes-xts-random")); }),
        ("an unknown keyslot type", |v| other(v)),
        ("number with leading zero", |v| set(v, "/segments/0/offset", json!("016777216"))),
        ("token number too high", |v| copy(v, "/tokens", "0", "32")),
        ("33 tokens", |v| { for id in 2..33 { copy(v, "/tokens", "0", &id.to_string()); }; }),
        ("priority 3", |v| set(v, "/keyslots/0/priority", json!(3))),
        ("priority a string", |v| set(v, "/keyslots/0/priority", json!("2"))),
        ("argon2 with one member more", |v| set(v, "/keyslots/0/kdf/x", json!(1))),
        ("pbkdf2 with one member more", |v| set(v, "/keyslots/1/kdf/x", json!(1))),
        ("digest's keyslot twice", |v| set(v, "/digests/0/keyslots", json!(["0", "1", "0"]))),
        ("members of argon2 left in pbkdf2", |v| { set(v, "/keyslots/1/kdf/time", json!(4)); set(v, "/keyslots/1/kdf/memory", json!(32)); set(v, "/keyslots/1/kdf/cpus", json!(1)); }),
        ("members of pbkdf2 left in argon2", |v| { set(v, "/keyslots/0/kdf/iterations", json!(1000)); set(v, "/keyslots/0/kdf/hash", json!("sha256")); }),
        ("digest's segment twice", |v| set(v, "/digests/0/segments", json!(["0", "0"]))),
        ("token's keyslot twice", |v| set(v, "/tokens/0/keyslots", json!(["1", "1"]))),
        ("priority negative", |v| set(v, "/keyslots/0/priority", json!(-1))),
        ("token number with a leading zero", |v| copy(v, "/tokens", "1", "00")),
        ("a requirement twice", |v| set(v, "/config/requirements", json!({"mandatory": ["x", "x"]}))),
        ("32 tokens", |v| { for id in 2..32 { copy(v, "/tokens", "1", &id.to_string()); }; }),
    ]
}

#[test]
fn each_change_is_refused_for_its_own_reason() {
    for (name, change, expected) in evil() {
        let (copy, json) = changed(change);
        let error = judge(name, expected, || parse_usable(&copy)).unwrap_err();
        assert_placed(name, &copy, &json, &error);
    }
}

#[test]
fn good_neighbours_pass_and_are_kept_as_they_are() {
    for (name, change) in neighbours() {
        let (copy, json) = changed(change);
        let header = judge(name, Verdict::Good, || parse_usable(&copy)).unwrap();
        assert_eq!(header.json(), &json, "{name}");
        assert_eq!(bytes_of(&header), copy, "{name}");
    }
}

/// Only what cannot be used is refused, and the rest is shown: such an object is kept, the others
/// are as they were, and an edit of another one leaves it as it is.
#[test]
fn what_is_only_needed_to_open_is_kept() {
    let changes: [(&str, Change); 12] = [
        ("keyslots.0.kdf.type", |v| {
            set(v, "/keyslots/0/kdf/type", json!("scrypt"))
        }),
        ("keyslots.0.kdf.salt", |v| {
            set(v, "/keyslots/0/kdf/salt", json!("AA=="))
        }),
        ("keyslots.0.af.hash", |v| {
            set(v, "/keyslots/0/af/hash", json!("md5"))
        }),
        ("keyslots.0.area.encryption", |v| {
            set(v, "/keyslots/0/area/encryption", json!("a"))
        }),
        ("keyslots.0.area.type", |v| {
            set(v, "/keyslots/0/area/type", json!("cooked"))
        }),
        ("keyslots.0.key_size", |v| {
            set(v, "/keyslots/0/key_size", json!(0))
        }),
        ("keyslots.3.area.type", |v| {
            reencrypting(v);
            set(v, "/keyslots/3/area/type", json!("x"));
        }),
        ("digests.0.type", |v| {
            set(v, "/digests/0/type", json!("new"))
        }),
        ("digests.0.iterations", |v| {
            set(v, "/digests/0/iterations", json!(0))
        }),
        ("segments.0.encryption", |v| {
            set(v, "/segments/0/encryption", json!("a"))
        }),
        ("segments.0.integrity", |v| {
            set(
                v,
                "/segments/0/integrity",
                json!({"type": "x", "journal_encryption": "none", "journal_integrity": "none"}),
            )
        }),
        ("segments.0", |v| {
            set(v, "/digests/1/segments", json!(["0"]))
        }),
    ];
    for (field, change) in changes {
        let (copy, json) = changed(change);
        let header = parse(&copy).unwrap_or_else(|error| panic!("{field}: {error}"));
        let refused = header.metadata.not_understood().collect::<Vec<_>>();
        assert_eq!(refused.len(), 1, "{field}: {refused:?}");
        assert_eq!(refused[0].field, field);
        assert_ne!(refused[0].kind, Kind::Malformed, "{field}");
        assert_eq!(bytes_of(&header), copy, "{field}");

        let mut metadata = header.metadata.clone();
        metadata
            .set_token(9, json!({"type": "own", "keyslots": []}))
            .unwrap();
        metadata.remove_token(9).unwrap();
        assert_eq!(metadata.value(), &json, "{field}");
        // A change that makes it worse is refused.
        let no_iterations = Kdf::Pbkdf2 {
            hash: Hash::Sha256,
            iterations: 0,
            salt: vec![0; 32],
        };
        let worse = keyslot(32768 + 258_048, no_iterations);
        let error = metadata.set_keyslot(1, &worse);
        assert!(error.is_err(), "{field}");
    }
}

/// A byte that is not UTF-8, in a token and in the label, is in the header that is written again.
#[test]
fn bytes_that_are_not_utf8_are_kept() {
    let mut copy = bytes_of(&good());
    let text = json_of(&copy).to_string().replacen("\"z\"", "\"z~\"", 1);
    let text = text.replacen("null", "NaN", 1).into_bytes();
    let bad: Vec<u8> = text
        .iter()
        .map(|&b| if b == b'~' { 0xff } else { b })
        .collect();
    put_text(&mut copy, &bad);
    copy[24] = 0xfe;
    seal(&mut copy);
    let mut header = parse_usable(&copy).unwrap();
    assert_eq!(bytes_of(&header), copy);
    header.metadata.set_priority(0, Priority::Prefer).unwrap();
    header.metadata.set_priority(0, Priority::Normal).unwrap();
    assert_eq!(bytes_of(&header), copy);
}

/// No two cases are the same, and no hostile case equals a good one.
#[test]
fn the_tables_repeat_nothing() {
    let mut seen = std::collections::HashMap::new();
    let all = evil()
        .into_iter()
        .map(|(name, change, _)| (name, change))
        .chain(neighbours());
    for (name, change) in all {
        let (copy, _) = changed(change);
        if let Some(other) = seen.insert(copy, name) {
            panic!("{name} is the same as {other}");
        }
    }
}

fn changed(change: Change) -> (Vec<u8>, Value) {
    let mut copy = bytes_of(&good());
    let mut json = json_of(&copy);
    change(&mut json);
    let text = json.to_string();
    if text.len() >= copy.len() - 4096 {
        // Too large for the smallest header, so it is tried in a larger one.
        copy = bytes_of(&with_size(64 << 10));
        json = json_of(&copy);
        change(&mut json);
    }
    put_text(&mut copy, json.to_string().as_bytes());
    seal(&mut copy);
    (copy, json)
}

/// The offset in an error is that of the value which the field names, or of the innermost existing
/// object.
fn assert_placed(name: &str, copy: &[u8], json: &Value, error: &FormatError) {
    let mut value = json;
    for key in error.field.split('.') {
        let below = match value {
            Value::Object(object) => object.get(key),
            Value::Array(array) => key.parse().ok().and_then(|index: usize| array.get(index)),
            _ => None,
        };
        value = match below {
            Some(below) => below,
            None => break,
        };
    }
    let place = usize::try_from(error.offset).unwrap();
    assert!(
        copy[place..].starts_with(value.to_string().as_bytes()),
        "{name}: {error}"
    );
}

/// The member `integrity` of a segment, as cryptsetup writes it.
fn tags() -> Value {
    json!({"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"})
}

fn set(json: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .insert(key, value);
}

fn remove(json: &mut Value, pointer: &str, key: &str) {
    json.pointer_mut(pointer)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(key)
        .unwrap();
}

fn copy(json: &mut Value, section: &str, from: &str, to: &str) {
    let object = json.pointer(section).unwrap()[from].clone();
    set(json, &format!("{section}/{to}"), object);
}

/// A reencryption in progress, as cryptsetup writes it.
fn reencrypting(json: &mut Value) {
    set(
        json,
        "/config/requirements",
        json!({"mandatory": ["online-reencrypt-v2"]}),
    );
    let area = json!({"offset": "1048576", "size": "1048576", "type": "checksum", "hash": "sha256", "sector_size": 4096});
    let keyslot = json!({"area": area, "type": "reencrypt", "key_size": 1, "mode": "reencrypt", "direction": "forward", "priority": 0});
    set(json, "/keyslots/3", keyslot);
    copy(json, "/segments", "0", "1");
    copy(json, "/segments", "0", "2");
    set(json, "/segments/1/flags", json!(["backup-previous"]));
    set(json, "/segments/2/flags", json!(["backup-final"]));
    set(json, "/digests/0/segments", json!(["0", "1", "2"]));
    copy(json, "/digests", "1", "2");
    set(json, "/digests/2/keyslots", json!(["3"]));
}

/// A keyslot of unknown type.
fn other(json: &mut Value) {
    let area = json!({"type": "new", "offset": "1048576", "size": "4096"});
    set(
        json,
        "/keyslots/3",
        json!({"type": "new", "key_size": 1, "area": area}),
    );
}

mod edits;
