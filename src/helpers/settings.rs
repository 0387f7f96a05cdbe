//! The settings of a helper: lines `NAME = VALUE` in a file that no other user can write.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::failure::Failure;
use crate::sys::folder::{Folder, Owners};

/// Where the settings are if they are not beside the helper.
const SYSTEM: &str = "/etc/luksmith";

/// The longest file of settings that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// The settings of a helper.
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    /// The file, for messages.
    path: PathBuf,
}

impl Settings {
    /// Reads `key-NAME.conf` in the folder of the helper, or else in `/etc/luksmith`. Without
    /// either, there are no settings.
    pub(super) fn read(program: &Path, name: &str) -> Result<Self, Failure> {
        let file = format!("key-{name}.conf");
        let beside = program.parent().map(|folder| folder.join(&file));
        let system = Path::new(SYSTEM).join(&file);
        for path in beside.into_iter().chain([system.clone()]) {
            match text(&path) {
                Ok(text) => return Self::of(&text, path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::io(path.display(), &error)),
            }
        }
        Self::of("", system)
    }

    fn of(text: &str, path: PathBuf) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| {
                let (path, number) = (path.display(), number + 1);
                Failure::other(format!("{path}:{number}: {what}"))
            };
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| wrong("a line is NAME = VALUE"))?;
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            if values.insert(name, value).is_some() {
                return Err(wrong("is set twice"));
            }
        }
        Ok(Self { values, path })
    }

    /// Takes a value out.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).filter(|value| !value.is_empty())
    }

    /// Takes an absolute path out.
    pub(super) fn path(&mut self, name: &str, otherwise: &str) -> Result<PathBuf, Failure> {
        let path = PathBuf::from(self.take(name).unwrap_or_else(|| otherwise.to_owned()));
        match path.is_absolute() {
            true => Ok(path),
            false => Err(self.wrong(&format!("{name} is no absolute path"))),
        }
    }

    /// Fails if there are settings that were not taken out.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.wrong(&format!("{name} is no setting of this helper"))),
        }
    }

    pub(super) fn wrong(&self, what: &str) -> Failure {
        Failure::other(format!("{}: {what}", self.path.display()))
    }
}

fn text(path: &Path) -> io::Result<String> {
    let (folder, name) = Folder::resolve_trusted(path, Owners::RootOrUs)?;
    let file = folder.open_file(&name, OFlags::RDONLY)?;
    Owners::RootOrUs.check(path, &file.metadata()?)?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_and_none_is_ignored() {
        let of = |text| Settings::of(text, PathBuf::from("x.conf"));
        let mut settings = of("# a comment\n\n a = b = c \nempty=\n").unwrap();
        assert_eq!(settings.take("a").as_deref(), Some("b = c"));
        assert_eq!(settings.take("empty"), None);
        settings.finish().unwrap();
        for (text, said) in [
            ("a", "NAME = VALUE"),
            ("a=1\na=2", "x.conf:2: is set twice"),
        ] {
            let error = of(text).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
        let error = of("other = 1").unwrap().finish().err().unwrap();
        assert!(error.to_string().contains("other is no setting"), "{error}");
        assert!(of("p = x").unwrap().path("p", "/").is_err());
        assert_eq!(
            of("").unwrap().path("p", "/d").unwrap(),
            PathBuf::from("/d")
        );
    }
}
