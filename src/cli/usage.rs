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

/// Options of tokens, which are not for every command that reads a passphrase.
const OF_TOKENS: [&str; 5] = [
    "--token",
    "--token-id",
    "--token-type",
    "--tang-url",
    "--tpm2-device",
];

/// Commands that read a passphrase and use no token, by words of them, and what to do instead.
const WITHOUT_TOKENS: [(&str, &str); 8] = [
    (
        "libvirt rotate",
        "it replaces the passphrase that opens, and would remove the keyslot of a token; `luksmith key \
         add IMAGE --token-type TYPE --new-key libvirt:SECRET` gives the secret a keyslot of its own",
    ),
    (
        "libvirt rekey",
        "QEMU decrypts LUKS1, which has no tokens; `luksmith reencrypt IMAGE --token-type TYPE` gives \
         a LUKS2 volume another key",
    ),
    (
        "secret set",
        "there is no volume whose tokens could be used; `luksmith key add IMAGE --token-type TYPE \
         --new-key libvirt:SECRET` adds a keyslot for what the secret holds",
    ),
    (
        "qemu",
        "QEMU decrypts LUKS1, which has no tokens; `luksmith serve IMAGE --token-type TYPE` serves a \
         LUKS2 volume to it",
    ),
    (
        "key rotate",
        "the passphrase is that of --secret; `luksmith key change IMAGE --new-key \
         generate:helper:NAME:REFERENCE` moves another one there",
    ),
    ("provision", NEW_VOLUME),
    ("create", NEW_VOLUME),
    ("encrypt", NEW_VOLUME),
];

const NEW_VOLUME: &str = "a new volume has no tokens; `luksmith key add IMAGE` adds one with its \
                          keyslot (--tpm2, --tang URL, --recovery-key)";

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
        ErrorKind::UnknownArgument if OF_TOKENS.contains(&argument.as_str()) => {
            let mut rows = WITHOUT_TOKENS.iter();
            let row = rows.find(|(words, _)| words.split(' ').all(command));
            row.map(|(_, instead)| (*instead).to_owned())
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
