//! Which volumes are served: `--export NAME=IMAGE,…` as text, and opened.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use luksmith::container::Which;
use luksmith::export::{Discard, Export};
use luksmith::location::Location;
use luksmith_formats::limits::Limits;

use super::DiscardName;
use crate::cli::Session;
use crate::cli::args::{CompressedArgs, ImageArgs, ImageFormat, KeyArgs, RemoteArgs};
use crate::cli::error::CommandError;
use crate::cli::notes::note_slow;
use crate::cli::open::{ReadArgs, unlock};
use crate::cli::passphrase::KeySource;

/// `NAME=IMAGE` and its options, not looked at closely yet.
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
            .ok_or("begins with NAME=IMAGE")?;
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
                // A part of a key file has commas of its own.
                ("offset" | "size", Some(value)) if export.key.is_some() => {
                    let key = export.key.get_or_insert_default();
                    key.push_str(&format!(",{word}={value}"));
                }
                ("header", Some(value)) => export.header = Some(value),
                ("format", Some(value)) => {
                    export.format = clap::ValueEnum::from_str(&value, false)
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
                        "{item:?} is none of key=, header=, format=, compressed-plaintext, keyslot=, description=, discard=, read-only"
                    ));
                }
            }
        }
        Ok(export)
    }
}

/// The parts between commas; two commas are one that belongs to a part.
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
    /// With what the other arguments say of all exports.
    pub(super) fn wanted(
        &self,
        key: &KeyArgs,
        read_only: bool,
        discard: DiscardName,
    ) -> Result<Wanted, CommandError> {
        let wrong = |what: &str, why: String| {
            let message = format!("--export {}: {what}: {why}", self.name);
            CommandError::parameters(message)
        };
        let location = |text: &String| {
            Location::parse_openable(OsStr::new(text))
                .map_err(|error| wrong("the image", error.to_string()))
        };
        let discard = match &self.discard {
            Some(text) => clap::ValueEnum::from_str(text, false)
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
        Ok(Wanted {
            name: self.name.clone(),
            description: self.description.clone().unwrap_or_default(),
            image: location(&self.image)?,
            header: self.header.as_ref().map(location).transpose()?,
            format: self.format,
            compressed: self.compressed,
            keyslot: self.keyslot,
            key: key.map_err(|error| error.about(format!("--export {}", self.name)))?,
            read_only: read_only || self.read_only,
            discard: discard.into(),
        })
    }
}

/// A volume to be served.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) image: Location,
    pub(super) header: Option<Location>,
    pub(super) format: ImageFormat,
    pub(super) compressed: CompressedArgs,
    pub(super) keyslot: Option<u32>,
    pub(super) key: KeySource,
    pub(super) read_only: bool,
    pub(super) discard: Discard,
}

/// Two volumes on one storage would not know of each other's writes.
pub(super) fn refuse_twice(all: &[Wanted]) -> Result<(), CommandError> {
    let same = |one: &Location, other: &Location| match (one.path(), other.path()) {
        (Some(one), Some(other)) => {
            let inode = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino()));
            matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
        }
        _ => one == other,
    };
    for (number, one) in all.iter().enumerate() {
        let twice = all
            .iter()
            .take(number)
            .find(|other| same(&one.image, &other.image) && !(one.read_only && other.read_only));
        if let Some(other) = twice {
            let message = format!(
                "{} is named twice, as the exports {:?} and {:?}",
                one.image, other.name, one.name
            );
            return Err(CommandError::parameters(message).hint(
                "clients may share one export; two of an image may be had if both are read-only",
            ));
        }
    }
    Ok(())
}

/// One that is open.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) read_only: bool,
    pub(super) export: Export,
}

impl Wanted {
    /// Asks for the passphrase and opens the volume.
    pub(super) fn open(
        self,
        session: &Session,
        remote: &RemoteArgs,
        limits: Limits,
    ) -> Result<Opened, CommandError> {
        let image = ImageArgs {
            image: self.image,
            header: self.header,
            format: self.format,
            remote: remote.clone(),
        };
        let (container, data) = if self.read_only {
            image
                .get()
                .open_data_to_read(ReadArgs::default().options(), limits, session)?
        } else {
            image.get().open_data_to_write(None, limits, session)?
        };
        image.get().refuse_header_as_data(&container, &data)?;
        let which = self.keyslot.map_or(Which::Any, Which::Slot);
        let label = image.image.to_string();
        let unlocked = unlock(session, &container, &self.key, which, &label)?;
        let volume = self.compressed.apply(data.volume(&container, &unlocked)?);
        if let Ok(segment) = container.data_segment() {
            note_slow(segment.cipher);
        }
        let size = volume.size();
        let export = Export::new(&self.name, Arc::new(volume))
            .with_description(self.description)
            .with_read_only(self.read_only)
            .with_discard(self.discard);
        Ok(Opened {
            name: self.name,
            size,
            read_only: self.read_only,
            export,
        })
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
