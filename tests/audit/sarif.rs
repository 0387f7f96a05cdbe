//! SARIF conforms to its schema: required properties, the types of values, rules and results that
//! agree, and locations.

use serde_json::Value;

use luksmith::audit;

use crate::command::{fails, folder, luksmith};

fn string<'a>(value: &'a Value, path: &str) -> &'a str {
    let found = value.pointer(path).unwrap_or(&Value::Null);
    found
        .as_str()
        .unwrap_or_else(|| panic!("{path} is {found}"))
}

/// Checks the parts of sarif-schema-2.1.0.json that apply to this output.
fn check(log: &Value) -> Vec<&str> {
    assert_eq!(string(log, "/version"), "2.1.0");
    assert!(string(log, "/$schema").ends_with("sarif-schema-2.1.0.json"));
    let runs = log["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1);
    let driver = &runs[0]["tool"]["driver"];
    assert_eq!(string(driver, "/name"), "luksmith");
    let rules = driver["rules"].as_array().expect("rules");
    let levels = ["none", "note", "warning", "error"];
    for rule in rules {
        for path in [
            "/id",
            "/shortDescription/text",
            "/fullDescription/text",
            "/help/text",
        ] {
            assert!(!string(rule, path).is_empty());
        }
        assert!(levels.contains(&string(rule, "/defaultConfiguration/level")));
    }
    let results = runs[0]["results"].as_array().expect("results");
    for result in results {
        let index = result["ruleIndex"].as_u64().expect("an index");
        let rule = &rules[usize::try_from(index).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(levels.contains(&string(result, "/level")));
        assert!(!string(result, "/message/text").is_empty());
        let locations = result["locations"].as_array().expect("locations");
        assert_eq!(locations.len(), 1);
        let physical = locations[0].get("physicalLocation");
        let logical = locations[0].get("logicalLocations");
        assert!(physical.is_some() || logical.is_some(), "{result}");
        if let Some(physical) = physical {
            let uri = string(physical, "/artifactLocation/uri");
            assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri}");
            if let Some(region) = physical.get("region") {
                assert!(region["startLine"].as_u64().expect("a line") >= 1);
            }
        }
        for logical in logical
            .into_iter()
            .flat_map(|one| one.as_array().expect("a list"))
        {
            assert!(!string(logical, "/fullyQualifiedName").is_empty());
            assert!(!string(logical, "/kind").is_empty());
        }
        for suppression in result["suppressions"].as_array().into_iter().flatten() {
            assert_eq!(string(suppression, "/kind"), "external");
        }
    }
    results
        .iter()
        .map(|result| string(result, "/ruleId"))
        .collect()
}

fn log(folder: &std::path::Path, arguments: &[&str]) -> Value {
    let output = luksmith(folder, arguments);
    serde_json::from_slice(&output.stdout).expect("one document")
}

#[test]
fn sarif_has_every_rule_and_every_finding() {
    let folder = folder();
    let folder = folder.path();
    let log = log(folder, &["audit", "bad vm.xml", "--no-images", "--sarif"]);
    assert_eq!(check(&log), ["confinement.seclabel"]);
    let driver = &log["runs"][0]["tool"]["driver"];
    assert_eq!(
        driver["rules"].as_array().unwrap().len(),
        audit::rules().count()
    );
    let location = &log["runs"][0]["results"][0]["locations"][0];
    assert_eq!(
        location["physicalLocation"]["artifactLocation"]["uri"],
        "bad%20vm.xml"
    );
    assert_eq!(location["physicalLocation"]["region"]["startLine"], 79);
    assert_eq!(location["logicalLocations"][0]["fullyQualifiedName"], "vm1");
    fails(
        folder,
        &["audit", "good.xml", "--sarif", "--json"],
        1,
        "--json",
    );
}

#[test]
fn findings_with_an_exception_are_suppressed() {
    let folder = folder();
    let folder = folder.path();
    let policy = "[[exception]]\nrule = 'confinement.seclabel'\nbecause = 'a test'";
    std::fs::write(folder.join("policy"), policy).unwrap();
    let log = log(
        folder,
        &[
            "audit",
            "bad vm.xml",
            "--no-images",
            "--policy",
            "policy",
            "--sarif",
        ],
    );
    assert_eq!(check(&log), ["confinement.seclabel"]);
    let suppression = &log["runs"][0]["results"][0]["suppressions"][0];
    assert_eq!(suppression["justification"], "a test");
    let log = self::log(folder, &["audit", "good.xml", "--no-images", "--sarif"]);
    assert_eq!(check(&log), [""; 0]);
}
