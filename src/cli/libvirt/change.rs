//! What `rotate` and `rekey` have in common: their options, and the end of work on several things,
//! of which some failed.

use clap::Args;
use luksmith_formats::json::{Value, json};

use super::connect::ConnectArgs;
use super::state::StateArgs;
use crate::cli::Session;
use crate::cli::args::{KeyArgs, LimitArgs, PbkdfArgs, RemoteArgs};
use crate::cli::error::{CommandError, Exit};
use crate::cli::output;

/// The options of commands that change volumes of domains and the secrets that open them.
#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    pub(super) state: StateArgs,

    #[command(flatten)]
    pub(super) connect: ConnectArgs,

    #[command(flatten)]
    pub(super) key: KeyArgs,

    #[command(flatten)]
    pub(super) pbkdf: PbkdfArgs,

    #[command(flatten)]
    pub(super) limits: LimitArgs,

    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// Failures of work on `total` things.
pub(super) struct Failures<T> {
    total: usize,
    failed: Vec<(T, CommandError)>,
}

impl<T> Failures<T> {
    pub(super) fn of(total: usize) -> Self {
        let failed = Vec::new();
        Self { total, failed }
    }

    /// Records a failure, and prints it, unless the end of the command does. `line` makes the
    /// message of the line of the error.
    pub(super) fn add(
        &mut self,
        session: &Session,
        thing: T,
        error: CommandError,
        line: impl FnOnce(String) -> String,
    ) {
        if !session.json && self.total > 1 {
            session.aside(|| {
                output::error(&line(error.line()));
                error.hints().iter().for_each(|line| output::hint(line));
            });
        }
        self.failed.push((thing, error));
    }

    /// As JSON. `named` makes an object that names the thing.
    pub(super) fn json(&self, named: impl Fn(&T) -> Value) -> Vec<Value> {
        let failure = |(thing, error): &(T, CommandError)| {
            let mut failure = named(thing);
            let why = json!({
                "kind": error.name(),
                "message": error.line(),
                "hints": error.hints(),
            });
            if let (Some(failure), Some(why)) = (failure.as_object_mut(), why.as_object()) {
                for (name, value) in why.iter() {
                    failure.insert(name, value.clone());
                }
            }
            failure
        };
        self.failed.iter().map(failure).collect()
    }

    /// The result of the command. `rest` says what did not happen to the things that failed.
    pub(super) fn end(self, rest: &str, hint: &str) -> Result<(), CommandError> {
        let (count, total) = (self.failed.len(), self.total);
        match self.failed.into_iter().next() {
            None => Ok(()),
            Some((_, first)) if total == 1 => Err(first),
            Some((_, first)) => {
                let message = format!("{count} of {total} {rest}");
                Err(CommandError::new(first.kind(), message).hint(hint))
            }
        }
    }
}

/// The result of a command that only checks: prints the findings, each as the line that `shown`
/// makes, or `none`.
pub(super) fn report<F>(
    session: &Session,
    findings: &[F],
    document: &Value,
    shown: impl Fn(&F) -> String,
    none: &str,
) -> Result<(), CommandError> {
    if session.json {
        session.output.json(document);
    } else {
        findings
            .iter()
            .for_each(|finding| session.output.line(shown(finding)));
        if findings.is_empty() {
            session.output.line(none);
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    session.output.finish()?;
    let message = format!("findings: {}", findings.len());
    Err(CommandError::new(Exit::Findings, message))
}
