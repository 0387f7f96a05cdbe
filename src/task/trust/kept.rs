//! The storage of a volume of which this host keeps tags.

use std::sync::Arc;

use crate::backend::Backend;
use crate::container::{Container, Unlocked};
use crate::task::{Advice, Error, Kind};
use crate::trust::TrustDir;
use crate::trust::tags::{Access, StoreFiles, Tagged, TagsError, TagsOptions, has_tags};

/// Where this host keeps the tags of a volume, and how.
#[derive(Clone, Debug)]
pub(in crate::task) struct Kept {
    pub(in crate::task) dir: TrustDir,
    pub(in crate::task) options: TagsOptions,
}

/// A task that does not keep tags up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::task) enum Task {
    Reencryption,
    /// A server lets its clients begin a reencryption.
    Control,
    Resize,
    /// The kernel decrypts.
    Kernel,
    /// QEMU decrypts.
    #[cfg(feature = "libvirt")]
    Emulator,
}

impl Task {
    /// What it is called, and what is possible with tags.
    fn words(self) -> (&'static str, Option<Advice>) {
        match self {
            Self::Reencryption => ("a reencryption", None),
            Self::Control => (
                "the control of a reencryption",
                Some(Advice::WithoutControl),
            ),
            Self::Resize => ("another size", None),
            Self::Kernel => ("a device of the kernel", Some(Advice::ServeToKernel)),
            #[cfg(feature = "libvirt")]
            Self::Emulator => ("decryption by QEMU", Some(Advice::ServeToQemu)),
        }
    }
}

impl Kept {
    /// Whether a volume has tags.
    pub(in crate::task) fn has_tags(&self, container: &Container) -> Result<bool, Error> {
        match self.dir.entry(container.uuid())? {
            Some(entry) => Ok(has_tags(&entry)?),
            None => Ok(false),
        }
    }

    /// The storage of the data of a volume, compared with its tags. `None` if it has none, which is
    /// an error if the options say how they are used.
    pub(in crate::task) fn tagged(
        &self,
        data: &Arc<dyn Backend>,
        container: &Container,
        unlocked: &Unlocked,
    ) -> Result<Option<Arc<Tagged>>, Error> {
        let access = match data.geometry().read_only {
            true => Access::Read,
            false => Access::Write,
        };
        let entry = self.dir.entry(container.uuid())?;
        let found = match &entry {
            Some(entry) => StoreFiles::open(entry, access)?.map(|files| (entry, files)),
            None => None,
        };
        let Some((entry, files)) = found else {
            return match self.options.need_tags() {
                true => Err(TagsError::Missing.into()),
                false => Ok(None),
            };
        };
        let covered = container.covered(&**data, unlocked)?;
        let key = container.tag_key(entry.uuid(), unlocked)?;
        let options = self.options.clone();
        let tagged = Tagged::open(data.clone(), covered, key, files, options)?;
        Ok(Some(Arc::new(tagged)))
    }

    /// Fails if a volume has tags, for a task that does not keep them up.
    pub(in crate::task) fn refuse(&self, container: &Container, task: Task) -> Result<(), Error> {
        match self.has_tags(container)? {
            false => Ok(()),
            true => {
                let (what, advice) = task.words();
                let message = format!("{what} is not possible for a volume with tags");
                let mut error = Error::new(Kind::Unsupported, message);
                if let Some(advice) = advice {
                    error = error.advise(advice);
                }
                Err(error.advise(Advice::WithoutTags))
            }
        }
    }
}
