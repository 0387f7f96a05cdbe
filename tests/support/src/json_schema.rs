//! Checks the JSON that luksmith prints against the schemas in `docs/schema/`.
//!
//! This is stricter than JSON Schema: an object has exactly the members that its schema lists, and
//! a keyword that is not known here is an error.

use luksmith_formats::json::{Object, Value};

const FILES: [&str; 7] = [
    "volumes.json",
    "objects.json",
    "checks.json",
    "libvirt.json",
    "programs.json",
    "events.json",
    "common.json",
];

/// All schemas.
pub struct Schemas(Vec<(&'static str, Value)>);

impl Schemas {
    /// Reads the schemas of the repository.
    ///
    /// # Panics
    /// If one cannot be read.
    pub fn read() -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schema/");
        let files = FILES.map(|name| {
            let text = std::fs::read(format!("{folder}{name}")).expect("the schema is there");
            let schema = Value::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, schema)
        });
        Self(files.into())
    }

    /// The commands whose documents have a schema.
    pub fn commands(&self) -> Vec<&str> {
        let documents = self
            .0
            .iter()
            .filter(|(name, _)| !["events.json", "common.json"].contains(name));
        documents
            .flat_map(|(_, schema)| definitions(schema).iter().map(|(name, _)| name))
            .collect()
    }

    /// What is wrong with a document of a command.
    pub fn complaints(&self, document: &Value) -> Vec<String> {
        let command = document["command"].as_str().unwrap_or_default();
        let found = self.0.iter().find_map(|(file, schema)| {
            let known = *file != "events.json" && *file != "common.json";
            let schema = definitions(schema).get(command).filter(|_| known)?;
            Some((*file, schema))
        });
        match found {
            None => vec![format!("no schema for the command {command:?}")],
            Some((file, schema)) => self.check(file, schema, document, command),
        }
    }

    /// What is wrong with a line on stderr.
    pub fn complaints_of_event(&self, event: &Value) -> Vec<String> {
        let name = event["event"].as_str().unwrap_or_default();
        let file = "events.json";
        match definitions(self.file(file)).get(name) {
            None => vec![format!("no schema for the event {event}")],
            Some(schema) => self.check(file, schema, event, name),
        }
    }

    /// What is wrong with the schemas themselves.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (file, schema) in &self.0 {
            self.walk(file, schema, &mut faults);
        }
        faults
    }

    fn file(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|(file, _)| *file == name);
        found.map_or_else(|| panic!("no schema {name}"), |(_, schema)| schema)
    }

    /// The schema that a `$ref` in a file names, and its file.
    fn resolve<'a>(&'a self, file: &'a str, reference: &'a str) -> Option<(&'a str, &'a Value)> {
        let (place, pointer) = reference.split_once('#')?;
        let file = if place.is_empty() { file } else { place };
        let schema = self.file(file).pointer(&pointer.replace("%20", " "))?;
        Some((file, schema))
    }

    fn walk(&self, file: &str, value: &Value, faults: &mut Vec<String>) {
        for element in value.as_array().into_iter().flatten() {
            self.walk(file, element, faults);
        }
        for (name, member) in value.as_object().into_iter().flat_map(Object::iter) {
            if let ("$ref", Some(reference)) = (name, member.as_str())
                && self.resolve(file, reference).is_none()
            {
                faults.push(format!("{file}: {reference} is not there"));
            }
            self.walk(file, member, faults);
        }
        let names = |of: &Value| -> Vec<String> {
            let members = of.as_object().into_iter().flat_map(Object::iter);
            members.map(|(name, _)| name.to_owned()).collect()
        };
        if let Some(properties) = value.get("properties") {
            let required = value.get("required").and_then(Value::as_array);
            let required: Vec<_> = required.into_iter().flatten().map(text).collect();
            if names(properties) != required {
                faults.push(format!("{file}: not all of {required:?} are required"));
            }
        }
    }

    fn check(&self, file: &str, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for (keyword, rule) in schema.as_object().into_iter().flat_map(Object::iter) {
            let good = match keyword {
                "description" => true,
                "$ref" => {
                    let (file, schema) = self
                        .resolve(file, rule.as_str().unwrap_or_default())
                        .map(|(file, schema)| (file.to_owned(), schema))
                        .unwrap_or_else(|| panic!("{at}: {rule} is not there"));
                    complaints.extend(self.check(&file, schema, value, at));
                    true
                }
                "type" => match rule.as_array() {
                    Some(types) => types.iter().any(|one| is(value, &text(one))),
                    None => is(value, &text(rule)),
                },
                "const" => value == rule,
                "enum" => rule.as_array().is_some_and(|values| values.contains(value)),
                "minimum" => value
                    .as_u64()
                    .is_none_or(|number| Some(number) >= rule.as_u64()),
                "maximum" => value
                    .as_u64()
                    .is_none_or(|number| Some(number) <= rule.as_u64()),
                "minLength" => {
                    let length = value.as_str().map(|text| text.chars().count() as u64);
                    length.is_none_or(|length| Some(length) >= rule.as_u64())
                }
                "items" => {
                    for (number, element) in value.as_array().into_iter().flatten().enumerate() {
                        complaints.extend(self.check(
                            file,
                            rule,
                            element,
                            &format!("{at}[{number}]"),
                        ));
                    }
                    true
                }
                "properties" => {
                    complaints.extend(self.members(file, rule, value, at));
                    true
                }
                // `faults` checks that it lists the members of `properties`.
                "required" => true,
                other => panic!("{at}: the keyword {other} is not known"),
            };
            if !good {
                complaints.push(format!("{at}: {value} breaks {keyword} {rule}"));
            }
        }
        complaints
    }

    fn members(&self, file: &str, properties: &Value, value: &Value, at: &str) -> Vec<String> {
        let Some(object) = value.as_object() else {
            return Vec::new();
        };
        let mut complaints = Vec::new();
        for (name, schema) in properties.as_object().into_iter().flat_map(Object::iter) {
            match object.get(name) {
                None => complaints.push(format!("{at}: {name} is missing")),
                Some(member) => {
                    complaints.extend(self.check(file, schema, member, &format!("{at}.{name}")));
                }
            }
        }
        for (name, _) in object.iter() {
            if properties.get(name).is_none() {
                complaints.push(format!("{at}: {name} is not in the schema"));
            }
        }
        complaints
    }
}

/// Checks a document of a command.
///
/// # Panics
/// If it is not as its schema says.
#[track_caller]
pub fn check(document: &Value) {
    let complaints = Schemas::read().complaints(document);
    assert!(complaints.is_empty(), "{complaints:#?}\n{document:#}");
}

fn definitions(schema: &Value) -> &Object {
    schema["$defs"].as_object().expect("a schema has $defs")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is(value: &Value, kind: &str) -> bool {
    match (value, kind) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::Number(_), "number")
        | (Value::String(_), "string")
        | (Value::Array(_), "array")
        | (Value::Object(_), "object") => true,
        (Value::Number(number), "integer") => number
            .as_str()
            .bytes()
            .all(|c| c.is_ascii_digit() || c == b'-'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luksmith_formats::json::json;

    #[test]
    fn the_schemas_are_whole() {
        let faults = Schemas::read().faults();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    #[test]
    fn what_breaks_a_schema_is_found() {
        let schemas = Schemas::read();
        let good = json!({
            "schema": "luksmith/1",
            "command": "key test",
            "image": "a",
            "image_bytes": null,
            "keyslot": 1,
            "bound": true,
            "token": null,
        });
        assert_eq!(schemas.complaints(&good), [""; 0]);
        for (name, value) in [
            ("schema", json!("luksmith/2")),
            ("command", json!("key tset")),
            ("image", json!(null)),
            ("keyslot", json!("1")),
            ("keyslot", json!(1.5)),
            ("keyslot", json!(99)),
            ("bound", json!(null)),
            ("more", json!(null)),
        ] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().insert(name, value);
            assert_eq!(schemas.complaints(&bad).len(), 1, "{bad}");
        }
        let mut bad = good;
        bad.as_object_mut().unwrap().remove("bound");
        assert_eq!(schemas.complaints(&bad), ["key test: bound is missing"]);
    }
}
