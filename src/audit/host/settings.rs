//! One of libvirt's configuration files with its place, so that a finding can name the line of a setting, or its absence.

use crate::audit::conf::{Conf, Entry, Value};
use crate::audit::rule::{Place, shown};

/// A file of settings that was read.
pub(in crate::audit) struct Settings {
    file: Place,
    conf: Conf,
}

impl Settings {
    pub(in crate::audit) fn new(file: Place, conf: Conf) -> Self {
        Self { file, conf }
    }

    /// Where a setting is; the file, where it is not set.
    pub(in crate::audit) fn place(&self, name: &str) -> Place {
        let mut place = self.file.clone();
        place.line = self.conf.get(name).map(|entry| entry.line);
        place.object.push(("setting", name.to_owned()));
        place
    }

    /// What a setting says, in one line. Not for settings that hold passwords.
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

    /// A list of strings; a string alone is a list of one.
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

    /// Permission bits, which are written as a string of octal digits.
    pub(in crate::audit) fn mode(&self, name: &str) -> Option<u32> {
        u32::from_str_radix(self.text(name)?.trim(), 8).ok()
    }

    /// The first of some settings whose value is of a sort that libvirt does not take there.
    pub(in crate::audit) fn mistaken(&self) -> Option<(Place, String)> {
        let wrong = |(name, sort): &(&str, Sort)| {
            let entry = self.conf.get(name)?;
            let good = match (sort, &entry.value) {
                (Sort::Flag, Value::Number(number)) => matches!(number, 0 | 1),
                (Sort::Number, Value::Number(_)) | (Sort::Text, Value::Text(_)) => true,
                (Sort::Texts, Value::Text(_) | Value::List(_)) => true,
                _ => false,
            };
            (!good).then(|| (self.place(name), self.said(name)))
        };
        SORTS.iter().find_map(wrong)
    }
}

enum Sort {
    /// 0 or 1.
    Flag,
    Number,
    Text,
    /// A list of strings, or a string.
    Texts,
}

/// The settings that rules read, as libvirt reads them.
const SORTS: &[(&str, Sort)] = &[
    ("allow_disk_format_probing", Sort::Flag),
    ("security_driver", Sort::Texts),
    ("security_default_confined", Sort::Flag),
    ("security_require_confined", Sort::Flag),
    ("seccomp_sandbox", Sort::Number),
    ("clear_emulator_capabilities", Sort::Flag),
    ("user", Sort::Text),
    ("group", Sort::Text),
    ("namespaces", Sort::Texts),
    ("dump_guest_core", Sort::Flag),
    ("nbd_tls", Sort::Flag),
    ("migration_address", Sort::Text),
    ("migration_host", Sort::Text),
    ("migrate_tls_force", Sort::Flag),
    ("default_tls_x509_verify", Sort::Flag),
    ("migrate_tls_x509_verify", Sort::Flag),
    ("backup_tls_x509_verify", Sort::Flag),
    ("chardev_tls_x509_verify", Sort::Flag),
    ("vnc_tls_x509_verify", Sort::Flag),
    ("vnc_tls", Sort::Flag),
    ("vnc_listen", Sort::Text),
    ("spice_listen", Sort::Text),
    ("rdp_listen", Sort::Text),
    ("auto_shutdown_try_save", Sort::Text),
    ("listen_tcp", Sort::Flag),
    ("listen_tls", Sort::Flag),
    ("listen_addr", Sort::Text),
    ("auth_tcp", Sort::Text),
    ("auth_unix_rw", Sort::Text),
    ("tls_no_verify_certificate", Sort::Flag),
    ("tls_no_sanity_certificate", Sort::Flag),
    ("tls_allowed_dn_list", Sort::Texts),
    ("unix_sock_group", Sort::Text),
    ("unix_sock_rw_perms", Sort::Text),
    ("unix_sock_admin_perms", Sort::Text),
    ("access_drivers", Sort::Texts),
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
