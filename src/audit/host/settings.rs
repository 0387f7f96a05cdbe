//! A file of libvirt's settings with its place, so that findings have the lines of settings.

use crate::audit::conf::{Conf, Entry, Value};
use crate::audit::rule::{Place, shown};

/// The settings of a file.
pub(in crate::audit) struct Settings {
    file: Place,
    conf: Conf,
}

impl Settings {
    pub(in crate::audit) fn new(file: Place, conf: Conf) -> Self {
        Self { file, conf }
    }

    /// The place of a setting, or that of the file if the setting is missing.
    pub(in crate::audit) fn place(&self, name: &str) -> Place {
        let mut place = self.file.clone();
        place.line = self.conf.get(name).map(|entry| entry.line);
        place.object.push(("setting", name.to_owned()));
        place
    }

    /// A setting with its value, in one line. Not for settings that contain passwords.
    pub(in crate::audit) fn said(&self, name: &str) -> String {
        match self.conf.get(name) {
            None => format!("{name} is not set"),
            Some(entry) => shown(&format!("{name} = {}", written(&entry.value))),
        }
    }

    pub(in crate::audit) fn is_set(&self, name: &str) -> bool {
        self.conf.get(name).is_some()
    }

    pub(in crate::audit) fn number(&self, name: &str) -> Option<i64> {
        match self.conf.get(name)?.value {
            Value::Number(number) => Some(number),
            Value::Text(_) | Value::List(_) => None,
        }
    }

    pub(in crate::audit) fn flag(&self, name: &str) -> Option<bool> {
        self.number(name).map(|number| number != 0)
    }

    pub(in crate::audit) fn text(&self, name: &str) -> Option<String> {
        match &self.conf.get(name)?.value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(_) | Value::List(_) => None,
        }
    }

    /// A list of strings. A single string is a list of one.
    pub(in crate::audit) fn texts(&self, name: &str) -> Vec<String> {
        let text = |value: &Value| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Number(_) | Value::List(_) => None,
        };
        match self.conf.get(name).map(|entry: &Entry| &entry.value) {
            Some(Value::List(values)) => values.iter().filter_map(text).collect(),
            Some(value) => text(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Permission bits, which are a string of octal digits.
    pub(in crate::audit) fn mode(&self, name: &str) -> Option<u32> {
        u32::from_str_radix(self.text(name)?.trim(), 8).ok()
    }

    /// The first setting whose value has a type that libvirt does not accept.
    pub(in crate::audit) fn mistaken(&self) -> Option<(Place, String)> {
        let wrong = |(name, expected): &(&str, Type)| {
            let entry = self.conf.get(name)?;
            let good = match (expected, &entry.value) {
                (Type::Flag, Value::Number(number)) => matches!(number, 0 | 1),
                (Type::Number, Value::Number(_)) | (Type::Text, Value::Text(_)) => true,
                (Type::Texts, Value::Text(_) | Value::List(_)) => true,
                _ => false,
            };
            (!good).then(|| (self.place(name), self.said(name)))
        };
        TYPES.iter().find_map(wrong)
    }
}

/// The type of a setting.
enum Type {
    /// 0 or 1.
    Flag,
    Number,
    Text,
    /// A list of strings, or a string.
    Texts,
}

/// The settings that rules read, with the types that libvirt accepts.
const TYPES: &[(&str, Type)] = &[
    ("allow_disk_format_probing", Type::Flag),
    ("security_driver", Type::Texts),
    ("security_default_confined", Type::Flag),
    ("security_require_confined", Type::Flag),
    ("seccomp_sandbox", Type::Number),
    ("clear_emulator_capabilities", Type::Flag),
    ("user", Type::Text),
    ("group", Type::Text),
    ("namespaces", Type::Texts),
    ("dump_guest_core", Type::Flag),
    ("nbd_tls", Type::Flag),
    ("migration_address", Type::Text),
    ("migration_host", Type::Text),
    ("migrate_tls_force", Type::Flag),
    ("default_tls_x509_verify", Type::Flag),
    ("migrate_tls_x509_verify", Type::Flag),
    ("backup_tls_x509_verify", Type::Flag),
    ("chardev_tls_x509_verify", Type::Flag),
    ("vnc_tls_x509_verify", Type::Flag),
    ("vnc_tls", Type::Flag),
    ("vnc_listen", Type::Text),
    ("spice_listen", Type::Text),
    ("rdp_listen", Type::Text),
    ("auto_shutdown_try_save", Type::Text),
    ("listen_tcp", Type::Flag),
    ("listen_tls", Type::Flag),
    ("listen_addr", Type::Text),
    ("auth_tcp", Type::Text),
    ("auth_unix_rw", Type::Text),
    ("tls_no_verify_certificate", Type::Flag),
    ("tls_no_sanity_certificate", Type::Flag),
    ("tls_allowed_dn_list", Type::Texts),
    ("unix_sock_group", Type::Text),
    ("unix_sock_rw_perms", Type::Text),
    ("unix_sock_admin_perms", Type::Text),
    ("access_drivers", Type::Texts),
];

fn written(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Text(text) => format!("\"{text}\""),
        Value::List(values) => {
            let values: Vec<_> = values.iter().map(written).collect();
            format!("[{}]", values.join(", "))
        }
    }
}
