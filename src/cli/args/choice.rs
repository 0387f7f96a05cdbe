//! Options whose value is one of a list.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// The names of a value, its text in `--help`, and the value. The first name is shown; more follow
/// after `|`. An empty text is none.
pub(crate) type Choice<T> = (&'static str, &'static str, T);

/// A parser of these values.
pub(crate) fn choice<T>(choices: &'static [Choice<T>]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = choices.iter().map(|(names, help, _)| {
        let mut names = names.split('|');
        let value = PossibleValue::new(names.next().unwrap_or_default()).aliases(names);
        match help.is_empty() {
            true => value,
            false => value.help(*help),
        }
    });
    PossibleValuesParser::new(values).try_map(|name| {
        let mut choices = choices.iter();
        let value = choices.find(|(names, ..)| names.split('|').any(|one| one == name));
        value.map(|(.., value)| *value).ok_or("no such value")
    })
}
