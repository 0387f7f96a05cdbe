//! `lvm.conf` (lvm.conf(5)): whether the host's LVM searches guests' disks for its volumes.

use crate::audit::context::Context;
use crate::audit::inventory::Host;
use crate::audit::rule::{Place, rules};

rules! {
    FILTER: Note, "access.lvm-filter",
        "LVM searches all block devices for its volumes",
        "A guest whose disk is a block device controls which volumes the host finds and \
         activates. It can give them the names of the host's own volumes.",
        "Set global_filter so that it accepts the host's own disks and rejects all others \
         (\"r|.*|\"), or use a devices file (use_devicesfile = 1, lvmdevices).";
    VOLUMES: Warning, "access.lvm-scan",
        "LVM searches logical volumes, which are guests' disks, for its volumes",
        "A guest that makes its disk a physical volume gives the host volumes to activate, under \
         names that the guest chooses.",
        "Set scan_lvs = 0.";
}

pub(super) fn settings(context: &mut Context<'_>, host: &Host, place: &Place, text: &str) {
    let settings = Settings::read(text);
    let volumes = settings.get("scan_lvs").filter(|one| one.value == "1");
    if let Some(found) = volumes {
        let place = place.within("setting", "scan_lvs", found.line);
        context.add(&VOLUMES, place, "scan_lvs = 1");
    }
    let mut filters = ["filter", "global_filter"]
        .into_iter()
        .filter_map(|name| settings.get(name));
    let rejects = filters.any(|one| one.value.contains("\"r"));
    let by_list = host.lvm_devices_file
        && (settings.get("use_devicesfile")).is_none_or(|one| one.value == "1");
    if !rejects && !by_list {
        let mut place = place.clone();
        place.object.push(("setting", "global_filter".to_owned()));
        context.add(&FILTER, place, "no filter rejects any device");
    }
}

/// A setting of the section `devices`.
struct Setting {
    name: String,
    line: usize,
    /// The value, without spaces around it and comments.
    value: String,
}

struct Settings(Vec<Setting>);

impl Settings {
    fn get(&self, name: &str) -> Option<&Setting> {
        self.0.iter().rev().find(|one| one.name == name)
    }

    /// Reads the settings of the form `name = value` in `devices { … }`, or `devices/name = value`.
    fn read(text: &str) -> Self {
        let mut settings: Vec<Setting> = Vec::new();
        let (mut section, mut open_list) = (String::new(), false);
        for (number, line) in (1..).zip(text.lines()) {
            let line = uncommented(line);
            let line = line.trim();
            if open_list {
                if let Some(last) = settings.last_mut() {
                    last.value.push_str(line);
                }
            } else if let Some(name) = line.strip_suffix('{') {
                name.trim().clone_into(&mut section);
                continue;
            } else if line == "}" {
                section.clear();
                continue;
            } else if let Some((name, value)) = line.split_once('=') {
                let name = name.trim();
                let full = format!("{section}/{name}");
                let full = if section.is_empty() { name } else { &full };
                settings.push(Setting {
                    name: full.strip_prefix("devices/").unwrap_or_default().to_owned(),
                    line: number,
                    value: value.trim().to_owned(),
                });
            } else {
                continue;
            }
            let value = settings.last().map_or("", |one| one.value.as_str());
            open_list = value.starts_with('[') && !value.ends_with(']');
        }
        Self(settings)
    }
}

/// A line without its comment. `#` in quotes does not begin a comment.
fn uncommented(line: &str) -> &str {
    let mut quoted = false;
    for (at, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '#' if !quoted => return line.get(..at).unwrap_or_default(),
            _ => {}
        }
    }
    line
}
