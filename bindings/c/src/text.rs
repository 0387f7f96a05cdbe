//! Text from and to C.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use luksmith::task::Error;

use crate::error::{Out, caught, null};

/// The text at a pointer of the caller.
pub(crate) struct Text<'a>(&'a CStr);

impl<'a> Text<'a> {
    /// The text at `text`. `what` is for the error if it is `NULL`.
    ///
    /// # Safety
    /// `text` is `NULL`, or points to bytes that end with a zero and stay so for `'a`.
    pub(crate) unsafe fn at(text: *const c_char, what: &str) -> Result<Self, Error> {
        if text.is_null() {
            return Err(null(what));
        }
        // SAFETY: the caller states it.
        Ok(Self(unsafe { CStr::from_ptr(text) }))
    }

    /// The bytes, as of a path.
    pub(crate) fn os(&self) -> &'a OsStr {
        OsStr::from_bytes(self.0.to_bytes())
    }

    /// The text, which has to be UTF-8.
    pub(crate) fn utf8(&self) -> Result<&'a str, Error> {
        let text = self.0.to_str();
        text.map_err(|_| Error::parameters("a text is not UTF-8"))
    }
}

/// The text up to its first zero, which no message and no JSON has.
pub(crate) fn c_string(text: String) -> CString {
    let mut bytes = text.into_bytes();
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    CString::new(bytes).unwrap_or_default()
}

/// Hands text to the caller, who frees it with `luksmith_string_free`.
pub(crate) fn give_text(out: Out<'_, *mut c_char>, text: String) -> Result<(), Error> {
    let out = out.ok_or_else(|| null("where the text goes"))?;
    out.write(c_string(text).into_raw());
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn luksmith_string_free(string: *mut c_char) {
    caught((), || {
        if !string.is_null() {
            // SAFETY: the caller has it from `give_text`, and does not use it any more.
            drop(unsafe { CString::from_raw(string) });
        }
    });
}
