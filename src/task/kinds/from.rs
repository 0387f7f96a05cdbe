//! How an error of the library becomes an [`Error`](crate::task::Error).

/// Makes an [`Error`] out of each of the library's, whose kind the named function tells.
macro_rules! kinds {
    ($($error:ty => $kind:ident),* $(,)?) => {$(
        impl From<$error> for $crate::task::Error {
            fn from(error: $error) -> Self {
                Self::new($kind(&error), error)
            }
        }
    )*};
}
pub(super) use kinds;
