//! Hints for arguments that clap does not understand.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::size;

/// The commands with `--size`.
const SIZED: [&str; 4] = ["create", "encrypt", "resize", "provision"];

/// Options of cryptsetup that no command here takes, or not this one, and what does the same.
const OF_CRYPTSETUP: [&str; 9] = [
    "-y --verify-passphrase: a new passphrase that is typed is asked for twice",
    "-t: nothing limits how long a passphrase is typed; `timeout 60 luksmith …` does",
    "-T --tries: a passphrase can be typed three times",
    "--batch-mode: --force WHAT goes on without asking; --help says what it permits",
    "--readonly: `luksmith serve --read-only` serves a volume for reading",
    "-d --key-file: this command needs no passphrase",
    "--test-passphrase: `luksmith key test IMAGE` does that",
    "--dump-volume-key: `luksmith key volume-key IMAGE --out FILE` does that",
    "--allow-discards: `luksmith serve --discard pass` passes discards on",
];

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
        ErrorKind::UnknownArgument => OF_CRYPTSETUP.iter().find_map(|row| {
            let (options, hint) = row.split_once(": ")?;
            let named = options.split(' ').any(|option| option == argument);
            named.then(|| hint.to_owned())
        }),
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
