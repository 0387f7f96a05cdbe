//! Options by their names on the command line.

use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};

use luksmith::task::Error;
use luksmith::task::open_volume::{Named, Task};

use crate::error::{ErrorOut, caught, null, run};
use crate::text::Text;

/// `luksmith_options`.
#[derive(Debug, Default)]
pub struct LuksmithOptions(Mutex<Named>);

/// A copy of the options, which are for this task.
pub(crate) fn named(options: Option<&LuksmithOptions>, task: Task) -> Result<Named, Error> {
    let lock = options.map(|options| options.0.lock());
    let named = lock.map(|lock| lock.unwrap_or_else(PoisonError::into_inner).clone());
    let named = named.unwrap_or_default();
    named.check(task)?;
    Ok(named)
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_options_new() -> Option<Box<LuksmithOptions>> {
    caught(None, || Some(Box::default()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_options_set(
    options: Option<&LuksmithOptions>,
    name: *const c_char,
    value: *const c_char,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let options = options.ok_or_else(|| null("options"))?;
        // SAFETY: the header says that it is text.
        let name = unsafe { Text::at(name, "name") }?.utf8()?;
        // SAFETY: the header says that it is text.
        let value = unsafe { Text::at(value, "value") }?.utf8()?;
        let lock = options.0.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
            .set(name, value);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_options_free(options: Option<Box<LuksmithOptions>>) {
    caught((), || drop(options));
}
