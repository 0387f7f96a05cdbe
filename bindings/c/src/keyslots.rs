//! Changes of keyslots. `luksmith_info` lists them.

use std::ffi::c_int;

use luksmith::secret::Purpose;
use luksmith::task::cost::CostOptions;
use luksmith::task::open_volume::{Force, Removal, Task};
use luksmith::task::{Error, Watch};

use crate::error::{ErrorOut, Out, run};
use crate::key::LuksmithKey;
use crate::options::{LuksmithOptions, named};
use crate::volume::LuksmithVolume;

/// Makes a keyslot of the cost that the options state, and tells the caller its number, if it wants
/// to know it. `made` gets the keyslot that the options name.
fn make(
    volume: Option<&LuksmithVolume>,
    options: Option<&LuksmithOptions>,
    (keyslot, error): (Out<'_, u32>, ErrorOut<'_>),
    made: impl FnOnce(&LuksmithVolume, Option<u32>, &CostOptions) -> Result<u32, Error>,
) -> c_int {
    run(error, || {
        let volume = LuksmithVolume::at(volume)?;
        let named = named(options, Task::Keyslot)?;
        let (slot, cost) = (named.number("keyslot")?, named.cost()?);
        let number = made(volume, slot, &cost)?;
        if let Some(out) = keyslot {
            out.write(number);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_keyslot_add(
    volume: Option<&LuksmithVolume>,
    options: Option<&LuksmithOptions>,
    new_key: Option<&LuksmithKey>,
    keyslot: Out<'_, u32>,
    error: ErrorOut<'_>,
) -> c_int {
    make(volume, options, (keyslot, error), |volume, slot, cost| {
        let LuksmithVolume { open, watch } = volume;
        open.volume()?;
        let label = format!("a new keyslot of {}", open.image().location);
        let purpose = Purpose::new_secret(&label, watch.interrupt());
        let new = LuksmithKey::read(new_key, purpose)?;
        open.add_keyslot(&new, slot, cost, watch)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_keyslot_change(
    volume: Option<&LuksmithVolume>,
    options: Option<&LuksmithOptions>,
    old_key: Option<&LuksmithKey>,
    new_key: Option<&LuksmithKey>,
    keyslot: Out<'_, u32>,
    error: ErrorOut<'_>,
) -> c_int {
    make(volume, options, (keyslot, error), |volume, slot, cost| {
        let LuksmithVolume { open, watch } = volume;
        let label = open.image().location.to_string();
        let old = LuksmithKey::read(old_key, Purpose::unlock(&label, watch.interrupt()))?;
        let new = LuksmithKey::read(new_key, Purpose::new_secret(&label, watch.interrupt()))?;
        open.change_keyslot(&old, slot, &new, cost, watch)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_keyslot_remove(
    volume: Option<&LuksmithVolume>,
    keyslot: u32,
    options: Option<&LuksmithOptions>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let named = named(options, Task::Change)?;
        let mut removal = Removal::of(keyslot);
        removal.last = named.permits(Force::LastKeyslot);
        removal.unproven = named.permits(Force::Unproven);
        LuksmithVolume::at(volume)?
            .open
            .remove_keyslot(removal)
            .map(drop)
    })
}
