//! `luksmith completions`: prints the completions for a shell.
//!
//! Completion of an argument tries files, and of a SOURCE also the forms that it can have: the
//! script of clap is changed in these places.

use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

use luksmith_formats::json::json;

use super::Session;
use super::error::CommandError;
use super::passphrase;

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
  luksmith completions zsh > ~/.zfunc/_luksmith      # a directory of $fpath
  luksmith completions fish > ~/.config/fish/completions/luksmith.fish";

impl Args {
    /// Prints the script for `command`, which has all subcommands.
    pub(crate) fn run(self, session: &Session, command: Command) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut hinted(command), "luksmith", &mut script);
        let script = String::from_utf8_lossy(&script);
        let script = match self.shell {
            Shell::Bash => bash(&script),
            Shell::Zsh => zsh(&script),
            Shell::Fish => fish(&script),
            _ => script.into_owned(),
        };
        if session.json {
            let shell = self.shell.to_string();
            session
                .output
                .json(&json!({ "shell": shell, "script": script }));
        } else {
            session.output.bytes(script.as_bytes());
        }
        Ok(())
    }
}

/// The command, with a hint for each option whose value is not one of a list: a path or not.
fn hinted(command: Command) -> Command {
    let hint = |arg: Arg| {
        let name = arg.get_value_names().and_then(<[_]>::first);
        match name.map(|name| name.as_str()) {
            _ if arg.is_positional() || !arg.get_action().takes_values() => arg,
            None | Some("SOURCE") => arg,
            Some("FILE" | "PATH" | "SOCKET" | "IMAGE") => arg.value_hint(ValueHint::FilePath),
            Some("DIR") => arg.value_hint(ValueHint::DirPath),
            Some(_) => arg.value_hint(ValueHint::Other),
        }
    };
    command.mut_args(hint).mut_subcommands(hinted)
}

/// Bash splits `--key=fi` at the `=`, which is then the word before the present one, or that word
/// itself.
const BESIDE_EQUALS: &str = r#"    [[ "${cur}" != "=" ]] || cur=""
    [[ "${prev}" != "=" ]] || prev="${COMP_WORDS[COMP_CWORD-2]}"
"#;

/// A command without subcommands gets options only after a `-`. Otherwise the function completes
/// nothing, and bash completes files.
fn bash(script: &str) -> String {
    let mut done = String::new();
    let (mut of_source, mut has_commands) = (false, false);
    for line in script.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("opts=\"") {
            has_commands = words
                .trim_end_matches('"')
                .split(' ')
                .any(|word| !word.starts_with('-'));
        }
        if text == "prev=\"$3\"" {
            done += &format!("{line}\n{BESIDE_EQUALS}");
        } else if text.starts_with("if [[ ${cur} == -* ||") && !has_commands {
            done += "            if [[ ${cur} == -* ]] ; then\n";
        } else if of_source && text.starts_with("COMPREPLY=") {
            let sources = passphrase::forms().join(" ");
            done += &format!(
                "                    COMPREPLY=( $(compgen -W \"{sources}\" -- \"${{cur}}\") )\n\
                 \x20                   [[ \"${{COMPREPLY[0]}}\" != *: ]] || compopt -o nospace\n"
            );
        } else {
            done += line;
            done.push('\n');
        }
        of_source = matches!(text, "--key)" | "--new-key)");
    }
    done
}

fn zsh(script: &str) -> String {
    let sources = passphrase::forms().join(" ");
    let function = format!(
        "_luksmith_source() {{\n    \
             if compset -P 'file:' || compset -P 'command:'; then _files; else compadd -S '' -- {sources}; fi\n\
         }}\n\n_luksmith() {{\n"
    );
    script
        .replace(":SOURCE:_default'", ":SOURCE:_luksmith_source'")
        .replacen("_luksmith() {\n", &function, 1)
}

fn fish(script: &str) -> String {
    let sources = passphrase::forms().join(" ");
    script
        .lines()
        .map(|line| {
            let of_source = line.contains(" -l key -d ") || line.contains(" -l new-key -d ");
            match of_source {
                true => format!("{line} -a '{sources}'\n"),
                false => format!("{line}\n"),
            }
        })
        .collect()
}
