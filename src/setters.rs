//! Setters of options, as those of [`std::fs::OpenOptions`], but by value:
//! `Options::new().write(true)`.

/// For each `name: Type`, a method that sets the field `name` and returns the options.
macro_rules! setters {
    ($($(#[$attribute:meta])* $field:ident: $type:ty,)*) => {$(
        $(#[$attribute])*
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )*};
}
