//! Arguments that are not understood: the errors of clap in this program's form, and answers to the
//! habits of users of cryptsetup, qemu-img and virsh.

use std::ffi::{OsStr, OsString};

use clap::Command;
use clap::error::{ContextKind, ErrorKind};

use super::error::{CommandError, Exit, Kind};
use super::{output, terminal, usage};

/// What the program says without any argument.
const ORIENTATION: &str = "\
luksmith creates, opens and maintains LUKS volumes, without root and without mounting.

  luksmith create disk.img --size 10G         a new volume in a file
  luksmith encrypt plain.img disk.img         encrypt a plain image into a new volume
  luksmith info disk.img                      its header and keyslots
  luksmith key add disk.img                   add another passphrase
  luksmith decrypt disk.img plain.img         the plaintext again
  luksmith serve disk.img --socket vm/nbd     the plaintext for QEMU, over NBD

`luksmith -h` lists the commands, and `luksmith COMMAND -h` explains one. A command of cryptsetup,
qemu-img or virsh, such as `luksmith luksFormat`, is answered with the one that does the same.
";

/// Prints a message of clap (help and version on stdout, errors on stderr) and returns the exit
/// code.
pub(super) fn report(error: &clap::Error, args: &[OsString], command: &Command) -> u8 {
    terminal::choose_from(args);
    let text = error.render().to_string();
    let failed = match error.kind() {
        ErrorKind::DisplayHelp => match short_help_beside(args, command) {
            None => match output::stdout_raw(&text) {
                Ok(()) => return 0,
                Err(failed) => failed,
            },
            Some(failed) => {
                output::help(&text);
                failed
            }
        },
        ErrorKind::DisplayVersion => match output::stdout_raw(&text) {
            Ok(()) => return 0,
            Err(failed) => failed,
        },
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::help(if args.is_empty() { ORIENTATION } else { &text });
            return Exit::from(Kind::Parameters).code();
        }
        _ => match foreign_verb(error) {
            Some(failed) => failed,
            None => lines(&text, usage::hint(error)),
        },
    };
    output::report(&failed);
    failed.exit_code()
}

/// An error of clap: its first paragraph is the message; what the user probably meant, or else
/// clap's tips, and the usage are hints.
fn lines(text: &str, meant: Option<String>) -> CommandError {
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines = paragraph.lines().map(str::trim).collect::<Vec<_>>();
        lines.join(" ")
    });
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first);
    let unknown = meant.is_none();
    let error = CommandError::parameters(message).hint_if(meant);
    paragraphs.fold(error, |error, paragraph| {
        let paragraph = paragraph.trim();
        match paragraph.split_once(": ") {
            Some(("tip", tip)) if unknown => error.hint(tip),
            Some(("Usage", usage)) => error.hint(format!("usage: {usage}")),
            _ if paragraph.starts_with("For more information") => {
                error.hint("--help explains every option")
            }
            _ => error,
        }
    })
}

/// Why `-h` beside other arguments fails. In cryptsetup it is short for `--hash HASH`: a script
/// that means that must not take the help for success.
fn short_help_beside(args: &[OsString], command: &Command) -> Option<CommandError> {
    let mut command = command;
    let mut args = args.iter().map(OsString::as_os_str).peekable();
    while let Some(sub) = args.peek().and_then(|name| command.find_subcommand(name)) {
        command = sub;
        args.next();
    }
    let args: Vec<&OsStr> = args.collect();
    let text = |at: usize| args.get(at).and_then(|arg| arg.to_str());
    let at = (0..args.len()).find(|&at| text(at).is_some_and(|arg| arg.starts_with("-h")))?;
    if args.len() == 1 && text(at) == Some("-h") || args.iter().any(|arg| *arg == "--help") {
        return None;
    }
    let hash = match text(at).and_then(|arg| arg.strip_prefix("-h")) {
        Some("") | None => text(at + 1).filter(|next| !next.starts_with('-')),
        joined => joined,
    };
    let error = CommandError::parameters("-h beside other arguments: here it prints the help");
    let takes_hash = command
        .get_arguments()
        .any(|arg| arg.get_long() == Some("hash"));
    Some(error.hint(match (takes_hash, hash) {
        (true, Some(hash)) => format!("cryptsetup's -h {hash} is --hash {hash}"),
        (true, None) => "cryptsetup's -h HASH is --hash HASH".to_owned(),
        (false, _) => {
            "cryptsetup's -h HASH is --hash HASH, which this command does not take".to_owned()
        }
    }))
}

/// The page with the table of commands of cryptsetup, qemu-img and virsh.
const README: &str = include_str!("../../README.md");

/// The rows of that table: the task, the commands of cryptsetup, those of qemu-img and virsh, and
/// the one of luksmith.
fn table() -> impl Iterator<Item = [&'static str; 4]> {
    let rows = README
        .split("\n## If you know cryptsetup")
        .nth(1)
        .unwrap_or_default()
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        Some([cells.next()?, cells.next()?, cells.next()?, cells.next()?])
    })
}

/// The answer to a command of cryptsetup, qemu-img or virsh.
fn foreign_verb(error: &clap::Error) -> Option<CommandError> {
    let verb = error.get(ContextKind::InvalidSubcommand)?.to_string();
    let rows: Vec<_> = table()
        .filter_map(|[task, cryptsetup, other, ours]| {
            let program = match (has(cryptsetup, &verb), has(other, &verb)) {
                (true, _) => "cryptsetup",
                (_, true) => "qemu-img or virsh",
                _ => return None,
            };
            Some((program, task, ours))
        })
        .collect();
    let (program, ..) = rows.first()?;
    let error = CommandError::parameters(format!("`{verb}` is a command of {program}"));
    Some(rows.iter().fold(error, |error, (_, task, ours)| {
        let called = if ours.starts_with('`') {
            "luksmith "
        } else {
            ""
        };
        error.hint(format!("{task}: {called}{}", ours.replace('`', "")))
    }))
}

/// Whether a cell of the table names a command, with or without `luks` before it.
fn has(cell: &str, verb: &str) -> bool {
    let verb = verb.to_ascii_lowercase();
    let bare = verb.strip_prefix("luks").unwrap_or(&verb);
    cell.split('`').skip(1).step_by(2).any(|code| {
        let name = code
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        name == verb || name == bare
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_is_a_line_and_its_hints() {
        let text = "error: unexpected argument '-5' found\n\n  tip: to pass '-5' as a value, use '-- -5'\n\nUsage: luksmith create \
                    <IMAGE>\n\nFor more information, try '--help'.\n";
        let error = lines(text, None);
        assert_eq!(error.line(), "unexpected argument '-5' found");
        assert_eq!(
            error.hints(),
            [
                "to pass '-5' as a value, use '-- -5'",
                "usage: luksmith create <IMAGE>",
                "--help explains every option"
            ]
        );
    }

    #[test]
    fn every_row_of_the_table_names_a_command_of_this_program() {
        let command = crate::cli::command();
        let mut rows = 0;
        for [task, _, _, ours] in table() {
            let first = ours.split('`').nth(1).unwrap_or_default();
            let mut command = &command;
            let mut found = false;
            for word in first.split(' ') {
                let Some(sub) = command.find_subcommand(word) else {
                    break;
                };
                (command, found) = (sub, true);
            }
            assert!(
                found && !command.has_subcommands() || first == "config",
                "{task}: {ours}"
            );
            rows += 1;
        }
        assert!(rows > 25, "{rows} rows");
    }
}
