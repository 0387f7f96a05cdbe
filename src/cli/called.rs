//! The program with the one subcommand that is called: to make the arguments of all subcommands
//! takes longer than all else at the start. What is not understood is parsed again with all of
//! them.

use clap::{Args as _, Command, Subcommand as _};

use super::{
    audit, benchmark, completions, config, convert, copy, create, decrypt, dm_table, encrypt,
    header, identify, info, inspect, key, libvirt, man, mount, objects, qemu, reencrypt, resize,
    serve, token, trust, unmount, verify_ciphertext,
};

/// Makes the arguments of a subcommand.
type Make = fn(Command) -> Command;

/// The program, with the subcommand of this name, if there is one.
pub(super) fn with(program: Command, name: &str) -> Command {
    match ALL.iter().find(|(known, _)| *known == name) {
        Some((name, make)) => program.subcommand(make(Command::new(*name))),
        None => program,
    }
}

/// All subcommands.
const ALL: [(&str, Make); 27] = [
    ("create", create::Args::augment_args),
    ("encrypt", encrypt::Args::augment_args),
    ("decrypt", decrypt::Args::augment_args),
    ("copy", copy::Args::augment_args),
    ("info", info::Args::augment_args),
    ("inspect", inspect::Args::augment_args),
    ("identify", identify::Args::augment_args),
    ("audit", audit::Args::augment_args),
    ("key", key::Command::augment_subcommands),
    ("header", header::Command::augment_subcommands),
    ("convert", convert::Args::augment_args),
    ("token", token::Command::augment_subcommands),
    ("config", config::Args::augment_args),
    ("resize", resize::Args::augment_args),
    ("reencrypt", reencrypt::Args::augment_args),
    ("serve", serve::Args::augment_args),
    ("mount", mount::Args::augment_args),
    ("trust", trust::Command::augment_subcommands),
    ("unmount", unmount::Args::augment_args),
    ("qemu", qemu::Command::augment_subcommands),
    ("libvirt", libvirt::Command::augment_subcommands),
    ("objects", objects::Command::augment_subcommands),
    ("verify-ciphertext", verify_ciphertext::Args::augment_args),
    ("benchmark", benchmark::Args::augment_args),
    ("dm-table", dm_table::Args::augment_args),
    ("completions", completions::Args::augment_args),
    ("man", man::Args::augment_args),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(command: &Command) -> Vec<String> {
        let own = command.get_arguments().map(|arg| arg.get_id().to_string());
        let below = command.get_subcommands().flat_map(ids);
        own.chain(below).collect()
    }

    #[test]
    fn each_subcommand_is_made_with_its_arguments() {
        let all = crate::cli::command();
        assert_eq!(all.get_subcommands().count(), ALL.len());
        for sub in all.get_subcommands() {
            let program = with(Command::new("luksmith"), sub.get_name());
            let made = program.find_subcommand(sub.get_name());
            assert_eq!(made.map(ids), Some(ids(sub)), "{}", sub.get_name());
        }
    }
}
