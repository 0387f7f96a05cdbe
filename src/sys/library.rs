//! Shared libraries in C, loaded when they are first needed, so that no build depends on them.

/// Why a library cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The library is not installed.
    #[error("{library} is not installed")]
    NotInstalled {
        /// The file name of the library.
        library: &'static str,
        /// The loader's error.
        source: libloading::Error,
    },
    /// The library is installed, but is damaged or lacks a library that it needs itself.
    #[error("the installed {library} cannot be loaded")]
    Broken {
        /// The file name of the library.
        library: &'static str,
        /// The loader's error.
        source: libloading::Error,
    },
    /// The library is older than this crate needs.
    #[error("the installed {library} is too old: it has no {function}")]
    TooOld {
        /// The file name of the library.
        library: &'static str,
        /// The function that it lacks.
        function: &'static str,
    },
}

impl LoadError {
    /// The variant for a library that could not be loaded.
    pub(crate) fn unloaded(library: &'static str, source: libloading::Error) -> Self {
        let says = std::error::Error::source(&source)
            .map_or_else(|| source.to_string(), |inner| inner.to_string());
        // Where a library that it needs is missing, the loader names that one first.
        match says.starts_with(library) && says.contains("No such file") {
            true => Self::NotInstalled { library, source },
            false => Self::Broken { library, source },
        }
    }
}

/// Declares a table of the functions of a library, which `get` loads. A name is followed by the
/// type of the function, which has to be the signature in the library's headers.
macro_rules! functions {
    ($(#[$about:meta])* $visible:vis struct $table:ident of $library:ident {
        $($name:ident: $shape:ty = $symbol:literal,)*
    }) => {
        $(#[$about])*
        $visible struct $table {
            $($visible $name: $shape,)*
        }

        impl $table {
            /// The table, which stays loaded until the process ends. `start` is called once, before
            /// it is used. A library that could not be loaded is tried again at the next call.
            fn get<E: From<$crate::sys::library::LoadError>>(
                start: impl FnOnce(&'static Self) -> Result<(), E>,
            ) -> Result<&'static Self, E> {
                use $crate::sys::library::LoadError;

                static LOADED: std::sync::Mutex<Option<&'static $table>> =
                    std::sync::Mutex::new(None);
                let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(table) = *loaded {
                    return Ok(table);
                }
                // SAFETY: the library's constructors need nothing of the program that loads it.
                let library = unsafe { libloading::Library::new($library) };
                let library = library.map_err(|source| LoadError::unloaded($library, source))?;
                // Never unloaded: it may have threads and thread-local state.
                let library: &'static libloading::Library = Box::leak(Box::new(library));
                let table: &'static Self = Box::leak(Box::new(Self {$(
                    $name: {
                        // SAFETY: the type has the signature of the declaration in the library's
                        // headers, which its ABI keeps.
                        let symbol = unsafe { library.get::<$shape>($symbol) };
                        *symbol.map_err(|_| LoadError::TooOld {
                            library: $library,
                            function: $symbol,
                        })?
                    },
                )*}));
                start(table)?;
                *loaded = Some(table);
                Ok(table)
            }
        }
    };
}
pub(crate) use functions;
