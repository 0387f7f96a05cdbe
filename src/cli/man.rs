//! `luksmith man`: writes the manual pages, from the same arguments as `--help`.

use std::io;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;
use luksmith::task::public_files::write_public_files;
use luksmith_formats::json::json;

use super::Session;
use super::args::LocalFile;
use super::error::{CommandError, Kind};

/// Write the manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Write one page for each command to DIR; without it the main page goes to stdout
    #[arg(long, value_name = "DIR", value_parser = LocalFile)]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  luksmith man | man -l -                       read the main page
  luksmith man --out ~/.local/share/man/man1    install them all";

impl Args {
    /// Writes the pages for `command`, which has all subcommands.
    pub(crate) fn run(self, session: &Session, command: Command) -> Result<(), CommandError> {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        match self.out {
            Some(directory) => {
                let mut pages = Vec::new();
                collect(&command, "luksmith", &mut pages)?;
                let pages = write_public_files(&directory, &pages, session)?;
                if session.json {
                    let pages: Vec<_> = pages
                        .iter()
                        .map(|page| page.display().to_string())
                        .collect();
                    session
                        .output
                        .json(&json!({ "files": pages, "page": null }));
                } else {
                    let count = pages.len();
                    let line = format_args!("{}: {count} manual pages", directory.display());
                    session.output.line(line);
                }
                Ok(())
            }
            None => {
                let page = page(&command, "luksmith")?;
                if session.json {
                    let page = String::from_utf8_lossy(&page);
                    session.output.json(&json!({ "files": [], "page": page }));
                } else {
                    session.output.bytes(&page);
                }
                Ok(())
            }
        }
    }
}

/// The names and contents of the pages of a command and its subcommands.
fn collect(
    command: &Command,
    name: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), CommandError> {
    pages.push((format!("{name}.1"), page(command, name)?));
    for sub in command.get_subcommands() {
        let name = format!("{name}-{}", sub.get_name());
        collect(sub, &name, pages)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> Result<Vec<u8>, CommandError> {
    let mut page = Vec::new();
    render(command, name, &mut page).map_err(|error| {
        CommandError::new(Kind::Storage, error).about("cannot write a manual page")
    })?;
    // Each section begins with the definition of the same string.
    let mut lines: Vec<&[u8]> = page.split_inclusive(|byte| *byte == b'\n').collect();
    let (ie, el) = (lines.remove(0), lines.remove(0));
    lines.retain(|line| *line != ie && *line != el);
    Ok([&[ie, el], &lines[..]].concat().concat())
}

fn render(command: &Command, name: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone().override_usage(synopsis(command)));
    let man = man.title(name.to_uppercase());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let after = command.get_after_long_help();
    page.extend(sections(&after.map(ToString::to_string).unwrap_or_default()).bytes());
    Ok(())
}

/// How the command is called: options with the names of their values, then the positionals.
fn synopsis(command: &Command) -> String {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let (positionals, options): (Vec<&Arg>, Vec<&Arg>) = shown.partition(|arg| arg.is_positional());
    let called = command.get_bin_name().unwrap_or(command.get_name());
    let mut parts = vec![called.to_owned()];
    for option in options {
        let name = match option.get_long() {
            Some(long) => format!("--{long}"),
            None => format!("-{}", option.get_short().unwrap_or_default()),
        };
        let value = match option.get_value_names() {
            Some([value]) if option.get_action().takes_values() => format!(" {value}"),
            _ => String::new(),
        };
        let repeated = matches!(option.get_action(), ArgAction::Append | ArgAction::Count);
        parts.push(marked(option, &format!("{name}{value}"), repeated));
    }
    for positional in positionals {
        let name = positional.get_value_names().and_then(<[_]>::first);
        let name = name.map_or(positional.get_id().as_str(), |name| name.as_str());
        let repeated = matches!(positional.get_action(), ArgAction::Append);
        parts.push(marked(positional, name, repeated));
    }
    if command.has_subcommands() {
        parts.push("COMMAND".to_owned());
    }
    parts.join(" ")
}

fn marked(arg: &Arg, text: &str, repeated: bool) -> String {
    let dots = if repeated { "..." } else { "" };
    match arg.is_required_set() {
        true => format!("{text}{dots}"),
        false => format!("[{text}]{dots}"),
    }
}

/// The text at the end of `--help`: a title begins a section, and indented lines are set as they
/// are, in a fixed width.
fn sections(text: &str) -> String {
    let mut page = String::new();
    let mut code = false;
    for line in text.lines() {
        let indented = line.strip_prefix("  ");
        if code != indented.is_some() {
            page += if code { ".EE\n" } else { ".EX\n" };
            code = !code;
        }
        match line.strip_suffix(':').filter(|title| title.len() < 20) {
            Some(title) => page += &format!(".SH {}\n", title.to_uppercase()),
            None if line.is_empty() => page += ".PP\n",
            None => {
                let text = indented.unwrap_or(line).replace('\\', "\\e");
                let text = text.replace('-', "\\-").replace('\'', "\\(aq");
                page += &format!("\\&{text}\n");
            }
        }
    }
    page += if code { ".EE\n" } else { "" };
    page
}
