//! The keyslots of a LUKS1 volume that a running QEMU has open (`x-blockdev-amend` with `QCryptoBlockAmendOptionsLUKS`, QEMU 5.1 and
//! later). The guest goes on meanwhile. QEMU does not keep the volume key for this: it opens a keyslot once more, with the secret that it
//! was started with where nothing else is said.

use std::ops::Range;

use serde_json::{Value, json};

use super::nodes::all;
use super::{Monitor, Object, QmpError, Wrapped};

/// Why keyslots were not changed, or not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AmendError {
    /// The monitor did not do it.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// There is no such node, or it is none of LUKS.
    #[error("QEMU has no block node {0} with LUKS")]
    NotLuks(String),
}

/// The keyslots, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyslots {
    /// Those in use.
    pub active: Vec<u32>,
    /// How many there can be.
    pub total: u32,
}

/// Which keyslots go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone<'a> {
    /// The one of this number.
    Keyslot(u32),
    /// All that a passphrase opens.
    OpenedBy(&'a Wrapped),
}

/// The versions of QEMU that abort before the first byte of a header is read or written for this
/// (`bdrv_graph_rdlock_main_loop: Assertion '!qemu_in_coroutine()' failed`), from the one that brought it (QEMU's commit 1f051dcb) up to the
/// one that mended it (c86488ab, in 10.2.0 from the start).
const ABORTING: [Range<[u64; 3]>; 2] = [[8, 2, 0]..[10, 0, 7], [10, 1, 0]..[10, 1, 3]];

/// Whether this QEMU changes keyslots and lives on.
///
/// # Errors
/// [`QmpError::Aborts`] where it does not, and what the monitor says.
pub fn check_amend(qmp: &mut dyn Monitor) -> Result<(), QmpError> {
    let answer = qmp.execute("query-version", &json!({}))?;
    let part = |name| answer["qemu"][name].as_u64();
    let (Some(major), Some(minor), Some(micro)) = (part("major"), part("minor"), part("micro"))
    else {
        return Err(QmpError::Malformed("query-version".to_owned()));
    };
    if ABORTING
        .iter()
        .any(|range| range.contains(&[major, minor, micro]))
    {
        return Err(QmpError::Aborts(format!("{major}.{minor}.{micro}")));
    }
    Ok(())
}

/// The keyslots of a node, as QEMU has them in memory.
///
/// # Errors
/// [`AmendError`].
pub fn keyslots(qmp: &mut dyn Monitor, node: &str) -> Result<Keyslots, AmendError> {
    let nodes = all(qmp)?;
    let slots = nodes
        .iter()
        .find(|found| found["node-name"] == node && found["drv"] == "luks")
        .and_then(|found| found["image"]["format-specific"]["data"]["slots"].as_array())
        .ok_or_else(|| AmendError::NotLuks(node.to_owned()))?;
    let numbered = (0..).zip(slots);
    Ok(Keyslots {
        active: numbered
            .filter(|(_, slot)| slot["active"] == true)
            .map(|(number, _)| number)
            .collect(),
        total: u32::try_from(slots.len()).unwrap_or(u32::MAX),
    })
}

/// A passphrase that is to be put in.
#[derive(Debug, Clone, Copy)]
pub struct NewKeyslot<'a> {
    /// The passphrase.
    pub new: &'a Wrapped,
    /// One that opens the volume now, where that is no longer the one that QEMU was started with.
    pub existing: Option<&'a Wrapped>,
    /// Where; none is the first keyslot that is free.
    pub keyslot: Option<u32>,
    /// How many milliseconds opening it shall take; none is QEMU's own 2000.
    pub iter_time: Option<u32>,
}

/// Puts a new passphrase into a keyslot. `key` is the id of the master key that passphrases are wrapped with.
///
/// # Errors
/// [`QmpError`].
pub fn set(
    qmp: &mut dyn Monitor,
    node: &str,
    key: &str,
    keyslot: NewKeyslot<'_>,
) -> Result<(), QmpError> {
    with_secret(qmp, key, "new", keyslot.new, |qmp, new| {
        let mut options = json!({"driver": "luks", "state": "active", "new-secret": new});
        if let Some(number) = keyslot.keyslot {
            options["keyslot"] = json!(number);
        }
        if let Some(time) = keyslot.iter_time {
            options["iter-time"] = json!(time);
        }
        let Some(existing) = keyslot.existing else {
            return amend(qmp, node, options, false);
        };
        with_secret(qmp, key, "existing", existing, |qmp, existing| {
            options["secret"] = json!(existing);
            amend(qmp, node, options, false)
        })
    })
}

/// Takes keyslots away. QEMU keeps the last one, and takes no notice of what nobody has a passphrase for; `force` takes the last too.
///
/// # Errors
/// [`QmpError`].
pub fn unset(
    qmp: &mut dyn Monitor,
    node: &str,
    key: &str,
    gone: Gone<'_>,
    force: bool,
) -> Result<(), QmpError> {
    let options = json!({"driver": "luks", "state": "inactive"});
    match gone {
        Gone::Keyslot(keyslot) => {
            let mut options = options;
            options["keyslot"] = json!(keyslot);
            amend(qmp, node, options, force)
        }
        Gone::OpenedBy(old) => with_secret(qmp, key, "old", old, |qmp, secret| {
            let mut options = options;
            options["old-secret"] = json!(secret);
            amend(qmp, node, options, force)
        }),
    }
}

fn amend(qmp: &mut dyn Monitor, node: &str, options: Value, force: bool) -> Result<(), QmpError> {
    check_amend(qmp)?;
    let arguments = json!({"node-name": node, "options": options, "force": force});
    qmp.run_job("x-blockdev-amend", arguments)
}

/// Has a secret in QEMU for as long as `work` takes.
fn with_secret(
    qmp: &mut dyn Monitor,
    key: &str,
    name: &str,
    wrapped: &Wrapped,
    work: impl FnOnce(&mut dyn Monitor, &str) -> Result<(), QmpError>,
) -> Result<(), QmpError> {
    let object = Object::SecretWrapped {
        id: format!("luksmith-{}-{name}", std::process::id()),
        key: key.to_owned(),
        wrapped: wrapped.clone(),
    };
    qmp.execute("object-add", &object.json())?;
    let done = work(qmp, object.id());
    let removed = qmp.execute("object-del", &json!({"id": object.id()}));
    done.and(removed.map(drop))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A QEMU that says which version it is.
    struct Versioned([u64; 3]);

    impl Monitor for Versioned {
        fn execute(&mut self, _: &str, _: &Value) -> Result<Value, QmpError> {
            let [major, minor, micro] = self.0;
            Ok(json!({"qemu": {"major": major, "minor": minor, "micro": micro}, "package": ""}))
        }

        fn patience(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn versions_that_abort_are_not_asked() {
        for (version, lives) in [
            ([7, 2, 22], true),
            ([8, 1, 5], true),
            ([8, 2, 0], false),
            ([9, 2, 4], false),
            ([10, 0, 2], false),
            ([10, 0, 6], false),
            ([10, 0, 7], true),
            ([10, 0, 13], true),
            ([10, 1, 0], false),
            ([10, 1, 2], false),
            ([10, 1, 3], true),
            ([10, 2, 0], true),
            ([11, 1, 2], true),
        ] {
            let asked = check_amend(&mut Versioned(version));
            assert_eq!(asked.is_ok(), lives, "{version:?}");
        }
        let told = check_amend(&mut Versioned([10, 0, 2])).unwrap_err();
        assert_eq!(
            told.to_string(),
            "QEMU 10.0.2 aborts when it is told to change keyslots"
        );
    }
}
