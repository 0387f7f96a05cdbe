//! A row of the table of hints, and the macro that makes a table.

/// The hint, if there is one.
pub(super) type Hint = Option<String>;

/// What a row of the table says.
pub(super) trait Row {
    fn hint(self) -> Hint;
}

impl Row for &str {
    fn hint(self) -> Hint {
        Some(self.to_owned())
    }
}

impl Row for String {
    fn hint(self) -> Hint {
        Some(self)
    }
}

impl Row for Hint {
    fn hint(self) -> Hint {
        self
    }
}

macro_rules! hints {
    (else $rest:path; $($error:ty { $($pattern:pat $(if $guard:expr)? => $row:expr,)* })*) => {
        /// The hint for this error.
        pub(crate) fn hint(error: &(dyn Error + 'static)) -> Hint {
            $(if let Some(error) = error.downcast_ref::<$error>() {
                #[allow(unreachable_patterns)] // where one row is for the whole type
                return match error {
                    $($pattern $(if $guard)? => Row::hint($row),)*
                    _ => None,
                };
            })*
            $rest(error)
        }
    };
}
