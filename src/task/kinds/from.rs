//! Converts errors of the library into an [`Error`](crate::task::Error).

/// Converts each of these errors into an [`Error`], whose kind the named function returns.
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
