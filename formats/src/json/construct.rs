//! Converts Rust's types into values, and has the macro `json!`, which looks like JSON.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use super::number::Number;
use super::value::{Object, Value};

/// A [`Value`] that is written as JSON: literals and expressions that convert into a `Value`, in
/// arrays and in objects whose names are literals or expressions in parentheses.
#[doc(hidden)]
#[macro_export]
macro_rules! __json {
    (@members $object:ident) => {};
    (@members $object:ident $name:tt : null $(, $($rest:tt)*)?) => {
        $object.insert($name, $crate::json::Value::Null);
        $crate::__json!(@members $object $($($rest)*)?);
    };
    (@members $object:ident $name:tt : {$($value:tt)*} $(, $($rest:tt)*)?) => {
        $object.insert($name, $crate::__json!({$($value)*}));
        $crate::__json!(@members $object $($($rest)*)?);
    };
    (@members $object:ident $name:tt : [$($value:tt)*] $(, $($rest:tt)*)?) => {
        $object.insert($name, $crate::__json!([$($value)*]));
        $crate::__json!(@members $object $($($rest)*)?);
    };
    (@members $object:ident $name:tt : $value:expr $(, $($rest:tt)*)?) => {
        $object.insert($name, $crate::json::Value::from(&$value));
        $crate::__json!(@members $object $($($rest)*)?);
    };
    (@elements $array:ident) => {};
    (@elements $array:ident null $(, $($rest:tt)*)?) => {
        $array.extend([$crate::json::Value::Null]);
        $crate::__json!(@elements $array $($($rest)*)?);
    };
    (@elements $array:ident {$($value:tt)*} $(, $($rest:tt)*)?) => {
        $array.extend([$crate::__json!({$($value)*})]);
        $crate::__json!(@elements $array $($($rest)*)?);
    };
    (@elements $array:ident [$($value:tt)*] $(, $($rest:tt)*)?) => {
        $array.extend([$crate::__json!([$($value)*])]);
        $crate::__json!(@elements $array $($($rest)*)?);
    };
    (@elements $array:ident $value:expr $(, $($rest:tt)*)?) => {
        $array.extend([$crate::json::Value::from(&$value)]);
        $crate::__json!(@elements $array $($($rest)*)?);
    };
    (null) => { $crate::json::Value::Null };
    ({}) => { $crate::json::Value::Object($crate::json::Object::new()) };
    ({$($members:tt)+}) => {{
        let mut object = $crate::json::Object::new();
        $crate::__json!(@members object $($members)+);
        $crate::json::Value::Object(object)
    }};
    ([]) => { $crate::json::Value::Array($crate::json::__Vec::new()) };
    ([$($elements:tt)+]) => {{
        let mut array = $crate::json::__Vec::new();
        $crate::__json!(@elements array $($elements)+);
        $crate::json::Value::Array(array)
    }};
    ($value:expr) => { $crate::json::Value::from(&$value) };
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Self {
        Self::String(text.into_owned())
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Self::Number(number)
    }
}

/// `null` for what is infinite or not a number.
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Number::from_f64(number).map_or(Self::Null, Self::Number)
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Value {
            fn from(number: $integer) -> Self {
                Self::Number(number.into())
            }
        }
    )*};
}
integers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

/// `null` for `None`.
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        elements.into_iter().collect()
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Value {
    fn from(elements: [T; N]) -> Self {
        elements.into_iter().collect()
    }
}

impl<T: Clone + Into<Self>> From<&[T]> for Value {
    fn from(elements: &[T]) -> Self {
        elements.iter().cloned().collect()
    }
}

impl<T: Clone + Into<Self>> From<&T> for Value {
    fn from(value: &T) -> Self {
        value.clone().into()
    }
}

/// An array.
impl<T: Into<Self>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self::Array(elements.into_iter().map(T::into).collect())
    }
}
