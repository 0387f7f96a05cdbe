//! Makes, opens and unlocks volumes.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use luksmith::formats::json::Value;
use luksmith::secret::Purpose;
use luksmith::task::new_volume::{Extent, Plan};
use luksmith::task::open_volume::{Force, Named, OpenVolume, Task};
use luksmith::task::{Error, Kind, Silent, Watch};
use luksmith::volume::Volume;

use crate::error::{ErrorOut, Out, caught, give, null, run};
use crate::key::LuksmithKey;
use crate::options::{LuksmithOptions, named};
use crate::text::{Text, give_text};

/// `luksmith_volume`.
pub struct LuksmithVolume {
    pub(crate) open: OpenVolume,
    pub(crate) watch: Silent,
}

impl LuksmithVolume {
    fn give(open: OpenVolume, watch: Silent, out: Out<'_, *mut Self>) -> Result<(), Error> {
        give(out, Self { open, watch })
    }

    /// The handle at a pointer of the caller.
    pub(crate) fn at(volume: Option<&Self>) -> Result<&Self, Error> {
        volume.ok_or_else(|| null("volume"))
    }

    /// The plaintext behind a pointer of the caller.
    pub(crate) fn plaintext(volume: Option<&Self>) -> Result<Arc<Volume>, Error> {
        Self::at(volume)?.open.volume()
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_create(
    image: *const c_char,
    size: u64,
    options: Option<&LuksmithOptions>,
    key: Option<&LuksmithKey>,
    volume: Out<'_, *mut LuksmithVolume>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        // SAFETY: the header says that it is text.
        let location = Named::location(unsafe { Text::at(image, "image") }?.os())?;
        let named = named(options, Task::Create)?;
        let (watch, new) = (Silent::default(), named.new_volume()?);
        let extent = match size {
            0 => Extent::AllThereIs,
            size => Extent::Exactly(size),
        };
        let plan = Plan::look(new, &location, extent)?;
        if let (Some(loss), false) = (plan.losses().first(), named.permits(Force::Overwrite)) {
            let loss = loss.to_string();
            return Err(Named::refused(Kind::Exists, loss, Force::Overwrite));
        }
        let label = location.to_string();
        let purpose = Purpose::new_secret(&label, watch.interrupt());
        let passphrase = LuksmithKey::read(key, purpose)?;
        let made = plan.make(&passphrase, &watch)?;
        let Some(volume) = volume else {
            return made.keep().map(drop);
        };
        let open = OpenVolume::made(made, named.image(location)?, &Silent::default())?;
        LuksmithVolume::give(open, Silent::default(), Some(volume))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_open(
    image: *const c_char,
    options: Option<&LuksmithOptions>,
    volume: Out<'_, *mut LuksmithVolume>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        // SAFETY: the header says that it is text.
        let location = Named::location(unsafe { Text::at(image, "image") }?.os())?;
        let named = named(options, Task::Open)?;
        let (image, watch) = (named.image(location)?, Silent::default());
        let open = OpenVolume::open(image, named.flag("read-only")?, named.file()?, &watch)?;
        LuksmithVolume::give(open, watch, volume)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_unlock(
    volume: Option<&LuksmithVolume>,
    options: Option<&LuksmithOptions>,
    key: Option<&LuksmithKey>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let LuksmithVolume { open, watch } = LuksmithVolume::at(volume)?;
        let which = named(options, Task::Unlock)?.which()?;
        let label = open.image().location.to_string();
        let purpose = Purpose::unlock(&label, watch.interrupt());
        let passphrase = LuksmithKey::read(key, purpose)?;
        open.unlock(&passphrase, which, watch).map(drop)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_interrupt(volume: Option<&LuksmithVolume>) {
    caught((), || {
        if let Some(volume) = volume {
            volume.watch.interrupt().trigger();
        }
    });
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_info(
    volume: Option<&LuksmithVolume>,
    json: Out<'_, *mut c_char>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let described = LuksmithVolume::at(volume)?.open.describe();
        give_text(json, Value::from(described).to_string())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_close(volume: Option<Box<LuksmithVolume>>) {
    caught((), || drop(volume));
}
