//! A volume to serve as one text, `NAME=IMAGE,…`, as options of servers have it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::str::FromStr;

use super::Error;
use super::exports::Wanted;
use super::open::{Image, ImageFormat};
use super::storage::Remote;
use super::tokens::Choice;
use crate::container::Which;
use crate::export::Discard;
use crate::location::Location;
use crate::tokens::TokenError;

/// `NAME=IMAGE` and its options, separated by commas: `partition=N`, `offset=SIZE`, `size=SIZE`,
/// `key=SOURCE`, `token=N`, `token-type=TYPE`, `header=FILE`, `format=FORMAT`,
/// `compressed-plaintext`, `keyslot=N`, `description=TEXT`, `discard=WHAT`, `read-only`,
/// `vhost-user=PATH`. A comma in a value is written twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportText {
    /// The name of the export.
    pub name: String,
    /// The source of the passphrase, if it is stated.
    pub key: Option<String>,
    /// The tokens that may be used, if there are any.
    pub tokens: Vec<Choice>,
    image: String,
    header: Option<String>,
    format: ImageFormat,
    compressed_plaintext: bool,
    keyslot: Option<u32>,
    description: Option<String>,
    discard: Option<String>,
    read_only: bool,
    vhost_user: Option<PathBuf>,
}

impl FromStr for ExportText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items = split(text).into_iter();
        let first = items.next().unwrap_or_default();
        let (name, image) = first
            .split_once('=')
            .filter(|(_, image)| !image.is_empty())
            .ok_or("an export begins with NAME=IMAGE")?;
        let mut export = Self {
            name: name.to_owned(),
            image: image.to_owned(),
            ..Self::default()
        };
        for item in items {
            export.add(&item)?;
        }
        Ok(export)
    }
}

impl ExportText {
    fn add(&mut self, item: &str) -> Result<(), String> {
        let (word, value) = match item.split_once('=') {
            Some((word, value)) => (word, Some(value.to_owned())),
            None => (item, None),
        };
        match (word, value) {
            ("read-only", None) => self.read_only = true,
            ("compressed-plaintext", None) => self.compressed_plaintext = true,
            ("key", Some(value)) => self.key = Some(value),
            ("token", Some(value)) => {
                let id = value.parse().map_err(|_| "token= takes a number")?;
                self.tokens.push(Choice::Id(id));
            }
            ("token-type", Some(value)) => {
                let kind = value
                    .parse()
                    .map_err(|error: TokenError| error.to_string())?;
                self.tokens.push(Choice::OfType(kind));
            }
            // These belong to the source of the key: file:PATH,offset=N,size=N.
            ("offset" | "size", Some(value)) if self.key.is_some() => {
                let key = self.key.get_or_insert_default();
                key.push_str(&format!(",{word}={value}"));
            }
            ("partition" | "offset", Some(value)) => {
                self.image.push_str(&format!(",{word}={value}"));
            }
            ("size", Some(value)) if self.image.contains(",offset=") => {
                self.image.push_str(&format!(",size={value}"));
            }
            ("header", Some(value)) => self.header = Some(value),
            ("format", Some(value)) => {
                self.format = match &*value {
                    "raw" => ImageFormat::Raw,
                    "qcow2" => ImageFormat::Qcow2,
                    _ => return Err("format= takes raw or qcow2".to_owned()),
                };
            }
            ("description", Some(value)) => self.description = Some(value),
            ("discard", Some(value)) => self.discard = Some(value),
            ("vhost-user", Some(value)) => self.vhost_user = Some(value.into()),
            ("keyslot", Some(value)) => {
                let slot = value.parse().map_err(|_| "keyslot= takes a number")?;
                self.keyslot = Some(slot);
            }
            _ => {
                return Err(format!(
                    "\"{item}\" is not one of partition=, offset=, size=, key=, token=, token-type=, \
                     header=, format=, compressed-plaintext, keyslot=, description=, discard=, \
                     read-only, vhost-user="
                ));
            }
        }
        Ok(())
    }

    /// The volume to serve. What a client's discard does is stated, or else `discard`.
    ///
    /// # Errors
    /// [`Kind::Parameters`](super::Kind::Parameters) for a location that is not opened, and for an
    /// unknown kind of discard.
    pub fn wanted(&self, remote: Remote, discard: Discard) -> Result<Wanted, Error> {
        let location = |text: &String| {
            Location::parse_openable(OsStr::new(text))
                .map_err(|error| Error::parameters(format!("the image: {error}")))
        };
        let discard = match self.discard.as_deref() {
            None => discard,
            Some("deny") => Discard::Deny,
            Some("zeroes") => Discard::Zeroes,
            Some("pass") => Discard::Pass,
            Some(_) => return Err(Error::parameters("discard: is deny, zeroes or pass")),
        };
        let mut image = Image::new(location(&self.image)?);
        image.header = self.header.as_ref().map(location).transpose()?;
        image.format = self.format;
        image.remote = remote;
        let mut wanted = Wanted::new(&self.name, image);
        wanted.description = self.description.clone().unwrap_or_default();
        wanted.which = self.keyslot.map_or(Which::Any, Which::Slot);
        wanted.compressed_plaintext = self.compressed_plaintext;
        wanted.read_only = self.read_only;
        wanted.discard = discard;
        wanted.vhost_user.clone_from(&self.vhost_user);
        Ok(wanted)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::TokenType;

    #[test]
    fn an_export_is_a_name_an_image_and_options() {
        let export: ExportText =
            "vm=a,,b.img,key=file:k,offset=3,size=9,header=h,keyslot=2,token-type=systemd-tpm2,token=3,read-only,discard=pass,vhost-user=s"
                .parse()
                .unwrap();
        let expected = ExportText {
            name: "vm".into(),
            image: "a,b.img".into(),
            header: Some("h".into()),
            format: ImageFormat::Raw,
            compressed_plaintext: false,
            key: Some("file:k,offset=3,size=9".into()),
            tokens: vec![Choice::OfType(TokenType::Tpm2), Choice::Id(3)],
            keyslot: Some(2),
            description: None,
            discard: Some("pass".into()),
            read_only: true,
            vhost_user: Some("s".into()),
        };
        assert_eq!(export, expected);
        for (text, image) in [
            ("a=b,partition=2,key=file:k,offset=3", "b,partition=2"),
            ("a=b,read-only,offset=1M,size=2M", "b,offset=1M,size=2M"),
            ("a=b,,offset=1", "b,offset=1"),
        ] {
            assert_eq!(text.parse::<ExportText>().unwrap().image, image);
        }
        let default: ExportText = "=a.img".parse().unwrap();
        assert_eq!((&*default.name, &*default.image), ("", "a.img"));
        let image: ExportText = "a=a.qcow2,format=qcow2,compressed-plaintext"
            .parse()
            .unwrap();
        assert_eq!(image.format, ImageFormat::Qcow2);
        assert!(image.compressed_plaintext);
        for bad in [
            "",
            "a",
            "a=",
            "a=b,c",
            "a=b,size=1",
            "a=b,keyslot=x",
            "a=b,format=vmdk",
            "a=b,read-only=1",
        ] {
            assert!(bad.parse::<ExportText>().is_err(), "{bad}");
        }
    }
}
