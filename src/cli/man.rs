//! `luksmith man`: writes the manual pages, from the same arguments as `--help`.

use std::path::{Path, PathBuf};

use clap_mangen::Man;
use luksmith_formats::json::json;

use super::Session;
use super::args::LocalFile;
use super::error::{CommandError, Kind, failed};

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
    pub(crate) fn run(
        self,
        session: &Session,
        mut command: clap::Command,
    ) -> Result<(), CommandError> {
        command.build();
        match self.out {
            Some(directory) => {
                std::fs::create_dir_all(&directory)
                    .map_err(|error| failed("make", &directory, error))?;
                let mut pages = Vec::new();
                write_all(&directory, &command, "luksmith", &mut pages)?;
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

fn page(command: &clap::Command, name: &str) -> Result<Vec<u8>, CommandError> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .render(&mut page)
        .map_err(|error| {
            CommandError::new(Kind::Storage, error).about("cannot write a manual page")
        })?;
    Ok(page)
}

fn write_all(
    directory: &Path,
    command: &clap::Command,
    name: &str,
    pages: &mut Vec<PathBuf>,
) -> Result<(), CommandError> {
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command, name)?).map_err(|error| failed("write", &path, error))?;
    pages.push(path);
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let name = format!("{name}-{}", sub.get_name());
        write_all(directory, sub, &name, pages)?;
    }
    Ok(())
}
