//! Errors as the user sees them: what failed, its causes, what to do, and the exit code.

use std::fmt;
use std::process::ExitCode;

/// The documented exit codes of every command (`pelton --help`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command was understood and did not succeed.
    Failed = 1,
    /// The command line, a manifest or a configuration is wrong. clap uses 2 as well.
    Usage = 2,
    /// No broker answered.
    Unreachable = 3,
    /// The broker stopped because its storage failed; records that were not acknowledged may be lost.
    Storage = 4,
}

/// An error with an exit code and, if known, what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// A failure of the operation itself.
pub(crate) fn failed(what: impl Into<String>) -> anyhow::Error {
    Failure::new(Exit::Failed, what).into()
}

/// Something in the command line or a file the user wrote.
pub(crate) fn usage(what: impl Into<String>) -> anyhow::Error {
    Failure::new(Exit::Usage, what).into()
}

/// Prints what the user should know beside a success.
#[expect(clippy::print_stderr, reason = "stdout is for what was asked for")]
pub(crate) fn warn(what: &str) {
    eprintln!("warning: {what}");
}

/// Prints the error with its causes and hints to stderr, and gives the exit code.
#[expect(clippy::print_stderr, reason = "this is where errors reach the user")]
pub(crate) fn exit(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // `pelton consume … | head` is not an error
    }
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
    let known = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    for failure in error.chain().filter_map(|cause| cause.downcast_ref::<Failure>()) {
        if let Some(hint) = &failure.hint {
            eprintln!("  hint: {hint}");
        }
    }
    ExitCode::from(known.map_or(Exit::Failed, |failure| failure.exit) as u8)
}

/// Tells what is missing from an answer that is given all the same.
#[expect(clippy::print_stderr, reason = "what is no data goes to standard error")]
pub(crate) fn note(text: &str) {
    eprintln!("note: {text}");
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
