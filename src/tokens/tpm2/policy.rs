//! The hash of a policy of PCRs and a PIN, as a TPM computes it for a session.
//!
//! Reference: TPM 2.0 Library, part 3, sections 23.7 (TPM2_PolicyPCR) and 23.17
//! (TPM2_PolicyAuthValue).

use super::crypto::{HASH, sha256};
use super::pcrs::{Bank, Pcrs};
use super::wire::Command;

/// The hash of the policy that these PCRs have these values, in ascending order of their numbers,
/// and that the authorization value of the object is known, if it has a PIN.
pub(super) fn hash<'a>(
    pcrs: Pcrs,
    bank: Bank,
    values: impl Iterator<Item = &'a Vec<u8>>,
    pin: bool,
) -> [u8; HASH] {
    let mut policy = [0; HASH];
    if !pcrs.is_empty() {
        let values: Vec<_> = values.map(Vec::as_slice).collect();
        let code = Command::PolicyPcr.code().to_be_bytes();
        policy = sha256(&[&policy, &code, &pcrs.selection(bank), &sha256(&values)]);
    }
    if pin {
        let code = Command::PolicyAuthValue.code().to_be_bytes();
        policy = sha256(&[&policy, &code]);
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_those_of_a_tpm() {
        let none = Pcrs::default();
        let zeros = [vec![0; 32]];
        // `tpm2_policyauthvalue`, and `tpm2_policypcr -l sha256:7` of a TPM without measurements.
        for (pcrs, pin, expected) in [
            (
                none,
                false,
                "0000000000000000000000000000000000000000000000000000000000000000",
            ),
            (
                none,
                true,
                "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e",
            ),
            (
                "7".parse().unwrap(),
                false,
                "8b5682d81b29435d08d79278150611dc7e5923b2fefcce684a09577b40130a8b",
            ),
            (
                "7".parse().unwrap(),
                true,
                "b8db92fae7c1e0c588e7352d2fc10f27c7b384e32f706a520cb10bf7ffee8970",
            ),
        ] {
            let hash = hash(pcrs, Bank::Sha256, zeros.iter(), pin);
            assert_eq!(hex::encode(hash), expected);
        }
    }
}
