//! Where passphrases come from.

use std::ffi::{c_char, c_int, c_void};

use luksmith::secret::{Passphrase, Purpose, Wanted};
use luksmith::task::Error;
use luksmith::task::open_volume::Key;

use crate::error::{ErrorOut, Out, caught, give, null, run};
use crate::text::{Text, c_string};

/// `luksmith_key`.
pub struct LuksmithKey(Key<'static>);

/// `luksmith_key_function`: writes at most `size` bytes, and returns how many, or a negative
/// number.
pub type KeyFunction = unsafe extern "C" fn(
    data: *mut c_void,
    what: *const c_char,
    is_new: c_int,
    buffer: *mut u8,
    size: usize,
) -> isize;

/// What the caller wants its function to get.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: the library only hands the pointer to the function of the caller. The header says that
// keys are used by any thread.
unsafe impl Send for Data {}
// SAFETY: as for `Send`.
unsafe impl Sync for Data {}

impl Data {
    fn get(self) -> *mut c_void {
        self.0
    }
}

impl LuksmithKey {
    /// Reads the passphrase that `key` says.
    pub(crate) fn read(key: Option<&Self>, purpose: Purpose<'_>) -> Result<Passphrase, Error> {
        key.ok_or_else(|| null("the key"))?.0.read(purpose)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_key_source(
    source: *const c_char,
    key: Out<'_, *mut LuksmithKey>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        // SAFETY: the header says that it is text.
        let source = unsafe { Text::at(source, "source") }?;
        give(key, LuksmithKey(Key::source(source.utf8()?)?))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_key_callback(
    function: Option<KeyFunction>,
    data: *mut c_void,
    key: Out<'_, *mut LuksmithKey>,
    error: ErrorOut<'_>,
) -> c_int {
    run(error, || {
        let function = function.ok_or_else(|| null("function"))?;
        let data = Data(data);
        let ask = move |purpose: Purpose<'_>, buffer: &mut [u8]| {
            let what = c_string(purpose.label.to_owned());
            let is_new = c_int::from(purpose.what == Wanted::New);
            let (start, size) = (buffer.as_mut_ptr(), buffer.len());
            // SAFETY: the header says what the function does with its parameters.
            let length = unsafe { function(data.get(), what.as_ptr(), is_new, start, size) };
            usize::try_from(length).ok()
        };
        give(key, LuksmithKey(Key::Function(Box::new(ask))))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_key_free(key: Option<Box<LuksmithKey>>) {
    caught((), || drop(key));
}
