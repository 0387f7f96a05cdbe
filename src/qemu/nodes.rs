//! What a running QEMU has open, and whether a job or a migration is under way.

use luksmith_formats::json::{Value, json};

use super::{Monitor, QmpError};

/// The driver of a block node that decrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// A raw LUKS volume.
    Luks,
    /// A qcow2 image with LUKS inside.
    Qcow2,
}

impl Driver {
    /// The driver of a node, if that has a LUKS header.
    fn of(node: &Value) -> Option<Self> {
        match node["drv"].as_str()? {
            "luks" => Some(Self::Luks),
            "qcow2" if Self::Qcow2.header(node)["format"] == "luks" => Some(Self::Qcow2),
            _ => None,
        }
    }

    /// What QEMU says of the LUKS header of a node.
    pub(super) fn header(self, node: &Value) -> &Value {
        let data = &node["image"]["format-specific"]["data"];
        match self {
            Self::Luks => data,
            Self::Qcow2 => &data["encrypt"],
        }
    }
}

/// A block node with a LUKS header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: Driver,
}

/// A LUKS volume that a QEMU has open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenVolume {
    /// The block node that decrypts it.
    pub node: Node,
    /// The UUID in the header that QEMU read when it opened the volume.
    pub uuid: String,
    /// Whether QEMU bypasses the host's page cache.
    pub direct: bool,
    /// The keyslots in that header by number: the iterations of each keyslot in use.
    pub keyslots: Vec<Option<u64>>,
}

/// The volume whose header is at `place`, a file or a device in QEMU's spelling. `None` if no LUKS
/// node is directly on it.
///
/// # Errors
/// [`QmpError`].
pub fn opened_at(qmp: &mut dyn Monitor, place: &str) -> Result<Option<OpenVolume>, QmpError> {
    let nodes = all(qmp)?;
    let storage = nodes
        .iter()
        .find(|node| Driver::of(node).is_none() && node["file"] == place);
    let luks = nodes.iter().find_map(|node| {
        let driver = Driver::of(node)?;
        // QEMU describes a node on a file by JSON text that holds the file's name.
        let text = node["file"].as_str().unwrap_or_default();
        let described: Value = text
            .strip_prefix("json:")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let here = described["file"]["filename"] == place || text == place;
        here.then_some((node, driver))
    });
    let Some((luks, driver)) = luks else {
        return Ok(None);
    };
    let header = driver.header(luks);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let volume = || {
        let keyslots = header["slots"].as_array()?.iter();
        Some(OpenVolume {
            node: Node {
                name: text(&luks["node-name"])?,
                driver,
            },
            uuid: text(&header["uuid"])?,
            direct: storage.unwrap_or(luks)["cache"]["direct"].as_bool()?,
            keyslots: keyslots.map(|slot| slot["iters"].as_u64()).collect(),
        })
    };
    let volume = volume().ok_or_else(|| QmpError::Malformed(NODES.to_owned()))?;
    Ok(Some(volume))
}

/// QEMU's nodes with a LUKS header.
///
/// # Errors
/// [`QmpError`].
pub fn luks_nodes(qmp: &mut dyn Monitor) -> Result<Vec<Node>, QmpError> {
    let nodes = all(qmp)?;
    let luks = nodes.iter().filter_map(|node| {
        let (name, driver) = (node["node-name"].as_str()?.to_owned(), Driver::of(node)?);
        Some(Node { name, driver })
    });
    Ok(luks.collect())
}

/// Fails if a block job or a migration is under way. A block job may copy the volume, and the copy
/// would keep the old header and its passphrase. The QEMU to which a domain migrates has already
/// read the old header.
///
/// # Errors
/// [`QmpError::Occupied`], and the errors of the monitor.
pub fn check_at_rest(qmp: &mut dyn Monitor) -> Result<(), QmpError> {
    let jobs = qmp.execute("query-block-jobs", &json!({}))?;
    if let Some(job) = jobs.as_array().and_then(|jobs| jobs.first()) {
        let kind = job["type"].as_str().unwrap_or("block");
        return Err(QmpError::Occupied(format!("a {kind} job")));
    }
    let migration = qmp.execute("query-migrate", &json!({}))?;
    let migration = migration["status"].as_str().unwrap_or("none");
    if !["none", "completed", "cancelled", "failed"].contains(&migration) {
        return Err(QmpError::Occupied(format!("a migration ({migration})")));
    }
    let status = qmp.execute("query-status", &json!({}))?;
    let status = status["status"].as_str().unwrap_or_default();
    if ["inmigrate", "finish-migrate", "postmigrate"].contains(&status) {
        return Err(QmpError::Occupied(format!("a migration ({status})")));
    }
    Ok(())
}

const NODES: &str = "query-named-block-nodes";

pub(super) fn all(qmp: &mut dyn Monitor) -> Result<Vec<Value>, QmpError> {
    match qmp.execute(NODES, &json!({"flat": true}))? {
        Value::Array(nodes) => Ok(nodes),
        _ => Err(QmpError::Malformed(NODES.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    /// A QEMU that has a fixed reply for each command.
    struct Scripted(BTreeMap<&'static str, Value>);

    impl Monitor for Scripted {
        fn execute(&mut self, command: &str, _: &Value) -> Result<Value, QmpError> {
            let answer = self.0.get(command).cloned();
            answer.ok_or_else(|| QmpError::NoCommand(command.to_owned()))
        }

        fn patience(&self) -> Duration {
            Duration::ZERO
        }
    }

    fn at_rest() -> BTreeMap<&'static str, Value> {
        BTreeMap::from([
            ("query-block-jobs", json!([])),
            ("query-migrate", json!({})),
            (
                "query-status",
                json!({"running": true, "status": "running"}),
            ),
        ])
    }

    #[test]
    fn jobs_and_migrations_are_refused() {
        check_at_rest(&mut Scripted(at_rest())).unwrap();
        // A QEMU that was the target of a migration reports it as completed until it ends.
        let mut came = at_rest();
        came.insert("query-migrate", json!({"status": "completed"}));
        check_at_rest(&mut Scripted(came)).unwrap();
        for (command, answer, told) in [
            (
                "query-block-jobs",
                json!([{"type": "mirror", "device": "d"}]),
                "QEMU is busy with a mirror job",
            ),
            (
                "query-migrate",
                json!({"status": "pre-switchover"}),
                "QEMU is busy with a migration (pre-switchover)",
            ),
            (
                "query-status",
                json!({"running": false, "status": "postmigrate"}),
                "QEMU is busy with a migration (postmigrate)",
            ),
        ] {
            let mut answers = at_rest();
            answers.insert(command, answer);
            let refused = check_at_rest(&mut Scripted(answers)).unwrap_err();
            assert_eq!(refused.to_string(), told);
        }
    }

    /// The replies are an excerpt of QEMU 10.0.2's.
    #[test]
    fn a_volume_is_found_by_its_file_and_no_other_node_is() {
        let luks = |name: &str, file: &str| {
            let described = json!({"driver": "luks", "file": {"driver": "file", "filename": file}});
            json!({"drv": "luks", "node-name": name, "file": format!("json:{described}"), "cache": {"direct": false},
                   "image": {"format-specific": {"type": "luks", "data": {"uuid": format!("of {name}"),
                   "slots": [{"active": true, "iters": 1000}, {"active": false}]}}}})
        };
        let slots = json!([{"active": true, "iters": 1000}, {"active": false}]);
        let qcow2 = |name: &str, file: &str, encrypt: Value| {
            let data = json!({"compat": "1.1", "encrypt": encrypt});
            json!({"drv": "qcow2", "node-name": name, "file": file, "cache": {"direct": true},
                   "image": {"format-specific": {"type": "qcow2", "data": data}}})
        };
        let storage = |file: &str, direct: bool| json!({"drv": "file", "node-name": "s", "file": file, "cache": {"direct": direct}});
        let mut qmp = Scripted(BTreeMap::from([(
            NODES,
            json!([
                luks("a", "/a"),
                storage("/a", false),
                luks("b", "/b"),
                storage("/b", true),
                storage("/c", false),
                qcow2(
                    "q",
                    "/q",
                    json!({"format": "luks", "uuid": "of q", "slots": slots})
                ),
                storage("/q", true),
                qcow2("plain", "/plain", Value::Null),
                storage("/plain", true),
                qcow2("old", "/old", json!({"format": "aes"})),
            ]),
        )]));
        let node = |name: &str, driver| Node {
            name: name.to_owned(),
            driver,
        };
        let opened = |name: &str, driver, direct| OpenVolume {
            node: node(name, driver),
            uuid: format!("of {name}"),
            direct,
            keyslots: vec![Some(1000), None],
        };
        let at = |qmp: &mut Scripted, place| opened_at(qmp, place).unwrap();
        let (raw, image) = (Driver::Luks, Driver::Qcow2);
        assert_eq!(at(&mut qmp, "/a"), Some(opened("a", raw, false)));
        assert_eq!(at(&mut qmp, "/b"), Some(opened("b", raw, true)));
        assert_eq!(at(&mut qmp, "/c"), None);
        assert_eq!(at(&mut qmp, "/q"), Some(opened("q", image, true)));
        assert_eq!(at(&mut qmp, "/plain"), None);
        let luks = [node("a", raw), node("b", raw), node("q", image)];
        assert_eq!(luks_nodes(&mut qmp).unwrap(), luks);
    }
}
