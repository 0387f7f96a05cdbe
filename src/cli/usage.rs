//! Hints for arguments that clap does not understand.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::size;

/// The commands with `--size`.
const SIZED: [&str; 4] = ["create", "encrypt", "resize", "provision"];

/// What the user probably meant.
pub(crate) fn hint(error: &clap::Error) -> Option<String> {
    let text = error.to_string();
    let usage = text.split("Usage: ").nth(1).unwrap_or_default();
    let command = |name: &str| usage.split_whitespace().any(|word| word == name);
    let argument = match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.join(" "),
        _ => return None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument
            if size::is_size(&argument) && SIZED.iter().any(|name| command(name)) =>
        {
            Some(format!("--size {argument} is the size that the guest sees"))
        }
        ErrorKind::MissingRequiredArgument
            if argument.contains("--format") && command("inspect") =>
        {
            Some(
                "--format states what the image claims to be; `luksmith identify IMAGE` says what \
                 it looks like"
                    .to_owned(),
            )
        }
        _ => None,
    }
}
