//! Errors as handles, and the one way in which a function runs.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use luksmith::task::{Error, Kind};

use crate::text::c_string;

/// `LUKSMITH_OK`.
const OK: c_int = 0;

/// `LUKSMITH_INTERNAL`: a panic, which is a defect of the library, or a kind that this version of
/// the interface does not know.
pub(crate) const INTERNAL: c_int = 100;

/// `luksmith_error`: what happened.
#[derive(Debug)]
pub struct LuksmithError {
    kind: c_int,
    message: CString,
    hint: Option<CString>,
}

/// Where a function puts something: a pointer of the caller, which may be `NULL`.
pub(crate) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// Where a function puts its error.
pub(crate) type ErrorOut<'a> = Out<'a, *mut LuksmithError>;

/// The numbers of the kinds. They never change.
fn number(kind: Kind) -> c_int {
    match kind {
        Kind::Parameters => 1,
        Kind::Permission => 2,
        Kind::WrongPassphrase => 3,
        Kind::Memory => 4,
        Kind::OverLimit => 5,
        Kind::Storage => 6,
        Kind::NoSpace => 7,
        Kind::Damaged => 8,
        Kind::Unsupported => 9,
        Kind::Busy => 10,
        Kind::Exists => 11,
        Kind::Interrupted => 12,
        Kind::NotTrusted => 13,
        _ => INTERNAL,
    }
}

/// The name of a kind by its number. `LUKSMITH_OK` has one too.
fn name(number: c_int) -> &'static CStr {
    match number {
        OK => c"ok",
        1 => c"parameters",
        2 => c"permission",
        3 => c"wrong-passphrase",
        4 => c"memory",
        5 => c"over-limit",
        6 => c"storage",
        7 => c"no-space",
        8 => c"damaged",
        9 => c"unsupported",
        10 => c"busy",
        11 => c"exists",
        12 => c"interrupted",
        13 => c"not-trusted",
        _ => c"internal",
    }
}

impl From<Error> for LuksmithError {
    fn from(error: Error) -> Self {
        Self {
            kind: number(error.kind()),
            message: c_string(error.line()),
            hint: error.hint().map(c_string),
        }
    }
}

/// Runs a function, and returns the number of the kind of its error, or `OK`.
pub(crate) fn run(error: ErrorOut<'_>, work: impl FnOnce() -> Result<(), Error>) -> c_int {
    // After a panic the handles are still whole: the library's locks recover from it.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let failed = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failed)) => Some(LuksmithError::from(failed)),
        Err(_) => Some(LuksmithError {
            kind: INTERNAL,
            message: c"a defect of luksmith; its message is on standard error".to_owned(),
            hint: None,
        }),
    };
    let kind = failed.as_ref().map_or(OK, |failed| failed.kind);
    if let Some(error) = error {
        error.write(failed.map_or(ptr::null_mut(), |failed| Box::into_raw(Box::new(failed))));
    }
    kind
}

/// Runs a function that cannot report an error, and returns `otherwise` after a panic.
pub(crate) fn caught<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    // As in `run`.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// Hands a value to the caller, as a handle.
pub(crate) fn give<T>(out: Out<'_, *mut T>, value: T) -> Result<(), Error> {
    let out = out.ok_or_else(|| null("where the handle goes"))?;
    out.write(Box::into_raw(Box::new(value)));
    Ok(())
}

/// The error for a pointer that may not be `NULL`.
pub(crate) fn null(what: &str) -> Error {
    Error::parameters(format!("{what} is NULL"))
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_error_kind(error: Option<&LuksmithError>) -> c_int {
    caught(INTERNAL, || error.map_or(OK, |error| error.kind))
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_error_message(error: Option<&LuksmithError>) -> *const c_char {
    caught(c"".as_ptr(), || {
        error.map_or(c"".as_ptr(), |error| error.message.as_ptr())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_error_hint(error: Option<&LuksmithError>) -> *const c_char {
    caught(ptr::null(), || {
        let hint = error.and_then(|error| error.hint.as_ref());
        hint.map_or(ptr::null(), |hint| hint.as_ptr())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_error_free(error: Option<Box<LuksmithError>>) {
    caught((), || drop(error));
}

#[unsafe(no_mangle)]
pub extern "C" fn luksmith_kind_name(kind: c_int) -> *const c_char {
    name(kind).as_ptr()
}
