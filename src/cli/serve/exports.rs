//! Which volumes are served: parses `--export NAME=IMAGE,…`, and opens them.

use std::ffi::OsStr;
use std::str::FromStr;

use clap::ValueEnum;
use luksmith::container::Which;
use luksmith::export::{Discard, Export};
use luksmith::location::Location;
use luksmith::task::exports::{Locked, Wanted};
use luksmith_formats::limits::Limits;

use crate::cli::Session;
use crate::cli::args::{CompressedArgs, ImageArgs, ImageFormat, KeyArgs, RemoteArgs};
use crate::cli::error::CommandError;
use crate::cli::notes::note_slow;
use crate::cli::open::unlock;
use crate::cli::passphrase::KeySource;

/// What a discard (TRIM) of a client does, by the names of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DiscardName {
    /// The discard is refused
    Deny,
    /// The discard writes encrypted zeroes
    Zeroes,
    /// The discard reaches the storage, which then knows which sectors are free
    Pass,
}

impl From<DiscardName> for Discard {
    fn from(name: DiscardName) -> Self {
        match name {
            DiscardName::Deny => Self::Deny,
            DiscardName::Zeroes => Self::Zeroes,
            DiscardName::Pass => Self::Pass,
        }
    }
}

/// `NAME=IMAGE` and its options, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ExportText {
    name: String,
    image: String,
    header: Option<String>,
    format: ImageFormat,
    compressed: CompressedArgs,
    key: Option<String>,
    keyslot: Option<u32>,
    description: Option<String>,
    discard: Option<String>,
    read_only: bool,
}

impl FromStr for ExportText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items = split(text).into_iter();
        let (name, image) = items
            .next()
            .and_then(|first| {
                Some((
                    first.split_once('=')?.0.to_owned(),
                    first.split_once('=')?.1.to_owned(),
                ))
            })
            .filter(|(_, image)| !image.is_empty())
            .ok_or("an export begins with NAME=IMAGE")?;
        let mut export = Self {
            name,
            image,
            ..Self::default()
        };
        for item in items {
            let (word, value) = match item.split_once('=') {
                Some((word, value)) => (word, Some(value.to_owned())),
                None => (item.as_str(), None),
            };
            match (word, value) {
                ("read-only", None) => export.read_only = true,
                ("compressed-plaintext", None) => export.compressed.compressed_plaintext = true,
                ("key", Some(value)) => export.key = Some(value),
                // These belong to the source of the key: file:PATH,offset=N,size=N.
                ("offset" | "size", Some(value)) if export.key.is_some() => {
                    let key = export.key.get_or_insert_default();
                    key.push_str(&format!(",{word}={value}"));
                }
                ("header", Some(value)) => export.header = Some(value),
                ("format", Some(value)) => {
                    export.format = ValueEnum::from_str(&value, false)
                        .map_err(|_| "format= takes raw or qcow2")?;
                }
                ("description", Some(value)) => export.description = Some(value),
                ("discard", Some(value)) => export.discard = Some(value),
                ("keyslot", Some(value)) => {
                    let slot = value.parse().map_err(|_| "keyslot= takes a number")?;
                    export.keyslot = Some(slot);
                }
                _ => {
                    return Err(format!(
                        "\"{item}\" is not one of key=, header=, format=, compressed-plaintext, keyslot=, \
                         description=, discard=, read-only"
                    ));
                }
            }
        }
        Ok(export)
    }
}

/// Splits a text at its commas. Two commas stand for one that is part of a value.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

impl ExportText {
    /// The export to open: its own options, and for missing ones the arguments, which are for all
    /// exports.
    pub(super) fn chosen(
        &self,
        key: &KeyArgs,
        remote: &RemoteArgs,
        read_only: bool,
        discard: DiscardName,
    ) -> Result<Chosen, CommandError> {
        let wrong = |what: &str, why: String| {
            let message = format!("--export {}: {what}: {why}", self.name);
            CommandError::parameters(message)
        };
        let location = |text: &String| {
            Location::parse_openable(OsStr::new(text))
                .map_err(|error| wrong("the image", error.to_string()))
        };
        let discard = match &self.discard {
            Some(text) => ValueEnum::from_str(text, false)
                .map_err(|_| wrong("discard", "is deny, zeroes or pass".to_owned()))?,
            None => discard,
        };
        let key = match &self.key {
            Some(source) => KeySource::of(&KeyArgs {
                key: Some(source.clone()),
                key_file: None,
                keyfile_size: None,
                keyfile_offset: None,
            }),
            None => KeySource::of(key),
        };
        let image = ImageArgs {
            image: location(&self.image)?,
            header: self.header.as_ref().map(location).transpose()?,
            format: self.format,
            remote: remote.clone(),
        };
        let mut wanted = Wanted::new(&self.name, image.get());
        wanted.description = self.description.clone().unwrap_or_default();
        wanted.which = self.keyslot.map_or(Which::Any, Which::Slot);
        wanted.compressed_plaintext = self.compressed.compressed_plaintext;
        wanted.read_only = read_only || self.read_only;
        wanted.discard = discard.into();
        let key = key.map_err(|error| error.about(format!("--export {}", self.name)))?;
        Ok(Chosen { wanted, key })
    }
}

/// A volume that is to be served, and where its passphrase comes from.
pub(super) struct Chosen {
    pub(super) wanted: Wanted,
    pub(super) key: KeySource,
}

impl Chosen {
    /// Opens the storage and reads the header.
    pub(super) fn open(self, session: &Session, limits: Limits) -> Result<Opened, CommandError> {
        let locked = self.wanted.open(limits, session)?;
        let key = self.key;
        Ok(Opened { locked, key })
    }
}

/// A volume that is open and locked, and where its passphrase comes from.
pub(super) struct Opened {
    locked: Locked,
    key: KeySource,
}

impl Opened {
    /// Asks for the passphrase and unlocks the volume.
    pub(super) fn unlock(self, session: &Session) -> Result<Export, CommandError> {
        let locked = self.locked;
        let (which, label) = (
            locked.wanted().which,
            locked.wanted().image.location.to_string(),
        );
        let unlocked = unlock(session, locked.container(), &self.key, which, &label)?;
        if let Ok(segment) = locked.container().data_segment() {
            note_slow(segment.cipher);
        }
        Ok(locked.export(&unlocked)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_a_name_an_image_and_options() {
        let export: ExportText =
            "vm=a,,b.img,key=file:k,offset=3,size=9,header=h,keyslot=2,read-only,discard=pass"
                .parse()
                .unwrap();
        let expected = ExportText {
            name: "vm".into(),
            image: "a,b.img".into(),
            header: Some("h".into()),
            format: ImageFormat::Raw,
            compressed: CompressedArgs::default(),
            key: Some("file:k,offset=3,size=9".into()),
            keyslot: Some(2),
            description: None,
            discard: Some("pass".into()),
            read_only: true,
        };
        assert_eq!(export, expected);
        let default: ExportText = "=a.img".parse().unwrap();
        assert_eq!((&*default.name, &*default.image), ("", "a.img"));
        let image: ExportText = "a=a.qcow2,format=qcow2,compressed-plaintext"
            .parse()
            .unwrap();
        assert_eq!(image.format, ImageFormat::Qcow2);
        assert!(image.compressed.compressed_plaintext);
        for bad in [
            "",
            "a",
            "a=",
            "a=b,c",
            "a=b,offset=1",
            "a=b,keyslot=x",
            "a=b,format=vmdk",
            "a=b,read-only=1",
        ] {
            assert!(bad.parse::<ExportText>().is_err(), "{bad}");
        }
    }
}
