//! Checks an image of unknown origin.

use std::ffi::{c_char, c_int};

use luksmith::formats::json::Value;
use luksmith::task::Silent;
use luksmith::task::open_volume::{Named, Task, inspect};

use crate::error::{ErrorOut, Out, run};
use crate::options::{LuksmithOptions, named};
use crate::text::{Text, give_text};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_inspect(
    image: *const c_char,
    format: *const c_char,
    options: Option<&LuksmithOptions>,
    json: Out<'_, *mut c_char>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        // SAFETY: the header says that it is text.
        let location = Named::location(unsafe { Text::at(image, "image") }?.os())?;
        // SAFETY: the header says that it is text.
        let format = unsafe { Text::at(format, "format") }?.utf8()?;
        let named = named(options, Task::Inspect)?;
        let found = inspect(&location, format, &named, &Silent::default())?;
        give_text(json, Value::from(found).to_string())
    })
}
