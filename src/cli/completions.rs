//! `luksmith completions`: prints the completions for a shell.

use clap_complete::Shell;

use luksmith_formats::json::json;

use super::Session;
use super::error::CommandError;

/// Print the completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  luksmith completions bash > ~/.local/share/bash-completion/completions/luksmith
  luksmith completions fish > ~/.config/fish/completions/luksmith.fish";

impl Args {
    /// Prints the script for `command`, which has all subcommands.
    pub(crate) fn run(
        self,
        session: &Session,
        mut command: clap::Command,
    ) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "luksmith", &mut script);
        if session.json {
            let script = String::from_utf8_lossy(&script);
            let shell = self.shell.to_string();
            session
                .output
                .json(&json!({ "shell": shell, "script": script }));
        } else {
            session.output.bytes(&script);
        }
        Ok(())
    }
}
