//! The command line, and the only place that prints.
//!
//! It turns arguments into tasks of the library, asks the user, and prints. Rules of the interface:
//!
//! - Results go to stdout, all else to stderr: prompts, questions, progress, notes, errors. With
//!   `--json`, stdout is one JSON document, and stderr has a JSON object in each line. The library
//!   makes the lines and the documents (`luksmith::task::outcome`).
//! - A failure is `luksmith: error: …` with its sources joined by `: `, then any number of
//!   `luksmith: hint:` lines, each of which names the flag or command that helps. Messages are in
//!   lower case without a full stop. [`error`] has the exit codes, [`verdicts`] the hints.
//! - Nothing is destroyed silently. The command says what would be lost, and asks on a terminal or
//!   needs `--force WHAT` ([`force`]).
//! - Secrets never come from arguments or the environment ([`passphrase`]), and are never printed.
//!   Files that hold keys have mode 0600.
//! - Work that takes over a second shows its progress, only on a terminal ([`progress`]).
//! - An interruption leaves nothing half done, or says exactly what is left ([`signals`]).
//!
//! A subcommand is one file with its arguments, its examples and its `run`.

mod advice;
mod args;
mod arguments;
mod audit;
mod benchmark;
mod called;
mod completions;
mod config;
mod convert;
mod copy;
mod create;
mod decrypt;
mod dm_table;
mod encrypt;
mod error;
mod force;
mod header;
mod help;
mod identify;
mod info;
mod inspect;
mod kernel;
mod key;
mod key_helper;
mod libvirt;
mod log;
mod make;
mod man;
mod mount;
mod notes;
mod objects;
mod open;
mod output;
mod passphrase;
mod progress;
mod qemu;
mod qr;
mod readiness;
mod reencrypt;
mod resize;
mod serve;
mod serving;
mod session;
mod signals;
mod size;
mod streams;
mod strength;
mod table;
mod terminal;
mod token;
mod trust;
mod unmount;
mod usage;
mod verdicts;
mod verify_ciphertext;

use std::process::ExitCode;
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use luksmith_formats::json::json;

use error::{CommandError, Kind};
use progress::ProgressMode;
use session::Session;
use terminal::Color;

/// Create, open and maintain LUKS1 and LUKS2 volumes without root, device-mapper or mounting.
#[derive(Debug, Parser)]
#[command(name = "luksmith", version, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: Global,
}

/// The options of every subcommand.
#[derive(Debug, clap::Args)]
#[command(next_display_order = 900)]
struct Global {
    /// Print more on stderr (twice: for debugging); LUKSMITH_LOG takes a filter such as
    /// `luksmith=debug`
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,

    /// Print the result as JSON; errors and notes are lines of JSON on stderr
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,

    /// Print only what was asked for, warnings and errors: not what a command did, no notes, no
    /// progress. Questions are still asked
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Output"
    )]
    quiet: bool,

    /// When words such as error are coloured. auto: on a terminal, unless NO_COLOR, CLICOLOR=0 or
    /// TERM=dumb forbid it; CLICOLOR_FORCE=1 colours a pipe too
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Output"
    )]
    color: Color,

    /// Also look for key-NAME, the helper of a SOURCE helper:NAME, in this directory. It has to
    /// belong to root or to you, and no other user may write to it or to its parents
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        value_parser = args::LocalFile,
        help_heading = "Passphrase"
    )]
    helper_dir: Vec<std::path::PathBuf>,

    /// How to show the progress of long work on stderr: bars on a terminal, JSON lines, or nothing
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        default_value = "auto",
        help_heading = "Output"
    )]
    progress: ProgressMode,
}

const EXAMPLES: &str = "\
Examples:
  luksmith create disk.img --size 10G         a new volume in a file; the guest sees 10 GiB
  luksmith encrypt plain.img disk.img         encrypt a plain image into a new volume
  luksmith info disk.img                      its header and keyslots
  luksmith key add disk.img                   add another passphrase
  luksmith decrypt disk.img plain.img         decrypt it again
  luksmith inspect --format qcow2 upload.img  check an untrusted image
  luksmith audit --connect qemu:///system     check the security of libvirt's domains and secrets
  luksmith serve disk.img --socket vm/disk.sock   serve the plaintext to QEMU, over NBD
  luksmith libvirt secret list                libvirt's secrets, and what they open

Exit codes:
  0 done                 1 wrong parameters            2 no permission, or wrong passphrase
  3 out of memory        4 wrong device or header      5 busy, or exists
  130 interrupted        141 the reader of the output exited
Verdicts:
  6 inspect: against the policy                  10 inspect: rejected
  7 --trust: the volume is not as it is pinned
  11 audit, verify-ciphertext, libvirt rotate and rekey with --check: there are findings";

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    Encrypt(encrypt::Args),
    Decrypt(decrypt::Args),
    Copy(Box<copy::Args>),
    Info(info::Args),
    Inspect(inspect::Args),
    Identify(identify::Args),
    Audit(audit::Args),
    #[command(subcommand)]
    Key(key::Command),
    #[command(subcommand)]
    Header(header::Command),
    Convert(convert::Args),
    #[command(subcommand)]
    Token(token::Command),
    Config(config::Args),
    Resize(resize::Args),
    Reencrypt(Box<reencrypt::Args>),
    Serve(serve::Args),
    Mount(Box<mount::Args>),
    Unmount(unmount::Args),
    #[command(subcommand)]
    Qemu(qemu::Command),
    #[command(subcommand)]
    Libvirt(libvirt::Command),
    #[command(subcommand)]
    Objects(objects::Command),
    #[command(subcommand)]
    Trust(trust::Command),
    VerifyCiphertext(verify_ciphertext::Args),
    Benchmark(benchmark::Args),
    DmTable(dm_table::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// What to do after a writer that could not close its volume.
const NOT_CLOSED: &str = "`luksmith objects take-over VOLUME` ends this writer, and gives the store \
                          what only its journal=PATH has";

/// The whole program.
pub(crate) fn main() -> ExitCode {
    if let Some(code) = key_helper::run() {
        return code;
    }
    let (cli, name) = match parse() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let began = Instant::now();
    let events = cli.global.progress == ProgressMode::Json;
    if events {
        output::event("start", &json!({ "command": name }));
    }
    let outcome = prepare(&cli.global, name.clone()).and_then(|session| {
        let outcome = cli.command.run(&session);
        // Their writers are dropped with the command, and only then give the store the rest.
        let mut not_closed = luksmith::task::objects::not_closed().into_iter();
        let outcome = outcome.and_then(|()| match not_closed.next() {
            None => Ok(()),
            // A writer that was fenced is not ended again: the volume belongs to another one.
            Some(error) => {
                let is_own = error.kind() != Kind::Busy;
                let error = CommandError::from(error);
                Err(error.hint_if(is_own.then(|| NOT_CLOSED.to_owned())))
            }
        });
        not_closed.for_each(output::warning);
        let printed = match &outcome {
            Ok(()) if !session.signals.interrupt().is_set() => {
                session.signals.ending(|| session.output.finish())?
            }
            _ => session.output.finish(),
        };
        printed.and(outcome)
    });
    let code = match outcome {
        Ok(()) => 0,
        Err(error) => {
            let error = error.of_command(&command_of(&name));
            output::report(&error);
            error.exit_code()
        }
    };
    if events {
        let elapsed_ms = progress::elapsed_ms(began);
        let end = json!({ "command": name, "exit_code": code, "elapsed_ms": elapsed_ms });
        output::event("end", &end);
    }
    ExitCode::from(code)
}

/// The command with all its subcommands, for parsing, completions and manual pages.
fn command() -> clap::Command {
    help::arrange(Cli::command(), "")
}

/// The arguments, and the words of the command, such as `key add`.
fn parse() -> Result<(Cli, String), ExitCode> {
    let mut words = std::env::args_os().take_while(|word| word != "--");
    if words.any(|word| word == "--json") {
        output::write_events();
    }
    // Only help and errors of usage need the other subcommands, and the arranged texts. To make
    // these takes longer than parsing.
    let program = clap::Command::new("luksmith").version(env!("CARGO_PKG_VERSION"));
    let mut words = std::env::args_os().skip(1);
    let called = words.find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let program = <Global as clap::Args>::augment_args(program);
    let mut plain = called::with(program, &called.unwrap_or_default().to_string_lossy());
    let (command, error) = match parse_by(&mut plain) {
        Ok(parsed) => return Ok(parsed),
        Err(error) if error.kind() == ErrorKind::DisplayVersion => (plain, error),
        Err(_) => {
            let mut arranged = command();
            match parse_by(&mut arranged) {
                Ok(parsed) => return Ok(parsed),
                Err(error) => (arranged, error),
            }
        }
    };
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    Err(ExitCode::from(arguments::report(&error, &args, &command)))
}

fn parse_by(command: &mut clap::Command) -> clap::error::Result<(Cli, String)> {
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Ok((Cli::from_arg_matches(&matches)?, name(&matches)))
}

fn name(matches: &clap::ArgMatches) -> String {
    let first = matches.subcommand();
    let words = std::iter::successors(first, |(_, matches)| matches.subcommand());
    words.map(|(word, _)| word).collect::<Vec<_>>().join(" ")
}

/// The command that these words call, with the options that it shares with all commands.
fn command_of(name: &str) -> clap::Command {
    let mut command = command();
    command.build();
    for word in name.split(' ') {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub.clone();
        }
    }
    command
}

fn prepare(global: &Global, name: String) -> Result<Session, CommandError> {
    terminal::choose(global.color, global.quiet);
    log::start(global.verbose);
    output::harden();
    passphrase::use_helpers(&global.helper_dir)?;
    kernel::choose().map_err(|error| CommandError::new(Kind::Parameters, error))?;
    let progress = match global.progress {
        // A bar among JSON would be neither.
        ProgressMode::Auto if global.json => ProgressMode::None,
        other => other,
    };
    Session::new(name, global.json, progress)
}

impl Command {
    fn run(self, session: &Session) -> Result<(), CommandError> {
        match self {
            Self::Create(args) => args.run(session),
            Self::Encrypt(args) => args.run(session),
            Self::Decrypt(args) => args.run(session),
            Self::Copy(args) => args.run(session),
            Self::Info(args) => args.run(session),
            Self::Inspect(args) => args.run(session),
            Self::Identify(args) => args.run(session),
            Self::Audit(args) => args.run(session),
            Self::Key(command) => command.run(session),
            Self::Header(command) => command.run(session),
            Self::Convert(args) => args.run(session),
            Self::Token(command) => command.run(session),
            Self::Config(args) => args.run(session),
            Self::Resize(args) => args.run(session),
            Self::Reencrypt(args) => args.run(session),
            Self::Serve(args) => args.run(session),
            Self::Mount(args) => args.run(session),
            Self::Unmount(args) => args.run(session),
            Self::Qemu(command) => command.run(session),
            Self::Libvirt(command) => command.run(session),
            Self::Objects(command) => command.run(session),
            Self::Trust(command) => command.run(session),
            Self::VerifyCiphertext(args) => args.run(session),
            Self::Benchmark(args) => args.run(session),
            Self::DmTable(args) => args.run(session),
            Self::Completions(args) => args.run(session, command()),
            Self::Man(args) => args.run(session, command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_name() != "help" {
                let after = command
                    .get_after_long_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(after.contains("Examples:"), "{path} --help has no examples");
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        check(&command(), "");
    }
}
