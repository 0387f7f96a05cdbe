//! What `-h` shows: the options that are often needed, each with the first clause of its text, so
//! that the help of every command fits a screen. `--help` shows all options and the examples.

use clap::{Arg, Command};

/// The headings of which `-h` shows no option.
const RARE_HEADINGS: [&str; 4] = [
    "Limits on the key derivation that a header states",
    "Storage on a server",
    "Disk",
    "Token",
];

/// Headings and ids that `-h` of one command leaves out.
const RARE_IN: &[(&str, &str)] = &[
    ("copy", "Key derivation"),
    ("copy", "header"),
    ("copy", "keyslot"),
    ("copy", "source_header"),
    ("copy", "sparse"),
    ("create", "keyslot"),
    ("encrypt", "Key derivation"),
    ("encrypt", "keyslot"),
    ("encrypt", "sparse"),
    ("luksmith", "json"),
    ("luksmith", "quiet"),
    ("luksmith", "verbose"),
    ("mount", "control"),
    ("mount", "keyslot"),
    ("mount", "no_reencrypt"),
    ("provision", "Format"),
    ("provision", "Key derivation"),
    ("reencrypt", "Key derivation"),
    ("reencrypt", "export"),
    ("reencrypt", "force_weak"),
    ("reencrypt", "header"),
    ("serve", "control"),
    ("serve", "exit_when_idle"),
    ("serve", "header"),
    ("serve", "insecure"),
    ("serve", "keyslot"),
    ("serve", "name"),
    ("serve", "no_reencrypt"),
    ("serve", "on_tamper"),
    ("serve", "tags_relaxed"),
];

/// More options that `-h` leaves out, by their ids.
const RARE: &[&str] = &[
    "allow_uid",
    "ceph_config",
    "clients_per_peer",
    "cluster_size",
    "color",
    "compressed_plaintext",
    "description",
    "emulator_user",
    "exit_with_parent",
    "force_share",
    "guest_encrypted",
    "handshake_time",
    "hash",
    "helper_dir",
    "keep_owner",
    "keyfile_offset",
    "key_size",
    "keyfile_size",
    "label",
    "login",
    "login_secret",
    "luks2_keyslots_size",
    "luks2_metadata_size",
    "max_connections",
    "monitor",
    "new_keyfile_offset",
    "new_keyfile_size",
    "offset",
    "pid_file",
    "pbkdf_force_iterations",
    "pbkdf_memory",
    "pbkdf_parallel",
    "resilience_hash",
    "zone_size",
    "preallocate",
    "progress",
    "ready_fd",
    "sector_size",
    "socket_group",
    "socket_mode",
    "state_dir",
    "subsystem",
    "tls_cert",
    "tls_client_ca",
    "tls_key",
    "transport_is_enough",
    "trust",
    "undo_file",
    "uuid",
    "volume_key_file",
];

/// The command and its subcommands with short and long help. `path` is how it is called.
pub(super) fn arrange(command: Command, path: &str) -> Command {
    let name = command.get_name().to_owned();
    let path = format!("{path}{name}");
    let examples = command.get_after_help().cloned().unwrap_or_default();
    let more = format!("`{path} --help` has all options, and examples.");
    let command = command.after_long_help(examples).after_help(more);
    let path = format!("{path} ");
    command
        .mut_args(|arg| shorten(arg, &name))
        .mut_subcommands(|sub| arrange(sub, &path))
}

fn shorten(arg: Arg, command: &str) -> Arg {
    let heading = arg.get_help_heading().unwrap_or_default();
    let id = arg.get_id().as_str();
    let rare = RARE_HEADINGS.contains(&heading)
        || RARE.contains(&id)
        || [heading, id]
            .iter()
            .any(|name| RARE_IN.contains(&(command, name)));
    let rare = rare && !arg.is_required_set();
    let arg = arg.hide_short_help(rare);
    match arg.get_help().map(ToString::to_string) {
        Some(text) if arg.get_long_help().is_none() => {
            let first = first_clause(&text, arg.is_positional()).to_owned();
            arg.help(first).long_help(text)
        }
        _ => arg,
    }
}

/// The text before a further sentence, clause, parenthesis or default, and of an option also before
/// a list of its values.
fn first_clause(text: &str, positional: bool) -> &str {
    let ends = [". ", "; ", " (", " [", ": "];
    let ends = ends.iter().take(if positional { 4 } else { 5 });
    let end = ends.filter_map(|end| text.find(end)).min();
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rare_option_is_an_option() {
        fn ids(command: &Command, into: &mut Vec<String>) {
            into.extend(command.get_arguments().map(|arg| arg.get_id().to_string()));
            command.get_subcommands().for_each(|sub| ids(sub, into));
        }
        let mut all = Vec::new();
        ids(&crate::cli::command(), &mut all);
        for rare in RARE {
            assert!(all.iter().any(|id| id == rare), "{rare}");
        }
    }
}
