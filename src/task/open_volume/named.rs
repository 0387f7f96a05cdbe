//! Options by the names that they have on the command line, with text as their values, for bindings
//! to other languages.

use std::path::Path;
use std::time::Duration;

use luksmith_formats::cipher::CipherSpec;
use luksmith_formats::hash::Hash;

use crate::backend::file::OpenOptions;
use crate::container::{Version, Which};
use crate::location::Location;
use crate::task::cost::{CostOptions, Function};
use crate::task::new_volume::NewVolume;
use crate::task::open::{Image, ImageFormat};
use crate::task::{Advice, Error, Kind};
use crate::trust::TrustDir;

/// What the options are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// A volume is opened.
    Open,
    /// A volume is unlocked.
    Unlock,
    /// A volume is made.
    Create,
    /// A keyslot is added or changed.
    Keyslot,
    /// A keyslot is removed, or the size is changed.
    Change,
    /// A volume is served.
    Serve,
    /// An image is inspected.
    Inspect,
}

impl Task {
    /// The name, and the options that it takes.
    fn about(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Open => (
                "open",
                &["header", "format", "read-only", "force-share", "trust"],
            ),
            Self::Unlock => ("unlock", &["keyslot"]),
            Self::Create => (
                "create",
                &[
                    "cipher",
                    "cluster-size",
                    "force",
                    "format",
                    "hash",
                    "header",
                    "iter-time",
                    "key-size",
                    "keyslot",
                    "label",
                    "pbkdf",
                    "pbkdf-force-iterations",
                    "pbkdf-memory",
                    "pbkdf-parallel",
                    "preallocate",
                    "sector-size",
                    "subsystem",
                    "type",
                    "uuid",
                ],
            ),
            Self::Keyslot => (
                "a keyslot",
                &[
                    "iter-time",
                    "keyslot",
                    "pbkdf",
                    "pbkdf-force-iterations",
                    "pbkdf-memory",
                    "pbkdf-parallel",
                ],
            ),
            Self::Change => ("this change", &["force"]),
            Self::Serve => (
                "serve",
                &[
                    "description",
                    "discard",
                    "max-connections",
                    "name",
                    "read-only",
                    "socket-group",
                    "socket-mode",
                ],
            ),
            Self::Inspect => (
                "inspect",
                &["follow-symlinks", "force-share", "max-size", "policy"],
            ),
        }
    }
}

/// What a caller permits: the values of the option `force`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// What exists is replaced or overwritten.
    Overwrite,
    /// The last keyslot is removed.
    LastKeyslot,
    /// A keyslot is removed although nothing proves that another one opens.
    Unproven,
    /// The end of a volume is cut off.
    Shrink,
}

impl Force {
    fn name(self) -> &'static str {
        match self {
            Self::Overwrite => "overwrite",
            Self::LastKeyslot => "last-keyslot",
            Self::Unproven => "unproven",
            Self::Shrink => "shrink",
        }
    }
}

/// Options by their names on the command line, without the dashes before them. Sizes are in bytes,
/// and a flag is `true` or `false`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named(Vec<(String, String)>);

impl Named {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an option. A later value replaces an earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, value.into()));
    }

    /// Refuses options that the task does not have.
    ///
    /// # Errors
    /// [`Kind::Parameters`].
    pub fn check(&self, task: Task) -> Result<(), Error> {
        let (what, names) = task.about();
        let unknown = |(name, _): &&(String, String)| !names.contains(&name.as_str());
        match self.0.iter().find(unknown) {
            None => Ok(()),
            Some((name, _)) => Err(Error::parameters(format!(
                "{what} has no option \"{name}\"; it has {}",
                names.join(", ")
            ))),
        }
    }

    /// The value of an option.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set.
    ///
    /// # Errors
    /// [`Kind::Parameters`] if it is neither `true` nor `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::parameters(format!("{name}: it is true or false"))),
        }
    }

    /// A number, which for a size is that of bytes.
    ///
    /// # Errors
    /// [`Kind::Parameters`] for any other text.
    pub fn number<N: TryFrom<u64>>(&self, name: &str) -> Result<Option<N>, Error> {
        let wrong = || Error::parameters(format!("{name}: not a number, or too large"));
        let parse = |text: &str| {
            let number: u64 = text.parse().map_err(|_| wrong())?;
            N::try_from(number).map_err(|_| wrong())
        };
        self.text(name).map(parse).transpose()
    }

    /// Whether the caller permits this: `force` is a list with commas.
    #[must_use]
    pub fn permits(&self, force: Force) -> bool {
        let forced = self.text("force").unwrap_or_default();
        forced.split(',').any(|name| name == force.name())
    }

    /// The keyslots that a passphrase is tried with.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub fn which(&self) -> Result<Which, Error> {
        let slot = self.number("keyslot")?;
        Ok(slot.map_or(Which::Any, Which::Slot))
    }

    /// The volume at `location`.
    ///
    /// # Errors
    /// [`Kind::Parameters`] for an unknown format and a header that is no location.
    pub fn image(&self, location: Location) -> Result<Image, Error> {
        let mut image = Image::new(location);
        image.format = self.format()?;
        image.header = self.header()?;
        let trust = self.text("trust");
        image.trust = trust.map(|dir| TrustDir::at(Path::new(dir)));
        Ok(image)
    }

    /// How the file of an image is opened for reading.
    ///
    /// # Errors
    /// As [`flag`](Self::flag).
    pub fn file(&self) -> Result<OpenOptions, Error> {
        Ok(OpenOptions::new().force_share(self.flag("force-share")?))
    }

    fn format(&self) -> Result<ImageFormat, Error> {
        match self.text("format") {
            None | Some("raw") => Ok(ImageFormat::Raw),
            Some("qcow2") => Ok(ImageFormat::Qcow2),
            Some(_) => Err(Error::parameters("format: it is raw or qcow2")),
        }
    }

    fn header(&self) -> Result<Option<Location>, Error> {
        let header = self.text("header");
        let header = header.map(|text| Location::parse_openable(text.as_ref()));
        header
            .transpose()
            .map_err(|error| Error::from(error).about("header"))
    }

    /// The options of a new volume.
    ///
    /// # Errors
    /// [`Kind::Parameters`], with the name of the option.
    pub fn new_volume(&self) -> Result<NewVolume, Error> {
        let mut new = NewVolume {
            format: self.format()?,
            header: self.header()?,
            ..NewVolume::default()
        };
        new.cluster_size = self.number("cluster-size")?;
        new.version = match self.text("type") {
            None => None,
            Some("luks1") => Some(Version::Luks1),
            Some("luks2") => Some(Version::Luks2),
            Some(_) => return Err(Error::parameters("type: it is luks1 or luks2")),
        };
        if let Some(cipher) = self.text("cipher") {
            let cipher = CipherSpec::parse(cipher);
            new.cipher = cipher.map_err(|error| wrong("cipher", error))?;
        }
        new.key_size = match self.number::<usize>("key-size")? {
            Some(bits) if bits % 8 != 0 => {
                return Err(Error::parameters("key-size: not a multiple of 8 bits"));
            }
            bits => bits.map(|bits| bits / 8),
        };
        if let Some(hash) = self.text("hash") {
            new.hash = Hash::parse(hash).map_err(|error| wrong("hash", error))?;
        }
        new.sector_size = self.number("sector-size")?;
        if new
            .sector_size
            .is_some_and(|size| ![512, 1024, 2048, 4096].contains(&size))
        {
            let message = "sector-size: it is 512, 1024, 2048 or 4096";
            return Err(Error::parameters(message));
        }
        let label = |name| match self.text(name).unwrap_or_default() {
            text if text.len() < 48 => Ok(text.to_owned()),
            _ => Err(Error::parameters(format!("{name}: at most 47 bytes fit"))),
        };
        new.label = label("label")?;
        new.subsystem = label("subsystem")?;
        let uuid = self.text("uuid").map(str::parse);
        new.uuid = uuid.transpose().map_err(|error| wrong("uuid", error))?;
        new.keyslot = self.number("keyslot")?.unwrap_or(0);
        new.preallocate = self.flag("preallocate")?;
        new.cost = self.cost()?;
        Ok(new)
    }

    /// The cost of a new keyslot.
    ///
    /// # Errors
    /// [`Kind::Parameters`], with the name of the option.
    pub fn cost(&self) -> Result<CostOptions, Error> {
        let mut cost = CostOptions {
            function: self.function()?,
            ..CostOptions::default()
        };
        if let Some(time) = self.number::<u32>("iter-time")? {
            cost.time = Duration::from_millis(time.max(1).into());
        }
        cost.iterations = self.number("pbkdf-force-iterations")?;
        cost.memory_kib = self.number("pbkdf-memory")?;
        if cost.memory_kib.is_some_and(|memory| memory < 32) {
            return Err(Error::parameters("pbkdf-memory: at least 32 KiB"));
        }
        cost.lanes = self.number("pbkdf-parallel")?;
        if cost.lanes.is_some_and(|lanes| !(1..=16).contains(&lanes)) {
            return Err(Error::parameters("pbkdf-parallel: 1 to 16"));
        }
        Ok(cost)
    }

    fn function(&self) -> Result<Option<Function>, Error> {
        Ok(Some(match self.text("pbkdf") {
            None => return Ok(None),
            Some("argon2id") => Function::Argon2id,
            Some("argon2i") => Function::Argon2i,
            Some("pbkdf2") => Function::Pbkdf2,
            Some(_) => {
                let message = "pbkdf: it is argon2id, argon2i or pbkdf2";
                return Err(Error::parameters(message));
            }
        }))
    }

    /// The location that a text names.
    ///
    /// # Errors
    /// [`Kind::Parameters`], and [`Kind::Unsupported`] for what luksmith does not open.
    pub fn location(text: &std::ffi::OsStr) -> Result<Location, Error> {
        Ok(Location::parse_openable(text)?)
    }

    /// The error of a task that would lose this, and that `force` permits.
    #[must_use]
    pub fn refused(kind: Kind, loss: impl Into<String>, force: Force) -> Error {
        Error::new(kind, loss.into()).advise(Advice::Permit(force.name()))
    }
}

fn wrong(name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Parameters, error).about(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(options: &[(&str, &str)]) -> Named {
        let mut named = Named::new();
        for (name, value) in options {
            named.set(*name, *value);
        }
        named
    }

    #[test]
    fn a_task_takes_only_its_options() {
        let options = named(&[("label", "a"), ("type", "luks2")]);
        options.check(Task::Create).unwrap();
        let error = options.check(Task::Keyslot).unwrap_err();
        assert_eq!(error.kind(), Kind::Parameters);
        assert!(error.line().contains("\"label\""), "{}", error.line());
        assert!(named(&[("lable", "a")]).check(Task::Create).is_err());
    }

    #[test]
    fn values_are_checked_and_a_later_one_counts() {
        for (name, value) in [
            ("type", "luks3"),
            ("cipher", "rot13"),
            ("key-size", "511"),
            ("key-size", "big"),
            ("hash", "md5"),
            ("sector-size", "513"),
            ("label", "123456789012345678901234567890123456789012345678"),
            ("uuid", "x"),
            ("keyslot", "-1"),
            ("preallocate", "yes"),
            ("pbkdf", "scrypt"),
            ("pbkdf-memory", "31"),
            ("pbkdf-parallel", "17"),
            ("format", "vmdk"),
            ("cluster-size", "4294967296"),
        ] {
            let error = named(&[(name, value)]).new_volume().map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Parameters, "{name}={value}");
            assert!(error.line().starts_with(name), "{}", error.line());
        }
        let options = named(&[("type", "luks3"), ("type", "luks1"), ("key-size", "256")]);
        let new = options.new_volume().unwrap();
        assert_eq!(
            (new.version, new.key_size),
            (Some(Version::Luks1), Some(32))
        );
    }

    #[test]
    fn only_what_is_named_is_permitted() {
        let options = named(&[("force", "shrink,unproven")]);
        assert!(options.permits(Force::Shrink) && options.permits(Force::Unproven));
        assert!(!options.permits(Force::Overwrite) && !Named::new().permits(Force::Shrink));
    }
}
