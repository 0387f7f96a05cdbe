//! Changes the keyslots of a LUKS1 volume that a running QEMU has open (`x-blockdev-amend` with
//! `QCryptoBlockAmendOptionsLUKS`, QEMU 5.1 and later), while the guest keeps running. In a qcow2
//! image these options are those of its encryption (`BlockdevAmendOptionsQcow2`).
//!
//! QEMU does not keep the volume key for this. It opens a keyslot again, by default with the
//! secret with which it was started.

use std::ops::Range;

use luksmith_formats::json::{Value, json};

use super::nodes::{Driver, Node, all};
use super::{Monitor, Object, QmpError, Wrapped};

/// The command that changes keyslots.
const AMEND: &str = "x-blockdev-amend";

/// Why keyslots were not changed, or not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AmendError {
    /// A monitor command failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The node does not exist, or is not a LUKS volume.
    #[error("QEMU has no block node {0} with LUKS")]
    NotLuks(String),
}

/// The keyslots of a volume, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keyslots {
    /// The keyslots in use.
    pub active: Vec<u32>,
    /// The number of keyslots that the header can hold.
    pub total: u32,
}

/// Which keyslots are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone<'a> {
    /// The keyslot with this number.
    Keyslot(u32),
    /// The keyslot with this number, if this passphrase opens it. Otherwise QEMU fails.
    KeyslotOpenedBy(u32, &'a Wrapped),
    /// All keyslots that this passphrase opens.
    OpenedBy(&'a Wrapped),
}

/// The versions of QEMU that abort when keyslots of a raw volume change
/// (`bdrv_graph_rdlock_main_loop: Assertion '!qemu_in_coroutine()' failed`). They abort before they
/// read or write the header. QEMU's commit 1f051dcb introduced the fault and c86488ab fixed it;
/// 10.2.0 was released with the fix. The fault is in the functions by which the LUKS driver reads
/// and writes the header (`block/crypto.c`). The qcow2 driver has functions of its own, which do
/// not have it: 10.0.2 changes keyslots in a qcow2 image.
const ABORTING: [Range<[u64; 3]>; 2] = [[8, 2, 0]..[10, 0, 7], [10, 1, 0]..[10, 1, 3]];

/// Fails if this QEMU is of a version that aborts when keyslots of a node with this driver change.
///
/// # Errors
/// [`QmpError::Aborts`], and the errors of the monitor.
pub fn check_amend(qmp: &mut dyn Monitor, driver: Driver) -> Result<(), QmpError> {
    if driver == Driver::Qcow2 {
        return Ok(());
    }
    let answer = qmp.execute("query-version", &json!({}))?;
    let part = |name: &str| answer["qemu"][name].as_u64();
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

/// The keyslots of a node that QEMU holds in memory.
///
/// # Errors
/// [`AmendError`].
pub fn keyslots(qmp: &mut dyn Monitor, node: &Node) -> Result<Keyslots, AmendError> {
    let nodes = all(qmp)?;
    let slots = nodes
        .iter()
        .find(|found| found["node-name"] == *node.name)
        .and_then(|found| node.driver.header(found)["slots"].as_array())
        .ok_or_else(|| AmendError::NotLuks(node.name.clone()))?;
    let numbered = (0..).zip(slots);
    Ok(Keyslots {
        active: numbered
            .filter(|(_, slot)| slot["active"] == true)
            .map(|(number, _)| number)
            .collect(),
        total: u32::try_from(slots.len()).unwrap_or(u32::MAX),
    })
}

/// A keyslot to add.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NewKeyslot<'a> {
    /// The new passphrase.
    pub new: &'a Wrapped,
    /// A passphrase that opens the volume now. `None` is the one with which QEMU was started.
    pub existing: Option<&'a Wrapped>,
    /// The number of the keyslot. `None` is the first that is free.
    pub keyslot: Option<u32>,
    /// How long opening the keyslot takes, in milliseconds. `None` is QEMU's default, 2000.
    pub iter_time: Option<u32>,
}

impl<'a> NewKeyslot<'a> {
    /// The first free keyslot, for the passphrase `new`, with QEMU's default cost. The passphrase
    /// with which QEMU was started gives access to the volume key.
    #[must_use]
    pub fn new(new: &'a Wrapped) -> Self {
        Self {
            new,
            existing: None,
            keyslot: None,
            iter_time: None,
        }
    }

    setters! {
        /// A passphrase that opens the volume now.
        existing: Option<&'a Wrapped>,

        /// The number of the keyslot.
        keyslot: Option<u32>,

        /// How long opening the keyslot takes, in milliseconds.
        iter_time: Option<u32>,
    }
}

/// Adds a keyslot. `key` is the id of the master key that wraps the passphrases.
///
/// # Errors
/// [`QmpError`].
pub fn set(
    qmp: &mut dyn Monitor,
    node: &Node,
    key: &str,
    keyslot: NewKeyslot<'_>,
) -> Result<(), QmpError> {
    with_secret(qmp, key, "new", keyslot.new, |qmp, new| {
        let mut options = json!({"state": "active", "new-secret": new});
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

/// Removes keyslots. Without `force`, QEMU refuses to remove the last one. It ignores a passphrase
/// that opens none.
///
/// # Errors
/// [`QmpError`].
pub fn unset(
    qmp: &mut dyn Monitor,
    node: &Node,
    key: &str,
    gone: Gone<'_>,
    force: bool,
) -> Result<(), QmpError> {
    let mut options = json!({"state": "inactive"});
    if let Gone::Keyslot(keyslot) | Gone::KeyslotOpenedBy(keyslot, _) = gone {
        options["keyslot"] = json!(keyslot);
    }
    match gone {
        Gone::Keyslot(_) => amend(qmp, node, options, force),
        Gone::KeyslotOpenedBy(_, old) | Gone::OpenedBy(old) => {
            with_secret(qmp, key, "old", old, |qmp, secret| {
                options["old-secret"] = json!(secret);
                amend(qmp, node, options, force)
            })
        }
    }
}

fn amend(
    qmp: &mut dyn Monitor,
    node: &Node,
    mut options: Value,
    force: bool,
) -> Result<(), QmpError> {
    check_amend(qmp, node.driver)?;
    let options = match node.driver {
        Driver::Luks => {
            options["driver"] = json!("luks");
            options
        }
        Driver::Qcow2 => {
            options["format"] = json!("luks");
            json!({"driver": "qcow2", "encrypt": options})
        }
        Driver::Librbd => return Err(QmpError::NoCommand(AMEND.to_owned())),
    };
    let arguments = json!({"node-name": node.name, "options": options, "force": force});
    qmp.run_job(AMEND, arguments)
}

/// Adds a secret object to QEMU, does `work`, and removes the object.
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

    /// A QEMU that reports this version.
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
    fn versions_that_abort_are_refused() {
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
            let asked = check_amend(&mut Versioned(version), Driver::Luks);
            assert_eq!(asked.is_ok(), lives, "{version:?}");
            check_amend(&mut Versioned(version), Driver::Qcow2).unwrap();
        }
        let told = check_amend(&mut Versioned([10, 0, 2]), Driver::Luks).unwrap_err();
        assert_eq!(
            told.to_string(),
            "QEMU 10.0.2 aborts when it is told to change keyslots"
        );
    }
}
