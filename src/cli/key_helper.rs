//! The program as a helper of a key store: under the name `key-NAME`.

use std::io::Write as _;
use std::process::ExitCode;

use luksmith::helpers;

use super::{log, output};

/// Runs as the helper that the program's own name says, if it says one.
pub(crate) fn run() -> Option<ExitCode> {
    let program = std::env::args_os().next()?;
    let name = helpers::name_of(&program)?;
    log::start(0);
    output::harden();
    let ran = helpers::run(name, std::env::args_os());
    let printed = ran.map(|revision| match revision {
        Some(revision) => writeln!(std::io::stdout(), "{revision}").is_ok(),
        None => true,
    });
    Some(match printed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            // The program that runs helpers shows the line with their name.
            let line = failure.to_string();
            if !line.is_empty() {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            ExitCode::from(failure.code())
        }
    })
}
