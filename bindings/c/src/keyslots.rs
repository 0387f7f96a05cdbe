//! Changes of keyslots. `luksmith_info` lists them.

use std::ffi::c_int;

use luksmith::secret::Purpose;
use luksmith::task::Watch;
use luksmith::task::open_volume::{Force, Removal, Task};

use crate::error::{ErrorOut, Out, run};
use crate::key::LuksmithKey;
use crate::options::{LuksmithOptions, named};
use crate::volume::LuksmithVolume;

/// Tells the caller a number, if it wants to know it.
fn tell(out: Out<'_, u32>, number: u32) {
    if let Some(out) = out {
        out.write(number);
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_keyslot_add(
    volume: Option<&LuksmithVolume>,
    options: Option<&LuksmithOptions>,
    new_key: Option<&LuksmithKey>,
    keyslot: Out<'_, u32>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let LuksmithVolume { open, watch } = LuksmithVolume::at(volume)?;
        let named = named(options, Task::Keyslot)?;
        let (slot, cost) = (named.number("keyslot")?, named.cost()?);
        open.volume()?;
        let label = format!("a new keyslot of {}", open.image().location);
        let purpose = Purpose::new_secret(&label, watch.interrupt());
        let new = LuksmithKey::read(new_key, purpose)?;
        tell(keyslot, open.add_keyslot(&new, slot, &cost, watch)?);
        Ok(())
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
    run(error, || {
        let LuksmithVolume { open, watch } = LuksmithVolume::at(volume)?;
        let named = named(options, Task::Keyslot)?;
        let (slot, cost) = (named.number("keyslot")?, named.cost()?);
        let label = open.image().location.to_string();
        let old = LuksmithKey::read(old_key, Purpose::unlock(&label, watch.interrupt()))?;
        let new = LuksmithKey::read(new_key, Purpose::new_secret(&label, watch.interrupt()))?;
        tell(
            keyslot,
            open.change_keyslot(&old, slot, &new, &cost, watch)?,
        );
        Ok(())
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
