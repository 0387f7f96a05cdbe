//! What a running QEMU has open, and whether a job or a migration is under way.

use luksmith_formats::json::{Value, json};
use luksmith_formats::rbd;

use super::{Monitor, QmpError};

/// The driver of a block node that decrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Driver {
    /// A raw LUKS volume.
    Luks,
    /// A qcow2 image with LUKS inside.
    Qcow2,
    /// An image in Ceph that QEMU's librbd decrypts. QEMU does not tell that it does.
    Librbd,
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
            Self::Luks | Self::Librbd => data,
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
    /// The UUID in the header that QEMU read when it opened the volume. librbd does not tell it.
    pub uuid: Option<String>,
    /// Whether QEMU bypasses the host's page cache.
    pub direct: bool,
    /// The keyslots in that header by number: the iterations of each keyslot in use. librbd does
    /// not tell them.
    pub keyslots: Vec<Option<u64>>,
}

/// Where a QEMU has a volume open.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// A file or a device, in QEMU's spelling.
    Path(&'a str),
    /// An image in Ceph that holds a volume which QEMU decrypts.
    Image(&'a rbd::Uri),
    /// An image in Ceph that QEMU's librbd decrypts.
    Decrypted(&'a rbd::Uri),
}

impl At<'_> {
    /// The driver of the node that is the volume here. A node may also be on one that is here.
    fn driver(self, node: &Value) -> Option<Driver> {
        // QEMU describes a node on a file by JSON text that holds the file's name, and one in Ceph
        // by JSON text with the names of pool and image.
        let text = node["file"].as_str().unwrap_or_default();
        let described: Value = text
            .strip_prefix("json:")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let is = |described: &Value, uri: &rbd::Uri| {
            let part = |name: &str| described[name].as_str().unwrap_or_default();
            part("pool") == uri.pool
                && part("namespace") == uri.namespace
                && part("image") == uri.image
                && part("snapshot") == uri.snapshot.as_deref().unwrap_or_default()
        };
        let file = &described["file"];
        match self {
            Self::Path(place) => {
                let here = file["filename"] == place || text == place;
                Driver::of(node).filter(|_| here)
            }
            Self::Image(uri) => {
                let here = file["driver"] == "rbd" && is(file, uri);
                Driver::of(node).filter(|_| here)
            }
            Self::Decrypted(uri) => {
                let here = node["drv"] == "rbd" && is(&described, uri);
                here.then_some(Driver::Librbd)
            }
        }
    }
}

/// The volume whose header is at `place`. `None` if no LUKS node is directly on it.
///
/// # Errors
/// [`QmpError`].
pub fn opened_at(qmp: &mut dyn Monitor, place: At<'_>) -> Result<Option<OpenVolume>, QmpError> {
    let nodes = all(qmp)?;
    let is_storage = |node: &&Value| match place {
        At::Path(path) => Driver::of(node).is_none() && node["file"] == path,
        // It has no page cache here.
        At::Image(_) | At::Decrypted(_) => false,
    };
    let storage = nodes.iter().find(is_storage);
    let luks = nodes
        .iter()
        .find_map(|node| Some((node, place.driver(node)?)));
    let Some((luks, driver)) = luks else {
        return Ok(None);
    };
    let header = driver.header(luks);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let volume = || {
        let keyslots = match driver {
            Driver::Librbd => &[],
            Driver::Luks | Driver::Qcow2 => header["slots"].as_array()?.as_slice(),
        };
        let uuid = text(&header["uuid"]);
        Some(OpenVolume {
            node: Node {
                name: text(&luks["node-name"])?,
                driver,
            },
            uuid: match driver {
                Driver::Librbd => None,
                Driver::Luks | Driver::Qcow2 => Some(uuid?),
            },
            direct: storage.unwrap_or(luks)["cache"]["direct"].as_bool()?,
            keyslots: keyslots.iter().map(|slot| slot["iters"].as_u64()).collect(),
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
            uuid: Some(format!("of {name}")),
            direct,
            keyslots: vec![Some(1000), None],
        };
        let at = |qmp: &mut Scripted, place| opened_at(qmp, At::Path(place)).unwrap();
        let (raw, image) = (Driver::Luks, Driver::Qcow2);
        assert_eq!(at(&mut qmp, "/a"), Some(opened("a", raw, false)));
        assert_eq!(at(&mut qmp, "/b"), Some(opened("b", raw, true)));
        assert_eq!(at(&mut qmp, "/c"), None);
        assert_eq!(at(&mut qmp, "/q"), Some(opened("q", image, true)));
        assert_eq!(at(&mut qmp, "/plain"), None);
        let luks = [node("a", raw), node("b", raw), node("q", image)];
        assert_eq!(luks_nodes(&mut qmp).unwrap(), luks);
    }

    /// The replies are an excerpt of QEMU 10.0.2's.
    #[test]
    fn a_volume_in_ceph_is_found_by_its_pool_and_image() {
        let file = |pool: &str, image: &str| {
            json!({"driver": "rbd", "pool": pool, "image": image, "user": "admin",
                   "server.0.host": "127.0.0.1", "server.0.port": "6789"})
        };
        let luks = |name: &str, file: Value| {
            let described = json!({"driver": "luks", "key-secret": "s", "file": file});
            json!({"drv": "luks", "node-name": name, "file": format!("json:{described}"),
                   "cache": {"direct": false}, "image": {"format-specific": {"type": "luks",
                   "data": {"uuid": format!("of {name}"), "slots": [{"active": false}]}}}})
        };
        // The format is that of what is read, and so missing where librbd decrypts.
        let bare = |name: &str, pool: &str, image: &str, data: Value| {
            let described = json!({"pool": pool, "image": image, "user": "admin"});
            json!({"drv": "rbd", "node-name": name, "file": format!("json:{described}"),
                   "cache": {"direct": false},
                   "image": {"format-specific": {"type": "rbd", "data": data}}})
        };
        let mut snapshot = file("p", "a");
        snapshot["snapshot"] = json!("s");
        let mut qmp = Scripted(BTreeMap::from([(
            NODES,
            json!([
                luks("s", snapshot),
                bare("a-storage", "p", "a", json!({"encryption-format": "luks"})),
                luks("a", file("p", "a")),
                bare("b", "q", "b", json!({})),
            ]),
        )]));
        let mut at = |uri: &str| {
            let uri = rbd::Uri::parse(uri).unwrap();
            let [found, decrypted] = [At::Image(&uri), At::Decrypted(&uri)].map(|at| {
                let found = opened_at(&mut qmp, at).unwrap();
                found.map(|volume| (volume.node.name, volume.uuid))
            });
            (found, decrypted)
        };
        let found =
            |name: &str, uuid: Option<&str>| Some((name.to_owned(), uuid.map(str::to_owned)));
        let a = found("a-storage", None);
        assert_eq!(at("rbd://p/a"), (found("a", Some("of a")), a));
        assert_eq!(at("rbd://p/a@s"), (found("s", Some("of s")), None));
        assert_eq!(at("rbd://q/b"), (None, found("b", None)));
        for other in ["rbd://p/b", "rbd://q/a", "rbd://p/n/a"] {
            assert_eq!(at(other), (None, None), "{other}");
        }
    }
}
