//! What a running QEMU has open, and whether a job or a migration is under way.

use luksmith_formats::json::{Value, json};

use super::{Monitor, QmpError};

/// A LUKS volume that a QEMU has open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenVolume {
    /// The name of the block node with the LUKS driver.
    pub node: String,
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
        .find(|node| node["drv"] != "luks" && node["file"] == place);
    let luks = nodes.iter().find(|node| {
        // QEMU describes a node on a file by JSON text that holds the file's name.
        let text = node["file"].as_str().unwrap_or_default();
        let described: Value = text
            .strip_prefix("json:")
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        node["drv"] == "luks" && (described["file"]["filename"] == place || text == place)
    });
    let Some(luks) = luks else {
        return Ok(None);
    };
    let header = &luks["image"]["format-specific"]["data"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let volume = || {
        let keyslots = header["slots"].as_array()?.iter();
        Some(OpenVolume {
            node: text(&luks["node-name"])?,
            uuid: text(&header["uuid"])?,
            direct: storage.unwrap_or(luks)["cache"]["direct"].as_bool()?,
            keyslots: keyslots.map(|slot| slot["iters"].as_u64()).collect(),
        })
    };
    let volume = volume().ok_or_else(|| QmpError::Malformed(NODES.to_owned()))?;
    Ok(Some(volume))
}

/// The names of QEMU's LUKS nodes.
///
/// # Errors
/// [`QmpError`].
pub fn luks_nodes(qmp: &mut dyn Monitor) -> Result<Vec<String>, QmpError> {
    let nodes = all(qmp)?;
    let luks = nodes.iter().filter(|node| node["drv"] == "luks");
    Ok(luks
        .filter_map(|node| node["node-name"].as_str().map(str::to_owned))
        .collect())
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
        let storage = |file: &str, direct: bool| json!({"drv": "file", "node-name": "s", "file": file, "cache": {"direct": direct}});
        let mut qmp = Scripted(BTreeMap::from([(
            NODES,
            json!([
                luks("a", "/a"),
                storage("/a", false),
                luks("b", "/b"),
                storage("/b", true),
                storage("/c", false)
            ]),
        )]));
        let opened = |node: &str, direct| OpenVolume {
            node: node.to_owned(),
            uuid: format!("of {node}"),
            direct,
            keyslots: vec![Some(1000), None],
        };
        assert_eq!(opened_at(&mut qmp, "/a").unwrap(), Some(opened("a", false)));
        assert_eq!(opened_at(&mut qmp, "/b").unwrap(), Some(opened("b", true)));
        assert_eq!(opened_at(&mut qmp, "/c").unwrap(), None);
        assert_eq!(luks_nodes(&mut qmp).unwrap(), ["a", "b"]);
    }
}
