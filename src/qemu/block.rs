//! What QEMU needs to open a volume: objects that hold secrets and certificates, and a block
//! device that refers to them, as command line arguments and as QMP arguments (`QCryptoSecret`,
//! `BlockdevOptions`).

use std::fmt::Write as _;

use luksmith_formats::json::{self, Value, json};
use luksmith_formats::text::is_control;

use super::Wrapped;

/// An object that a block device refers to by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Object {
    /// A secret that is read from a file.
    SecretFile {
        /// Its id.
        id: String,
        /// The file, which QEMU's user has to be able to read.
        path: String,
        /// Whether the file holds base64.
        base64: bool,
    },
    /// A secret that is encrypted with a master key.
    SecretWrapped {
        /// Its id.
        id: String,
        /// The id of the master key.
        key: String,
        /// Its ciphertext.
        wrapped: Wrapped,
    },
    /// The certificates of an NBD client.
    Certificates {
        /// Its id.
        id: String,
        /// The directory that holds them.
        directory: String,
    },
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// Its node name, to which a `-device` or an export refers.
    pub node: String,
    /// Where the bytes are stored.
    pub server: Server,
    /// The id of the secret that opens the volume. `None` if the bytes are plaintext.
    pub key: Option<String>,
    /// Whether the volume is inside of a qcow2 image.
    pub qcow2: bool,
    /// Where the header is stored, if it is detached, which QEMU 9.0 and later open.
    pub header: Option<Server>,
    /// Whether the device is read-only.
    pub read_only: bool,
    /// How the host's page cache is used. `None` is QEMU's default, which is to use it.
    pub cache: Option<Cache>,
    /// Whether the guest's discards reach the storage.
    pub discard: bool,
}

impl Block {
    /// A writable device with QEMU's default cache, which keeps the guest's discards to itself.
    /// `key` is the id of the secret that opens the volume, if the bytes are not plaintext.
    pub fn new(node: impl Into<String>, server: Server, key: Option<String>) -> Self {
        Self {
            node: node.into(),
            server,
            key,
            qcow2: false,
            header: None,
            read_only: false,
            cache: None,
            discard: false,
        }
    }

    setters! {
        /// Whether the volume is inside of a qcow2 image.
        qcow2: bool,

        /// Where the header is stored, if it is detached.
        header: Option<Server>,

        /// Whether the device is read-only.
        read_only: bool,

        /// How the host's page cache is used.
        cache: Option<Cache>,

        /// Whether the guest's discards reach the storage.
        discard: bool,
    }
}

/// Where the bytes of a block device are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Server {
    /// A file.
    File(String),
    /// A block device of the host.
    Device(String),
    /// An export on a Unix socket.
    NbdUnix {
        /// The path of the socket.
        socket: String,
        /// The name of the export.
        export: String,
        /// With TLS, the id of the certificates and the name in the server's certificate.
        tls: Option<(String, Option<String>)>,
    },
    /// An export on a TCP port.
    NbdTcp {
        /// A host name or an address.
        host: String,
        /// The port.
        port: u16,
        /// The name of the export.
        export: String,
        /// With TLS, the id of the certificates and the name in the server's certificate.
        tls: Option<(String, Option<String>)>,
    },
}

/// How the host's page cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// The page cache is bypassed (O_DIRECT).
    None,
    /// The page cache is used.
    Writeback,
}

impl Object {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::SecretFile { id, .. }
            | Self::SecretWrapped { id, .. }
            | Self::Certificates { id, .. } => id,
        }
    }

    /// The arguments of QMP's `object-add`.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::SecretFile {
                id,
                path,
                base64: false,
            } => json!({"qom-type": "secret", "id": id, "file": path}),
            Self::SecretFile {
                id,
                path,
                base64: true,
            } => json!({"qom-type": "secret", "id": id, "format": "base64", "file": path}),
            Self::SecretWrapped { id, key, wrapped } => json!({
                "qom-type": "secret",
                "id": id,
                "keyid": key,
                "iv": wrapped.iv,
                "format": "base64",
                "data": wrapped.data,
            }),
            Self::Certificates { id, directory } => json!({
                "qom-type": "tls-creds-x509",
                "id": id,
                "endpoint": "client",
                "dir": directory,
            }),
        }
    }

    /// The argument of `-object`: the type, then each `name=value`, with commas in values doubled.
    #[must_use]
    pub fn argument(&self) -> String {
        let json = self.json();
        let fields = json.as_object().into_iter().flat_map(json::Object::iter);
        let mut argument = String::new();
        for (name, value) in fields {
            let value = value.as_str().unwrap_or_default().replace(',', ",,");
            if name == "qom-type" {
                argument.push_str(&value);
            } else {
                // Writing to a string does not fail.
                let _ = write!(argument, ",{name}={value}");
            }
        }
        argument
    }
}

impl Block {
    /// The arguments of QMP's `blockdev-add`, which are also the argument of `-blockdev`.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut block = match &self.key {
            // QEMU opens no backing file, whatever the image says.
            Some(key) if self.qcow2 => json!({
                "driver": "qcow2",
                "node-name": self.node,
                "encrypt": {"format": "luks", "key-secret": key},
                "file": self.server.json(),
                "backing": null,
            }),
            Some(key) => json!({
                "driver": "luks",
                "node-name": self.node,
                "key-secret": key,
                "file": self.server.json(),
            }),
            None => {
                let mut block = self.server.json();
                block["node-name"] = json!(self.node);
                block
            }
        };
        if let (Some(header), Some(_)) = (&self.header, &self.key) {
            block["header"] = header.json();
        }
        if self.read_only {
            block["read-only"] = json!(true);
        }
        if let Some(cache) = self.cache {
            let direct = cache == Cache::None;
            block["cache"] = json!({"direct": direct, "no-flush": false});
        }
        if self.discard {
            block["discard"] = json!("unmap");
        }
        block
    }
}

impl Server {
    fn json(&self) -> Value {
        let (export, server, tls) = match self {
            Self::File(path) => return json!({"driver": "file", "filename": path}),
            Self::Device(path) => return json!({"driver": "host_device", "filename": path}),
            Self::NbdUnix {
                socket,
                export,
                tls,
            } => (export, json!({"type": "unix", "path": socket}), tls),
            Self::NbdTcp {
                host,
                port,
                export,
                tls,
            } => {
                let server = json!({"type": "inet", "host": host, "port": port.to_string()});
                (export, server, tls)
            }
        };
        let mut nbd = json!({"driver": "nbd", "server": server, "export": export});
        if let Some((credentials, hostname)) = tls {
            nbd["tls-creds"] = json!(credentials);
            if let Some(hostname) = hostname {
                nbd["tls-hostname"] = json!(hostname);
            }
        }
        nbd
    }
}

/// `text`, quoted as one word of a POSIX shell. Control characters other than a line end are made
/// by `printf`, so that the word can be shown.
#[must_use]
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut word = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => word.push_str(r"'\''"),
            c if c != '\n' && is_control(c) => {
                word.push_str("'\"$(printf '");
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a string does not fail.
                    let _ = write!(word, "\\{byte:03o}");
                }
                word.push_str("')\"'");
            }
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_arguments_are_doubled() {
        let object = Object::SecretFile {
            id: "s".to_owned(),
            path: "/a,b=c".to_owned(),
            base64: true,
        };
        assert_eq!(object.argument(), "secret,id=s,format=base64,file=/a,,b=c");
    }

    #[test]
    fn a_shell_reads_every_quoted_text_as_one_word() {
        for text in [
            "",
            "a b",
            "it's",
            "$(x) `y` \"z\" \\",
            "a\nb",
            "é*?[",
            "~",
            "-object",
            "a,b=c",
            "\u{1b}[2J'\u{9b}\u{202e}é\u{feff}",
        ] {
            let shown = quoted(text);
            assert!(
                !shown.chars().any(|c| c != '\n' && is_control(c)),
                "{shown}"
            );
            let script = format!("printf %s {}", quoted(text));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{script}");
        }
    }

    #[test]
    fn plaintext_needs_no_luks_driver() {
        let block = Block {
            node: "disk".to_owned(),
            server: Server::NbdUnix {
                socket: "/s".to_owned(),
                export: String::new(),
                tls: None,
            },
            key: None,
            qcow2: false,
            header: None,
            read_only: true,
            cache: Some(Cache::None),
            discard: true,
        };
        let expected = json!({
            "driver": "nbd", "server": {"type": "unix", "path": "/s"}, "export": "", "node-name": "disk",
            "read-only": true, "cache": {"direct": true, "no-flush": false}, "discard": "unmap"
        });
        assert_eq!(block.json(), expected);
    }
}
